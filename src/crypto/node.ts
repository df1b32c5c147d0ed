/** The default provider: node:crypto, which is OpenSSL. */

import {
  constants,
  createCipheriv,
  createDecipheriv,
  createECDH,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  decapsulate,
  diffieHellman,
  hash as digest,
  encapsulate,
  generateKeyPairSync,
  generateKeySync,
  type KeyObject,
  randomFillSync,
  sign,
  verify,
} from 'node:crypto'
import { concat, wipe } from '#base/bytes'
import { hmacOf } from '#crypto/hmac'
import {
  type Aead,
  type CryptoProvider,
  HASH_LENGTH,
  type HashName,
  type KeyPair,
  MLKEM768,
} from '#crypto/provider'
import { type EcdsaCurve, FIELD_LENGTH } from '#crypto/public-key'
import { RandomPool } from '#crypto/random-pool'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'

const randomPool = new RandomPool((out) => randomFillSync(out))

export const nodeCrypto: CryptoProvider = {
  name: 'node',

  random: (length) => randomPool.take(length),

  hmac: hmacOf((hash, data) => digest(hash, data, 'buffer')),

  hash: publicHash,

  x25519Generate: () => exportPair(generateKeyPairSync('x25519')),

  x25519Agree: (privateKey, peerPublicKey) => x25519(privateKeyOf('x25519', privateKey), peerPublicKey),

  x25519Answer(peerPublicKey) {
    const { privateKey, publicKey } = generateKeyPairSync('x25519')
    const sharedSecret = x25519(privateKey, peerPublicKey)
    return sharedSecret && { publicKey: rawPublicKey(publicKey), sharedSecret }
  },

  mlkem768Generate() {
    const { privateKey, publicKey } = generateKeyPairSync('ml-kem-768')
    return {
      privateKey: plain(privateKey.export({ format: 'raw-seed' })),
      publicKey: rawPublicKey(publicKey),
    }
  },

  mlkem768Encapsulate(publicKey) {
    if (publicKey.length !== MLKEM768.publicKey) return undefined
    try {
      const { sharedKey, ciphertext } = encapsulate(publicKeyOf('ml-kem-768', publicKey))
      return { ciphertext: plain(ciphertext), sharedSecret: plain(sharedKey) }
    } catch {
      // A coefficient that is not below the modulus.
      return undefined
    }
  },

  mlkem768Decapsulate(privateKey, ciphertext) {
    if (ciphertext.length !== MLKEM768.ciphertext) return undefined
    const key = createPrivateKey({
      key: bufferOf(privateKey),
      format: 'raw-seed',
      asymmetricKeyType: 'ml-kem-768',
    })
    return plain(decapsulate(key, ciphertext))
  },

  ed25519Generate: () => exportPair(generateKeyPairSync('ed25519')),

  ed25519PublicKey: (seed) => rawPublicKey(createPublicKey(privateKeyOf('ed25519', seed))),

  ed25519Sign: (seed, message) => plain(sign(null, message, signingKey(seed))),

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

  p256Answer(peerPublicKey) {
    const { privateKey, publicKey } = nodeCrypto.p256Generate()
    const sharedSecret = nodeCrypto.p256Agree(privateKey, peerPublicKey)
    wipe(privateKey)
    return sharedSecret && { publicKey, sharedSecret }
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

/** By way of a string, which Node makes three times as fast as a buffer, and which cannot be wiped. */
function publicHash(hash: HashName | 'sha1', data: Uint8Array): Uint8Array {
  const text = digest(hash, data, 'binary')
  const octets = new Uint8Array(text.length)
  for (let i = 0; i < octets.length; i++) octets[i] = text.charCodeAt(i)
  return octets
}

const RAW_KEY_LENGTH = 32
const SIGNATURE_LENGTH = 64

class NodeAead implements Aead {
  readonly #algorithm: 'aes-256-gcm' | 'aes-128-gcm' | 'chacha20-poly1305'
  #key: KeyObject
  readonly #icvLength: number
  readonly #options: { readonly authTagLength: number }

  constructor(cipher: EspCipher, key: Uint8Array) {
    const { keyLength, icvLength } = ESP_CIPHERS[cipher]
    if (key.length !== keyLength)
      throw new RangeError(`a key of ${cipher} has ${keyLength} octets, not ${key.length}`)
    this.#algorithm = ALGORITHMS[cipher]
    this.#key = createSecretKey(key)
    this.#icvLength = icvLength
    this.#options = { authTagLength: icvLength }
  }

  seal(nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    const cipher = createCipheriv(this.#algorithm as 'aes-256-gcm', this.#key, nonce, this.#options)
    cipher.setAAD(associated)
    const sealed = cipher.update(plaintext)
    // Of a stream cipher nothing is left.
    cipher.final()
    return concat(sealed, cipher.getAuthTag())
  }

  open(nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    const length = sealed.length - this.#icvLength
    if (length < 0) return undefined
    const decipher = createDecipheriv(this.#algorithm as 'aes-256-gcm', this.#key, nonce, this.#options)
    decipher.setAuthTag(sealed.subarray(length))
    decipher.setAAD(associated)
    const plaintext = decipher.update(sealed.subarray(0, length))
    try {
      decipher.final()
      return new Uint8Array(plaintext.buffer, plaintext.byteOffset, plaintext.length)
    } catch {
      // The tag does not verify: what was decrypted so far is nobody's.
      wipe(plaintext)
      return undefined
    }
  }

  /** OpenSSL clears the key when the object goes. Whatever is still sealed is for nobody. */
  destroy(): void {
    this.#key = NOBODYS_KEYS.get(this.#key.symmetricKeySize!)!
  }
}

const NOBODYS_KEYS: ReadonlyMap<number, KeyObject> = new Map(
  [16, 32].map((length) => [length, generateKeySync('aes', { length: 8 * length })]),
)

const ALGORITHMS = {
  'aes-256-gcm-16': 'aes-256-gcm',
  'aes-128-gcm-16': 'aes-128-gcm',
  'chacha20-poly1305': 'chacha20-poly1305',
} as const satisfies Record<EspCipher, string>

type Curve = 'x25519' | 'ed25519'

function x25519(privateKey: KeyObject, peerPublicKey: Uint8Array): Uint8Array | undefined {
  if (peerPublicKey.length !== RAW_KEY_LENGTH) return undefined
  try {
    const secret = diffieHellman({ privateKey, publicKey: publicKeyOf('x25519', peerPublicKey) })
    return secret.every((octet) => octet === 0) ? undefined : plain(secret)
  } catch {
    // OpenSSL refuses low-order points itself: the all-zero result never reaches us.
    return undefined
  }
}

/** Making the object takes longer than signing with it, and a long-term key stays in one array while it is used. */
const signingKeys = new WeakMap<Uint8Array, KeyObject>()

function signingKey(seed: Uint8Array): KeyObject {
  const known = signingKeys.get(seed)
  if (known !== undefined) return known
  const key = privateKeyOf('ed25519', seed)
  signingKeys.set(seed, key)
  return key
}

// The raw forms take no detour through DER, whose decoder in OpenSSL 3 is slower than the arithmetic.
function privateKeyOf(curve: Curve, raw: Uint8Array): KeyObject {
  return createPrivateKey({ key: bufferOf(raw), format: 'raw-private', asymmetricKeyType: curve })
}

function publicKeyOf(kind: Curve | 'ml-kem-768', raw: Uint8Array): KeyObject {
  return createPublicKey({ key: bufferOf(raw), format: 'raw-public', asymmetricKeyType: kind })
}

const rawPublicKey = (key: KeyObject): Uint8Array => plain(key.export({ format: 'raw-public' }))

const exportPair = ({ privateKey, publicKey }: { privateKey: KeyObject; publicKey: KeyObject }): KeyPair => ({
  privateKey: plain(privateKey.export({ format: 'raw-private' })),
  publicKey: rawPublicKey(publicKey),
})

function ecJwk(curve: EcdsaCurve, point: Uint8Array) {
  const half = FIELD_LENGTH[curve]
  const [x, y] = [base64url(point.subarray(0, half)), base64url(point.subarray(half))]
  return { kty: 'EC', crv: curve === 'p256' ? 'P-256' : 'P-384', x, y }
}

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')

/** The same octets, as the key functions want them. */
const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)

/** A plain Uint8Array of its own: Buffers share pooled memory and compare unequal to Uint8Arrays. */
const plain = (buffer: Uint8Array): Uint8Array => new Uint8Array(buffer)
