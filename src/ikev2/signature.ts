/**
 * Digital signatures in AUTH (RFC 7427 section 3): an AlgorithmIdentifier in DER, with its length before it, and then
 * the signature in the form of its algorithm.
 *
 *     length (1) | AlgorithmIdentifier | signature
 *
 * Accepted are Ed25519 (RFC 8420), ECDSA with SHA-2 and RSASSA-PSS with SHA-2 (RFC 7427 appendix A). SHA-1, DSA and
 * RSASSA-PKCS1-v1_5 are not: the first two are weak, and the last has a history of verifiers that were too kind.
 */
import { concat, fromHex } from '#base/bytes'
import { DER, type DerReader, readDer } from '#crypto/der'
import { ecdsaFromDer, ecdsaToDer } from '#crypto/ecdsa'
import { type CryptoProvider, HASH_LENGTH, type HashName, type KeyPair } from '#crypto/provider'
import { type PublicKey, readPublicKey } from '#crypto/public-key'
import { HASH_ALGORITHM } from '#ikev2/numbers'

/** What we announce: all we verify (RFC 7427 section 4, RFC 8420 section 3). */
export const VERIFIED_HASHES: readonly number[] = [
  HASH_ALGORITHM.number.SHA2_256,
  HASH_ALGORITHM.number.SHA2_384,
  HASH_ALGORITHM.number.SHA2_512,
  HASH_ALGORITHM.number.IDENTITY,
]

/** A key we sign with. Of the second only where the peer does not take the first. */
export interface SigningKeys {
  /** The 32-octet seed. */
  readonly privateKey: Uint8Array
  /** P-256. */
  readonly ecdsa?: KeyPair
}

/**
 * AUTH data over `octets`, or undefined when the peer announced nothing that we could make: it must know the hash, and
 * `takes` the AlgorithmIdentifier.
 */
export function signAuth(
  crypto: CryptoProvider,
  keys: SigningKeys,
  peerHashes: ReadonlySet<number>,
  takes: (identifier: Uint8Array) => boolean,
  octets: Uint8Array,
): Uint8Array | undefined {
  if (peerHashes.has(HASH_ALGORITHM.number.IDENTITY) && takes(ED25519))
    return withAlgorithm(ED25519, crypto.ed25519Sign(keys.privateKey, octets))
  const ours = ECDSA.find(({ announced, identifier }) => peerHashes.has(announced) && takes(identifier))
  if (keys.ecdsa === undefined || ours === undefined) return undefined
  return withAlgorithm(ours.identifier, ecdsaToDer(crypto.ecdsaSign(keys.ecdsa, ours.hash, octets)))
}

/** Why `data` is no signature over `octets` by the pinned key; undefined: it is one. */
export function signatureFault(
  crypto: CryptoProvider,
  pinned: Uint8Array,
  octets: Uint8Array,
  data: Uint8Array,
): string | undefined {
  const key = readPublicKey(pinned)
  if (key === undefined) return 'the pinned key is none that we can use'
  const [length = 0] = data
  const algorithm = readDer(data.subarray(1, 1 + length), readAlgorithm)
  if (1 + length > data.length || algorithm === undefined) return 'the signature algorithm is not acceptable'
  if (algorithm.kind !== key.kind) return 'the signature is not of the kind of the pinned key'
  const verified = verifies(crypto, key, algorithm, octets, data.subarray(1 + length))
  return verified ? undefined : 'the signature does not verify under the pinned key'
}

type Algorithm =
  | { readonly kind: 'ed25519' }
  | { readonly kind: 'ecdsa'; readonly hash: HashName }
  | { readonly kind: 'rsa'; readonly hash: HashName }

function verifies(
  crypto: CryptoProvider,
  key: PublicKey,
  algorithm: Algorithm,
  octets: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (key.kind === 'ed25519') return crypto.ed25519Verify(key.octets, octets, signature)
  if (algorithm.kind === 'ed25519') return false
  if (key.kind === 'rsa') return crypto.rsaPssVerify(key, algorithm.hash, octets, signature)
  const raw = ecdsaFromDer(key.curve, signature)
  return raw !== undefined && crypto.ecdsaVerify(key, algorithm.hash, octets, raw)
}

