/**
 * The planner: from what was negotiated to the ordered SA and policy operations, for every role and both data
 * planes. Pure, so that `test/scenarios/` can show a whole telescope as text.
 *
 * The shape is that of the kernel notes:
 *  - the client has ONE out policy per private address, with every layer's template, innermost first. One policy
 *    per layer would send the inner ESP naked beside the telescope, for a transformed packet is not looked up
 *    again;
 *  - of a client's private addresses only the innermost speaks to anybody. The others speak IKE with the next hop:
 *    who may bind to them would else leave the telescope early, at a hop that knows where it begins;
 *  - a node binds a private address to the telescope that may use it: forward only what came through exactly
 *    (telescope SA, overlay SA), and send replies back through the same pair. That `out` policy is the backward
 *    route;
 *  - inbound SAs are installed before outbound ones, policies after SAs, and removed in the opposite order:
 *    every instant in between drops.
 */
import type { ReqId } from '#base/ids'
import { ANY, host, type Ip, type Prefix, type UdpEndpoint } from '#base/ip'
import type { ChildSa } from '#ikev2/events'
import { NAT_T_PORT } from '#ikev2/nat'
import {
  type Direction,
  MAX_TEMPLATES,
  type PlaneOperation,
  type PolicySpec,
  PRIORITY,
  type Selector,
  type Template,
} from '#telescope/plane'
import { type Ends, installPair, type Pairs, type Ports, relocate, removePairs } from '#telescope/renewal'

/** One layer of a telescope as its client knows it. Layer 1 is the outermost. */
export interface Layer extends Pairs {
  /** Public address of the hop that ends this layer. */
  readonly hop: Ip
  /** Source of this layer's outer header: the client's own address, or the one the previous hop lent. */
  readonly outerSource: Ip
  /** The private address this hop lent. */
  readonly leased: Ip
  /** The one node the lent address speaks to, by IKE; absent in the last layer of a path, which is for applications. */
  readonly next?: UdpEndpoint
  readonly reqid: ReqId
  /** Of layer 1, behind a NAT. */
  readonly ports?: Ports
}

const OUTER_PROTOCOLS = { icmp: 1, tcp: 6, udp: 17 } as const
/** RFC 7296 section 2. */
export const IKE_PORT = 500

// ---------------------------------------------------------------------------------------------- client

/** What the client may say outside the telescope before it has an entry: it fetches the consensus. */
export interface GuardPlan {
  readonly self: Ip
  readonly directories: readonly { readonly address: Ip; readonly port: number }[]
}

/** First of all operations, and last to be undone: block everything but the consensus. */
export function clientGuard(plan: GuardPlan): PlaneOperation[] {
  return guardPolicies(plan).map(install)
}

export function clientGuardRemove(plan: GuardPlan): PlaneOperation[] {
  return guardPolicies(plan).reverse().map(remove)
}

/** IKE with one entry passes outside the telescope. */
export function clientEntryPass(self: Ip, entry: Ip): PlaneOperation[] {
  return entryBypass(self, entry).map(install)
}

export function clientEntryPassRemove(self: Ip, entry: Ip): PlaneOperation[] {
  return entryBypass(self, entry).reverse().map(remove)
}

/** Our own address is another one: what may pass outside the telescope is for it, and for `from` no more. */
export function clientPassMove(plan: GuardPlan, entry: Ip | undefined, from: Ip): PlaneOperation[] {
  const passes = (self: Ip): PolicySpec[] => [
    ...guardPolicies({ ...plan, self }).filter(({ action }) => action === 'bypass'),
    ...(entry === undefined ? [] : entryBypass(self, entry)),
  ]
  return [...passes(plan.self).map(install), ...passes(from).map(remove)]
}

/** Adds the last of `layers` to a telescope that already has the others. */
export function clientExtend(layers: readonly Layer[]): PlaneOperation[] {
  const layer = layers.at(-1)!
  return [...installPair(layerEnds(layer), layer.child), ...layerPolicies(layers).map(install)]
}

/** Where a layer's tunnel ends: what a renewal needs to know. */
export const layerEnds = ({ outerSource, hop, reqid, ports }: Layer): Ends => ({
  self: outerSource,
  peer: hop,
  reqid,
  ...(ports && { ports }),
})

/** Layer 1 begins at another address: its SAs follow, and every policy that names it. Layers inside stay. */
export function clientMove(before: readonly Layer[], after: readonly Layer[]): PlaneOperation[] {
  return [
    ...relocate(layerEnds(before[0]!), layerEnds(after[0]!), after[0]!),
    ...after.flatMap((_, i) => layerPolicies(after.slice(0, i + 1)).map(install)),
  ]
}

