/**
 * What a responder remembers of sessions whose tickets are out: that one was used, for a ticket is good once, and what
 * its session used after the ticket was given. By a digest of SK_d, so that two tickets of one SK_d are one entry.
 */
import { toHex } from '#base/bytes'
import type { Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { Usage } from '#ikev2/resumption/strategy'

/** At about 200 octets each. */
const MAX_ENTRIES = 65_536

interface Entry {
  /** When the last ticket of it ends anyway. */
  expires: Instant
  spent: boolean
  usage?: Usage
}

export class Ledger {
  readonly #crypto: CryptoProvider
  readonly #limit: number
  readonly #entries = new Map<string, Entry>()

  constructor(crypto: CryptoProvider, limit: number = MAX_ENTRIES) {
    this.#crypto = crypto
    this.#limit = limit
  }

  /** What stands for an SK_d here: a digest, for what is remembered must not be worth stealing. */
  markOf(skD: Uint8Array): string {
    return toHex(this.#crypto.hash('sha256', skD))
  }

  get size(): number {
    return this.#entries.size
  }

  isSpent(mark: string): boolean {
    return this.#entries.get(mark)?.spent === true
  }

  /** What was settled, if anything. */
  usageOf(mark: string): Usage | undefined {
    return this.#entries.get(mark)?.usage
  }

  /** A ticket of this SK_d is used: no other is good any more. False: one was, or there is no room to remember it. */
  spend(mark: string, expires: Instant, now: Instant): boolean {
    const entry = this.#entry(mark, expires, now)
    if (entry === undefined || entry.spent) return false
    entry.spent = true
    return true
  }

  /** The session ended, having used so much. Without room its tickets are worth what they say. */
  settle(mark: string, usage: Usage, expires: Instant, now: Instant): void {
    const entry = this.#entry(mark, expires, now)
    if (entry !== undefined) entry.usage = usage
  }

  #entry(mark: string, expires: Instant, now: Instant): Entry | undefined {
    const known = this.#entries.get(mark)
    if (known !== undefined) {
      if (expires > known.expires) known.expires = expires
      return known
    }
    if (this.#entries.size >= this.#limit) this.#forget(now)
    if (this.#entries.size >= this.#limit) return undefined
    const entry: Entry = { expires, spent: false }
    this.#entries.set(mark, entry)
    return entry
  }

  #forget(now: Instant): void {
    for (const [mark, { expires }] of this.#entries) if (expires <= now) this.#entries.delete(mark)
  }
}
