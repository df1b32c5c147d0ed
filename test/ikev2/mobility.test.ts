/** NAT traversal and MOBIKE: for an initiator that asks for them and a responder that takes them, and nobody else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IkeSaId } from '#base/ids'
import { type Ip, ip } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import type { IkeEvent } from '#ikev2/events'
import { decodeHeader } from '#ikev2/message/header'
import { notify, type Payload } from '#ikev2/message/payload'
import { KEEPALIVE, natDetection, unframe } from '#ikev2/nat'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { NatBox } from '../sim/nat.ts'
import type { LinkProfile } from '../sim/network.ts'
import { CLIENT, connect, find, isEmpty, NODE, ofKind, type Pair, pair, pathBetween } from './pair.ts'
import { notifyTypes, RogueClient, RogueNode, responder } from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const OUTSIDE = ip('203.0.113.9')
const ELSEWHERE = ip('203.0.113.77')
const MOBILE = { mobile: true } as const
const takesAll = { mayMove: () => true }

const stage = (options: Parameters<typeof pair>[0] = {}): Pair =>
  pair({ ...options, policy: { ...takesAll, ...options.policy } })

function behindNat({ network }: Pair, inside: Ip = CLIENT): NatBox {
  const box = new NatBox(inside, OUTSIDE)
  network.filter = (datagram) => box.pass(datagram)
  return box
}

/** The client is at another address from now on, and the old one is nobody's. */
function relocate({ network, client }: Pair, id: IkeSaId, from: Ip, to: Ip): void {
  network.bind(from, undefined)
  network.bind(to, `${CLIENT}`)
  client.engine.move(id, to, network.now)
}

const moves = (events: readonly IkeEvent[]) =>
  events.filter((event): event is Extract<IkeEvent, { kind: 'ike.moved' }> => event.kind === 'ike.moved')

test('without a NAT: everything behind IKE_SA_INIT goes over port 4500, ESP stays bare', () => {
  const at = stage()
  connect(at, MOBILE)
  const ports = at.network.sent.map(({ source, destination }) => [source.port, destination.port])
  assert.deepEqual(ports.slice(0, 2), [
    [500, 500],
    [500, 500],
  ])
  assert.ok(ports.length > 4)
  for (const pair of ports.slice(2)) assert.deepEqual(pair, [4500, 4500])
  for (const host of [at.client, at.node]) {
    const event = find(host, 'child.established')!
    assert.equal(event.encapsulated, undefined)
    assert.equal(event.path.local.port, 4500)
  }
  at.network.run(120_000)
  assert.ok(
    at.network.sent.every(({ bytes }) => bytes.length > 1),
    'no keepalives',
  )
})

test('behind a NAT: both sides learn of it and of its port, and the client keeps the mapping alive', () => {
  const at = stage()
  const box = behindNat(at)
  const id = connect(at, MOBILE)
  const mapped = box.translate({ address: CLIENT, port: 4500 })
  const [ours, theirs] = [find(at.client, 'child.established')!, find(at.node, 'child.established')!]
  assert.deepEqual([ours.encapsulated, theirs.encapsulated], [true, true])
  assert.deepEqual(theirs.path, { local: { address: NODE, port: 4500 }, remote: mapped })
  const before = at.network.sent.length
  at.network.run(60_500)
  const keepalives = at.network.sent.slice(before)
  assert.deepEqual(
    keepalives.map(({ source, bytes }) => [source.address, source.port, ...bytes]),
    Array.from({ length: 3 }, () => [CLIENT, 4500, ...KEEPALIVE]),
  )
  assert.equal(at.node.engine.counters().malformed, undefined)
  at.client.engine.close(id, at.network.now)
  at.network.run(60_000)
  assert.ok(isEmpty(at.client) && isEmpty(at.node))
})

test('a peer that takes no NAT detection: the same exchange as ever, on port 500', () => {
  const at = pair()
  connect(at, MOBILE)
  assert.ok(ofKind(at.client, 'child.established'))
  assert.ok(at.network.sent.every(({ destination }) => destination.port === 500))
})

