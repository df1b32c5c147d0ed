/**
 * Whole messages: in the clear, and protected by the SK payload with an AEAD (RFC 7296 section 3.14, RFC 5282).
 *
 *     header | [payloads in the clear] | SK header | IV (8) | ciphertext of: payloads, padding, pad length | ICV
 *     '------------ associated data -------------'
 */
import { concat, wipe } from '#base/bytes'
import type { Aead, CryptoProvider } from '#crypto/provider'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { encodeHeader, HEADER_LENGTH, type Header } from '#ikev2/message/header'
import { encodePayloads, firstType, GENERIC_HEADER_LENGTH, type Payload } from '#ikev2/message/payload'
import { PAYLOAD } from '#ikev2/numbers'
import { Writer } from '#wire/cursor'

/** A message in the clear: IKE_SA_INIT. */
export function encodeClear(header: Header, payloads: readonly Payload[]): Uint8Array {
  const body = encodePayloads(payloads)
  const writer = new Writer(HEADER_LENGTH + body.length)
  encodeHeader(writer, header, firstType(payloads), HEADER_LENGTH + body.length)
  return writer.bytes(body).finish()
}

/** One direction of an IKE SA: SK_ei or SK_er. The key it is made from may be wiped afterwards. */
export class MessageKey {
  readonly #aead: Aead
  readonly #salt: Uint8Array
  readonly #icvLength: number
  /** Never repeats under a key: the counter is the only source of IVs, and it only grows (RFC 5282 section 3.1). */
  #nextIv = 0n

  /** `keying` is the key with its salt behind it. */
  constructor(crypto: CryptoProvider, cipher: EspCipher, keying: Uint8Array) {
    const { keyLength, icvLength } = ESP_CIPHERS[cipher]
    this.#aead = crypto.aead(cipher, keying.subarray(0, keyLength))
    this.#salt = keying.slice(keyLength)
    this.#icvLength = icvLength
  }

  /** The message with all payloads inside SK. Every call takes a fresh IV. */
  seal(header: Header, payloads: readonly Payload[]): Uint8Array {
    const iv = new Uint8Array(IV_LENGTH)
    new DataView(iv.buffer).setBigUint64(0, this.#nextIv++)
    return this.sealWithIv(header, payloads, iv)
  }

  /** For known-answer tests; everybody else calls `seal`. */
  sealWithIv(header: Header, payloads: readonly Payload[], iv: Uint8Array): Uint8Array {
    // No padding: an AEAD needs none, and the pad length octet says so.
    const plaintext = concat(encodePayloads(payloads), Uint8Array.of(0))
    const skLength = GENERIC_HEADER_LENGTH + IV_LENGTH + plaintext.length + this.#icvLength
    const writer = new Writer(HEADER_LENGTH + skLength)
    encodeHeader(writer, header, PAYLOAD.number.SK, HEADER_LENGTH + skLength)
    writer.u8(firstType(payloads)).u8(0).u16(skLength)
    const associated = writer.finish()
    const sealed = this.#aead.seal(concat(this.#salt, iv), plaintext, associated)
    wipe(plaintext)
    return concat(associated, iv, sealed)
  }

  /**
   * The plaintext payload chain of a received message whose SK payload has `skDataLength` octets (IV to ICV)
   * at its end, or undefined when the ICV does not verify or the padding is impossible.
   */
  open(datagram: Uint8Array, skDataLength: number): Uint8Array | undefined {
    if (skDataLength < IV_LENGTH + this.#icvLength + 1) return undefined
    const at = datagram.length - skDataLength
    const iv = datagram.subarray(at, at + IV_LENGTH)
    const sealed = datagram.subarray(at + IV_LENGTH)
    const plaintext = this.#aead.open(concat(this.#salt, iv), sealed, datagram.subarray(0, at))
    if (plaintext === undefined) return undefined
    const end = plaintext.length - 1 - plaintext[plaintext.length - 1]!
    return end < 0 ? undefined : plaintext.subarray(0, end)
  }

  destroy(): void {
    this.#aead.destroy()
    wipe(this.#salt)
  }
}

const IV_LENGTH = 8
