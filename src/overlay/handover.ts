/**
 * From the overlay tunnel of before to the one a peer began anew, without a packet lost: the peer may have lost its
 * mind (its program was replaced) and not its kernel, which still sends on the old SA, and hears the new one only when
 * our answer has arrived there. As in a rekey, we send on the new SA when the peer is heard on it; or soon, for one
 * that has nothing to say or lost its kernel, too.
 */
import { after, type Duration, type Instant, SECOND, TimerTable } from '#base/time'
import type { ChildSa } from '#ikev2/events'
import type { Peer } from '#overlay/peers'
import { TUNNEL_GRACE } from '#overlay/router-times'
import type { PlaneOperation, SaKey } from '#telescope/plane'
import { renew } from '#telescope/renewal'

/** For the peer to be heard: an answer that is lost is asked for again within this. */
const PATIENCE: Duration = 1 * SECOND

type Step = 'switch' | 'close'

interface Handover {
  readonly old: ChildSa
  readonly child: ChildSa
  readonly step: Step
}

export class Handovers {
  readonly #install: (peer: Peer, operations: readonly PlaneOperation[]) => void
  readonly #running = new Map<Peer, Handover>()
  readonly #timers = new TimerTable<Peer>()

  constructor(install: (peer: Peer, operations: readonly PlaneOperation[]) => void) {
    this.#install = install
  }

  /** `child` replaces the tunnel `peer` has. `isOurs`: we began it, so the peer hears it already. */
  begin(peer: Peer, child: ChildSa, isOurs: boolean, now: Instant): void {
    while (this.#running.has(peer)) this.#advance(peer, now)
    const old = peer.tunnel?.child
    if (old === undefined) return
    this.#running.set(peer, { old, child, step: 'switch' })
    this.#renew(peer, 'child.rekeyed', child, old)
    if (isOurs) this.#advance(peer, now)
    else this.#timers.set(peer, after(now, PATIENCE))
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
    if (step === 'switch') {
      // A rekey may have gone further already.
      if (peer.tunnel?.child === old) this.#renew(peer, 'child.switched', child, old)
      this.#running.set(peer, { ...handover, step: 'close' })
      this.#timers.set(peer, after(now, TUNNEL_GRACE))
    } else {
      this.#renew(peer, 'child.closed', old, old)
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
    this.#install(peer, operations)
  }
}
