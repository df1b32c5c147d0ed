import type { Ip, Prefix, UdpPath } from '#base/ip'
import type { Compute } from '#ikev2/events'
import type { RuleSet } from '#nat/rules'
import type { PlaneOperation } from '#telescope/plane'

/**
 * What the machines of the overlay ask of a host beside its data plane. `linux/` implements it; the fake for
 * simulations lives in `test/sim/`.
 */
export type HostOperation =
  /** A private address on the plane's device (/32). Removing it closes the sockets bound to it. */
  | { readonly kind: 'address.add' | 'address.remove'; readonly address: Ip }
  | { readonly kind: 'route.add' | 'route.remove'; readonly route: RouteSpec }
  /** Which packets ask a table of their own. */
  | { readonly kind: 'rule.add' | 'rule.remove'; readonly rule: RuleSpec }
  /** Replaces the whole rule set of that owner in one transaction. */
  | { readonly kind: 'firewall.set'; readonly rules: RuleSet }
  | { readonly kind: 'firewall.clear'; readonly owner: RuleSet['owner'] }

export interface RouteSpec {
  readonly destination: Prefix
  /**
   * `overlay`: into the plane's device. `uplink`: pinned to the gateway and device the host used for this
   * destination before any overlay route existed.
   */
  readonly via: 'overlay' | 'uplink'
  /** Preferred source of packets that follow this route. */
  readonly source?: Ip
  readonly mtu?: number
  readonly advmss?: number
  /** Number of the routing table; absent: `main`. */
  readonly table?: number
}

/** All that is said of a packet must hold. */
export interface RuleSpec {
  /** The lowest comes first; there is one of ours with each number. */
  readonly priority: number
  readonly table: number | 'main'
  /** User id of the socket. */
  readonly user?: number
  readonly mark?: number
  readonly destination?: Prefix
  /** Routes to prefixes of this length and shorter ones are not taken. */
  readonly longerThan?: number
}

/** One effect of an overlay machine, to be performed completely before the next. */
export type Effect<Event> =
  | { readonly kind: 'transmit'; readonly path: UdpPath; readonly bytes: Uint8Array }
  /** Not waited for: the answer is an input. Of a node with `offload` alone. */
  | Compute
  | { readonly kind: 'plane'; readonly operations: readonly PlaneOperation[] }
  | { readonly kind: 'host'; readonly operations: readonly HostOperation[] }
  | { readonly kind: 'event'; readonly event: Event }

/** Performs host operations. */
export interface HostNetwork {
  /** Removes what a killed predecessor left behind, then checks privileges. */
  open(device: string): Promise<void>
  apply(operations: readonly HostOperation[]): Promise<void>
  /** Removes every route, address and rule of ours. Idempotent. */
  close(): Promise<void>
}
