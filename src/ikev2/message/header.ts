import { Reader, type Writer } from '#wire/cursor'

/**
 * The IKE header (RFC 7296 section 3.1).
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------------------------------------------------------+
 *     |                 initiator's SPI (8 octets)                    |
 *     |                 responder's SPI (8 octets)                    |
 *     +---------------+-------+-------+---------------+---------------+
 *     | next payload  | major | minor | exchange type | x x R V I x x x
 *     +---------------+-------+-------+---------------+---------------+
 *     |                           message ID                          |
 *     |                            length                             |
 *     +---------------------------------------------------------------+
 */
export interface Header {
  readonly spiInitiator: Uint8Array
  readonly spiResponder: Uint8Array
  readonly exchange: number
  /** Sent by the original initiator of the IKE SA (flag I). */
  readonly fromInitiator: boolean
  /** An answer (flag R). */
  readonly response: boolean
  readonly messageId: number
}

/** A header as received, with what only the decoder needs. */
export interface ReceivedHeader extends Header {
  readonly firstPayload: number
  readonly majorVersion: number
  readonly length: number
}

export const HEADER_LENGTH = 28
export const SPI_LENGTH = 8
const VERSION = 0x20

const FLAG_INITIATOR = 0x08
const FLAG_RESPONSE = 0x20

/**
 * Reserved flags, the V flag and the minor version are ignored, as section 3.1 demands.
 * @throws DecodeError when shorter than a header, or when the length field is not the datagram's length.
 */
export function decodeHeader(datagram: Uint8Array): ReceivedHeader {
  const reader = new Reader(datagram, 'header')
  const spiInitiator = reader.bytes(SPI_LENGTH)
  const spiResponder = reader.bytes(SPI_LENGTH)
  const firstPayload = reader.u8()
  const majorVersion = reader.u8() >>> 4
  const exchange = reader.u8()
  const flags = reader.u8()
  const messageId = reader.u32()
  const length = reader.u32()
  if (length !== datagram.length) reader.fail(`says ${length} octets, the datagram has ${datagram.length}`)
  return {
    spiInitiator,
    spiResponder,
    firstPayload,
    majorVersion,
    exchange,
    fromInitiator: (flags & FLAG_INITIATOR) !== 0,
    response: (flags & FLAG_RESPONSE) !== 0,
    messageId,
    length,
  }
}

/** Writes the header; `length` is the whole message's. */
export function encodeHeader(writer: Writer, header: Header, firstPayload: number, length: number): void {
  writer.bytes(header.spiInitiator).bytes(header.spiResponder)
  writer.u8(firstPayload).u8(VERSION).u8(header.exchange)
  writer.u8((header.fromInitiator ? FLAG_INITIATOR : 0) | (header.response ? FLAG_RESPONSE : 0))
  writer.u32(header.messageId).u32(length)
}

/** An SPI as key of a map. */
export const spiKey = (spi: Uint8Array): string =>
  String.fromCharCode(spi[0]!, spi[1]!, spi[2]!, spi[3]!, spi[4]!, spi[5]!, spi[6]!, spi[7]!)

export const isZeroSpi = (spi: Uint8Array): boolean => spi.every((octet) => octet === 0)
