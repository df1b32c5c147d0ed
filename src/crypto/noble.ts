/** The twin of `node.ts` in audited TypeScript: a fallback, and the other half of the cross-check. */

import { gcm } from '@noble/ciphers/aes.js'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { p256, p384 } from '@noble/curves/nist.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha1 } from '@noble/hashes/legacy.js'
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'
import { bytesToHex, hexToBytes, randomBytes } from '@noble/hashes/utils.js'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { concat, equalBytes, wipe } from '#base/bytes'
import { type Aead, type CryptoProvider, HASH_LENGTH, type HashName, MLKEM768 } from '#crypto/provider'
import { FIELD_LENGTH, type RsaKey } from '#crypto/public-key'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'

export const nobleCrypto: CryptoProvider = {
  name: 'noble',

  random: (length) => randomBytes(length),

  hmac: (hash, key, data) => hmac(HASHES[hash], key, data),

  hash: (hash, data) => HASHES[hash](data),

  x25519Generate() {
    const { secretKey, publicKey } = x25519.keygen()
    return { privateKey: secretKey, publicKey }
  },

  x25519Agree(privateKey, peerPublicKey) {
    if (peerPublicKey.length !== 32) return undefined
    try {
      return x25519.getSharedSecret(privateKey, peerPublicKey)
    } catch {
      // noble throws on the all-zero result (RFC 7748 section 6.1).
      return undefined
    }
  },

  x25519Answer(peerPublicKey) {
    const { privateKey, publicKey } = nobleCrypto.x25519Generate()
    const sharedSecret = nobleCrypto.x25519Agree(privateKey, peerPublicKey)
    wipe(privateKey)
    return sharedSecret && { publicKey, sharedSecret }
  },

  mlkem768Generate() {
    const privateKey = randomBytes(MLKEM768.seed)
    const { secretKey, publicKey } = ml_kem768.keygen(privateKey)
    wipe(secretKey)
    return { privateKey, publicKey }
  },

  mlkem768Encapsulate(publicKey) {
    if (publicKey.length !== MLKEM768.publicKey) return undefined
    try {
      const { cipherText: ciphertext, sharedSecret } = ml_kem768.encapsulate(publicKey)
      return { ciphertext, sharedSecret }
    } catch {
      // A coefficient that is not below the modulus.
      return undefined
    }
  },

  mlkem768Decapsulate(privateKey, ciphertext) {
    if (ciphertext.length !== MLKEM768.ciphertext) return undefined
    const { secretKey } = ml_kem768.keygen(privateKey)
    const sharedSecret = ml_kem768.decapsulate(ciphertext, secretKey)
    wipe(secretKey)
    return sharedSecret
  },

  ed25519Generate() {
    const { secretKey, publicKey } = ed25519.keygen()
    return { privateKey: secretKey, publicKey }
  },

  ed25519PublicKey: (seed) => ed25519.getPublicKey(seed),

  ed25519Sign: (seed, message) => ed25519.sign(message, seed),

  ed25519Verify(publicKey, message, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false
    try {
      // Without ZIP 215: strict RFC 8032 encodings, as OpenSSL has them.
      return ed25519.verify(signature, message, publicKey, { zip215: false })
    } catch {
      // A public value or signature that is no point on the curve.
      return false
    }
  },

  p256Generate() {
    const privateKey = p256.utils.randomSecretKey()
    return { privateKey, publicKey: p256.getPublicKey(privateKey, false).slice(1) }
  },

  p256Agree(privateKey, peerPublicKey) {
    if (peerPublicKey.length !== 2 * FIELD_LENGTH.p256) return undefined
    try {
      return p256.getSharedSecret(privateKey, uncompressed(peerPublicKey)).slice(1, 33)
    } catch {
      // A public value that is no point on the curve.
      return undefined
    }
  },

  p256Answer(peerPublicKey) {
    const { privateKey, publicKey } = nobleCrypto.p256Generate()
    const sharedSecret = nobleCrypto.p256Agree(privateKey, peerPublicKey)
    wipe(privateKey)
    return sharedSecret && { publicKey, sharedSecret }
  },

  ecdsaSign: ({ privateKey }, hash, message) => p256.sign(HASHES[hash](message), privateKey, ANY_S),

  ecdsaVerify({ curve, point }, hash, message, signature) {
    if (signature.length !== 2 * FIELD_LENGTH[curve]) return false
    try {
      const digest = HASHES[hash](message)
      return (curve === 'p256' ? p256 : p384).verify(signature, digest, uncompressed(point), ANY_S)
    } catch {
      // A public value that is no point on the curve, or a half of the signature that is out of range.
      return false
    }
  },

  rsaPssVerify: (key, hash, message, signature) => rsaPssVerify(key, hash, message, signature),

  aead: (cipher, key) => new NobleAead(cipher, key),
}

