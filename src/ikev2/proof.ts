/**
 * The proofs inside IKE_AUTH (RFC 7296 section 2.15): Ed25519 signatures (RFC 7427, RFC 8420) and NULL
 * authentication (RFC 7619).
 *
 *     signature   length (1) | AlgorithmIdentifier | signature       over the octets that the prover signs
 *     NULL        prf(prf(SK_p, "Key Pad for IKEv2"), octets)        proves the key exchange, and nobody
 */
import { concat, equalBytes, equalConstantTime, fromHex } from '#base/bytes'
import type { CryptoProvider } from '#crypto/provider'
import type { IkeId, IkeRole, LocalCredential } from '#ikev2/events'
import { authFailed } from '#ikev2/fault'
import { type IkeSecrets, type Prf, sharedKeyAuth, signedOctets } from '#ikev2/keys'
import type { Payload } from '#ikev2/message/payload'
import { AUTH_METHOD, ID_TYPE } from '#ikev2/numbers'

/** What both proofs are made of. The messages are whole datagrams, as sent last (RFC 7296 section 2.6). */
export interface AuthContext {
  readonly prf: Prf
  readonly secrets: IkeSecrets
  readonly initRequest: Uint8Array
  readonly initResponse: Uint8Array
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  readonly peerTakesEd25519: boolean
  /** What IKE_INTERMEDIATE adds (RFC 9242 section 3.3.2). */
  readonly intAuth?: Uint8Array
}

type AuthPayload = Extract<Payload, { kind: 'AUTH' }>

export const NULL_ID: IkeId = { type: ID_TYPE.number.NULL, data: new Uint8Array(0) }

export const identityOf = (credential: LocalCredential): IkeId =>
  credential.kind === 'null' ? NULL_ID : credential.id

export const sameId = (a: IkeId, b: IkeId): boolean => a.type === b.type && equalBytes(a.data, b.data)

/** Our AUTH payload. @throws PeerFault when the peer cannot verify what we could sign. */
export function prove(
  crypto: CryptoProvider,
  context: AuthContext,
  role: IkeRole,
  credential: LocalCredential,
): AuthPayload {
  if (credential.kind === 'null') {
    return { kind: 'AUTH', method: AUTH_METHOD.number.NULL, data: nullAuth(context, role) }
  }
  if (!context.peerTakesEd25519) throw authFailed('the peer does not take Ed25519 signatures')
  const signature = crypto.ed25519Sign(credential.privateKey, octetsOf(context, role, credential.id))
  return { kind: 'AUTH', method: AUTH_METHOD.number.SIGNATURE, data: concat(ED25519, signature) }
}

/** @throws PeerFault unless `auth` is a signature by `publicKey` over what a peer in `role` signs. */
export function verifySignature(
  crypto: CryptoProvider,
  context: AuthContext,
  role: IkeRole,
  id: IkeId,
  publicKey: Uint8Array,
  auth: AuthPayload,
): void {
  if (auth.method !== AUTH_METHOD.number.SIGNATURE)
    throw authFailed(`${AUTH_METHOD.nameOf(auth.method)} from a peer that must sign`)
  if (!equalBytes(auth.data.subarray(0, ED25519.length), ED25519))
    throw authFailed('the signature is not plain Ed25519')
  const signature = auth.data.subarray(ED25519.length)
  if (!crypto.ed25519Verify(publicKey, octetsOf(context, role, id), signature))
    throw authFailed('the signature does not verify under the pinned key')
}

/** @throws PeerFault unless `auth` is the NULL proof of a peer in `role` that calls itself nobody. */
export function verifyNull(context: AuthContext, role: IkeRole, id: IkeId, auth: AuthPayload): void {
  // RFC 7619 section 2.2: ID_NULL has no data. Any other identity would tell clients apart.
  if (!sameId(id, NULL_ID)) throw authFailed('NULL authentication with an identity')
  if (!equalConstantTime(auth.data, nullAuth(context, role)))
    throw authFailed('the NULL authentication data is wrong')
}

/** ASN.1 of id-Ed25519 (RFC 8420 appendix A), with the length octet of RFC 7427 section 3 before it. */
const ED25519 = fromHex('07300506032b6570')

function nullAuth(context: AuthContext, role: IkeRole): Uint8Array {
  return sharedKeyAuth(context.prf, skPOf(context, role), octetsOf(context, role, NULL_ID))
}

function octetsOf(context: AuthContext, role: IkeRole, id: IkeId): Uint8Array {
  const { prf, initRequest, initResponse, ni, nr, intAuth } = context
  return role === 'initiator'
    ? signedOctets(prf, skPOf(context, role), initRequest, nr, id, intAuth)
    : signedOctets(prf, skPOf(context, role), initResponse, ni, id, intAuth)
}

const skPOf = ({ secrets }: AuthContext, role: IkeRole): Uint8Array =>
  role === 'initiator' ? secrets.skPi : secrets.skPr
