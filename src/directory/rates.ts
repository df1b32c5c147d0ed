/**
 * How fast each node was found to be, document by document, for its page: what the documents said, and no more. A week
 * of it, in columns: the moments are common to all nodes. Pure.
 *
 *     {"at":[1767225600,...],"rates":{"<node id>":[8192,null,...]}}        (kbit/s; the last one belongs to the last moment)
 */
import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { isNodeId, type NodeId } from '#base/ids'
import type { UnixTime } from '#base/time'
import { Moment } from '#directory/schemas'

export interface Rates {
  readonly at: readonly UnixTime[]
  /** No longer than `at`; null: it was not listed, or not measured. */
  readonly of: ReadonlyMap<NodeId, readonly (number | null)[]>
}

export const NO_RATES: Rates = { at: [], of: new Map() }

/** Moments that are kept: a week of every other document of an hour. */
export const RATE_POINTS = 84

/** Nodes that are kept, of those that are not listed any more; who is listed is. */
const MOST_NODES = 20_000

/**
 * With one more column. It takes the place of the last one when that came less than `spacing` seconds after the one
 * before, and of those that are not older.
 */
export function extendRates(
  { at, of }: Rates,
  moment: UnixTime,
  listed: ReadonlyMap<NodeId, number>,
  spacing: number,
): Rates {
  const past = at.filter((each) => each < moment)
  const [before, last] = [past.at(-2) ?? Number.NEGATIVE_INFINITY, past.at(-1)]
  if (last !== undefined && last - before < spacing) past.pop()
  const dropped = at.length - past.length
  const moments = [...past, moment].slice(-RATE_POINTS)
  const next = new Map<NodeId, readonly (number | null)[]>()
  const columnOf = (id: NodeId): (number | null)[] => {
    const column = of.get(id) ?? []
    const kept = column.slice(0, Math.max(0, column.length - dropped))
    return [...kept, listed.get(id) ?? null].slice(-moments.length)
  }
  for (const id of listed.keys()) next.set(id, columnOf(id))
  for (const id of of.keys()) {
    if (next.size >= MOST_NODES) break
    if (next.has(id)) continue
    const column = columnOf(id)
    if (column.some((rate) => rate !== null)) next.set(id, column)
  }
  return { at: moments, of: next }
}

/** Bits per second, where there is a figure. */
export function courseOf({ at, of }: Rates, id: NodeId): { readonly at: UnixTime; readonly value: number }[] {
  const column = of.get(id) ?? []
  const first = at.length - column.length
  return column.flatMap((rate, i) => (rate === null ? [] : [{ at: at[first + i]!, value: 1000 * rate }]))
}

export const encodeRates = ({ at, of }: Rates): string =>
  JSON.stringify({ at, rates: Object.fromEntries(of) })

/** Nothing for anything that is none: it is not worth an error. */
export function decodeRates(text: string): Rates {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return NO_RATES
  }
  if (!stored.Check(value)) return NO_RATES
  const at = value.at as UnixTime[]
  const entries = Object.entries(value.rates)
  const isWhole =
    at.every((moment, i) => i === 0 || at[i - 1]! < moment) &&
    entries.every(([id, column]) => isNodeId(id) && column.length <= at.length)
  return isWhole ? { at, of: new Map(entries as [NodeId, (number | null)[]][]) } : NO_RATES
}

const Rate = Type.Union([Type.Integer({ minimum: 0, maximum: 1_000_000_000 }), Type.Null()])
const Stored = Type.Object(
  {
    at: Type.Array(Moment, { maxItems: RATE_POINTS }),
    rates: Type.Record(Type.String(), Type.Array(Rate, { maxItems: RATE_POINTS })),
  },
  { additionalProperties: false },
)
const stored = Compile(Stored)
