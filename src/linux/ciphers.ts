import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { gcm } from '@noble/ciphers/aes.js'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { Arena, type Evp } from '#linux/ffi'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

/**
 * AEAD drivers of the packet path. They throw when they cannot work; who takes their place is the matter of
 * `Placement`, which knows them by what they registered (`drivers.ts`).
 */

/** Nonce and associated data, as all drivers of a thread share them. */
export interface Scratch {
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
}

/** The same where C code finds them, with room for what else libcrypto is told. */
export class ArenaScratch implements Scratch {
  readonly arena = new Arena(128)
  readonly nonce = this.arena.bytes.subarray(0, NONCE_LENGTH)
  readonly associated = this.arena.bytes.subarray(16, 16 + ASSOCIATED_LENGTH)
}

const GET_TAG = 0x10
const SET_TAG = 0x11
const NONCE_LENGTH = 12
const TAG_LENGTH = 16
/** With extended sequence numbers; 8 without. */
const ASSOCIATED_LENGTH = 12

/**
 * libcrypto through koffi keeps one context per SA with its key schedule and works in place: 1.4 us for 1400 octets
 * of AES-256-GCM. Packets must stand in the arena given: their address is computed from their offset.
 */
export class EvpCipherDriver implements CipherDriver {
  readonly name = 'libcrypto'
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  readonly #evp: Evp
  readonly #memory: Arena
  readonly #scratch: Arena

  constructor(functions: Evp, memory: Arena, scratch = new ArenaScratch()) {
    this.#evp = functions
    this.#memory = memory
    this.#scratch = scratch.arena
    this.nonce = scratch.nonce
    this.associated = scratch.associated
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

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): true {
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
    return true
  }

  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    const at = this.#locate(bytes, offset)
    const { init, update, final, control } = this.#evp
    const context = this.#context
    const ok =
      init(context, 0, 0, 0, this.#nonce, -1) === 1 &&
      control(context, SET_TAG, TAG_LENGTH, at + length) === 1 &&
      update(context, 0, this.#outLength, this.#associated, associatedLength) === 1 &&
      update(context, at, this.#outLength, at, length) === 1
    if (!ok) throw new IpprivError('IPP_PLANE_DEAD', 'libcrypto refused to decrypt')
    return final(context, this.#none, this.#outLength) === 1
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

/** The same on node:crypto, for any buffer: 13 us for 1400 octets, most of it for its objects. */
export class NodeCipherDriver implements CipherDriver {
  readonly name = 'node:crypto'
  readonly nonce: Uint8Array
  readonly associated: Uint8Array

  constructor(scratch: Scratch = newScratch()) {
    this.nonce = scratch.nonce
    this.associated = scratch.associated
  }

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

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): true {
    const { nonce, associated } = this.#driver
    const cipher = createCipheriv(this.#algorithm, this.#key!, nonce, { authTagLength: this.#authTagLength })
    cipher.setAAD(associated.subarray(0, associatedLength))
    bytes.set(cipher.update(bytes.subarray(offset, offset + length)), offset)
    cipher.final()
    bytes.set(cipher.getAuthTag(), offset + length)
    return true
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

/** In JavaScript alone, for any buffer: the last resort. 50 us and more for 1400 octets. */
export class NobleCipherDriver implements CipherDriver {
  readonly name = 'noble'
  readonly nonce: Uint8Array
  readonly associated: Uint8Array

  constructor(scratch: Scratch = newScratch()) {
    this.nonce = scratch.nonce
    this.associated = scratch.associated
  }

  create(cipher: EspCipher, key: Uint8Array): PacketCipher {
    return new NobleCipher(this, cipher === 'chacha20-poly1305' ? chacha20poly1305 : gcm, key.slice())
  }
}

class NobleCipher implements PacketCipher {
  readonly #driver: NobleCipherDriver
  readonly #algorithm: typeof gcm | typeof chacha20poly1305
  readonly #key: Uint8Array

  constructor(driver: NobleCipherDriver, algorithm: typeof gcm | typeof chacha20poly1305, key: Uint8Array) {
    this.#driver = driver
    this.#algorithm = algorithm
    this.#key = key
  }

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): true {
    bytes.set(this.#aead(associatedLength).encrypt(bytes.subarray(offset, offset + length)), offset)
    return true
  }

  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    try {
      const sealed = bytes.subarray(offset, offset + length + TAG_LENGTH)
      bytes.set(this.#aead(associatedLength).decrypt(sealed), offset)
      return true
    } catch {
      return false // the only way @noble/ciphers says that a tag is wrong
    }
  }

  destroy(): void {
    wipe(this.#key)
  }

  #aead(associatedLength: number) {
    const { nonce, associated } = this.#driver
    return this.#algorithm(this.#key, nonce.slice(), associated.subarray(0, associatedLength))
  }
}

const newScratch = (): Scratch => ({
  nonce: new Uint8Array(NONCE_LENGTH),
  associated: new Uint8Array(ASSOCIATED_LENGTH),
})
