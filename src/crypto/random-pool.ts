/**
 * Random octets drawn many at a time: a handshake wants a dozen short strings, and a call of the generator costs the same
 * for 4 octets as for hundreds. What was handed out is not kept.
 */
import { wipe } from '#base/bytes'

const POOL_LENGTH = 1024
/** Longer strings come from the generator itself. */
const SHORT = 64

export class RandomPool {
  readonly #fill: (out: Uint8Array) => void
  readonly #pool = new Uint8Array(POOL_LENGTH)
  #at = POOL_LENGTH

  /** `fill` overwrites all of its argument with fresh octets of a CSPRNG. */
  constructor(fill: (out: Uint8Array) => void) {
    this.#fill = fill
  }

  take(length: number): Uint8Array {
    if (length > SHORT) {
      const out = new Uint8Array(length)
      this.#fill(out)
      return out
    }
    if (this.#at + length > POOL_LENGTH) {
      this.#fill(this.#pool)
      this.#at = 0
    }
    const drawn = this.#pool.subarray(this.#at, this.#at + length)
    this.#at += length
    const out = drawn.slice()
    wipe(drawn)
    return out
  }
}
