import { Mutex } from '#base/mutex'
import { ReplayWindow, replayWords, type SequenceWindow } from '#telescope/replay'

/**
 * What the workers of a plane share of one SA, when packets of it may be sealed or opened by several at once: the
 * counter of an outbound SA and the window of an inbound one. Every worker makes its own object over the same memory.
 *
 *     | mutex 4 | cycle 4 | position 4 | 0 4 |             of a counter
 *     | mutex 4 | 0 4     | top of the window 8 | bitmap ... |
 */
export const SHARED_HEADER = 16

/** Memory for either; `window` in packets. */
export const sharedState = (window: number): SharedArrayBuffer =>
  new SharedArrayBuffer(SHARED_HEADER + 4 * replayWords(window))

/**
 * No number is given out twice, whoever asks: a nonce is made of it (RFC 4303 section 3.3.3).
 *
 * A 64-bit atomic would be a BigInt, which is an allocation per packet. So a number is a cycle and a position in it,
 * in words of 32 bits:
 *
 * - A position is taken by one atomic addition, so no two threads have the same one of the same cycle.
 * - A cycle whose positions are used up is followed by the next under the lock, by whoever finds it so first: the cycle
 *   is counted up, *then* positions begin anew. Meanwhile what others take lies behind the last position, and they come
 *   to the lock.
 * - A position belongs to the cycle that this thread saw last, if that is still the cycle after the position was taken:
 *   it only counts up, so no other cycle's positions began between the two. Otherwise the position is given up.
 *
 * So at most one number per thread is left out of 2^30, which to the peer's window is a lost packet.
 */
export class SharedCounter {
  readonly #words: Int32Array
  readonly #mutex: Mutex
  readonly #length: number
  /** The last one this thread saw. */
  #cycle: number

  /** `length` of a cycle: the same for all users of the memory. */
  constructor(memory: SharedArrayBuffer, length = 2 ** 30) {
    this.#words = new Int32Array(memory, 0, 3)
    this.#mutex = new Mutex(this.#words, 0)
    this.#length = length
    this.#cycle = Atomics.load(this.#words, CYCLE)
  }

  /** 1, 2, 3, ...; exact up to 2^53, and greater than that from there on. */
  next(): number {
    for (;;) {
      const position = Atomics.add(this.#words, POSITION, 1)
      const cycle = Atomics.load(this.#words, CYCLE)
      if (position >= this.#length) this.#beginCycle()
      else if (cycle === this.#cycle) return cycle * this.#length + position + 1
      else this.#cycle = cycle
    }
  }

  #beginCycle(): void {
    this.#mutex.lock()
    // Once is enough, for all who wait here.
    if (Atomics.load(this.#words, POSITION) >= this.#length) {
      Atomics.add(this.#words, CYCLE, 1)
      Atomics.store(this.#words, POSITION, 0)
    }
    this.#cycle = Atomics.load(this.#words, CYCLE)
    this.#mutex.unlock()
  }
}

const CYCLE = 1
const POSITION = 2

/**
 * A `ReplayWindow` for several threads. Between `admits` and `accept` a packet is verified, and meanwhile another
 * thread may have accepted its double: so `accept` looks again, under the lock, and one of the two is refused.
 */
export class SharedWindow implements SequenceWindow {
  readonly #window: ReplayWindow
  readonly #mutex: Mutex

  constructor(size: number, esn: boolean, memory: SharedArrayBuffer) {
    this.#mutex = new Mutex(new Int32Array(memory, 0, 1), 0)
    const top = new Float64Array(memory, 8, 1)
    this.#window = new ReplayWindow(size, esn, { top, words: new Uint32Array(memory, SHARED_HEADER) })
  }

  infer(low: number): number {
    this.#mutex.lock()
    const sequence = this.#window.infer(low)
    this.#mutex.unlock()
    return sequence
  }

  admits(sequence: number): boolean {
    this.#mutex.lock()
    const is = this.#window.admits(sequence)
    this.#mutex.unlock()
    return is
  }

  accept(sequence: number): boolean {
    this.#mutex.lock()
    const is = this.#window.admits(sequence)
    if (is) this.#window.accept(sequence)
    this.#mutex.unlock()
    return is
  }
}
