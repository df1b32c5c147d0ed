/**
 * One circuit over both data planes: the production programs, each in a host of its own, with the kernel's ESP at
 * some hops and ours at others. What the two put on the wire must be the same bytes in either direction.
 *
 *     client 198.18.1.1 ---+            +--- alder 198.18.10.1   entry
 *     server 198.18.40.1 --+-- router --+--- birch 198.18.20.1   middle
 *     directory 198.18.50.1 +           +--- cedar 198.18.30.1   exit
 */
import assert from 'node:assert/strict'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Commands, until } from '#demo/command'
import { contentDigest, MEBIBYTE, PAGE_MARK } from '#demo/content'
import {
  type CircuitStatus,
  type ClientStatus,
  clientReady,
  type DirectoryStatus,
  defaultCircuit,
  type NodeStatus,
  nodeReady,
  prepareDaemons,
  ready,
  statusOf,
} from '#demo/daemons'
import { inventory, processesIn, residue } from '#demo/residue'
import { Scene } from '#demo/scene'
import { fell, hostOf, inNamespace, nodesOf, planTopology, raise, type Topology } from '#demo/topology'
import type { PlaneKind, SaCounters } from '#telescope/plane'
import { amendConfig } from './lab.ts'

const PATH = ['alder', 'birch', 'cedar'] as const
const OCTETS = 3 * (MEBIBYTE / 2) + 7
/** Even with segments as large as the tunnels let pass, the file takes this many packets. */
const FILE_PACKETS = Math.floor(OCTETS / 1280)
const PINGS = 5
const LIMIT = 240_000
/** A user of a group. */
const MAIL = 1001
const DATAGRAMS = 20

const scene = await makeScene()
const { commands, topology, traffic, daemons } = scene
const client = hostOf(topology, 'client')
let first: CircuitStatus | undefined

before(async () => {
  await Promise.all([raise(commands, topology), prepareDaemons(commands, topology, scene.options)])
  await amendConfig(scene.options.out, 'client', { circuit: { path: PATH, sameNetwork: true } })
  for (const host of scene.daemonHosts()) scene.before.set(host.name, await inventory(commands, host))
})

after(async () => {
  await commands.killAll(5000)
  await fell(commands, topology.id)
})

test('kernel, userspace, kernel: a circuit carries a page, a file and pings', {
  timeout: LIMIT,
}, async () => {
  await choosePlanes('xfrm', 'userspace', 'xfrm')
  const directory = scene.start(hostOf(topology, 'directory'))
  const origin = scene.startOrigin()
  // All at once: each asks again until what it needs is there.
  const nodes = startNodes()
  scene.start(client)
  await Promise.all([origin, ready<DirectoryStatus>(directory, LIMIT, () => undefined), nodes])
  first = await circuitOpen()
  await carries(first, ['xfrm', 'userspace', 'xfrm'])
})

test('userspace, kernel, userspace: the same client builds another circuit', { timeout: LIMIT }, async () => {
  await stop(...PATH)
  await choosePlanes('userspace', 'xfrm', 'userspace')
  await startNodes()
  // It may take the client until its next sign of life to notice that the nodes of the first are gone.
  await carries(await circuitOpen(first), ['userspace', 'xfrm', 'userspace'])
})

test("groups in the kernel: traffic of users, the daemon's own among them, takes their circuits", {
  timeout: LIMIT,
}, async () => {
  await stop('client')
  // The outer layers of ESP are of user 0, whoever sends what is inside.
  const isolation = [
    { name: 'root', user: 0 },
    { name: 'mail', user: MAIL },
  ]
  await amendConfig(scene.options.out, 'client', { isolation })
  const daemon = scene.start(client)
  const open = () => ready<GroupStatus>(daemon, LIMIT, groupsOpen)
  assert.equal((await open()).plane, 'xfrm')
  const server = hostOf(topology, 'server').address
  const say = `for i in $(seq ${DATAGRAMS}); do echo x >/dev/udp/${server}/9999; done`
  for (const [group, user] of [
    ['root', 0],
    ['mail', MAIL],
    ['default', MAIL + 1],
  ] as const) {
    const before = sentBy(await open())
    const as = ['setpriv', '--reuid', `${user}`, '--clear-groups', 'bash', '-c', say]
    await commands.run(inNamespace(client.namespace, ...as))
    const now = sentBy(await open())
    const busy = [...now].filter(([name, packets]) => packets - before.get(name)! >= DATAGRAMS)
    assert.deepEqual(
      busy.map(([name]) => name),
      [group],
    )
  }
  assert.ok((await traffic.page(client, '/')).includes(PAGE_MARK), 'there and back')
})

