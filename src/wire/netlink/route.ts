/**
 * rtnetlink (linux/rtnetlink.h, if_link.h, if_addr.h), IPv4: devices, addresses, routes. Addresses are in
 * network byte order, everything else in the order of the host.
 */

import type { Ip, Prefix } from '#base/ip'
import { bytesToIp, ip, ipToBytes } from '#base/ip'
import type { Attribute } from '#wire/netlink/attributes'
import {
  attribute,
  attributeNested,
  attributeText,
  attributeU32,
  decodeAttributes,
  encodePayload,
  readText,
  readU32,
} from '#wire/netlink/attributes'
import { LITTLE_ENDIAN, viewOf } from '#wire/netlink/message'

export const RTM = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
  newRule: 32,
  deleteRule: 33,
  getRule: 34,
} as const

export const IFF = { up: 0x1, noArp: 0x80 } as const
/** RTNH_F_ONLINK: the gateway is on the link, whatever the routes say. */
const ON_LINK = 4
/** Answer GETROUTE with the entry of the table, not with the cloned result. */
export const RTM_F_FIB_MATCH = 0x2000
export const RT_TABLE_MAIN = 254
export const RT_SCOPE = { universe: 0, link: 253, host: 254 } as const
export const RT_TYPE = { unicast: 1, local: 2, blackhole: 6, unreachable: 7 } as const
/** Marks every route of ours (`ip route show proto 73`), so that leftovers are found. */
export const RTPROT_IPPRIV = 73

const AF_INET = 2
const IFLA = { name: 3, mtu: 4, linkInfo: 18 } as const
const IFLA_INFO_KIND = 1
const IFA = { address: 1, local: 2 } as const
const RTA = { destination: 1, device: 4, gateway: 5, priority: 6, source: 7, metrics: 8, table: 15 } as const
const RTAX = { mtu: 2, advmss: 8 } as const
const LINK_LENGTH = 16
const ADDRESS_LENGTH = 8
const ROUTE_LENGTH = 12

export interface Link {
  readonly index: number
  readonly name: string
  readonly flags: number
  readonly mtu: number
  /** `dummy`, `tun`, `veth`, ...; absent for devices without a driver of their own kind. */
  readonly kind?: string
}

/** What to find a device by. */
export type LinkKey = { readonly index: number } | { readonly name: string }

export interface LinkChange {
  readonly name?: string
  readonly mtu?: number
  /** Only for NEWLINK with CREATE. */
  readonly kind?: string
  readonly flags?: number
  /** Which of `flags` to change. */
  readonly flagMask?: number
}

/** Payload of NEWLINK: creates (index 0, name and kind) or changes a device. */
export function encodeLink(index: number, change: LinkChange): Uint8Array {
  const attributes: Attribute[] = []
  if (change.name !== undefined) attributes.push(attributeText(IFLA.name, change.name))
  if (change.mtu !== undefined) attributes.push(attributeU32(IFLA.mtu, change.mtu))
  if (change.kind !== undefined)
    attributes.push(attributeNested(IFLA.linkInfo, [attributeText(IFLA_INFO_KIND, change.kind)]))
  return encodePayload(linkHeader(index, change.flags ?? 0, change.flagMask ?? 0), attributes)
}

/** Payload of GETLINK (not a dump) and DELLINK. */
export function encodeLinkKey(key: LinkKey): Uint8Array {
  if ('index' in key) return linkHeader(key.index, 0, 0)
  return encodePayload(linkHeader(0, 0, 0), [attributeText(IFLA.name, key.name)])
}

/** Undefined when malformed. */
export function decodeLink(payload: Uint8Array): Link | undefined {
  if (payload.length < LINK_LENGTH) return undefined
  const view = viewOf(payload)
  const attributes = decodeAttributes(payload, LINK_LENGTH)
  const name = readText(attributes?.get(IFLA.name))
  if (!attributes || name === undefined) return undefined
  const info = attributes.get(IFLA.linkInfo)
  const kind = info && readText(decodeAttributes(info)?.get(IFLA_INFO_KIND))
  return {
    index: view.getInt32(4, LITTLE_ENDIAN),
    name,
    flags: view.getUint32(8, LITTLE_ENDIAN),
    mtu: readU32(attributes.get(IFLA.mtu)) ?? 0,
    ...(kind !== undefined && { kind }),
  }
}

export interface InterfaceAddress {
  readonly index: number
  readonly address: Ip
  readonly prefixLength: number
  readonly scope: number
}

/** Payload of NEWADDR and DELADDR. */
export function encodeAddress({ index, address, prefixLength, scope }: InterfaceAddress): Uint8Array {
  const fixed = new Uint8Array(ADDRESS_LENGTH)
  fixed.set([AF_INET, prefixLength, 0, scope])
  viewOf(fixed).setUint32(4, index, LITTLE_ENDIAN)
  const bytes = ipToBytes(address)
  return encodePayload(fixed, [attribute(IFA.local, bytes), attribute(IFA.address, bytes)])
}

/** Payload of GETADDR with DUMP: every IPv4 address. */
export function encodeAddressDump(): Uint8Array {
  const fixed = new Uint8Array(ADDRESS_LENGTH)
  fixed[0] = AF_INET
  return fixed
}

