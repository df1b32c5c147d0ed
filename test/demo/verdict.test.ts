/**
 * A circuit client > alder > birch > cedar > server, twice, as captures would show it; then one thing is
 * wrong at a time, and exactly that must be noticed.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '#base/ip'
import { analyse } from '#demo/analysis'
import { type EspKey, KeyRing } from '#demo/keys'
import { type Evidence, judge } from '#demo/verdict'
import {
  echoRequest,
  espKey,
  ikeMessage,
  ipv4,
  PROTOCOL,
  pcap,
  sealed,
  tcp,
  udp,
  unreachable,
} from './packets.ts'

const NODES = ['alder', 'birch', 'cedar'] as const
const ADDRESS = { alder: '198.18.10.1', birch: '198.18.20.1', cedar: '198.18.30.1' } as const
const CLIENT = '198.18.1.1'
const SERVER = '198.18.40.1'
const DIRECTORY = '198.18.50.1'
const CIRCUITS = [
  ['10.64.0.2', '10.64.16.2', '10.64.32.2'],
  ['10.64.0.3', '10.64.16.3', '10.64.32.3'],
]

interface Packets {
  client: Uint8Array[]
  server: Uint8Array[]
  directory: Uint8Array[]
  alder: Uint8Array[]
  birch: Uint8Array[]
  cedar: Uint8Array[]
  leaks: Uint8Array[]
  keys: Record<'client' | (typeof NODES)[number], EspKey[]>
  privateAtRouter: number
}

/** One ping and its answer through each circuit; what passes which cable, and who has which key. */
function network(): Packets {
  const keys: Packets['keys'] = { client: [], alder: [], birch: [], cedar: [] }
  const packets: Packets = {
    client: [],
    server: [],
    directory: [],
    alder: [],
    birch: [],
    cedar: [],
    leaks: [],
    keys,
    privateAtRouter: 0,
  }
  const pair = (
    a: 'client' | (typeof NODES)[number],
    b: (typeof NODES)[number],
    from: string,
    to: string,
  ) => {
    const forth = espKey(from, to)
    const back = espKey(to, from)
    for (const holder of [a, b]) keys[holder].push(forth, back)
    return { forth, back }
  }
  const overlay = [
    pair('alder', 'birch', ADDRESS.alder, ADDRESS.birch),
    pair('birch', 'cedar', ADDRESS.birch, ADDRESS.cedar),
  ]
  for (const [s1, s2, s3] of CIRCUITS) {
    const layers = [
      pair('client', 'alder', CLIENT, ADDRESS.alder),
      pair('client', 'birch', s1!, ADDRESS.birch),
      pair('client', 'cedar', s2!, ADDRESS.cedar),
    ]
    for (const way of ['forth', 'back'] as const) {
      const wrap = (key: EspKey, inner: Uint8Array) => sealed(key, inner)
      const ping =
        way === 'forth'
          ? ipv4(s3!, SERVER, PROTOCOL.icmp, echoRequest())
          : ipv4(SERVER, s3!, PROTOCOL.icmp, echoRequest())
      const third = wrap(layers[2]![way], ping)
      const second = wrap(layers[1]![way], third)
      const first = wrap(layers[0]![way], second)
      packets.client.push(first)
      packets.leaks.push(first)
      const ab = wrap(overlay[0]![way], second)
      const bc = wrap(overlay[1]![way], third)
      packets.alder.push(first, ab)
      packets.birch.push(ab, bc)
      const plain =
        way === 'forth'
          ? ipv4(ADDRESS.cedar, SERVER, PROTOCOL.icmp, echoRequest())
          : ipv4(SERVER, ADDRESS.cedar, PROTOCOL.icmp, echoRequest())
      packets.cedar.push(bc, plain)
      packets.server.push(plain)
    }
  }
  const ike = (from: string, to: string) => ipv4(from, to, PROTOCOL.udp, udp(500, 500, ikeMessage()))
  const documents = ipv4(CLIENT, DIRECTORY, PROTOCOL.tcp, tcp(40000, 9030))
  packets.client.push(ike(CLIENT, ADDRESS.alder), documents)
  packets.alder.push(
    ike(CLIENT, ADDRESS.alder),
    ike(ADDRESS.alder, ADDRESS.birch),
    ike(ADDRESS.alder, '198.18.60.1'),
  )
  packets.leaks.push(ike(CLIENT, ADDRESS.alder))
  packets.directory.push(documents)
  return packets
}

function evidenceOf(packets: Packets): Evidence {
  const ring = (name: keyof Packets['keys']) => new KeyRing(packets.keys[name])
  const view = (list: Uint8Array[], keys = new KeyRing([])) => analyse([pcap(list)], keys)
  const hosts = ['client', 'server', 'directory', ...NODES] as const
  return {
    client: CLIENT as Ip,
    server: SERVER as Ip,
    directory: DIRECTORY as Ip,
    directoryPort: 9030,
    nodes: new Map([
      ...NODES.map((name): [string, Ip] => [name, ADDRESS[name] as Ip]),
      ['dogwood', '198.18.60.1' as Ip],
    ]),
    circuits: CIRCUITS.map((privateAddresses) => ({ path: NODES, privateAddresses })),
    links: new Map(hosts.map((name) => [name, view(packets[name])])),
    inside: new Map(NODES.map((name) => [name, view(packets[name], ring(name))])),
    keys: new Map(NODES.map((name) => [name, ring(name)])),
    clientLink: view(packets.client, ring('client')),
    leakWatch: view(packets.leaks, ring('client')),
    privateAtRouter: packets.privateAtRouter,
    captureDrops: 0,
  }
}