test('every daemon stops cleanly and leaves nothing on its host', { timeout: LIMIT }, async () => {
  await stop('client')
  await stop(...PATH, 'directory')
  for (const host of scene.daemonHosts()) {
    assert.deepEqual(residue(scene.before.get(host.name)!, await inventory(commands, host)), [], host.name)
    assert.deepEqual(await processesIn(commands, host), [], host.name)
  }
})

interface GroupStatus {
  readonly plane: PlaneKind
  readonly groups: readonly { readonly name: string; readonly state: string }[]
  readonly circuits: readonly {
    readonly group: string
    readonly traffic: readonly { readonly out: { readonly packets: number } }[]
  }[]
}

const groupsOpen = ({ groups }: GroupStatus): string | undefined =>
  groups.every(({ state }) => state === 'open') ? undefined : JSON.stringify(groups)

/** Packets that the circuit of each group took, in its last layer. */
const sentBy = ({ circuits }: GroupStatus): Map<string, number> =>
  new Map(circuits.map(({ group, traffic }) => [group, traffic.at(-1)!.out.packets]))

/** The demo's hosts that one fixed circuit needs. */
async function makeScene(): Promise<Scene> {
  const whole = planTopology(`ippd${process.pid}`)
  const needed = ['client', 'server', 'directory', ...PATH] as readonly string[]
  const small: Topology = { ...whole, hosts: whole.hosts.filter((host) => needed.includes(host.name)) }
  return new Scene(new Commands(new AbortController().signal), small, {
    plane: 'xfrm',
    hops: PATH.length,
    cipher: 'aes-256-gcm-16',
    out: await mkdtemp(join(tmpdir(), 'ippriv-mixed-')),
    keep: false,
    lossPercent: 0,
    mebibytes: 0,
    userModeLinux: true,
    say: (text) => process.stderr.write(`${text}\n`),
  })
}

/** Two hosts, or their addresses. */
type Ends = readonly [string, string]

interface SaOnTheWay extends SaCounters {
  readonly towardsClient: boolean
}

const choosePlanes = (...planes: readonly [PlaneKind, PlaneKind, PlaneKind]): Promise<unknown> =>
  Promise.all(planes.map((plane, i) => amendConfig(scene.options.out, PATH[i]!, { plane })))

async function startNodes(): Promise<unknown> {
  const nodes = nodesOf(topology).map((host) => scene.start(host))
  return await Promise.all(
    nodes.map(({ name }, i) =>
      ready<NodeStatus>(nodes[i]!, LIMIT, nodeReady(PATH.filter((peer) => peer !== name))),
    ),
  )
}

async function stop(...names: readonly string[]): Promise<void> {
  const codes = await Promise.all(
    names.map(async (name) => [name, await daemons.get(name)!.process.stop(60_000)] as const),
  )
  assert.deepEqual(
    codes.filter(([, code]) => code !== 0),
    [],
  )
}

/** The client's own circuit, once it is another than `gone`. */
async function circuitOpen(gone?: CircuitStatus): Promise<CircuitStatus> {
  const status = await ready<ClientStatus>(daemons.get('client')!, LIMIT, (status) =>
    defaultCircuit(status)?.id === gone?.id && gone !== undefined
      ? 'it keeps the old one'
      : clientReady(status),
  )
  const circuit = defaultCircuit(status)!
  assert.deepEqual(circuit.path, PATH)
  return circuit
}

