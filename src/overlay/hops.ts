/**
 * The hops of circuits: negotiated one after the other through the layers already built, renewed, moved, and deleted
 * from the inside outwards. What a circuit is for, and what follows when one is lost, is decided by `client.ts`.
 */
import type { ErrorCode } from '#base/errors'
import type { IkeSaId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { Instant } from '#base/time'
import type { IkeEngine } from '#ikev2/engine'
import { ANY_SELECTOR, type ChildEstablished, type IkeEvent, type IkeMoved } from '#ikev2/events'
import type { ResumptionTicket } from '#ikev2/resumption/ticket'
import type { Circuit, Circuits } from '#overlay/circuits'
import type { ClientEvent, ClientOptions } from '#overlay/client-events'
import * as times from '#overlay/client-times'
import { Drains } from '#overlay/drains'
import type { EffectQueue } from '#overlay/effects'
import type { Guard } from '#overlay/guard'
import { anonymousCredential, nodeIdentity } from '#overlay/identity'
import type { HostOperation } from '#overlay/ports'
import type { Wallet } from '#overlay/wallet'
import type { SaCounters, SaKey } from '#telescope/plane'

/** Who hears of an effect that could not be performed: a circuit, on behalf of the guard perhaps, or the guard itself. */
export type Owner = { readonly circuit: Circuit; readonly pins?: true } | 'guard'

/** What is told of a circuit while its hops come and go. */
export interface HopsWatcher {
  /** A hop stands as soon as the effects so far are performed. */
  extended(circuit: Circuit): void
  /** A hop answers no more, and still carries packets: what was begun on the circuit may end there. */
  silent(circuit: Circuit, hop: number): void
  /** A circuit that was building, open or draining lost this hop and all inside it. */
  broken(circuit: Circuit, hop: number, code: ErrorCode, detail: string): void
  /** Something is wrong with a circuit whose hops all stand. */
  unsound(circuit: Circuit, code: ErrorCode, detail: string): void
  /** The last hop is gone. */
  ended(circuit: Circuit): void
  ticket(circuit: Circuit, ticket: ResumptionTicket): void
}

export class Hops {
  readonly #ike: IkeEngine
  readonly #circuits: Circuits
  readonly #effects: EffectQueue<ClientEvent, Owner>
  readonly #wallet: Wallet
  readonly #guard: Guard
  readonly #options: Pick<ClientOptions, 'ciphers' | 'lifetimes'>
  readonly #watcher: HopsWatcher
  readonly #drains = new Drains<Circuit>()

  constructor(parts: {
    readonly ike: IkeEngine
    readonly circuits: Circuits
    readonly effects: EffectQueue<ClientEvent, Owner>
    /** Of entries: inner hops neither give tickets nor are asked for any. */
    readonly wallet: Wallet
    readonly guard: Guard
    readonly options: Pick<ClientOptions, 'ciphers' | 'lifetimes'>
    readonly watcher: HopsWatcher
  }) {
    this.#ike = parts.ike
    this.#circuits = parts.circuits
    this.#effects = parts.effects
    this.#wallet = parts.wallet
    this.#guard = parts.guard
    this.#options = parts.options
    this.#watcher = parts.watcher
  }

  /** Negotiates the next hop through the layers that exist. */
  initiate(circuit: Circuit, now: Instant): void {
    const { telescope, nodes } = circuit
    const { path } = telescope.next()!
    const node = nodes[telescope.layers.length]!
    const isFirst = telescope.layers.length === 0
    const innermost = telescope.layers.length + 1 === telescope.hops.length
    const sa = this.#ike.initiate(
      {
        path,
        credential: anonymousCredential(node.ike),
        peer: { id: nodeIdentity(node.nodeId), publicKey: node.ikeKey },
        requestAddress: true,
        ...(isFirst ? { mobile: true } : {}),
        localSelectors: [ANY_SELECTOR],
        remoteSelectors: [ANY_SELECTOR],
        espCiphers: this.#options.ciphers,
        patience: times.HOP_PATIENCE,
        lifetimes: this.#options.lifetimes ?? times.LIFETIMES,
        ...(innermost ? { liveness: times.LIVENESS } : {}),
        ...(isFirst && node.ike === undefined
          ? { resume: this.#mayResume(circuit) ? this.#wallet.spend(node.nodeId) : {} }
          : {}),
      },
      now,
    )
    telescope.negotiating(sa)
    this.#circuits.bind(sa, circuit)
  }

  handle(circuit: Circuit, event: Exclude<IkeEvent, { kind: 'keys' | 'refused' }>, now: Instant): void {
    switch (event.kind) {
      case 'ike.established':
        circuit.telescope.suite ||= event.suite
        return
      case 'child.established':
        return this.#extended(circuit, event)
      case 'child.rekeyed':
      case 'child.switched':
      case 'child.closed': {
        const operations = circuit.telescope.renew(event)
        // A telescope layer has exactly one Child SA; without it the hop is useless.
        if (operations === undefined) return this.#ike.close(event.sa, now)
        return this.#effects.plane({ circuit }, operations)
      }
      case 'ike.rekeyed':
        return
      case 'ticket':
        return this.#watcher.ticket(circuit, event.ticket)
      case 'ike.moved':
        return this.#moved(circuit, event)
      case 'exchange':
        return circuit.telescope.measured(event)
      case 'ike.closed':
        return this.#closed(circuit, event.sa, event.reason, event.detail, now)
    }
  }

  /** Deletes hop after hop from the inside: the layers below still carry each DELETE and its answer. */
  close(circuit: Circuit, now: Instant): void {
    const silent = this.#drains.end(circuit)
    if (silent !== undefined) this.#cut(circuit, silent)
    circuit.telescope.state = 'closing'
    this.#closeInnermost(circuit, now)
  }

  /** What the data plane counted. */
  observe(counters: readonly SaCounters[], now: Instant): void {
    this.#drains.observe(this.#circuits.all(), counters, now)
  }

  /** When packets came last on a circuit; undefined: never, as far as we know. */
  heardAt(circuit: Circuit): Instant | undefined {
    return this.#drains.heardAt(circuit)
  }

  /** Draining circuits on which nothing is heard any more. */
  drained(now: Instant): readonly Circuit[] {
    return this.#drains.expired(now)
  }

  nextTimeout(): Instant | undefined {
    return this.#drains.nextTimeout()
  }

  #closeInnermost(circuit: Circuit, now: Instant): void {
    const { telescope } = circuit
    const innermost = telescope.sas.at(-1)
    const toReturn = circuit.returns && telescope.sas.length === 1
    if (innermost !== undefined) return this.#ike.close(innermost, now, { toReturn })
    telescope.state = 'closed'
    this.#circuits.remove(circuit)
    this.#effects.event({ kind: 'circuit.closed', circuit: telescope })
    this.#watcher.ended(circuit)
  }

  /** Nobody answered in time: forget what is left without another word. */
  abandon({ telescope }: Circuit): void {
    for (const sa of telescope.sas.toReversed()) this.#ike.abandon(sa)
  }

  /** Every circuit begins at the entry they share; one that is not that far is given up. */
  move(self: Ip, now: Instant): void {
    for (const { telescope } of this.#circuits.all()) {
      const [first] = telescope.sas
      if (first !== undefined) this.#ike.move(first, self, now)
    }
  }

  heard(sa: SaKey, now: Instant): void {
    for (const { telescope } of this.#circuits.all()) {
      const hop = telescope.heirHeard(sa)
      if (hop !== undefined) return this.#ike.heardOn(hop, sa.spi, now)
    }
  }

  #extended(circuit: Circuit, event: ChildEstablished): void {
    const { telescope } = circuit
    const { leased } = event
    if (telescope.state !== 'building') return
    if (leased === undefined || !telescope.accepts(leased) || this.#circuits.isUsed(leased)) {
      return this.#watcher.unsound(
        circuit,
        'IPP_HOP_ADDRESS_CONFLICT',
        `${telescope.next()?.hop.name} lent ${leased ?? 'nothing'}`,
      )
    }
    this.#effects.plane({ circuit }, telescope.extend({ ...event, leased }))
    const routes = this.#guard.reach(this.#circuits.all())
    this.#effects.host({ circuit }, [{ kind: 'address.add', address: leased }, ...routes])
    this.#watcher.extended(circuit)
  }

  #moved(circuit: Circuit, event: IkeMoved): void {
    this.#effects.plane({ circuit }, circuit.telescope.move(event))
    this.#effects.event({ kind: 'circuit.moved', circuit: circuit.telescope })
  }

  /** A hop is gone, and with it everything inside it, whose DELETEs could no longer be carried. */
  #closed(circuit: Circuit, sa: IkeSaId, reason: ErrorCode, detail: string, now: Instant): void {
    const { telescope } = circuit
    const hop = telescope.hopOf(sa)
    this.#circuits.unbind(sa)
    if (hop === undefined) return
    const { state } = telescope
    const mayDrain = reason === 'IPP_IKE_TIMEOUT' && (state === 'open' || state === 'draining')
    if (mayDrain && this.#drains.begin(circuit, hop, now)) {
      if (state === 'open') this.#watcher.silent(circuit, hop)
      return
    }
    const wasWanted = state === 'building' || state === 'open' || state === 'draining'
    if (wasWanted) this.#watcher.broken(circuit, hop, reason, detail)
    this.#cut(circuit, Math.min(hop, this.#drains.end(circuit) ?? hop))
    if (wasWanted)
      this.#watcher.unsound(circuit, reason, `hop ${hop} (${telescope.hops[hop - 1]!.name}): ${detail}`)
    else this.#closeInnermost(circuit, now)
  }

  /** Takes away hop `hop` and all inside it. */
  #cut(circuit: Circuit, hop: number): void {
    const { telescope } = circuit
    for (const dead of telescope.sas.slice(hop - 1)) {
      this.#circuits.unbind(dead)
      this.#ike.abandon(dead)
    }
    const { operations, addresses } = telescope.truncate(hop - 1)
    this.#effects.plane({ circuit }, operations)
    const unused: HostOperation[] = addresses.map((address) => ({ kind: 'address.remove', address }))
    this.#effects.host({ circuit }, [...this.#guard.reach(this.#circuits.all()), ...unused])
  }

  /** The entry takes a session that is resumed for over: a circuit that is draining there would be gone. */
  #mayResume({ use }: Circuit): boolean {
    return use === 'default' && this.#drains.isEmpty
  }
}
