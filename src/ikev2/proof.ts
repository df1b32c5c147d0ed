/**
 * The proofs inside IKE_AUTH (RFC 7296 section 2.15): signatures (RFC 7427), a shared key, and NULL authentication
 * (RFC 7619).
 *
 *     signature   length (1) | AlgorithmIdentifier | signature       over the octets that the prover signs
 *     shared key  prf(prf(key, "Key Pad for IKEv2"), octets)         proves that the prover knows the key
 *     NULL        prf(prf(SK_p, "Key Pad for IKEv2"), octets)        proves the key exchange, and nobody
 *
 * A shared key that is published proves nobody either. It is for stock routers that have no NULL authentication: the
 * relay is authenticated by its signature, the client is not.
 */
import { equalBytes, equalConstantTime } from '#base/bytes'
import type { CryptoProvider } from '#crypto/provider'
import type { IkeId, IkeRole, LocalCredential } from '#ikev2/events'
import { authFailed } from '#ikev2/fault'
import { type IkeSecrets, type Prf, sharedKeyAuth, signedOctets } from '#ikev2/keys'
import type { Payload } from '#ikev2/message/payload'
import { type Announcement, takesAlgorithm } from '#ikev2/methods'
import { AUTH_METHOD, ID_TYPE } from '#ikev2/numbers'
import { signAuth, signatureFault } from '#ikev2/signature'
import { signedMessages } from '#ikev2/transcript'

/** What both proofs are made of. The messages are whole datagrams, as sent last (RFC 7296 section 2.6). */
export interface AuthContext {
  readonly prf: Prf
  readonly secrets: IkeSecrets
  readonly initRequest: Uint8Array
  readonly initResponse: Uint8Array
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  /** The hash algorithms that the peer announced: what it verifies signatures with (RFC 7427 section 4). */
  readonly peerHashes: ReadonlySet<number>
  /** How the peer may be convinced, if it said so (RFC 9593). */
  readonly peerMethods?: Announcement | undefined
  /** The responder asked for our raw key (RFC 7670). */
  readonly wantsRawKey?: boolean | undefined
  /** Both sides said that AUTH covers both messages of IKE_SA_INIT, and not the prover's alone. */
  readonly fullTranscript: boolean
  /** What IKE_INTERMEDIATE adds (RFC 9242 section 3.3.2). */
  readonly intAuth?: Uint8Array
}

/** As much of it as a proof needs. */
export type ProofContext = Omit<AuthContext, 'secrets'> & {
  readonly secrets: Pick<IkeSecrets, 'skPi' | 'skPr'>
}

export type AuthPayload = Extract<Payload, { kind: 'AUTH' }>

/** By what a peer is to be believed. */
export type Claim =
  | { readonly kind: 'null' }
  | { readonly kind: 'shared key'; readonly key: Uint8Array }
  | { readonly kind: 'signature'; readonly publicKey: Uint8Array }

export const NULL_ID: IkeId = { type: ID_TYPE.number.NULL, data: new Uint8Array(0) }

/** Who we say that we are: of a published key somebody new for every IKE SA, so ask once for each. */
export function identityOf(crypto: CryptoProvider, credential: LocalCredential): IkeId {
  if (credential.kind === 'null') return NULL_ID
  if (credential.kind === 'ed25519') return credential.id
  return { type: ID_TYPE.number.KEY_ID, data: crypto.random(RANDOM_ID_LENGTH) }
}

export const sameId = (a: IkeId, b: IkeId): boolean => a.type === b.type && equalBytes(a.data, b.data)

/** Our AUTH payload, under the identity we gave. @throws PeerFault when the peer cannot verify what we could sign. */
export function prove(
  crypto: CryptoProvider,
  context: ProofContext,
  role: IkeRole,
  credential: LocalCredential,
  id: IkeId,
): AuthPayload {
  const octets = octetsOf(context, role, id)
  const { number } = AUTH_METHOD
  switch (credential.kind) {
    case 'null':
      return { kind: 'AUTH', method: number.NULL, data: nullAuth(context, role) }
    case 'psk': {
      const data = sharedKeyAuth(context.prf, credential.key, octets)
      return { kind: 'AUTH', method: number.SHARED_KEY, data }
    }
    case 'ed25519': {
      const takes = (identifier: Uint8Array): boolean => takesAlgorithm(context.peerMethods, identifier)
      const data = signAuth(crypto, credential, context.peerHashes, takes, octets)
      if (data === undefined) throw authFailed('the peer takes no signature that we could make')
      return { kind: 'AUTH', method: number.SIGNATURE, data }
    }
  }
}