test('an initiator that does not ask says nothing of it, and a responder answers nothing', () => {
  const at = stage()
  const id = connect(at)
  assert.ok(at.network.sent.every(({ destination }) => destination.port === 500))
  relocate(at, id, CLIENT, ELSEWHERE)
  at.network.run(1000)
  assert.equal(find(at.client, 'ike.closed')?.reason, 'IPP_IKE_CLOSED')
})

for (const rekeyed of ['client', 'node'] as const)
  test(`the ${rekeyed} renewed the IKE SA: it is still the client, and nobody else, that can move`, () => {
    const at = stage()
    const { network, client, node } = at
    const id = connect(at, MOBILE)
    const theirs = find(node, 'ike.established')!.sa
    at[rekeyed].engine.rekeyIke(rekeyed === 'client' ? id : theirs, network.now)
    network.run(1000)
    relocate(at, id, CLIENT, ELSEWHERE)
    network.run(1000)
    assert.equal(moves(client.events).at(-1)?.path.local.address, ELSEWHERE)
    assert.equal(moves(node.events).at(-1)?.path.remote.address, ELSEWHERE)
    assert.equal(node.engine.counters()['foreign-path'], undefined)
    // What comes from where the node is not is not from the node.
    const refused = (): number => client.engine.counters()['foreign-path'] ?? 0
    const before = refused()
    const elsewhere = ip('203.0.113.200')
    network.filter = (datagram) =>
      datagram.source.address === NODE
        ? { ...datagram, source: { ...datagram.source, address: elsewhere } }
        : datagram
    node.engine.rekeyIke(theirs, network.now)
    network.run(5000)
    assert.ok(refused() > before)
  })

const WEATHER: Record<string, LinkProfile> = {
  fair: { loss: 0, duplication: 0, latency: [10, 10] },
  'loss, duplication and reordering': { loss: 0.15, duplication: 0.2, latency: [10, 200] },
}

for (const [weather, link] of Object.entries(WEATHER))
  for (const nat of ['none', 'before', 'after', 'both'] as const)
    test(`the client changes its address, ${weather} weather, NAT: ${nat}`, () => {
      for (let seed = 1; seed <= 10; seed++) {
        const at = stage({ seed, link })
        const { network, client, node } = at
        if (nat === 'before' || nat === 'both') behindNat(at)
        const id = connect(at, MOBILE)
        if (!client.sending.has(id)) continue
        const sa = find(node, 'ike.established')!.sa
        network.run(3000)
        network.filter = (datagram) => datagram
        const box = nat === 'after' || nat === 'both' ? behindNat(at, ELSEWHERE) : undefined
        relocate(at, id, CLIENT, ELSEWHERE)
        const done = (): boolean => moves(node.events).length > 0 && moves(client.events).length > 0
        assert.ok(network.run(110_000, done), `seed ${seed}: ${JSON.stringify(client.events.at(-1))}`)
        const outside = box?.translate({ address: ELSEWHERE, port: 4500 })
        const remote = outside ?? { address: ELSEWHERE, port: 4500 }
        for (const host of [client, node])
          assert.equal(moves(host.events).at(-1)!.encapsulated, box === undefined ? undefined : true)
        assert.deepEqual(moves(node.events).at(-1)!.path.remote, remote)
        // Everything else goes on, from either side.
        client.engine.rekeyIke(id, network.now)
        network.run(60_000)
        node.engine.rekeyChild(sa, node.sending.get(sa)!.inboundSpi, network.now)
        network.run(60_000, () => ofKind(client, 'child.switched'))
        assert.ok(ofKind(client, 'child.switched'), `seed ${seed}`)
        client.engine.close(id, network.now)
        network.run(1_000_000)
        assert.ok(isEmpty(client) && isEmpty(node), `seed ${seed}`)
      }
    })

test('two moves at once: the last address counts, on both sides', () => {
  const at = stage()
  const id = connect(at, MOBILE)
  const third = ip('203.0.113.78')
  relocate(at, id, CLIENT, ELSEWHERE)
  at.network.run(15)
  relocate(at, id, ELSEWHERE, third)
  at.network.run(60_000)
  assert.equal(moves(at.client.events).at(-1)!.path.local.address, third)
  assert.equal(moves(at.node.events).at(-1)!.path.remote.address, third)
  assert.ok(!ofKind(at.client, 'ike.closed') && !ofKind(at.node, 'ike.closed'))
})

