/**
 * A signing key for a while: what an authority's identity key, which is kept offline, says of the key that its daemon
 * holds. Pure.
 *
 *     {"version":1,"signingKey":"<64 hex digits>","validAfter":1767225600,"validUntil":1775001600}
 *
 * The identity signs `ippriv certificate 1` LF and this. The line is never sent: each of its parts stands in the line of
 * the signature it explains (`canonical.ts`), so that a document needs nothing beside it but the pinned identities.
 */
import { concat, fromHex, toHex, utf8 } from '#base/bytes'
import type { UnixTime } from '#base/time'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import { CLOCK_TOLERANCE } from '#directory/documents'

export interface Certificate {
  /** Ed25519 public key by which the authority is pinned. */
  readonly identity: Uint8Array
  readonly validAfter: UnixTime
  readonly validUntil: UnixTime
  /** The identity's signature, 64 octets. */
  readonly value: Uint8Array
}

/** Who signs: a pinned key itself, or one that it certified. */
export interface Signer extends KeyPair {
  readonly certificate?: Certificate
}

/** The key by which a signer is pinned. */
export const identityOf = ({
  publicKey,
  certificate,
}: Pick<Signer, 'publicKey' | 'certificate'>): Uint8Array => certificate?.identity ?? publicKey

export const issueCertificate = (
  signingKey: Uint8Array,
  { validAfter, validUntil }: Pick<Certificate, 'validAfter' | 'validUntil'>,
  identity: KeyPair,
  crypto: CryptoProvider,
): Certificate => ({
  identity: identity.publicKey,
  validAfter,
  validUntil,
  value: crypto.ed25519Sign(identity.privateKey, signedBytes(signingKey, { validAfter, validUntil })),
})

/** Does the identity say so, of this key and of now? */
export const isCertified = (
  signingKey: Uint8Array,
  certificate: Certificate,
  now: UnixTime,
  crypto: CryptoProvider,
): boolean =>
  now + CLOCK_TOLERANCE >= certificate.validAfter &&
  now < certificate.validUntil &&
  crypto.ed25519Verify(certificate.identity, signedBytes(signingKey, certificate), certificate.value)

const DAY = 86_400
/** Seconds: time enough for somebody to fetch the key that is kept offline. */
const NOTICE = 14 * DAY

/** From when on its owner should make another: two weeks before the end, or a third of a short life. */
export const noticeOf = ({
  validAfter,
  validUntil,
}: Pick<Certificate, 'validAfter' | 'validUntil'>): UnixTime =>
  (validUntil - Math.min(NOTICE, Math.floor((validUntil - validAfter) / 3))) as UnixTime

/** One line, as it is kept beside a signing key and sent with a request. */
export const formatCertificate = (
  signingKey: Uint8Array,
  { identity, validAfter, validUntil, value }: Certificate,
): string =>
  `{"identity":"${toHex(identity)}","signingKey":"${toHex(signingKey)}",` +
  `"validAfter":${validAfter},"validUntil":${validUntil},"signature":"${toHex(value)}"}`

/** Undefined: no certificate of this key. It is not verified here. */
export function parseCertificate(line: string, signingKey: Uint8Array): Certificate | undefined {
  const match = LINE.exec(line)
  if (match === null || match[2] !== toHex(signingKey)) return undefined
  return {
    identity: fromHex(match[1]!),
    validAfter: Number(match[3]) as UnixTime,
    validUntil: Number(match[4]) as UnixTime,
    value: fromHex(match[5]!),
  }
}

const LINE =
  /^\{"identity":"([0-9a-f]{64})","signingKey":"([0-9a-f]{64})","validAfter":(0|[1-9]\d{0,11}),"validUntil":([1-9]\d{0,11}),"signature":"([0-9a-f]{128})"\}$/

function signedBytes(
  signingKey: Uint8Array,
  { validAfter, validUntil }: Pick<Certificate, 'validAfter' | 'validUntil'>,
): Uint8Array {
  const body = JSON.stringify({ version: 1, signingKey: toHex(signingKey), validAfter, validUntil })
  return concat(utf8('ippriv certificate 1\n'), utf8(body))
}
