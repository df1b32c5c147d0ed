/**
 * Inside User-Mode Linux, one JSON line on standard output per sample: the daemons' circuit over the kernel plane, the
 * same telescope made by hand in namespaces of its own, and no telescope at all, in turns.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Commands } from '#demo/command'
import { buildByHand } from '#demo/handmade'
import { type Host, hostOf, inNamespace, planTopology, raise, type Topology } from '#demo/topology'
import { bulk, roundTrip } from './bulk.ts'
import { fullSegments, raiseNetwork } from './network.ts'

export type RecipeSide = 'plain' | 'daemons' | 'by hand'

export interface RecipeSample {
  readonly side: RecipeSide
  readonly down: number
  readonly up: number
  /** Idle round trip of 1,024 octets, ms. */
  readonly ms: number
}

const PINGS = 60
const CIPHER = 'aes-256-gcm-16'

const [rounds, seconds] = JSON.parse(process.argv[2] ?? '[5,3]') as [number, number]
const commands = new Commands(new AbortController().signal)
const out = await mkdtemp(join(tmpdir(), 'ippriv-recipe-'))
try {
  const network = await raiseNetwork(commands, {
    id: `ippd${process.pid}0`,
    out,
    hops: 3,
    plane: 'xfrm',
    nodes: 3,
    patience: 400_000,
  })
  const path = network.path.slice(1).map(({ name }) => name)
  const hand = await byHand(planTopology(`ippd${process.pid}1`, { nodes: 3 }), path)
  const { client, plain, server } = network
  const sides: readonly [RecipeSide, Host, Host][] = [
    ['plain', plain, server],
    ['daemons', client, server],
    ['by hand', hostOf(hand, 'client'), hostOf(hand, 'server')],
  ]
  for (let round = 0; round < rounds; round++)
    for (const [side, from, to] of sides) {
      const load = { seconds, streams: 1 } as const
      const { mbps: down } = await bulk(commands, from, to, { ...load, direction: 'down' })
      const { mbps: up } = await bulk(commands, from, to, { ...load, direction: 'up' })
      const sample: RecipeSample = { side, down, up, ms: await roundTrip(commands, from, to, PINGS) }
      process.stdout.write(`${JSON.stringify(sample)}\n`)
    }
} finally {
  await commands.killAll(5_000)
}
process.exit()

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
