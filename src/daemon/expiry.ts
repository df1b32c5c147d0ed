/** Says when the consensus in use may be used no longer. By the wall clock, which may jump: so it is asked often. */
import { type Duration, SECOND, type UnixTime } from '#base/time'
import type { Consensus } from '#directory/documents'

const EVERY: Duration = 15 * SECOND

export class Expiry {
  readonly #unixTime: () => UnixTime
  readonly #onExpired: () => void
  readonly #timer: NodeJS.Timeout
  #validUntil: UnixTime | undefined

  /** @param onExpired called once per document that was not replaced in time */
  constructor(unixTime: () => UnixTime, onExpired: () => void, every = EVERY) {
    this.#unixTime = unixTime
    this.#onExpired = onExpired
    this.#timer = setInterval(() => this.#check(), every).unref()
  }

  watch({ validUntil }: Consensus): void {
    this.#validUntil = validUntil
  }

  end(): void {
    clearInterval(this.#timer)
  }

  #check(): void {
    if (this.#validUntil === undefined || this.#unixTime() < this.#validUntil) return
    this.#validUntil = undefined
    this.#onExpired()
  }
}
