/**
 * IKE_AUTH (RFC 7296 section 1.2): both proofs, and the first Child SA with the address it is for.
 *
 *     initiator                                    responder
 *     IDi [CERT] IDr AUTH [CP] SA TSi TSr N() --->
 *                                      <---        IDr [CERT] AUTH [CP] SA TSi TSr
 *                                      <---        or IDr [CERT] AUTH N(why there is no Child SA)
 *                                      <---        or N(AUTHENTICATION_FAILED)
 *
 * One payload order and nothing optional: no CERTREQ, no INITIAL_CONTACT, no MOBIKE. A CERT is there only of a node, and
 * when it was asked for (raw-key.ts). The initiator's N() says which signature it can verify (methods.ts).
 */
import { equalBytes } from '#base/bytes'
import type { IkeSaId, Spi } from '#base/ids'
import type { UdpPath } from '#base/ip'
import type { CryptoProvider, HashName } from '#crypto/provider'
import { type Computation, compute } from '#ikev2/computation'
import type { ExpectedPeer, IkeId, LocalCredential, PeerIdentity, ResponderPolicy } from '#ikev2/events'
import {
  answerChild,
  type ChildOffer,
  type ChildTerms,
  childRequest,
  readChildAnswer,
} from '#ikev2/exchange/child'
import { authFailed, faultOfNotify, PeerFault } from '#ikev2/fault'
import { notify, type Payload } from '#ikev2/message/payload'
import { errorNotify, find, need } from '#ikev2/message/registry'
import { initiatorMethods, readMethods } from '#ikev2/methods'
import { AUTH_METHOD } from '#ikev2/numbers'
import {
  type AuthContext,
  type AuthPayload,
  type Claim,
  identityOf,
  prove,
  sameId,
  verifySignature,
} from '#ikev2/proof'
import { asksForRawKey, checkRawKeys, rawKeys } from '#ikev2/raw-key'
import type { Parties } from '#ikev2/resumption/tickets'

/** @throws PeerFault when the responder cannot verify our credential. */
export function authRequest(
  crypto: CryptoProvider,
  context: AuthContext,
  credential: LocalCredential,
  peer: ExpectedPeer,
  child: ChildOffer,
): Payload[] {
  const id = identityOf(crypto, credential)
  const auth = prove(crypto, context, 'initiator', credential, id)
  return [
    { kind: 'IDi', id },
    ...rawKeys(context.wantsRawKey === true, credential, auth),
    { kind: 'IDr', id: peer.id },
    auth,
    ...childRequest(child),
    ...initiatorMethods(peer.publicKey),
  ]
}

/** What both sides proved and agreed. */
export interface AuthResult {
  readonly peer: PeerIdentity
  readonly terms: ChildTerms
}

/** What IKE_AUTH came to. */
export interface Proven extends AuthResult, Parties {
  readonly inboundSpi: Spi
  readonly initiated: boolean
  readonly nonces: Pick<AuthContext, 'ni' | 'nr'>
  /** Of the responder, where we are the initiator. */
  readonly answer?: readonly Payload[]
}

/**
 * @throws PeerFault `IPP_IKE_AUTH_FAILED` when the responder is not who it must be; with any other code it is,
 * and there is no Child SA.
 */
export function readAuthAnswer(
  crypto: CryptoProvider,
  context: AuthContext,
  peer: ExpectedPeer,
  child: ChildOffer,
  payloads: readonly Payload[],
): AuthResult {
  const auth = proofOf(payloads, peer)
  checkRawKeys(payloads, peer.publicKey)
  verifySignature(crypto, context, 'responder', peer.id, peer.publicKey, auth)
  return {
    peer: { kind: 'key', id: peer.id, publicKey: peer.publicKey },
    terms: readChildAnswer(child, payloads),
  }
}

/** The AUTH of an answer by the peer that was asked for; whether it proves anything is not looked at. @throws PeerFault */
export function proofOf(payloads: readonly Payload[], peer: ExpectedPeer): AuthPayload {
  const auth = find(payloads, 'AUTH')
  const error = errorNotify(payloads)
  if (auth === undefined)
    throw error === undefined ? authFailed('the answer has no AUTH') : faultOfNotify(error.type)
  if (!sameId(need(payloads, 'IDr').id, peer.id))
    throw authFailed('the peer has another identity than asked for')
  return auth
}

