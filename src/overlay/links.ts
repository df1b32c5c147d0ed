/**
 * The overlay tunnels of a node: one to every other node of the consensus.
 *
 * Of two peers the one with the lower node id initiates, so that a pair has one tunnel. A node that restarted may have
 * no tunnel while its peer believes in the old one: so the other one initiates, too, after waiting in vain.
 */
import type { ErrorCode } from '#base/errors'
import type { IkeSaId, NodeId } from '#base/ids'
import type { Prefix } from '#base/ip'
import { jittered } from '#base/rng'
import { after, type Duration, earliest, type Instant, TimerTable } from '#base/time'
import type { ConsensusNode } from '#directory/documents'
import type { IkeEngine } from '#ikev2/engine'
import type { ChildEstablished } from '#ikev2/events'
import type { EffectQueue } from '#overlay/effects'
import type { Estate } from '#overlay/estate'
import { Handovers } from '#overlay/handover'
import { nodeCredential, nodeIdentity } from '#overlay/identity'
import { type Peer, Peers, selectorsOf } from '#overlay/peers'
import type { Resumptions } from '#overlay/resumptions'
import type { RouterEvent, RouterOptions, RouterOwner } from '#overlay/router-events'
import * as times from '#overlay/router-times'
import {
  type OverlayLink,
  overlayPolicies,
  overlayPoliciesRemove,
  overlaySas,
  overlaySasRemove,
} from '#telescope/plan'
import type { SaKey } from '#telescope/plane'
import { type Pairs, type Renewal, renew } from '#telescope/renewal'
import type { ReqIdAllocator } from '#telescope/reqids'

export interface LinkPorts {
  readonly ike: IkeEngine
  readonly effects: EffectQueue<RouterEvent, RouterOwner>
  readonly reqids: ReqIdAllocator
  readonly estate: Estate
  readonly resumptions: Resumptions
  /** A tunnel is no more, with its reqid: whatever came through it ends. */
  readonly bereave: (link: OverlayLink) => void
  /** A peer was given up, and it is time to try again. */
  readonly retry: (nodeId: NodeId) => void
}

export class Links {
  readonly peers = new Peers()
  readonly #options: RouterOptions
  readonly #ports: LinkPorts
  readonly #timers = new TimerTable<NodeId>()
  readonly #handovers: Handovers
  readonly #drifting = new TimerTable<Peer>()
  #stopping = false

