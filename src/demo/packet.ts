import { bytesToIp, type Ip } from '#base/ip'

/**
 * An IPv4 packet as far as an onlooker understands it (RFC 791). Only what the demo's analysis needs; the
 * product's own codecs are not used here, so that a defect in them cannot hide itself.
 */
export interface Packet {
  readonly source: Ip
  readonly destination: Ip
  readonly content: Content
}

export type Content =
  /** RFC 4303; over UDP 4500 as well (RFC 3948). `bytes` from the SPI on. */
  | { readonly kind: 'esp'; readonly spi: number; readonly sequence: number; readonly bytes: Uint8Array }
  /** RFC 7296 over UDP 500 or 4500; `bytes` is the message without the non-ESP marker. */
  | { readonly kind: 'ike'; readonly bytes: Uint8Array }
  | { readonly kind: 'udp' | 'tcp'; readonly sourcePort: number; readonly destinationPort: number }
  /** `quoted`: the addresses of the packet an error quotes (RFC 792). */
  | { readonly kind: 'icmp'; readonly type: number; readonly quoted?: readonly [Ip, Ip] }
  /** A fragment but the first, or a packet too short for what it claims to be. */
  | { readonly kind: 'fragment' | 'malformed' }
  | { readonly kind: 'other'; readonly protocol: number }

/** Undefined when it is not an IPv4 packet. */
export function dissect(bytes: Uint8Array): Packet | undefined {
  if (bytes.length < 20 || bytes[0]! >>> 4 !== 4) return undefined
  const headerLength = (bytes[0]! & 15) * 4
  const totalLength = uint16(bytes, 2)
  if (headerLength < 20 || totalLength < headerLength) return undefined
  const fragmentOffset = uint16(bytes, 6) & 0x1fff
  // Behind totalLength stands Ethernet padding.
  const payload = bytes.subarray(headerLength, Math.min(totalLength, bytes.length))
  return {
    source: bytesToIp(bytes, 12),
    destination: bytesToIp(bytes, 16),
    content: fragmentOffset !== 0 ? { kind: 'fragment' } : contentOf(bytes[9]!, payload),
  }
}

/** What an onlooker would write down about it: `esp 0x0000ab01`, `ike`, `tcp 80`, `icmp`. */
export function describe(content: Content): string {
  switch (content.kind) {
    case 'esp':
      return `esp 0x${content.spi.toString(16).padStart(8, '0')}`
    case 'udp':
    case 'tcp':
      // The lower port is the service, the higher one the asker's.
      return `${content.kind} ${Math.min(content.sourcePort, content.destinationPort)}`
    case 'icmp':
      return content.quoted === undefined ? 'icmp' : `icmp error quoting ${content.quoted.join('>')}`
    case 'other':
      return `protocol ${content.protocol}`
    default:
      return content.kind
  }
}

/** IKEv2 header (RFC 7296 section 3.1): version 2.x, a length that is the message's. */
export function isIkeMessage(bytes: Uint8Array): boolean {
  return bytes.length >= 28 && bytes[17]! >>> 4 === 2 && uint32(bytes, 24) === bytes.length
}

export const uint16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!

export const uint32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

const ICMP = 1
const TCP = 6
const UDP = 17
const ESP = 50
const IKE_PORT = 500
const NATT_PORT = 4500
/** RFC 792: destination unreachable, source quench, redirect, time exceeded, parameter problem. */
const ICMP_ERRORS = new Set([3, 4, 5, 11, 12])

function contentOf(protocol: number, payload: Uint8Array): Content {
  switch (protocol) {
    case ESP:
      return espOf(payload)
    case UDP:
      return udpOf(payload)
    case TCP:
      if (payload.length < 20) return { kind: 'malformed' }
      return { kind: 'tcp', sourcePort: uint16(payload, 0), destinationPort: uint16(payload, 2) }
    case ICMP:
      return icmpOf(payload)
    default:
      return { kind: 'other', protocol }
  }
}

function espOf(bytes: Uint8Array): Content {
  if (bytes.length < 8) return { kind: 'malformed' }
  return { kind: 'esp', spi: uint32(bytes, 0), sequence: uint32(bytes, 4), bytes }
}

function udpOf(payload: Uint8Array): Content {
  if (payload.length < 8) return { kind: 'malformed' }
  const sourcePort = uint16(payload, 0)
  const destinationPort = uint16(payload, 2)
  const data = payload.subarray(8, Math.max(8, uint16(payload, 4)))
  const ports = [sourcePort, destinationPort]
  if (ports.includes(NATT_PORT) && data.length >= 4) {
    // RFC 3948 section 2.2: four zero octets stand before IKE, a non-zero SPI is ESP.
    if (uint32(data, 0) !== 0) return espOf(data)
    if (isIkeMessage(data.subarray(4))) return { kind: 'ike', bytes: data.subarray(4) }
  } else if (ports.includes(IKE_PORT) && isIkeMessage(data)) return { kind: 'ike', bytes: data }
  return { kind: 'udp', sourcePort, destinationPort }
}

function icmpOf(payload: Uint8Array): Content {
  if (payload.length < 8) return { kind: 'malformed' }
  const type = payload[0]!
  if (!ICMP_ERRORS.has(type) || payload.length < 28) return { kind: 'icmp', type }
  return { kind: 'icmp', type, quoted: [bytesToIp(payload, 20), bytesToIp(payload, 24)] }
}
