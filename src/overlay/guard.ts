/**
 * The client's guard as ordered effects: packet filter, block policies and routes that leave every packet of this
 * host two ways, the telescope or nowhere. It is raised before anything else and lowered after everything else.
 *
 * It stands when its effects are done, not when they are asked for. All of them can be asked for again.
 */
import { host, type Ip, prefix } from '#base/ip'
import { TCP_HEADERS } from '#base/mtu'
import type { FilterContext } from '#nat/rules'
import { clientRules } from '#nat/rulesets'
import { DEFAULT_GROUP, type Group, type IsolationRule, rulesOf, tableOf } from '#overlay/groups'
import type { Effect, HostOperation, RouteSpec } from '#overlay/ports'
import { innerMtu, PATH_MTU } from '#telescope/mtu'
import {
  clientEntryPass,
  clientEntryPassRemove,
  clientGuard,
  clientGuardRemove,
  clientPassMove,
  type GuardPlan,
} from '#telescope/plan'
import { INNER_MSS, INNER_MTU, type PlaneOperation } from '#telescope/plane'
import type { Telescope } from '#telescope/telescope'
import { UDP_HEADER } from '#wire/udp'

/** What the guard needs of a host: nothing here is an event. */
type GuardEffect = Exclude<Effect<never>, { kind: 'event' | 'transmit' }>

export interface GuardOptions {
  /** Our own address toward the entry. */
  readonly self: Ip
  /** From which the consensus is fetched. */
  readonly directories: readonly { readonly address: Ip; readonly port: number }[]
  readonly context: FilterContext
  /** Layers of the default circuit: four and five leave less room in a cable's 1500 octets than the constant. */
  readonly hops: number
  /** Traffic that shares no circuit with other traffic. */
  readonly isolation?: readonly IsolationRule[]
}

/** Two halves of the address space: more specific than a host's default route, which stays untouched beneath. */
const EVERYWHERE = [prefix('0.0.0.0/1'), prefix('128.0.0.0/1')]

export class Guard {
  readonly #options: GuardOptions
  #self: Ip
  #entry: Ip | undefined
  /** The pass for the entry is whole, as far as we have heard. */
  #pinned = false
  #hops: ReadonlySet<Ip> = new Set()
  /** Octets of packets inside, as the network agrees. */
  #agreed = INNER_MTU
  readonly #groups: readonly Group[]
  /** Of the traffic of each group that has a circuit. */
  readonly #sources = new Map<Group, Ip>()

  constructor(options: GuardOptions, groups: readonly Group[] = [DEFAULT_GROUP]) {
    this.#options = options
    this.#self = options.self
    this.#groups = groups
  }

  /** The one foreign node that may be spoken to outside the telescope. */
  get entry(): Ip | undefined {
    return this.#entry
  }

  get self(): Ip {
    return this.#self
  }

