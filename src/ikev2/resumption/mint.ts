/**
 * Makes tickets and takes them back (RFC 5723 section 5). A ticket is sealed under a key that nobody but this responder
 * has and that no restart survives:
 *
 *     key number (1) | nonce (12) | AES-256-GCM(grant), with key number and our identity as associated data
 *
 * Whoever gets hold of a ticket key can read the sessions whose tickets were seen on the wire. So the key is replaced
 * after as long as a ticket lasts at most, and the one before is kept for just as long again.
 */
import { concat, utf8, wipe } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import { after, type Duration, HOUR, type Instant } from '#base/time'
import type { Aead, CryptoProvider } from '#crypto/provider'
import type { Refusal } from '#ikev2/counters'
import type { IkeId } from '#ikev2/events'
import { encodeId } from '#ikev2/message/payload'
import { Ledger } from '#ikev2/resumption/ledger'
import { allows, type Strategy, type Usage } from '#ikev2/resumption/strategy'
import { decodeGrant, encodeGrant, type Grant } from '#ikev2/resumption/ticket'

/** Of a ticket that does not end by the clock. */
const LIFETIME: Duration = 8 * HOUR
const CIPHER = 'aes-256-gcm-16'
const KEY_LENGTH = 32
const NONCE_LENGTH = 12
const LABEL = utf8('IPpriv resumption ticket')

interface TicketKey {
  readonly number: number
  readonly aead: Aead
  /** When another takes its place; it is forgotten once as much time has gone by again. */
  readonly until: Instant
}

/** A ticket, and where its session puts down what it goes on to use. */
export interface Issued {
  readonly opaque: Uint8Array
  readonly expires: Instant
  readonly mark: string
}

/** Why a ticket is of no use: the counter under which that is found. */
export type Worthless = Extract<Refusal, 'ticket-unreadable' | 'ticket-expired' | 'ticket-spent'>

export class TicketMint {
  readonly #crypto: CryptoProvider
  readonly #identity: Uint8Array
  readonly #strategy: Strategy
  readonly #lifetime: Duration
  readonly #ledger: Ledger
  #keys: readonly TicketKey[] = []
  #last = 0

  constructor(crypto: CryptoProvider, identity: IkeId, strategy: Strategy, ledger = new Ledger(crypto)) {
    this.#crypto = crypto
    this.#identity = encodeId(identity)
    this.#strategy = strategy
    this.#lifetime = strategy.kind === 'clocked' ? strategy.limit : LIFETIME
    this.#ledger = ledger
  }

  /** A fresh ticket; undefined: the authentication is used up, and a full exchange is due. */
  issue(grant: Omit<Grant, 'expires'>, now: Instant): Issued | undefined {
    if (!allows(this.#strategy, grant.usage, now)) return undefined
    const from = this.#strategy.kind === 'clocked' ? grant.usage.since : now
    const expires = after(from, this.#lifetime)
    const { number, aead } = this.#currentKey(now)
    const nonce = this.#crypto.random(NONCE_LENGTH)
    const plaintext = encodeGrant({ ...grant, expires })
    const opaque = concat(Uint8Array.of(number), nonce, aead.seal(nonce, plaintext, this.#associated(number)))
    wipe(plaintext)
    return { opaque, expires, mark: this.#ledger.markOf(grant.skD) }
  }

  /**
   * What a ticket stands for. It is not used yet: see `spend`. The caller wipes the SK_d. `liveUsage` is what a session
   * that goes on has used.
   */
  open(
    opaque: Uint8Array,
    now: Instant,
    liveUsage: (session: IkeSaId) => Usage | undefined = () => undefined,
  ): Grant | Worthless {
    this.age(now)
    const key = this.#keys.find(({ number }) => number === opaque[0])
    if (key === undefined || opaque.length < 1 + NONCE_LENGTH) return 'ticket-unreadable'
    const nonce = opaque.subarray(1, 1 + NONCE_LENGTH)
    const sealed = opaque.subarray(1 + NONCE_LENGTH)
    const plaintext = key.aead.open(nonce, sealed, this.#associated(key.number))
    if (plaintext === undefined) return 'ticket-unreadable'
    const sealedGrant = decodeGrant(plaintext)
    wipe(plaintext)
    const mark = this.#ledger.markOf(sealedGrant.skD)
    const usage = liveUsage(sealedGrant.session) ?? this.#ledger.usageOf(mark) ?? sealedGrant.usage
    const grant = { ...sealedGrant, usage }
    const worthless = this.#judge(grant, mark, now)
    if (worthless !== undefined) wipe(grant.skD)
    return worthless ?? grant
  }

  /** The ticket is used, by a peer that proved to have its SK_d. False: it was used before. */
  spend({ skD, expires }: Grant, now: Instant): boolean {
    return this.#ledger.spend(this.#ledger.markOf(skD), expires, now)
  }

  /** A session whose ticket is out ended: the ticket tells only what was used until it was given. */
  settle(mark: string, usage: Usage, now: Instant): void {
    // By the clock nothing is used that the ticket does not know.
    if (this.#strategy.kind === 'clocked') return
    this.#ledger.settle(mark, usage, after(now, this.#lifetime), now)
  }

  /** Forgets keys whose time is over. To be called now and then, also when nobody wants a ticket. */
  age(now: Instant): void {
    if (this.#keys.every(({ until }) => now < after(until, this.#lifetime))) return
    for (const key of this.#keys) if (now >= after(key.until, this.#lifetime)) key.aead.destroy()
    this.#keys = this.#keys.filter(({ until }) => now < after(until, this.#lifetime))
  }

  #judge({ expires, usage }: Grant, mark: string, now: Instant): Worthless | undefined {
    if (this.#ledger.isSpent(mark)) return 'ticket-spent'
    return now >= expires || !allows(this.#strategy, usage, now) ? 'ticket-expired' : undefined
  }

  #currentKey(now: Instant): TicketKey {
    this.age(now)
    const [current] = this.#keys
    if (current !== undefined && now < current.until) return current
    const secret = this.#crypto.random(KEY_LENGTH)
    this.#last = (this.#last + 1) & 0xff
    const key = {
      number: this.#last,
      aead: this.#crypto.aead(CIPHER, secret),
      until: after(now, this.#lifetime),
    }
    wipe(secret)
    this.#keys = [key, ...this.#keys]
    return key
  }

  #associated(number: number): Uint8Array {
    return concat(LABEL, Uint8Array.of(number), this.#identity)
  }
}
