import { readdir, readFile, rm } from 'node:fs/promises'
import type { Commands } from '#demo/command'

/**
 * An internet in network namespaces. One router that knows public addresses only (198.18.0.0/15, RFC 2544)
 * and one host per cable, each host in a /24 of its own, `.254` being the router:
 *
 *     client 198.18.1.1 ---+            +--- alder   198.18.10.1
 *     plain  198.18.2.1 ---+            +--- birch   198.18.20.1
 *                          +-- router --+--- cedar   198.18.30.1
 *     server 198.18.40.1 --+            +--- dogwood 198.18.60.1
 *     directory 198.18.50.1 +           +--- elm     198.18.70.1
 *
 * `plain` is where the direct goodput is measured: the client itself never sends in clear.
 */
export interface Topology {
  /** Prefix of every namespace; carries the pid of the run, by which a later run knows that it is dead. */
  readonly id: string
  readonly router: string
  readonly hosts: readonly Host[]
}

export interface Host {
  readonly name: string
  readonly role: 'client' | 'node' | 'directory' | 'server' | 'plain'
  readonly namespace: string
  readonly address: string
  readonly gateway: string
  /** The router's end of this host's cable. The host's own end is `eth0`. */
  readonly cable: string
}

const NODE_NAMES = 'alder birch cedar dogwood elm fir ginkgo hazel juniper katsura larch maple'.split(' ')
const NODE_NETS = [10, 20, 30, 60, 70, 80, 90, 100, 110, 120, 130, 140]
const AUTHORITY_NAMES = 'ash bay cob dew elk fen gale holm ivy'.split(' ')

export const MOST_NODES = NODE_NAMES.length
export const MOST_AUTHORITIES = AUTHORITY_NAMES.length

/** With several authorities each has a cable of its own, 198.18.201.1 and so on; a single one is `directory`. */
export function planTopology(
  id: string,
  { nodes: count = 5, authorities = 1 }: { readonly nodes?: number; readonly authorities?: number } = {},
): Topology {
  const nodes = NODE_NETS.slice(0, count).map((net, i) => host(id, NODE_NAMES[i]!, 'node', net))
  const directories =
    authorities === 1
      ? [host(id, 'directory', 'directory', 50)]
      : AUTHORITY_NAMES.slice(0, authorities).map((name, i) => host(id, name, 'directory', 201 + i))
  return {
    id,
    router: `${id}-router`,
    hosts: [
      host(id, 'client', 'client', 1),
      host(id, 'plain', 'plain', 2),
      ...nodes,
      host(id, 'server', 'server', 40),
      ...directories,
    ],
  }
}

export const nodesOf = (topology: Topology): readonly Host[] =>
  topology.hosts.filter((candidate) => candidate.role === 'node')

export const directoriesOf = (topology: Topology): readonly Host[] =>
  topology.hosts.filter((candidate) => candidate.role === 'directory')

export function hostOf(topology: Topology, name: string): Host {
  const found = topology.hosts.find((candidate) => candidate.name === name)
  if (found === undefined) throw new RangeError(`no host ${name}`)
  return found
}

/** The command line that runs `argv` in a namespace. */
export const inNamespace = (namespace: string, ...argv: readonly string[]): string[] => [
  'ip',
  'netns',
  'exec',
  namespace,
  ...argv,
]

/** Creates it. Few processes, because starting one is slow in User-Mode Linux. */
export async function raise(commands: Commands, topology: Topology): Promise<void> {
  const lines = [topology.router, ...topology.hosts.map((h) => h.namespace)].map((n) => `netns add ${n}`)
  for (const h of topology.hosts)
    lines.push(`link add eth0 netns ${h.namespace} type veth peer name ${h.cable} netns ${topology.router}`)
  await commands.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
  const routerBatch = topology.hosts.map(
    (h) => `addr add ${h.gateway}/24 dev ${h.cable}\n${cableUp(h.cable)}`,
  )
  await configure(commands, topology.router, true, routerBatch)
  await Promise.all(
    topology.hosts.map((h) =>
      configure(commands, h.namespace, false, [
        `addr add ${h.address}/24 dev eth0`,
        cableUp('eth0'),
        `route add default via ${h.gateway}`,
      ]),
    ),
  )
}

/**
 * Drops `percent` of the packets between any two hosts at random, in the router: nftables, or iptables where
 * the kernel has no nft ip family (User-Mode Linux).
 */