  /** Our own address is another one, and the way out of this host may be, too. */
  move(self: Ip): GuardEffect[] {
    const from = this.#self
    const entry = this.#entry
    this.#self = self
    const uplinks = entry === undefined ? this.#servers : [...this.#servers, entry]
    return [
      ...(self === from ? [] : [onPlane(clientPassMove(this.#plan, entry, from))]),
      onHost(
        this.#filter(entry === undefined ? [] : [entry]),
        ...uplinks.map((address) => ({ kind: 'route.add' as const, route: uplink(address) })),
      ),
    ]
  }

  raise(): GuardEffect[] {
    return [
      onHost(this.#filter(this.#entry === undefined ? [] : [this.#entry])),
      onPlane(clientGuard(this.#plan)),
      onHost(
        ...this.#servers.map((address) => ({ kind: 'route.add' as const, route: uplink(address) })),
        ...this.#groups.flatMap((group) => everywhere('route.add', this.#routeOf(group))),
        ...this.#groups.flatMap(rulesOf).map((rule) => ({ kind: 'rule.add' as const, rule })),
      ),
    ]
  }

  /** Lets the daemon's own IKE and ESP reach one entry, and no longer the one before. */
  pin(entry: Ip): GuardEffect[] {
    if (this.#entry === entry && this.#pinned) return []
    const away = this.#entry === entry ? [] : this.unpin()
    this.#entry = entry
    this.#pinned = true
    return [
      ...away,
      onHost({ kind: 'route.add', route: uplink(entry) }, this.#filter([entry])),
      onPlane(clientEntryPass(this.#self, entry)),
    ]
  }

  /** A part of the pass could not be installed: the next `pin` asks for all of it. */
  pinFailed(): void {
    this.#pinned = false
  }

  unpin(): GuardEffect[] {
    const entry = this.#entry
    if (entry === undefined) return []
    this.#entry = undefined
    const route: HostOperation[] = this.#servers.includes(entry)
      ? []
      : [{ kind: 'route.remove', route: uplink(entry) }]
    return [onPlane(clientEntryPassRemove(this.#self, entry)), onHost(this.#filter([]), ...route)]
  }

  /**
   * Where the traffic of a group goes: into the plane's device, as `source` once there is a circuit. Without one it
   * takes the address that the device always has, which no policy knows: it ends there, and on no other circuit.
   */
  route(group: Group, source?: Ip): GuardEffect {
    if (source === undefined) this.#sources.delete(group)
    else this.#sources.set(group, source)
    return onHost(
      ...everywhere('route.add', this.#routeOf(group)),
      ...this.#toHops('route.add', this.#hops, [group]),
    )
  }

  /** The network agrees on another size of packets inside. */
  resize(mtu: number): GuardEffect[] {
    if (mtu === this.#agreed) return []
    this.#agreed = mtu
    return [onHost(...this.#groups.flatMap((group) => everywhere('route.add', this.#routeOf(group))))]
  }

  /**
   * Nodes behind the entry are reached through the telescope. The kernel asks the route to each how much fits into the
   * layer for it: that is more than applications may send, or every layer would cost them again what it adds.
   */
  reach(circuits: Iterable<{ readonly telescope: Telescope }>): HostOperation[] {
    if (this.#options.context.plane === 'userspace') return []
    const inside = [...circuits].flatMap(({ telescope: { hops, layers } }) =>
      // One more than there are layers: its IKE goes through the last of them.
      hops.slice(1, layers.length + 1).map(({ address }) => address),
    )
    const outside = [this.#entry, ...this.#servers]
    const hops = new Set(inside.filter((node) => !outside.includes(node)))
    const gone = [...this.#hops].filter((node) => !hops.has(node))
    const fresh = [...hops].filter((node) => !this.#hops.has(node))
    this.#hops = hops
    return [...this.#toHops('route.remove', gone), ...this.#toHops('route.add', fresh)]
  }

  /** Groups whose traffic starts from one of these addresses. */
  ledInto(addresses: readonly Ip[]): readonly Group[] {
    return [...this.#sources].filter(([, source]) => addresses.includes(source)).map(([group]) => group)
  }

  /** The filter outlives everything else: whatever is removed before it, nothing can leave. */
  lower(): GuardEffect[] {
    return [
      onHost(
        ...this.#groups.flatMap(rulesOf).map((rule) => ({ kind: 'rule.remove' as const, rule })),
        ...this.#toHops('route.remove', this.#hops),
        ...this.#groups.flatMap((group) => everywhere('route.remove', this.#routeOf(group))),
      ),
      ...this.unpin(),
      onHost(...this.#servers.map((address) => ({ kind: 'route.remove' as const, route: uplink(address) }))),
      onPlane(clientGuardRemove(this.#plan)),
      onHost({ kind: 'firewall.clear', owner: 'ippriv_client' }),
    ]
  }

  get #plan(): GuardPlan {
    return { self: this.#self, directories: this.#options.directories }
  }

  /** Addresses of the directories. */
  get #servers(): Ip[] {
    return [...new Set(this.#options.directories.map(({ address }) => address))]
  }

  #routeOf(group: Group): Omit<RouteSpec, 'destination'> {
    const mtu = Math.min(this.#agreed, innerMtu(PATH_MTU - UDP_HEADER, this.#options.hops))
    return { ...this.#into(group), mtu, advmss: mtu - TCP_HEADERS }
  }

  #toHops(
    kind: 'route.add' | 'route.remove',
    hops: Iterable<Ip>,
    groups: readonly Group[] = this.#groups,
  ): HostOperation[] {
    const size = { mtu: PATH_MTU, advmss: INNER_MSS }
    return groups.flatMap((group) =>
      [...hops].map((hop) => ({
        kind,
        route: { destination: host(hop), ...this.#into(group), ...size },
      })),
    )
  }

  /** Into the plane's device, in the table of the group. */
  #into(group: Group): Pick<RouteSpec, 'via' | 'source' | 'table'> {
    const source = this.#sources.get(group)
    return {
      via: 'overlay',
      ...(source === undefined ? {} : { source }),
      ...(group.rule === undefined ? {} : { table: tableOf(group) }),
    }
  }

  #filter(entries: readonly Ip[]): HostOperation {
    const { directories } = this.#options
    const context = { ...this.#options.context, address: this.#self }
    return { kind: 'firewall.set', rules: clientRules({ entries, directories, context }) }
  }
}

const onHost = (...operations: readonly HostOperation[]): GuardEffect => ({ kind: 'host', operations })
const onPlane = (operations: readonly PlaneOperation[]): GuardEffect => ({ kind: 'plane', operations })

const everywhere = (
  kind: 'route.add' | 'route.remove',
  route: Omit<RouteSpec, 'destination'>,
): HostOperation[] => EVERYWHERE.map((destination) => ({ kind, route: { destination, ...route } }))

const uplink = (address: Ip): RouteSpec => ({ destination: host(address), via: 'uplink' })