/** The IKE SA that a request is on, and what its Child SA is to be heard by. */
export interface Where {
  readonly sa: IkeSaId
  readonly path: UdpPath
  readonly inboundSpi: Spi
}

export type AuthAnswer =
  | ({ readonly kind: 'established'; readonly payloads: Payload[] } & AuthResult)
  /** The peer is authenticated and gets no Child SA: the answer proves us and says why. */
  | { readonly kind: 'refused'; readonly fault: PeerFault; readonly payloads: Payload[] }

/**
 * Who the peer is, and our proof for it. `hash` is that of the PRF.
 * @throws PeerFault when it is not authenticated: the answer is its notify alone
 */
export function* exchangeProofs(
  hash: HashName,
  context: AuthContext,
  policy: ResponderPolicy,
  path: UdpPath,
  payloads: readonly Payload[],
): Computation<{ readonly peer: PeerIdentity; readonly proof: readonly Payload[] }> {
  const { credential } = policy
  const wanted = find(payloads, 'IDr')
  if (wanted !== undefined && !sameId(wanted.id, credential.id))
    throw authFailed('the peer asks for another identity than ours')
  const { id } = need(payloads, 'IDi')
  const auth = find(payloads, 'AUTH')
  if (auth === undefined) throw authFailed('the peer wants EAP')
  const claim = claimOf(policy, path, id, auth, payloads)
  const { prf: _, secrets, ...rest } = context
  const { skPi, skPr } = secrets
  const signing = { ...rest, secrets: { skPi, skPr }, peerMethods: readMethods(payloads) }
  const proofs = yield* compute({ kind: 'proofs', hash, context: signing, claim, id, auth })
  if ('fault' in proofs) throw authFailed(proofs.fault)
  const peer = admitted(policy, path, id, claim)
  const shown = rawKeys(asksForRawKey(payloads), credential, proofs.auth)
  return { peer, proof: [{ kind: 'IDr', id: credential.id }, ...shown, proofs.auth] }
}

/** The answer to a peer that proved who it is: our proof, and the Child SA or why there is none. */
export function answerProven(
  policy: ResponderPolicy,
  request: Where,
  peer: PeerIdentity,
  proof: readonly Payload[],
  payloads: readonly Payload[],
): AuthAnswer {
  try {
    const answer = answerChild(policy, { ...request, peer }, request.inboundSpi, payloads)
    return { kind: 'established', peer, terms: answer.terms, payloads: [...proof, ...answer.payloads] }
  } catch (fault) {
    // RFC 7296 section 1.2: without a Child SA the answer still authenticates the responder.
    if (!(fault instanceof PeerFault) || fault.notify === undefined) throw fault
    const { type, data } = fault.notify
    return { kind: 'refused', fault, payloads: [...proof, notify(type, data)] }
  }
}

/** What the initiator has to prove. Every reason not to believe it looks the same on the wire. */
function claimOf(
  policy: ResponderPolicy,
  path: UdpPath,
  id: IkeId,
  auth: AuthPayload,
  payloads: readonly Payload[],
): Claim {
  const { number } = AUTH_METHOD
  if (auth.method === number.NULL) return { kind: 'null' }
  if (auth.method === number.SHARED_KEY) {
    if (policy.publishedKey === undefined) throw authFailed('a shared key, and there is none')
    // Whatever identity comes with a published key says nothing, and is forgotten.
    return { kind: 'shared key', key: policy.publishedKey }
  }
  const publicKey = policy.publicKeyOf(id, path)
  if (publicKey === undefined) throw authFailed('a stranger')
  checkRawKeys(payloads, publicKey)
  return { kind: 'signature', publicKey }
}

/** Who the initiator is, now that its claim is proved. @throws PeerFault when nobody is let in there */
function admitted(policy: ResponderPolicy, path: UdpPath, id: IkeId, claim: Claim): PeerIdentity {
  if (claim.kind === 'signature') {
    const { publicKey } = claim
    // It may have taken a while, and the directory may say something else by now.
    const pinned = policy.publicKeyOf(id, path)
    if (pinned === undefined || !equalBytes(pinned, publicKey)) throw authFailed('a stranger by now')
    return { kind: 'key', id: { type: id.type, data: id.data.slice() }, publicKey }
  }
  const refusal = policy.admitAnonymous(path)
  if (refusal !== undefined) throw authFailed(`nobody is admitted from there (${refusal})`)
  return { kind: 'none' }
}