/** Undefined when malformed, or not IPv4. */
export function decodeAddress(payload: Uint8Array): InterfaceAddress | undefined {
  if (payload.length < ADDRESS_LENGTH || payload[0] !== AF_INET) return undefined
  const attributes = decodeAttributes(payload, ADDRESS_LENGTH)
  // On a point-to-point device ADDRESS is the peer and LOCAL our own.
  const address = readIp(attributes?.get(IFA.local)) ?? readIp(attributes?.get(IFA.address))
  if (!address) return undefined
  return {
    index: viewOf(payload).getUint32(4, LITTLE_ENDIAN),
    address,
    prefixLength: payload[1]!,
    scope: payload[3]!,
  }
}

export interface Route {
  readonly destination: Prefix
  readonly table: number
  readonly protocol: number
  readonly scope: number
  readonly type: number
  /** Index of the outgoing device. Absent in multipath and blackhole routes. */
  readonly device?: number
  readonly gateway?: Ip
  /** The gateway is reached on `device` even if no route says so. Only for NEWROUTE. */
  readonly onLink?: boolean
  /** Preferred source address. */
  readonly source?: Ip
  /** Metric of the route: the lowest wins. 0 when absent. */
  readonly priority?: number
  readonly mtu?: number
  readonly advmss?: number
}

/** Payload of NEWROUTE and DELROUTE. */
export function encodeRoute(route: Route): Uint8Array {
  const attributes: Attribute[] = []
  if (route.destination.length > 0)
    attributes.push(attribute(RTA.destination, ipToBytes(route.destination.address)))
  if (route.gateway !== undefined) attributes.push(attribute(RTA.gateway, ipToBytes(route.gateway)))
  if (route.device !== undefined) attributes.push(attributeU32(RTA.device, route.device))
  if (route.source !== undefined) attributes.push(attribute(RTA.source, ipToBytes(route.source)))
  if (route.priority !== undefined) attributes.push(attributeU32(RTA.priority, route.priority))
  const metrics: Attribute[] = []
  if (route.mtu !== undefined) metrics.push(attributeU32(RTAX.mtu, route.mtu))
  if (route.advmss !== undefined) metrics.push(attributeU32(RTAX.advmss, route.advmss))
  if (metrics.length > 0) attributes.push(attributeNested(RTA.metrics, metrics))
  if (route.table > 255) attributes.push(attributeU32(RTA.table, route.table))
  const { length } = route.destination
  return encodePayload(
    routeHeader(
      length,
      route.table > 255 ? 0 : route.table,
      route.protocol,
      route.scope,
      route.type,
      route.onLink ? ON_LINK : 0,
    ),
    attributes,
  )
}

/** Payload of GETROUTE with DUMP: every IPv4 route. */
export const encodeRouteDump = (): Uint8Array => routeHeader(0, 0, 0, 0, 0, 0)

/** Payload of GETROUTE: which route a packet to this address takes. */
export function encodeRouteQuery(destination: Ip, options: { readonly fibMatch?: boolean } = {}): Uint8Array {
  return encodePayload(routeHeader(32, 0, 0, 0, 0, options.fibMatch ? RTM_F_FIB_MATCH : 0), [
    attribute(RTA.destination, ipToBytes(destination)),
  ])
}

/** Undefined when malformed, or not IPv4. */
export function decodeRoute(payload: Uint8Array): Route | undefined {
  if (payload.length < ROUTE_LENGTH || payload[0] !== AF_INET) return undefined
  const attributes = decodeAttributes(payload, ROUTE_LENGTH)
  const length = payload[1]!
  if (!attributes || length > 32) return undefined
  const metrics = decodeAttributes(attributes.get(RTA.metrics) ?? new Uint8Array(0))
  const optional = {
    device: readU32(attributes.get(RTA.device)),
    gateway: readIp(attributes.get(RTA.gateway)),
    source: readIp(attributes.get(RTA.source)),
    priority: readU32(attributes.get(RTA.priority)),
    mtu: readU32(metrics?.get(RTAX.mtu)),
    advmss: readU32(metrics?.get(RTAX.advmss)),
  }
  return {
    destination: { address: readIp(attributes.get(RTA.destination)) ?? ip('0.0.0.0'), length },
    table: readU32(attributes.get(RTA.table)) ?? payload[4]!,
    protocol: payload[5]!,
    scope: payload[6]!,
    type: payload[7]!,
    ...(Object.fromEntries(
      Object.entries(optional).filter(([, value]) => value !== undefined),
    ) as Partial<Route>),
  }
}

/** `ifinfomsg`: family u8, pad, type u16, index i32, flags u32, change mask u32. */
function linkHeader(index: number, flags: number, mask: number): Uint8Array {
  const fixed = new Uint8Array(LINK_LENGTH)
  const view = viewOf(fixed)
  view.setInt32(4, index, LITTLE_ENDIAN)
  view.setUint32(8, flags, LITTLE_ENDIAN)
  view.setUint32(12, mask, LITTLE_ENDIAN)
  return fixed
}

/** `rtmsg`: family, dst len, src len, tos, table, protocol, scope, type: all u8; flags u32. */
function routeHeader(
  length: number,
  table: number,
  protocol: number,
  scope: number,
  type: number,
  flags: number,
): Uint8Array {
  const fixed = new Uint8Array(ROUTE_LENGTH)
  fixed.set([AF_INET, length, 0, 0, table, protocol, scope, type])
  viewOf(fixed).setUint32(8, flags, LITTLE_ENDIAN)
  return fixed
}

function readIp(payload: Uint8Array | undefined): Ip | undefined {
  return payload && payload.length >= 4 ? bytesToIp(payload) : undefined
}
