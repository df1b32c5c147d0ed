import { IpprivError } from '#base/errors'
import { nodeCrypto } from '#crypto/node'
import { type Aead, type CryptoProvider, HASH_LENGTH, type HashName } from '#crypto/provider'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { Arena, type Evp, evp } from '#linux/ffi'

/**
 * node:crypto, but what a handshake does dozens of times is called in OpenSSL itself: digests, HMACs and AEADs, each
 * a call or a few in memory of our own. It is the same library and the same code; what falls away are the objects around,
 * which cost several times as much, and once more when they are collected.
 *
 * No secret stays in the memory that calls share: what a call put there, it wipes, and contexts forget their key.
 * A thread has one, with its memory.
 */
export function nativeCrypto(): CryptoProvider {
  made ??= evp === undefined ? nodeCrypto : over(evp)
  return made
}

let made: CryptoProvider | undefined

/** Octets: what one call may take. Anything longer goes by way of node:crypto. */
const ROOM = 4096
const TAG_LENGTH = 16
const NONCE_LENGTH = 12
const GET_TAG = 0x10
const SET_TAG = 0x11
const INNER_PAD = 0x36
const OUTER_PAD = 0x5c
/** Octets that a compression function takes at once (FIPS 180-4 section 1). */
const BLOCK_LENGTH: Readonly<Record<HashName, number>> = { sha256: 64, sha384: 128, sha512: 128 }
const DIGEST_LENGTH: Readonly<Record<HashName | 'sha1', number>> = { ...HASH_LENGTH, sha1: 20 }

function over(functions: Evp): CryptoProvider {
  const hashes = new Hashes(functions)
  const aeads = new Aeads(functions)
  return {
    ...nodeCrypto,
    name: 'libcrypto',
    hash: (name, data) => (data.length > ROOM ? nodeCrypto.hash(name, data) : hashes.hash(name, data)),
    hmac(name, key, data) {
      const isLong = key.length > BLOCK_LENGTH[name] || data.length > ROOM
      return isLong ? nodeCrypto.hmac(name, key, data) : hashes.hmac(name, key, data)
    },
    aead: (cipher, key) => new NativeAead(aeads, cipher, key),
  }
}

/** One-shot digests. Memory: what goes in, from 0; the second block of an HMAC; what comes out. */
class Hashes {
  readonly #digest: Evp['digest']
  readonly #arena: Arena
  readonly #algorithms: Readonly<Record<HashName | 'sha1', number>>

  constructor({ digest, fetchDigest }: Evp) {
    this.#digest = digest
    this.#arena = new Arena(RESULT + 64)
    const fetch = (name: string): number => {
      this.#arena.bytes.set(new TextEncoder().encode(`${name}\0`))
      return fetchDigest(0, this.#arena.address, 0)
    }
    this.#algorithms = {
      sha1: fetch('SHA1'),
      sha256: fetch('SHA256'),
      sha384: fetch('SHA384'),
      sha512: fetch('SHA512'),
    }
  }

  hash(name: HashName | 'sha1', data: Uint8Array): Uint8Array {
    this.#arena.bytes.set(data)
    this.#call(name, 0, data.length, RESULT)
    return this.#result(data.length, DIGEST_LENGTH[name])
  }

  /** RFC 2104. The key is no longer than a block. */
  hmac(name: HashName, key: Uint8Array, data: Uint8Array): Uint8Array {
    const { bytes } = this.#arena
    const block = BLOCK_LENGTH[name]
    const length = HASH_LENGTH[name]
    pad(bytes, 0, key, block, INNER_PAD)
    bytes.set(data, block)
    pad(bytes, OUTER, key, block, OUTER_PAD)
    this.#call(name, 0, block + data.length, OUTER + block)
    this.#call(name, OUTER, block + length, RESULT)
    bytes.fill(0, OUTER, OUTER + block + length)
    return this.#result(block + data.length, length)
  }

  #call(name: HashName | 'sha1', at: number, length: number, out: number): void {
    const { address } = this.#arena
    if (this.#digest(address + at, length, address + out, 0, this.#algorithms[name], 0) !== 1)
      throw new IpprivError('IPP_INTERNAL', `libcrypto refused to make a digest of ${length} octets`)
  }

  /** A copy of the result, and nothing left of it and of what went in. */
  #result(used: number, length: number): Uint8Array {
    const { bytes } = this.#arena
    const result = new Uint8Array(length)
    for (let i = 0; i < length; i++) result[i] = bytes[RESULT + i]!
    bytes.fill(0, 0, used)
    bytes.fill(0, RESULT, RESULT + length)
    return result
  }
}

const OUTER = ROOM + 128
const RESULT = OUTER + 128 + 64

function pad(out: Uint8Array, at: number, key: Uint8Array, block: number, value: number): void {
  for (let i = 0; i < key.length; i++) out[at + i] = key[i]! ^ value
  out.fill(value, at + key.length, at + block)
}

class NativeAead implements Aead {
  readonly #aeads: Aeads
  readonly #cipher: EspCipher
  readonly #key: Uint8Array

  constructor(aeads: Aeads, cipher: EspCipher, key: Uint8Array) {
    const { keyLength } = ESP_CIPHERS[cipher]
    if (key.length !== keyLength)
      throw new RangeError(`a key of ${cipher} has ${keyLength} octets, not ${key.length}`)
    this.#aeads = aeads
    this.#cipher = cipher
    this.#key = key.slice()
  }

  seal(nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    if (fits(nonce, plaintext, associated))
      return this.#aeads.seal(this.#cipher, this.#key, nonce, plaintext, associated)
    return this.#elsewhere((aead) => aead.seal(nonce, plaintext, associated))
  }

