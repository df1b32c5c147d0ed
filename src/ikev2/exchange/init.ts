/**
 * IKE_SA_INIT (RFC 7296 section 1.2): algorithms, nonces and a key exchange, in the clear.
 *
 *     initiator                                 responder
 *     [N(COOKIE) [PS]] SA KE Nonce N(...) -->
 *                                       <---    SA KE Nonce N(...)
 *                                       <---    or N(COOKIE) [N(PUZZLE)], N(INVALID_KE_PAYLOAD), N(NO_PROPOSAL_CHOSEN)
 *
 * N(...) are IKEV2_FRAGMENTATION_SUPPORTED, SIGNATURE_HASH_ALGORITHMS, INTERMEDIATE_EXCHANGE_SUPPORTED and
 * IKE_SA_INIT_FULL_TRANSCRIPT_AUTH; a responder says the first and third only to who said them, and the last to all:
 * its AUTH covers what it says, so nobody can take that away unnoticed (transcript.ts). A responder also announces how
 * it can be convinced (methods.ts).
 *
 * The first hop of a client has NAT detection behind its Nonce (`nat.ts`), and no other. No vendor ID.
 */
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import type { Association } from '#ikev2/association'
import { keyLengths } from '#ikev2/channel'
import { type Computation, compute } from '#ikev2/computation'
import { acceptable, agree, checkNonce, invalidKe, NONCE_LENGTH } from '#ikev2/exchange/key-exchange'
import { faultOfNotify, malformed, protocolFault } from '#ikev2/fault'
import { groupOf } from '#ikev2/groups'
import type { IkeSecrets } from '#ikev2/keys'
import { notify, type Payload } from '#ikev2/message/payload'
import type { Proposal } from '#ikev2/message/proposal'
import { errorNotify, need, notifies } from '#ikev2/message/registry'
import { type Announcement, readMethods } from '#ikev2/methods'
import { NOTIFY } from '#ikev2/numbers'
import { acceptIke, chooseIke, IKE_GROUPS, type IkeSuite, ikeProposals } from '#ikev2/proposal'
import { type Puzzle, readPuzzle } from '#ikev2/puzzle'
import { asksForRawKey } from '#ikev2/raw-key'
import { VERIFIED_HASHES } from '#ikev2/signature'
import { announcesFullTranscript, FULL_TRANSCRIPT } from '#ikev2/transcript'
import { Reader, Writer } from '#wire/cursor'

/** What an initiator sent, until it is answered. */
export interface InitOffer {
  readonly proposals: readonly Proposal[]
  readonly hybrid: boolean
  readonly group: number
  readonly keyPair: KeyPair
  readonly nonce: Uint8Array
  readonly cookie?: Uint8Array
  /** Of the puzzle that came with the cookie. */
  readonly solution?: Uint8Array
}

/** What both sides know after the exchange. */
interface InitTerms {
  readonly suite: IkeSuite
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  /** What the peer verifies signatures with: the hash algorithms it announced (RFC 7427 section 4). */
  readonly peerHashes: ReadonlySet<number>
  /** How the responder may be convinced, if it said so (RFC 9593). */
  readonly peerMethods?: Announcement | undefined
  /** The responder asks an initiator with a key to show it (RFC 7670). */
  readonly wantsRawKey?: boolean
  /** Both sides can put fragments together (RFC 7383 section 2.3). */
  readonly mayFragment: boolean
  /** AUTH covers both messages of IKE_SA_INIT. */
  readonly fullTranscript: boolean
}

/** Of the initiator. `sharedSecret` is the receiver's to wipe. */
export interface InitResult extends InitTerms {
  readonly sharedSecret: Uint8Array
}

/** Of the responder, which has the keys together with its half of the exchange: the receiver's to wipe. */
export interface InitAnswered extends InitTerms {
  readonly secrets: IkeSecrets
}

