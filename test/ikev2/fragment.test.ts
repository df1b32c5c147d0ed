/** Large messages in small datagrams (RFC 7383): both ways, in bad weather, and from peers that cut them badly. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { concat, toHex } from '#base/bytes'
import { ip } from '#base/ip'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { ANY_SELECTOR, type TrafficSelector } from '#ikev2/events'
import { MessageKey } from '#ikev2/message/encrypted'
import { Reassembly, sealMessage } from '#ikev2/message/fragment'
import { decodeHeader, HEADER_LENGTH, type Header } from '#ikev2/message/header'
import { MAX_DATAGRAM } from '#ikev2/message/padding'
import { decodePayloads, encodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY, PAYLOAD } from '#ikev2/numbers'
import { connect, find, isEmpty, ofKind, openPolicy, type Pair, pair } from './pair.ts'
import { KEY, notifyTypes, RogueClient, Subject } from './rogue.ts'

const { number: X } = EXCHANGE
const SECOND = 1000

// ---------------------------------------------------------------------------------------------- two engines

/** So many that IKE_AUTH takes four datagrams each way. */
const MANY: TrafficSelector[] = Array.from({ length: 120 }, (_, i) => ({
  ...ANY_SELECTOR,
  startAddress: ip(`10.7.${i}.0`),
  endAddress: ip(`10.7.${i}.255`),
}))

/** A peer with a key may propose what it likes. */
function connectLarge(stage: Pair): void {
  connect(stage, {
    credential: stage.key.credential,
    requestAddress: false,
    localSelectors: MANY,
    remoteSelectors: MANY,
  })
}
const large = (options: Parameters<typeof pair>[0] = {}): Pair => {
  const stage: Pair = pair({
    ...options,
    policy: { publicKeyOf: () => stage.key.credential.publicKey, ...options.policy },
  })
  return stage
}

test('IKE_AUTH of four datagrams, each way; none is larger than 1200 octets', () => {
  const stage = large()
  connectLarge(stage)
  assert.deepEqual(find(stage.client, 'child.established')!.child.localSelectors, MANY)
  const kinds = stage.network.sent.map(({ bytes }) => PAYLOAD.nameOf(decodeHeader(bytes).firstPayload))
  assert.deepEqual(kinds.slice(5), new Array(8).fill('SKF'))
  for (const { bytes } of stage.network.sent) assert.ok(bytes.length <= MAX_DATAGRAM, `${bytes.length}`)
})

test('a rekeyed IKE SA fragments, too', () => {
  const stage = large()
  const { client, network } = stage
  connectLarge(stage)
  const { sa } = find(client, 'ike.established')!
  client.engine.rekeyIke(sa, network.now)
  network.run(SECOND)
  const from = network.sent.length
  client.engine.rekeyChild(sa, find(client, 'child.established')!.child.inboundSpi, network.now)
  network.run(SECOND)
  assert.ok(ofKind(client, 'child.switched'))
  assert.equal(decodeHeader(network.sent[from]!.bytes).firstPayload, PAYLOAD.number.SKF)
})

for (const [name, link] of Object.entries({
  'ten percent loss': { loss: 0.1, duplication: 0.05, latency: [10, 60] },
  'everything twice, in any order': { loss: 0, duplication: 1, latency: [1, 3000] },
} as const)) {
  test(`fragments with ${name}: 40 seeds`, () => {
    let established = 0
    for (let seed = 1; seed <= 40; seed++) {
      const stage = large({ seed, link })
      connectLarge(stage)
      const { client, node, network } = stage
      if (ofKind(client, 'child.established')) established++
      client.engine.close(find(client, 'ike.established')?.sa ?? (0 as never), network.now)
      network.run(300_000)
      for (const host of [client, node]) assert.ok(isEmpty(host), `seed ${seed}`)
    }
    assert.ok(established >= 36, `${established} of 40`)
  })
}

test('a lost fragment: all of them are sent again, the same octets', () => {
  const stage = large()
  let n = 0
  stage.network.filter = (datagram) => (n++ === 7 ? undefined : datagram)
  connectLarge(stage)
  assert.ok(ofKind(stage.client, 'child.established'))
  const requests = stage.network.sent
    .map(({ bytes }) => bytes)
    .filter((bytes) => {
      const header = decodeHeader(bytes)
      return header.exchange === X.IKE_AUTH && !header.response
    })
  assert.equal(requests.length, 8)
  assert.deepEqual(requests.slice(0, 4).map(toHex), requests.slice(4).map(toHex))
})

// ---------------------------------------------------------------------------------------------- cutting and joining

const HEADER: Header = {
  spiInitiator: new Uint8Array(8).fill(1),
  spiResponder: new Uint8Array(8).fill(2),
  exchange: X.INFORMATIONAL,
  messageId: 7,
  response: false,
  fromInitiator: true,
}

