/** The other nodes of the consensus as one node knows them: a tunnel each, found by identity or by pool. */
import { equalBytes } from '#base/bytes'
import type { IkeSaId, NodeId } from '#base/ids'
import { contains, host, type Ip, type Prefix, rangeOf, samePrefix, uint32ToIp } from '#base/ip'
import type { Instant } from '#base/time'
import type { ConsensusNode } from '#directory/documents'
import type { IkeId, TrafficSelector } from '#ikev2/events'
import { nodeOfIdentity } from '#overlay/identity'
import type { OverlayLink } from '#telescope/plan'
import type { SaKey } from '#telescope/plane'
import { isOfHeir, type Pairs } from '#telescope/renewal'

export interface Peer {
  readonly node: ConsensusNode
  readonly link: OverlayLink
  /** The IKE SA we use or negotiate. */
  sa: IkeSaId | undefined
  /** The overlay tunnel, while it is up. */
  tunnel: Pairs | undefined
  /** A tunnel whose peer answers no IKE any more. It carries what it can until there is another. */
  adrift: Pairs | undefined
  /** When the last tunnel came up. */
  since: Instant
}

/** What an overlay tunnel carries, as IKE negotiates it. */
export interface TunnelSelectors {
  readonly local: readonly TrafficSelector[]
  readonly remote: readonly TrafficSelector[]
}

export class Peers {
  readonly #byNode = new Map<NodeId, Peer>()

  get(nodeId: NodeId): Peer | undefined {
    return this.#byNode.get(nodeId)
  }

  add(node: ConsensusNode, link: OverlayLink): Peer {
    const since = Number.NEGATIVE_INFINITY as Instant
    const peer: Peer = { node, link, sa: undefined, tunnel: undefined, adrift: undefined, since }
    this.#byNode.set(node.nodeId, peer)
    return peer
  }

  delete(peer: Peer): void {
    this.#byNode.delete(peer.node.nodeId)
  }

  [Symbol.iterator](): IterableIterator<Peer> {
    return this.#byNode.values()
  }

  report(): { readonly peer: string; readonly address: Ip; readonly state: 'up' | 'connecting' }[] {
    return [...this].map(({ node, tunnel }) => ({
      peer: node.name,
      address: node.address,
      state: tunnel === undefined ? 'connecting' : 'up',
    }))
  }

  byIdentity(id: IkeId): Peer | undefined {
    const nodeId = nodeOfIdentity(id)
    return nodeId === undefined ? undefined : this.#byNode.get(nodeId)
  }

  /** By name or node id, as people write it. */
  byText(text: string): Peer | undefined {
    for (const peer of this) if (peer.node.name === text || peer.node.nodeId === text) return peer
    return undefined
  }

  bySa(sa: IkeSaId): Peer | undefined {
    for (const peer of this) if (peer.sa === sa) return peer
    return undefined
  }

  /** Whose heir was heard on this SA. */
  heirHeard(sa: SaKey): IkeSaId | undefined {
    for (const peer of this) if (peer.tunnel !== undefined && isOfHeir(peer.tunnel, sa)) return peer.sa
    return undefined
  }

  /** The node that lent an address: a private address is a backward route, so its pool names the neighbour. */
  lender(address: Ip): Peer | undefined {
    for (const peer of this) if (contains(peer.link.peerPool, address)) return peer
    return undefined
  }

  /** Peers these nodes no longer list as they were, and nodes that are not peers yet. */
  compare(nodes: readonly ConsensusNode[]): { readonly stale: Peer[]; readonly fresh: ConsensusNode[] } {
    const listed = new Map(nodes.map((node) => [node.nodeId, node]))
    return {
      stale: [...this].filter((peer) => {
        const now = listed.get(peer.node.nodeId)
        return now === undefined || !sameLink(now, peer.node)
      }),
      fresh: nodes.filter((node) => {
        const peer = this.#byNode.get(node.nodeId)
        return peer === undefined || !sameLink(node, peer.node)
      }),
    }
  }
}

/** Each end's clients and the end itself. */
export const selectorsOf = ({ self, selfPool, peer, peerPool }: OverlayLink): TunnelSelectors => ({
  local: [selfPool, host(self)].map(toSelector),
  remote: [peerPool, host(peer)].map(toSelector),
})

/** The selectors of a tunnel if a peer proposed all of them, to the letter. */
export function acceptSelectors(link: OverlayLink, proposed: TunnelSelectors): TunnelSelectors | undefined {
  const wanted = selectorsOf(link)
  const covers = (offered: readonly TrafficSelector[], needed: readonly TrafficSelector[]): boolean =>
    needed.every((selector) => offered.some((offer) => sameSelector(offer, selector)))
  return covers(proposed.local, wanted.local) && covers(proposed.remote, wanted.remote) ? wanted : undefined
}

function toSelector(prefix: Prefix): TrafficSelector {
  const [first, last] = rangeOf(prefix)
  return {
    protocol: 0,
    startPort: 0,
    endPort: 65535,
    startAddress: uint32ToIp(first),
    endAddress: uint32ToIp(last),
  }
}

const sameSelector = (a: TrafficSelector, b: TrafficSelector): boolean =>
  a.startAddress === b.startAddress &&
  a.endAddress === b.endAddress &&
  a.protocol === b.protocol &&
  a.startPort === b.startPort &&
  a.endPort === b.endPort

/** Listed as before, in all that tunnels and circuits depend on. */
export const sameLink = (a: ConsensusNode, b: ConsensusNode): boolean =>
  a.address === b.address && a.port === b.port && samePrefix(a.pool, b.pool) && equalBytes(a.ikeKey, b.ikeKey)
