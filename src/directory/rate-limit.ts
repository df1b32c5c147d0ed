/** Token buckets per source address, in bounded memory. Pure: time is an argument. */
import type { Instant } from '#base/time'

export interface RateLimit {
  /** Requests that may come at once. */
  readonly burst: number
  readonly perSecond: number
}

export class RateLimiter {
  readonly #limit: RateLimit
  readonly #capacity: number
  /** In order of last use: the first is the one to forget. */
  readonly #buckets = new Map<string, { tokens: number; at: Instant }>()

  constructor(limit: RateLimit, capacity = 10_000) {
    this.#limit = limit
    this.#capacity = capacity
  }

  /** May this source make one more request now? */
  admit(source: string, now: Instant): boolean {
    const { burst, perSecond } = this.#limit
    const bucket = this.#buckets.get(source) ?? { tokens: burst, at: now }
    const earned = (Math.max(0, now - bucket.at) / 1000) * perSecond
    const tokens = Math.min(burst, bucket.tokens + earned)
    const admitted = tokens >= 1
    this.#buckets.delete(source)
    this.#buckets.set(source, { tokens: admitted ? tokens - 1 : tokens, at: now })
    if (this.#buckets.size > this.#capacity) {
      const [oldest] = this.#buckets.keys()
      if (oldest !== undefined) this.#buckets.delete(oldest)
    }
    return admitted
  }

  get size(): number {
    return this.#buckets.size
  }
}
