/**
 * IPv4 addresses and prefixes of the control plane, as canonical text (`192.0.2.1`, `10.64.0.0/20`).
 * The data plane works on bytes and uint32 instead; the conversions live here.
 */

/** A canonical dotted-quad IPv4 address. */
export type Ip = string & { readonly __brand: 'Ip' }
/** A canonical IPv4 prefix: host bits are zero. */
export interface Prefix {
  readonly address: Ip
  readonly length: number
}

export interface UdpEndpoint {
  readonly address: Ip
  readonly port: number
}

/** The two ends of a UDP datagram as this host sees them. */
export interface UdpPath {
  readonly local: UdpEndpoint
  readonly remote: UdpEndpoint
}

export const ANY: Prefix = { address: '0.0.0.0' as Ip, length: 0 }

/** Parses dotted-quad text. Octal, short and padded forms are refused: undefined. */
export function parseIp(text: string): Ip | undefined {
  const value = textToUint32(text)
  return value === undefined ? undefined : uint32ToIp(value)
}

/** @throws RangeError: for constants and values already validated at the door. */
export function ip(text: string): Ip {
  const parsed = parseIp(text)
  if (parsed === undefined) throw new RangeError(`not an IPv4 address: ${JSON.stringify(text)}`)
  return parsed
}

export function ipToUint32(address: Ip): number {
  return textToUint32(address)!
}

export function uint32ToIp(value: number): Ip {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}` as Ip
}

/** Four octets, network order. */
export function ipToBytes(address: Ip): Uint8Array {
  const value = ipToUint32(address)
  return Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255)
}

export function bytesToIp(bytes: Uint8Array, offset = 0): Ip {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}` as Ip
}

/** Parses `a.b.c.d/len`; a bare address is a /32. Host bits must be zero. Undefined when malformed. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf('/')
  const address = parseIp(slash < 0 ? text : text.slice(0, slash))
  const lengthText = slash < 0 ? '32' : text.slice(slash + 1)
  if (address === undefined || !/^(0|[1-9]\d?)$/.test(lengthText)) return undefined
  const length = Number(lengthText)
  if (length > 32 || (ipToUint32(address) & ~maskOf(length)) !== 0) return undefined
  return { address, length }
}

/** @throws RangeError: for constants and values already validated at the door. */
export function prefix(text: string): Prefix {
  const parsed = parsePrefix(text)
  if (parsed === undefined) throw new RangeError(`not an IPv4 prefix: ${JSON.stringify(text)}`)
  return parsed
}

export const host = (address: Ip): Prefix => ({ address, length: 32 })
export const formatPrefix = (p: Prefix): string => `${p.address}/${p.length}`

export function contains(p: Prefix, address: Ip): boolean {
  return ((ipToUint32(address) ^ ipToUint32(p.address)) & maskOf(p.length)) === 0
}

export function overlaps(a: Prefix, b: Prefix): boolean {
  return a.length <= b.length ? contains(a, b.address) : contains(b, a.address)
}

/** Inside a network that is nobody's on the Internet: RFC 1918, and the shared one of RFC 6598. */
export const isPrivateNetwork = (p: Prefix): boolean =>
  PRIVATE_NETWORKS.some((network) => p.length >= network.length && contains(network, p.address))

export const samePrefix = (a: Prefix, b: Prefix): boolean => a.address === b.address && a.length === b.length

export function maskOf(length: number): number {
  return length === 0 ? 0 : (-1 << (32 - length)) | 0
}

/** First and last address of a prefix, as uint32. */
export function rangeOf(p: Prefix): readonly [number, number] {
  const first = ipToUint32(p.address)
  return [first, (first | ~maskOf(p.length)) >>> 0]
}

function textToUint32(text: string): number | undefined {
  let value = 0
  let octet = -1
  let dots = 0
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - ZERO
    if (digit === DOT - ZERO) {
      if (octet < 0 || ++dots > 3) return undefined
      value = value * 256 + octet
      octet = -1
    } else if (digit < 0 || digit > 9 || octet === 0) return undefined
    else {
      octet = octet < 0 ? digit : octet * 10 + digit
      if (octet > 255) return undefined
    }
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : undefined
}

const ZERO = '0'.charCodeAt(0)
const DOT = '.'.charCodeAt(0)

const PRIVATE_NETWORKS = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10'].map(prefix)
