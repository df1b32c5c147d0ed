/** The additional key exchange: what it protects, who can do without, and everybody who would talk us out of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nodeCrypto } from '#crypto/node'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import { need } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { Datagram } from '../sim/network.ts'
import { connect, find, isEmpty, ofKind, pair } from './pair.ts'
import {
  type Alter,
  asIs,
  notifyTypes,
  RogueClient,
  RogueNode,
  replace,
  responder,
  without,
} from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY

test('both sides know the same keys, and they are not those of X25519 alone', () => {
  const stage = pair({ keyLog: true })
  connect(stage)
  const [ours, theirs] = [stage.client, stage.node].map(({ events }) =>
    events.flatMap((event) => (event.kind === 'keys' ? [event.skEi] : [])),
  )
  assert.equal(ours!.length, 2)
  assert.deepEqual(ours, theirs)
  assert.notDeepEqual(ours![0], ours![1])
})

test('a client and a node that do it by the book', () => {
  const subject = responder()
  const client = new RogueClient(subject).hybrid()
  client.init()
  assert.equal(need(client.intermediate()!, 'KE').data.length, 1088)
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))
  assert.match(subject.last('ike.established')!.suite, /x25519\+mlkem768$/)
})

test('a peer without IKE_INTERMEDIATE gets the plain proposal, whoever begins', () => {
  const subject = responder()
  new RogueClient(subject).establish()
  assert.match(subject.last('ike.established')!.suite, /x25519$/)
  const node = new RogueNode()
  node.init()
  node.authenticate()
  assert.match(node.subject.last('ike.established')!.suite, /x25519$/)
})

test('IKE_INTERMEDIATE is lost, repeated and late: one answer, the same octets', () => {
  const subject = responder()
  const client = new RogueClient(subject).hybrid()
  client.init()
  const { publicKey } = nodeCrypto.mlkem768Generate()
  const request = client.seal(X.IKE_INTERMEDIATE, [{ kind: 'KE', group: 36, data: publicKey }], 1)
  const answer = subject.hear(request)
  assert.equal(answer.length, 1)
  assert.deepEqual(subject.hear(request), answer)
  const other = client.seal(X.IKE_INTERMEDIATE, [{ kind: 'KE', group: 36, data: publicKey }], 1)
  assert.deepEqual(subject.hear(other), [], 'other octets under the same number')
  assert.equal(subject.count('changed-retransmission'), 1)
  assert.deepEqual(subject.hear(client.initDatagram()), [], 'a late IKE_SA_INIT is not answered with this')
})

// ---------------------------------------------------------------------------------------------- keys that are none

const ke = (group: number, data: Uint8Array): Alter => replace('KE', () => ({ kind: 'KE', group, data }))

function refuses(title: string, alter: Alter, counter: string): void {
  test(`9370: IKE_INTERMEDIATE with ${title}: INVALID_SYNTAX, and nobody is let in`, () => {
    const subject = responder()
    const client = new RogueClient(subject).hybrid()
    client.init()
    assert.deepEqual(notifyTypes(client.intermediate(alter)), [N.INVALID_SYNTAX])
    assert.equal(subject.count(counter), 1)
    assert.equal(client.authenticate(), undefined)
    assert.equal(subject.last('ike.established'), undefined)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

for (const length of [0, 32, 1088, 1183, 1185, 1568, 60_000])
  refuses(`a key of ${length} octets`, ke(36, new Uint8Array(length)), 'bad-ke')
refuses('a key beyond the modulus', ke(36, new Uint8Array(1184).fill(255)), 'bad-ke')
refuses('a key of another method', ke(31, new Uint8Array(32).fill(9)), 'bad-ke')
refuses('ML-KEM-1024', ke(37, new Uint8Array(1568)), 'bad-ke')
refuses('no KE', without('KE'), 'malformed')
refuses('two KE', (payloads) => [...payloads, ...payloads], 'malformed')
refuses('a nonce beside it', (p) => [...p, { kind: 'Nonce', data: new Uint8Array(32) }], 'malformed')

/** The subject has sent its key; the node answers with this. */
function answered(payloads: readonly Payload[]): RogueNode {
  const node = new RogueNode()
  node.isHybrid = true
  node.init()
  node.respond(X.IKE_INTERMEDIATE, 1, payloads)
  return node
}

for (const [title, payloads] of [
  ['a ciphertext of 1087 octets', [{ kind: 'KE', group: 36, data: new Uint8Array(1087) }]],
  ['a ciphertext of 1184 octets', [{ kind: 'KE', group: 36, data: new Uint8Array(1184) }]],
  ['an empty ciphertext', [{ kind: 'KE', group: 36, data: new Uint8Array(0) }]],
  ['another method', [{ kind: 'KE', group: 31, data: new Uint8Array(32).fill(9) }]],
  ['nothing', []],
  ['an error', [{ kind: 'Notify', protocol: 0, spi: new Uint8Array(0), type: 14, data: new Uint8Array(0) }]],
] as const) {
  test(`9370: our key is answered with ${title}: it ends, and nothing is left`, () => {
    const { subject } = answered(payloads)
    assert.ok(subject.last('ike.closed'))
    assert.equal(subject.last('ike.established'), undefined)
    assert.ok(subject.isEmpty)
  })
}

