/**
 * What the network was like, a point for each document: for the page. It is bounded, thinned as it gets old, and worth
 * nothing to anybody else; nothing in it is about a client. Pure.
 */
import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { UnixTime } from '#base/time'
import { Moment } from '#directory/schemas'

export interface HistoryPoint {
  readonly at: UnixTime
  readonly nodes: number
  readonly exits: number
  /** Measured, bits per second, of all nodes. Undefined: nothing was measured. */
  readonly bandwidth?: number
  readonly signatures: number
}

/** A month of documents of an hour. */
export const HISTORY_POINTS = 720

/**
 * With one more point at the end. It takes the place of the last one when that came less than `spacing` seconds after the
 * one before: documents that are made early do not push the past out.
 */
export function extendHistory(
  history: readonly HistoryPoint[],
  point: HistoryPoint,
  spacing: number,
  limit = HISTORY_POINTS,
): readonly HistoryPoint[] {
  const before = history.filter(({ at }) => at < point.at)
  const last = before.at(-1)
  const crowded = last !== undefined && last.at - (before.at(-2)?.at ?? Number.NEGATIVE_INFINITY) < spacing
  const kept = crowded ? before.slice(0, -1) : before
  return [...kept.slice(Math.max(0, kept.length - limit + 1)), point]
}

export const encodeHistory = (history: readonly HistoryPoint[]): string => JSON.stringify(history)

/** Empty for anything that is no history: it is not worth an error. */
export function decodeHistory(text: string): readonly HistoryPoint[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return []
  }
  if (!stored.Check(value)) return []
  const points = value.map((point): HistoryPoint => ({ ...point, at: point.at as UnixTime }))
  return points.every(({ at }, i) => i === 0 || points[i - 1]!.at < at) ? points : []
}

const Count = Type.Integer({ minimum: 0, maximum: 1_000_000 })
const Stored = Type.Array(
  Type.Object(
    {
      at: Moment,
      nodes: Count,
      exits: Count,
      bandwidth: Type.Optional(Type.Number({ minimum: 0 })),
      signatures: Count,
    },
    { additionalProperties: false },
  ),
  { maxItems: HISTORY_POINTS },
)
const stored = Compile(Stored)
