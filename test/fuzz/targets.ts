/** What is fuzzed: from single octets of the header up to whole conversations of two engines. */
import assert from 'node:assert/strict'
import { concat, fromHex } from '#base/bytes'
import { SECOND } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { ESP_CIPHERS } from '#crypto/suites'
import type { IkeKeys } from '#ikev2/events'
import { PeerFault } from '#ikev2/fault'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, encodeHeader, HEADER_LENGTH, type Header } from '#ikev2/message/header'
import { decodePayloads, encodePayloads, firstType, type Payload } from '#ikev2/message/payload'
import { checkContents } from '#ikev2/message/registry'
import { EXCHANGE, PAYLOAD } from '#ikev2/numbers'
import { DecodeError, Writer } from '#wire/cursor'
import { World } from '../ikev2/adversary.ts'
import { anonymousRequest, CLIENT, NODE, openPolicy, pathBetween } from '../ikev2/pair.ts'
import { KEY, RogueClient, RogueNode, Subject } from '../ikev2/rogue.ts'
import { mlkem, openMessage, traces } from '../ikev2/traces.ts'
import type { Target } from './loop.ts'

const { number: X } = EXCHANGE

const recorded = (): Uint8Array[] =>
  [...traces().flatMap(({ trace }) => trace.messages), ...mlkem().messages].map(({ hex }) => fromHex(hex))

/** Runs what a peer's octets may make throw. @throws anything that is not the peer's fault */
function forgive(action: () => void): void {
  try {
    action()
  } catch (error) {
    if (!(error instanceof DecodeError || error instanceof PeerFault)) throw error
  }
}

/** Everything that was begun is over, and nothing is left. */
function assertEmpty(subject: Subject): void {
  subject.sleep(120 * SECOND)
  assert.ok(subject.isEmpty, JSON.stringify(subject.engine.counters()))
  subject.outputs.length = 0
}

/** A datagram from a stranger: to the codec, to a responder, and to an initiator that waits for an answer. */
function header(): Target {
  const responder = new Subject({ responder: openPolicy(KEY), limits: { cookieAt: 8 } })
  const initiator = new Subject()
  return {
    name: 'header',
    seeds: () => [
      new RogueClient(responder).initDatagram(),
      new RogueClient(responder).hybrid().initDatagram(),
      ...recorded(),
    ],
    run(input) {
      forgive(() => {
        const decoded = decodeHeader(input)
        const writer = new Writer(HEADER_LENGTH)
        encodeHeader(writer, decoded, decoded.firstPayload, decoded.length)
        const again = concat(writer.finish(), input.subarray(HEADER_LENGTH))
        assert.deepEqual(decodeHeader(again), { ...decoded, majorVersion: 2 })
        const payloads = decodePayloads(decoded.firstPayload, input.subarray(HEADER_LENGTH), 'fuzz')
        assert.equal(encodeClear(decoded, payloads).length, input.length)
      })
      responder.hear(input)
      // To an initiator it is an answer: to its own SPI, and to the question that is out.
      initiator.engine.initiate(anonymousRequest(KEY), initiator.now)
      const [request] = initiator.drain()
      const answer = input.slice()
      answer.set(request!.subarray(0, Math.min(8, answer.length)))
      initiator.hear(answer, pathBetween(CLIENT, NODE))
    },
    settle() {
      assertEmpty(responder)
      assertEmpty(initiator)
    },
  }
}

/** A chain of payloads: the type of the first, and its octets. */
function payloads(): Target {
  return {
    name: 'payloads',
    seeds: () => [
      ...recorded().flatMap((bytes) => {
        const { firstPayload, exchange } = decodeHeader(bytes)
        return exchange === X.IKE_SA_INIT
          ? [concat(Uint8Array.of(firstPayload), bytes.subarray(HEADER_LENGTH))]
          : []
      }),
      ...bodies().map(({ first, plaintext }) => concat(Uint8Array.of(first), plaintext)),
    ],
    run(input) {
      forgive(() => {
        const decoded = decodePayloads(input[0] ?? 0, input.subarray(1), 'fuzz')
        const encoded = encodePayloads(decoded)
        assert.equal(encoded.length, Math.max(0, input.length - 1))
        assert.deepEqual(decodePayloads(firstType(decoded), encoded, 'fuzz'), decoded)
        for (const exchange of Object.values(X))
          for (const response of [false, true]) forgive(() => checkContents(exchange, response, decoded))
      })
    },
    settle() {},
  }
}