  constructor(options: RouterOptions, ports: LinkPorts) {
    this.#options = options
    this.#ports = ports
    this.#handovers = new Handovers({
      install: (peer, operations) => ports.effects.plane({ link: peer }, operations),
      superseded: ({ link }, now) => ports.estate.superseded(link.reqid, now),
    })
  }

  nextTimeout(): Instant | undefined {
    return earliest(earliest(this.#timers.next(), this.#handovers.nextTimeout()), this.#drifting.next())
  }

  tick(now: Instant): void {
    this.#handovers.tick(now)
    for (const peer of this.#drifting.expired(now)) this.#sink(peer)
    for (const nodeId of this.#timers.expired(now)) {
      if (this.peers.get(nodeId) === undefined) this.#ports.retry(nodeId)
      else this.connect(nodeId, now)
    }
  }

  add(node: ConsensusNode, pool: Prefix, now: Instant): void {
    const { effects, estate, reqids } = this.#ports
    const { self } = this.#options
    const link: OverlayLink = {
      self,
      selfPool: pool,
      peer: node.address,
      peerPool: node.pool,
      reqid: estate.reqidOf(self, node.address) ?? reqids.allocate(),
    }
    const peer = this.peers.add(node, link)
    effects.plane({ link: peer }, overlayPolicies(link))
    if (this.#initiatesTo(node.nodeId)) this.connect(node.nodeId, now)
    else this.#connectLater(node.nodeId, times.TAKE_OVER, now)
  }

  remove(peer: Peer, detail: string, now: Instant): void {
    const { bereave, effects, estate, ike, reqids, resumptions } = this.#ports
    const { link, node, sa, tunnel } = peer
    this.peers.delete(peer)
    this.#handovers.forget(peer)
    estate.bereave(link.reqid, now)
    this.#timers.clear(node.nodeId)
    this.#sink(peer)
    resumptions.wallet.drop(node.nodeId)
    bereave(link)
    if (tunnel !== undefined) effects.plane({ link: peer }, overlaySasRemove(link, tunnel))
    effects.plane({ link: peer }, overlayPoliciesRemove(link))
    reqids.release(link.reqid)
    if (sa !== undefined) ike.close(sa, now)
    if (tunnel !== undefined) effects.event({ kind: 'overlay.down', peer: node, detail })
  }

  /** A tunnel with SAs or policies missing is none: away with all of it, and once more from the start. */
  failed(peer: Peer, detail: string, now: Instant): void {
    const { nodeId } = peer.node
    if (this.#stopping || this.peers.get(nodeId) !== peer) return
    this.remove(peer, detail, now)
    this.#connectLater(nodeId, times.LINK_RETRY, now)
  }

  connect(nodeId: NodeId, now: Instant): void {
    const peer = this.peers.get(nodeId)
    if (this.#stopping || peer === undefined || peer.sa !== undefined) return
    const { self, port, ikeKey, ciphers } = this.#options
    const { ike, resumptions } = this.#ports
    const selectors = selectorsOf(peer.link)
    peer.sa = ike.initiate(
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
        lifetimes: this.#options.lifetimes ?? times.LIFETIMES,
        ...(peer.node.ike === undefined
          ? { resume: { ...resumptions.wallet.spend(nodeId), returnUnanswered: true } }
          : {}),
      },
      now,
    )
  }

  up(nodeId: NodeId, event: ChildEstablished, now: Instant): void {
    const { effects, estate, ike } = this.#ports
    const isOurs = event.role === 'initiator'
    const peer = this.peers.get(nodeId)
    if (peer === undefined || peer.link.peer !== event.path.remote.address) return ike.close(event.sa, now)
    const { sa, tunnel } = peer
    // Both began at once: on both sides the tunnel counts that the lower node id began, whichever is up first. One that
    // the peer cannot have yet makes way: its program may have been away, and we do not ask often any more.
    const ours = sa !== undefined && sa !== event.sa
    const crosses = ours && ike.hasProved(sa) && (tunnel === undefined || now - peer.since < times.CROSSING)
    if (crosses && this.#initiatesTo(nodeId)) return ike.close(event.sa, now)
    peer.sa = event.sa
    peer.since = now
    if (peer.adrift !== undefined) this.#catch(peer)
    // The peer came anew: it restarted, or we did and it still hears what our predecessor told it to.
    if (peer.tunnel !== undefined) this.#handovers.begin(peer, event.child, isOurs, now)
    else if (!isOurs && estate.hasTunnel(peer.link.reqid)) this.#handovers.inherit(peer, event.child, now)
    else {
      peer.tunnel = { child: event.child }
      effects.plane({ link: peer }, overlaySas(peer.link, event.child))
      estate.superseded(peer.link.reqid, now)
    }
    // The peer may have established what we began, and believe in it: it is deleted. What it forgot, it would not hear of.
    if (ours && tunnel === undefined) ike.close(sa, now)
    else if (ours) ike.abandon(sa)
    this.#timers.clear(nodeId)
    effects.event({ kind: 'overlay.up', peer: peer.node })
  }

  closed(peer: Peer, { reason, detail }: { reason: ErrorCode; detail: string }, now: Instant): void {
    const { effects } = this.#ports
    const { link, node, tunnel } = peer
    this.#handovers.forget(peer)
    if (tunnel !== undefined) {
      if (reason === 'IPP_IKE_TIMEOUT' && !this.#stopping) {
        peer.adrift = tunnel
        this.#drifting.set(peer, after(now, times.ADRIFT))
      } else effects.plane({ link: peer }, overlaySasRemove(link, tunnel))
      effects.event({ kind: 'overlay.down', peer: node, detail })
    }
    peer.sa = undefined
    peer.tunnel = undefined
    if (this.#stopping) return
    const again = tunnel === undefined ? times.RETRY_LATER : times.RETRY_FIRST
    this.#connectLater(node.nodeId, this.#initiatesTo(node.nodeId) ? again : times.TAKE_OVER, now)
  }

  /** A packet came on this SA. @returns the IKE SA of whose heir it is */
  heard(sa: SaKey, now: Instant): IkeSaId | undefined {
    this.#handovers.heard(sa, now)
    return this.peers.heirHeard(sa)
  }

  /** @returns false when its pair in use is gone: it is of no use without */
  renew(peer: Peer, pairs: Pairs, event: Renewal): boolean {
    const { tunnel, operations } = renew(pairs, peer.link, event)
    if (tunnel === undefined) return false
    peer.tunnel = tunnel
    this.#ports.effects.plane({ link: peer }, operations)
    return true
  }

  /** Begins no more tunnels. @returns the IKE SAs there are */
  stop(): IkeSaId[] {
    this.#stopping = true
    return [...this.peers].flatMap((peer) => peer.sa ?? [])
  }

  /** What was adrift is a tunnel again: one to leave. */
  #catch(peer: Peer): void {
    peer.tunnel = peer.adrift
    peer.adrift = undefined
    this.#drifting.clear(peer)
  }

  #sink(peer: Peer): void {
    const { adrift, link } = peer
    if (adrift !== undefined) this.#ports.effects.plane({ link: peer }, overlaySasRemove(link, adrift))
    peer.adrift = undefined
    this.#drifting.clear(peer)
  }

  #connectLater(peer: NodeId, pause: Duration, now: Instant): void {
    this.#timers.set(peer, after(now, jittered(this.#options.rng, pause, times.RETRY_SPREAD)))
  }

  #initiatesTo(peer: NodeId): boolean {
    return this.#options.nodeId < peer
  }
}
