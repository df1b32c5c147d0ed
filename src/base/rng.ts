/** Randomness is injected: the CSPRNG in production, a seeded generator in simulations. */
export interface Rng {
  /** `length` fresh octets. */
  bytes(length: number): Uint8Array
}

/** A uniform integer in [0, bound), by rejection (no modulo bias). `bound` is 1..2^32. */
export function uniform(rng: Rng, bound: number): number {
  const limit = Math.floor(0x1_0000_0000 / bound) * bound
  for (;;) {
    const value = randomUint32(rng)
    if (value < limit) return value % bound
  }
}

export function randomUint32(rng: Rng): number {
  const b = rng.bytes(4)
  return ((b[0]! << 24) | (b[1]! << 16) | (b[2]! << 8) | b[3]!) >>> 0
}

/** So many of them at most, each once, in random order. */
export function drawSome<T>(rng: Rng, items: readonly T[], count: number): T[] {
  const rest = [...items]
  const drawn: T[] = []
  while (drawn.length < count && rest.length > 0) drawn.push(...rest.splice(uniform(rng, rest.length), 1))
  return drawn
}

/** Uniform in [0, 1), with 53 bits. */
export function fraction(rng: Rng): number {
  const b = rng.bytes(7)
  const high = ((b[0]! & 31) << 16) | (b[1]! << 8) | b[2]!
  const low = ((b[3]! << 24) | (b[4]! << 16) | (b[5]! << 8) | b[6]!) >>> 0
  return (high * 0x1_0000_0000 + low) / 2 ** 53
}

/** A duration uniform in [mean - spread, mean + spread]. */
export function jittered(rng: Rng, mean: number, spread: number): number {
  return mean - spread + (2 * spread * randomUint32(rng)) / 0x1_0000_0000
}
