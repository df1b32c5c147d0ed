/** Randomness with a seed, so that a simulation can be run again: the same numbers for the same seed. Never for keys. */
import type { Rng } from '#base/rng'

export interface SeededRng extends Rng {
  /** Uniform in [0, 1). */
  fraction(): number
}

/** sfc32, seeded by a counter that is mixed in for a while. */
export function seededRng(seed: number): SeededRng {
  let [a, b, c, d] = [seed | 0, 0x9e3779b9, 0x243f6a88, 1]
  const next = (): number => {
    const t = (a + b + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + t) | 0
    return t >>> 0
  }
  for (let i = 0; i < 16; i++) next()
  return {
    fraction: () => next() / 2 ** 32,
    bytes: (length) => Uint8Array.from({ length }, () => next() & 255),
  }
}
