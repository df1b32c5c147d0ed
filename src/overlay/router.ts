/**
 * An overlay node: long-term tunnels to every other node of the consensus, and the responder side of telescopes.
 *
 *   start      packet filter (nothing is forwarded)
 *   consensus  our pool; policies and tunnels to the peers it lists, and away with those it no longer lists
 *   IKE        a peer with a pinned key: its overlay SA. Nobody in particular: lend an address and bind it
 *   stop       delete what can be deleted, then take everything down; the filter goes last
 *
 * What the two are in detail: links.ts and bindings.ts.
 */
import type { ErrorCode } from '#base/errors'
import type { IkeSaId, NodeId } from '#base/ids'
import { contains, type Ip, type Prefix, samePrefix } from '#base/ip'
import type { Machine } from '#base/machine'
import { after, type Duration, earliest, type Instant, TimerTable } from '#base/time'
import type { Consensus } from '#directory/documents'
import { IkeEngine } from '#ikev2/engine'
import type { ChildEstablished, IkeEvent, ResponderPolicy } from '#ikev2/events'
import { Bindings } from '#overlay/bindings'
import { EffectQueue } from '#overlay/effects'
import { Estate } from '#overlay/estate'
import { nodeOfIdentity } from '#overlay/identity'
import { Leases } from '#overlay/leases'
import { Links } from '#overlay/links'
import { nodeFilter, privateRoutes } from '#overlay/node-filter'
import { mtuOf } from '#overlay/parameters'
import type { Effect, HostOperation } from '#overlay/ports'
import { notRekeyed, Rekeys } from '#overlay/rekeys'
import { responderPolicy } from '#overlay/responder'
import { Resumptions } from '#overlay/resumptions'
import type { RouterEvent, RouterInput, RouterOptions, RouterOwner } from '#overlay/router-events'
import * as times from '#overlay/router-times'
import { harden, hardenRemove } from '#telescope/plan'
import type { PlaneOperation, SaKey } from '#telescope/plane'
import type { Renewal } from '#telescope/renewal'
import { ReqIdAllocator } from '#telescope/reqids'

export type { RouterEvent, RouterInput, RouterOptions } from '#overlay/router-events'

const STOP = 'stop'
const GUARD = 'guard'

export class OverlayRouter implements Machine<RouterInput, Effect<RouterEvent>> {
  readonly #options: RouterOptions
  readonly #ike: IkeEngine
  readonly #effects = new EffectQueue<RouterEvent, RouterOwner>()
  readonly #resumptions = new Resumptions()
  readonly #reqids = new ReqIdAllocator()
  readonly #bindings = new Bindings(this.#effects, this.#reqids)
  readonly #rekeys = new Rekeys()
  readonly #timers = new TimerTable<typeof STOP | typeof GUARD>()
  /** What a predecessor left. */
  readonly #estate: Estate
  readonly #links: Links
  #consensus: Consensus | undefined
  #leases: Leases | undefined
  #poolPrefix: Prefix | undefined
  /** Filter, route and hardening stand. Effects are done, or have failed, before the next input. */
  #guarded = false
  #guardBackoff: Duration = times.GUARD_FIRST
  #guardFailure = Number.NEGATIVE_INFINITY as Instant
  #expired = false
  #stopping = false
  #stopped = false
  #now = 0 as Instant