/** @throws PeerFault unless `auth` proves what a peer in `role` that calls itself `id` claims. */
export function verifyClaim(
  crypto: CryptoProvider,
  context: ProofContext,
  role: IkeRole,
  claim: Claim,
  id: IkeId,
  auth: AuthPayload,
): void {
  switch (claim.kind) {
    case 'null':
      return verifyNull(context, role, id, auth)
    case 'shared key':
      return verifySharedKey(context, role, id, claim.key, auth)
    case 'signature':
      return verifySignature(crypto, context, role, id, claim.publicKey, auth)
  }
}

/** @throws PeerFault unless `auth` is a signature by `publicKey` over what a peer in `role` signs. */
export function verifySignature(
  crypto: CryptoProvider,
  context: ProofContext,
  role: IkeRole,
  id: IkeId,
  publicKey: Uint8Array,
  auth: AuthPayload,
): void {
  if (auth.method !== AUTH_METHOD.number.SIGNATURE)
    throw authFailed(`${AUTH_METHOD.nameOf(auth.method)} from a peer that must sign`)
  const fault = signatureFault(crypto, publicKey, octetsOf(context, role, id), auth.data)
  if (fault !== undefined) throw authFailed(fault)
}

/** @throws PeerFault unless `auth` is the proof of a peer in `role` that knows `key`. */
export function verifySharedKey(
  context: ProofContext,
  role: IkeRole,
  id: IkeId,
  key: Uint8Array,
  auth: AuthPayload,
): void {
  if (!equalConstantTime(auth.data, sharedKeyAuth(context.prf, key, octetsOf(context, role, id))))
    throw authFailed('the shared key authentication data is wrong')
}

/** @throws PeerFault unless `auth` is the NULL proof of a peer in `role` that calls itself nobody. */
export function verifyNull(context: ProofContext, role: IkeRole, id: IkeId, auth: AuthPayload): void {
  // RFC 7619 section 2.2: ID_NULL has no data. Any other identity would tell clients apart.
  if (!sameId(id, NULL_ID)) throw authFailed('NULL authentication with an identity')
  if (!equalConstantTime(auth.data, nullAuth(context, role)))
    throw authFailed('the NULL authentication data is wrong')
}

/**
 * The proof of a resumed session: as of a shared key, which is SK_p itself and goes without the pad (RFC 5723
 * section 5.2). It proves what the ticket was given for.
 */
export const proveResumed = (context: ProofContext, role: IkeRole, id: IkeId): AuthPayload => ({
  kind: 'AUTH',
  method: AUTH_METHOD.number.SHARED_KEY,
  data: resumedAuth(context, role, id),
})

/** @throws PeerFault unless `auth` is the proof of a peer in `role` that resumes. */
export function verifyResumed(context: ProofContext, role: IkeRole, id: IkeId, auth: AuthPayload): void {
  if (auth.method !== AUTH_METHOD.number.SHARED_KEY)
    throw authFailed(`${AUTH_METHOD.nameOf(auth.method)} in a resumed session`)
  if (!equalConstantTime(auth.data, resumedAuth(context, role, id)))
    throw authFailed('the authentication data of the resumed session is wrong')
}

const resumedAuth = (context: ProofContext, role: IkeRole, id: IkeId): Uint8Array =>
  context.prf(skPOf(context, role), octetsOf(context, role, id))

/** Nobody meets twice, and a stock responder keys its leases by identity. */
const RANDOM_ID_LENGTH = 16

function nullAuth(context: ProofContext, role: IkeRole): Uint8Array {
  return sharedKeyAuth(context.prf, skPOf(context, role), octetsOf(context, role, NULL_ID))
}

/** What a peer in `role` that calls itself `id` signs. */
export function octetsOf(context: ProofContext, role: IkeRole, id: IkeId): Uint8Array {
  const { prf, ni, nr, intAuth } = context
  const peerNonce = role === 'initiator' ? nr : ni
  return signedOctets(prf, skPOf(context, role), signedMessages(context, role), peerNonce, id, intAuth)
}

const skPOf = ({ secrets }: ProofContext, role: IkeRole): Uint8Array =>
  role === 'initiator' ? secrets.skPi : secrets.skPr
