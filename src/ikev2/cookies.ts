/**
 * Cookies of a responder under load (RFC 7296 section 2.6): proof that the initiator receives what is sent to its
 * address, kept by nobody.
 *
 *     cookie = version (1) | HMAC(secret[version], Ni | SPIi | source address)
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

  bake(ni: Uint8Array, spiInitiator: Uint8Array, source: Ip, now: Instant): Uint8Array {
    this.#rotate(now)
    return this.#cookie(this.#version, this.#current, ni, spiInitiator, source)
  }

  verify(cookie: Uint8Array, ni: Uint8Array, spiInitiator: Uint8Array, source: Ip, now: Instant): boolean {
    this.#rotate(now)
    const age = (this.#version - (cookie[0] ?? 0)) & 0xff
    if (age > 1) return false
    const secret = age === 0 ? this.#current : this.#previous
    return equalConstantTime(cookie, this.#cookie(cookie[0]!, secret, ni, spiInitiator, source))
  }

  #cookie(version: number, secret: Uint8Array, ni: Uint8Array, spi: Uint8Array, source: Ip): Uint8Array {
    const tag = this.#crypto.hmac('sha256', secret, concat(ni, spi, ipToBytes(source)))
    return concat(Uint8Array.of(version), tag)
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
