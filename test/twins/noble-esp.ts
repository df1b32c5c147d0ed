import { gcm } from '@noble/ciphers/aes.js'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { concat } from '#base/bytes'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'

/** The readable twin of `telescope/seal.ts`: ESP as RFC 4303 draws it, one concatenation per line, on noble. */
export interface SlowSa {
  readonly cipher: EspCipher
  readonly material: Uint8Array
  readonly spi: number
  readonly esn: boolean
}

export function sealSlowly(sa: SlowSa, sequence: bigint, iv: Uint8Array, inner: Uint8Array): Uint8Array {
  const padding = (4 - ((inner.length + 2) % 4)) % 4
  const trailer = [...Array.from({ length: padding }, (_, i) => i + 1), padding, 4]
  const plain = concat(inner, Uint8Array.from(trailer))
  return concat(header(sa, sequence), iv, aead(sa, sequence, iv).encrypt(plain))
}

export function openSlowly(sa: SlowSa, sequence: bigint, packet: Uint8Array): Uint8Array {
  const iv = packet.slice(8, 16)
  const plain = aead(sa, sequence, iv).decrypt(packet.slice(16))
  return plain.slice(0, plain.length - 2 - plain.at(-2)!)
}

function aead(sa: SlowSa, sequence: bigint, iv: Uint8Array) {
  const { keyLength } = ESP_CIPHERS[sa.cipher]
  const key = sa.material.slice(0, keyLength)
  const nonce = concat(sa.material.slice(keyLength), iv)
  const associated = sa.esn
    ? concat(word(BigInt(sa.spi)), word(sequence >> 32n), word(sequence))
    : header(sa, sequence)
  return sa.cipher === 'chacha20-poly1305'
    ? chacha20poly1305(key, nonce, associated)
    : gcm(key, nonce, associated)
}

const header = (sa: SlowSa, sequence: bigint): Uint8Array => concat(word(BigInt(sa.spi)), word(sequence))

function word(value: bigint): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, Number(value & 0xffff_ffffn))
  return bytes
}