test('any message, cut and put together in any order, is the same message', () => {
  const keying = new Uint8Array(36).fill(3)
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 20_000 }), fc.infiniteStream(fc.nat()), (length, order) => {
      const payloads: Payload[] = [
        { kind: 'Nonce', data: new Uint8Array(length).map((_, i) => i) },
        notify(NOTIFY.number.INITIAL_CONTACT),
      ]
      const key = new MessageKey(nodeCrypto, 'aes-256-gcm-16', keying)
      const datagrams = sealMessage(key, HEADER, payloads, true)
      const shuffled = datagrams
        .map((datagram) => [order.next().value, datagram] as const)
        .sort(([a], [b]) => a - b)
      const reassembly = new Reassembly()
      let whole: Uint8Array | undefined
      for (const [, datagram] of shuffled) {
        assert.ok(datagram.length <= MAX_DATAGRAM)
        const [sk] = decodePayloads(decodeHeader(datagram).firstPayload, datagram.subarray(HEADER_LENGTH), '')
        if (sk?.kind !== 'SK' && sk?.kind !== 'SKF') throw new Error('not sealed')
        const isPiece = sk.kind === 'SKF'
        const plaintext = key.open(datagram, sk.data.length - (isPiece ? 4 : 0))!
        const opened = { firstPayload: sk.inner, plaintext, front: datagram.subarray(0, 32) }
        const fragment = { number: (sk.data[0]! << 8) | sk.data[1]!, total: (sk.data[2]! << 8) | sk.data[3]! }
        assert.equal(whole, undefined)
        whole = reassembly.take(
          7,
          isPiece ? { ...opened, fragment } : opened,
          nodeCrypto.hash('sha256', datagram),
          instant(0),
        )?.plaintext
      }
      assert.deepEqual(whole, encodePayloads(payloads))
      assert.equal(reassembly.deadline, undefined)
    }),
    { numRuns: 60 },
  )
})

// ---------------------------------------------------------------------------------------------- rogues

/** A client that cuts messages by hand, with the key of its channel: the subject logs it. */
class Cutter extends RogueClient {
  override mayFragment = true
  #key: MessageKey | undefined

  cut(messageId: number, pieces: readonly Piece[], inner: number): Uint8Array[] {
    this.#key ??= new MessageKey(nodeCrypto, 'aes-256-gcm-16', this.subject.last('keys')!.skEi)
    const header = this.header(X.INFORMATIONAL, messageId)
    return pieces.map(({ piece, ...which }) =>
      this.#key!.sealFragment(header, which.number === 1 ? inner : 0, piece, which),
    )
  }
}

interface Piece {
  readonly number: number
  readonly total: number
  readonly piece: Uint8Array
}

function established(): { readonly client: Cutter; readonly subject: Subject } {
  const subject = new Subject({ responder: openPolicy(KEY), keyLog: true })
  const client = new Cutter(subject)
  client.establish()
  return { client, subject }
}

/** A question in pieces: nothing but a notify that means nothing to anybody. */
const QUESTION: readonly Payload[] = [
  { kind: 'Notify', protocol: 0, spi: new Uint8Array(0), type: 50_000, data: new Uint8Array(600).fill(7) },
]
function pieces(total: number): Piece[] {
  const content = encodePayloads(QUESTION)
  const size = Math.ceil(content.length / total)
  return Array.from({ length: total }, (_, i) => ({
    number: i + 1,
    total,
    piece: content.subarray(i * size, (i + 1) * size),
  }))
}
const NOTIFY_TYPE = PAYLOAD.number.Notify

test('pieces in any order, twice and with strangers between them: one answer', () => {
  const { client, subject } = established()
  const [a, b, c] = client.cut(2, pieces(3), NOTIFY_TYPE) as [Uint8Array, Uint8Array, Uint8Array]
  for (const datagram of [c, c, a, a]) assert.deepEqual(subject.hear(datagram), [])
  const answers = subject.hear(b)
  assert.equal(answers.length, 1)
  assert.deepEqual(client.open(answers[0]!), [])
  // RFC 7383 section 2.6.1: the first fragment of a repetition is answered, the others are not.
  assert.deepEqual(subject.hear(b), [])
  assert.deepEqual(subject.hear(c), [])
  assert.deepEqual(subject.hear(a), answers)
  assert.equal(subject.count('changed-retransmission'), 0)
  assert.deepEqual(subject.hear(client.cut(2, pieces(3), NOTIFY_TYPE)[0]!), [])
  assert.equal(subject.count('changed-retransmission'), 1)
})

