import { Mutex } from '#base/mutex'
import { ReplayWindow, replayWords, type SequenceWindow } from '#telescope/replay'

/**
 * What the workers of a plane share of one SA, when packets of it may be sealed or opened by several at once: the
 * counter of an outbound SA and the window of an inbound one. Every worker makes its own object over the same memory.
 *
 *     | mutex 4 | 0 | counter, or top of the window 8 | bitmap ... |
 */
export const SHARED_HEADER = 16

/** Memory for either; `window` in packets. */
export const sharedState = (window: number): SharedArrayBuffer =>
  new SharedArrayBuffer(SHARED_HEADER + 4 * replayWords(window))

/** No number is given out twice, whoever asks: a nonce is made of it (RFC 4303 section 3.3.3). */
export class SharedCounter {
  readonly #cell: BigUint64Array

  constructor(memory: SharedArrayBuffer) {
    this.#cell = new BigUint64Array(memory, 8, 1)
  }

  /** 1, 2, 3, ... */
  next(): number {
    return Number(Atomics.add(this.#cell, 0, 1n)) + 1
  }
}

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
