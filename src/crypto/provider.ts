import type { EcdsaKey, RsaKey } from '#crypto/public-key'
import type { EspCipher } from '#crypto/suites'

/**
 * The primitives the core needs, injected. `node.ts` (node:crypto, OpenSSL) is the default, `noble.ts` (audited
 * TypeScript) the fallback and the cross-check: a test runs every primitive through both.
 * All lengths are octets. Nothing here throws for bytes a peer sent: a failed check is `undefined` or `false`.
 */
export interface CryptoProvider {
  readonly name: string
  random(length: number): Uint8Array
  hmac(hash: HashName, key: Uint8Array, data: Uint8Array): Uint8Array
  hash(hash: HashName | 'sha1', data: Uint8Array): Uint8Array
  /** A fresh X25519 key pair (RFC 7748). */
  x25519Generate(): KeyPair
  /** Undefined when the result is all zero (RFC 7748 section 6.1) or the public value has a wrong length. */
  x25519Agree(privateKey: Uint8Array, peerPublicKey: Uint8Array): Uint8Array | undefined
  /** Generates and agrees at once, and keeps no private key: a responder's half. Undefined as with `x25519Agree`. */
  x25519Answer(peerPublicKey: Uint8Array): KeyAnswer | undefined
  /** A fresh ML-KEM-768 key pair (FIPS 203): the private key is its 64-octet seed, the public key has 1184 octets. */
  mlkem768Generate(): KeyPair
  /** Undefined when the public key has a wrong length or fails the modulus check (FIPS 203 section 7.2). */
  mlkem768Encapsulate(publicKey: Uint8Array): Encapsulation | undefined
  /**
   * Undefined when the ciphertext has a wrong length. One that was made for another key, or changed, gives a secret
   * that nobody else has (implicit rejection).
   */
  mlkem768Decapsulate(privateKey: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined
  /** Ed25519 (RFC 8032). `seed` is the 32-octet private key. */
  ed25519Generate(): KeyPair
  ed25519PublicKey(seed: Uint8Array): Uint8Array
  ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean
  /** A fresh key pair of P-256, for ECDH and for ECDSA: a scalar of 32 octets, and x | y (RFC 5903 section 7). */
  p256Generate(): KeyPair
  /** The x coordinate, 32 octets (RFC 5903 section 9). Undefined unless the public value is a point of the curve. */
  p256Agree(privateKey: Uint8Array, peerPublicKey: Uint8Array): Uint8Array | undefined
  /** As `x25519Answer`. */
  p256Answer(peerPublicKey: Uint8Array): KeyAnswer | undefined
  /** ECDSA with P-256: r | s. */
  ecdsaSign(key: KeyPair, hash: HashName, message: Uint8Array): Uint8Array
  /** `signature` is r | s. */
  ecdsaVerify(key: EcdsaKey, hash: HashName, message: Uint8Array, signature: Uint8Array): boolean
  /** RSASSA-PSS (RFC 8017 section 8.1.2) with MGF1 of the same hash, and a salt as long as its output. */
  rsaPssVerify(key: RsaKey, hash: HashName, message: Uint8Array, signature: Uint8Array): boolean
  /** An AEAD under one key; import once, use often. `key` excludes the salt. */
  aead(cipher: EspCipher, key: Uint8Array): Aead
}

export type HashName = 'sha256' | 'sha384' | 'sha512'

export const HASH_LENGTH: Readonly<Record<HashName, number>> = { sha256: 32, sha384: 48, sha512: 64 }

export interface KeyPair {
  readonly privateKey: Uint8Array
  readonly publicKey: Uint8Array
}

/** A public value for the peer, and the secret it makes with the peer's. */
export interface KeyAnswer {
  readonly publicKey: Uint8Array
  readonly sharedSecret: Uint8Array
}

/** 1088 octets for the owner of the key, and the 32 they stand for. */
export interface Encapsulation {
  readonly ciphertext: Uint8Array
  readonly sharedSecret: Uint8Array
}

/** FIPS 203 table 3, in octets. */
export const MLKEM768 = { publicKey: 1184, ciphertext: 1088, seed: 64 } as const

/** `nonce` is 12 octets: salt and explicit IV. The 16-octet tag stands behind the ciphertext. */
export interface Aead {
  seal(nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array
  /** Undefined when the tag does not verify. */
  open(nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined
  /** Forgets the key. */
  destroy(): void
}
