/**
 * One telescope: the hops wanted, the layers built, and what each took. It knows how to grow and shrink; why and
 * when is decided above (`overlay/client.ts`).
 *
 *      hop:      1        2        3
 *   state: planned > negotiating(n) > open > [draining >] closing > closed
 */
import type { CircuitId, IkeSaId, ReqId } from '#base/ids'
import { contains, type Ip, type Prefix, type UdpPath } from '#base/ip'
import type { Duration, Instant } from '#base/time'
import type { ChildEstablished, IkeEvent, IkeMoved } from '#ikev2/events'
import { clientExtend, clientMove, clientTruncate, IKE_PORT, type Layer, layerEnds } from '#telescope/plan'
import type { PlaneOperation, SaKey } from '#telescope/plane'
import { isOfHeir, portsOf, type Renewal, renew } from '#telescope/renewal'
import type { ReqIdAllocator } from '#telescope/reqids'

/** What a telescope needs to know of a node. */
export interface Hop {
  readonly name: string
  readonly nodeId: string
  readonly address: Ip
  readonly port: number
  readonly pool: Prefix
}

export interface HopExchange {
  readonly hop: number
  readonly name: string
  readonly duration: Duration
  readonly transmissions: number
}

/** Draining: a hop answers no more, and what was begun through it goes on while packets come. */
export type TelescopeState = 'building' | 'open' | 'draining' | 'closing' | 'closed'

export class Telescope {
  readonly id: CircuitId
  readonly hops: readonly Hop[]
  readonly started: Instant
  readonly exchanges: HopExchange[] = []
  state: TelescopeState = 'building'
  opened: Instant | undefined
  /** IKE suite of the hops, as the first one negotiated it. */
  suite = ''
  readonly #reqids: ReqIdAllocator
  #self: Ip
  readonly #layers: Layer[] = []
  /** The IKE SA of each hop, negotiating or established. */
  readonly #sas: IkeSaId[] = []

  constructor(id: CircuitId, hops: readonly Hop[], self: Ip, reqids: ReqIdAllocator, now: Instant) {
    this.id = id
    this.hops = hops
    this.#self = self
    this.started = now
    this.#reqids = reqids
  }

  /** The client's own address: source of layer 1. */
  get self(): Ip {
    return this.#self
  }

  get layers(): readonly Layer[] {
    return this.#layers
  }

  get sas(): readonly IkeSaId[] {
    return this.#sas
  }

  get privateAddresses(): readonly Ip[] {
    return this.#layers.map((layer) => layer.leased)
  }

  get isComplete(): boolean {
    return this.#layers.length === this.hops.length
  }

  /** The hop to negotiate next and the path its IKE takes: from the newest private address, so through the telescope. */
  next(): { readonly hop: Hop; readonly path: UdpPath } | undefined {
    const hop = this.hops[this.#layers.length]
    if (hop === undefined) return undefined
    const source = this.#layers.at(-1)?.leased ?? this.self
    return {
      hop,
      path: { local: { address: source, port: IKE_PORT }, remote: { address: hop.address, port: hop.port } },
    }
  }

  negotiating(sa: IkeSaId): void {
    this.#sas.push(sa)
  }

  hopOf(sa: IkeSaId): number | undefined {
    const index = this.#sas.indexOf(sa)
    return index < 0 ? undefined : index + 1
  }

  /** How long an exchange took, of those it is built by. */
  measured({ sa, name, duration, transmissions }: IkeEvent & { kind: 'exchange' }): void {
    const hop = this.hopOf(sa)
    if (hop !== undefined && this.state === 'building')
      this.exchanges.push({ hop, name, duration, transmissions })
  }

  /** An address is acceptable if the hop owns it and this telescope does not use it yet. */
  accepts(leased: Ip): boolean {
    const hop = this.hops[this.#layers.length]
    return hop !== undefined && contains(hop.pool, leased) && !this.privateAddresses.includes(leased)
  }

  /** Grows by the layer just negotiated. */
  extend(event: ChildEstablished & { leased: Ip }): PlaneOperation[] {
    const { child, leased } = event
    const { hop, path } = this.next()!
    const reqid: ReqId = this.#reqids.allocate()
    const next = this.hops[this.#layers.length + 1]
    this.#layers.push({
      hop: hop.address,
      outerSource: path.local.address,
      leased,
      reqid,
      child,
      ...portsOf(event),
      ...(next ? { next: { address: next.address, port: next.port } } : {}),
    })
    return clientExtend(this.#layers)
  }

  /** A layer gets new keys, or loses the last ones: undefined, and the layer is of no use any more. */
  renew(event: Renewal): PlaneOperation[] | undefined {
    const index = this.#sas.indexOf(event.sa)
    const layer = this.#layers[index]
    if (layer === undefined) return []
    const { tunnel, operations } = renew(layer, layerEnds(layer), event)
    if (tunnel === undefined) return undefined
    this.#layers[index] = tunnel
    return operations
  }

  /** The IKE SA of the layer whose heir was heard on this SA. */
  heirHeard(sa: SaKey): IkeSaId | undefined {
    const index = this.#layers.findIndex((layer) => isOfHeir(layer, sa))
    return this.#sas[index]
  }

  /** Layer 1 begins at another address of ours, or behind another NAT: nothing inside it changes. */
  move(event: IkeMoved): PlaneOperation[] {
    const [first, ...inner] = this.#layers
    if (first === undefined || event.sa !== this.#sas[0]) return []
    const before = [...this.#layers]
    const { ports: _, ...rest } = first
    this.#self = event.path.local.address
    this.#layers.splice(0, 1, { ...rest, outerSource: this.#self, ...portsOf(event) })
    return clientMove(before, [this.#layers[0]!, ...inner])
  }

  /** Shrinks from the inside to `keep` layers; the addresses given up are to be removed from the host. */
  truncate(keep: number): { readonly operations: PlaneOperation[]; readonly addresses: Ip[] } {
    const operations = clientTruncate(this.#layers, keep)
    const gone = this.#layers.splice(keep)
    for (const layer of gone) this.#reqids.release(layer.reqid)
    this.#sas.length = Math.min(this.#sas.length, keep)
    return { operations, addresses: gone.map((layer) => layer.leased).reverse() }
  }
}