interface Body {
  readonly first: number
  readonly plaintext: Uint8Array
}

/** The insides of the recorded messages. */
const bodies = (): Body[] =>
  traces().flatMap(({ cipher, trace }) =>
    trace.messages
      .slice(2, 8)
      .map((message) => bodyOf(openMessage(message, cipher, trace.ike_sas[0]!).payloads)),
  )

const bodyOf = (of: readonly Payload[]): Body => ({ first: firstType(of), plaintext: encodePayloads(of) })

/** Where a body arrives: exchange, and how far the peers had come. */
const STAGES = [
  { exchange: X.IKE_INTERMEDIATE, at: 'half-keyed' },
  { exchange: X.IKE_AUTH, at: 'half-open' },
  { exchange: X.CREATE_CHILD_SA, at: 'established' },
  { exchange: X.INFORMATIONAL, at: 'established' },
  { exchange: X.IKE_AUTH, at: 'answer' },
] as const

/** A body under the right keys: one octet for the stage, one for the type of the first payload, then the plaintext. */
function body(): Target {
  let subjects: Subject[] = []
  return {
    name: 'body',
    seeds: () => [
      ...bodies().flatMap(({ first, plaintext }) =>
        STAGES.map((_, stage) => concat(Uint8Array.of(stage, first), plaintext)),
      ),
      ...ownBodies().map(({ stage, first, plaintext }) => concat(Uint8Array.of(stage, first), plaintext)),
    ],
    run(input) {
      const [stage = 0, first = 0] = input
      const plaintext = input.subarray(2)
      const { exchange, at } = STAGES[stage % STAGES.length]!
      if (at === 'answer') {
        const node = new RogueNode()
        node.init()
        const { subject } = node
        subjects.push(subject)
        const header = headerOf(decodeHeader(node.authRequest!), { response: true, fromInitiator: false })
        node.hear(sealRaw(keysOf(node.subject), header, first, plaintext))
        return
      }
      const subject = new Subject({ responder: openPolicy(KEY), keyLog: true })
      subjects.push(subject)
      const client = new RogueClient(subject)
      if (at === 'half-keyed') client.hybrid()
      client.init()
      if (at === 'established') client.authenticate()
      const header = client.header(exchange, client.nextId)
      subject.hear(sealRaw(keysOf(subject), header, first, plaintext))
      // Whatever it was, who is authentic can still say goodbye where there is something to end.
      if (at === 'established')
        client.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 1, spis: [] }], client.nextId + 1)
    },
    settle() {
      const all = subjects
      subjects = []
      for (const subject of all) {
        subject.sleep(1200 * SECOND)
        const left = subject.last('ike.established') === undefined ? 0 : 1
        assert.ok(
          subject.count('sas.all') <= left && subject.count('sas.half-open') === 0,
          JSON.stringify(subject.engine.counters()),
        )
      }
    },
  }
}

/** What a good client says at each stage. */
function ownBodies(): (Body & { readonly stage: number })[] {
  const client = new RogueClient(new Subject({ responder: openPolicy(KEY) }))
  client.init()
  return [
    { stage: 1, ...bodyOf(client.authPayloads()) },
    { stage: 3, ...bodyOf([]) },
    { stage: 3, ...bodyOf([{ kind: 'Delete', protocol: 3, spis: [Uint8Array.of(0x12, 0x34, 0x56, 0x78)] }]) },
    { stage: 0, ...bodyOf([{ kind: 'KE', group: 36, data: nodeCrypto.mlkem768Generate().publicKey }]) },
  ]
}

/** The keys a subject told; it must have been made with `keyLog`. */
const keysOf = (subject: Subject): IkeKeys => subject.last('keys')!

const headerOf = (
  { spiInitiator, spiResponder, exchange, messageId }: Header,
  rest: Pick<Header, 'response' | 'fromInitiator'>,
): Header => ({
  spiInitiator,
  spiResponder,
  exchange,
  messageId,
  ...rest,
})

