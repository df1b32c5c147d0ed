import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { IpprivError } from '#base/errors'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import type { Evp } from '#linux/ffi'
import { Arena, evp } from '#linux/ffi'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

/**
 * AEAD drivers of the packet path. libcrypto through koffi keeps one context per SA with its key schedule and works
 * in place: about 1.4 us for 1400 octets of AES-256-GCM, where node:crypto takes 13 us for its objects.
 */
export function cipherDriver(memory: Arena): CipherDriver {
  return evp === undefined ? new NodeCipherDriver() : new EvpCipherDriver(evp, memory)
}

const GET_TAG = 0x10
const SET_TAG = 0x11
const NONCE_LENGTH = 12
const TAG_LENGTH = 16

/** Packets must stand in the arena given: their address is computed from their offset. */
export class EvpCipherDriver implements CipherDriver {
  readonly name = 'libcrypto'
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  readonly #evp: Evp
  readonly #memory: Arena
  readonly #scratch = new Arena(128)

  constructor(functions: Evp, memory: Arena) {
    this.#evp = functions
    this.#memory = memory
    this.nonce = this.#scratch.bytes.subarray(0, NONCE_LENGTH)
    this.associated = this.#scratch.bytes.subarray(16, 16 + 12)
  }

  create(cipher: EspCipher, key: Uint8Array, use: 'seal' | 'open'): PacketCipher {
    const { address, bytes } = this.#scratch
    const keyAt = 64
    bytes.set(key, keyAt)
    const context = this.#evp.newContext()
    const algorithm = {
      'aes-256-gcm-16': this.#evp.aes256gcm,
      'aes-128-gcm-16': this.#evp.aes128gcm,
      'chacha20-poly1305': this.#evp.chacha20poly1305,
    }[cipher]
    // 12 octets of nonce and 16 of tag are the defaults of all three.
    const done = this.#evp.init(context, algorithm, 0, address + keyAt, address, use === 'seal' ? 1 : 0)
    bytes.fill(0, keyAt)
    if (done !== 1) throw new IpprivError('IPP_PLANE_UNAVAILABLE', `libcrypto has no ${cipher}`)
    return new EvpCipher(this.#evp, this.#memory, address, context)
  }
}

class EvpCipher implements PacketCipher {
  readonly #evp: Evp
  readonly #memory: Arena
  readonly #nonce: number
  readonly #associated: number
  readonly #outLength: number
  readonly #none: number
  #context: number

  constructor(functions: Evp, memory: Arena, scratch: number, context: number) {
    this.#evp = functions
    this.#memory = memory
    this.#nonce = scratch
    this.#associated = scratch + 16
    this.#outLength = scratch + 32
    this.#none = scratch + 40
    this.#context = context
  }

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): void {
    const at = this.#locate(bytes, offset)
    const { init, update, final, control } = this.#evp
    const context = this.#context
    // Key and cipher stay; -1 keeps the direction.
    const ok =
      init(context, 0, 0, 0, this.#nonce, -1) === 1 &&
      update(context, 0, this.#outLength, this.#associated, associatedLength) === 1 &&
      update(context, at, this.#outLength, at, length) === 1 &&
      final(context, this.#none, this.#outLength) === 1 &&
      control(context, GET_TAG, TAG_LENGTH, at + length) === 1
    if (!ok) throw new IpprivError('IPP_PLANE_DEAD', 'libcrypto refused to encrypt')
  }

  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    const at = this.#locate(bytes, offset)
    const { init, update, final, control } = this.#evp
    const context = this.#context
    return (
      init(context, 0, 0, 0, this.#nonce, -1) === 1 &&
      control(context, SET_TAG, TAG_LENGTH, at + length) === 1 &&
      update(context, 0, this.#outLength, this.#associated, associatedLength) === 1 &&
      update(context, at, this.#outLength, at, length) === 1 &&
      final(context, this.#none, this.#outLength) === 1
    )
  }

  destroy(): void {
    // Frees and clears the key schedule.
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
  }

  #locate(bytes: Uint8Array, offset: number): number {
    if (bytes !== this.#memory.bytes || this.#context === 0)
      throw new IpprivError('IPP_INTERNAL', 'a packet outside the arena, or a destroyed cipher')
    return this.#memory.address + offset
  }
}

/** The same on node:crypto, for any buffer. */
export class NodeCipherDriver implements CipherDriver {
  readonly name = 'node:crypto'
  readonly nonce = new Uint8Array(NONCE_LENGTH)
  readonly associated = new Uint8Array(12)

  create(cipher: EspCipher, key: Uint8Array): PacketCipher {
    return new NodeCipher(this, cipher, createSecretKey(key))
  }
}

const ALGORITHMS = {
  'aes-256-gcm-16': 'aes-256-gcm',
  'aes-128-gcm-16': 'aes-128-gcm',
  'chacha20-poly1305': 'chacha20-poly1305',
} as const

class NodeCipher implements PacketCipher {
  readonly #driver: NodeCipherDriver
  // All three are called alike; the types of node:crypto know it of GCM only.
  readonly #algorithm: 'aes-256-gcm'
  readonly #authTagLength: number
  #key: KeyObject | undefined

  constructor(driver: NodeCipherDriver, cipher: EspCipher, key: KeyObject) {
    this.#driver = driver
    this.#algorithm = ALGORITHMS[cipher] as 'aes-256-gcm'
    this.#authTagLength = ESP_CIPHERS[cipher].icvLength
    // A KeyObject: on Node 24 raw key octets make every createCipheriv several times slower.
    this.#key = key
  }

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): void {
    const { nonce, associated } = this.#driver
    const cipher = createCipheriv(this.#algorithm, this.#key!, nonce, { authTagLength: this.#authTagLength })
    cipher.setAAD(associated.subarray(0, associatedLength))
    bytes.set(cipher.update(bytes.subarray(offset, offset + length)), offset)
    cipher.final()
    bytes.set(cipher.getAuthTag(), offset + length)
  }

  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    const { nonce, associated } = this.#driver
    const authTagLength = this.#authTagLength
    const decipher = createDecipheriv(this.#algorithm, this.#key!, nonce, { authTagLength })
    decipher.setAAD(associated.subarray(0, associatedLength))
    decipher.setAuthTag(bytes.subarray(offset + length, offset + length + authTagLength))
    const plain = decipher.update(bytes.subarray(offset, offset + length))
    try {
      decipher.final()
    } catch {
      return false // the only way node:crypto says that a tag is wrong
    }
    bytes.set(plain, offset)
    return true
  }

  destroy(): void {
    this.#key = undefined
  }
}
