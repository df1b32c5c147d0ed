/**
 * How the bandwidth of a network is shared among the positions of a path, so that none is short of it. A circuit takes
 * one entry, one middle and one exit, so each position has to carry the same. Nodes that can stand in one position only
 * stand there with all they have; those that can choose go where it is needed. Tor has a table of cases for this
 * (dir-spec, "Computing bandwidth weights": Wgg, Wgd, Wme, ...); here one rule gives the same ends:
 *
 *   - each position has a demand; a node's bandwidth is shared among its positions in proportion to their demands;
 *   - demands are turned up where a position carries less than its third, and down where it carries more, until all
 *     carry the same, or the scarce ones have everything that can stand there.
 *
 * Pure and the same for every client with the same document.
 */

/** The three positions, as bits of what a node can be. */
export type Place = 'entry' | 'middle' | 'exit'
export const PLACES: readonly Place[] = ['entry', 'middle', 'exit']
export const BIT: Readonly<Record<Place, number>> = { entry: 1, middle: 2, exit: 4 }
/** Sets of positions, as sums of bits. */
export const MASKS = 8

/** By set of positions, then by position: which part of a node's bandwidth counts there. */
export type PositionShares = readonly Readonly<Record<Place, number>>[]

const ROUNDS = 200

/** @param bandwidth of all nodes that can stand in just these positions, by mask (index 0 is not looked at) */
export function shareBandwidth(bandwidth: readonly number[]): PositionShares {
  const demand: Record<Place, number> = { entry: 0, middle: 0, exit: 0 }
  for (let round = 0; round < ROUNDS; round++) {
    const carried = carriedWith(demand, bandwidth)
    const third = (carried.entry + carried.middle + carried.exit) / 3
    // Where nobody can stand, no demand helps; and what is scarce for good must not grow without bound.
    for (const place of PLACES) if (carried[place] > 0) demand[place] += Math.log(third / carried[place])
  }
  return Array.from({ length: MASKS }, (_, mask) => sharesOf(mask, demand))
}

/** What each position carries with these shares. */
export function carriedBy(shares: PositionShares, bandwidth: readonly number[]): Record<Place, number> {
  const carried: Record<Place, number> = { entry: 0, middle: 0, exit: 0 }
  for (let mask = 1; mask < MASKS; mask++)
    for (const place of PLACES) carried[place] += (bandwidth[mask] ?? 0) * shares[mask]![place]
  return carried
}

const carriedWith = (demand: Readonly<Record<Place, number>>, bandwidth: readonly number[]) =>
  carriedBy(
    Array.from({ length: MASKS }, (_, mask) => sharesOf(mask, demand)),
    bandwidth,
  )

/** Demands are logarithms: what is scarce is turned up for ever, and must not leave the numbers there are. */
function sharesOf(mask: number, demand: Readonly<Record<Place, number>>): Record<Place, number> {
  const places = PLACES.filter((place) => (mask & BIT[place]) !== 0)
  const most = Math.max(...places.map((place) => demand[place]))
  const parts = places.map((place) => [place, Math.exp(demand[place] - most)] as const)
  const sum = parts.reduce((total, [, part]) => total + part, 0)
  const shares: Record<Place, number> = { entry: 0, middle: 0, exit: 0 }
  for (const [place, part] of parts) shares[place] = part / sum
  return shares
}