test('a NAT that forgets: a peer without MOBIKE is where it was heard last', () => {
  const subject = responder(takesAll)
  const client = new RogueClient(subject)
  client.init(withDetection(client, true))
  client.authenticate()
  const elsewhere = { ...pathBetween(NODE, ELSEWHERE), remote: { address: ELSEWHERE, port: 4321 } }
  assert.equal(subject.hear(client.seal(X.INFORMATIONAL, []), elsewhere).length, 1)
  assert.deepEqual(subject.last('ike.moved')?.path, elsewhere)
})

// ---------------------------------------------------------------------------------------------- what is refused

/** NAT detection as from our address, or as from another one. */
const withDetection =
  (client: RogueClient, lies = false) =>
  (payloads: readonly Payload[]): Payload[] => [
    ...payloads,
    ...natDetection(
      nodeCrypto,
      client.header(X.IKE_SA_INIT, 0),
      pathBetween(lies ? ip('10.9.9.9') : CLIENT, NODE),
    ),
  ]

function mobileClient(): RogueClient {
  const client = new RogueClient(responder(takesAll))
  client.init(withDetection(client))
  client.authenticate((payloads) => [...payloads, notify(N.MOBIKE_SUPPORTED)])
  return client
}

const response = (client: RogueClient, id: number, payloads: readonly Payload[]): Uint8Array =>
  client.channel!.seal(client.header(X.INFORMATIONAL, id, true), payloads)[0]!

const update = (client: RogueClient): Payload[] => [
  notify(N.UPDATE_SA_ADDRESSES),
  ...natDetection(nodeCrypto, client.header(X.INFORMATIONAL, 0), pathBetween(ELSEWHERE, NODE)),
]

test('UPDATE_SA_ADDRESSES: ESP follows only when COOKIE2 came back from there', () => {
  const client = mobileClient()
  const { subject } = client
  const elsewhere = pathBetween(NODE, ELSEWHERE)
  const [answer] = subject.hear(client.seal(X.INFORMATIONAL, update(client)), elsewhere)
  assert.deepEqual(notifyTypes(client.open(answer!)), [
    N.NAT_DETECTION_SOURCE_IP,
    N.NAT_DETECTION_DESTINATION_IP,
  ])
  const [question] = subject.sleep(1)
  assert.deepEqual(subject.last('transmit')?.path, elsewhere)
  const [cookie] = client.open(question!)
  assert.deepEqual(notifyTypes([cookie!]), [N.COOKIE2])
  assert.equal(subject.last('ike.moved'), undefined)
  const id = decodeHeader(question!).messageId
  subject.hear(response(client, id, [cookie!]), elsewhere)
  assert.deepEqual(subject.last('ike.moved')?.path, elsewhere)
})

for (const [name, echo] of [
  ['another value', [notify(N.COOKIE2, new Uint8Array(16))]],
  ['none', []],
] as const)
  test(`COOKIE2 comes back with ${name}: the IKE SA ends, nothing moved`, () => {
    const client = mobileClient()
    const { subject } = client
    const elsewhere = pathBetween(NODE, ELSEWHERE)
    subject.hear(client.seal(X.INFORMATIONAL, update(client)), elsewhere)
    const [question] = subject.sleep(1)
    const id = decodeHeader(question!).messageId
    subject.hear(response(client, id, echo), elsewhere)
    assert.equal(subject.last('ike.moved'), undefined)
    assert.equal(subject.last('ike.closed')?.reason, 'IPP_IKE_PROTOCOL')
    assert.equal(subject.count('cookie2'), 1)
    subject.sleep(300_000)
    assert.ok(subject.isEmpty)
  })

test('COOKIE2 asked of us is echoed; one of 7 octets is malformed', () => {
  const client = mobileClient()
  const cookie = notify(N.COOKIE2, nodeCrypto.random(16))
  assert.deepEqual(client.ask(X.INFORMATIONAL, [cookie]), [cookie])
  const answer = client.ask(X.INFORMATIONAL, [notify(N.COOKIE2, new Uint8Array(7))])
  assert.deepEqual(notifyTypes(answer), [N.INVALID_SYNTAX])
})

