/**
 * A lock between threads, in one word of shared memory: free, held, or held with somebody waiting (Drepper, "Futexes
 * are tricky", the third mutex). Taking a free one costs one atomic operation.
 */
export class Mutex {
  readonly #words: Int32Array
  readonly #at: number

  /** `words` views shared memory; the word at index `at` is the mutex's alone, and zero at first. */
  constructor(words: Int32Array, at: number) {
    this.#words = words
    this.#at = at
  }

  lock(): void {
    if (Atomics.compareExchange(this.#words, this.#at, FREE, HELD) === FREE) return
    while (!this.#tryContended(Number.POSITIVE_INFINITY));
  }

  /**
   * Gives up after `timeout` ms, or when `wake` is called.
   * @returns whether it was taken.
   */
  tryLock(timeout: number): boolean {
    if (Atomics.compareExchange(this.#words, this.#at, FREE, HELD) === FREE) return true
    return this.#tryContended(timeout)
  }

  unlock(): void {
    if (Atomics.exchange(this.#words, this.#at, FREE) === CONTENDED) Atomics.notify(this.#words, this.#at, 1)
  }

  /** Lets everyone who waits look around. */
  wake(): void {
    Atomics.notify(this.#words, this.#at)
  }

  /** Whoever waited takes it as contended: there may be others who wait. */
  #tryContended(timeout: number): boolean {
    if (Atomics.exchange(this.#words, this.#at, CONTENDED) === FREE) return true
    Atomics.wait(this.#words, this.#at, CONTENDED, timeout)
    return Atomics.exchange(this.#words, this.#at, CONTENDED) === FREE
  }
}

const FREE = 0
const HELD = 1
const CONTENDED = 2
