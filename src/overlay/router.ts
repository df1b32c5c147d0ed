/**
 * An overlay node: long-term tunnels to every other node of the consensus, and the responder side of telescopes.
 *
 *   start      packet filter (nothing is forwarded)
 *   consensus  our pool; policies and tunnels to the peers it lists, and away with those it no longer lists
 *   IKE        a peer with a pinned key: its overlay SA. Nobody in particular: lend an address and bind it
 *   stop       delete what can be deleted, then take everything down; the filter goes last
 *
 * Of two peers the one with the lower node id initiates, so that a pair has one tunnel. A node that restarted may have
 * no tunnel while its peer believes in the old one: so the other one initiates, too, after waiting in vain.
 */
import { utf8 } from '#base/bytes'
import type { ErrorCode } from '#base/errors'
import type { IkeSaId, NodeId } from '#base/ids'
import { contains, type Ip, type Prefix, samePrefix } from '#base/ip'
import type { Machine } from '#base/machine'
import { jittered } from '#base/rng'
import { after, type Duration, earliest, type Instant, TimerTable } from '#base/time'
import type { Consensus, ConsensusNode } from '#directory/documents'
import { IkeEngine } from '#ikev2/engine'
import type { ChildEstablished, IkeEvent, IkeMoved, Lifetimes, ResponderPolicy } from '#ikev2/events'
import { AddressPool } from '#nat/pool'
import { EffectQueue } from '#overlay/effects'
import { Estate } from '#overlay/estate'
import { nodeCredential, nodeIdentity, nodeOfIdentity, PUBLISHED_KEY } from '#overlay/identity'
import { nodeFilter, privateRoute } from '#overlay/node-filter'
import { acceptSelectors, type Peer, Peers, selectorsOf } from '#overlay/peers'
import type { Effect, HostOperation } from '#overlay/ports'
import { notRekeyed, Rekeys } from '#overlay/rekeys'
import { Resumptions } from '#overlay/resumptions'
import type { RouterEvent, RouterInput, RouterOptions } from '#overlay/router-events'
import * as times from '#overlay/router-times'
import {
  type Binding,
  bind,
  bindingEnds,
  harden,
  hardenRemove,
  type OverlayLink,
  overlayPolicies,
  overlayPoliciesRemove,
  overlaySas,
  overlaySasRemove,
  rebind,
  unbind,
} from '#telescope/plan'
import type { PlaneOperation, SaKey } from '#telescope/plane'
import { isOfHeir, portsOf, type Renewal, renew } from '#telescope/renewal'
import { ReqIdAllocator } from '#telescope/reqids'

export type { RouterEvent, RouterInput, RouterOptions } from '#overlay/router-events'

const STOP = 'stop'
const GUARD = 'guard'

/** Who hears of an effect that could not be performed. */
type Owner = { readonly link: Peer } | { readonly circuit: IkeSaId } | typeof GUARD

