/**
 * Who sends a request, before a single octet of its body is read: HTTP message signatures (RFC 9421) with Ed25519
 * (section 3.3.6) over method, path, and what the body will be (RFC 9530). Pure.
 *
 *     content-digest: sha-256=:<base64>:
 *     signature-input: sig=("@method" "@path" "content-digest" "content-length");keyid="<64 hex digits>";alg="ed25519"
 *     signature: sig=:<base64>:
 *
 *
 * A key that is not pinned itself says who certified it: `ippriv-certificate`, in the form of `certificate.ts`.
 * Authorities write exactly this to each other, and read nothing else. There is no date in it: a request that is
 * repeated says what was said before, and every document in it says its period.
 */
import { equalBytes, fromHex, toHex, utf8 } from '#base/bytes'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { formatCertificate, isCertified, parseCertificate, type Signer } from '#directory/certificate'

export interface Addressed {
  readonly method: 'GET' | 'POST'
  /** Absolute, without a query. */
  readonly path: string
}

/** A request as it arrived. */
export interface RequestHead extends Addressed {
  readonly header: (name: string) => string | undefined
}

export interface Sender {
  /** The pinned key. */
  readonly key: Uint8Array
  /** Octets of the body; 0: there is none. */
  readonly length: number
  /** Is this the body that was announced? */
  readonly announced: (body: Uint8Array) => boolean
}

/** The headers that name the sender. */
export function signRequest(
  { method, path }: Addressed,
  body: Uint8Array | undefined,
  { publicKey, privateKey, certificate }: Signer,
  crypto: CryptoProvider,
): Record<string, string> {
  const fields: Fields = { method, path }
  if (body !== undefined) {
    fields.digest = digestOf(body, crypto)
    fields.length = String(body.length)
  }
  const params = paramsOf(fields, toHex(publicKey))
  const value = crypto.ed25519Sign(privateKey, utf8(signatureBase(fields, params)))
  return {
    ...(fields.digest === undefined ? {} : { 'content-digest': fields.digest }),
    'signature-input': `sig=${params}`,
    signature: `sig=:${toBase64(value)}:`,
    ...(certificate === undefined ? {} : { [CERTIFICATE]: formatCertificate(publicKey, certificate) }),
  }
}

/**
 * Who sent it, one of `trusted`. Errors: IPP_DIR_BAD_SIGNATURE.
 */
export function verifyRequest(
  { method, path, header }: RequestHead,
  trusted: readonly Uint8Array[],
  crypto: CryptoProvider,
  now: UnixTime,
): Result<Sender> {
  const fields: Fields = { method, path }
  if (method === 'POST') {
    fields.digest = header('content-digest')
    fields.length = header('content-length')
  }
  const keyId = KEY_ID.exec(header('signature-input') ?? '')?.[1]
  const encoded = SIGNATURE.exec(header('signature') ?? '')?.[1]
  const announced = method === 'GET' || (DIGEST.test(fields.digest ?? '') && LENGTH.test(fields.length ?? ''))
  if (keyId === undefined || encoded === undefined || !announced) return unsigned()
  const params = paramsOf(fields, keyId)
  if (header('signature-input') !== `sig=${params}`) return unsigned()
  const claimed = fromHex(keyId)
  const certificate = parseCertificate(header(CERTIFICATE) ?? '', claimed)
  const pinned = certificate?.identity ?? claimed
  const key = trusted.find((one) => equalBytes(one, pinned))
  const certified = certificate === undefined || isCertified(claimed, certificate, now, crypto)
  const base = utf8(signatureBase(fields, params))
  if (key === undefined || !certified || !crypto.ed25519Verify(claimed, base, fromBase64(encoded)))
    return failure('IPP_DIR_BAD_SIGNATURE', 'request: there is no valid signature of a pinned key')
  return success({
    key,
    length: Number(fields.length ?? 0),
    announced: (body) => digestOf(body, crypto) === fields.digest && body.length === Number(fields.length),
  })
}

interface Fields extends Addressed {
  digest?: string | undefined
  length?: string | undefined
}

/** RFC 9421 section 2.5: one line for each component, the parameters last, no line end behind them. */
function signatureBase({ method, path, digest, length }: Fields, params: string): string {
  const lines = [`"@method": ${method}`, `"@path": ${path}`]
  if (digest !== undefined) lines.push(`"content-digest": ${digest}`, `"content-length": ${length}`)
  lines.push(`"@signature-params": ${params}`)
  return lines.join('\n')
}

const paramsOf = ({ digest }: Fields, keyId: string): string =>
  `("@method" "@path"${digest === undefined ? '' : ' "content-digest" "content-length"'})` +
  `;keyid="${keyId}";alg="ed25519"`

const digestOf = (body: Uint8Array, crypto: CryptoProvider): string =>
  `sha-256=:${toBase64(crypto.hash('sha256', body))}:`

const CERTIFICATE = 'ippriv-certificate'
const KEY_ID = /;keyid="([0-9a-f]{64})";/
const SIGNATURE = /^sig=:([A-Za-z0-9+/]{86}==):$/
const DIGEST = /^sha-256=:[A-Za-z0-9+/]{43}=:$/
const LENGTH = /^(0|[1-9][0-9]{0,8})$/

const unsigned = () => failure('IPP_DIR_BAD_SIGNATURE', 'request: it is not signed as authorities do')

const toBase64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes))
const fromBase64 = (text: string): Uint8Array => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))