/** SK around octets that need not be payloads (RFC 7296 section 3.14, RFC 5282). */
function sealRaw(
  { cipher, skEi, skEr }: IkeKeys,
  header: Header,
  first: number,
  plaintext: Uint8Array,
): Uint8Array {
  const key = header.fromInitiator ? skEi : skEr
  const { keyLength } = ESP_CIPHERS[cipher]
  const iv = nodeCrypto.random(8)
  const padded = concat(plaintext, Uint8Array.of(0))
  const length = 4 + iv.length + padded.length + 16
  const writer = new Writer(HEADER_LENGTH + length)
  encodeHeader(writer, header, PAYLOAD.number.SK, HEADER_LENGTH + length)
  const front = writer.u8(first).u8(0).u16(length).finish()
  const sealed = nodeCrypto
    .aead(cipher, key.subarray(0, keyLength))
    .seal(concat(key.subarray(keyLength), iv), padded, front)
  return concat(front, iv, sealed)
}

/**
 * A conversation: every pair of octets is an act of an adversary between a client and a node, or of one of the two.
 * Afterwards they are left alone, close, and must have forgotten everything.
 */
function exchange(): Target {
  return {
    name: 'exchange',
    seeds: () =>
      [
        [0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0],
        [0, 0, 2, 8, 2, 8, 8, 0, 2, 8, 9, 0, 2, 8],
        [0, 0, 2, 8, 2, 8, 8, 0, 9, 1, 1, 0, 1, 1, 2, 8],
        [0, 0, 3, 0, 2, 8, 5, 3, 6, 1, 2, 8, 10, 0, 2, 8],
        [0, 0, 1, 0, 4, 0, 7, 200, 2, 8, 2, 8, 11, 1],
        [0, 0, 2, 8, 2, 8, 9, 0, 9, 1, 8, 0, 3, 1, 2, 8, 12, 0],
      ].map((octets) => Uint8Array.from(octets)),
    run(input) {
      const world = new World({ seed: 1 + (input.length % 7), cookies: input.length % 2 === 1 })
      const { client, node } = world
      const { network, key } = world.stage
      let begun = 0
      for (let i = 0; i + 1 < Math.min(input.length, 160); i += 2) {
        const [act, value] = [input[i]! % 14, input[i + 1]!]
        const now = network.now
        const index = value % Math.max(1, world.flight.length)
        const datagram = world.flight[index]
        const past = world.history[value % Math.max(1, world.history.length)]
        const watched = value % 2 === 0 ? client : node
        const sa = [...watched.open].at(-1)
        if (act === 0 && begun++ < 4) world.stage.client.engine.initiate(anonymousRequest(key), now)
        if (act === 1 && datagram !== undefined) world.deliver(world.flight.splice(index, 1)[0]!)
        if (act === 2) for (const each of world.flight.splice(0, value % 16)) world.deliver(each)
        if (act === 3 && datagram !== undefined) world.deliver(datagram)
        if (act === 4) world.flight.splice(index, 1)
        if (act === 5 && past !== undefined) world.deliver(past)
        if (act === 6 && past !== undefined)
          world.deliver({ ...past, source: past.destination, destination: past.source })
        if (act === 7 && datagram !== undefined) {
          const at = (input[(i + 2) % input.length]! * 7) % datagram.bytes.length
          world.deliver({ ...datagram, bytes: datagram.bytes.with(at, value) })
        }
        if (act === 8 && sa !== undefined) {
          const spi = watched.child(sa)?.inboundSpi
          if (spi !== undefined) watched.host.engine.rekeyChild(sa, spi, now)
        }
        if (act === 9 && sa !== undefined) watched.host.engine.rekeyIke(sa, now)
        if (act === 10 && sa !== undefined) {
          const spi = watched.child(sa)?.inboundSpi
          if (spi !== undefined) watched.host.engine.closeChild(sa, spi, now)
        }
        if (act === 11 && sa !== undefined) watched.host.engine.close(sa, now)
        if (act === 12 && sa !== undefined) watched.host.engine.abandon(sa)
        if (act === 13) world.pass(value * 100)
        world.pass(0)
      }
      world.flow(40 * SECOND)
      world.end()
    },
    settle() {},
  }
}

export const TARGETS: Readonly<Record<string, () => Target>> = { header, payloads, body, exchange }