test('NO_NATS_ALLOWED with other addresses than the packet has: UNEXPECTED_NAT_DETECTED', () => {
  const client = mobileClient()
  const answer = client.ask(X.INFORMATIONAL, [
    notify(N.UPDATE_SA_ADDRESSES),
    notify(N.NO_NATS_ALLOWED, new Uint8Array(12)),
  ])
  assert.deepEqual(notifyTypes(answer), [N.UNEXPECTED_NAT_DETECTED])
  client.subject.sleep(100)
  assert.equal(client.subject.last('ike.moved'), undefined)
})

test('an address the owner would not have: UNACCEPTABLE_ADDRESSES', () => {
  const subject = responder({ mayMove: ({ remote }) => remote.address === CLIENT })
  const client = new RogueClient(subject)
  client.init(withDetection(client))
  client.authenticate((payloads) => [...payloads, notify(N.MOBIKE_SUPPORTED)])
  const [answer] = subject.hear(client.seal(X.INFORMATIONAL, update(client)), pathBetween(NODE, ELSEWHERE))
  assert.deepEqual(notifyTypes(client.open(answer!)), [N.UNACCEPTABLE_ADDRESSES])
})

test('hop 2 and beyond: NAT detection and MOBIKE are not answered, and nothing moves', () => {
  const subject = responder({ mayMove: () => false })
  const client = new RogueClient(subject)
  assert.ok(!notifyTypes(client.init(withDetection(client))).includes(N.NAT_DETECTION_SOURCE_IP))
  const answer = client.authenticate((payloads) => [...payloads, notify(N.MOBIKE_SUPPORTED)])
  assert.ok(!notifyTypes(answer).includes(N.MOBIKE_SUPPORTED))
  assert.deepEqual(client.ask(X.INFORMATIONAL, update(client)), [])
  assert.equal(subject.count('mobike'), 1)
  const elsewhere = pathBetween(NODE, ELSEWHERE)
  assert.deepEqual(subject.hear(client.seal(X.INFORMATIONAL, update(client)), elsewhere), [])
  assert.equal(subject.count('foreign-path'), 1)
  subject.sleep(1000)
  assert.equal(subject.last('ike.moved'), undefined)
})

test('an initiator that did not ask ignores NAT detection and MOBIKE of its responder', () => {
  const node = new RogueNode()
  const { spiInitiator } = decodeHeader(node.request)
  const spis = { spiInitiator, spiResponder: node.spiResponder }
  node.init((payloads) => [...payloads, ...natDetection(nodeCrypto, spis, pathBetween(NODE, ELSEWHERE))])
  assert.equal(node.subject.last('transmit')?.path.remote.port, 500)
  node.authenticate((payloads) => [
    ...payloads,
    notify(N.MOBIKE_SUPPORTED),
    notify(N.ADDITIONAL_IP4_ADDRESS, Uint8Array.of(192, 0, 2, 99)),
  ])
  assert.equal(node.subject.last('child.established')?.encapsulated, undefined)
  const [answer] = node.hear(node.seal(X.INFORMATIONAL, 0, [notify(N.UPDATE_SA_ADDRESSES)]))
  assert.deepEqual(node.open(answer!), [])
  assert.equal(node.subject.count('mobike'), 1)
})

for (const length of [0, 19, 21, 64])
  test(`a NAT detection hash of ${length} octets: silence, no state`, () => {
    const subject = responder(takesAll)
    const client = new RogueClient(subject)
    const bogus = [N.NAT_DETECTION_SOURCE_IP, N.NAT_DETECTION_DESTINATION_IP].map((type) =>
      notify(type, new Uint8Array(length)),
    )
    assert.equal(
      client.init((payloads) => [...payloads, ...bogus]),
      undefined,
    )
    assert.equal(subject.count('malformed'), 1)
    assert.ok(subject.isEmpty)
  })

test('port 4500: a keepalive is nothing, anything else without a marker is refused', () => {
  const subject = responder(takesAll)
  const path = { ...pathBetween(NODE, CLIENT), local: { address: NODE, port: 4500 } }
  assert.equal(unframe(path, KEEPALIVE), undefined)
  assert.deepEqual(subject.hear(KEEPALIVE, path), [])
  assert.equal(subject.count('malformed'), 0)
  assert.deepEqual(subject.hear(Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 1), path), [])
  assert.equal(subject.count('malformed'), 1)
})
