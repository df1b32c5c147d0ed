/** The default provider: node:crypto, which is OpenSSL. */

import {
  constants,
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  decapsulate,
  diffieHellman,
  encapsulate,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from 'node:crypto'
import { concat, fromHex, wipe } from '#base/bytes'
import { type Aead, type CryptoProvider, HASH_LENGTH, type KeyPair, MLKEM768 } from '#crypto/provider'
import { type EcdsaCurve, FIELD_LENGTH } from '#crypto/public-key'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'

export const nodeCrypto: CryptoProvider = {
  name: 'node',

  random: (length) => plain(randomBytes(length)),

  hmac: (hash, key, data) => plain(createHmac(hash, key).update(data).digest()),

  hash: (hash, data) => plain(createHash(hash).update(data).digest()),

  x25519Generate: () => exportPair(generateKeyPairSync('x25519')),

  x25519Agree(privateKey, peerPublicKey) {
    if (peerPublicKey.length !== RAW_KEY_LENGTH) return undefined
    try {
      const secret = diffieHellman({
        privateKey: privateKeyOf('x25519', privateKey),
        publicKey: publicKeyOf('x25519', peerPublicKey),
      })
      return secret.every((octet) => octet === 0) ? undefined : plain(secret)
    } catch {
      // OpenSSL refuses low-order points itself: the all-zero result never reaches us.
      return undefined
    }
  },

  mlkem768Generate() {
    const { privateKey, publicKey } = generateKeyPairSync('ml-kem-768')
    const der = privateKey.export({ format: 'der', type: 'pkcs8' })
    const seed = new Uint8Array(der.subarray(MLKEM_SEED_AT, MLKEM_SEED_AT + MLKEM768.seed))
    wipe(der)
    const raw = plain(publicKey.export({ format: 'der', type: 'spki' })).slice(-MLKEM768.publicKey)
    return { privateKey: seed, publicKey: raw }
  },

  mlkem768Encapsulate(publicKey) {
    if (publicKey.length !== MLKEM768.publicKey) return undefined
    try {
      const key = Buffer.from(concat(MLKEM_SPKI_PREFIX, publicKey))
      const { sharedKey, ciphertext } = encapsulate(createPublicKey({ key, format: 'der', type: 'spki' }))
      return { ciphertext: plain(ciphertext), sharedSecret: plain(sharedKey) }
    } catch {
      // A coefficient that is not below the modulus.
      return undefined
    }
  },

  mlkem768Decapsulate(privateKey, ciphertext) {
    if (ciphertext.length !== MLKEM768.ciphertext) return undefined
    const der = concat(MLKEM_PKCS8_PREFIX, privateKey)
    const key = createPrivateKey({ key: Buffer.from(der.buffer), format: 'der', type: 'pkcs8' })
    wipe(der)
    return plain(decapsulate(key, ciphertext))
  },

  ed25519Generate: () => exportPair(generateKeyPairSync('ed25519')),

  ed25519PublicKey: (seed) => rawPublicKey(createPublicKey(privateKeyOf('ed25519', seed))),

  ed25519Sign: (seed, message) => plain(sign(null, message, privateKeyOf('ed25519', seed))),

  ed25519Verify(publicKey, message, signature) {
    if (publicKey.length !== RAW_KEY_LENGTH || signature.length !== SIGNATURE_LENGTH) return false
    try {
      return verify(null, message, publicKeyOf('ed25519', publicKey), signature)
    } catch {
      // A public value that is no point on the curve.
      return false
    }
  },

  p256Generate() {
    const ecdh = createECDH('prime256v1')
    const publicKey = plain(ecdh.generateKeys()).slice(1)
    // OpenSSL leaves leading zeros away.
    const scalar = ecdh.getPrivateKey()
    const privateKey = new Uint8Array(FIELD_LENGTH.p256)
    privateKey.set(scalar, privateKey.length - scalar.length)
    wipe(scalar)
    return { privateKey, publicKey }
  },

  p256Agree(privateKey, peerPublicKey) {
    if (peerPublicKey.length !== 2 * FIELD_LENGTH.p256) return undefined
    try {
      const ecdh = createECDH('prime256v1')
      ecdh.setPrivateKey(privateKey)
      return plain(ecdh.computeSecret(concat(Uint8Array.of(4), peerPublicKey)))
    } catch {
      // A public value that is no point on the curve.
      return undefined
    }
  },

  ecdsaSign(key, hash, message) {
    const jwk = { ...ecJwk('p256', key.publicKey), d: base64url(key.privateKey) }
    const privateKey = createPrivateKey({ key: jwk, format: 'jwk' })
    return plain(sign(hash, message, { key: privateKey, dsaEncoding: 'ieee-p1363' }))
  },

  ecdsaVerify({ curve, point }, hash, message, signature) {
    if (signature.length !== 2 * FIELD_LENGTH[curve]) return false
    try {
      const key = createPublicKey({ key: ecJwk(curve, point), format: 'jwk' })
      return verify(hash, message, { key, dsaEncoding: 'ieee-p1363' }, signature)
    } catch {
      // A public value that is no point on the curve.
      return false
    }
  },

  rsaPssVerify({ modulus, exponent }, hash, message, signature) {
    if (signature.length !== modulus.length) return false
    try {
      const jwk = { kty: 'RSA', n: base64url(modulus), e: base64url(exponent) }
      const padding = constants.RSA_PKCS1_PSS_PADDING
      const key = createPublicKey({ key: jwk, format: 'jwk' })
      return verify(hash, message, { key, padding, saltLength: HASH_LENGTH[hash] }, signature)
    } catch {
      // A key that OpenSSL does not take.
      return false
    }
  },

  aead: (cipher, key) => new NodeAead(cipher, key),
}

const RAW_KEY_LENGTH = 32
const SIGNATURE_LENGTH = 64

type Curve = 'x25519' | 'ed25519'

// RFC 8410 section 7: everything of a PKCS #8 or SPKI structure that stands before the 32 octets of key.
const PKCS8_PREFIX: Record<Curve, Uint8Array> = {
  x25519: fromHex('302e020100300506032b656e04220420'),
  ed25519: fromHex('302e020100300506032b657004220420'),
}
const SPKI_PREFIX: Record<Curve, Uint8Array> = {
  x25519: fromHex('302a300506032b656e032100'),
  ed25519: fromHex('302a300506032b6570032100'),
}

// RFC 9935 sections 4 and 6. OpenSSL writes a private key as a sequence of seed and expanded key, and reads a bare seed.
const MLKEM_SPKI_PREFIX = fromHex('308204b2300b0609608648016503040402038204a100')
const MLKEM_PKCS8_PREFIX = fromHex('3054020100300b060960864801650304040204428040')
const MLKEM_SEED_AT = 30

class NodeAead implements Aead {
  readonly #algorithm: 'aes-256-gcm' | 'aes-128-gcm' | 'chacha20-poly1305'
  readonly #key: Uint8Array
  readonly #icvLength: number

  constructor(cipher: EspCipher, key: Uint8Array) {
    const { keyLength, icvLength } = ESP_CIPHERS[cipher]
    if (key.length !== keyLength)
      throw new RangeError(`a key of ${cipher} has ${keyLength} octets, not ${key.length}`)
    this.#algorithm = ALGORITHMS[cipher]
    this.#key = key.slice()
    this.#icvLength = icvLength
  }

  seal(nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    const cipher = createCipheriv(this.#algorithm as 'aes-256-gcm', this.#key, nonce, {
      authTagLength: this.#icvLength,
    })
    cipher.setAAD(associated, { plaintextLength: plaintext.length })
    return concat(cipher.update(plaintext), cipher.final(), cipher.getAuthTag())
  }

  open(nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    const length = sealed.length - this.#icvLength
    if (length < 0) return undefined
    const decipher = createDecipheriv(this.#algorithm as 'aes-256-gcm', this.#key, nonce, {
      authTagLength: this.#icvLength,
    })
    decipher.setAuthTag(sealed.subarray(length))
    decipher.setAAD(associated, { plaintextLength: length })
    const plaintext = decipher.update(sealed.subarray(0, length))
    try {
      return concat(plaintext, decipher.final())
    } catch {
      // The tag does not verify: what was decrypted so far is nobody's.
      wipe(plaintext)
      return undefined
    }
  }

  destroy(): void {
    wipe(this.#key)
  }
}

