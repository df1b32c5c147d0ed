/**
 * Cookies of a responder under load (RFC 7296 section 2.6): proof that the initiator receives what is sent to its
 * address, kept by nobody.
 *
 *     cookie = version (1) | difficulty (1) | HMAC(secret[version], difficulty | Ni | SPIi | source address)
 *
 * `difficulty` is that of the puzzle the cookie was handed out with, 0 without one.
 */
import { concat, equalConstantTime, wipe } from '#base/bytes'
import { type Ip, ipToBytes } from '#base/ip'
import { after, type Duration, type Instant, MINUTE } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'

const SECRET_LENGTH = 32
/** A cookie is good for one to two rotations. */
const ROTATION: Duration = MINUTE

export class CookieJar {
  readonly #crypto: CryptoProvider
  #version = 0
  #current: Uint8Array
  #previous: Uint8Array
  #rotateAt: Instant | undefined

  constructor(crypto: CryptoProvider) {
    this.#crypto = crypto
    this.#current = crypto.random(SECRET_LENGTH)
    this.#previous = crypto.random(SECRET_LENGTH)
  }

  bake(ni: Uint8Array, spiInitiator: Uint8Array, source: Ip, now: Instant, difficulty: number): Uint8Array {
    this.#rotate(now)
    const head = Uint8Array.of(this.#version, difficulty)
    return this.#cookie(head, this.#current, concat(ni, spiInitiator, ipToBytes(source)))
  }

  /** The difficulty of the puzzle it was handed out with; undefined: it is none of ours, or not for this request. */
  verify(
    cookie: Uint8Array,
    ni: Uint8Array,
    spiInitiator: Uint8Array,
    source: Ip,
    now: Instant,
  ): number | undefined {
    this.#rotate(now)
    const [version = 0, difficulty = 0] = cookie
    const age = (this.#version - version) & 0xff
    if (age > 1) return undefined
    const secret = age === 0 ? this.#current : this.#previous
    const ours = this.#cookie(
      Uint8Array.of(version, difficulty),
      secret,
      concat(ni, spiInitiator, ipToBytes(source)),
    )
    return equalConstantTime(cookie, ours) ? difficulty : undefined
  }

  #cookie(head: Uint8Array, secret: Uint8Array, bound: Uint8Array): Uint8Array {
    return concat(head, this.#crypto.hmac('sha256', secret, concat(head.subarray(1), bound)))
  }

  /** Secrets age only while cookies are used, so no timer is needed. */
  #rotate(now: Instant): void {
    if (this.#rotateAt !== undefined && now < this.#rotateAt) return
    const longIdle = this.#rotateAt === undefined || now >= after(this.#rotateAt, ROTATION)
    wipe(this.#previous)
    this.#previous = longIdle ? this.#crypto.random(SECRET_LENGTH) : this.#current
    this.#current = this.#crypto.random(SECRET_LENGTH)
    this.#version = (this.#version + 1) & 0xff
    this.#rotateAt = after(now, ROTATION)
  }
}