/** Takes layers away from the inside until `keep` are left. */
export function clientTruncate(layers: readonly Layer[], keep: number): PlaneOperation[] {
  const operations: PlaneOperation[] = []
  for (let n = layers.length; n > keep; n--) {
    const layer = layers[n - 1]!
    operations.push(...layerPolicies(layers.slice(0, n)).reverse().map(remove))
    operations.push(...removePairs(layerEnds(layer), layer))
  }
  return operations
}

function guardPolicies({ self, directories }: GuardPlan): PolicySpec[] {
  const { tcp, icmp } = OUTER_PROTOCOLS
  return [
    ...(['in', 'out', 'fwd'] as const).map(
      (direction): PolicySpec => ({
        direction,
        selector: { source: ANY, destination: ANY },
        action: 'block',
        priority: PRIORITY.guard,
        templates: [],
      }),
    ),
    ...directories.flatMap(({ address, port }) => {
      const far = host(address)
      return [
        bypass('out', { source: host(self), destination: far, protocol: tcp, destinationPort: port }),
        bypass('in', { source: far, destination: host(self), protocol: tcp, sourcePort: port }),
      ]
    }),
    // Path-MTU errors about the outer packets (ICMP type 3 code 4, RFC 1191) come from any router.
    bypass('in', { source: ANY, destination: host(self), protocol: icmp, icmp: { type: 3, code: 4 } }),
  ]
}

function layerPolicies(layers: readonly Layer[]): PolicySpec[] {
  if (layers.length > MAX_TEMPLATES) throw new RangeError(`at most ${MAX_TEMPLATES} layers fit in one policy`)
  const { inward, outward } = layerSelectors(layers.at(-1)!)
  const innermostFirst = layers.toReversed()
  return [
    protect(
      'in',
      inward,
      PRIORITY.circuit,
      innermostFirst.map((l) => ({ source: l.hop, destination: l.outerSource, reqid: l.reqid })),
    ),
    protect(
      'out',
      outward,
      PRIORITY.circuit,
      innermostFirst.map((l) => ({ source: l.outerSource, destination: l.hop, reqid: l.reqid })),
    ),
  ]
}

/** ESP of the layers inside needs no selector: it is made by the templates, and taken off before policies are asked. */
function layerSelectors({ leased, next }: Layer): { readonly inward: Selector; readonly outward: Selector } {
  const here = host(leased)
  if (next === undefined)
    return { inward: { source: ANY, destination: here }, outward: { source: here, destination: ANY } }
  const there = host(next.address)
  const protocol = OUTER_PROTOCOLS.udp
  return {
    inward: {
      source: there,
      destination: here,
      protocol,
      sourcePort: next.port,
      destinationPort: IKE_PORT,
    },
    outward: {
      source: here,
      destination: there,
      protocol,
      sourcePort: IKE_PORT,
      destinationPort: next.port,
    },
  }
}

// ---------------------------------------------------------------------------------------------- node

/** A long-term overlay tunnel, seen from one of its ends. */
export interface OverlayLink {
  readonly self: Ip
  readonly selfPool: Prefix
  readonly peer: Ip
  readonly peerPool: Prefix
  readonly reqid: ReqId
}

/** A circuit as one of its nodes knows it: whom it came from and which private address it was lent. */
export interface Binding extends Pairs {
  readonly self: Ip
  /** Outer address of the client as seen here: its public one (entry), or the one the previous node lent. */
  readonly client: Ip
  readonly leased: Ip
  readonly reqid: ReqId
  /** Of a client of an entry, behind a NAT. */
  readonly ports?: Ports
  /** The overlay tunnel it came through; absent at the entry. */
  readonly via?: OverlayLink
}

/** Policies of a link, before its first SA: until then they drop. The overlay's own IKE stays outside. */
export function overlayPolicies(link: OverlayLink): PlaneOperation[] {
  return linkPolicies(link).map(install)
}

export function overlayPoliciesRemove(link: OverlayLink): PlaneOperation[] {
  return linkPolicies(link).reverse().map(remove)
}

export function overlaySas(link: OverlayLink, child: ChildSa): PlaneOperation[] {
  return installPair(link, child)
}

export function overlaySasRemove(link: OverlayLink, pairs: Pairs): PlaneOperation[] {
  return removePairs(link, pairs)
}

/** Binds a private address to a telescope. */
export function bind(binding: Binding): PlaneOperation[] {
  return [...installPair(bindingEnds(binding), binding.child), ...bindingPolicies(binding).map(install)]
}

export function unbind(binding: Binding): PlaneOperation[] {
  return [...bindingPolicies(binding).reverse().map(remove), ...removePairs(bindingEnds(binding), binding)]
}

