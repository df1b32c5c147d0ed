/**
 * What an authority thinks of the nodes it would list: their flags. Pure. The rules are written down for operators in
 * docs/directory.md; they follow Tor's (dir-spec, "Assigning flags in a vote") with fewer numbers.
 *
 * Speed is what the last document says, which all authorities have alike, so that honest ones seldom differ.
 */
import type { NodeId } from '#base/ids'
import { type Ip, uint32ToIp } from '#base/ip'
import type { UnixTime } from '#base/time'
import { STALE_PERIODS } from '#directory/admission'
import type { AuthorityRecord } from '#directory/authority-events'
import type { NodeFlag } from '#directory/documents'
import { exitAllows } from '#nat/exit-policy'
import type { ExitPolicy } from '#nat/rules'

export interface Bench {
  readonly now: UnixTime
  /** Seconds. */
  readonly period: number
  /** As the last document says; undefined: too few measured it. */
  readonly bandwidthOf: (node: NodeId) => number | undefined
}

/** Periods a node must have been known for before it gets a flag that draws clients to it. */
export const STAY = 2

const DAY = 86_400
/** Enough for a flag, however fast or old others are. Kilobits per second, and seconds. */
const FAST_ENOUGH = 8_000
const GUARD_FAST_ENOUGH = 16_000
const STABLE_ENOUGH = 7 * DAY
const KNOWN_ENOUGH = 8 * DAY
/** With which a node without a figure is compared. */
const UNMEASURED = 256

/** @param nodes that would be listed: their descriptors are fresh, and no elder has their name or address */
export function flagsOf(nodes: readonly AuthorityRecord[], bench: Bench): Map<NodeId, NodeFlag[]> {
  const { now, period } = bench
  const running = nodes.filter((node) => isRunning(node, bench))
  const speed = ({ descriptor }: AuthorityRecord): number =>
    bench.bandwidthOf(descriptor.nodeId) ?? UNMEASURED
  const uptime = ({ up }: AuthorityRecord): number => (up === undefined ? 0 : now - up)
  const age = ({ since }: AuthorityRecord): number => now - since
  const speeds = running.map(speed).sort(ascending)
  const medianUptime = at(running.map(uptime).sort(ascending), 1 / 2)
  const medianAge = at(running.map(age).sort(ascending), 1 / 2)
  const policies = new Map<string, boolean>()
  const flags = new Map<NodeId, NodeFlag[]>()
  for (const node of nodes) flags.set(node.descriptor.nodeId, ['valid'])
  for (const node of running) {
    const { nodeId, roles, exitPolicy } = node.descriptor
    const its = flags.get(nodeId)!
    its.push('running')
    if (age(node) < STAY * period) continue
    const fast = speed(node) >= Math.min(FAST_ENOUGH, at(speeds, 1 / 8))
    const stable = uptime(node) >= Math.min(STABLE_ENOUGH, medianUptime)
    if (fast) its.push('fast')
    if (stable) its.push('stable')
    if (roles.includes('exit') && allowsTheWeb(exitPolicy, policies)) its.push('exit')
    const trusted = age(node) >= Math.min(KNOWN_ENOUGH, medianAge)
    const ample = speed(node) >= Math.min(GUARD_FAST_ENOUGH, at(speeds, 1 / 2))
    if (roles.includes('entry') && fast && stable && trusted && ample) its.push('guard')
  }
  return flags
}

/** Unless our own measurer lately found that nothing comes through. */
export const isRunning = (
  { figure }: AuthorityRecord,
  { now, period }: Pick<Bench, 'now' | 'period'>,
): boolean => figure === undefined || figure.bandwidth > 0 || figure.at < now - STALE_PERIODS * period

/** Addresses all over the Internet, and none that is anybody's own network. */
const ANYWHERE: readonly Ip[] = Array.from({ length: 64 }, (_, i) =>
  uint32ToIp(((11 + 3 * i) << 24) | ((i * 0x9e3779) & 0xffffff)),
).filter((address) => !/^(100|127|169|172|192|198|203)\./.test(address))

function allowsTheWeb(policy: ExitPolicy, known: Map<string, boolean>): boolean {
  const key = JSON.stringify(policy)
  const before = known.get(key)
  if (before !== undefined) return before
  const allows = [80, 443].every((port) => {
    const open = ANYWHERE.filter((destination) => exitAllows(policy, { destination, protocol: 'tcp', port }))
    return open.length >= (7 / 8) * ANYWHERE.length
  })
  known.set(key, allows)
  return allows
}

const ascending = (a: number, b: number): number => a - b

/** The value at that share of a sorted list; 0 of none. */
const at = (sorted: readonly number[], share: number): number =>
  sorted[Math.floor(share * (sorted.length - 1))] ?? 0
