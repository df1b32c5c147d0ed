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