export async function impair(commands: Commands, topology: Topology, percent: number): Promise<void> {
  const tenths = Math.round(percent * 10)
  const rules = `table ip loss {
  chain forward { type filter hook forward priority 0; numgen random mod 1000 < ${tenths} drop; }
}`
  const nft = await commands.run(inNamespace(topology.router, 'nft', '-f', '-'), {
    input: rules,
    check: false,
  })
  if (nft.code === 0) return
  const match = ['-m', 'statistic', '--mode', 'random', '--probability', String(tenths / 1000)]
  await commands.run(inNamespace(topology.router, 'iptables-legacy', '-A', 'FORWARD', ...match, '-j', 'DROP'))
}

/** Ends every process in the namespaces of one run and removes them. Safe to repeat. */
export async function fell(commands: Commands, id: string): Promise<void> {
  const namespaces = (await listNamespaces()).filter((name) => name.startsWith(`${id}-`))
  if (namespaces.length > 0) {
    await Promise.all(namespaces.map((namespace) => endProcesses(commands, namespace)))
    const input = `${namespaces.map((name) => `netns del ${name}`).join('\n')}\n`
    await commands.run(['ip', '-force', '-batch', '-'], { input, check: false, always: true })
  }
  await rm(runDirectory(id), { recursive: true, force: true })
}

/** Where sockets, keys and state of a run live: a tmpfs, since a host's file system may not carry Unix sockets. */
export const runDirectory = (id: string): string => `/run/ippriv-demo-${id}`

/** Runs whose process is gone and that were not kept on purpose: SIGKILL left them. */
export async function staleRuns(): Promise<string[]> {
  const stale: string[] = []
  for (const id of await knownRuns()) if (!(await isAlive(id)) && !(await isKept(id))) stale.push(id)
  return stale
}

/** Runs left up with --keep. */
export async function keptRuns(): Promise<string[]> {
  const kept: string[] = []
  for (const id of await knownRuns()) if (await isKept(id)) kept.push(id)
  return kept
}

export const keptMark = (id: string): string => `${runDirectory(id)}/kept`

const ID = /^(ippd(\d+))$/

async function knownRuns(): Promise<string[]> {
  const ids = new Set<string>()
  for (const name of await listNamespaces()) {
    const id = name.split('-')[0]!
    if (ID.test(id)) ids.add(id)
  }
  for (const name of await list('/run')) {
    const id = name.replace(/^ippriv-demo-/, '')
    if (name !== id && ID.test(id)) ids.add(id)
  }
  return [...ids]
}

async function isAlive(id: string): Promise<boolean> {
  const pid = ID.exec(id)![2]!
  // The pid may have been given to another program since: only a process that runs the demo counts.
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return line.split('\0').includes('demo')
}

const isKept = async (id: string): Promise<boolean> => (await list(runDirectory(id))).includes('kept')

const listNamespaces = (): Promise<string[]> => list('/run/netns')

async function list(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function endProcesses(commands: Commands, namespace: string): Promise<void> {
  const script = 'p=$(ip netns pids "$0"); [ -z "$p" ] || kill -9 $p'
  await commands.run(['sh', '-c', script, namespace], { check: false, always: true })
}

/**
 * One shell for all of a namespace. Nodes do not forward yet: their daemons see to that. Segmentation offload is switched off (one segment per packet), so that
 * captures hold the packets a real cable would carry; IPv6 is off, so that nothing is sent unasked.
 */
async function configure(
  commands: Commands,
  namespace: string,
  forwarding: boolean,
  batch: readonly string[],
): Promise<void> {
  const script = `for f in all default; do
  v6=/proc/sys/net/ipv6/conf/$f/disable_ipv6; [ ! -e $v6 ] || echo 1 >$v6
  echo 0 >/proc/sys/net/ipv4/conf/$f/send_redirects
done
echo ${forwarding ? 1 : 0} >/proc/sys/net/ipv4/ip_forward
exec ip -batch - <<END
link set lo up
${batch.join('\n')}
END
`
  await commands.run(inNamespace(namespace, 'sh', '-e', '-s'), { input: script })
}

const cableUp = (device: string): string => `link set ${device} gso_max_segs 1 up`

function host(id: string, name: string, role: Host['role'], net: number): Host {
  return {
    name,
    role,
    namespace: `${id}-${name}`,
    address: `198.18.${net}.1`,
    gateway: `198.18.${net}.254`,
    cable: `r-${name}`,
  }
}