  open(nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    if (sealed.length < TAG_LENGTH) return undefined
    if (fits(nonce, sealed, associated))
      return this.#aeads.open(this.#cipher, this.#key, nonce, sealed, associated)
    return this.#elsewhere((aead) => aead.open(nonce, sealed, associated))
  }

  /** Whatever is still sealed is for nobody. */
  destroy(): void {
    this.#key.set(nodeCrypto.random(this.#key.length))
  }

  #elsewhere<T>(work: (aead: Aead) => T): T {
    const aead = nodeCrypto.aead(this.#cipher, this.#key)
    const result = work(aead)
    aead.destroy()
    return result
  }
}

const fits = (nonce: Uint8Array, text: Uint8Array, associated: Uint8Array): boolean =>
  nonce.length === NONCE_LENGTH && text.length <= ROOM && associated.length <= ROOM

/** All AEADs of a thread share a context for each cipher and direction; the key comes anew with every message. */
class Aeads {
  readonly #evp: Evp
  readonly #arena = new Arena(TEXT + ROOM + TAG_LENGTH)
  readonly #sealing: Partial<Record<EspCipher, number>> = {}
  readonly #opening: Partial<Record<EspCipher, number>> = {}

  constructor(functions: Evp) {
    this.#evp = functions
  }

  seal(
    cipher: EspCipher,
    key: Uint8Array,
    nonce: Uint8Array,
    plaintext: Uint8Array,
    associated: Uint8Array,
  ): Uint8Array {
    const { address, bytes } = this.#arena
    const { length } = plaintext
    const context = this.#begin(cipher, key, nonce, plaintext, associated, SEAL)
    const { final, control } = this.#evp
    const ok =
      this.#update(context, length, associated.length) &&
      final(context, address + NONE, address + OUT_LENGTH) === 1 &&
      control(context, GET_TAG, TAG_LENGTH, address + TEXT + length) === 1
    if (!ok) throw new IpprivError('IPP_INTERNAL', 'libcrypto refused to encrypt')
    const sealed = bytes.slice(TEXT, TEXT + length + TAG_LENGTH)
    this.#forget(context, 0)
    return sealed
  }

  open(
    cipher: EspCipher,
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    associated: Uint8Array,
  ): Uint8Array | undefined {
    const { address, bytes } = this.#arena
    const length = sealed.length - TAG_LENGTH
    const context = this.#begin(cipher, key, nonce, sealed, associated, OPEN)
    const { final, control } = this.#evp
    const ok =
      control(context, SET_TAG, TAG_LENGTH, address + TEXT + length) === 1 &&
      this.#update(context, length, associated.length)
    if (!ok) throw new IpprivError('IPP_INTERNAL', 'libcrypto refused to decrypt')
    // If the tag does not verify, what was decrypted is nobody's.
    const isAuthentic = final(context, address + NONE, address + OUT_LENGTH) === 1
    const plaintext = isAuthentic ? bytes.slice(TEXT, TEXT + length) : undefined
    this.#forget(context, length)
    return plaintext
  }

  #begin(
    cipher: EspCipher,
    key: Uint8Array,
    nonce: Uint8Array,
    text: Uint8Array,
    associated: Uint8Array,
    direction: number,
  ): number {
    const { address, bytes } = this.#arena
    const context = this.#contextFor(cipher, direction)
    bytes.set(key, KEY)
    bytes.set(nonce, NONCE)
    bytes.set(associated, ASSOCIATED)
    bytes.set(text, TEXT)
    const done = this.#evp.init(context, 0, 0, address + KEY, address + NONCE, direction)
    bytes.fill(0, KEY, KEY + key.length)
    if (done !== 1) throw new IpprivError('IPP_INTERNAL', `libcrypto refused a key of ${cipher}`)
    return context
  }

  #update(context: number, length: number, associatedLength: number): boolean {
    const { address } = this.#arena
    const { update } = this.#evp
    return (
      update(context, 0, address + OUT_LENGTH, address + ASSOCIATED, associatedLength) === 1 &&
      update(context, address + TEXT, address + OUT_LENGTH, address + TEXT, length) === 1
    )
  }

  /** The context gets a key of zeros in place of the one it has, and `length` octets of plaintext go. */
  #forget(context: number, length: number): void {
    const { address, bytes } = this.#arena
    this.#evp.init(context, 0, 0, address + KEY, 0, -1)
    bytes.fill(0, TEXT, TEXT + length)
  }

  #contextFor(cipher: EspCipher, direction: number): number {
    const contexts = direction === SEAL ? this.#sealing : this.#opening
    const known = contexts[cipher]
    if (known !== undefined) return known
    const { newContext, init, aes128gcm, aes256gcm, chacha20poly1305 } = this.#evp
    const algorithm = {
      'aes-256-gcm-16': aes256gcm,
      'aes-128-gcm-16': aes128gcm,
      'chacha20-poly1305': chacha20poly1305,
    }[cipher]
    const context = newContext()
    // 12 octets of nonce and 16 of tag are the defaults of all three.
    if (init(context, algorithm, 0, 0, 0, direction) !== 1)
      throw new IpprivError('IPP_INTERNAL', `libcrypto has no ${cipher}`)
    contexts[cipher] = context
    return context
  }
}

const SEAL = 1
const OPEN = 0

// Where things stand in the memory of the AEADs.
const KEY = 0
const NONCE = 32
const OUT_LENGTH = 48
const NONE = 56
const ASSOCIATED = 72
const TEXT = ASSOCIATED + ROOM
