/**
 * The telescopes that end at a node, or pass it: for each the address it was lent, the SAs towards its client, and the
 * overlay tunnel its client comes through. A binding is a backward route, and exists while its IKE SA does.
 */
import type { IkeSaId, ReqId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { ChildEstablished, IkeMoved } from '#ikev2/events'
import type { EffectQueue } from '#overlay/effects'
import type { RouterEvent, RouterOwner } from '#overlay/router-events'
import { type Binding, bind, bindingEnds, type OverlayLink, rebind, unbind } from '#telescope/plan'
import type { SaKey } from '#telescope/plane'
import { isOfHeir, portsOf, type Renewal, renew } from '#telescope/renewal'
import type { ReqIdAllocator } from '#telescope/reqids'

/** Where a client comes from, and what it was lent. */
export interface Origin {
  readonly self: Ip
  readonly leased: Ip
  /** Absent: from outside the overlay, this is its first hop. */
  readonly via?: OverlayLink | undefined
}

export class Bindings {
  readonly #effects: EffectQueue<RouterEvent, RouterOwner>
  readonly #reqids: ReqIdAllocator
  readonly #bySa = new Map<IkeSaId, Binding>()

  constructor(effects: EffectQueue<RouterEvent, RouterOwner>, reqids: ReqIdAllocator) {
    this.#effects = effects
    this.#reqids = reqids
  }

  get size(): number {
    return this.#bySa.size
  }

  [Symbol.iterator](): IterableIterator<[IkeSaId, Binding]> {
    return this.#bySa.entries()
  }

  has(sa: IkeSaId): boolean {
    return this.#bySa.has(sa)
  }

  /** The IKE SAs whose clients come through an overlay tunnel. */
  through(link: ReqId): IkeSaId[] {
    return [...this.#bySa].filter(([, { via }]) => via?.reqid === link).map(([sa]) => sa)
  }

  add(event: ChildEstablished, { self, leased, via }: Origin): void {
    const binding: Binding = {
      self,
      client: event.path.remote.address,
      leased,
      reqid: this.#reqids.allocate(),
      child: event.child,
      ...(via ? { via } : {}),
      ...portsOf(event),
    }
    this.#bySa.set(event.sa, binding)
    this.#effects.plane({ circuit: event.sa }, bind(binding))
    this.#effects.event({ kind: 'circuit.bound' })
  }

  /** A client of ours is somewhere else, or behind another NAT. What it is lent, and what is inside, stays. */
  move(event: IkeMoved): void {
    const before = this.#bySa.get(event.sa)
    if (before === undefined) return
    const { ports: _, ...rest } = before
    const binding: Binding = { ...rest, client: event.path.remote.address, ...portsOf(event) }
    this.#bySa.set(event.sa, binding)
    this.#effects.plane({ circuit: event.sa }, rebind(before, binding))
  }

  /** @returns false when its pair in use is gone: it is of no use without */
  renew(event: Renewal): boolean {
    const binding = this.#bySa.get(event.sa)
    if (binding === undefined) return true
    const { tunnel, operations } = renew(binding, bindingEnds(binding), event)
    if (tunnel === undefined) return false
    this.#bySa.set(event.sa, tunnel)
    this.#effects.plane({ circuit: event.sa }, operations)
    return true
  }

  remove(sa: IkeSaId): void {
    const binding = this.#bySa.get(sa)
    if (binding === undefined) return
    this.#bySa.delete(sa)
    this.#effects.plane({ circuit: sa }, unbind(binding))
    this.#reqids.release(binding.reqid)
    this.#effects.event({ kind: 'circuit.released' })
  }

  /** Whose heir was heard on this SA. */
  heirHeard(sa: SaKey): IkeSaId | undefined {
    for (const [id, binding] of this.#bySa) if (isOfHeir(binding, sa)) return id
    return undefined
  }
}
