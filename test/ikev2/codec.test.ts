/** decode(encode(x)) = x for any x, and no octets whatever make an engine throw. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { fromHex } from '#base/bytes'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import {
  decodePayloads,
  encodePayloads,
  firstType,
  type Payload,
  type WireSelector,
} from '#ikev2/message/payload'
import { DecodeError } from '#wire/cursor'
import { RogueClient, RogueNode, responder, type Subject } from './rogue.ts'
import { mlkem, traces } from './traces.ts'

const octet = fc.integer({ min: 0, max: 0xff })
const number16 = fc.integer({ min: 0, max: 0xffff })
const octets = (maxLength = 40, minLength = 0) => fc.uint8Array({ minLength, maxLength })
const exactly = (length: number) => octets(length, length)

/** Plain objects, as the decoder makes them. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record<T>(model, { noNullPrototype: true })

const transform = record({
  type: octet,
  id: number16,
  attributes: fc.array(
    record({ type: fc.integer({ min: 0, max: 0x7fff }), value: fc.oneof(number16, octets(8)) }),
    { maxLength: 3 },
  ),
})
const proposal = record({
  number: octet,
  protocol: octet,
  spi: octets(8),
  transforms: fc.array(transform, { maxLength: 5 }),
})
const selector = fc.oneof(
  fc.constantFrom(4, 16).chain((size) =>
    fc
      .tuple(octet, number16, number16, exactly(size), exactly(size))
      .map(([protocol, a, b, x, y]): WireSelector => {
        const [start, end] = Buffer.compare(x, y) <= 0 ? [x, y] : [y, x]
        return { kind: 'range', protocol, startPort: Math.min(a, b), endPort: Math.max(a, b), start, end }
      }),
  ),
  fc
    .tuple(fc.integer({ min: 9, max: 255 }), octet, octets(20))
    .map(([type, protocol, data]): WireSelector => ({ kind: 'other', type, protocol, data })),
)
const payload: fc.Arbitrary<Payload> = fc.oneof(
  record({
    kind: fc.constant('SA' as const),
    proposals: fc.array(proposal, { minLength: 1, maxLength: 3 }),
  }),
  record({ kind: fc.constant('KE' as const), group: number16, data: octets() }),
  record({
    kind: fc.constantFrom('IDi' as const, 'IDr' as const),
    id: record({ type: octet, data: octets() }),
  }),
  record({ kind: fc.constantFrom('CERT' as const, 'CERTREQ' as const), encoding: octet, data: octets() }),
  record({ kind: fc.constant('AUTH' as const), method: octet, data: octets() }),
  record({ kind: fc.constantFrom('Nonce' as const, 'Vendor' as const, 'EAP' as const), data: octets() }),
  record({
    kind: fc.constant('Notify' as const),
    protocol: octet,
    spi: octets(8),
    type: number16,
    data: octets(),
  }),
  fc.oneof(
    fc.constant<Payload>({ kind: 'Delete', protocol: 1, spis: [] }),
    record({
      kind: fc.constant('Delete' as const),
      protocol: fc.constantFrom(2, 3),
      spis: fc.array(exactly(4), { maxLength: 5 }),
    }),
  ),
  record({
    kind: fc.constantFrom('TSi' as const, 'TSr' as const),
    selectors: fc.array(selector, { minLength: 1, maxLength: 4 }),
  }),
  record({
    kind: fc.constant('CP' as const),
    type: octet,
    attributes: fc.array(
      fc.oneof(
        record({ type: fc.constantFrom(1, 2), data: fc.oneof(exactly(0), exactly(4)) }),
        record({ type: fc.constant(8), data: fc.oneof(exactly(0), exactly(17)) }),
        record({ type: fc.integer({ min: 9, max: 0x7fff }), data: octets(20) }),
      ),
      { maxLength: 4 },
    ),
  }),
  record({
    kind: fc.constant('Unknown' as const),
    type: fc.integer({ min: 60, max: 255 }),
    critical: fc.boolean(),
    data: octets(),
  }),
)

test('decode(encode(payloads)) = payloads', () => {
  fc.assert(
    fc.property(fc.array(payload, { maxLength: 8 }), (payloads) => {
      assert.deepEqual(decodePayloads(firstType(payloads), encodePayloads(payloads), 'test'), payloads)
    }),
    { numRuns: 500, seed: 1 },
  )
})

/**
 * Accepted octets come back as they were, but for reserved bits, which are ignored on receipt and zero on sending.
 * One octet of a chain without reserved bits is changed, so only that one may come back with bits cleared - unless it
 * made another kind of payload, which has its reserved bits elsewhere.
 */
test('encode(decode(octets)) = octets, of octets that are accepted', () => {
  let accepted = 0
  fc.assert(
    fc.property(
      fc.array(payload, { minLength: 1, maxLength: 4 }),
      fc.nat(),
      octet,
      (payloads, place, value) => {
        const bytes = encodePayloads(payloads)
        const at = place % bytes.length
        bytes[at] = value
        let decoded: Payload[]
        try {
          decoded = decodePayloads(firstType(payloads), bytes, 'test')
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error))
          return
        }
        accepted++
        const again = encodePayloads(decoded)
        assert.equal(again.length, bytes.length)
        for (const [i, each] of again.entries()) assert.equal(each & bytes[i]!, each, 'a bit appeared')
        if (decoded.every(({ kind }, i) => kind === payloads[i]?.kind))
          assert.deepEqual(again.with(at, value), bytes)
        assert.deepEqual(decodePayloads(firstType(payloads), again, 'test'), decoded)
      },
    ),
    { numRuns: 3000, seed: 9 },
  )
  assert.ok(accepted > 1000, `${accepted} were accepted`)
})