export type InitAnswer =
  | { readonly kind: 'accepted'; readonly result: InitResult }
  /** Try again with this cookie before everything else. */
  | {
      readonly kind: 'cookie'
      readonly cookie: Uint8Array
      readonly puzzle?: Puzzle | 'too hard' | undefined
    }
  /** Try again with this key exchange method. */
  | { readonly kind: 'group'; readonly group: number }

/** `hybrid`: with an additional key exchange. That is the profile of every client; without it only tests ask. */
export function initOffer(crypto: CryptoProvider, group: number = IKE_GROUPS[0]!, hybrid = true): InitOffer {
  return {
    proposals: ikeProposals({ hybrid }),
    hybrid,
    group,
    keyPair: groupOf(group).generate(crypto),
    nonce: crypto.random(NONCE_LENGTH),
  }
}

/** `natDetection`: on the first hop only. */
export function initRequest(offer: InitOffer, natDetection: readonly Payload[] = []): Payload[] {
  const cookie = offer.cookie === undefined ? [] : [notify(NOTIFY.number.COOKIE, offer.cookie)]
  return [
    ...cookie,
    ...(offer.solution === undefined ? [] : [{ kind: 'PS', data: offer.solution } as const]),
    { kind: 'SA', proposals: offer.proposals },
    { kind: 'KE', group: offer.group, data: offer.keyPair.publicKey },
    { kind: 'Nonce', data: offer.nonce },
    ...natDetection,
    FRAGMENTATION,
    hashAlgorithms(),
    ...(offer.hybrid ? [INTERMEDIATE] : []),
    FULL_TRANSCRIPT,
  ]
}

/** @throws PeerFault when the answer is no use. It is unprotected, so that is a hint and no verdict. */
export function readInitAnswer(
  crypto: CryptoProvider,
  offer: InitOffer,
  payloads: readonly Payload[],
): InitAnswer {
  const cookie = notifies(payloads, NOTIFY.number.COOKIE)[0]
  if (cookie !== undefined)
    return { kind: 'cookie', cookie: checkCookie(cookie.data), puzzle: readPuzzle(payloads) }
  const wrongGroup = notifies(payloads, NOTIFY.number.INVALID_KE_PAYLOAD)[0]
  if (wrongGroup !== undefined) return { kind: 'group', group: checkGroup(offer, wrongGroup.data) }
  const error = errorNotify(payloads)
  if (error !== undefined) throw faultOfNotify(error.type)

  const { suite } = acceptIke(offer.proposals, need(payloads, 'SA').proposals)
  const ke = need(payloads, 'KE')
  if (suite.group !== offer.group || ke.group !== offer.group)
    throw protocolFault('bad-ke', 'the key exchange is not of the group asked for')
  if (suite.additional !== undefined && !announcesIntermediate(payloads))
    throw protocolFault('bad-ke', 'an additional key exchange without an exchange for it')
  const nr = checkNonce(need(payloads, 'Nonce').data)
  return {
    kind: 'accepted',
    result: {
      suite,
      ni: offer.nonce,
      nr,
      sharedSecret: agree(crypto, suite.group, offer.keyPair, ke.data),
      peerHashes: announcedHashes(payloads),
      peerMethods: readMethods(payloads),
      wantsRawKey: asksForRawKey(payloads),
      mayFragment: announcesFragmentation(payloads),
      fullTranscript: announcesFullTranscript(payloads),
    },
  }
}

/** What a responder needs to know before it spends anything. */
export function readInitRequest(payloads: readonly Payload[]): {
  readonly nonce: Uint8Array
  readonly cookie?: Uint8Array
} {
  const nonce = checkNonce(need(payloads, 'Nonce').data)
  // RFC 7296 section 2.6: the cookie is the first payload; anywhere else it is none.
  const [first] = payloads
  return first?.kind === 'Notify' && first.type === NOTIFY.number.COOKIE
    ? { nonce, cookie: first.data }
    : { nonce }
}