  constructor(options: RouterOptions) {
    this.#options = options
    const { crypto, inventory, keyLog = false, offload = false, spread = 1 } = options
    const perform = (operations: readonly PlaneOperation[]) => this.#effects.plane(GUARD, operations)
    this.#estate = new Estate(inventory, { reqids: this.#reqids, perform })
    this.#ike = new IkeEngine({ crypto, responder: this.#responderPolicy(), keyLog, offload, spread })
    this.#links = new Links(options, {
      ike: this.#ike,
      effects: this.#effects,
      reqids: this.#reqids,
      estate: this.#estate,
      resumptions: this.#resumptions,
      bereave: ({ reqid }) => {
        for (const sa of this.#bindings.through(reqid)) this.#abandon(sa)
      },
      retry: (nodeId) => this.#retry(nodeId),
    })
  }

  handle(input: RouterInput, now: Instant): void {
    this.#now = now
    switch (input.kind) {
      case 'start':
        // The filter of a predecessor stands, and lets its circuits pass; nobody new is admitted before it is ours.
        if (!this.#estate.begin(now)) this.#fortify()
        break
      case 'datagram':
      case 'computed':
        this.#ike.handle(input, now)
        break
      case 'consensus':
        this.#expired = false
        if (!this.#stopping) this.#adopt(input.consensus)
        break
      case 'rekey':
        this.#rekey(input)
        break
      case 'heard':
        this.#heard(input.sa)
        break
      case 'traffic':
        this.#resumptions.read(input.counters, this.#bindings, this.#links.peers)
        this.#estate.observe(input.counters, now)
        break
      case 'consensus.expired':
        this.#expired = true
        break
      case 'stop':
        this.#stop()
        break
      case 'effect.failed':
        this.#effectFailed(input.effect, input.code, input.detail)
        break
    }
    this.#drain()
  }

  tick(now: Instant): void {
    this.#now = now
    this.#ike.tick(now)
    if (this.#estate.tick(now)) this.#fortify()
    this.#links.tick(now)
    for (const timer of this.#timers.expired(now)) {
      if (timer === STOP) this.#takeDown()
      else this.#fortify()
    }
    this.#drain()
  }

  poll(): Effect<RouterEvent> | undefined {
    return this.#effects.poll()
  }

  nextTimeout(): Instant | undefined {
    return [this.#timers.next(), this.#estate.nextTimeout(), this.#links.nextTimeout()].reduce(
      earliest,
      this.#ike.nextTimeout(),
    )
  }

  get pool(): Prefix | undefined {
    return this.#poolPrefix
  }

  get circuitCount(): number {
    return this.#bindings.size
  }

  /** Circuits of a predecessor that go on. */
  get adoptedCount(): number {
    return this.#estate.circuitCount
  }

  leases(): { readonly inUse: number; readonly free: number; readonly quarantined: number } {
    return this.#leases?.counts(this.#now) ?? { inUse: 0, free: 0, quarantined: 0 }
  }

  overlay(): readonly { readonly peer: string; readonly address: Ip; readonly state: 'up' | 'connecting' }[] {
    return this.#links.peers.report()
  }

  counters(): Record<string, number> {
    return this.#ike.counters()
  }

  // -------------------------------------------------------------------------------------------- consensus

  #adopt(consensus: Consensus): void {
    const mine = consensus.nodes.find((node) => node.nodeId === this.#options.nodeId)
    const moved =
      this.#poolPrefix !== undefined && (mine === undefined || !samePrefix(mine.pool, this.#poolPrefix))
    if (moved) this.#leave('our pool changed')
    const isResized = this.#consensus !== undefined && mtuOf(consensus) !== mtuOf(this.#consensus)
    this.#consensus = consensus
    if (mine === undefined) {
      if (this.#estate.renounce()) this.#fortify()
      return this.#effects.event({ kind: 'listed', pool: undefined })
    }
    if (this.#poolPrefix === undefined) this.#join(mine.pool)
    const others = consensus.nodes.filter((node) => node.nodeId !== this.#options.nodeId)
    const { stale, fresh } = this.#links.peers.compare(others)
    for (const peer of stale) this.#links.remove(peer, 'no longer in the consensus', this.#now)
    for (const node of fresh) this.#links.add(node, mine.pool, this.#now)
    const links = [...this.#links.peers].map(({ link }) => link)
    const pool = this.#leases!.pool
    this.#estate.settle({ self: this.#options.self, pool, links, isExit: this.#isExit }, this.#now)
    // Clients are forwarded to the nodes of the current consensus only.
    if (stale.length + fresh.length > 0 || isResized) this.#fortify()
  }

  #join(pool: Prefix): void {
    this.#poolPrefix = pool
    this.#leases = new Leases(pool, this.#options.rng)
    this.#fortify()
    this.#effects.event({ kind: 'listed', pool })
  }

  #leave(reason: string): void {
    for (const peer of [...this.#links.peers]) this.#links.remove(peer, reason, this.#now)
    for (const [sa] of [...this.#bindings]) this.#abandon(sa)
    this.#estate.end(this.#now)
    if (this.#poolPrefix !== undefined && this.#consensus !== undefined) {
      this.#effects.plane(GUARD, hardenRemove(this.#poolPrefix, this.#isExit))
      const routes = privateRoutes(this.#options, this.#consensus, this.#poolPrefix)
      this.#effects.host(
        GUARD,
        routes.toReversed().map((route) => ({ kind: 'route.remove', route })),
      )
    }
    this.#poolPrefix = undefined
    this.#leases = undefined
  }

  // -------------------------------------------------------------------------------------------- guard

  /** All that must stand before a client is admitted. Asked for again as a whole: everything replaces itself. */
  #fortify(): void {
    if (this.#stopped) return
    this.#timers.clear(GUARD)
    this.#guarded = true
    const filter = this.#filter
    if (this.#poolPrefix === undefined || this.#consensus === undefined)
      return this.#effects.host(GUARD, [filter])
    // All private space leads into the plane's device: an answer without a policy dies there, in clear nowhere.
    const routes = privateRoutes(this.#options, this.#consensus, this.#poolPrefix)
    this.#effects.host(GUARD, [filter, ...routes.map((route) => ({ kind: 'route.add', route }) as const)])
    this.#effects.plane(GUARD, harden(this.#poolPrefix, this.#isExit))
  }

  #guardFailed(code: ErrorCode, detail: string): void {
    if (this.#stopping) return
    const isNews = this.#guarded
    this.#guarded = false
    if (!isNews) return
    const isFirst = this.#now - this.#guardFailure > 2 * times.GUARD_MAX
    this.#guardFailure = this.#now
    this.#guardBackoff = isFirst ? times.GUARD_FIRST : Math.min(2 * this.#guardBackoff, times.GUARD_MAX)
    this.#timers.set(GUARD, after(this.#now, this.#guardBackoff))
    this.#effects.event({ kind: 'guard.failed', code, detail })
  }

  // -------------------------------------------------------------------------------------------- tunnels and telescopes

  #retry(nodeId: NodeId): void {
    const node = this.#consensus?.nodes.find((each) => each.nodeId === nodeId)
    if (node === undefined || this.#poolPrefix === undefined) return
    this.#links.add(node, this.#poolPrefix, this.#now)
    this.#fortify()
  }

  #rekey(wish: RouterInput & { kind: 'rekey' }): void {
    const { sa, tunnel } = this.#links.peers.byText(wish.peer) ?? {}
    if (sa !== undefined && tunnel) return this.#rekeys.begin(this.#ike, wish, sa, tunnel.child, this.#now)
    this.#effects.event(notRekeyed(wish, 'IPP_OVERLAY_DOWN', wish.peer))
  }

  #established(event: ChildEstablished): void {
    if (event.peer.kind === 'none') return this.#bind(event)
    const nodeId = nodeOfIdentity(event.peer.id)
    if (nodeId === undefined) return this.#ike.close(event.sa, this.#now)
    this.#links.up(nodeId, event, this.#now)
  }

  #bind(event: ChildEstablished): void {
    const { leased } = event
    const client = event.path.remote.address
    const via = this.#links.peers.lender(client)?.link
    if (leased === undefined || (via === undefined && this.#isPrivate(client)))
      return this.#ike.close(event.sa, this.#now)
    this.#bindings.add(event, { self: this.#options.self, leased, via })
  }

  /** New keys for an overlay tunnel or a telescope. Neither is of use without its one Child SA. */
  #renew(event: Renewal): void {
    const peer = this.#links.peers.bySa(event.sa)
    let stands = event.kind !== 'child.closed'
    if (this.#bindings.has(event.sa)) stands = this.#bindings.renew(event)
    else if (peer?.tunnel !== undefined) stands = this.#links.renew(peer, peer.tunnel, event)
    if (!stands) this.#lost(event.sa)
  }

  #heard(sa: SaKey): void {
    const id = this.#bindings.heirHeard(sa) ?? this.#links.heard(sa, this.#now)
    if (id !== undefined) this.#ike.heardOn(id, sa.spi, this.#now)
  }

  #lost(sa: IkeSaId): void {
    this.#bindings.remove(sa)
    this.#ike.close(sa, this.#now)
  }

  /** Forgets a client without a word. */
  #abandon(sa: IkeSaId): void {
    this.#bindings.remove(sa)
    this.#leases?.end(sa, this.#now)
    this.#ike.abandon(sa)
  }

  #isPrivate(address: Ip): boolean {
    return this.#consensus !== undefined && contains(this.#consensus.poolSpace, address)
  }

  // -------------------------------------------------------------------------------------------- IKE

  #responderPolicy(): ResponderPolicy {
    return responderPolicy(this.#options, this.#resumptions, {
      isStopping: () => this.#stopping,
      unready: () => {
        if (this.#stopping || this.#leases === undefined) return 'IPP_OVERLAY_NOT_LISTED'
        if (!this.#guarded) return 'IPP_GUARD_DOWN'
        return this.#expired ? 'IPP_DIR_EXPIRED' : undefined
      },
      isPrivate: (address) => this.#isPrivate(address),
      peers: () => this.#links.peers,
      lend: (sa, neighbourhood) => {
        const address = this.#leases?.lend(sa, neighbourhood, this.#now)
        if (address === undefined) this.#effects.event({ kind: 'pool.exhausted' })
        return address
      },
    })
  }

  #drain(): void {
    for (let output = this.#ike.poll(); output !== undefined; output = this.#ike.poll()) {
      if (output.kind === 'transmit' || output.kind === 'compute') this.#effects.pass(output)
      else {
        this.#ikeEvent(output)
        this.#effects.event(...this.#rekeys.settle(output))
      }
    }
  }

  #ikeEvent(event: IkeEvent): void {
    switch (event.kind) {
      case 'keys':
        return this.#effects.event({ kind: 'keys', keys: event })
      case 'refused':
        return this.#effects.event(event)
      case 'exchange':
      case 'ike.established':
      case 'ike.rekeyed':
        return
      case 'ticket':
        return this.#resumptions.keep(this.#links.peers.bySa(event.sa)?.node.nodeId, event.ticket)
      case 'ike.moved':
        return this.#bindings.move(event)
      case 'child.established':
        return this.#established(event)
      case 'child.rekeyed':
      case 'child.switched':
      case 'child.closed':
        return this.#renew(event)
      case 'ike.closed': {
        this.#bindings.remove(event.sa)
        this.#leases?.end(event.sa, this.#now)
        this.#resumptions.forget(event.sa)
        const peer = this.#links.peers.bySa(event.sa)
        if (peer !== undefined) this.#links.closed(peer, event, this.#now)
      }
    }
  }

  /** What could not be installed must not stay half: who asked for it gives all of it up. */
  #effectFailed(effect: Effect<RouterEvent>, code: ErrorCode, detail: string): void {
    const owner = this.#effects.ownerOf(effect)
    if (owner === undefined) return
    if (owner === GUARD) this.#guardFailed(code, detail)
    else if ('link' in owner) this.#links.failed(owner.link, detail, this.#now)
    else if (this.#bindings.has(owner.circuit)) this.#lost(owner.circuit)
  }

  // -------------------------------------------------------------------------------------------- stop

  #stop(): void {
    if (this.#stopping) return
    this.#stopping = true
    const open = [...[...this.#bindings].map(([sa]) => sa), ...this.#links.stop()]
    for (const sa of open) this.#ike.close(sa, this.#now)
    this.#timers.set(STOP, open.length === 0 ? this.#now : after(this.#now, times.STOP_PATIENCE))
  }

  #takeDown(): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#resumptions.wallet.wipe()
    this.#leave('this node stops')
    this.#effects.host(GUARD, [{ kind: 'firewall.clear', owner: 'ippriv_node' }])
    this.#effects.event({ kind: 'stopped' })
  }

  // -------------------------------------------------------------------------------------------- pieces

  get #isExit(): boolean {
    return this.#options.roles.includes('exit')
  }

  get #filter(): HostOperation {
    return nodeFilter(this.#options, this.#consensus, this.#poolPrefix)
  }
}
