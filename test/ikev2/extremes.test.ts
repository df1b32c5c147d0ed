/** What broke other daemons and has no place in negative.test.ts: sizes at their limits, orders, and what is ignored. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nodeCrypto } from '#crypto/node'
import { initOffer } from '#ikev2/exchange/init'
import { HEADER_LENGTH } from '#ikev2/message/header'
import { encodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY, PAYLOAD, TRANSFORM } from '#ikev2/numbers'
import { type Alter, RogueClient, RogueNode, replace, responder } from './rogue.ts'

const { number: X } = EXCHANGE
/** What a payload length of 65535 leaves for the data behind the widest fixed part. */
const HUGE = new Uint8Array(0xffff - 4 - 8).fill(0x41)

const hugePayloads: readonly Payload[] = [
  { kind: 'CERT', encoding: 4, data: HUGE },
  { kind: 'CERTREQ', encoding: 4, data: HUGE },
  { kind: 'KE', group: 31, data: HUGE },
  { kind: 'Nonce', data: HUGE },
  { kind: 'IDi', id: { type: 11, data: HUGE } },
  { kind: 'IDr', id: { type: 11, data: HUGE } },
  { kind: 'AUTH', method: 14, data: HUGE },
  { kind: 'Vendor', data: HUGE },
  notify(NOTIFY.number.COOKIE, HUGE),
  notify(NOTIFY.number.SIGNATURE_HASH_ALGORITHMS, HUGE),
  { kind: 'CP', type: 1, attributes: [{ type: 1, data: HUGE.subarray(4) }] },
  { kind: 'Unknown', type: 200, critical: false, data: HUGE },
]

for (const huge of hugePayloads) {
  const name = huge.kind === 'Notify' ? `Notify ${NOTIFY.nameOf(huge.type)}` : huge.kind
  test(`CVE-2025-9242: ${name} of 64 KiB, in the clear and protected: no throw, no state`, () => {
    const subject = responder()
    new RogueClient(subject).init((payloads) => withHuge(payloads, huge))
    const client = new RogueClient(subject)
    client.init()
    client.ask(X.IKE_AUTH, withHuge(client.authPayloads(), huge))
    subject.sleep(60_000)
    // Where it may stand and means nothing, it is skipped, and the peer is as good as any.
    const established = subject.outputs.filter(({ kind }) => kind === 'ike.established').length
    assert.equal(subject.count('sas.all'), established)
    assert.ok(established === 0 || huge.kind === 'CERT' || SKIPPED.has(huge.kind), name)
  })
}

const SKIPPED: ReadonlySet<string> = new Set(['CERTREQ', 'Vendor', 'Unknown', 'Notify'])

/** In the place of its kind, or behind all others. */
function withHuge(payloads: readonly Payload[], huge: Payload): Payload[] {
  const changed = payloads.map((payload) =>
    payload.kind === huge.kind && huge.kind !== 'Notify' ? huge : payload,
  )
  return changed.includes(huge) ? changed : [...changed, huge]
}

test('CVE-2016-3071: whatever we offer, we can do: every transform of our proposals is taken on its own', () => {
  const { proposals } = initOffer(nodeCrypto)
  let ciphers = 0
  for (const type of [TRANSFORM.number.ENCR, TRANSFORM.number.PRF]) {
    const ids = new Set(
      proposals.flatMap(({ transforms }) =>
        transforms.filter((each) => each.type === type).map(({ id }) => id),
      ),
    )
    for (const id of ids) {
      const only: Alter = replace('SA', (sa) => ({
        ...sa,
        proposals: sa.proposals.map((proposal) => ({
          ...proposal,
          transforms: proposal.transforms.filter((each) => each.type !== type || each.id === id),
        })),
      }))
      const client = new RogueClient(responder())
      client.init(only)
      assert.ok(
        client.authenticate()?.some(({ kind }) => kind === 'SA'),
        `transform ${id} of type ${type}`,
      )
      ciphers++
    }
  }
  assert.ok(ciphers >= 3)
})

