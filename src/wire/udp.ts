import { foldChecksum, sum16 } from '#wire/checksum'
import { readUint16, writeUint16 } from '#wire/ipv4'

/**
 * UDP headers in place (RFC 768).
 *
 *     |          Source Port          |       Destination Port        |
 *     |            Length             |           Checksum            |
 */
export const UDP_HEADER = 8

/** UDP-encapsulated ESP and IKE share a port: IKE messages there start with four zero octets (RFC 3948 section 2.2). */
export const NON_ESP_MARKER = 4

export const sourcePort = (bytes: Uint8Array, offset: number): number => readUint16(bytes, offset)
export const destinationPort = (bytes: Uint8Array, offset: number): number => readUint16(bytes, offset + 2)
export const udpLength = (bytes: Uint8Array, offset: number): number => readUint16(bytes, offset + 4)

/** Writes a header whose checksum is zero, "none": as UDP-encapsulated ESP must (RFC 3948 section 2.1). */
export function writeUdp(bytes: Uint8Array, offset: number, from: number, to: number, length: number): void {
  writeUint16(bytes, offset, from)
  writeUint16(bytes, offset + 2, to)
  writeUint16(bytes, offset + 4, length)
  writeUint16(bytes, offset + 6, 0)
}

/**
 * The checksum of the segment at `offset` over its pseudo header (addresses as int32). The field itself is counted
 * as it stands: zero it to compute, leave it to verify (then the result is 0). A computed 0 is sent as 0xffff.
 */
export function udpChecksum(bytes: Uint8Array, offset: number, source: number, destination: number): number {
  const length = udpLength(bytes, offset)
  const pseudo =
    (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + 17 + length
  return foldChecksum(sum16(bytes, offset, length, pseudo))
}
