/**
 * When authorities do what. All moments of a period follow from its number, so that no message has to agree on them:
 *
 *     vote ──── roll ──── sign ───────────── start of the period: the document is valid and served
 *       one step   one step     two steps
 *
 * Clocks may differ by almost a step and everything arrives in time.
 */
import type { UnixTime } from '#base/time'
import { periodOf, startOf } from '#directory/vote'

export interface Schedule {
  readonly vote: UnixTime
  /** Votes that come later count only when another authority had them by then. */
  readonly roll: UnixTime
  /** What is not there by now does not count. */
  readonly sign: UnixTime
  readonly start: UnixTime
}

/** Seconds. A period of an hour has steps of five minutes. */
export const stepOf = (length: number): number => Math.min(300, Math.floor(length / 12))

export function scheduleOf(period: number, length: number): Schedule {
  const start = startOf(period, length)
  const step = stepOf(length)
  const before = (steps: number) => (start - steps * step) as UnixTime
  return { vote: before(4), roll: before(3), sign: before(2), start }
}

/** The period that is being prepared, or whose document was the last to be: from its vote to the vote of the next. */
export const roundAt = (now: UnixTime, length: number): number =>
  periodOf((now + 4 * stepOf(length)) as UnixTime, length)