/** The client is somewhere else: its address is bound to the same telescope, and through the same overlay. */
export function rebind(before: Binding, after: Binding): PlaneOperation[] {
  return [...relocate(bindingEnds(before), bindingEnds(after), after), ...bindingPolicies(after).map(install)]
}

export const bindingEnds = ({ self, client, reqid, ports }: Binding): Ends => ({
  self,
  peer: client,
  reqid,
  ...(ports && { ports }),
})

/** Clients are kept apart, and plaintext to or from the pool is refused unless this node is an exit. */
export function harden(pool: Prefix, isExit: boolean): PlaneOperation[] {
  return hardenPolicies(pool, isExit).map(install)
}

export function hardenRemove(pool: Prefix, isExit: boolean): PlaneOperation[] {
  return hardenPolicies(pool, isExit).reverse().map(remove)
}

function linkPolicies({ self, selfPool, peer, peerPool, reqid }: OverlayLink): PolicySpec[] {
  const outbound: Template[] = [{ source: self, destination: peer, reqid }]
  const inbound: Template[] = [{ source: peer, destination: self, reqid }]
  return [
    ...ikeBypass(self, peer),
    // Telescope packets of my clients to the peer, and my IKE answers to the peer's clients.
    protect('out', { source: selfPool, destination: host(peer) }, PRIORITY.overlay, outbound),
    protect('out', { source: host(self), destination: peerPool }, PRIORITY.overlay, outbound),
    // Node to node: ICMP errors would otherwise cross the link in clear, quoting a private address.
    protect('out', { source: host(self), destination: host(peer) }, PRIORITY.overlayNodeToNode, outbound),
    // From the peer's pool only through the peer's tunnel: this is the per-neighbour source filter.
    protect('fwd', { source: host(peer), destination: selfPool }, PRIORITY.overlay, inbound),
    protect('in', { source: peerPool, destination: host(self) }, PRIORITY.overlay, inbound),
    protect('in', { source: host(peer), destination: host(self) }, PRIORITY.overlayNodeToNode, inbound),
  ]
}

function bindingPolicies({ self, client, leased, reqid, via }: Binding): PolicySpec[] {
  const inbound: Template[] = [{ source: client, destination: self, reqid }]
  const outbound: Template[] = [{ source: self, destination: client, reqid }]
  if (via !== undefined) {
    inbound.push({ source: via.peer, destination: self, reqid: via.reqid })
    outbound.push({ source: self, destination: via.peer, reqid: via.reqid })
  }
  return [
    protect('fwd', { source: host(leased), destination: ANY }, PRIORITY.circuit, inbound),
    protect('out', { source: ANY, destination: host(leased) }, PRIORITY.circuit, outbound),
  ]
}

function hardenPolicies(pool: Prefix, isExit: boolean): PolicySpec[] {
  const block = (
    direction: Direction,
    source: Prefix,
    destination: Prefix,
    priority: number,
  ): PolicySpec => ({
    direction,
    selector: { source, destination },
    action: 'block',
    priority,
    templates: [],
  })
  const apart = block('fwd', pool, pool, PRIORITY.isolation)
  if (isExit) return [apart]
  return [apart, block('fwd', ANY, pool, PRIORITY.injection), block('out', pool, ANY, PRIORITY.injection)]
}

// ---------------------------------------------------------------------------------------------- pieces

/** The first hop goes on over port 4500, where a NAT lets ESP through, too (RFC 3948). */
const entryBypass = (self: Ip, entry: Ip): PolicySpec[] =>
  [IKE_PORT, NAT_T_PORT].flatMap((port) => ikeBypass(self, entry, port))

function ikeBypass(self: Ip, peer: Ip, port = IKE_PORT): PolicySpec[] {
  const upper = { protocol: OUTER_PROTOCOLS.udp, sourcePort: port, destinationPort: port }
  return [
    bypass('out', { source: host(self), destination: host(peer), ...upper }),
    bypass('in', { source: host(peer), destination: host(self), ...upper }),
  ]
}

const bypass = (direction: Direction, selector: Selector): PolicySpec => ({
  direction,
  selector,
  action: 'bypass',
  priority: PRIORITY.ikeBypass,
  templates: [],
})

const protect = (
  direction: Direction,
  selector: Selector,
  priority: number,
  templates: readonly Template[],
): PolicySpec => ({
  direction,
  selector,
  action: 'protect',
  priority,
  templates,
})

const install = (policy: PolicySpec): PlaneOperation => ({ kind: 'policy.install', policy })
const remove = (policy: PolicySpec): PlaneOperation => ({
  kind: 'policy.remove',
  direction: policy.direction,
  selector: policy.selector,
})