const failing = (packets: Packets): string[] =>
  judge(evidenceOf(packets))
    .checks.filter((check) => !check.ok)
    .map((check) => check.name)

test('an honest network passes, and says who knows whom', () => {
  const verdict = judge(evidenceOf(network()))
  assert.deepEqual(
    verdict.checks.filter((check) => !check.ok),
    [],
  )
  assert.equal(verdict.leaks, 0)
  const known = Object.fromEntries(verdict.knowledge.map((row) => [row.party, row.addresses.length]))
  assert.deepEqual(known, {
    'cable of the client': 3,
    'alder (entry)': 5,
    'birch (middle)': 7,
    'cedar (exit)': 7,
    server: 2,
    directory: 2,
  })
})

test('an exit that meets the client is noticed', () => {
  const packets = network()
  packets.cedar.push(ipv4(CLIENT, ADDRESS.cedar, PROTOCOL.icmp, echoRequest()))
  assert.deepEqual(failing(packets), ['cedar sees birch and the server only'.replace('cedar', 'exit')])
})

test('an entry that can read the next layer is noticed', () => {
  const packets = network()
  packets.keys.alder.push(...packets.keys.birch)
  assert.ok(failing(packets).includes('entry sees the client and birch only'))
})

test('a telescope SPI beside the overlay tunnel is noticed', () => {
  const packets = network()
  const naked = sealed(espKey('198.18.10.1', '198.18.20.1'), new Uint8Array(20))
  packets.alder.push(naked)
  packets.birch.push(naked)
  assert.deepEqual(failing(packets), [
    'cable alder-birch shows the overlay SPI pair only, with 2 circuits at once',
  ])
})

test('plain traffic between nodes is noticed', () => {
  const packets = network()
  packets.birch.push(ipv4(ADDRESS.birch, ADDRESS.cedar, PROTOCOL.tcp, tcp(40000, 22)))
  assert.deepEqual(failing(packets), [
    'cable birch-cedar shows the overlay SPI pair only, with 2 circuits at once',
  ])
})

test('a server that meets anybody but the exit is noticed', () => {
  const packets = network()
  packets.server.push(ipv4(ADDRESS.birch, SERVER, PROTOCOL.icmp, echoRequest()))
  assert.deepEqual(failing(packets), ['server sees the exit only'])
})

test('leaks are counted, whatever they are', () => {
  const cases: [string, Uint8Array][] = [
    ['a ping', ipv4(CLIENT, SERVER, PROTOCOL.icmp, echoRequest())],
    ['a private source', ipv4(CIRCUITS[0]![2]!, SERVER, PROTOCOL.icmp, echoRequest())],
    ['ESP under a key nobody negotiated', sealed(espKey(CLIENT, ADDRESS.alder), new Uint8Array(20))],
    [
      'something else on the IKE port',
      ipv4(CLIENT, ADDRESS.alder, PROTOCOL.udp, udp(500, 500, new Uint8Array(30))),
    ],
    ['ESP with a host that is no node', sealed(espKey(CLIENT, SERVER), new Uint8Array(20))],
  ]
  for (const [what, packet] of cases) {
    const packets = network()
    packets.leaks.push(packet, packet)
    const verdict = judge(evidenceOf(packets))
    assert.equal(verdict.leaks, 2, what)
    assert.deepEqual(failing(packets), ['no packet of the client outside the telescope'], what)
  }
})

test('the kernel may tell a late node that nobody is there any more, and tell nobody else anything', () => {
  const late = sealed(espKey(ADDRESS.alder, CLIENT), new Uint8Array(20))
  const answer = (to: string, packet: Uint8Array) => ipv4(CLIENT, to, PROTOCOL.icmp, unreachable(packet))
  const packets = network()
  packets.leaks.push(answer(ADDRESS.alder, late))
  assert.equal(judge(evidenceOf(packets)).leaks, 0)
  packets.leaks.push(answer(ADDRESS.birch, late))
  packets.leaks.push(answer(ADDRESS.alder, ipv4(SERVER, CIRCUITS[0]![2]!, PROTOCOL.icmp, echoRequest())))
  assert.equal(judge(evidenceOf(packets)).leaks, 2)
})

test('a watch that saw nothing at all proves nothing', () => {
  const packets = network()
  packets.leaks = []
  assert.deepEqual(failing(packets), ['no packet of the client outside the telescope'])
})

test('a private address quoted on a cable is noticed', () => {
  const packets = network()
  const quoted = ipv4(CIRCUITS[0]![2]!, SERVER, PROTOCOL.icmp, echoRequest())
  packets.server.push(ipv4(ADDRESS.cedar, SERVER, PROTOCOL.icmp, unreachable(quoted)))
  assert.ok(failing(packets).includes('no private address on any cable'))
})

test('a private address at the router is noticed', () => {
  assert.deepEqual(failing({ ...network(), privateAtRouter: 1 }), ['no private address on any cable'])
})

test('captures that lost packets prove nothing', () => {
  const verdict = judge({ ...evidenceOf(network()), captureDrops: 3 })
  assert.deepEqual(
    verdict.checks.filter((check) => !check.ok).map((check) => check.name),
    ['the captures are complete'],
  )
})
