/** What the kernel of a namespace counted: to be asked of an instant in which too little came. */
import type { Commands } from '#demo/command'
import { type Host, inNamespace } from '#demo/topology'

/** `Tcp: RetransSegs`, `TcpExt: TCPTimeouts`, `XfrmInNoStates`. */
export type Counters = Readonly<Record<string, number>>

export async function countersOf(commands: Commands, host: Host): Promise<Counters> {
  const files = ['snmp', 'netstat', 'xfrm_stat'].map((name) => `/proc/net/${name}`)
  const { stdout } = await commands.run(inNamespace(host.namespace, 'cat', ...files), { check: false })
  return parseCounters(stdout)
}

/** Tables of two lines, names and values, with their title before both; or a line of each: name and value. */
export function parseCounters(text: string): Counters {
  const found: Record<string, number> = {}
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/))
  for (const [i, [title, ...rest]] of lines.entries()) {
    const [below, ...values] = lines[i + 1] ?? []
    if (title?.startsWith('Xfrm')) found[title] = Number(rest[0])
    else if (title === below)
      for (const [at, name] of rest.entries()) found[`${title} ${name}`] = Number(values[at])
  }
  return found
}

const TELLING = /^Xfrm|Retrans|Timeout|Rst|Reset|Drop|Discard|NoRoute|Prune|Abort/

/** Those that say of packets that something became of them, and grew. */
export const grown = (before: Counters, now: Counters): string =>
  Object.entries(now)
    .map(([name, value]) => [name, value - (before[name] ?? 0)] as const)
    .filter(([name, more]) => more !== 0 && TELLING.test(name))
    .map(([name, more]) => `${name} +${more}`)
    .join(', ')
