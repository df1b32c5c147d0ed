/**
 * For how long an authentication is good: the three lifetimes of the study on caching IKE. Each counts something else
 * since the last full exchange, and allows to resume while that is below its limit.
 *
 *     clocked       time that went by
 *     established   time during which there was a connection
 *     data          octets that went through
 */
import type { Duration, Instant } from '#base/time'

export const STRATEGIES = ['clocked', 'established', 'data'] as const
export type StrategyKind = (typeof STRATEGIES)[number]

/** `limit` is a duration, or octets for `data`. */
export interface Strategy {
  readonly kind: StrategyKind
  readonly limit: number
}

/** What was used of an authentication, over all connections since. */
export interface Usage {
  /** The last full exchange. */
  readonly since: Instant
  readonly connected: Duration
  readonly octets: number
}

/** May a session be resumed that has been used so far? */
export function allows({ kind, limit }: Strategy, usage: Usage, now: Instant): boolean {
  switch (kind) {
    case 'clocked':
      return now - usage.since < limit
    case 'established':
      return usage.connected < limit
    case 'data':
      return usage.octets < limit
  }
}
