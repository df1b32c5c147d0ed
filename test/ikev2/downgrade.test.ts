/**
 * Downgrade prevention (draft-ietf-ipsecme-ikev2-downgrade-prevention): who alters IKE_SA_INIT in either direction is
 * found out, also when the client proves nothing and the attacker has broken the key exchange.
 *
 *     victim ----- m1 ----->  attacker ----- m1' -----> node
 *            <---- m2' -----           <---- m2  ------
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nodeCrypto } from '#crypto/node'
import { readAuthAnswer } from '#ikev2/exchange/auth'
import type { PeerFault } from '#ikev2/fault'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY, TRANSFORM } from '#ikev2/numbers'
import type { AuthContext } from '#ikev2/proof'
import { signedMessages } from '#ikev2/transcript'
import { anonymousRequest, connect, find, isEmpty, type Pair, pair } from './pair.ts'
import { type Alter, asIs, KEY, notifyTypes, RogueClient, RogueNode, replace, responder } from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY

const strip =
  (type: number): Alter =>
  (payloads) =>
    payloads.filter((payload) => (payload as NotifyPayload).type !== type)
const stripTranscript = strip(N.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)
const stripIntermediate = strip(N.INTERMEDIATE_EXCHANGE_SUPPORTED)
/** What is left is what we offer to peers without RFC 9370. */
const stripPostQuantum: Alter = (payloads) =>
  stripIntermediate(
    replace('SA', ({ proposals }) => ({
      kind: 'SA',
      proposals: proposals.filter(({ transforms }) =>
        transforms.every(({ type }) => type < TRANSFORM.number.ADDKE1),
      ),
    }))(payloads),
  )

/** A stage whose network alters IKE_SA_INIT on its way, in either direction. */
function between(request: Alter, response: Alter): Pair {
  const stage = pair()
  stage.network.filter = (datagram) => {
    const header = decodeHeader(datagram.bytes)
    if (header.exchange !== X.IKE_SA_INIT) return datagram
    const alter = header.response ? response : request
    return { ...datagram, bytes: encodeClear(header, alter(payloadsOf(datagram.bytes))) }
  }
  return stage
}

test('both sides announce it, and AUTH covers both messages of IKE_SA_INIT', () => {
  const stage = between(asIs, asIs)
  connect(stage)
  assert.ok(find(stage.client, 'ike.established'))
  const client = new RogueClient(responder())
  assert.ok(notifyTypes(client.init()).includes(N.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH))
  assert.equal(client.auth?.fullTranscript, true)
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))
})

test('the octets: eight zeros, the message received, the message sent', () => {
  const [initRequest, initResponse] = [Uint8Array.of(1, 1), Uint8Array.of(2)]
  const messages = (role: 'initiator' | 'responder', fullTranscript: boolean): number[] => [
    ...signedMessages({ initRequest, initResponse, fullTranscript }, role),
  ]
  const zeros = [0, 0, 0, 0, 0, 0, 0, 0]
  assert.deepEqual(messages('initiator', true), [...zeros, 2, 1, 1])
  assert.deepEqual(messages('responder', true), [...zeros, 1, 1, 2])
  assert.deepEqual(messages('initiator', false), [1, 1])
  assert.deepEqual(messages('responder', false), [2])
})

const ATTACKS: readonly (readonly [string, Alter, Alter])[] = [
  ['the announcement is taken from the request', stripTranscript, asIs],
  ['the announcement is taken from the response', asIs, stripTranscript],
  ['the announcement is taken from both', stripTranscript, stripTranscript],
  ['the additional key exchange is taken from the request', stripPostQuantum, asIs],
  ['everything is taken from everywhere', (all) => stripTranscript(stripPostQuantum(all)), stripTranscript],
  ['another notify is added to the request', (all) => [...all, notify(N.INITIAL_CONTACT)], asIs],
  ['another notify is added to the response', asIs, (all) => [...all, notify(N.INITIAL_CONTACT)]],
  ['fragmentation is taken from the response', asIs, strip(N.IKEV2_FRAGMENTATION_SUPPORTED)],
]
for (const [title, request, response] of ATTACKS)
  test(`${title}: no IKE SA, on neither side`, () => {
    const stage = between(request, response)
    connect(stage)
    assert.equal(find(stage.client, 'ike.established'), undefined)
    assert.equal(find(stage.node, 'ike.established'), undefined)
    assert.ok(find(stage.client, 'ike.closed'))
    stage.network.run(120_000)
    assert.ok(isEmpty(stage.client) && isEmpty(stage.node))
    assert.ok((stage.node.engine.counters()['auth-failed'] ?? 0) <= 1)
  })

