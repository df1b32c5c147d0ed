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
 * `next()` as its `nextTimeout()`.
 */
export class TimerTable<Key> {
  readonly #deadlines = new Map<Key, Instant>()

  set(key: Key, at: Instant): void {
    this.#deadlines.set(key, at)
  }

  clear(key: Key): void {
    this.#deadlines.delete(key)
  }

  get(key: Key): Instant | undefined {
    return this.#deadlines.get(key)
  }

  /** The earliest deadline, or undefined when nothing is armed. */
  next(): Instant | undefined {
    let min: Instant | undefined
    for (const at of this.#deadlines.values()) if (min === undefined || at < min) min = at
    return min
  }

  get size(): number {
    return this.#deadlines.size
  }

  /** Removes and returns the key with the earliest deadline, if that is at or before `now`. */
  take(now: Instant): Key | undefined {
    let first: [Key, Instant] | undefined
    for (const entry of this.#deadlines) if (entry[1] < (first?.[1] ?? Infinity)) first = entry
    if (first === undefined || first[1] > now) return undefined
    this.#deadlines.delete(first[0])
    return first[0]
  }

  /** Removes and returns every key whose deadline is at or before `now`, earliest first. */
  expired(now: Instant): Key[] {
    const due: [Key, Instant][] = []
    for (const entry of this.#deadlines) if (entry[1] <= now) due.push(entry)
    due.sort((a, b) => a[1] - b[1])
    for (const [key] of due) this.#deadlines.delete(key)
    return due.map(([key]) => key)
  }
}

/** The earlier of two optional deadlines. */
export const earliest = (a: Instant | undefined, b: Instant | undefined): Instant | undefined =>
  a === undefined ? b : b === undefined ? a : a < b ? a : b