async function carries(circuit: CircuitStatus, planes: readonly PlaneKind[]): Promise<void> {
  const idle = await allSas(circuit)
  assert.ok((await traffic.page(client, '/')).includes(PAGE_MARK))
  assert.equal((await traffic.page(client, '/whoami')).trim(), hostOf(topology, 'cedar').address)
  const { octets, sha256 } = await traffic.download(client, OCTETS)
  assert.deepEqual([octets, sha256], [OCTETS, contentDigest(OCTETS)])
  assert.equal((await traffic.ping(client, PINGS)).received, PINGS)
  const busy = await allSas(circuit)
  await arePlanes(['xfrm', ...planes])
  assert.equal(busy.size, 6 + 4 + 6 + 4)
  for (const [name, { packets, replayed, corrupted, towardsClient }] of busy) {
    const moved = packets - idle.get(name)!.packets
    // Every segment there; an acknowledgement of several segments back.
    assert.ok(moved >= (towardsClient ? FILE_PACKETS : FILE_PACKETS / 20), `${name}: ${moved} packets`)
    assert.deepEqual([replayed, corrupted], [0, 0], name)
  }
}

/** What the daemons say, and what their kernels hold. */
async function arePlanes(planes: readonly PlaneKind[]): Promise<void> {
  for (const [i, name] of ['client', ...PATH].entries()) {
    const { plane } = await statusOf<{ plane: PlaneKind }>(daemons.get(name)!)
    assert.equal(plane, planes[i], name)
    const { namespace } = hostOf(topology, name)
    const { stdout } = await commands.run(['ip', '-n', namespace, '-o', 'xfrm', 'state'])
    assert.equal(stdout.includes('proto esp'), plane === 'xfrm', `${name}: ${stdout}`)
  }
}

/**
 * The SAs on the way of the circuit, those of the telescope and the overlay tunnels below it, of both ends each:
 * by `daemon: source > destination`.
 */
function allSas(circuit: CircuitStatus): Promise<ReadonlyMap<string, SaOnTheWay>> {
  // Where two nodes began their tunnel at once, the pair that is not needed goes some seconds later.
  return until('one SA each way', 60_000, () => sasOf(circuit), 500)
}

async function sasOf(circuit: CircuitStatus): Promise<ReadonlyMap<string, SaOnTheWay>> {
  const [alder, birch, cedar] = PATH.map((name) => hostOf(topology, name).address) as [string, string, string]
  const [byEntry, byMiddle] = circuit.privateAddresses as [string, string]
  const ways: readonly { readonly ends: Ends; readonly addresses: Ends }[] = [
    { ends: ['client', 'alder'], addresses: [client.address, alder] },
    { ends: ['client', 'birch'], addresses: [byEntry, birch] },
    { ends: ['client', 'cedar'], addresses: [byMiddle, cedar] },
    { ends: ['alder', 'birch'], addresses: [alder, birch] },
    { ends: ['birch', 'cedar'], addresses: [birch, cedar] },
  ]
  const held = new Map<string, readonly SaCounters[]>()
  for (const name of ['client', ...PATH])
    held.set(name, (await statusOf<{ sas: readonly SaCounters[] }>(daemons.get(name)!)).sas)
  const found = new Map<string, SaOnTheWay>()
  for (const { ends, addresses } of ways) {
    for (const towardsClient of [false, true]) {
      const [source, destination] = towardsClient ? addresses.toReversed() : addresses
      // What one end alone holds is left of an attempt whose last answer came too late: that end asks minutes later.
      const [near, far] = ends.map((name) =>
        held.get(name)!.filter((sa) => sa.source === source && sa.destination === destination),
      ) as [SaCounters[], SaCounters[]]
      const shared = near.flatMap((sa) =>
        far.filter(({ spi }) => spi === sa.spi).map((same) => [sa, same] as const),
      )
      const label = `${source} > ${destination}`
      assert.equal(shared.length, 1, `${ends.join(' and ')}: ${label}: ${JSON.stringify([near, far])}`)
      for (const [i, sa] of shared[0]!.entries()) found.set(`${ends[i]}: ${label}`, { ...sa, towardsClient })
    }
  }
  return found
}
