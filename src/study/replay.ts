/**
 * How many full exchanges a log of connections would have cost under a strategy, by the very rule the nodes apply.
 * A connection is a full exchange or resumed, when it begins; how long a running one may last is not its business.
 */
import { HOUR, type Instant, instant, SECOND } from '#base/time'
import { allows, type Strategy, type Usage } from '#ikev2/resumption/strategy'
import type { Connection } from '#study/log'

export interface Outcome {
  readonly strategy: Strategy
  readonly full: number
  readonly resumed: number
  /** Of all connections, those that were resumed: 0..1. */
  readonly saved: number
}

const MEGABYTE = 1_000_000

/** What the study tried, as far as it says. */
export const STRATEGIES_OF_STUDY: readonly Strategy[] = [
  ...[1, 2, 4, 8, 12, 24, 48].map((hours) => ({ kind: 'clocked', limit: hours * HOUR }) as const),
  ...[0.5, 1, 2, 4, 8].map((hours) => ({ kind: 'established', limit: hours * HOUR }) as const),
  ...[5, 10, 20, 50, 100].map((megabytes) => ({ kind: 'data', limit: megabytes * MEGABYTE }) as const),
]

/** In the order of `strategies`. */
export function replay(log: readonly Connection[], strategies: readonly Strategy[]): Outcome[] {
  const inOrder = [...log].sort((a, b) => a.start - b.start)
  return strategies.map((strategy) => {
    const full = countFull(inOrder, strategy)
    const resumed = log.length - full
    return { strategy, full, resumed, saved: log.length === 0 ? 0 : resumed / log.length }
  })
}

function countFull(log: readonly Connection[], strategy: Strategy): number {
  const usageOf = new Map<string, Usage>()
  let full = 0
  for (const { user, start, end, bytes } of log) {
    const now: Instant = instant(start * SECOND)
    let usage = usageOf.get(user)
    if (usage === undefined || !allows(strategy, usage, now)) {
      full++
      usage = { since: now, connected: 0, octets: 0 }
    }
    usageOf.set(user, {
      since: usage.since,
      connected: usage.connected + (end - start) * SECOND,
      octets: usage.octets + bytes,
    })
  }
  return full
}

/** What the study found, in words of its own text; nothing where it is silent. */
export function published({ kind, limit }: Strategy): string {
  if (kind === 'established' && limit === 2 * HOUR) return 'full < 20 %'
  if (kind === 'data' && limit === 20 * MEGABYTE) return 'full about 25 % (wireless)'
  if (kind === 'data' && limit === 50 * MEGABYTE) return 'full about 25 % (remote)'
  return ''
}