export class OverlayRouter implements Machine<RouterInput, Effect<RouterEvent>> {
  readonly #options: RouterOptions
  readonly #ike: IkeEngine
  readonly #effects = new EffectQueue<RouterEvent, Owner>()
  readonly #peers = new Peers()
  readonly #bindings = new Map<IkeSaId, Binding>()
  readonly #leases = new Map<IkeSaId, Ip>()
  readonly #resumptions = new Resumptions()
  readonly #reqids = new ReqIdAllocator()
  readonly #rekeys = new Rekeys()
  readonly #timers = new TimerTable<NodeId | typeof STOP | typeof GUARD>()
  /** What a predecessor left. */
  readonly #estate: Estate
  #consensus: Consensus | undefined
  #pool: AddressPool | undefined
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
    const { crypto, inventory, keyLog = false, offload = false } = options
    const perform = (operations: readonly PlaneOperation[]) => this.#effects.plane(GUARD, operations)
    this.#estate = new Estate(inventory, { reqids: this.#reqids, perform })
    this.#ike = new IkeEngine({ crypto, responder: this.#responder(), keyLog, offload })
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
        this.#resumptions.read(input.counters, this.#bindings, this.#peers)
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
    for (const timer of this.#timers.expired(now)) {
      if (timer === STOP) this.#takeDown()
      else if (timer === GUARD) this.#fortify()
      else this.#connect(timer)
    }
    this.#drain()
  }

  poll(): Effect<RouterEvent> | undefined {
    return this.#effects.poll()
  }

  nextTimeout(): Instant | undefined {
    return earliest(earliest(this.#ike.nextTimeout(), this.#timers.next()), this.#estate.nextTimeout())
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
    return this.#pool?.counts(this.#now) ?? { inUse: 0, free: 0, quarantined: 0 }
  }

  overlay(): readonly { readonly peer: string; readonly address: Ip; readonly state: 'up' | 'connecting' }[] {
    return this.#peers.report()
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
    this.#consensus = consensus
    if (mine === undefined) {
      if (this.#estate.renounce()) this.#fortify()
      return this.#effects.event({ kind: 'listed', pool: undefined })
    }
    if (this.#poolPrefix === undefined) this.#join(mine.pool)
    const others = consensus.nodes.filter((node) => node.nodeId !== this.#options.nodeId)
    const { stale, fresh } = this.#peers.compare(others)
    for (const peer of stale) this.#removePeer(peer, 'no longer in the consensus')
    for (const node of fresh) this.#addPeer(node)
    const links = [...this.#peers].map(({ link }) => link)
    this.#estate.settle(
      { self: this.#options.self, pool: this.#pool!, links, isExit: this.#isExit },
      this.#now,
    )
    // Clients are forwarded to the nodes of the current consensus only.
    if (stale.length + fresh.length > 0) this.#fortify()
  }

  #join(pool: Prefix): void {
    this.#poolPrefix = pool
    this.#pool = new AddressPool(pool, this.#options.rng)
    this.#fortify()
    this.#effects.event({ kind: 'listed', pool })
  }

  #leave(reason: string): void {
    for (const peer of [...this.#peers]) this.#removePeer(peer, reason)
    for (const sa of [...this.#bindings.keys()]) this.#abandon(sa)
    this.#estate.end(this.#now)
    if (this.#poolPrefix !== undefined && this.#consensus !== undefined) {
      this.#effects.plane(GUARD, hardenRemove(this.#poolPrefix, this.#isExit))
      this.#effects.host(GUARD, [{ kind: 'route.remove', route: privateRoute(this.#consensus) }])
    }
    this.#poolPrefix = undefined
    this.#pool = undefined
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
    this.#effects.host(GUARD, [filter, { kind: 'route.add', route: privateRoute(this.#consensus) }])
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

  // -------------------------------------------------------------------------------------------- overlay

  #addPeer(node: ConsensusNode): void {
    const { self } = this.#options
    const link: OverlayLink = {
      self,
      selfPool: this.#poolPrefix!,
      peer: node.address,
      peerPool: node.pool,
      reqid: this.#estate.reqidOf(self, node.address) ?? this.#reqids.allocate(),
    }
    const peer = this.#peers.add(node, link)
    this.#effects.plane({ link: peer }, overlayPolicies(link))
    if (this.#initiatesTo(node.nodeId)) this.#connect(node.nodeId)
    else this.#connectLater(node.nodeId, times.TAKE_OVER)
  }

  #removePeer(peer: Peer, detail: string): void {
    this.#peers.delete(peer)
    this.#estate.bereave(peer.link.reqid, this.#now)
    this.#timers.clear(peer.node.nodeId)
    this.#resumptions.wallet.drop(peer.node.nodeId)
    for (const [sa, binding] of [...this.#bindings]) {
      if (binding.via?.reqid === peer.link.reqid) this.#abandon(sa)
    }
    if (peer.tunnel !== undefined)
      this.#effects.plane({ link: peer }, overlaySasRemove(peer.link, peer.tunnel))
    this.#effects.plane({ link: peer }, overlayPoliciesRemove(peer.link))
    this.#reqids.release(peer.link.reqid)
    if (peer.sa !== undefined) this.#ike.close(peer.sa, this.#now)
    if (peer.tunnel !== undefined) this.#effects.event({ kind: 'overlay.down', peer: peer.node, detail })
  }

  /** A tunnel with SAs or policies missing is none: away with all of it, and once more from the start. */
  #linkFailed(peer: Peer, detail: string): void {
    const { nodeId } = peer.node
    if (this.#stopping || this.#peers.get(nodeId) !== peer) return
    this.#removePeer(peer, detail)
    this.#connectLater(nodeId, times.LINK_RETRY)
  }

  #connect(nodeId: NodeId): void {
    if (this.#stopping) return
    const peer = this.#peers.get(nodeId)
    if (peer === undefined) {
      const node = this.#consensus?.nodes.find((each) => each.nodeId === nodeId)
      if (node === undefined) return
      this.#addPeer(node)
      return this.#fortify()
    }
    if (peer.sa !== undefined) return
    const { self, port, ikeKey, ciphers } = this.#options
    const selectors = selectorsOf(peer.link)
    peer.sa = this.#ike.initiate(
      {
        path: {
          local: { address: self, port },
          remote: { address: peer.node.address, port: peer.node.port },
        },
        credential: nodeCredential(this.#options.nodeId, ikeKey),
        peer: { id: nodeIdentity(nodeId), publicKey: peer.node.ikeKey },
        requestAddress: false,
        localSelectors: selectors.local,
        remoteSelectors: selectors.remote,
        espCiphers: ciphers,
        liveness: times.PEER_LIVENESS,
        patience: times.PEER_PATIENCE,
        lifetimes: this.#lifetimes,
        ...(peer.node.ike === undefined
          ? { resume: { ...this.#resumptions.wallet.spend(nodeId), returnUnanswered: true } }
          : {}),
      },
      this.#now,
    )
  }

  #overlayUp(nodeId: NodeId, event: ChildEstablished): void {
    const peer = this.#peers.get(nodeId)
    if (peer === undefined || peer.link.peer !== event.path.remote.address)
      return this.#ike.close(event.sa, this.#now)
    const { sa, tunnel } = peer
    // Both began at once: on both sides the tunnel counts that the lower node id began, whichever is up first.
    const ours = sa !== undefined && sa !== event.sa
    const crosses = tunnel === undefined || this.#now - peer.since < times.CROSSING
    if (ours && crosses && this.#initiatesTo(nodeId)) return this.#ike.close(event.sa, this.#now)
    this.#effects.plane({ link: peer }, overlaySas(peer.link, event.child))
    peer.sa = event.sa
    peer.tunnel = { child: event.child }
    peer.since = this.#now
    // The peer came anew (it restarted): the kernel prefers the newest SA of a reqid, the old one goes silently.
    if (tunnel !== undefined) this.#effects.plane({ link: peer }, overlaySasRemove(peer.link, tunnel))
    this.#estate.superseded(peer.link.reqid, this.#now)
    // The peer may have established what we began, and believe in it: it is deleted. What it forgot, it would not hear of.
    if (ours && tunnel === undefined) this.#ike.close(sa, this.#now)
    else if (ours) this.#ike.abandon(sa)
    this.#timers.clear(nodeId)
    this.#effects.event({ kind: 'overlay.up', peer: peer.node })
  }

  #overlayClosed(peer: Peer, detail: string): void {
    if (peer.tunnel !== undefined)
      this.#effects.plane({ link: peer }, overlaySasRemove(peer.link, peer.tunnel))
    const wasUp = peer.tunnel !== undefined
    peer.sa = undefined
    peer.tunnel = undefined
    if (wasUp) this.#effects.event({ kind: 'overlay.down', peer: peer.node, detail })
    if (this.#stopping) return
    const { nodeId } = peer.node
    this.#connectLater(
      nodeId,
      !this.#initiatesTo(nodeId) ? times.TAKE_OVER : wasUp ? times.RETRY_FIRST : times.RETRY_LATER,
    )
  }

  #rekey(wish: RouterInput & { kind: 'rekey' }): void {
    const { sa, tunnel } = this.#peers.byText(wish.peer) ?? {}
    if (sa !== undefined && tunnel) return this.#rekeys.begin(this.#ike, wish, sa, tunnel.child, this.#now)
    this.#effects.event(notRekeyed(wish, 'IPP_OVERLAY_DOWN', wish.peer))
  }

  #connectLater(peer: NodeId, pause: Duration): void {
    this.#timers.set(peer, after(this.#now, jittered(this.#options.rng, pause, times.RETRY_SPREAD)))
  }

  #initiatesTo(peer: NodeId): boolean {
    return this.#options.nodeId < peer
  }

  // -------------------------------------------------------------------------------------------- telescopes

  #bind(event: ChildEstablished): void {
    const client = event.path.remote.address
    const via = this.#peers.lender(client)
    if (event.leased === undefined || (via === undefined && this.#isPrivate(client))) {
      return this.#ike.close(event.sa, this.#now)
    }
    const binding: Binding = {
      self: this.#options.self,
      client,
      leased: event.leased,
      reqid: this.#reqids.allocate(),
      child: event.child,
      ...(via ? { via: via.link } : {}),
      ...portsOf(event),
    }
    this.#bindings.set(event.sa, binding)
    this.#effects.plane({ circuit: event.sa }, bind(binding))
    this.#effects.event({ kind: 'circuit.bound' })
  }

  /** A client of ours is somewhere else, or behind another NAT. What it is lent, and what is inside, stays. */
  #rebind(event: IkeMoved): void {
    const before = this.#bindings.get(event.sa)
    if (before === undefined) return
    const { ports: _, ...rest } = before
    const binding: Binding = { ...rest, client: event.path.remote.address, ...portsOf(event) }
    this.#bindings.set(event.sa, binding)
    this.#effects.plane({ circuit: event.sa }, rebind(before, binding))
  }

  #unbind(sa: IkeSaId): void {
    const binding = this.#bindings.get(sa)
    if (binding === undefined) return
    this.#bindings.delete(sa)
    this.#effects.plane({ circuit: sa }, unbind(binding))
    this.#reqids.release(binding.reqid)
    this.#effects.event({ kind: 'circuit.released' })
  }

  /** New keys for an overlay tunnel or a telescope. Neither is of use without its one Child SA. */
  #renew(event: Renewal): void {
    const binding = this.#bindings.get(event.sa)
    const peer = this.#peers.bySa(event.sa)
    if (binding !== undefined) {
      const { tunnel, operations } = renew(binding, bindingEnds(binding), event)
      if (tunnel === undefined) return this.#lost(event.sa)
      this.#bindings.set(event.sa, tunnel)
      this.#effects.plane({ circuit: event.sa }, operations)
    } else if (peer?.tunnel !== undefined) {
      const { tunnel, operations } = renew(peer.tunnel, peer.link, event)
      if (tunnel === undefined) return this.#lost(event.sa)
      peer.tunnel = tunnel
      this.#effects.plane({ link: peer }, operations)
    } else if (event.kind === 'child.closed') this.#ike.close(event.sa, this.#now)
  }

  #heard(sa: SaKey): void {
    for (const [id, binding] of this.#bindings)
      if (isOfHeir(binding, sa)) return this.#ike.heardOn(id, sa.spi, this.#now)
    const id = this.#peers.heirHeard(sa)
    if (id !== undefined) this.#ike.heardOn(id, sa.spi, this.#now)
  }

  #lost(sa: IkeSaId): void {
    this.#unbind(sa)
    this.#ike.close(sa, this.#now)
  }

  #endLease(sa: IkeSaId): void {
    if (this.#leases.delete(sa)) this.#pool?.release(sa, this.#now)
  }

  /** Forgets a client without a word. */
  #abandon(sa: IkeSaId): void {
    this.#unbind(sa)
    this.#endLease(sa)
    this.#ike.abandon(sa)
  }

  #isPrivate(address: Ip): boolean {
    return this.#consensus !== undefined && contains(this.#consensus.poolSpace, address)
  }

  // -------------------------------------------------------------------------------------------- IKE

  #responder(): ResponderPolicy {
    const { ciphers, roles, resumption } = this.#options
    return {
      credential: nodeCredential(this.#options.nodeId, this.#options.ikeKey),
      // A ticket is seen on the wire, and in a tunnel by the hop before: so first hops and nodes only.
      ...(resumption === undefined
        ? {}
        : {
            resumption: this.#resumptions.policy(
              resumption,
              ({ remote }) => !this.#stopping && !this.#isPrivate(remote.address),
            ),
          }),
      espCiphers: ciphers,
      publishedKey: utf8(PUBLISHED_KEY),
      liveness: times.CLIENT_LIVENESS,
      lifetimes: {
        child: times.RESPONDER_FACTOR * this.#lifetimes.child,
        ike: times.RESPONDER_FACTOR * this.#lifetimes.ike,
      },
      admitAnonymous: ({ remote }) => {
        if (this.#stopping || this.#pool === undefined) return 'IPP_OVERLAY_NOT_LISTED'
        if (!this.#guarded) return 'IPP_GUARD_DOWN'
        if (this.#expired) return 'IPP_DIR_EXPIRED'
        if (!this.#isPrivate(remote.address))
          return roles.includes('entry') ? undefined : 'IPP_OVERLAY_FOREIGN_SOURCE'
        if (!roles.includes('middle') && !roles.includes('exit')) return 'IPP_OVERLAY_FOREIGN_SOURCE'
        return this.#peers.lender(remote.address)?.tunnel === undefined
          ? 'IPP_OVERLAY_FOREIGN_SOURCE'
          : undefined
      },
      neighbourOf: ({ remote }) => this.#peers.lender(remote.address)?.node.nodeId,
      // Only an entry sees where clients are; deeper layers come from an address that was lent.
      mayMove: ({ remote }) => !this.#isPrivate(remote.address),
      publicKeyOf: (id, { remote }) => {
        // A tunnel begun now would not be deleted any more, and its peer would believe in it.
        if (this.#stopping) return undefined
        const peer = this.#peers.byIdentity(id)
        return peer?.node.address === remote.address ? peer.node.ikeKey : undefined
      },
      lease: (sa) => {
        const address = this.#pool?.lease(sa, this.#now)
        if (address === undefined) this.#effects.event({ kind: 'pool.exhausted' })
        else this.#leases.set(sa, address)
        return address
      },
      selectorsFor: (id, local, remote) => {
        const peer = this.#peers.byIdentity(id)
        return peer && acceptSelectors(peer.link, { local, remote })
      },
    }
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
        return this.#resumptions.keep(this.#peers.bySa(event.sa)?.node.nodeId, event.ticket)
      case 'ike.moved':
        return this.#rebind(event)
      case 'child.established': {
        if (event.peer.kind === 'none') return this.#bind(event)
        const nodeId = nodeOfIdentity(event.peer.id)
        return nodeId === undefined ? this.#ike.close(event.sa, this.#now) : this.#overlayUp(nodeId, event)
      }
      case 'child.rekeyed':
      case 'child.switched':
      case 'child.closed':
        return this.#renew(event)
      case 'ike.closed': {
        this.#unbind(event.sa)
        this.#endLease(event.sa)
        this.#resumptions.forget(event.sa)
        const peer = this.#peers.bySa(event.sa)
        if (peer !== undefined) this.#overlayClosed(peer, event.detail)
      }
    }
  }

  /** What could not be installed must not stay half: who asked for it gives all of it up. */
  #effectFailed(effect: Effect<RouterEvent>, code: ErrorCode, detail: string): void {
    const owner = this.#effects.ownerOf(effect)
    if (owner === undefined) return
    if (owner === GUARD) this.#guardFailed(code, detail)
    else if ('link' in owner) this.#linkFailed(owner.link, detail)
    else if (this.#bindings.has(owner.circuit)) this.#lost(owner.circuit)
  }

  // -------------------------------------------------------------------------------------------- stop

  #stop(): void {
    if (this.#stopping) return
    this.#stopping = true
    const open = [...this.#bindings.keys(), ...[...this.#peers].flatMap((peer) => peer.sa ?? [])]
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

  get #lifetimes(): Lifetimes {
    return this.#options.lifetimes ?? times.LIFETIMES
  }

  get #isExit(): boolean {
    return this.#options.roles.includes('exit')
  }

  get #filter(): HostOperation {
    return nodeFilter(this.#options, this.#consensus, this.#poolPrefix)
  }
}
