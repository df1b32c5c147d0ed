/** The twin of `node.ts` in audited TypeScript: a fallback, and the other half of the cross-check. */

import { gcm } from '@noble/ciphers/aes.js'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha1 } from '@noble/hashes/legacy.js'
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'
import { randomBytes } from '@noble/hashes/utils.js'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { wipe } from '#base/bytes'
import { type Aead, type CryptoProvider, MLKEM768 } from '#crypto/provider'
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

  aead: (cipher, key) => new NobleAead(cipher, key),
}

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