/** `methods`: our SUPPORTED_AUTH_METHODS. @throws PeerFault NO_PROPOSAL_CHOSEN or INVALID_KE_PAYLOAD; nothing was kept then. */
export function* answerInit(
  crypto: CryptoProvider,
  { spiInitiator, spiResponder }: Pick<Association, 'spiInitiator' | 'spiResponder'>,
  payloads: readonly Payload[],
  methods: readonly Payload[] = [],
): Computation<{ readonly result: InitAnswered; readonly payloads: Payload[] }> {
  const hybrid = announcesIntermediate(payloads)
  const { suite, proposal } = chooseIke(need(payloads, 'SA').proposals, { hybrid })
  const ke = need(payloads, 'KE')
  if (ke.group !== suite.group) throw invalidKe(suite.group)
  const ni = checkNonce(need(payloads, 'Nonce').data).slice()
  const nr = crypto.random(NONCE_LENGTH)
  const { publicKey, secrets } = acceptable(
    yield* compute({
      kind: 'keys',
      group: suite.group,
      peer: ke.data,
      hash: suite.prf,
      lengths: keyLengths(suite),
      ni,
      nr,
      spiInitiator,
      spiResponder,
    }),
  )
  const mayFragment = announcesFragmentation(payloads)
  return {
    result: {
      suite,
      ni,
      nr,
      secrets,
      peerHashes: announcedHashes(payloads),
      mayFragment,
      fullTranscript: announcesFullTranscript(payloads),
    },
    payloads: [
      { kind: 'SA', proposals: [proposal] },
      { kind: 'KE', group: suite.group, data: publicKey },
      { kind: 'Nonce', data: nr },
      ...(mayFragment ? [FRAGMENTATION] : []),
      hashAlgorithms(),
      ...(hybrid ? [INTERMEDIATE] : []),
      FULL_TRANSCRIPT,
      ...methods,
    ],
  }
}

/** RFC 7296 section 2.6. */
const COOKIE_MAX = 64

/** @throws PeerFault */
export function checkCookie(cookie: Uint8Array): Uint8Array {
  if (cookie.length === 0 || cookie.length > COOKIE_MAX)
    throw malformed(`a cookie of ${cookie.length} octets`)
  return cookie.slice()
}

/** The group an INVALID_KE_PAYLOAD asks for: one that we offered, and not the one we already tried. */
function checkGroup(offer: InitOffer, data: Uint8Array): number {
  const group = data.length === 2 ? new Reader(data).u16() : undefined
  if (group === undefined || group === offer.group || !IKE_GROUPS.includes(group))
    throw faultOfNotify(NOTIFY.number.INVALID_KE_PAYLOAD)
  return group
}

export const FRAGMENTATION: Payload = notify(NOTIFY.number.IKEV2_FRAGMENTATION_SUPPORTED)

export const announcesFragmentation = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, NOTIFY.number.IKEV2_FRAGMENTATION_SUPPORTED).length > 0

const INTERMEDIATE: Payload = notify(NOTIFY.number.INTERMEDIATE_EXCHANGE_SUPPORTED)

const announcesIntermediate = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, NOTIFY.number.INTERMEDIATE_EXCHANGE_SUPPORTED).length > 0

/** RFC 7427 section 4: no protocol, no SPI, and a number of two octets each. */
function hashAlgorithms(): Payload {
  const data = new Writer(2 * VERIFIED_HASHES.length)
  for (const hash of VERIFIED_HASHES) data.u16(hash)
  return notify(NOTIFY.number.SIGNATURE_HASH_ALGORITHMS, data.finish())
}

function announcedHashes(payloads: readonly Payload[]): ReadonlySet<number> {
  const hashes = new Set<number>()
  for (const { data } of notifies(payloads, NOTIFY.number.SIGNATURE_HASH_ALGORITHMS)) {
    const reader = new Reader(data)
    while (reader.remaining >= 2) hashes.add(reader.u16())
  }
  return hashes
}
