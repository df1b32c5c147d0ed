/** Whom a node answers, as its IKE engine asks: other nodes by their pinned keys, clients by where they come from. */
import { utf8 } from '#base/bytes'
import type { ErrorCode } from '#base/errors'
import type { IkeSaId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { ResponderPolicy } from '#ikev2/events'
import { nodeCredential, PUBLISHED_KEY } from '#overlay/identity'
import { type Neighbourhood, networkOf } from '#overlay/leases'
import { acceptSelectors, type Peers } from '#overlay/peers'
import type { Resumptions } from '#overlay/resumptions'
import type { RouterOptions } from '#overlay/router-events'
import * as times from '#overlay/router-times'

/** How it stands with the node now. */
export interface Standing {
  isStopping(): boolean
  /** Why no client is admitted, whoever it is. */
  unready(): ErrorCode | undefined
  /** Is it an address that nodes lend? */
  isPrivate(address: Ip): boolean
  peers(): Peers
  lend(sa: IkeSaId, neighbourhood: Neighbourhood): Ip | undefined
}

export function responderPolicy(
  { ciphers, ikeKey, lifetimes = times.LIFETIMES, nodeId, resumption, roles }: RouterOptions,
  resumptions: Resumptions,
  standing: Standing,
): ResponderPolicy {
  const { isPrivate } = standing
  const mayResume: Parameters<Resumptions['policy']>[1] = ({ remote }) =>
    !standing.isStopping() && !isPrivate(remote.address)
  return {
    credential: nodeCredential(nodeId, ikeKey),
    // A ticket is seen on the wire, and in a tunnel by the hop before: so first hops and nodes only.
    ...(resumption === undefined ? {} : { resumption: resumptions.policy(resumption, mayResume) }),
    espCiphers: ciphers,
    publishedKey: utf8(PUBLISHED_KEY),
    liveness: times.CLIENT_LIVENESS,
    lifetimes: {
      child: times.RESPONDER_FACTOR * lifetimes.child,
      ike: times.RESPONDER_FACTOR * lifetimes.ike,
    },
    admitAnonymous: ({ remote }) => {
      const unready = standing.unready()
      if (unready !== undefined) return unready
      if (!isPrivate(remote.address))
        return roles.includes('entry') ? undefined : 'IPP_OVERLAY_FOREIGN_SOURCE'
      const servesInner = roles.includes('middle') || roles.includes('exit')
      const cameThroughTunnel = standing.peers().lender(remote.address)?.tunnel !== undefined
      return servesInner && cameThroughTunnel ? undefined : 'IPP_OVERLAY_FOREIGN_SOURCE'
    },
    neighbourOf: ({ remote }) => standing.peers().lender(remote.address)?.node.nodeId,
    // Only an entry sees where clients are; deeper layers come from an address that was lent.
    mayMove: ({ remote }) => !isPrivate(remote.address),
    publicKeyOf: (id, { remote }) => {
      // A tunnel begun now would not be deleted any more, and its peer would believe in it.
      if (standing.isStopping()) return undefined
      const peer = standing.peers().byIdentity(id)
      return peer?.node.address === remote.address ? peer.node.ikeKey : undefined
    },
    lease: (sa, { remote }) => {
      const relay = standing.peers().lender(remote.address)?.node.nodeId
      return standing.lend(sa, relay ?? networkOf(remote.address))
    },
    selectorsFor: (id, local, remote) => {
      const peer = standing.peers().byIdentity(id)
      return peer && acceptSelectors(peer.link, { local, remote })
    },
  }
}
