import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS } from '#crypto/suites'
import type { SequenceWindow } from '#telescope/replay'
import type { SharedCounter } from '#telescope/shared'
import {
  ESP_HEADER,
  ESP_ICV,
  ESP_IV,
  ESP_MINIMUM,
  nextHeader,
  sequenceLow,
  unpaddedLength,
  writeEspHeader,
  writeTrailer,
} from '#wire/esp'
import { PROTOCOL, writeUint32 } from '#wire/ipv4'

/**
 * One ESP layer put on and taken off in place (RFC 4303 sections 3.3 and 3.4): the inner packet never moves, headers
 * grow in front of it and the trailer behind. Sealing a telescope is one pass over one buffer.
 */

/** What a layer adds in front of the inner packet, without the outer IP header, and at most behind it. */
export const SEAL_HEADROOM = ESP_HEADER + ESP_IV
export const SEAL_TAILROOM = 3 + 2 + ESP_ICV

/**
 * An AEAD of the data path under one key: in place, no allocation. Nonce and associated data are passed in the
 * driver's own `nonce` and `associated`, which every cipher of a driver shares.
 */
export interface PacketCipher {
  /**
   * Encrypts `bytes[offset, offset+length)` and writes the 16-octet tag behind it. False: it could not, and the
   * content is undefined.
   */
  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean
  /** Decrypts `bytes[offset, offset+length)`, whose tag stands behind it. False: refused, content undefined. */
  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean
  /** Forgets the key. Idempotent; the cipher must not be used after. */
  destroy(): void
}

export interface CipherDriver {
  readonly name: string
  /** 12 octets each, to be filled before every call. */
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  /** `key` is without the salt, and is copied. A cipher serves one direction only. */
  create(cipher: EspCipher, key: Uint8Array, use: 'seal' | 'open'): PacketCipher
}

/** The part of an SA that transforms packets. */
export interface SealState {
  readonly spi: number
  readonly esn: boolean
  readonly salt: Uint8Array
  readonly cipher: PacketCipher
  readonly driver: CipherDriver
  /** Number of the last packet sent, by this thread. */
  sequence: number
  /** Gives the numbers where several threads seal for this SA. */
  readonly counter?: SharedCounter
}

export interface OpenState {
  readonly spi: number
  readonly esn: boolean
  readonly salt: Uint8Array
  readonly cipher: PacketCipher
  readonly driver: CipherDriver
  readonly window: SequenceWindow
}

/** The last number an SA may use: a counter that wrapped would use a nonce twice (RFC 4303 section 3.3.3). */
const LAST_SEQUENCE = 0xffff_ffff
const LAST_EXTENDED = Number.MAX_SAFE_INTEGER

/** Key and salt of keying material (RFC 4106 section 8.1). @throws RangeError when its length is wrong. */
export function splitKey(cipher: EspCipher, material: Uint8Array): { key: Uint8Array; salt: Uint8Array } {
  const { keyLength, saltLength } = ESP_CIPHERS[cipher]
  if (material.length !== keyLength + saltLength)
    throw new RangeError(`${cipher} takes ${keyLength + saltLength} octets, got ${material.length}`)
  return { key: material.subarray(0, keyLength), salt: material.slice(keyLength) }
}

/**
 * Why a layer was not put on: the SA has used up its sequence numbers (nothing was written), or its cipher failed
 * (the packet is lost, and its number with it).
 */
export const SEAL = { exhausted: -1, refused: -2 } as const

/**
 * Wraps the IPv4 packet `bytes[offset, offset+length)`: its ESP packet begins at `offset - SEAL_HEADROOM`.
 * The explicit IV is the sequence number, which an SA never uses twice.
 * @returns the length of the ESP packet, or one of `SEAL`.
 */
export function sealLayer(sa: SealState, bytes: Uint8Array, offset: number, length: number): number {
  const sequence = sa.counter === undefined ? sa.sequence + 1 : sa.counter.next()
  if (sequence > (sa.esn ? LAST_EXTENDED : LAST_SEQUENCE)) return SEAL.exhausted
  sa.sequence = sequence
  const low = sequence % 0x1_0000_0000
  const high = Math.floor(sequence / 0x1_0000_0000)
  const start = offset - SEAL_HEADROOM
  writeEspHeader(bytes, start, sa.spi, low)
  writeUint32(bytes, start + ESP_HEADER, high)
  writeUint32(bytes, start + ESP_HEADER + 4, low)
  const encrypted = writeTrailer(bytes, offset, length, PROTOCOL.ipv4)
  const { nonce } = sa.driver
  nonce.set(sa.salt)
  writeUint32(nonce, 4, high)
  writeUint32(nonce, 8, low)
  if (!sa.cipher.seal(bytes, offset, encrypted, writeAssociated(sa, high, low))) return SEAL.refused
  return SEAL_HEADROOM + encrypted + ESP_ICV
}

/** Why a layer did not come off. */
export const OPEN = { replayed: -1, corrupted: -2, malformed: -3, dummy: -4 } as const

/**
 * Unwraps the ESP packet `bytes[offset, offset+length)`: verifies, then moves the window. The inner packet begins
 * at `offset + SEAL_HEADROOM`.
 * @returns the length of the inner data (TFC padding included), or one of `OPEN`.
 */
export function openLayer(sa: OpenState, bytes: Uint8Array, offset: number, length: number): number {
  if (length < ESP_MINIMUM) return OPEN.malformed
  const low = sequenceLow(bytes, offset)
  const sequence = sa.window.infer(low)
  if (!sa.window.admits(sequence)) return OPEN.replayed
  const { nonce } = sa.driver
  nonce.set(sa.salt)
  for (let i = 0; i < ESP_IV; i++) nonce[4 + i] = bytes[offset + ESP_HEADER + i]!
  const inner = offset + SEAL_HEADROOM
  const encrypted = length - SEAL_HEADROOM - ESP_ICV
  const associated = writeAssociated(sa, Math.floor(sequence / 0x1_0000_0000), low)
  if (!sa.cipher.open(bytes, inner, encrypted, associated)) return OPEN.corrupted
  if (!sa.window.accept(sequence)) return OPEN.replayed
  const next = nextHeader(bytes, inner, encrypted)
  if (next === PROTOCOL.none) return OPEN.dummy // RFC 4303 section 2.6
  if (next !== PROTOCOL.ipv4) return OPEN.malformed
  const unpadded = unpaddedLength(bytes, inner, encrypted)
  return unpadded < 0 ? OPEN.malformed : unpadded
}

/** RFC 4106 section 5, RFC 7634 section 2.1: SPI and the sequence number, all 64 bits of it with ESN. */
function writeAssociated(
  sa: { spi: number; esn: boolean; driver: CipherDriver },
  high: number,
  low: number,
): number {
  const { associated } = sa.driver
  writeUint32(associated, 0, sa.spi)
  if (!sa.esn) {
    writeUint32(associated, 4, low)
    return 8
  }
  writeUint32(associated, 4, high)
  writeUint32(associated, 8, low)
  return 12
}
