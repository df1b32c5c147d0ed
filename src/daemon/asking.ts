/**
 * When to ask for the successor of a document. Authorities publish at fixed times, so before that there is nothing to
 * ask for. Everybody waits a random while after it, or authorities would have one busy second an hour; and clients wait
 * until nodes had their turn, or they would build circuits through neighbours that do not know each other yet.
 */
import { fraction, type Rng } from '#base/rng'
import type { UnixTime } from '#base/time'
import type { Consensus } from '#directory/documents'

/** Shares of a period, counted from where the document is not fresh any more. It is valid for two periods from there. */
const WINDOWS = { node: [0, 1 / 12], client: [1 / 12, 1 / 2] } as const

export function dueAt(
  { validAfter, freshUntil }: Pick<Consensus, 'validAfter' | 'freshUntil'>,
  who: keyof typeof WINDOWS,
  rng: Rng,
): UnixTime {
  const [from, to] = WINDOWS[who]
  const share = from + (to - from) * fraction(rng)
  return Math.ceil(freshUntil + share * (freshUntil - validAfter)) as UnixTime
}
