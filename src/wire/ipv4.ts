import type { Ip } from '#base/ip'
import { uint32ToIp } from '#base/ip'
import { adjustChecksum, checksum } from '#wire/checksum'

/**
 * IPv4 headers in place (RFC 791 section 3.1): functions on (bytes, offset of the header).
 *
 *      0               1               2               3
 *     | Version | IHL |      TOS      |         Total Length          |
 *     |        Identification         |R|D|M|     Fragment Offset     |
 *     |      TTL      |   Protocol    |        Header Checksum        |
 *     |                         Source Address                        |
 *     |                       Destination Address                     |
 *
 * **Length is checked once, by `checkIpv4`; the accessors rely on it.**
 */
export const IPV4_HEADER = 20

export const PROTOCOL = { icmp: 1, ipv4: 4, tcp: 6, udp: 17, ipv6: 41, esp: 50, none: 59 } as const

/** Byte offsets inside the header. */
const FIELD = {
  versionIhl: 0,
  tos: 1,
  totalLength: 2,
  id: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
} as const

const DONT_FRAGMENT = 0x4000
const MORE_FRAGMENTS = 0x2000
const FRAGMENT_OFFSET = 0x1fff

/** Why a packet is refused; undefined when its header is sound and `length` octets hold all of it. */
export type Ipv4Fault = 'short' | 'version' | 'options' | 'length' | 'checksum'

/**
 * Checks the header of the packet in `bytes[offset, offset+length)`. Octets behind the total length are allowed
 * (RFC 4303 section 2.7, traffic flow confidentiality padding). Options are a fault: nothing in an overlay needs
 * them, and record-route or source-route would write the path into the packet or choose it.
 */
export function checkIpv4(bytes: Uint8Array, offset: number, length: number): Ipv4Fault | undefined {
  if (length < IPV4_HEADER) return 'short'
  const versionIhl = bytes[offset]!
  if (versionIhl >>> 4 !== 4) return 'version'
  if (versionIhl !== 0x45) return 'options'
  const total = totalLength(bytes, offset)
  if (total < IPV4_HEADER || total > length) return 'length'
  return checksum(bytes, offset, IPV4_HEADER) === 0 ? undefined : 'checksum'
}

export const totalLength = (bytes: Uint8Array, offset: number): number =>
  (bytes[offset + FIELD.totalLength]! << 8) | bytes[offset + FIELD.totalLength + 1]!
export const headerLength = (bytes: Uint8Array, offset: number): number => (bytes[offset]! & 15) * 4
export const identification = (bytes: Uint8Array, offset: number): number =>
  readUint16(bytes, offset + FIELD.id)
export const tos = (bytes: Uint8Array, offset: number): number => bytes[offset + FIELD.tos]!
export const ttl = (bytes: Uint8Array, offset: number): number => bytes[offset + FIELD.ttl]!
export const protocol = (bytes: Uint8Array, offset: number): number => bytes[offset + FIELD.protocol]!
/** Addresses as int32: a map key that needs no heap number. `addressText` shows one. */
export const source = (bytes: Uint8Array, offset: number): number => readInt32(bytes, offset + FIELD.source)
export const destination = (bytes: Uint8Array, offset: number): number =>
  readInt32(bytes, offset + FIELD.destination)
export const addressText = (address: number): Ip => uint32ToIp(address >>> 0)
export const dontFragment = (bytes: Uint8Array, offset: number): boolean =>
  (fragmentWord(bytes, offset) & DONT_FRAGMENT) !== 0
/** Part of a fragmented packet, the first part included. */
export const isFragment = (bytes: Uint8Array, offset: number): boolean =>
  (fragmentWord(bytes, offset) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) !== 0
/** A fragment that does not start with the transport header. */
export const isLaterFragment = (bytes: Uint8Array, offset: number): boolean =>
  (fragmentWord(bytes, offset) & FRAGMENT_OFFSET) !== 0

/** One hop less, as a router does, with the checksum kept right (RFC 1624). The TTL must be above zero. */
export function decrementTtl(bytes: Uint8Array, offset: number): void {
  const at = offset + FIELD.ttl
  const before = (bytes[at]! << 8) | bytes[at + 1]!
  bytes[at]!--
  writeUint16(
    bytes,
    offset + FIELD.checksum,
    adjustChecksum(readUint16(bytes, offset + FIELD.checksum), before, before - 0x100),
  )
}

/** A new total length and identification, with the checksum made anew: for segments of a packet, and for its whole. */
export function resizeIpv4(bytes: Uint8Array, offset: number, length: number, id: number): void {
  writeUint16(bytes, offset + FIELD.totalLength, length)
  writeUint16(bytes, offset + FIELD.id, id & 0xffff)
  writeUint16(bytes, offset + FIELD.checksum, 0)
  writeUint16(bytes, offset + FIELD.checksum, checksum(bytes, offset, IPV4_HEADER))
}

/** What varies in a header of ours; the rest is constant. */
export interface Ipv4Header {
  readonly totalLength: number
  readonly protocol: number
  readonly ttl: number
  readonly id: number
  readonly dontFragment: boolean
  readonly tos: number
  /** int32 or uint32. */
  readonly source: number
  readonly destination: number
}

/** Writes a header without options, checksum included, at `offset`. */
export function writeIpv4(bytes: Uint8Array, offset: number, h: Ipv4Header): void {
  writeIpv4Fields(
    bytes,
    offset,
    h.totalLength,
    h.protocol,
    h.ttl,
    h.id,
    h.dontFragment,
    h.tos,
    h.source,
    h.destination,
  )
}

/** The same without an object, for the packet path. */
export function writeIpv4Fields(
  bytes: Uint8Array,
  offset: number,
  length: number,
  protocolNumber: number,
  hops: number,
  id: number,
  df: boolean,
  typeOfService: number,
  from: number,
  to: number,
): void {
  bytes[offset] = 0x45
  bytes[offset + FIELD.tos] = typeOfService
  writeUint16(bytes, offset + FIELD.totalLength, length)
  writeUint16(bytes, offset + FIELD.id, id)
  writeUint16(bytes, offset + FIELD.fragment, df ? DONT_FRAGMENT : 0)
  bytes[offset + FIELD.ttl] = hops
  bytes[offset + FIELD.protocol] = protocolNumber
  writeUint16(bytes, offset + FIELD.checksum, 0)
  writeUint32(bytes, offset + FIELD.source, from)
  writeUint32(bytes, offset + FIELD.destination, to)
  writeUint16(bytes, offset + FIELD.checksum, checksum(bytes, offset, IPV4_HEADER))
}

export const readUint16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!
export const readInt32 = (bytes: Uint8Array, at: number): number =>
  (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!

export function writeUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8
  bytes[at + 1] = value
}

export function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24
  bytes[at + 1] = value >>> 16
  bytes[at + 2] = value >>> 8
  bytes[at + 3] = value
}

function fragmentWord(bytes: Uint8Array, offset: number): number {
  return readUint16(bytes, offset + FIELD.fragment)
}
