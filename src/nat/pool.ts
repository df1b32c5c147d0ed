/**
 * The private addresses a node lends. A private address *is* a backward route, so the pool is a security
 * boundary (architecture section 3 rule 5): an address has one owner at a time, a fresh lease is a random
 * free address and never the one somebody had before by preference, an address rests before it is lent
 * again, and when none is left the answer is "none" while every existing lease stays as it is.
 */
import type { IkeSaId } from '#base/ids'
import { contains, type Ip, ipToUint32, type Prefix, rangeOf, uint32ToIp } from '#base/ip'
import { type Rng, uniform } from '#base/rng'
import { after, type Duration, type Instant, MINUTE } from '#base/time'

/**
 * How long a returned address rests: longer than conntrack keeps a UDP binding and than a peer retransmits,
 * so that no packet of the old owner reaches the new one.
 */
export const QUARANTINE: Duration = 10 * MINUTE

export interface LeaseCounts {
  readonly inUse: number
  readonly free: number
  readonly quarantined: number
}

/** `lease`, `release` and the look-ups take constant time (amortised over the end of quarantines). */
export class AddressPool {
  readonly prefix: Prefix
  readonly #rng: Rng
  readonly #quarantine: Duration
  readonly #free: SparseBag
  readonly #addressOf = new Map<IkeSaId, Ip>()
  readonly #ownerOf = new Map<Ip, IkeSaId>()
  /** In order of release, which is the order of `until` because the quarantine is one constant. */
  readonly #resting = new Map<Ip, Instant>()
  /** Nobody's here, and yet not to be lent before a moment. */
  readonly #withheld = new Map<Ip, Instant>()

  constructor(prefix: Prefix, rng: Rng, quarantine: Duration = QUARANTINE) {
    this.prefix = prefix
    this.#rng = rng
    this.#quarantine = quarantine
    this.#free = new SparseBag(poolCapacity(prefix))
  }

  /**
   * A random free address for this IKE SA, or undefined when none is left. Asking again for the same IKE SA
   * gives the same address: a repeated request must not empty the pool.
   */
  lease(owner: IkeSaId, now: Instant): Ip | undefined {
    const held = this.#addressOf.get(owner)
    if (held !== undefined) return held
    this.#endQuarantines(now)
    const address = this.#draw()
    if (address === undefined) return undefined
    this.#addressOf.set(owner, address)
    this.#ownerOf.set(address, owner)
    return address
  }

  /** Ends the lease of this IKE SA, if it has one, and says which address it was. The address rests first. */
  release(owner: IkeSaId, now: Instant): Ip | undefined {
    const address = this.#addressOf.get(owner)
    if (address === undefined) return undefined
    this.#addressOf.delete(owner)
    this.#ownerOf.delete(address)
    this.#resting.set(address, after(now, this.#quarantine))
    return address
  }

  /**
   * Whoever was lent this address by a node before us, may use it still, until it says otherwise: it is not lent until
   * that is over, and it has rested. Called again, another moment holds.
   */
  withhold(address: Ip, until: Instant): void {
    if (contains(this.prefix, address)) this.#withheld.set(address, after(until, this.#quarantine))
  }

  addressOf(owner: IkeSaId): Ip | undefined {
    return this.#addressOf.get(owner)
  }

  ownerOf(address: Ip): IkeSaId | undefined {
    return this.#ownerOf.get(address)
  }

  counts(now: Instant): LeaseCounts {
    this.#endQuarantines(now)
    const withheld = this.#withheld.size
    const [free, quarantined] = [this.#free.size - withheld, this.#resting.size + withheld]
    return { inUse: this.#addressOf.size, free, quarantined }
  }

  /** Addresses withheld go back into the bag: they are few, and then no more. */
  #draw(): Ip | undefined {
    const passed: Ip[] = []
    let drawn: Ip | undefined
    while (drawn === undefined && this.#free.size > 0) {
      const address = this.#addressAt(this.#free.take(uniform(this.#rng, this.#free.size)))
      if (this.#withheld.has(address)) passed.push(address)
      else drawn = address
    }
    for (const address of passed) this.#free.put(this.#indexOf(address))
    return drawn
  }

  #endQuarantines(now: Instant): void {
    for (const [address, until] of this.#withheld) if (until <= now) this.#withheld.delete(address)
    for (const [address, until] of this.#resting) {
      if (until > now) return
      this.#resting.delete(address)
      this.#free.put(this.#indexOf(address))
    }
  }

  #addressAt(index: number): Ip {
    return uint32ToIp(ipToUint32(this.prefix.address) + RESERVED_AT_START + index)
  }

  #indexOf(address: Ip): number {
    return ipToUint32(address) - ipToUint32(this.prefix.address) - RESERVED_AT_START
  }
}

/** Network address, and the first host address, which stays free for the node itself. */
const RESERVED_AT_START = 2

/** Addresses a pool of this prefix can lend: all but the network, the first and the broadcast address. */
export function poolCapacity(prefix: Prefix): number {
  const [first, last] = rangeOf(prefix)
  return Math.max(0, last - first + 1 - RESERVED_AT_START - 1)
}

/**
 * The numbers 0..capacity-1 as a bag one can draw from at any position: a Fisher-Yates shuffle done lazily.
 * Only positions that were drawn take memory, so a /8 costs nothing until it is used.
 */
class SparseBag {
  #size: number
  /** Position -> number, where it is not the number itself. */
  readonly #moved = new Map<number, number>()

  constructor(capacity: number) {
    this.#size = capacity
  }

  get size(): number {
    return this.#size
  }

  take(position: number): number {
    const taken = this.#at(position)
    const last = --this.#size
    const moved = this.#at(last)
    this.#moved.delete(last)
    if (position !== last) this.#set(position, moved)
    return taken
  }

  put(value: number): void {
    this.#set(this.#size++, value)
  }

  #at(position: number): number {
    return this.#moved.get(position) ?? position
  }

  #set(position: number, value: number): void {
    if (position === value) this.#moved.delete(position)
    else this.#moved.set(position, value)
  }
}
