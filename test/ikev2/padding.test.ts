/** The lengths of datagrams: of the messages of a hop none tells itself from another by its length. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { MessageKey } from '#ikev2/message/encrypted'
import { decodeHeader } from '#ikev2/message/header'
import { MAX_DATAGRAM, paddingOf } from '#ikev2/message/padding'
import { notify } from '#ikev2/message/payload'
import { EXCHANGE } from '#ikev2/numbers'
import { anonymousRequest, connect, find, type Pair, pair } from './pair.ts'

const SMALL = 312

/** Every datagram as "exchange, request or response: octets", in the order sent. */
const lengths = ({ network }: Pair): string[] =>
  network.sent.map(({ bytes }) => {
    const { exchange, response } = decodeHeader(bytes)
    return `${EXCHANGE.nameOf(exchange)} ${response ? 'response' : 'request'}: ${bytes.length}`
  })

/** A telescope's hop from its first message to its last, with everything that happens in between. */
function lifeOf(stage: Pair, overrides: Parameters<typeof connect>[1] = {}): string[] {
  const { client, node, network } = stage
  const sa = connect(stage, { liveness: 20_000, ...overrides })
  network.run(60_000)
  const { child } = find(client, 'child.established')!
  client.engine.rekeyChild(sa, child.inboundSpi, network.now)
  network.run(10_000)
  client.engine.rekeyIke(sa, network.now)
  network.run(10_000)
  node.engine.closeChild(
    find(node, 'ike.established')!.sa,
    find(node, 'child.switched')!.child.inboundSpi,
    network.now,
  )
  network.run(10_000)
  client.engine.close(sa, network.now)
  network.run(30_000)
  return lengths(stage)
}

test('every protected datagram of a hop has one of two lengths, and IKE_SA_INIT one each way', () => {
  const seen = new Set(lifeOf(pair()))
  const number = (name: string): string[] => [`${name} request: ${SMALL}`, `${name} response: ${SMALL}`]
  const inits = [...seen].filter((each) => each.startsWith('IKE_SA_INIT'))
  assert.equal(inits.length, 2)
  assert.deepEqual(
    [...seen].filter((each) => !each.startsWith('IKE_SA_INIT')).sort(),
    [
      ...['CREATE_CHILD_SA', 'IKE_AUTH', 'INFORMATIONAL'].flatMap(number),
      ...['IKE_INTERMEDIATE', 'IKE_FOLLOWUP_KE'].flatMap((name) => [
        `${name} request: 1200`,
        `${name} request: ${SMALL}`,
        `${name} response: 1200`,
      ]),
    ].sort(),
  )
})

test('clients and nodes are all the same: the sequence of lengths does not depend on who they are', () => {
  const quiet = { liveness: 600_000 }
  const first = lifeOf(pair({ seed: 1 }), quiet)
  for (const seed of [2, 3, 4, 5]) assert.deepEqual(lifeOf(pair({ seed }), quiet), first)
})

test('nobody with a shared key looks like nobody without one', () => {
  const publishedKey = new Uint8Array(32).fill(7)
  const node = { seed: 1, policy: { publishedKey } }
  const credential = { kind: 'psk', key: publishedKey } as const
  assert.deepEqual(lifeOf(pair(node), { credential }), lifeOf(pair(node)))
})

test('a refusal is as long as a success', () => {
  const refusals: Parameters<typeof pair>[0][] = [
    { policy: { lease: () => undefined } },
    { policy: { admitAnonymous: () => 'IPP_IKE_REFUSED' } },
    { policy: { espCiphers: ['aes-128-gcm-16'] } },
  ]
  for (const options of refusals) {
    const stage = pair(options)
    connect(stage)
    assert.equal(find(stage.client, 'ike.closed')?.sa, 1)
    const answers = lengths(stage).filter((each) => each.startsWith('IKE_AUTH response'))
    assert.deepEqual(answers, [`IKE_AUTH response: ${SMALL}`])
  }
})

test('IKE_SA_INIT has one length for every client: also again, with a cookie', () => {
  const requests = [1, 2, 3].map((seed) => {
    const stage = pair({ seed, limits: { cookieAt: 0 } })
    stage.client.engine.initiate(anonymousRequest(stage.key), instant(0))
    stage.network.run(5_000)
    return lengths(stage)
  })
  assert.equal(requests[0]!.filter((each) => each.startsWith('IKE_SA_INIT request')).length, 2)
  assert.deepEqual(requests[1], requests[0])
  assert.deepEqual(requests[2], requests[0])
})

test('padding fits its octet, reaches a size and never more than a datagram', () => {
  const sizes = [312, 567, 822, 1077, 1200]
  for (let length = 57; length <= MAX_DATAGRAM; length++) {
    const padding = paddingOf(length)
    assert.ok(padding >= 0 && padding <= 255, `${length}`)
    assert.ok(sizes.includes(length + padding), `${length}`)
  }
  assert.equal(paddingOf(MAX_DATAGRAM + 1), 0)
})

test('whatever the padding, a receiver finds the payloads', () => {
  const keying = nodeCrypto.random(36)
  const header = {
    spiInitiator: new Uint8Array(8).fill(1),
    spiResponder: new Uint8Array(8).fill(2),
    exchange: EXCHANGE.number.INFORMATIONAL,
    fromInitiator: true,
    response: false,
    messageId: 1,
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1100 }), (data) => {
      const key = new MessageKey(nodeCrypto, 'aes-256-gcm-16', keying)
      const sealed = key.seal(header, [notify(50_000, data)])
      const plaintext = key.open(sealed, sealed.length - 32)
      assert.deepEqual(plaintext?.subarray(8), data)
    }),
    { numRuns: 200 },
  )
})