const ALGORITHMS = {
  'aes-256-gcm-16': 'aes-256-gcm',
  'aes-128-gcm-16': 'aes-128-gcm',
  'chacha20-poly1305': 'chacha20-poly1305',
} as const satisfies Record<EspCipher, string>

function privateKeyOf(curve: Curve, raw: Uint8Array): KeyObject {
  const der = concat(PKCS8_PREFIX[curve], raw)
  const key = createPrivateKey({ key: Buffer.from(der.buffer), format: 'der', type: 'pkcs8' })
  wipe(der)
  return key
}

function publicKeyOf(curve: Curve, raw: Uint8Array): KeyObject {
  return createPublicKey({
    key: Buffer.from(concat(SPKI_PREFIX[curve], raw)),
    format: 'der',
    type: 'spki',
  })
}

function rawPublicKey(key: KeyObject): Uint8Array {
  return plain(key.export({ format: 'der', type: 'spki' })).slice(-RAW_KEY_LENGTH)
}

function exportPair(pair: { privateKey: KeyObject; publicKey: KeyObject }): KeyPair {
  const der = pair.privateKey.export({ format: 'der', type: 'pkcs8' })
  const privateKey = new Uint8Array(der.subarray(-RAW_KEY_LENGTH))
  wipe(der)
  return { privateKey, publicKey: rawPublicKey(pair.publicKey) }
}

function ecJwk(curve: EcdsaCurve, point: Uint8Array) {
  const half = FIELD_LENGTH[curve]
  const [x, y] = [base64url(point.subarray(0, half)), base64url(point.subarray(half))]
  return { kty: 'EC', crv: curve === 'p256' ? 'P-256' : 'P-384', x, y }
}

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')

/** A plain Uint8Array of its own: Buffers share pooled memory and compare unequal to Uint8Arrays. */
const plain = (buffer: Uint8Array): Uint8Array => new Uint8Array(buffer)
