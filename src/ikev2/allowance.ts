/** So many, and then so many in each interval: for answers to who has proved nothing. */
import type { Duration, Instant } from '#base/time'

export class Allowance {
  readonly #most: number
  readonly #interval: Duration
  #left: number
  #since: Instant | undefined

  constructor(most: number, interval: Duration) {
    this.#most = most
    this.#interval = interval
    this.#left = most
  }

  /** One of them, if there is one left. */
  take(now: Instant): boolean {
    if (this.#since === undefined || now - this.#since >= this.#interval) {
      this.#since = now
      this.#left = this.#most
    }
    if (this.#left === 0) return false
    this.#left--
    return true
  }
}
