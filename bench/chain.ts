/**
 * Five hosts in a row, in network namespaces, and others beside the first:
 *
 *     client 198.18.1.1 --+
 *                         +-- alder 198.18.10.1 -- birch 198.18.20.1 -- cedar 198.18.30.1 -- server 198.18.40.1
 *     plain  198.18.2.1 --+                                                                  directory 198.18.50.1
 *     second 198.18.3.1 --+
 *     third  198.18.4.1 --+
 *
 * Whatever goes from the left to the right, direct, by tor or by a telescope, crosses the same four cables. `plain`
 * is where the direct and the tor traffic begins: the client's guard lets nothing out in clear. `second` and `third` are
 * there for who measures several clients. Segmentation offload
 * stays as the kernel has it, which favours whoever sends long TCP segments.
 */
import type { Commands } from '#demo/command'
import { inNamespace } from '#demo/topology'

export const CHAIN_NODES = ['alder', 'birch', 'cedar'] as const

export interface Chain {
  /** Prefix of every namespace. */
  readonly id: string
}

export const ADDRESS = {
  client: '198.18.1.1',
  plain: '198.18.2.1',
  second: '198.18.3.1',
  third: '198.18.4.1',
  alder: '198.18.10.1',
  birch: '198.18.20.1',
  cedar: '198.18.30.1',
  server: '198.18.40.1',
  directory: '198.18.50.1',
} as const
export type ChainHost = Exclude<keyof typeof ADDRESS, 'directory'>

export const namespaceOf = (chain: Chain, host: ChainHost): string => `${chain.id}-${host}`
export const onHost = (chain: Chain, host: ChainHost, ...argv: readonly string[]): string[] =>
  inNamespace(namespaceOf(chain, host), ...argv)

/** From left to right. A cable's devices are named after the host at its other end. */
const CABLES: readonly (readonly [ChainHost, ChainHost])[] = [
  ['client', 'alder'],
  ['plain', 'alder'],
  ['second', 'alder'],
  ['third', 'alder'],
  ['alder', 'birch'],
  ['birch', 'cedar'],
  ['cedar', 'server'],
]
/** The next host on the way, by destination; `default` for all others. */
const ROUTES: Readonly<Record<ChainHost, Partial<Record<ChainHost | 'default', ChainHost>>>> = {
  client: { default: 'alder' },
  plain: { default: 'alder' },
  second: { default: 'alder' },
  third: { default: 'alder' },
  alder: { client: 'client', plain: 'plain', second: 'second', third: 'third', default: 'birch' },
  birch: {
    client: 'alder',
    plain: 'alder',
    second: 'alder',
    third: 'alder',
    alder: 'alder',
    default: 'cedar',
  },
  cedar: {
    ...{ client: 'birch', plain: 'birch', second: 'birch', third: 'birch', alder: 'birch', birch: 'birch' },
    default: 'server',
  },
  server: { default: 'cedar' },
}

/** Of all its cables. */
export const devicesOf = (host: ChainHost): ChainHost[] =>
  CABLES.flatMap(([left, right]) => (host === left ? [right] : host === right ? [left] : []))

export async function raiseChain(commands: Commands, chain: Chain): Promise<void> {
  const hosts = Object.keys(ROUTES) as ChainHost[]
  const lines = hosts.map((host) => `netns add ${namespaceOf(chain, host)}`)
  for (const [left, right] of CABLES)
    lines.push(
      `link add ${right} netns ${namespaceOf(chain, left)} type veth peer name ${left} netns ${namespaceOf(chain, right)}`,
    )
  await commands.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
  for (const host of hosts) await configure(commands, chain, host)
}

