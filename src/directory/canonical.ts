/**
 * The envelope of signed documents. Bytes are signed as they travel; nobody re-serialises to verify.
 *
 *     document  = body LF 1*( signature LF )
 *     body      = one JSON object, canonical (below)
 *     signature = {"key":"<64 hex digits>","signature":"<base64 of 64 octets>"}
 *               / {"key":...,"signature":...,"identity":"<64 hex digits>","validAfter":N,"validUntil":N,
 *                  "certificate":"<base64 of 64 octets>"}                       (certificate.ts; on one line)
 *
 * A signature is Ed25519 (RFC 8032) over `ippriv <kind> 1` LF body, without the LF behind the body: a
 * descriptor can never pass for a consensus.
 *
 * Every octet is printable ASCII (a subset of UTF-8): no NUL, no control sequence, no look-alike letter reaches
 * a log or a page. The body has one spelling per value: no white space outside strings, no escape that is not
 * needed, no key twice. Two parsers that disagree about duplicate keys are an attack; here there is nothing to
 * disagree about.
 */
import { concat, equalBytes, fromHex, toHex, utf8 } from '#base/bytes'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { type Certificate, isCertified, type Signer } from '#directory/certificate'

export type DocumentKind =
  | 'descriptor'
  | 'consensus'
  | 'vote'
  | 'roll'
  | 'signature'
  | 'bootstrap'
  | 'measurement'

export interface Signature {
  /** Ed25519 public key, 32 octets. */
  readonly key: Uint8Array
  /** 64 octets. */
  readonly value: Uint8Array
  /** Who is pinned, where that is not the key itself. Not verified yet. */
  readonly certificate?: Certificate
}

/** A document whose shape is right and whose signatures nobody has checked yet. */
export interface Envelope {
  readonly kind: DocumentKind
  readonly body: string
  /** Distinct keys. */
  readonly signatures: readonly Signature[]
}

interface Limits {
  readonly octets: number
  readonly signatures: number
}

export const DOCUMENT_LIMITS: Readonly<Record<DocumentKind, Limits>> = {
  // A descriptor speaks for one identity, so it has one signature.
  descriptor: { octets: 8 * 1024, signatures: 1 },
  // Room for several authorities with a threshold.
  consensus: { octets: 16 * 1024 * 1024, signatures: 16 },
  // What authorities say to each other, each for itself.
  vote: { octets: 16 * 1024 * 1024, signatures: 1 },
  roll: { octets: 8 * 1024, signatures: 1 },
  signature: { octets: 1024, signatures: 1 },
  // Those of the authorities before and after a change.
  bootstrap: { octets: 16 * 1024, signatures: 32 },
  measurement: { octets: 2 * 1024 * 1024, signatures: 1 },
}

/** Serialises and signs. The caller sees to it that strings in `body` are printable ASCII. */
export function sealDocument(
  kind: DocumentKind,
  body: object,
  signers: readonly Signer[],
  crypto: CryptoProvider,
): Result<string> {
  const line = JSON.stringify(body)
  return joinDocument(
    kind,
    line,
    signers.map((signer) => signBody(kind, line, signer, crypto)),
  )
}

/** One signature over a serialised body. */
export const signBody = (
  kind: DocumentKind,
  body: string,
  { publicKey, privateKey, certificate }: Signer,
  crypto: CryptoProvider,
): Signature => ({
  key: publicKey,
  value: crypto.ed25519Sign(privateKey, signedBytes(kind, body)),
  ...(certificate === undefined ? {} : { certificate }),
})

/** Is this a valid signature over the body, by the key it names? */
export const verifyBody = (
  kind: DocumentKind,
  body: string,
  { key, value }: Signature,
  crypto: CryptoProvider,
): boolean => crypto.ed25519Verify(key, signedBytes(kind, body), value)

/** A document out of its parts. Errors: IPP_DIR_OVERSIZED. */
export function joinDocument(
  kind: DocumentKind,
  body: string,
  signatures: readonly Signature[],
): Result<string> {
  const text = [body, ...signatures.map(formatSignature), ''].join('\n')
  return text.length > DOCUMENT_LIMITS[kind].octets ? oversized(kind, text.length) : success(text)
}

/**
 * Takes a document apart. Length is checked first, then every octet, then the signature lines; the body is not
 * parsed here, so that a caller can check a signature before it parses anything.
 * Errors: IPP_DIR_OVERSIZED, IPP_DIR_MALFORMED.
 */
export function openDocument(kind: DocumentKind, document: Uint8Array): Result<Envelope> {
  const limits = DOCUMENT_LIMITS[kind]
  if (document.length > limits.octets) return oversized(kind, document.length)
  for (let i = 0; i < document.length; i++) {
    const octet = document[i]!
    if (octet !== LF && (octet < 0x20 || octet > 0x7e))
      return malformed(`${kind}: octet ${i} is not printable ASCII`)
  }
  const text = new TextDecoder().decode(document)
  const bodyEnd = text.indexOf('\n')
  if (bodyEnd < 1) return malformed(`${kind}: there is no line with a body`)
  if (!text.endsWith('\n')) return malformed(`${kind}: the last line is not complete`)
  const lines = text.slice(bodyEnd + 1, -1).split('\n', limits.signatures + 1)
  const count = text.length === bodyEnd + 1 ? 0 : lines.length
  if (count < 1) return failure('IPP_DIR_BAD_SIGNATURE', `${kind}: there is no signature`)
  if (count > limits.signatures)
    return malformed(`${kind}: ${count} signatures, at most ${limits.signatures} are allowed`)
  const signatures: Signature[] = []
  const keys = new Set<string>()
  for (const [i, line] of lines.entries()) {
    const signature = parseSignature(line)
    if (signature === undefined) return malformed(`${kind}: signature ${i + 1} is not in the right form`)
    keys.add(toHex(signature.key))
    signatures.push(signature)
  }
  if (keys.size !== count) return malformed(`${kind}: one key signed twice`)
  return success({ kind, body: text.slice(0, bodyEnd), signatures })
}

