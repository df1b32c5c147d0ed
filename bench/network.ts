import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Commands } from '#demo/command'
import {
  type ClientStatus,
  clientReady,
  configOf,
  type Daemon,
  type DirectoryStatus,
  defaultCircuit,
  type NodeStatus,
  nodeReady,
  PROGRAM,
  prepareDaemons,
  ready,
  socketOf,
} from '#demo/daemons'
import {
  fell,
  type Host,
  hostOf,
  inNamespace,
  nodesOf,
  planTopology,
  raise,
  staleRuns,
  type Topology,
} from '#demo/topology'
import type { PlaneKind } from '#telescope/plane'

/** The demo's internet with an open circuit, for measuring. */
export interface Network {
  readonly topology: Topology
  readonly client: Host
  /** A host that reaches the server without us. */
  readonly plain: Host
  readonly server: Host
  /** Daemons on the path, client first. */
  readonly path: readonly Daemon[]
}

export interface NetworkOptions {
  /** Prefix of namespaces, as the demo's: `ippd` and a number. */
  readonly id: string
  /** Where configurations, keys and logs go, in a folder of the network's own. */
  readonly out: string
  readonly hops: number
  /** Default: userspace. */
  readonly plane?: PlaneKind
  /** Default: as many as the demo. */
  readonly nodes?: number
  /** For each daemon to be ready, in ms. */
  readonly patience?: number
  /** The program to measure: this tree's, or another one's for a comparison. */
  readonly program?: string
}

/** Removes what runs that were killed left behind. */
export async function clearStale(commands: Commands): Promise<void> {
  for (const id of await staleRuns()) await fell(commands, id)
}

export async function raiseNetwork(commands: Commands, options: NetworkOptions): Promise<Network> {
  const { patience = PATIENCE } = options
  const topology = planTopology(options.id, options.nodes === undefined ? {} : { nodes: options.nodes })
  const out = join(options.out, options.id)
  await mkdir(out, { recursive: true })
  await Promise.all([
    raise(commands, topology),
    prepareDaemons(commands, topology, {
      out,
      plane: options.plane ?? 'userspace',
      hops: options.hops,
      cipher: 'aes-256-gcm-16',
    }),
  ])
  await fullSegments(commands, topology)
  const start = (host: Host): Daemon => {
    const role = host.role === 'node' || host.role === 'client' ? host.role : 'directory'
    const argv = inNamespace(
      host.namespace,
      options.program ?? PROGRAM,
      role,
      '--config',
      configOf(out, host.name),
    )
    const process = commands.start(argv, join(out, `${host.name}.log`))
    return { name: host.name, host, process, socket: socketOf(topology, host.name) }
  }
  await ready<DirectoryStatus>(start(hostOf(topology, 'directory')), patience, () => undefined)
  const nodes = nodesOf(topology).map(start)
  const names = nodes.map((node) => node.name)
  await Promise.all(
    nodes.map((node) =>
      ready<NodeStatus>(node, patience, nodeReady(names.filter((name) => name !== node.name))),
    ),
  )
  const client = start(hostOf(topology, 'client'))
  const circuit = defaultCircuit(await ready<ClientStatus>(client, patience, clientReady))!
  const server = hostOf(topology, 'server')
  commands.start(inNamespace(server.namespace, 'iperf3', '-s', '-B', server.address), join(out, 'iperf3.log'))
  const path = [client, ...circuit.path.map((name) => nodes.find((node) => node.name === name)!)]
  return { topology, client: client.host, plain: hostOf(topology, 'plain'), server, path }
}

/** The demo's cables carry single segments for its captures; here they are the kernel's own. */
export async function fullSegments(commands: Commands, topology: Topology): Promise<void> {
  await Promise.all(
    topology.hosts.map((host) => commands.run(inNamespace(host.namespace, ...FULL_SEGMENTS, 'eth0'))),
  )
  await Promise.all(
    topology.hosts.map((host) => commands.run(inNamespace(topology.router, ...FULL_SEGMENTS, host.cable))),
  )
}

const PATIENCE = 120_000
const FULL_SEGMENTS = ['ip', 'link', 'set', 'gso_max_segs', '65535', 'dev'] as const