test('RFC 7383 2.6: more pieces than before replace them; fewer are dropped', () => {
  const { client, subject } = established()
  const [two, five] = [client.cut(2, pieces(2), NOTIFY_TYPE), client.cut(2, pieces(5), NOTIFY_TYPE)]
  assert.deepEqual(subject.hear(two[0]!), [])
  assert.deepEqual(subject.hear(five[0]!), [])
  assert.deepEqual(subject.hear(two[1]!), [], 'of the set that was replaced')
  assert.equal(subject.count('fragment'), 1)
  for (const datagram of five.slice(1, 4)) assert.deepEqual(subject.hear(datagram), [])
  assert.equal(subject.hear(five[4]!).length, 1)
})

test('a whole message ends the wait for pieces', () => {
  const { client, subject } = established()
  subject.hear(client.cut(2, pieces(3), NOTIFY_TYPE)[0]!)
  assert.deepEqual(client.ask(X.INFORMATIONAL, [], 2), [])
  assert.equal(subject.hear(client.cut(3, pieces(1), NOTIFY_TYPE)[0]!).length, 1, 'one of one')
})

for (const [name, number, total] of [
  ['0 of 3', 0, 3],
  ['4 of 3', 4, 3],
  ['1 of 0', 1, 0],
  ['0 of 0', 0, 0],
  ['1 of 65', 1, 65],
  ['65535 of 65535', 65535, 65535],
] as const) {
  test(`CVE-2026-12413: fragment ${name}: dropped and counted, and nothing changes`, () => {
    const { client, subject } = established()
    const piece = new Uint8Array(10)
    assert.deepEqual(subject.hear(client.cut(2, [{ number, total, piece }], NOTIFY_TYPE)[0]!), [])
    assert.equal(subject.count('fragment'), 1)
    assert.deepEqual(client.ask(X.INFORMATIONAL, [], 2), [])
  })
}

test('CVE-2016-1287: fragment lengths that underflow', () => {
  const { client, subject } = established()
  const [good] = client.cut(2, pieces(2), NOTIFY_TYPE)
  for (let length = HEADER_LENGTH; length < HEADER_LENGTH + 40; length++) {
    const short = good!.slice(0, length)
    new DataView(short.buffer).setUint32(24, length)
    if (length >= HEADER_LENGTH + 4) new DataView(short.buffer).setUint16(30, length - HEADER_LENGTH)
    assert.deepEqual(subject.hear(short), [])
  }
  for (const payloadLength of [0, 1, 4, 7, 8, 0xffff]) {
    const changed = good!.slice()
    new DataView(changed.buffer).setUint16(30, payloadLength)
    assert.deepEqual(subject.hear(changed), [])
  }
  assert.equal(subject.count('sas.all'), 1)
  assert.equal(subject.count('fragment'), 0)
  assert.deepEqual(client.ask(X.INFORMATIONAL, [], 2), [])
})

test('a piece that is not authentic is not kept: number and total are covered by the ICV', () => {
  const { client, subject } = established()
  const [first, second] = client.cut(2, pieces(2), NOTIFY_TYPE) as [Uint8Array, Uint8Array]
  for (const at of [33, 35, 40, first.length - 1]) subject.hear(first.with(at, first[at]! ^ 1))
  assert.ok(subject.count('icv') >= 3)
  assert.deepEqual(subject.hear(second), [])
  assert.equal(subject.hear(first).length, 1)
})

test('CVE-2016-1344: sets that are never finished are bounded and forgotten', () => {
  const { client, subject } = established()
  const piece = new Uint8Array(1100)
  for (let number = 1; number <= 50; number++)
    subject.hear(client.cut(2, [{ number, total: 64, piece }], NOTIFY_TYPE)[0]!)
  assert.ok(subject.count('fragment') >= 1, '32 KiB are enough for anybody')
  const { engine } = subject
  assert.ok(engine.nextTimeout()! <= subject.now + 30_000)
  subject.sleep(31_000)
  assert.deepEqual(client.ask(X.INFORMATIONAL, [], 2), [])
  const timeout = engine.nextTimeout()
  assert.equal(timeout, undefined, 'no timer is left')
})

test('pieces of messages that are not expected are not kept', () => {
  const { client, subject } = established()
  for (const messageId of [0, 3, 4, 1000])
    assert.deepEqual(subject.hear(client.cut(messageId, pieces(2), NOTIFY_TYPE)[0]!), [])
  assert.equal(subject.count('message-id'), 4)
  assert.equal(subject.engine.nextTimeout(), undefined)
})

test('a large message that is malformed inside is answered like any', () => {
  const { client, subject } = established()
  const content = concat(encodePayloads(QUESTION), Uint8Array.of(1, 2, 3))
  const answers = client
    .cut(
      2,
      [
        { number: 1, total: 2, piece: content.subarray(0, 300) },
        { number: 2, total: 2, piece: content.subarray(300) },
      ],
      NOTIFY_TYPE,
    )
    .flatMap((datagram) => subject.hear(datagram))
  assert.deepEqual(notifyTypes(client.open(answers[0]!)), [NOTIFY.number.INVALID_SYNTAX])
})