/**
 * How many of the `trusted` keys have a valid signature on it, their own or of a key they certified for this moment.
 * Without `now` only their own count. Signatures of others do not matter.
 */
export function countSignatures(
  envelope: Envelope,
  trusted: readonly Uint8Array[],
  crypto: CryptoProvider,
  now?: UnixTime,
): number {
  const message = signedBytes(envelope.kind, envelope.body)
  const signers = new Set<string>()
  for (const { key, value, certificate } of envelope.signatures) {
    const pinned = certificate?.identity ?? key
    if (!trusted.some((k) => equalBytes(k, pinned))) continue
    if (certificate !== undefined && (now === undefined || !isCertified(key, certificate, now, crypto)))
      continue
    if (crypto.ed25519Verify(key, message, value)) signers.add(toHex(pinned))
  }
  return signers.size
}

/**
 * Opens a document that one of `authors` signed alone, and gives the author's pinned key and the parsed body.
 * Errors: IPP_DIR_OVERSIZED, IPP_DIR_MALFORMED, IPP_DIR_BAD_SIGNATURE.
 */
export function openSigned(
  kind: DocumentKind,
  document: Uint8Array,
  authors: readonly Uint8Array[],
  crypto: CryptoProvider,
  now?: UnixTime,
): Result<{ readonly author: Uint8Array; readonly signature: Signature; readonly body: unknown }> {
  const envelope = openDocument(kind, document)
  if (!envelope.ok) return envelope
  const signature = envelope.value.signatures[0]!
  if (countSignatures(envelope.value, authors, crypto, now) !== 1)
    return failure('IPP_DIR_BAD_SIGNATURE', `${kind}: there is no valid signature of a pinned key`)
  const body = parseBody(envelope.value)
  const author = signature.certificate?.identity ?? signature.key
  return body.ok ? success({ author, signature, body: body.value }) : body
}

/** Parses the body, and demands its one canonical spelling. Errors: IPP_DIR_MALFORMED. */
export function parseBody(envelope: Envelope): Result<unknown> {
  let value: unknown
  try {
    value = JSON.parse(envelope.body)
  } catch {
    // The engine's message quotes what a stranger sent: say less.
    return malformed(`${envelope.kind}: the body is not JSON`)
  }
  if (!isCanonical(value, envelope.body))
    return malformed(`${envelope.kind}: the body is not in canonical form`)
  return success(value)
}

const LF = 0x0a
const SIGNATURE =
  /^\{"key":"([0-9a-f]{64})","signature":"([A-Za-z0-9+/]{86}==)"(?:,"identity":"([0-9a-f]{64})","validAfter":(0|[1-9]\d{0,11}),"validUntil":([1-9]\d{0,11}),"certificate":"([A-Za-z0-9+/]{86}==)")?\}$/

const signedBytes = (kind: DocumentKind, body: string): Uint8Array =>
  concat(utf8(`ippriv ${kind} 1\n`), utf8(body))

/** One line of a document, without its end. */
export function formatSignature({ key, value, certificate }: Signature): string {
  const own = `{"key":"${toHex(key)}","signature":"${toBase64(value)}"`
  if (certificate === undefined) return `${own}}`
  const { identity, validAfter, validUntil, value: proof } = certificate
  const times = `"validAfter":${validAfter},"validUntil":${validUntil}`
  return `${own},"identity":"${toHex(identity)}",${times},"certificate":"${toBase64(proof)}"}`
}

function parseSignature(line: string): Signature | undefined {
  const match = SIGNATURE.exec(line)
  if (match === null) return undefined
  const [, key, encoded, identity, validAfter, validUntil, proof] = match
  const value = fromBase64(encoded!)
  if (value === undefined) return undefined
  if (identity === undefined) return { key: fromHex(key!), value }
  const certified = fromBase64(proof!)
  if (certified === undefined) return undefined
  const certificate: Certificate = {
    identity: fromHex(identity),
    validAfter: Number(validAfter) as UnixTime,
    validUntil: Number(validUntil) as UnixTime,
    value: certified,
  }
  return { key: fromHex(key!), value, certificate }
}

/** The last digit carries four bits that decode to nothing: only zeroes may stand there. */
function fromBase64(text: string): Uint8Array | undefined {
  const value = Uint8Array.from(atob(text), (c) => c.charCodeAt(0))
  return toBase64(value) === text ? value : undefined
}

/** JSON.stringify recurses: a document nested deeper than its stack can hold is not one of ours. */
function isCanonical(value: unknown, body: string): boolean {
  try {
    return JSON.stringify(value) === body
  } catch (error) {
    if (error instanceof RangeError) return false
    throw error
  }
}

const toBase64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes))
const malformed = (where: string) => failure('IPP_DIR_MALFORMED', where)
const oversized = (kind: DocumentKind, octets: number) =>
  failure(
    'IPP_DIR_OVERSIZED',
    `${kind} of ${octets} octets, at most ${DOCUMENT_LIMITS[kind].octets} are allowed`,
  )
