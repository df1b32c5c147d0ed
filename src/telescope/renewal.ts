/**
 * The SA pairs of one tunnel while keys are renewed: the pair in use, and beside it heirs that are heard already and
 * predecessors that are heard still. Policies name tunnels by end points and reqid, so none of them changes.
 *
 *     child.rekeyed     + inbound SA of the heir, which says when it is used  we hear both
 *     child.switched    + outbound SA of the heir, - that of the old one      and send on the heir
 *     child.closed      - whatever is left of the old one
 *
 * The same for a layer of a telescope, a binding of a node and an overlay tunnel. Pure, like the planner.
 */
import type { ReqId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { ChildSa, IkeEvent, IkeMoved } from '#ikev2/events'
import {
  type PlaneOperation,
  REPLAY_WINDOW,
  SA_LIFE,
  type SaEnds,
  type SaKey,
  type SaSpec,
} from '#telescope/plane'

/** What a rekey does not change. */
export interface Ends {
  readonly self: Ip
  readonly peer: Ip
  readonly reqid: ReqId
  readonly ports?: Ports
}

/** UDP ports of either end, where a NAT stands between (RFC 3948). */
export interface Ports {
  readonly self: number
  readonly peer: number
}

export interface Pairs {
  /** The pair in use. */
  readonly child: ChildSa
  readonly beside?: readonly ChildSa[]
}

export type Renewal = Extract<IkeEvent, { kind: 'child.rekeyed' | 'child.switched' | 'child.closed' }>

/** Inbound first: the peer may send as soon as it knows the SA, and we must not before we can hear the answer. */
export function installPair(ends: Ends, child: ChildSa): PlaneOperation[] {
  return [{ kind: 'sa.install', sa: inboundSpec(ends, child) }, installOutbound(ends, child)]
}

/** The heir can be heard. A peer that sends on it can hear it, too: reason to send on it before the peer deletes the old one. */
export const installInbound = (ends: Ends, child: ChildSa): PlaneOperation => ({
  kind: 'sa.install',
  sa: { ...inboundSpec(ends, child), announce: true },
})

export const installOutbound = (ends: Ends, child: ChildSa): PlaneOperation => ({
  kind: 'sa.install',
  sa: outboundSpec(ends, child),
})

/** Every SA of a tunnel, in both directions. */
export const saKeys = (ends: Ends, { child, beside = [] }: Pairs): SaKey[] =>
  [...beside, child].flatMap((each) => [outboundKey(ends, each), inboundKey(ends, each)])

/** The ports of ESP, as IKE found them. */
export const portsOf = ({
  encapsulated,
  path,
}: Pick<IkeMoved, 'encapsulated' | 'path'>): { readonly ports?: Ports } =>
  encapsulated ? { ports: { self: path.local.port, peer: path.remote.port } } : {}

/** One end of a tunnel is somewhere else: every SA of it follows. Policies name ends, and are the owner's. */
export function relocate(from: Ends, to: Ends, { child, beside = [] }: Pairs): PlaneOperation[] {
  return [child, ...beside].flatMap((each) => [
    { kind: 'sa.move', sa: inboundKey(from, each), to: inboundEnds(to) },
    { kind: 'sa.move', sa: outboundKey(from, each), to: outboundEnds(to) },
  ])
}

/** Takes a tunnel down, whatever stage a renewal is in. */
export function removePairs(ends: Ends, { child, beside = [] }: Pairs): PlaneOperation[] {
  return [...beside, child].flatMap((each) => removePair(ends, each))
}

/** What an event does to a tunnel; `pairs` is undefined when its pair in use is gone: the owner takes it down. */
export function renew<T extends Pairs>(
  tunnel: T,
  ends: Ends,
  event: Renewal,
): { readonly tunnel: T | undefined; readonly operations: PlaneOperation[] } {
  const { child } = event
  const others = (tunnel.beside ?? []).filter(({ inboundSpi }) => inboundSpi !== child.inboundSpi)
  switch (event.kind) {
    case 'child.rekeyed':
      return {
        tunnel: { ...tunnel, beside: [...others, child] },
        operations: [installInbound(ends, child)],
      }
    case 'child.switched':
      return {
        tunnel: { ...tunnel, child, beside: [...others, event.old] },
        operations: [installOutbound(ends, child), { kind: 'sa.remove', sa: outboundKey(ends, event.old) }],
      }
    case 'child.closed':
      if (child.inboundSpi === tunnel.child.inboundSpi) return { tunnel: undefined, operations: [] }
      return { tunnel: { ...tunnel, beside: others }, operations: removePair(ends, child) }
  }
}

/** Is this inbound SA that of an heir, on which we do not send yet? */
export const isOfHeir = ({ beside = [] }: Pairs, { spi }: SaKey): boolean =>
  beside.some(({ inboundSpi }) => inboundSpi === spi)

function removePair(ends: Ends, child: ChildSa): PlaneOperation[] {
  return [
    { kind: 'sa.remove', sa: outboundKey(ends, child) },
    { kind: 'sa.remove', sa: inboundKey(ends, child) },
  ]
}

const outboundKey = ({ self, peer }: Ends, child: ChildSa): SaKey => ({
  source: self,
  destination: peer,
  spi: child.outboundSpi,
})

const inboundEnds = ({ self, peer, ports }: Ends): SaEnds => ({
  source: peer,
  destination: self,
  ...(ports && { encapsulation: { sourcePort: ports.peer, destinationPort: ports.self } }),
})

const outboundEnds = ({ self, peer, ports }: Ends): SaEnds => ({
  source: self,
  destination: peer,
  ...(ports && { encapsulation: { sourcePort: ports.self, destinationPort: ports.peer } }),
})

const inboundKey = ({ self, peer }: Ends, child: ChildSa): SaKey => ({
  source: peer,
  destination: self,
  spi: child.inboundSpi,
})

const inboundSpec = (ends: Ends, child: ChildSa): SaSpec => ({
  ...inboundKey(ends, child),
  ...inboundEnds(ends),
  ...common(ends, child),
  flow: 'inbound',
  key: child.inboundKey,
})

const outboundSpec = (ends: Ends, child: ChildSa): SaSpec => ({
  ...outboundKey(ends, child),
  ...outboundEnds(ends),
  ...common(ends, child),
  flow: 'outbound',
  key: child.outboundKey,
})

const common = ({ reqid }: Ends, { cipher, esn }: ChildSa) => ({
  reqid,
  cipher,
  esn,
  replayWindow: REPLAY_WINDOW,
  life: SA_LIFE,
})
