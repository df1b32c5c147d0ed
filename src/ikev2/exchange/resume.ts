/**
 * IKE_SESSION_RESUME (RFC 5723) in place of IKE_SA_INIT, and the proofs in the IKE_AUTH after it.
 *
 *     initiator                                    responder
 *     [N(COOKIE)] Nonce N(TICKET_OPAQUE) N(FRAG)   --->
 *                                      <---        Nonce N(FRAG)
 *                                      <---        or N(COOKIE), N(TICKET_NACK): run IKE_SA_INIT instead
 *     IDi IDr AUTH [CP] SA TSi TSr     --->                             AUTH is that of a shared key, SK_p itself
 *                                      <---        IDr AUTH [CP] SA TSi TSr
 *
 * There is no key exchange, so nothing here has forward secrecy until the IKE SA is rekeyed, which is done at once.
 *
 * A ticket is asked for by N(TICKET_REQUEST), in IKE_AUTH or in INFORMATIONAL, and comes as N(TICKET_LT_OPAQUE) with
 * its lifetime in seconds. N(TICKET_NACK): none for you; N(TICKET_ACK): ask again later.
 */
import { equalBytes } from '#base/bytes'
import type { Duration } from '#base/time'
import { SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { ExpectedPeer, PeerIdentity, ResponderPolicy } from '#ikev2/events'
import { type AuthAnswer, type AuthResult, answerProven, proofOf, type Where } from '#ikev2/exchange/auth'
import { type ChildOffer, childRequest, readChildAnswer } from '#ikev2/exchange/child'
import { announcesFragmentation, checkCookie, FRAGMENTATION } from '#ikev2/exchange/init'
import { checkNonce, NONCE_LENGTH } from '#ikev2/exchange/key-exchange'
import { authFailed, faultOfNotify, malformed } from '#ikev2/fault'
import { type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { errorNotify, find, need, notifies } from '#ikev2/message/registry'
import { NOTIFY } from '#ikev2/numbers'
import { type AuthContext, proveResumed, sameId, verifyResumed } from '#ikev2/proof'
import type { Grant, ResumptionTicket } from '#ikev2/resumption/ticket'
import { Reader, Writer } from '#wire/cursor'

// ---------------------------------------------------------------------------------------------- IKE_SESSION_RESUME

/** What an initiator sent, until it is answered. */
export interface ResumeOffer {
  readonly ticket: ResumptionTicket
  readonly nonce: Uint8Array
  readonly cookie?: Uint8Array
}

/** What both sides know after the exchange. */
export interface ResumeResult {
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  readonly mayFragment: boolean
}

export type ResumeAnswer =
  | { readonly kind: 'resumed'; readonly result: ResumeResult }
  | { readonly kind: 'cookie'; readonly cookie: Uint8Array }
  /** The ticket is worth nothing; a full exchange may be. */
  | { readonly kind: 'refused' }

export const resumeOffer = (crypto: CryptoProvider, ticket: ResumptionTicket): ResumeOffer => ({
  ticket,
  nonce: crypto.random(NONCE_LENGTH),
})

/** `natDetection`: on the first hop only. */
export const resumeRequest = (
  { ticket, nonce, cookie }: ResumeOffer,
  natDetection: readonly Payload[] = [],
): Payload[] => [
  ...(cookie === undefined ? [] : [notify(NOTIFY.number.COOKIE, cookie)]),
  { kind: 'Nonce', data: nonce },
  notify(NOTIFY.number.TICKET_OPAQUE, ticket.opaque),
  ...natDetection,
  FRAGMENTATION,
]

/** @throws PeerFault when the answer is no use. It is unprotected, so that is a hint and no verdict. */
export function readResumeAnswer(offer: ResumeOffer, payloads: readonly Payload[]): ResumeAnswer {
  const cookie = notifies(payloads, NOTIFY.number.COOKIE)[0]
  if (cookie !== undefined) return { kind: 'cookie', cookie: checkCookie(cookie.data) }
  if (notifies(payloads, NOTIFY.number.TICKET_NACK).length > 0) return { kind: 'refused' }
  const error = errorNotify(payloads)
  if (error !== undefined) throw faultOfNotify(error.type)
  const nr = checkNonce(need(payloads, 'Nonce').data)
  return { kind: 'resumed', result: { ni: offer.nonce, nr, mayFragment: announcesFragmentation(payloads) } }
}

/** The sealed ticket of a request. @throws PeerFault unless there is exactly one */
export function readTicket(payloads: readonly Payload[]): Uint8Array {
  const [ticket, second] = notifies(payloads, NOTIFY.number.TICKET_OPAQUE)
  if (ticket === undefined || second !== undefined) throw malformed('IKE_SESSION_RESUME is about one ticket')
  return ticket.data
}

export function answerResume(
  crypto: CryptoProvider,
  payloads: readonly Payload[],
): { readonly result: ResumeResult; readonly payloads: Payload[] } {
  const ni = checkNonce(need(payloads, 'Nonce').data).slice()
  const nr = crypto.random(NONCE_LENGTH)
  const mayFragment = announcesFragmentation(payloads)
  return {
    result: { ni, nr, mayFragment },
    payloads: [{ kind: 'Nonce', data: nr }, ...(mayFragment ? [FRAGMENTATION] : [])],
  }
}

// ---------------------------------------------------------------------------------------------- IKE_AUTH

export const resumedAuthRequest = (
  context: AuthContext,
  { id, peer }: ResumptionTicket,
  child: ChildOffer,
): Payload[] => [
  { kind: 'IDi', id },
  { kind: 'IDr', id: peer.id },
  proveResumed(context, 'initiator', id),
  ...childRequest(child),
]

/** @throws PeerFault as `readAuthAnswer` does. */
export function readResumedAuthAnswer(
  context: AuthContext,
  peer: ExpectedPeer,
  child: ChildOffer,
  payloads: readonly Payload[],
): AuthResult {
  const auth = proofOf(payloads, peer)
  verifyResumed(context, 'responder', peer.id, auth)
  return {
    peer: { kind: 'key', id: peer.id, publicKey: peer.publicKey },
    terms: readChildAnswer(child, payloads),
  }
}

/**
 * `spend` takes the ticket, once and for all. @throws PeerFault when the peer is not the one that got the ticket, or
 * would not be admitted today: the answer is its notify alone.
 */
export function answerResumedAuth(
  context: AuthContext,
  policy: ResponderPolicy,
  grant: Grant,
  spend: () => boolean,
  request: Where,
  payloads: readonly Payload[],
): AuthAnswer {
  const { id } = need(payloads, 'IDi')
  const auth = find(payloads, 'AUTH')
  if (auth === undefined) throw authFailed('the peer wants EAP')
  // RFC 5723 section 4.3.3: the identity is the one of the ticket.
  if (!sameId(id, grant.id)) throw authFailed('another identity than the ticket was given to')
  verifyResumed(context, 'initiator', id, auth)
  if (!spend()) throw authFailed('the ticket was used meanwhile')
  const peer = stillAdmitted(policy, grant.peer, request)
  const own = policy.credential.id
  const proof: Payload[] = [{ kind: 'IDr', id: own }, proveResumed(context, 'responder', own)]
  return answerProven(policy, request, peer, proof, payloads)
}

/** Who was welcome when the ticket was given need not be now. */
function stillAdmitted(policy: ResponderPolicy, peer: PeerIdentity, { path }: Where): PeerIdentity {
  if (peer.kind === 'none') {
    const refusal = policy.admitAnonymous(path)
    if (refusal !== undefined) throw authFailed(`nobody is admitted from there (${refusal})`)
    return peer
  }
  const publicKey = policy.publicKeyOf(peer.id, path)
  if (publicKey === undefined || !equalBytes(publicKey, peer.publicKey)) throw authFailed('a stranger')
  return peer
}

// ---------------------------------------------------------------------------------------------- asking for a ticket

export const TICKET_REQUEST: Payload = notify(NOTIFY.number.TICKET_REQUEST)

export const asksForTicket = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, NOTIFY.number.TICKET_REQUEST).length > 0

/** RFC 5723 section 7.2: the seconds it has left, and the ticket. */
export const ticketPayload = (opaque: Uint8Array, lifetime: Duration): Payload =>
  notify(
    NOTIFY.number.TICKET_LT_OPAQUE,
    new Writer(4 + opaque.length)
      .u32(Math.floor(lifetime / SECOND))
      .bytes(opaque)
      .finish(),
  )

export const noTicket = (): NotifyPayload => notify(NOTIFY.number.TICKET_NACK)
export const ticketLater = (): Payload => notify(NOTIFY.number.TICKET_ACK)

export const putsOffTicket = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, NOTIFY.number.TICKET_ACK).length > 0

/** The ticket of an answer, if there is one that could be sent back. */
export function readGivenTicket(
  payloads: readonly Payload[],
): { readonly opaque: Uint8Array; readonly lifetime: Duration } | undefined {
  const [given] = notifies(payloads, NOTIFY.number.TICKET_LT_OPAQUE)
  if (given === undefined || given.data.length <= 4 || given.data.length > TICKET_MAX) return undefined
  const reader = new Reader(given.data)
  return { lifetime: reader.u32() * SECOND, opaque: reader.rest().slice() }
}

/** IKE_SESSION_RESUME cannot be fragmented: what is larger would not get through. */
const TICKET_MAX = 1024
