/**
 * The addresses a node lends, and to whom. Whoever leads clients here, a relay or a /24, has at most as many as are
 * left: one alone may take half of the pool, two a third each, and somebody new always finds one. So nobody keeps
 * others out by asking often.
 */
import type { IkeSaId, NodeId } from '#base/ids'
import { type Ip, ipToUint32, type Prefix } from '#base/ip'
import type { Rng } from '#base/rng'
import type { Instant } from '#base/time'
import { AddressPool, type LeaseCounts } from '#nat/pool'

/** Whose client somebody is: of a relay, or of a network of 256 addresses. */
export type Neighbourhood = NodeId | number

export const networkOf = (address: Ip): Neighbourhood => ipToUint32(address) >>> 8

export class Leases {
  readonly pool: AddressPool
  readonly #holder = new Map<IkeSaId, Neighbourhood>()
  readonly #held = new Map<Neighbourhood, number>()

  constructor(prefix: Prefix, rng: Rng) {
    this.pool = new AddressPool(prefix, rng)
  }

  /** An address, always the same for one IKE SA; undefined when there is none for this neighbourhood. */
  lend(sa: IkeSaId, neighbourhood: Neighbourhood, now: Instant): Ip | undefined {
    if (this.#holder.has(sa)) return this.pool.lease(sa, now)
    const held = this.#held.get(neighbourhood) ?? 0
    if (held >= this.pool.counts(now).free) return undefined
    const address = this.pool.lease(sa, now)
    if (address === undefined) return undefined
    this.#holder.set(sa, neighbourhood)
    this.#held.set(neighbourhood, held + 1)
    return address
  }

  end(sa: IkeSaId, now: Instant): void {
    const neighbourhood = this.#holder.get(sa)
    if (neighbourhood === undefined) return
    this.#holder.delete(sa)
    const held = this.#held.get(neighbourhood)! - 1
    if (held > 0) this.#held.set(neighbourhood, held)
    else this.#held.delete(neighbourhood)
    this.pool.release(sa, now)
  }

  counts(now: Instant): LeaseCounts {
    return this.pool.counts(now)
  }
}
