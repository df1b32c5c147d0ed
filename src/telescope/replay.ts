/**
 * The anti-replay window of one inbound SA (RFC 4303 section 3.4.3), with extended sequence numbers (section 2.2.1,
 * appendix A2). The bitmap is a ring of words that is never shifted (RFC 6479): advancing clears whole words only.
 *
 * Sequence numbers are 64-bit values held in a double: exact up to 2^53, and no SA lives to see that.
 *
 * Order of use: `infer` the full number from the 32 bits on the wire, `admits` it, verify the ICV with it, then
 * `accept`. A number that fails verification must not move the window.
 */
export const WINDOW_MIN = 32
export const WINDOW_MAX = 4096

const WORD = 32
const CYCLE = 0x1_0000_0000

/** What an inbound SA asks of its window. */
export interface SequenceWindow {
  infer(low: number): number
  admits(sequence: number): boolean
  /** False: it was accepted before, or lies left of the window by now. */
  accept(sequence: number): boolean
}

/** Where a window lies: its own memory, or some that threads share. All zero at first. */
export interface WindowMemory {
  readonly top: Float64Array
  readonly words: Uint32Array
}

/**
 * Words of the bitmap: a power of two with at least one to spare, so that the word being cleared is never inside the
 * window.
 */
export function replayWords(size: number): number {
  let words = 1
  while (words < Math.ceil(size / WORD) + 1) words *= 2
  return words
}

export class ReplayWindow implements SequenceWindow {
  readonly #size: number
  readonly #esn: boolean
  readonly #words: Uint32Array
  /** Highest number accepted; 0 before the first packet. */
  readonly #topCell: Float64Array

  /** `size` in packets, `WINDOW_MIN`..`WINDOW_MAX`, rounded up to a multiple of 32. @throws RangeError otherwise. */
  constructor(size: number, esn: boolean, memory?: WindowMemory) {
    if (!Number.isInteger(size) || size < WINDOW_MIN || size > WINDOW_MAX)
      throw new RangeError(`anti-replay window of ${size} packets; expected ${WINDOW_MIN}..${WINDOW_MAX}`)
    this.#size = Math.ceil(size / WORD) * WORD
    this.#esn = esn
    this.#words = memory?.words ?? new Uint32Array(replayWords(this.#size))
    this.#topCell = memory?.top ?? new Float64Array(1)
  }

  get size(): number {
    return this.#size
  }

  get top(): number {
    return this.#topCell[0]!
  }

  /**
   * The 64-bit number whose low half is `low`: the one that lies in the window or the nearest above it
   * (appendix A2.2). Negative when it would lie before the first cycle.
   */
  infer(low: number): number {
    if (!this.#esn) return low
    const topLow = this.top % CYCLE
    const base = this.top - topLow
    if (topLow >= this.#size - 1) {
      // Case A: the window lies within one cycle.
      return low >= topLow - this.#size + 1 ? base + low : base + CYCLE + low
    }
    // Case B: the window reaches back into the cycle before.
    return low >= CYCLE + topLow - this.#size + 1 ? base - CYCLE + low : base + low
  }

  /** May a packet of this number be accepted: new, and not left of the window? Numbers start at 1. */
  admits(sequence: number): boolean {
    if (sequence <= 0) return false
    if (sequence > this.top) return true
    if (sequence <= this.top - this.#size) return false
    return (this.#words[this.#wordOf(sequence)]! & this.#bitOf(sequence)) === 0
  }

  /** Marks the number of a verified packet. It must have been admitted, and not been accepted since. */
  accept(sequence: number): boolean {
    if (sequence > this.top) {
      const last = Math.floor(this.top / WORD)
      const ahead = Math.min(Math.floor(sequence / WORD) - last, this.#words.length)
      for (let i = 1; i <= ahead; i++) this.#words[(last + i) % this.#words.length] = 0
      this.#topCell[0] = sequence
    }
    const word = this.#wordOf(sequence)
    this.#words[word] = this.#words[word]! | this.#bitOf(sequence)
    return true
  }

  #wordOf(sequence: number): number {
    return Math.floor(sequence / WORD) % this.#words.length
  }

  #bitOf(sequence: number): number {
    return 1 << (sequence % WORD)
  }
}
