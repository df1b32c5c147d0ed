import { readInt32, writeUint32 } from '#wire/ipv4'

/**
 * ESP in place (RFC 4303 section 2, with the explicit IV of RFC 4106 section 3.1 and RFC 7634 section 2):
 *
 *     |               Security Parameters Index (SPI)                 |  \ associated data
 *     |                 Sequence Number (low 32 bits)                 |  /  (with ESN: SPI, high, low)
 *     |                 Initialization Vector (8 octets)              |
 *     |                 inner packet, encrypted ...                   |
 *     |        padding 1, 2, 3 ...    |   Pad Length  |  Next Header  |
 *     |                 Integrity Check Value (16 octets)             |
 */
export const ESP_HEADER = 8
export const ESP_IV = 8
export const ESP_ICV = 16
/** Pad length and next header. */
export const ESP_TRAILER = 2
/** The trailer must end on a 4-octet boundary (RFC 4303 section 2.4); our ciphers ask for no more. */
const ALIGNMENT = 4
/** Header, IV, an empty encrypted part padded to 4 octets, ICV. */
export const ESP_MINIMUM = ESP_HEADER + ESP_IV + ALIGNMENT + ESP_ICV

export const spi = (bytes: Uint8Array, offset: number): number => readInt32(bytes, offset) >>> 0
export const sequenceLow = (bytes: Uint8Array, offset: number): number => readInt32(bytes, offset + 4) >>> 0

export function writeEspHeader(bytes: Uint8Array, offset: number, spiValue: number, low: number): void {
  writeUint32(bytes, offset, spiValue)
  writeUint32(bytes, offset + 4, low)
}

/** Octets of the encrypted part for an inner packet of `length`: padding and trailer included. */
export const paddedLength = (length: number): number => (length + ESP_TRAILER + ALIGNMENT - 1) & -ALIGNMENT

/** Octets of the ESP packet, from SPI to ICV, that carries an inner packet of `length`. */
export const espLength = (length: number): number => ESP_HEADER + ESP_IV + paddedLength(length) + ESP_ICV

/** The largest inner packet whose ESP packet, from SPI to ICV, has at most `limit` octets. */
export const espCapacity = (limit: number): number =>
  ((limit - ESP_HEADER - ESP_IV - ESP_ICV) & -ALIGNMENT) - ESP_TRAILER

/**
 * Writes padding and trailer behind `bytes[offset, offset+length)`. Padding is 1, 2, 3, ... (RFC 4303 section 2.4).
 * @returns the length of the part to be encrypted.
 */
export function writeTrailer(bytes: Uint8Array, offset: number, length: number, nextHeader: number): number {
  const total = paddedLength(length)
  const padding = total - ESP_TRAILER - length
  const end = offset + length
  for (let i = 0; i < padding; i++) bytes[end + i] = i + 1
  bytes[end + padding] = padding
  bytes[end + padding + 1] = nextHeader
  return total
}

export const nextHeader = (bytes: Uint8Array, offset: number, length: number): number =>
  bytes[offset + length - 1]!

/** Length of the inner data in a decrypted part of `length` octets (>= 2); -1 when the pad length lies. */
export function unpaddedLength(bytes: Uint8Array, offset: number, length: number): number {
  const inner = length - ESP_TRAILER - bytes[offset + length - ESP_TRAILER]!
  return inner < 0 ? -1 : inner
}
