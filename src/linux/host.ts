/**
 * The network of this host as the overlay changes it: private addresses, routes, rules of routing and packet-filter rules. By
 * rtnetlink; the packet filter is a backend.
 *
 * Every route and routing rule of ours carries a protocol number of our own, so that leftovers are found without having been
 * written down. A route of somebody else is never replaced.
 */

import { IpprivError } from '#base/errors'
import type { Ip, Prefix } from '#base/ip'
import { contains, formatPrefix, ip } from '#base/ip'
import { addAddress, findLink, listAddresses, removeAddress } from '#linux/interfaces'
import { isErrno, Netlink } from '#linux/netlink'
import type { RuleSet } from '#nat/rules'
import type { HostNetwork, HostOperation, RouteSpec, RuleSpec } from '#overlay/ports'
import { NLM_F } from '#wire/netlink/message'
import type { Link, Route } from '#wire/netlink/route'
import {
  decodeRoute,
  encodeRoute,
  encodeRouteDump,
  encodeRouteQuery,
  RT_SCOPE,
  RT_TABLE_MAIN,
  RT_TYPE,
  RTM,
  RTPROT_IPPRIV,
} from '#wire/netlink/route'
import { decodeRule, encodeRule, encodeRuleDump, type Rule } from '#wire/netlink/rule'

/**
 * Stays on the plane's device: when the last address of a device goes, the kernel drops every route through
 * it, and what they kept inside would follow the host's own routes. It is the "IPv4 dummy address" of RFC 7600,
 * the same for everyone; no policy matches it, so what takes it as its source goes nowhere.
 */
const ANCHOR = ip('192.0.0.8')

/** A packet-filter front end: one transaction per call. */
export interface FirewallBackend {
  apply(rules: RuleSet): Promise<void>
  /** Idempotent. */
  clear(owner: RuleSet['owner']): Promise<void>
}

export interface LinuxHostOptions {
  readonly firewall: {
    readonly backend: FirewallBackend
    readonly owner: RuleSet['owner']
    /**
     * Leave the rules of a killed predecessor in force until the first `firewall.set` replaces them: a
     * restarted client is at no moment without its guard. Default: false.
     */
    readonly keepUntilSet?: boolean
  }
  /** Routes of a killed predecessor stay, as if this one had added them. Default: false. */
  readonly adopt?: boolean
}

/** @throws IpprivError IPP_HOST_NETLINK, IPP_HOST_PRIVILEGE, IPP_HOST_ROUTE, and what the firewall throws */
export class LinuxHost implements HostNetwork {
  readonly #firewall: LinuxHostOptions['firewall']
  readonly #adopt: boolean
  #netlink: Netlink | undefined
  #device = ''
  /** Index of the device that has the anchor. */
  #anchored: number | undefined
  /** By destination and table, as text. */
  readonly #routes = new Map<string, Route>()

  constructor(options: LinuxHostOptions) {
    this.#firewall = options.firewall
    this.#adopt = options.adopt ?? false
  }

