import { PROTOCOL, readInt32, writeUint16, writeUint32 } from '#wire/ipv4'

/**
 * TCP headers in place (RFC 9293 section 3.1): functions on (bytes, offset of the header), for segmentation and
 * coalescing. Nobody here keeps the state of a connection.
 */
export const TCP_HEADER = 20

/** Byte offsets inside the header. */
const FIELD = { sequence: 4, acknowledgment: 8, dataOffset: 12, flags: 13, checksum: 16 } as const

export const TCP_FLAG = { fin: 0x01, psh: 0x08, ack: 0x10, cwr: 0x80 } as const
export const TCP_CHECKSUM = FIELD.checksum

export const tcpHeaderLength = (bytes: Uint8Array, at: number): number =>
  (bytes[at + FIELD.dataOffset]! >>> 4) * 4
export const tcpFlags = (bytes: Uint8Array, at: number): number => bytes[at + FIELD.flags]!
export const tcpSequence = (bytes: Uint8Array, at: number): number => readInt32(bytes, at + FIELD.sequence)
export const tcpAcknowledgment = (bytes: Uint8Array, at: number): number =>
  readInt32(bytes, at + FIELD.acknowledgment)

/** Source and destination port in one int32, a key of the connection. */
export const tcpPorts = (bytes: Uint8Array, at: number): number => readInt32(bytes, at)

/** The same of the other direction. */
export const swapPorts = (ports: number): number => (ports << 16) | (ports >>> 16)

/** Option kinds without a length, and that of selective acknowledgments (RFC 9293 section 3.2, RFC 2018 section 3). */
const OPTION = { end: 0, noOperation: 1, sack: 5 } as const

/** Does the packet that ends at `end` acknowledge the octet in front of `sequence` selectively, or a later one? */
export function tcpSacks(bytes: Uint8Array, at: number, end: number, sequence: number): boolean {
  const optionsEnd = Math.min(end, at + tcpHeaderLength(bytes, at))
  for (let i = at + TCP_HEADER; i + 1 < optionsEnd; ) {
    const kind = bytes[i]!
    if (kind === OPTION.end) return false
    const length = kind === OPTION.noOperation ? 1 : bytes[i + 1]!
    if (length === 0) return false
    if (kind === OPTION.sack)
      for (let block = i + 2; block + 8 <= Math.min(i + length, optionsEnd); block += 8)
        if (((readInt32(bytes, block + 4) - sequence) | 0) >= 0) return true
    i += length
  }
  return false
}

export function writeTcpSequence(bytes: Uint8Array, at: number, sequence: number): void {
  writeUint32(bytes, at + FIELD.sequence, sequence)
}
export function writeTcpFlags(bytes: Uint8Array, at: number, flags: number): void {
  bytes[at + FIELD.flags] = flags
}
export function writeTcpChecksum(bytes: Uint8Array, at: number, checksum: number): void {
  writeUint16(bytes, at + FIELD.checksum, checksum)
}

/** What a segment of `length` octets between two addresses (int32) adds to its sum (RFC 9293 section 3.1). */
export const tcpPseudoHeader = (source: number, destination: number, length: number): number =>
  (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + PROTOCOL.tcp + length
