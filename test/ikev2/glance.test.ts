/** The glance of a responder under load sees what the decoder sees, or says nothing; and a flood costs no more than it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nodeCrypto } from '#crypto/node'
import { initOffer, initRequest } from '#ikev2/exchange/init'
import { encodeClear } from '#ikev2/message/encrypted'
import { glanceAt } from '#ikev2/message/glance'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { need } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { openPolicy } from './pair.ts'
import { KEY, notifyTypes, RogueClient, Subject } from './rogue.ts'

const { IKE_SA_INIT, IKE_SESSION_RESUME } = EXCHANGE.number
const OFFER = initOffer(nodeCrypto)
const COOKIE = new Uint8Array(34).fill(7)
const REQUEST = initRequest(OFFER)
const HEADER = {
  spiInitiator: new Uint8Array(8).fill(1),
  spiResponder: new Uint8Array(8),
  messageId: 0,
  fromInitiator: true,
  response: false,
}

const encode = (payloads: readonly Payload[], exchange: number = IKE_SA_INIT): Uint8Array =>
  encodeClear({ ...HEADER, exchange }, payloads)
function glance(message: Uint8Array) {
  const { exchange, firstPayload } = decodeHeader(message)
  return glanceAt(exchange, firstPayload, message)
}
const cookie: Payload = notify(NOTIFY.number.COOKIE, COOKIE)
const without = (kind: Payload['kind']): Payload[] => REQUEST.filter((payload) => payload.kind !== kind)

test('glance: nonce and cookie of an ordinary request', () => {
  assert.deepEqual(glance(encode(REQUEST)), { nonce: OFFER.nonce, cookie: undefined })
  assert.deepEqual(glance(encode([cookie, ...REQUEST])), { nonce: OFFER.nonce, cookie: COOKIE })
  assert.equal(glance(encode([...REQUEST, cookie]))?.cookie, undefined, 'a cookie is the first payload')
  const nonce: Payload = { kind: 'Nonce', data: OFFER.nonce }
  assert.deepEqual(glance(encode([cookie, nonce], IKE_SESSION_RESUME)), {
    nonce: OFFER.nonce,
    cookie: COOKIE,
  })
})

test('glance: what is not ordinary is left to the decoder', () => {
  for (const kind of ['SA', 'KE', 'Nonce'] as const) {
    assert.equal(glance(encode(without(kind))), undefined, `no ${kind}`)
    const twice = [...REQUEST, ...REQUEST.filter((payload) => payload.kind === kind)]
    assert.equal(glance(encode(twice)), undefined, `two ${kind}`)
  }
  const critical: Payload = { kind: 'Unknown', type: 200, critical: true, data: COOKIE }
  assert.equal(glance(encode([...REQUEST, critical])), undefined)
  assert.equal(glance(encode(REQUEST, IKE_SESSION_RESUME)), undefined)
  const many = Array.from({ length: 64 }, () => cookie)
  assert.equal(glance(encode([...many, ...REQUEST])), undefined)
})

test('glance: of any octets it sees what the decoder sees, or the decoder refuses them', () => {
  const request = encode([cookie, ...REQUEST])
  const change = fc.tuple(fc.nat(request.length - 1 - HEADER_LENGTH), fc.nat(255))
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.boolean(), (changes, cut) => {
      const message = cut ? request.slice(0, HEADER_LENGTH + changes[0]![0]) : request.slice()
      for (const [at, value] of changes)
        if (HEADER_LENGTH + at < message.length) message[HEADER_LENGTH + at] = value
      const seen = glanceAt(IKE_SA_INIT, request[16]!, message)
      if (seen === undefined) return
      let payloads: readonly Payload[]
      try {
        payloads = decodePayloads(request[16]!, message.subarray(HEADER_LENGTH), '')
      } catch (error) {
        assert.equal((error as Error).name, 'DecodeError')
        return
      }
      const [first] = payloads
      assert.deepEqual(seen.nonce, need(payloads, 'Nonce').data)
      const isCookie = first?.kind === 'Notify' && first.type === NOTIFY.number.COOKIE
      assert.deepEqual(seen.cookie, isCookie ? first.data : undefined)
    }),
    { numRuns: 2000 },
  )
})

test('glance: under load nothing but the chain is read before the cookie, and the answer is no longer', () => {
  const subject = new Subject({ responder: openPolicy(KEY), limits: { cookieAt: 0 } })
  const client = new RogueClient(subject)
  // Proposals that cannot be decoded: who shows no cookie does not hear about it.
  const spoilt = (payloads: readonly Payload[]): Payload[] =>
    payloads.map((payload) => (payload.kind === 'SA' ? { kind: 'SA', proposals: [] } : payload))
  assert.deepEqual(notifyTypes(client.init(spoilt)), [NOTIFY.number.COOKIE])
  assert.equal(subject.count('cookie-demanded'), 1)
  const answer = encode([cookie])
  assert.ok(answer.length < encode(REQUEST).length)
})
