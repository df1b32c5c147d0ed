/** A node's side of session resumption: tickets of its peers, and what sessions used of its own. */
import type { IkeSaId, NodeId } from '#base/ids'
import type { UdpPath } from '#base/ip'
import type { ResumptionPolicy } from '#ikev2/events'
import type { Strategy } from '#ikev2/resumption/strategy'
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'
import type { Bindings } from '#overlay/bindings'
import type { Peers } from '#overlay/peers'
import { TrafficMeter } from '#overlay/traffic'
import { Wallet } from '#overlay/wallet'
import { bindingEnds } from '#telescope/plan'
import type { SaCounters, SaKey } from '#telescope/plane'
import { saKeys } from '#telescope/renewal'

export class Resumptions {
  readonly wallet = new Wallet()
  readonly #traffic = new TrafficMeter()

  policy(strategy: Strategy, mayResume: (path: UdpPath) => boolean): ResumptionPolicy {
    return { strategy, mayResume, octetsOf: (sa) => this.#traffic.octetsOf(sa) }
  }

  /** The peer whose IKE SA it came on; none: it is nobody's any more. */
  keep(peer: NodeId | undefined, ticket: ResumptionTicket): void {
    if (peer === undefined) wipeTicket(ticket)
    else this.wallet.keep(peer, ticket)
  }

  read(counters: readonly SaCounters[], bindings: Bindings, peers: Peers): void {
    this.#traffic.read(counters, espSas(bindings, peers))
  }

  forget(sa: IkeSaId): void {
    this.#traffic.forget(sa)
  }
}

/** Every ESP SA of telescopes and overlay tunnels, with the IKE SA it is of. */
function* espSas(bindings: Bindings, peers: Peers): Generator<readonly [SaKey, IkeSaId]> {
  for (const [sa, binding] of bindings)
    for (const key of saKeys(bindingEnds(binding), binding)) yield [key, sa]
  for (const { sa, tunnel, link } of peers)
    if (sa !== undefined && tunnel !== undefined) for (const key of saKeys(link, tunnel)) yield [key, sa]
}