test('a ciphertext for another key: both go on with different keys, and never meet', () => {
  const { publicKey } = nodeCrypto.mlkem768Generate()
  const { ciphertext } = nodeCrypto.mlkem768Encapsulate(publicKey)!
  const node = answered([{ kind: 'KE', group: 36, data: ciphertext }])
  node.respond(X.IKE_AUTH, 2, [])
  assert.equal(node.subject.count('icv'), 1)
  node.subject.sleep(60_000)
  assert.equal(node.subject.last('ike.closed')!.reason, 'IPP_IKE_TIMEOUT')
  assert.ok(node.subject.isEmpty)
})

// ---------------------------------------------------------------------------------------------- out of order

test('9242: IKE_INTERMEDIATE is skipped: IKE_AUTH is not answered before it', () => {
  const subject = responder()
  const client = new RogueClient(subject).hybrid()
  client.init()
  assert.equal(client.ask(X.IKE_AUTH, client.authPayloads(), 1), undefined)
  assert.equal(subject.count('illegal-exchange'), 1)
  client.nextId = 1
  client.intermediate()
  assert.ok(
    client.authenticate()?.some(({ kind }) => kind === 'SA'),
    'the right order still counts',
  )
})

test('9242: a second IKE_INTERMEDIATE, one on a plain IKE SA, and one on an established one: silence', () => {
  const prepared: readonly ((client: RogueClient) => unknown)[] = [
    (client) => client.hybrid().init() && client.intermediate(),
    (client) => client.init(),
    (client) => client.establish(),
  ]
  for (const prepare of prepared) {
    const subject = responder()
    const client = new RogueClient(subject)
    prepare(client)
    assert.equal(client.intermediate(), undefined)
    assert.equal(subject.count('illegal-exchange'), 1)
  }
})

for (const [title, alter] of [
  ['computed over other octets', (octets: Uint8Array) => octets.with(20, octets[20]! ^ 1)],
  ['computed over the lengths on the wire', (octets: Uint8Array) => octets.with(27, octets[27]! + 25)],
  ['computed as of a fragment', (octets: Uint8Array) => octets.with(16, 53)],
  ['computed over a piece', (octets: Uint8Array) => octets.subarray(0, 600)],
  ['of nothing', () => new Uint8Array(0)],
] as const) {
  test(`9242: IntAuth ${title}: AUTHENTICATION_FAILED`, () => {
    const subject = responder()
    const client = new RogueClient(subject).hybrid()
    client.init()
    client.intermediate(asIs, alter)
    assert.deepEqual(notifyTypes(client.authenticate()), [N.AUTHENTICATION_FAILED])
    assert.equal(subject.last('ike.established'), undefined)
  })
}

test('close while IKE_INTERMEDIATE is out ends at once', () => {
  const stage = pair()
  const { client, network, node } = stage
  network.filter = (datagram) =>
    decodeHeader(datagram.bytes).exchange === X.IKE_SA_INIT ? datagram : undefined
  const id = connect(stage, {}, 100)
  client.engine.close(id, network.now)
  assert.equal(client.engine.counters()['sas.all'], 0)
  network.run(60_000)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_CLOSED')
  for (const host of [client, node]) assert.ok(isEmpty(host))
})

// ---------------------------------------------------------------------------------------------- downgrade

/** Somebody on the path who changes IKE_SA_INIT, which nothing protects. */
function downgrade(response: boolean, alter: Alter): (datagram: Datagram) => Datagram {
  return (datagram) => {
    const header = decodeHeader(datagram.bytes)
    if (header.exchange !== X.IKE_SA_INIT || header.response !== response) return datagram
    const payloads = decodePayloads(header.firstPayload, datagram.bytes.subarray(HEADER_LENGTH), 'path')
    return { ...datagram, bytes: encodeClear(header, alter(payloads)) }
  }
}

const noIntermediate: Alter = (payloads) =>
  payloads.filter((p) => p.kind !== 'Notify' || p.type !== N.INTERMEDIATE_EXCHANGE_SUPPORTED)
const noFragmentation: Alter = (payloads) =>
  payloads.filter((p) => p.kind !== 'Notify' || p.type !== N.IKEV2_FRAGMENTATION_SUPPORTED)
const onlyPlain: Alter = replace('SA', (sa) => ({ kind: 'SA', proposals: sa.proposals.slice(1) }))
const choosesPlain: Alter = replace('SA', ({ proposals: [chosen] }) => ({
  kind: 'SA',
  proposals: [{ ...chosen!, number: 2, transforms: chosen!.transforms.filter(({ type }) => type !== 6) }],
}))

for (const [title, response, alter] of [
  ['the hybrid proposal is cut out of the request', false, onlyPlain],
  ['N(INTERMEDIATE) is cut out of the request', false, noIntermediate],
  ['N(FRAGMENTATION) is cut out of the request', false, noFragmentation],
  ['the request is made that of a plain client', false, (p) => noIntermediate(onlyPlain(p))],
  ['the answer is made to choose the plain proposal', true, choosesPlain],
  ['N(INTERMEDIATE) is cut out of the answer', true, noIntermediate],
  ['the answer is made that of a plain node', true, (p) => noIntermediate(choosesPlain(p))],
] as const satisfies readonly (readonly [string, boolean, Alter])[]) {
  test(`downgrade: ${title}: no IKE SA comes of it`, () => {
    const stage = pair()
    const { client, node, network } = stage
    network.filter = downgrade(response, alter)
    connect(stage)
    network.run(120_000)
    for (const host of [client, node]) {
      assert.ok(!ofKind(host, 'ike.established'))
      assert.ok(isEmpty(host), JSON.stringify(host.engine.counters()))
    }
    assert.ok(ofKind(client, 'ike.closed'))
  })
}
