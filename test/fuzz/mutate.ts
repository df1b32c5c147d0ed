/** Changes of octets, all from one seed. */
import { concat } from '#base/bytes'
import type { SeededRng } from '../sim/random.ts'

const MAX_LENGTH = 4096
/** Values at which lengths, counts and numbers turn. */
const INTERESTING = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 24, 31, 32, 34, 46, 53, 63, 64, 127, 128, 253, 254, 255]

/** `octets` after one to four changes; pieces may come from `other`. */
export function mutate(rng: SeededRng, octets: Uint8Array, other: Uint8Array): Uint8Array {
  let result: Uint8Array = octets.slice()
  for (let i = 1 + below(rng, 4); i > 0; i--) result = pick(rng, CHANGES)(rng, result, other)
  return result.subarray(0, MAX_LENGTH)
}

/** Uniform in 0 .. limit - 1. */
export const below = (rng: SeededRng, limit: number): number => Math.floor(rng.fraction() * limit)
export const pick = <T>(rng: SeededRng, list: readonly T[]): T => list[below(rng, list.length)]!

type Change = (rng: SeededRng, octets: Uint8Array, other: Uint8Array) => Uint8Array

const place = (rng: SeededRng, octets: Uint8Array): number => below(rng, Math.max(1, octets.length))
const piece = (rng: SeededRng, octets: Uint8Array): Uint8Array => {
  const start = place(rng, octets)
  return octets.subarray(start, start + 1 + below(rng, 64))
}
const insert = (octets: Uint8Array, at: number, more: Uint8Array): Uint8Array =>
  concat(octets.subarray(0, at), more, octets.subarray(at))

/** Sets one octet, if there is one. */
const set = (octets: Uint8Array, at: number, value: number): Uint8Array => {
  if (at < octets.length) octets[at] = value
  return octets
}

const CHANGES: readonly Change[] = [
  (rng, octets) => {
    const at = place(rng, octets)
    return set(octets, at, (octets[at] ?? 0) ^ (1 << below(rng, 8)))
  },
  (rng, octets) => set(octets, place(rng, octets), below(rng, 256)),
  (rng, octets) => set(octets, place(rng, octets), pick(rng, INTERESTING)),
  (rng, octets) => {
    const at = place(rng, octets)
    return set(octets, at, (octets[at] ?? 0) + below(rng, 9) - 4)
  },
  // A 16-bit number of the wire: a length, mostly.
  (rng, octets) => {
    const at = place(rng, octets)
    return set(set(octets, at, rng.fraction() < 0.7 ? 0 : below(rng, 256)), at + 1, below(rng, 256))
  },
  (rng, octets) => {
    const at = place(rng, octets)
    return concat(octets.subarray(0, at), octets.subarray(at + 1 + below(rng, 16)))
  },
  (rng, octets) => octets.slice(0, place(rng, octets)),
  (rng, octets) => insert(octets, place(rng, octets), piece(rng, octets)),
  (rng, octets, other) => insert(octets, place(rng, octets), piece(rng, other)),
  (rng, octets, other) => concat(octets.subarray(0, place(rng, octets)), other.subarray(place(rng, other))),
  (rng, octets) => insert(octets, place(rng, octets), rng.bytes(1 + below(rng, 8))),
]