  async open(device: string): Promise<void> {
    this.#device = device
    this.#netlink = new Netlink('route')
    try {
      await this.#checkPrivilege()
      if (this.#adopt) await this.#takeOver()
      else await this.#sweep()
      if (!this.#firewall.keepUntilSet) await this.#firewall.backend.clear(this.#firewall.owner)
    } catch (error) {
      this.#release()
      throw error
    }
  }

  async apply(operations: readonly HostOperation[]): Promise<void> {
    for (const operation of operations) await this.#perform(operation)
  }

  async close(): Promise<void> {
    if (!this.#netlink) return
    try {
      await this.#sweep()
      await this.#firewall.backend.clear(this.#firewall.owner)
    } finally {
      this.#release()
    }
  }

  async #perform(operation: HostOperation): Promise<void> {
    switch (operation.kind) {
      case 'address.add':
        return addAddress(this.#socket(), await this.#link(), operation.address)
      case 'address.remove':
        return this.#removeAddress(operation.address)
      case 'route.add':
        return this.#addRoute(operation.route)
      case 'route.remove':
        return this.#removeRoute(operation.route)
      case 'rule.add':
        return this.#addRule(operation.rule)
      case 'rule.remove':
        return this.#deleteRule(ruleOf(operation.rule))
      case 'firewall.set':
        return this.#firewall.backend.apply(operation.rules)
      case 'firewall.clear':
        return this.#firewall.backend.clear(operation.owner)
    }
  }

  /**
   * The kernel drops the routes that prefer a source address together with the address. So they lose their
   * preference first.
   */
  async #removeAddress(address: Ip): Promise<void> {
    for (const [key, route] of this.#routes) {
      if (route.source !== address) continue
      const { source: _, ...rest } = route
      await this.#installRoute(key, rest)
    }
    const link = await findLink(this.#socket(), this.#device)
    if (link) await removeAddress(this.#socket(), link.index, address)
  }

  async #addRoute(spec: RouteSpec): Promise<void> {
    const key = keyOf(spec)
    const base = {
      destination: spec.destination,
      table: spec.table ?? RT_TABLE_MAIN,
      protocol: RTPROT_IPPRIV,
      type: RT_TYPE.unicast,
      ...(spec.source !== undefined && { source: spec.source }),
      ...(spec.mtu !== undefined && { mtu: spec.mtu }),
      ...(spec.advmss !== undefined && { advmss: spec.advmss }),
    }
    if (spec.via === 'overlay') {
      const { index } = await this.#link()
      return this.#installRoute(key, { ...base, scope: RT_SCOPE.link, device: index })
    }
    const uplink = await this.#uplinkTo(spec.destination.address)
    // An address of this host needs no route: it is not reached through any device.
    if (uplink.type === RT_TYPE.local) return
    const { device, gateway, source } = uplink
    if (device === undefined) throw new IpprivError('IPP_HOST_ROUTE', spec.destination.address)
    const scope = gateway === undefined ? RT_SCOPE.link : RT_SCOPE.universe
    const route = {
      ...base,
      scope,
      device,
      ...(gateway !== undefined && { gateway, onLink: true }),
      ...(source !== undefined && { source }),
    }
    await this.#installRoute(key, route)
  }

  async #installRoute(key: string, route: Route): Promise<void> {
    const ours = this.#routes.has(key)
    try {
      await this.#socket().request({
        name: `NEWROUTE ${key}`,
        type: RTM.newRoute,
        flags: NLM_F.create | (ours ? NLM_F.replace : NLM_F.excl),
        payload: encodeRoute(route),
      })
      this.#routes.set(key, route)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
      // Somebody else's. The same way out is as good; another one must not be taken from them.
      const existing = (await this.#listRoutes()).find((other) => sameDestination(other, route))
      if (existing?.device !== route.device || existing?.gateway !== route.gateway) throw error
    }
  }

  async #removeRoute(spec: RouteSpec): Promise<void> {
    const key = keyOf(spec)
    const route = this.#routes.get(key)
    if (!route) return
    await this.#deleteRoute(route)
    this.#routes.delete(key)
  }

