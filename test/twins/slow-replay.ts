/**
 * The readable twin of `telescope/replay.ts`: a set of every number seen, and RFC 4303 appendix A2 with bigints,
 * line by line.
 */
export class SlowReplay {
  readonly seen = new Set<bigint>()
  top = 0n
  readonly size: bigint
  readonly esn: boolean

  constructor(size: number, esn: boolean) {
    this.size = BigInt(Math.ceil(size / 32) * 32)
    this.esn = esn
  }

  /** Of all numbers with these low bits, the one appendix A2 takes it for. */
  infer(low: bigint): bigint {
    if (!this.esn) return low
    const cycle = 1n << 32n
    const th = this.top / cycle
    const tl = this.top % cycle
    const w = this.size
    const bottom = (tl - w + 1n + cycle) % cycle
    let high: bigint
    if (tl >= w - 1n) high = low >= bottom ? th : th + 1n
    else high = low >= bottom ? th - 1n : th
    return high * cycle + low
  }

  /** Takes a packet that verifies. */
  take(low: bigint): boolean {
    const sequence = this.infer(low)
    if (sequence <= 0n || this.seen.has(sequence)) return false
    if (sequence <= this.top - this.size) return false
    this.seen.add(sequence)
    if (sequence > this.top) this.top = sequence
    return true
  }
}