test('decode(encode(header)) = header', () => {
  const header = record({
    spiInitiator: exactly(8),
    spiResponder: exactly(8),
    exchange: octet,
    fromInitiator: fc.boolean(),
    response: fc.boolean(),
    messageId: fc.integer({ min: 0, max: 0xffffffff }),
  })
  fc.assert(
    fc.property(header, (given) => {
      const { firstPayload, majorVersion, length, ...rest } = decodeHeader(encodeClear(given, []))
      assert.deepEqual(rest, given)
      assert.deepEqual([firstPayload, majorVersion, length], [0, 2, HEADER_LENGTH])
    }),
    { numRuns: 200, seed: 2 },
  )
})

test('a decoder fails with DecodeError or not at all', () => {
  fc.assert(
    fc.property(octet, octets(200), (first, bytes) => {
      try {
        decodePayloads(first, bytes, 'test')
      } catch (error) {
        assert.ok(error instanceof DecodeError, String(error))
      }
    }),
    { numRuns: 3000, seed: 3 },
  )
})

/** Every message of the traces, and of our own, with octets changed, cut or doubled. */
const SEEDS: readonly Uint8Array[] = [
  ...traces().flatMap(({ trace }) => trace.messages),
  ...mlkem().messages,
].map(({ hex }) => fromHex(hex))

const mutation = record({
  seed: fc.nat(),
  edits: fc.array(fc.tuple(fc.nat(), octet), { maxLength: 6 }),
  cut: fc.option(fc.nat(), { freq: 4 }),
  keepLength: fc.boolean(),
})

function mutate(
  seeds: readonly Uint8Array[],
  m: { seed: number; edits: [number, number][]; cut: number | null; keepLength: boolean },
): Uint8Array {
  const original = seeds[m.seed % seeds.length]!
  const bytes = original.slice(0, m.cut === null ? original.length : m.cut % (original.length + 1))
  for (const [at, value] of m.edits) if (bytes.length > 0) bytes[at % bytes.length] = value
  if (m.keepLength && bytes.length >= HEADER_LENGTH) new DataView(bytes.buffer).setUint32(24, bytes.length)
  return bytes
}

test('random and mutated datagrams never throw out of a responder, and leave at most half-open IKE SAs', () => {
  const subject = responder()
  const own = [new RogueClient(subject).initDatagram(), ...SEEDS]
  fc.assert(
    fc.property(
      fc.oneof(
        octets(300),
        mutation.map((m) => mutate(own, m)),
      ),
      (bytes) => {
        subject.hear(bytes)
        assert.equal(subject.last('ike.established'), undefined)
      },
    ),
    { numRuns: 3000, seed: 4 },
  )
  subject.sleep(60_000)
  assert.ok(subject.isEmpty)
})

test('mutated datagrams never throw out of either side of an established IKE SA, nor end it', () => {
  const client = new RogueClient(responder()).establish()
  const node = new RogueNode()
  node.init()
  node.authenticate()
  const cases: readonly (readonly [Subject, (bytes: Uint8Array) => void, Uint8Array[]])[] = [
    [client.subject, (bytes) => client.subject.hear(bytes), [client.seal(37, [], 2), client.seal(36, [], 2)]],
    [node.subject, (bytes) => node.hear(bytes), [node.seal(37, 0, []), node.seal(37, 0, [], true)]],
  ]
  for (const [subject, hear, seeds] of cases) {
    const originals = new Set(seeds.map(String))
    fc.assert(
      fc.property(
        mutation.map((m) => mutate(seeds, m)),
        (bytes) => {
          if (!originals.has(String(bytes))) hear(bytes)
          assert.equal(subject.last('ike.closed'), undefined)
        },
      ),
      { numRuns: 1500, seed: 5 },
    )
  }
})

test('authentic nonsense never throws out of a responder', () => {
  fc.assert(
    fc.property(
      fc.array(payload, { maxLength: 5 }),
      fc.constantFrom(35, 36, 37, 43, 99),
      fc.boolean(),
      (payloads, exchange, established) => {
        const client = new RogueClient(responder())
        if (established) client.establish()
        else client.init()
        client.ask(exchange, payloads)
        client.subject.sleep(60_000)
        const left = client.subject.count('sas.all')
        assert.ok(left === 0 || (established && left === 1))
      },
    ),
    { numRuns: 200, seed: 6 },
  )
})

test('authentic nonsense never throws out of an initiator', () => {
  fc.assert(
    fc.property(fc.array(payload, { maxLength: 5 }), (payloads) => {
      const node = new RogueNode()
      node.init()
      node.respond(35, 1, payloads)
      assert.ok(node.subject.last('ike.closed'))
      assert.ok(node.subject.isEmpty)
    }),
    { numRuns: 200, seed: 7 },
  )
})

test('unprotected nonsense never throws out of an initiator', () => {
  fc.assert(
    fc.property(fc.array(payload, { maxLength: 5 }), (payloads) => {
      const node = new RogueNode()
      node.clear(payloads)
      node.subject.sleep(60_000)
      assert.ok(node.subject.isEmpty)
    }),
    { numRuns: 200, seed: 8 },
  )
})