/** We hash; and FIPS 186 has both signs of s. */
const ANY_S = { prehash: false, lowS: false } as const

const uncompressed = (point: Uint8Array): Uint8Array => concat(Uint8Array.of(4), point)

/** RFC 8017 sections 8.1.2 and 9.1.2, with everything public: no need for constant time. */
function rsaPssVerify(key: RsaKey, hash: HashName, message: Uint8Array, signature: Uint8Array): boolean {
  const { modulus, exponent } = key
  const n = toInteger(modulus)
  const s = toInteger(signature)
  if (signature.length !== modulus.length || s >= n) return false
  const emBits = n.toString(2).length - 1
  const emLength = Math.ceil(emBits / 8)
  const encoded = fromInteger(power(s, toInteger(exponent), n), modulus.length)
  if (encoded.subarray(0, modulus.length - emLength).some((octet) => octet !== 0)) return false
  const em = encoded.subarray(modulus.length - emLength)
  const length = HASH_LENGTH[hash]
  if (emLength < 2 * length + 2 || em.at(-1) !== 0xbc) return false
  const masked = em.subarray(0, emLength - length - 1)
  const h = em.subarray(emLength - length - 1, -1)
  const spare = 0xff >>> (8 * emLength - emBits)
  if ((masked[0]! & ~spare) !== 0) return false
  const db = mgf1(hash, h, masked.length).map((octet, i) => octet ^ masked[i]!)
  db[0]! &= spare
  const zeros = db.length - length - 1
  if (db[zeros] !== 1 || db.subarray(0, zeros).some((octet) => octet !== 0)) return false
  const digest = HASHES[hash](message)
  return equalBytes(HASHES[hash](concat(new Uint8Array(8), digest, db.subarray(zeros + 1))), h)
}

function mgf1(hash: HashName, seed: Uint8Array, length: number): Uint8Array {
  const blocks = Array.from({ length: Math.ceil(length / HASH_LENGTH[hash]) }, (_, i) =>
    HASHES[hash](concat(seed, Uint8Array.of(0, 0, i >> 8, i & 255))),
  )
  return concat(...blocks).subarray(0, length)
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n
  for (let bits = exponent, square = base; bits > 0n; bits >>= 1n, square = (square * square) % modulus)
    if (bits & 1n) result = (result * square) % modulus
  return result
}

const toInteger = (octets: Uint8Array): bigint => BigInt(`0x0${bytesToHex(octets)}`)
const fromInteger = (value: bigint, length: number): Uint8Array =>
  hexToBytes(value.toString(16).padStart(2 * length, '0'))

const HASHES = { sha1, sha256, sha384, sha512 }

class NobleAead implements Aead {
  readonly #cipher: typeof gcm | typeof chacha20poly1305
  readonly #key: Uint8Array

  constructor(cipher: EspCipher, key: Uint8Array) {
    const { keyLength } = ESP_CIPHERS[cipher]
    if (key.length !== keyLength)
      throw new RangeError(`a key of ${cipher} has ${keyLength} octets, not ${key.length}`)
    this.#cipher = cipher === 'chacha20-poly1305' ? chacha20poly1305 : gcm
    this.#key = key.slice()
  }

  seal(nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    return this.#cipher(this.#key, nonce, associated).encrypt(plaintext)
  }

  open(nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    if (sealed.length < 16) return undefined
    try {
      return this.#cipher(this.#key, nonce, associated).decrypt(sealed)
    } catch {
      // The tag does not verify.
      return undefined
    }
  }

  destroy(): void {
    wipe(this.#key)
  }
}
