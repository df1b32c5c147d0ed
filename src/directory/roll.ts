/**
 * The two short messages between authorities, beside votes. Pure.
 *
 *     roll       {"version":1,"period":490896,"votes":["<digest>",...]}
 *     signature  {"version":1,"period":490896,"digest":"<of the body>","signature":"<128 hex digits>"}
 *
 * A roll says which votes its author had when voting ended; what one honest authority had then, all have before they
 * count. A signature is one over the consensus body, with the digest of what it signs: whoever signs two bodies in
 * one period has left proof.
 */
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { fromHex, toHex } from '#base/bytes'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { openSigned, type Signature, sealDocument } from '#directory/canonical'
import { identityOf, type Signer } from '#directory/certificate'
import { schemaProblem } from '#directory/schemas'

export interface Roll {
  readonly author: Uint8Array
  readonly period: number
  /** Digests, at most two of each author. */
  readonly votes: readonly string[]
  readonly text: string
}

export interface Endorsement {
  readonly author: Uint8Array
  readonly period: number
  /** SHA-256 of the consensus body, in hex. */
  readonly digest: string
  /** Over that body; not verified, for a reader may not have the body. */
  readonly signature: Signature
  readonly text: string
}

/** Errors: IPP_DIR_OVERSIZED. */
export function encodeRoll(
  { period, votes }: Pick<Roll, 'period' | 'votes'>,
  author: Signer,
  crypto: CryptoProvider,
): Result<Roll> {
  const body: RollBody = { version: 1, period, votes: votes.toSorted() }
  const sealed = sealDocument('roll', body, [author], crypto)
  return sealed.ok
    ? success({ author: identityOf(author), period, votes: body.votes, text: sealed.value })
    : sealed
}

/** Errors: those of `openSigned`. */
export function decodeRoll(
  document: Uint8Array,
  authors: readonly Uint8Array[],
  crypto: CryptoProvider,
  now?: UnixTime,
): Result<Roll> {
  const opened = openSigned('roll', document, authors, crypto, now)
  if (!opened.ok) return opened
  const { author, body } = opened.value
  if (!rollValidator.Check(body)) return malformed('roll', schemaProblem(rollValidator, body))
  const { period, votes } = body
  if (new Set(votes).size !== votes.length) return malformed('roll', 'a vote is named twice')
  return success({ author, period, votes, text: new TextDecoder().decode(document) })
}

/** Errors: IPP_DIR_OVERSIZED. */
export function encodeEndorsement(
  { period, digest, signature }: Omit<Endorsement, 'author' | 'text'>,
  author: Signer,
  crypto: CryptoProvider,
): Result<Endorsement> {
  const body: EndorsementBody = { version: 1, period, digest, signature: toHex(signature.value) }
  const sealed = sealDocument('signature', body, [author], crypto)
  return sealed.ok
    ? success({ author: identityOf(author), period, digest, signature, text: sealed.value })
    : sealed
}

/** Errors: those of `openSigned`. */
export function decodeEndorsement(
  document: Uint8Array,
  authors: readonly Uint8Array[],
  crypto: CryptoProvider,
  now?: UnixTime,
): Result<Endorsement> {
  const opened = openSigned('signature', document, authors, crypto, now)
  if (!opened.ok) return opened
  const { author, signature, body } = opened.value
  if (!endorsementValidator.Check(body))
    return malformed('signature', schemaProblem(endorsementValidator, body))
  const { period, digest } = body
  return success({
    author,
    period,
    digest,
    signature: { ...signature, value: fromHex(body.signature) },
    text: new TextDecoder().decode(document),
  })
}

const Period = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })
const Digest = Type.String({ pattern: '^[0-9a-f]{64}$' })

const RollBody = Type.Object(
  { version: Type.Literal(1), period: Period, votes: Type.Array(Digest, { maxItems: 64 }) },
  { additionalProperties: false },
)
type RollBody = Static<typeof RollBody>
const rollValidator = Compile(RollBody)

const EndorsementBody = Type.Object(
  {
    version: Type.Literal(1),
    period: Period,
    digest: Digest,
    signature: Type.String({ pattern: '^[0-9a-f]{128}$' }),
  },
  { additionalProperties: false },
)
type EndorsementBody = Static<typeof EndorsementBody>
const endorsementValidator = Compile(EndorsementBody)

const malformed = (kind: string, where: string) => failure('IPP_DIR_MALFORMED', `${kind}: ${where}`)
