/**
 * From the overlay tunnel of before to the one a peer began anew, without a packet lost: the peer may have lost its
 * mind (its program was replaced) and not its kernel, which still sends on the old SA, and hears the new one only when
 * our answer has arrived there. As in a rekey, we send on the new SA when the peer is heard on it; or soon, for one
 * that has nothing to say or lost its kernel, too. The same where it is our program that was replaced and the peer that
 * began: what a predecessor left is sent on until then.
 */
import { after, type Duration, type Instant, SECOND, TimerTable } from '#base/time'
import type { ChildSa } from '#ikev2/events'
import type { Peer } from '#overlay/peers'
import { TUNNEL_GRACE } from '#overlay/router-times'
import type { PlaneOperation, SaKey } from '#telescope/plane'
import { installInbound, installOutbound, type Pairs, renew } from '#telescope/renewal'

/** For the peer to be heard: an answer that is lost is asked for again within this. */
const PATIENCE: Duration = 1 * SECOND

type Step = 'switch' | 'close'

interface Handover {
  /** The pairs of before, as far as this program knows them: those of a predecessor are the estate's. */
  readonly old?: Pairs
  readonly child: ChildSa
  readonly step: Step
}

export interface HandoverPorts {
  readonly install: (peer: Peer, operations: readonly PlaneOperation[]) => void
  /** Nothing is sent any more on what a predecessor left. */
  readonly superseded: (peer: Peer, now: Instant) => void
}

export class Handovers {
  readonly #ports: HandoverPorts
  readonly #running = new Map<Peer, Handover>()
  readonly #timers = new TimerTable<Peer>()

  constructor(ports: HandoverPorts) {
    this.#ports = ports
  }

  /** `child` replaces the tunnel `peer` has. `isOurs`: we began it, so the peer hears it already. */
  begin(peer: Peer, child: ChildSa, isOurs: boolean, now: Instant): void {
    while (this.#running.has(peer)) this.#advance(peer, now)
    const old = peer.tunnel
    if (old === undefined) return
    this.#running.set(peer, { old, child, step: 'switch' })
    this.#renew(peer, 'child.rekeyed', child, old.child)
    if (isOurs) this.#advance(peer, now)
    else this.#timers.set(peer, after(now, PATIENCE))
  }

  /** `child`, which the peer began, replaces the tunnel that a predecessor of ours had. */
  inherit(peer: Peer, child: ChildSa, now: Instant): void {
    peer.tunnel = { child }
    this.#running.set(peer, { child, step: 'switch' })
    this.#ports.install(peer, [installInbound(peer.link, child)])
    this.#timers.set(peer, after(now, PATIENCE))
  }

  /** A packet came on this SA. */
  heard(sa: SaKey, now: Instant): void {
    for (const [peer, { child, step }] of this.#running) {
      if (step === 'switch' && sa.spi === child.inboundSpi && sa.source === peer.link.peer)
        this.#advance(peer, now)
    }
  }

  /** The tunnel is gone, with all its pairs. */
  forget(peer: Peer): void {
    this.#running.delete(peer)
    this.#timers.clear(peer)
  }

  nextTimeout(): Instant | undefined {
    return this.#timers.next()
  }

  tick(now: Instant): void {
    for (const peer of this.#timers.expired(now)) this.#advance(peer, now)
  }

  #advance(peer: Peer, now: Instant): void {
    const handover = this.#running.get(peer)
    if (handover === undefined) return
    const { old, child, step } = handover
    if (old === undefined) {
      this.forget(peer)
      // A rekey may have gone further already, here and below.
      if (peer.tunnel?.child === child) this.#ports.install(peer, [installOutbound(peer.link, child)])
      this.#ports.superseded(peer, now)
    } else if (step === 'switch') {
      if (peer.tunnel?.child === old.child) this.#renew(peer, 'child.switched', child, old.child)
      this.#running.set(peer, { ...handover, step: 'close' })
      this.#timers.set(peer, after(now, TUNNEL_GRACE))
    } else {
      for (const each of [old.child, ...(old.beside ?? [])]) this.#renew(peer, 'child.closed', each, each)
      this.forget(peer)
    }
  }

  #renew(
    peer: Peer,
    kind: 'child.rekeyed' | 'child.switched' | 'child.closed',
    child: ChildSa,
    old: ChildSa,
  ): void {
    if (peer.tunnel === undefined || peer.sa === undefined) return
    const { tunnel, operations } = renew(peer.tunnel, peer.link, { kind, sa: peer.sa, child, old })
    if (tunnel === undefined) return
    peer.tunnel = tunnel
    this.#ports.install(peer, operations)
  }
}
