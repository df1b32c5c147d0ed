/**
 * Inside User-Mode Linux, one JSON line on standard output per sample: the daemons' circuit over the kernel plane, the
 * same telescope made by hand in namespaces of its own, and no telescope at all, in turns. Then, for the guest has no
 * memory for both, the daemons' circuit over the userspace plane, in turns with none.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Commands } from '#demo/command'
import { buildByHand } from '#demo/handmade'
import { type Host, hostOf, inNamespace, planTopology, raise, type Topology } from '#demo/topology'
import type { PlaneKind } from '#telescope/plane'
import { type Bulk, bulk, roundTrip } from './bulk.ts'
import { fullSegments, type Network, raiseNetwork } from './network.ts'
import { busyDuring, idleLoad } from './processors.ts'

export type RecipeSide = 'plain' | 'daemons' | 'by hand' | 'plain, later' | 'userspace'

export interface RecipeSample {
  readonly side: RecipeSide
  readonly down: number
  readonly up: number
  /** Idle round trip of 1,024 octets, ms. */
  readonly ms: number
  /** Processor seconds of the whole guest above idle, per gigabyte. */
  readonly downCost: number
  readonly upCost: number
}

type Sides = readonly (readonly [RecipeSide, Host, Host])[]

const PINGS = 60
const CIPHER = 'aes-256-gcm-16'

const [rounds, seconds] = JSON.parse(process.argv[2] ?? '[5,3]') as [number, number]
const commands = new Commands(new AbortController().signal)
const out = await mkdtemp(join(tmpdir(), 'ippriv-recipe-'))
try {
  const network = await circuit('xfrm', `ippd${process.pid}0`)
  const path = network.path.slice(1).map(({ name }) => name)
  const hand = await byHand(planTopology(`ippd${process.pid}1`, { nodes: 3 }), path)
  await measure([
    ['plain', network.plain, network.server],
    ['daemons', network.client, network.server],
    ['by hand', hostOf(hand, 'client'), hostOf(hand, 'server')],
  ])
  await commands.killAll(5_000)
  const { client, plain, server } = await circuit('userspace', `ippd${process.pid}2`)
  await measure([
    ['plain, later', plain, server],
    ['userspace', client, server],
  ])
} finally {
  await commands.killAll(5_000)
}
process.exit()

function circuit(plane: PlaneKind, id: string): Promise<Network> {
  return raiseNetwork(commands, { id, out, hops: 3, plane, nodes: 3, patience: 400_000 })
}

async function measure(sides: Sides): Promise<void> {
  const idle = await idleLoad()
  // Forth and back, so that each is as often before another as after it: a guest is not as fast at the end as at the start.
  for (let pass = 0; pass < 2 * rounds; pass++)
    for (const [side, from, to] of pass % 2 === 0 ? sides : sides.toReversed()) {
      const [down, downCost] = await transfer(from, to, 'down', idle)
      const [up, upCost] = await transfer(from, to, 'up', idle)
      const ms = await roundTrip(commands, from, to, PINGS)
      const sample: RecipeSample = { side, down, up, ms, downCost, upCost }
      process.stdout.write(`${JSON.stringify(sample)}\n`)
    }
}

/** Mbit/s, and processor seconds per gigabyte; what both ends need to start and to report is in them. */
async function transfer(
  from: Host,
  to: Host,
  direction: 'down' | 'up',
  idle: number,
): Promise<[mbps: number, cost: number]> {
  let result: Bulk | undefined
  const began = performance.now()
  const busy = await busyDuring(async () => {
    result = await bulk(commands, from, to, { seconds, streams: 1, direction })
  })
  const above = busy - (idle * (performance.now() - began)) / 1000
  return [result!.mbps, above / (result!.octets / 1e9)]
}

/** The same hosts once more, without daemons; applications start from the innermost address. */
async function byHand(topology: Topology, path: readonly string[]): Promise<Topology> {
  await raise(commands, topology)
  await fullSegments(commands, topology)
  const { privateAddress } = await buildByHand(commands, topology, path, CIPHER)
  const [client, server] = [hostOf(topology, 'client'), hostOf(topology, 'server')]
  const route = ['route', 'replace', server.address, 'via', client.gateway, 'src', privateAddress]
  await commands.run(['ip', '-n', client.namespace, ...route, 'mtu', '1280', 'advmss', '1240'])
  commands.start(
    inNamespace(server.namespace, 'iperf3', '-s', '-B', server.address),
    join(out, 'iperf3-by-hand.log'),
  )
  return topology
}
