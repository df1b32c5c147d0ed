/**
 * Public keys of peers as they are pinned: Ed25519 as its 32 octets, every kind as SubjectPublicKeyInfo (RFC 5280
 * section 4.1.2.7, RFC 7670). Reading one checks everything but whether a point is on its curve: verifying does that.
 */
import { concat, fromHex } from '#base/bytes'
import { DER, type DerReader, encodeDer, encodeUnsigned, readDer } from '#crypto/der'

export type PublicKey = { readonly kind: 'ed25519'; readonly octets: Uint8Array } | EcdsaKey | RsaKey

export interface EcdsaKey {
  readonly kind: 'ecdsa'
  readonly curve: EcdsaCurve
  /** x | y, each as long as the field. */
  readonly point: Uint8Array
}

export interface RsaKey {
  readonly kind: 'rsa'
  /** Without leading zeros. */
  readonly modulus: Uint8Array
  readonly exponent: Uint8Array
}

export type EcdsaCurve = 'p256' | 'p384'

/** Octets of a coordinate, and of each half of a signature. */
export const FIELD_LENGTH: Readonly<Record<EcdsaCurve, number>> = { p256: 32, p384: 48 }

/** The key in `bytes`, or undefined where there is none that we accept. */
export function readPublicKey(bytes: Uint8Array): PublicKey | undefined {
  if (bytes.length === ED25519_LENGTH) return { kind: 'ed25519', octets: bytes }
  if (bytes.length > SPKI_MAX) return undefined
  return readDer(bytes, (der) => der.within(DER.SEQUENCE, readSpki))
}

/** SubjectPublicKeyInfo of a key, for those who take nothing else. */
export function encodeSpki(key: PublicKey): Uint8Array {
  const { ED25519, EC, RSA } = OID
  const algorithm = (...parts: readonly Uint8Array[]): Uint8Array => encodeDer(DER.SEQUENCE, ...parts)
  const bits = (octets: Uint8Array): Uint8Array => encodeDer(DER.BIT_STRING, Uint8Array.of(0), octets)
  switch (key.kind) {
    case 'ed25519':
      return encodeDer(DER.SEQUENCE, algorithm(encodeOid(ED25519)), bits(key.octets))
    case 'ecdsa': {
      const point = concat(Uint8Array.of(UNCOMPRESSED), key.point)
      const curve = encodeOid(key.curve === 'p256' ? OID.P256 : OID.P384)
      return encodeDer(DER.SEQUENCE, algorithm(encodeOid(EC), curve), bits(point))
    }
    case 'rsa': {
      const pair = encodeDer(DER.SEQUENCE, encodeUnsigned(key.modulus), encodeUnsigned(key.exponent))
      return encodeDer(DER.SEQUENCE, algorithm(encodeOid(RSA), encodeDer(DER.NULL)), bits(pair))
    }
  }
}

export const encodeOid = (oid: string): Uint8Array => encodeDer(DER.OID, fromHex(oid))

const ED25519_LENGTH = 32
/** RFC 5480 section 2.2. */
const UNCOMPRESSED = 4
/** More than RSA with 8192 bits takes. */
const SPKI_MAX = 1100
const RSA_BITS = { least: 2048, most: 8192 } as const

/** RFC 8410 section 3, RFC 5480 section 2.1.1, RFC 8017 appendix A.1. */
const OID = {
  ED25519: '2b6570',
  EC: '2a8648ce3d0201',
  P256: '2a8648ce3d030107',
  P384: '2b81040022',
  RSA: '2a864886f70d010101',
} as const

function readSpki(der: DerReader): PublicKey | undefined {
  const { algorithm, curve } = der.within(DER.SEQUENCE, (inner) => {
    const algorithm = inner.oid()
    if (algorithm === OID.EC) return { algorithm, curve: inner.oid() }
    // RFC 8017 appendix A.1: the parameters of RSA are NULL.
    if (algorithm === OID.RSA && inner.take(DER.NULL).length > 0) return { algorithm: '', curve: '' }
    return { algorithm, curve: '' }
  })
  const key = der.bitString()
  if (algorithm === OID.ED25519)
    return key.length === ED25519_LENGTH ? { kind: 'ed25519', octets: key } : undefined
  if (algorithm === OID.EC) return readPoint(key, curve)
  return algorithm === OID.RSA ? readRsa(key) : undefined
}

function readPoint(key: Uint8Array, curve: string): EcdsaKey | undefined {
  const name = curve === OID.P256 ? 'p256' : curve === OID.P384 ? 'p384' : undefined
  if (name === undefined || key[0] !== UNCOMPRESSED || key.length !== 1 + 2 * FIELD_LENGTH[name])
    return undefined
  return { kind: 'ecdsa', curve: name, point: key.subarray(1) }
}

function readRsa(key: Uint8Array): RsaKey | undefined {
  const pair = readDer(key, (der) =>
    der.within(DER.SEQUENCE, (inner) => ({ modulus: inner.unsigned(), exponent: inner.unsigned() })),
  )
  if (pair === undefined) return undefined
  const { modulus, exponent } = pair
  const bits = 8 * modulus.length - (modulus.length === 0 ? 0 : Math.clz32(modulus[0]!) - 24)
  if (bits < RSA_BITS.least || bits > RSA_BITS.most || !isOdd(modulus)) return undefined
  // An exponent of 1 would make every message its own signature; a long one would make verifying dear.
  const small = exponent.length === 0 || (exponent.length === 1 && exponent[0]! < 3)
  if (small || exponent.length > 4 || !isOdd(exponent)) return undefined
  return { kind: 'rsa', modulus, exponent }
}

const isOdd = (number: Uint8Array): boolean => ((number.at(-1) ?? 0) & 1) === 1
