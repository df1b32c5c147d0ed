/**
 * Time as values. The core never reads a clock: every machine takes `now`.
 *
 * `Instant` is monotonic (it never goes back and means nothing across a restart); `UnixTime` is the calendar,
 * used only where two parties must agree on a moment (directory documents, leases on disk).
 */

/** Monotonic milliseconds since an arbitrary origin. */
export type Instant = number & { readonly __brand: 'Instant' }
/** Milliseconds. */
export type Duration = number
/** Whole seconds since 1970-01-01T00:00:00Z. */
export type UnixTime = number & { readonly __brand: 'UnixTime' }

export const instant = (ms: number): Instant => ms as Instant
export const unixTime = (seconds: number): UnixTime => Math.floor(seconds) as UnixTime
export const after = (t: Instant, d: Duration): Instant => (t + d) as Instant

export const MILLISECOND: Duration = 1
export const SECOND: Duration = 1000
export const MINUTE: Duration = 60 * SECOND
export const HOUR: Duration = 60 * MINUTE

/**
 * Timers as values: at most one deadline per key. A machine asks `expired(now)` in `handle` and reports
 * `next()` as its `nextTimeout()`. Setting and taking cost the logarithm of how many there are, and `next()` nothing.
 */
export class TimerTable<Key> {
  readonly #timers = new Map<Key, Timer<Key>>()
  /** A binary heap, the earliest on top. What was cleared or set anew stays in it until it gets there. */
  #heap: Timer<Key>[] = []
  #count = 0

  set(key: Key, at: Instant): void {
    const timer = { key, at, number: this.#count++ }
    this.#timers.set(key, timer)
    if (this.#heap.length > 2 * this.#timers.size + SLACK)
      this.#heap = [...this.#timers.values()].sort(compare)
    else this.#rise(timer)
  }

  clear(key: Key): void {
    this.#timers.delete(key)
  }

  get(key: Key): Instant | undefined {
    return this.#timers.get(key)?.at
  }

  /** The earliest deadline, or undefined when nothing is armed. */
  next(): Instant | undefined {
    return this.#first()?.at
  }

  get size(): number {
    return this.#timers.size
  }

  /** Removes and returns the key with the earliest deadline, if that is at or before `now`. */
  take(now: Instant): Key | undefined {
    const first = this.#first()
    if (first === undefined || first.at > now) return undefined
    this.#dropTop()
    this.#timers.delete(first.key)
    return first.key
  }

  /** Removes and returns every key whose deadline is at or before `now`, earliest first. */
  expired(now: Instant): Key[] {
    const due: Key[] = []
    for (let key = this.take(now); key !== undefined; key = this.take(now)) due.push(key)
    return due
  }

  #first(): Timer<Key> | undefined {
    for (;;) {
      const top = this.#heap[0]
      if (top === undefined || this.#timers.get(top.key) === top) return top
      this.#dropTop()
    }
  }

  #rise(timer: Timer<Key>): void {
    const heap = this.#heap
    let at = heap.length
    while (at > 0) {
      const above = (at - 1) >> 1
      if (compare(heap[above]!, timer) <= 0) break
      heap[at] = heap[above]!
      at = above
    }
    heap[at] = timer
  }

  #dropTop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && compare(heap[below + 1]!, heap[below]!) < 0) below++
      if (compare(last, heap[below]!) <= 0) break
      heap[at] = heap[below]!
      at = below
    }
    heap[at] = last
  }
}

interface Timer<Key> {
  readonly key: Key
  readonly at: Instant
  /** Of two that are due at once the one that was set first comes first. */
  readonly number: number
}

/** How much may be left over in a heap before it is made anew. */
const SLACK = 16

const compare = (a: Timer<unknown>, b: Timer<unknown>): number => a.at - b.at || a.number - b.number

/** The earlier of two optional deadlines. */
export const earliest = (a: Instant | undefined, b: Instant | undefined): Instant | undefined =>
  a === undefined ? b : b === undefined ? a : a < b ? a : b