// ---------------------------------------------------------------------------------------------- identifiers

/** RFC 8420 appendix A; RFC 7427 appendix A.3 and A.4; RFC 4055 section 2.1. */
const OID = {
  ED25519: '2b6570',
  RSASSA_PSS: '2a864886f70d01010a',
  MGF1: '2a864886f70d010108',
} as const

const ED25519 = fromHex('300506032b6570')

const ECDSA = [
  { hash: 'sha256', announced: HASH_ALGORITHM.number.SHA2_256, oid: '2a8648ce3d040302' },
  { hash: 'sha384', announced: HASH_ALGORITHM.number.SHA2_384, oid: '2a8648ce3d040303' },
  { hash: 'sha512', announced: HASH_ALGORITHM.number.SHA2_512, oid: '2a8648ce3d040304' },
].map(({ hash, oid, announced }) => {
  return { hash: hash as HashName, oid, announced, identifier: fromHex(`300a0608${oid}`) }
})

/** AlgorithmIdentifiers as they are announced (RFC 9593); of RSASSA-PSS the form of RFC 7427 appendix A.4.3. */
export const SIGNATURE_ALGORITHMS = {
  ed25519: ED25519,
  ecdsa256: ECDSA[0]!.identifier,
  ecdsa384: ECDSA[1]!.identifier,
  ecdsa512: ECDSA[2]!.identifier,
  pss256: fromHex(
    '304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d0609' +
      '6086480165030402010500a203020120',
  ),
} as const

const HASH_OF_OID: ReadonlyMap<string, HashName> = new Map([
  ['608648016503040201', 'sha256'],
  ['608648016503040202', 'sha384'],
  ['608648016503040203', 'sha512'],
])

const withAlgorithm = (identifier: Uint8Array, signature: Uint8Array): Uint8Array =>
  concat(Uint8Array.of(identifier.length), identifier, signature)

function readAlgorithm(der: DerReader): Algorithm | undefined {
  return der.within(DER.SEQUENCE, (inner): Algorithm | undefined => {
    const oid = inner.oid()
    if (oid === OID.ED25519) return { kind: 'ed25519' }
    if (oid === OID.RSASSA_PSS) return inner.within(DER.SEQUENCE, readPss)
    const ecdsa = ECDSA.find((each) => each.oid === oid)
    if (ecdsa !== undefined) return { kind: 'ecdsa', hash: ecdsa.hash }
    inner.rest()
    return undefined
  })
}

/** RSASSA-PSS-params (RFC 4055 section 3.1). What is absent means SHA-1, which is refused. */
function readPss(der: DerReader): Algorithm | undefined {
  const hash = der.optional(DER.context(0), readHash)
  const mask = der.optional(DER.context(1), (tagged) =>
    tagged.within(DER.SEQUENCE, (mgf) => (mgf.oid() === OID.MGF1 ? readHash(mgf) : void mgf.rest())),
  )
  const salt = der.optional(DER.context(2), (tagged) => tagged.unsigned())
  const trailer = der.optional(DER.context(3), (tagged) => tagged.unsigned())
  if (hash === undefined || mask !== hash) return undefined
  if (salt?.length !== 1 || salt[0] !== HASH_LENGTH[hash]) return undefined
  return trailer === undefined || (trailer.length === 1 && trailer[0] === 1)
    ? { kind: 'rsa', hash }
    : undefined
}

/** RFC 4055 section 2.1: the parameters are NULL, or absent. */
function readHash(der: DerReader): HashName | undefined {
  return der.within(DER.SEQUENCE, (inner) => {
    const hash = HASH_OF_OID.get(inner.oid())
    if (inner.remaining > 0 && inner.take(DER.NULL).length > 0) return undefined
    return hash
  })
}