/** Ends every process in the namespaces and removes them. Safe to repeat. */
export async function fellChain(commands: Commands, chain: Chain): Promise<void> {
  for (const host of Object.keys(ROUTES) as ChainHost[]) {
    const namespace = namespaceOf(chain, host)
    const script = 'p=$(ip netns pids "$0") && [ -n "$p" ] && kill -9 $p; ip netns del "$0"'
    await commands.run(['sh', '-c', script, namespace], { check: false, always: true })
  }
}

export interface Impairment {
  /** Of the cable between alder and birch, each way. */
  readonly mbps?: number
  /** Of packets on that cable, each way, at random; in percent. */
  readonly loss?: number
}

/** Replaces whatever the cable between the first and the second node was burdened with. */
export async function impairChain(
  commands: Commands,
  chain: Chain,
  { mbps, loss }: Impairment,
): Promise<void> {
  for (const [host, device] of [
    ['alder', 'birch'],
    ['birch', 'alder'],
  ] as const) {
    const run = (argv: readonly string[], input = '') =>
      commands.run(onHost(chain, host, ...argv), { check: false, input })
    await run(['tc', 'qdisc', 'del', 'dev', device, 'root'])
    await run(['nft', 'delete', 'table', 'netdev', 'impair'])
    if (mbps !== undefined) {
      // A router's queue of 50 ms, and a bucket that passes one long segment.
      const shape = ['rate', `${mbps}mbit`, 'burst', '70kb', 'latency', '50ms']
      await commands.run(onHost(chain, host, 'tc', 'qdisc', 'add', 'dev', device, 'root', 'tbf', ...shape))
    }
    if (loss === undefined || loss === 0) continue
    const rule = `numgen random mod 1000 < ${Math.round(loss * 10)} drop`
    await commands.run(onHost(chain, host, 'nft', '-f', '-'), {
      input: `table netdev impair { chain lose { type filter hook ingress device "${device}" priority 0; ${rule}; }; }\n`,
    })
  }
}

/** With loss, long segments would be lost whole: packets on the burdened cable have the size of real ones. */
export async function realSegments(commands: Commands, chain: Chain, real: boolean): Promise<void> {
  for (const [left, right] of CABLES)
    for (const [host, device] of [
      [left, right],
      [right, left],
    ] as const) {
      const most = ['gso_max_segs', real ? '1' : '65535']
      await commands.run(onHost(chain, host, 'ip', 'link', 'set', device, ...most))
    }
}

async function configure(commands: Commands, chain: Chain, host: ChainHost): Promise<void> {
  const lines = ['link set lo up', `addr add ${ADDRESS[host]}/32 dev lo`]
  if (host === 'server') lines.push(`addr add ${ADDRESS.directory}/32 dev lo`)
  for (const [i, [left, right]] of CABLES.entries()) {
    if (host === left) lines.push(`addr add 198.19.${i}.1/30 dev ${right}`, `link set ${right} up`)
    if (host === right) lines.push(`addr add 198.19.${i}.2/30 dev ${left}`, `link set ${left} up`)
  }
  for (const [destination, next] of Object.entries(ROUTES[host])) {
    const target = destination === 'default' ? 'default' : `${ADDRESS[destination as ChainHost]}/32`
    lines.push(`route add ${target} via ${farEnd(host, next)} src ${ADDRESS[host]}`)
  }
  const script = `for f in all default; do
  echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6
  echo 0 >/proc/sys/net/ipv4/conf/$f/send_redirects
  echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter
done
echo ${(CHAIN_NODES as readonly string[]).includes(host) ? 1 : 0} >/proc/sys/net/ipv4/ip_forward
exec ip -batch - <<END
${lines.join('\n')}
END
`
  await commands.run(onHost(chain, host, 'sh', '-e', '-s'), { input: script })
}

/** The address at the other end of the cable to `next`. */
function farEnd(host: ChainHost, next: ChainHost): string {
  const i = CABLES.findIndex(([a, b]) => (a === host && b === next) || (a === next && b === host))
  return `198.19.${i}.${CABLES[i]![0] === host ? 2 : 1}`
}