test('OpenBSD 7.8 errata 027: messages in every wrong order: no throw, and only the right order establishes', () => {
  const steps = ['init', 'auth', 'create', 'inform'] as const
  for (const order of permutations(steps)) {
    const subject = responder()
    // Messages that are authentic where keys exist, with the message ID that is expected.
    const client = new RogueClient(subject)
    let next = 1
    const ask = (exchange: number, payloads: readonly Payload[]): void => {
      if (client.channel !== undefined && client.ask(exchange, payloads, next) !== undefined) next++
    }
    for (const step of order) {
      if (step === 'init') client.init()
      if (step === 'auth' && client.auth !== undefined) ask(X.IKE_AUTH, client.authPayloads())
      if (step === 'create') ask(X.CREATE_CHILD_SA, [{ kind: 'Nonce', data: new Uint8Array(32) }])
      if (step === 'inform') ask(X.INFORMATIONAL, [])
    }
    const isRight = order.indexOf('init') < order.indexOf('auth')
    assert.equal(subject.last('ike.established') !== undefined, isRight, order.join(' '))
    subject.sleep(60_000)
    assert.ok(subject.count('sas.all') <= (isRight ? 1 : 0), order.join(' '))
  }
})

test('OpenBSD 7.8 errata 027: an initiator hears answers in every wrong order', () => {
  for (const order of permutations(['auth', 'create', 'inform', 'delete'] as const)) {
    const node = new RogueNode()
    node.init()
    for (const step of order) {
      if (step === 'auth') node.authenticate()
      if (step === 'create') node.hear(node.seal(X.CREATE_CHILD_SA, 1, [], true))
      if (step === 'inform') node.hear(node.seal(X.INFORMATIONAL, 1, [], true))
      if (step === 'delete')
        node.hear(node.seal(X.INFORMATIONAL, 0, [{ kind: 'Delete', protocol: 1, spis: [] }]))
    }
    const { subject } = node
    assert.ok(subject.last('child.established'), order.join(' '))
    const isDeleted = order.indexOf('auth') < order.indexOf('delete')
    assert.equal(subject.last('ike.closed') !== undefined, isDeleted, order.join(' '))
  }
})

test('RFC 7296: the critical bit on known payloads and every reserved bit are ignored', () => {
  const subject = responder()
  const datagram = new RogueClient(subject).initDatagram()
  const chain = datagram.subarray(HEADER_LENGTH)
  // Reserved flags, the V flag and the minor version (section 3.1).
  datagram[17]! |= 0x0f
  datagram[19]! |= 0b1101_0111 & ~0x20
  for (let at = 0, type = datagram[16]!; type !== PAYLOAD.number.NONE; ) {
    const view = new DataView(chain.buffer, chain.byteOffset + at)
    const length = view.getUint16(2)
    // Section 2.5: the bit is ignored on payloads that are known; section 3.2: the others are reserved.
    view.setUint8(1, 0xff)
    if (type === PAYLOAD.number.KE) view.setUint16(6, 0xffff)
    type = view.getUint8(0)
    at += length
  }
  assert.equal(subject.hear(datagram).length, 1)
  assert.equal(subject.count('sas.half-open'), 1)
})

test('RFC 7296: reserved bits and critical bits inside SK are ignored, too', () => {
  const client = new RogueClient(responder()).establish()
  const hidden = encodePayloads([notify(NOTIFY.number.INITIAL_CONTACT)])
  hidden[1] = 0xff
  const { number: type } = PAYLOAD
  // The body of a notify whose generic header is written by the codec: a critical bit on a type that is known.
  const known: Payload = { kind: 'Unknown', type: type.Notify, critical: true, data: hidden.subarray(4) }
  assert.deepEqual(client.ask(X.INFORMATIONAL, [known]), [])
})

function permutations<T>(of: readonly T[]): T[][] {
  if (of.length === 0) return [[]]
  return of.flatMap((first, index) => permutations(of.toSpliced(index, 1)).map((rest) => [first, ...rest]))
}
