import { checksum } from '#wire/checksum'
import { IPV4_HEADER, PROTOCOL, protocol, totalLength, writeIpv4Fields, writeUint16 } from '#wire/ipv4'

/**
 * The one ICMP message a data plane of ours makes: destination unreachable, fragmentation needed (RFC 792,
 * RFC 1191 section 4).
 *
 *     |   Type = 3    |   Code = 4    |           Checksum            |
 *     |          unused = 0           |         Next-Hop MTU          |
 *     |      Internet Header + 64 bits of Original Data Datagram      |
 */
export const ICMP_HEADER = 8
export const ICMP = {
  echoReply: 0,
  unreachable: 3,
  echo: 8,
  fragmentationNeeded: 4,
} as const

/** Header and 64 bits of the packet that did not fit: the minimum, for nothing more of it is anyone's business. */
const QUOTED = IPV4_HEADER + 8

/** Octets of the whole answer. */
export const FRAGMENTATION_NEEDED = IPV4_HEADER + ICMP_HEADER + QUOTED

/** Our constants of an error packet. */
const ERROR_TTL = 64

/**
 * Turns the packet at `offset` into the error about it, in place: the quoted part stays where it is and the error
 * grows in front. Needs `FRAGMENTATION_NEEDED - QUOTED` octets of headroom. `source` and `destination` are the
 * addresses of the error (int32). The packet must have passed `checkIpv4`.
 *
 * @returns the offset of the error, whose length is in its header; undefined when no error may be sent about this
 * packet: about an ICMP error (RFC 1122 section 3.2.2), or about one too short to quote.
 */
export function makeFragmentationNeeded(
  bytes: Uint8Array,
  offset: number,
  mtu: number,
  source: number,
  destination: number,
): number | undefined {
  if (totalLength(bytes, offset) < QUOTED || isIcmpError(bytes, offset)) return undefined
  const icmp = offset - ICMP_HEADER
  bytes[icmp] = ICMP.unreachable
  bytes[icmp + 1] = ICMP.fragmentationNeeded
  writeUint16(bytes, icmp + 2, 0)
  writeUint16(bytes, icmp + 4, 0)
  writeUint16(bytes, icmp + 6, mtu)
  writeUint16(bytes, icmp + 2, checksum(bytes, icmp, ICMP_HEADER + QUOTED))
  const start = icmp - IPV4_HEADER
  writeIpv4Fields(
    bytes,
    start,
    FRAGMENTATION_NEEDED,
    PROTOCOL.icmp,
    ERROR_TTL,
    0,
    false,
    0,
    source,
    destination,
  )
  return start
}

function isIcmpError(bytes: Uint8Array, offset: number): boolean {
  if (protocol(bytes, offset) !== PROTOCOL.icmp) return false
  const type = bytes[offset + IPV4_HEADER]!
  return type !== ICMP.echo && type !== ICMP.echoReply
}
