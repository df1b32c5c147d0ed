/**
 * The effects of a machine on their way to the driver. Each that can fail has an owner: who must hear of it when it
 * could not be performed, and give up what would stand there half.
 */
import type { Effect, HostOperation } from '#overlay/ports'
import type { PlaneOperation } from '#telescope/plane'

export class EffectQueue<Event, Owner> {
  readonly #waiting: Effect<Event>[] = []
  /** By the effect itself: that is what comes back in `effect.failed`. */
  readonly #owners = new WeakMap<Effect<Event>, Owner>()

  poll(): Effect<Event> | undefined {
    return this.#waiting.shift()
  }

  /** Undefined for what nobody asked for as an owner: datagrams and events. */
  ownerOf(effect: Effect<Event>): Owner | undefined {
    return this.#owners.get(effect)
  }

  add(owner: Owner, ...effects: readonly Effect<Event>[]): void {
    for (const effect of effects) {
      this.#owners.set(effect, owner)
      this.#waiting.push(effect)
    }
  }

  plane(owner: Owner, operations: readonly PlaneOperation[]): void {
    if (operations.length > 0) this.add(owner, { kind: 'plane', operations })
  }

  host(owner: Owner, operations: readonly HostOperation[]): void {
    if (operations.length > 0) this.add(owner, { kind: 'host', operations })
  }

  pass(effect: Effect<Event> & { readonly kind: 'transmit' | 'compute' }): void {
    this.#waiting.push(effect)
  }

  event(...events: readonly Event[]): void {
    for (const event of events) this.#waiting.push({ kind: 'event', event })
  }
}
