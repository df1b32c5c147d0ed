/**
 * Messages in the clear, and the SK and SKF payloads with an AEAD (RFC 7296 section 3.14, RFC 5282, RFC 7383).
 *
 *     header | [payloads in the clear] | SK header | IV (8) | ciphertext of: payloads, padding, pad length | ICV
 *     header | SKF header | number (2) | total (2) | IV (8) | ciphertext of: a piece of the payloads, ...  | ICV
 *     '-------------- associated data ------------'
 */
import { concat, wipe } from '#base/bytes'
import type { Aead, CryptoProvider } from '#crypto/provider'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { encodeHeader, HEADER_LENGTH, type Header } from '#ikev2/message/header'
import { paddingOf } from '#ikev2/message/padding'
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

/** Which piece of how many, from 1. */
export interface FragmentOf {
  readonly number: number
  readonly total: number
}

/** One direction of an IKE SA: SK_ei or SK_er. The key it is made from may be wiped afterwards. */
export class MessageKey {
  readonly #aead: Aead
  /** Salt and IV: the salt stays, and the IV is that of the message. */
  readonly #nonce: Uint8Array
  readonly #saltLength: number
  /**
   * Never repeats under a key: the counter is the only source of IVs, and it only grows (RFC 5282 section 3.1). No IKE SA
   * lives for 2^53 messages.
   */
  #nextIv = 0

  /** `keying` is the key with its salt behind it. */
  constructor(crypto: CryptoProvider, cipher: EspCipher, keying: Uint8Array) {
    const { keyLength } = ESP_CIPHERS[cipher]
    this.#aead = crypto.aead(cipher, keying.subarray(0, keyLength))
    this.#saltLength = keying.length - keyLength
    this.#nonce = new Uint8Array(this.#saltLength + IV_LENGTH)
    for (let i = 0; i < this.#saltLength; i++) this.#nonce[i] = keying[keyLength + i]!
  }

  /** The message with all payloads inside SK. Every call takes a fresh IV. */
  seal(header: Header, payloads: readonly Payload[]): Uint8Array {
    const content = encodePayloads(payloads)
    return this.sealEncoded(header, firstType(payloads), content)
  }

  /** The same of a chain that is encoded already, and `inner` the type of its first payload. */
  sealEncoded(header: Header, inner: number, content: Uint8Array): Uint8Array {
    return this.#seal(header, PAYLOAD.number.SK, inner, content, this.#freshIv(), PADDED)
  }

  /** For known-answer tests, so without padding; everybody else calls `seal`. */
  sealWithIv(header: Header, payloads: readonly Payload[], iv: Uint8Array): Uint8Array {
    return this.#seal(header, PAYLOAD.number.SK, firstType(payloads), encodePayloads(payloads), iv, 0)
  }

  /** One piece of a message inside SKF. `inner` is the type of its first payload in the first piece, else 0. */
  sealFragment(header: Header, inner: number, piece: Uint8Array, { number, total }: FragmentOf): Uint8Array {
    const which = new Writer(FRAGMENT_HEADER_LENGTH).u16(number).u16(total).finish()
    return this.#seal(header, PAYLOAD.number.SKF, inner, piece, this.#freshIv(), PADDED, which)
  }

  /**
   * The plaintext of a received message that ends with `sealedLength` octets from IV to ICV: its payload chain, or a
   * piece of it. Undefined when the ICV does not verify or the padding is impossible.
   */
  open(datagram: Uint8Array, sealedLength: number): Uint8Array | undefined {
    if (sealedLength < IV_LENGTH + ICV_LENGTH + PAD_LENGTH_LENGTH) return undefined
    const at = datagram.length - sealedLength
    const nonce = this.#nonceOf(datagram, at)
    const sealed = datagram.subarray(at + IV_LENGTH)
    const plaintext = this.#aead.open(nonce, sealed, datagram.subarray(0, at))
    if (plaintext === undefined) return undefined
    const end = plaintext.length - 1 - plaintext[plaintext.length - 1]!
    return end < 0 ? undefined : plaintext.subarray(0, end)
  }

  #freshIv(): Uint8Array {
    const iv = new Uint8Array(IV_LENGTH)
    let rest = this.#nextIv++
    for (let i = IV_LENGTH - 1; rest > 0; i--) {
      iv[i] = rest % 256
      rest = Math.floor(rest / 256)
    }
    return iv
  }

  /** With the IV that stands at `at`. Good until the next. */
  #nonceOf(octets: Uint8Array, at: number): Uint8Array {
    for (let i = 0; i < IV_LENGTH; i++) this.#nonce[this.#saltLength + i] = octets[at + i]!
    return this.#nonce
  }

  #seal(
    header: Header,
    type: number,
    inner: number,
    content: Uint8Array,
    iv: Uint8Array,
    padding: number | typeof PADDED,
    fragment: Uint8Array = new Uint8Array(0),
  ): Uint8Array {
    const bare = SEALED_OVERHEAD + fragment.length + content.length
    const padLength = padding === PADDED ? paddingOf(HEADER_LENGTH + bare) : padding
    // Padding of zeros.
    const plaintext = new Uint8Array(content.length + padLength + PAD_LENGTH_LENGTH)
    plaintext.set(content)
    plaintext[plaintext.length - 1] = padLength
    const length = bare + padLength
    const writer = new Writer(HEADER_LENGTH + GENERIC_HEADER_LENGTH + fragment.length)
    encodeHeader(writer, header, type, HEADER_LENGTH + length)
    writer.u8(inner).u8(0).u16(length).bytes(fragment)
    const associated = writer.finish()
    const sealed = this.#aead.seal(this.#nonceOf(iv, 0), plaintext, associated)
    wipe(plaintext)
    return concat(associated, iv, sealed)
  }

  destroy(): void {
    this.#aead.destroy()
    wipe(this.#nonce)
  }
}

/** To one of our sizes. An AEAD needs no padding; it is there for whoever counts octets. */
const PADDED = 'padded'

/** Number and total in front of a fragment's IV (RFC 7383 section 2.5). */
export const FRAGMENT_HEADER_LENGTH = 4
const IV_LENGTH = 8
/** Of every AEAD we have. */
const ICV_LENGTH = 16
const PAD_LENGTH_LENGTH = 1
/** What SK adds to the payloads inside. */
export const SEALED_OVERHEAD = GENERIC_HEADER_LENGTH + IV_LENGTH + PAD_LENGTH_LENGTH + ICV_LENGTH