  async #deleteRoute(route: Route): Promise<void> {
    try {
      await this.#socket().request({
        name: `DELROUTE ${formatPrefix(route.destination)}`,
        type: RTM.deleteRoute,
        payload: encodeRoute(route),
      })
    } catch (error) {
      // Gone already, perhaps with its device.
      if (!isErrno(error, 'ESRCH', 'ENODEV')) throw error
    }
  }

  async #addRule(spec: RuleSpec): Promise<void> {
    try {
      await this.#socket().request({
        name: `NEWRULE ${spec.priority}`,
        type: RTM.newRule,
        flags: NLM_F.create | NLM_F.excl,
        payload: encodeRule(ruleOf(spec)),
      })
    } catch (error) {
      // It was asked for again.
      if (!isErrno(error, 'EEXIST')) throw error
    }
  }

  async #deleteRule(rule: Rule): Promise<void> {
    try {
      await this.#socket().request({
        name: `DELRULE ${rule.priority}`,
        type: RTM.deleteRule,
        payload: encodeRule(rule),
      })
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
    }
  }

  async #sweepRules(): Promise<void> {
    const request = { name: 'GETRULE', type: RTM.getRule, payload: encodeRuleDump() }
    for (const { type, payload } of await this.#socket().dump(request)) {
      const rule = type === RTM.newRule ? decodeRule(payload) : undefined
      if (rule?.protocol === RTPROT_IPPRIV) await this.#deleteRule(rule)
    }
  }

  /** The way a packet to this address took before there was any route of ours. */
  async #uplinkTo(destination: Ip): Promise<Route> {
    const matched = await this.#lookup(destination, true)
    if (matched.protocol !== RTPROT_IPPRIV) {
      // Only a source that the route itself prescribes: the one the kernel chose today may be gone tomorrow.
      const { source: _, ...resolved } = await this.#lookup(destination, false)
      return { ...resolved, ...(matched.source !== undefined && { source: matched.source }) }
    }
    const candidates = (await this.#listRoutes())
      .filter((route) => route.table === RT_TABLE_MAIN && route.protocol !== RTPROT_IPPRIV)
      .filter((route) => route.type === RT_TYPE.unicast && contains(route.destination, destination))
      .sort((a, b) => b.destination.length - a.destination.length || (a.priority ?? 0) - (b.priority ?? 0))
    const best = candidates[0]
    if (!best) throw new IpprivError('IPP_HOST_ROUTE', destination)
    return best
  }

  async #lookup(destination: Ip, fibMatch: boolean): Promise<Route> {
    const name = `GETROUTE ${destination}`
    try {
      const payload = encodeRouteQuery(destination, { fibMatch })
      const route = decodeRoute((await this.#socket().get({ name, type: RTM.getRoute, payload })).payload)
      if (route) return route
    } catch (error) {
      if (!isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH', 'ENONET', 'EINVAL')) throw error
      throw new IpprivError('IPP_HOST_ROUTE', destination, { cause: error })
    }
    throw new IpprivError('IPP_HOST_ROUTE', destination)
  }

  async #listRoutes(): Promise<readonly Route[]> {
    const request = { name: 'GETROUTE', type: RTM.getRoute, payload: encodeRouteDump() }
    const messages = await this.#socket().dump(request)
    return messages
      .filter(({ type }) => type === RTM.newRoute)
      .map(({ payload }) => decodeRoute(payload))
      .filter((route) => route !== undefined)
  }

  async #takeOver(): Promise<void> {
    for (const route of await this.#listRoutes())
      if (route.protocol === RTPROT_IPPRIV) this.#routes.set(keyOf(route), route)
  }

  /** Removes every rule and route of ours and every private address, whoever put them there. */
  async #sweep(): Promise<void> {
    await this.#sweepRules()
    for (const route of await this.#listRoutes())
      if (route.protocol === RTPROT_IPPRIV) await this.#deleteRoute(route)
    this.#routes.clear()
    this.#anchored = undefined
    const netlink = this.#socket()
    const link = await findLink(netlink, this.#device)
    if (!link) return
    for (const { index, address, prefixLength } of await listAddresses(netlink))
      if (index === link.index && prefixLength === 32) await removeAddress(netlink, index, address)
  }

  /** Asks for something that changes nothing but needs CAP_NET_ADMIN. */
  #checkPrivilege(): Promise<void> {
    return this.#deleteRoute({
      // RFC 5737: no route of anybody's leads exactly there with our protocol number.
      destination: { address: ip('192.0.2.1'), length: 32 },
      table: RT_TABLE_MAIN,
      protocol: RTPROT_IPPRIV,
      scope: RT_SCOPE.link,
      type: RT_TYPE.unicast,
    })
  }

  /** The plane's device; looked up each time, since its index changes when it is made anew. */
  async #link(): Promise<Link> {
    const link = await findLink(this.#socket(), this.#device)
    if (!link) throw new IpprivError('IPP_HOST_NETLINK', `there is no device ${this.#device}`)
    if (this.#anchored !== link.index) {
      await addAddress(this.#socket(), link, ANCHOR)
      this.#anchored = link.index
    }
    return link
  }

  #socket(): Netlink {
    if (!this.#netlink) throw new IpprivError('IPP_HOST_NETLINK', 'the host network is not open')
    return this.#netlink
  }

  #release(): void {
    this.#netlink?.close()
    this.#netlink = undefined
    this.#routes.clear()
  }
}

const keyOf = ({ destination, table = RT_TABLE_MAIN }: Pick<RouteSpec, 'destination' | 'table'>): string =>
  `${formatPrefix(destination)} ${table}`

const ruleOf = ({ table, longerThan, ...spec }: RuleSpec): Rule => ({
  ...spec,
  table: table === 'main' ? RT_TABLE_MAIN : table,
  protocol: RTPROT_IPPRIV,
  ...(longerThan === undefined ? {} : { suppressPrefix: longerThan }),
})

/** Two routes that cannot stand beside each other. */
function sameDestination(a: Route, b: Route): boolean {
  const key = (prefix: Prefix, route: Route): string =>
    `${formatPrefix(prefix)} ${route.table} ${route.priority ?? 0}`
  return key(a.destination, a) === key(b.destination, b)
}