/**
 * The attacker has broken the key exchange that it left in the request, so it knows all keys and proves "nobody" as it
 * likes. What the node then signs goes to the victim, who sent another request.
 */
function brokenKeyExchange(alter: Alter, victimReads: Partial<AuthContext>): () => unknown {
  const attacker = new RogueClient(responder()).hybrid()
  const request = attacker.initDatagram()
  const answer = attacker.init(alter)
  assert.ok(answer?.some(({ kind }) => kind === 'SA'))
  const announced = notifyTypes(alter(payloadsOf(request))).includes(N.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)
  attacker.auth = { ...attacker.auth!, fullTranscript: announced }
  const proof = attacker.authenticate()
  assert.ok(
    proof?.some(({ kind }) => kind === 'SA'),
    'the node is satisfied',
  )
  const { espCiphers: ciphers, peer, ...rest } = anonymousRequest(KEY)
  const child = { ...rest, ciphers, inboundSpi: 0x1234_5678 as never }
  const victim = { ...attacker.auth!, initRequest: request, ...victimReads }
  return () => readAuthAnswer(nodeCrypto, victim, peer, child, proof!)
}

const payloadsOf = (datagram: Uint8Array): Payload[] =>
  decodePayloads(decodeHeader(datagram).firstPayload, datagram.subarray(HEADER_LENGTH), 'request')
const authFails = (fault: unknown): boolean => (fault as PeerFault).code === 'IPP_IKE_AUTH_FAILED'

test('one-sided authentication without the extension: the victim takes a request that was altered', () => {
  brokenKeyExchange((all) => stripTranscript(stripPostQuantum(all)), { fullTranscript: false })()
})

test('with it, a broken key exchange does not help who altered the request', () => {
  assert.throws(brokenKeyExchange(stripPostQuantum, { fullTranscript: true }), authFails)
})

test('nor does striking the announcement: the node says it again under its signature', () => {
  assert.throws(
    brokenKeyExchange((all) => stripTranscript(stripPostQuantum(all)), { fullTranscript: true }),
    authFails,
  )
})

test('a peer without the extension is authenticated the plain way, in both roles', () => {
  const client = new RogueClient(responder())
  client.init(stripTranscript)
  client.auth = { ...client.auth!, fullTranscript: false }
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))

  const node = new RogueNode()
  node.init(stripTranscript)
  node.auth = { ...node.auth!, fullTranscript: false }
  node.authenticate()
  assert.ok(node.subject.last('ike.established'))
})

for (const [title, role] of [
  ['only the initiator thinks that both said it', 'initiator'],
  ['only the responder thinks that both said it', 'responder'],
] as const)
  test(`${title}: AUTHENTICATION_FAILED`, () => {
    const subject = responder()
    const client = new RogueClient(subject)
    client.init(role === 'initiator' ? stripTranscript : asIs)
    client.auth = { ...client.auth!, fullTranscript: role === 'initiator' }
    assert.deepEqual(notifyTypes(client.authenticate()), [N.AUTHENTICATION_FAILED])
    assert.equal(subject.count('auth-failed'), 1)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })

test('with an additional key exchange IntAuth follows the full transcript', () => {
  const client = new RogueClient(responder()).hybrid()
  client.init()
  client.intermediate()
  assert.equal(client.auth?.fullTranscript, true)
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))
})

test('an announcement with data, with an SPI or twice is one announcement', () => {
  const odd: Payload[] = [
    notify(N.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH, new Uint8Array(300)),
    notify(N.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH),
  ]
  const client = new RogueClient(responder())
  client.init((payloads) => [...stripTranscript(payloads), ...odd])
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))
})
