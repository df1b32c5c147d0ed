/**
 * SUPPORTED_AUTH_METHODS (RFC 9593): each side says how the other may prove itself, so that nobody has to try. A responder
 * says it in IKE_SA_INIT (or says nothing there and the rest in IKE_INTERMEDIATE), an initiator in IKE_AUTH.
 *
 *     length (1) | method (1)                                           NULL, shared key
 *     length (1) | method (1) | certificate link (1)                    older signatures, which we do not speak
 *     length (1) | method (1) | certificate link (1) | AlgorithmIdentifier     signature (RFC 7427)
 *
 * The directory says which method a node takes, and a client never tries another: an attempt that fails is seen, and
 * tells clients apart. So what a node announces can only end an attempt before IKE_AUTH, never change it.
 */
import { toHex } from '#base/bytes'
import { readPublicKey } from '#crypto/public-key'
import type { LocalCredential } from '#ikev2/events'
import { malformed, PeerFault } from '#ikev2/fault'
import { type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { notifies } from '#ikev2/message/registry'
import { AUTH_METHOD, NOTIFY } from '#ikev2/numbers'
import { SIGNATURE_ALGORITHMS as ALGORITHM } from '#ikev2/signature'
import { Reader, Writer } from '#wire/cursor'

/** How a peer may be convinced. Unknown methods and algorithms are in it, and match nothing of ours. */
export interface AuthMethods {
  /** Those that are announced by their number alone. */
  readonly plain: ReadonlySet<number>
  /** Of signatures: AlgorithmIdentifiers in hex. */
  readonly algorithms: ReadonlySet<string>
}

/** `later`: in IKE_INTERMEDIATE. */
export type Announcement = AuthMethods | 'later'

/** What a responder takes: nobody, nobody with a published key if there is one, and every signature it verifies. */
export function responderMethods(publishedKey: Uint8Array | undefined): NotifyPayload {
  const { NULL, SHARED_KEY } = AUTH_METHOD.number
  const { ed25519, ecdsa256, ecdsa384, ecdsa512, pss256 } = ALGORITHM
  const plain = publishedKey === undefined ? [NULL] : [NULL, SHARED_KEY]
  return announce(plain, [ed25519, ecdsa256, ecdsa384, ecdsa512, pss256])
}

/**
 * What an initiator takes: what fits the pinned key. A responder with two keys learns which to use. Of RSA nothing is
 * said: such a responder has no other key, and the identifier would make the message longer than all others.
 */
export function initiatorMethods(pinned: Uint8Array): NotifyPayload[] {
  const key = readPublicKey(pinned)
  if (key === undefined || key.kind === 'rsa') return []
  if (key.kind === 'ed25519') return [announce([], [ALGORITHM.ed25519])]
  return [announce([], [key.curve === 'p256' ? ALGORITHM.ecdsa256 : ALGORITHM.ecdsa384])]
}

/** What the peer announces, or undefined when it does not. @throws PeerFault when its list is no list */
export function readMethods(payloads: readonly Payload[]): Announcement | undefined {
  const [first] = notifies(payloads, NOTIFY.number.SUPPORTED_AUTH_METHODS)
  if (first === undefined) return undefined
  if (first.data.length === 0) return 'later'
  const plain = new Set<number>()
  const algorithms = new Set<string>()
  const reader = new Reader(first.data, 'SUPPORTED_AUTH_METHODS')
  for (let count = 0; reader.remaining > 0; count++) {
    if (count === MAX_ANNOUNCEMENTS) throw malformed(`more than ${MAX_ANNOUNCEMENTS} authentication methods`)
    const length = reader.u8()
    if (length < 2) throw malformed(`an authentication method of ${length} octets`)
    const method = reader.u8()
    const rest = reader.bytes(length - 2)
    if (rest.length === 0) plain.add(method)
    else if (method === AUTH_METHOD.number.SIGNATURE) algorithms.add(toHex(rest.subarray(1)))
  }
  return { plain, algorithms }
}

/** @throws PeerFault when the peer said that it does not take what we are going to prove ourselves with. */
export function demandTaken(announced: Announcement | undefined, credential: LocalCredential): void {
  if (announced === undefined || announced === 'later' || takes(announced, credential)) return
  throw new PeerFault('IPP_IKE_REFUSED', 'auth-method', `the peer does not take ${NAME[credential.kind]}`)
}

/** May a signature with this AlgorithmIdentifier be sent? A peer that announces nothing takes all. */
export const takesAlgorithm = (announced: Announcement | undefined, identifier: Uint8Array): boolean =>
  announced === undefined || announced === 'later' || announced.algorithms.has(toHex(identifier))

// More than there are kinds of signatures.
const MAX_ANNOUNCEMENTS = 64

const NAME: Readonly<Record<LocalCredential['kind'], string>> = {
  null: 'NULL authentication',
  psk: 'a shared key',
  ed25519: 'a signature that we could make',
}

function takes(announced: AuthMethods, credential: LocalCredential): boolean {
  const { NULL, SHARED_KEY } = AUTH_METHOD.number
  if (credential.kind === 'null') return announced.plain.has(NULL)
  if (credential.kind === 'psk') return announced.plain.has(SHARED_KEY)
  const { ed25519, ecdsa256, ecdsa384, ecdsa512 } = ALGORITHM
  const ours = [ed25519, ...(credential.ecdsa === undefined ? [] : [ecdsa256, ecdsa384, ecdsa512])]
  return ours.some((identifier) => takesAlgorithm(announced, identifier))
}

function announce(plain: readonly number[], algorithms: readonly Uint8Array[]): NotifyPayload {
  const writer = new Writer(128)
  for (const method of plain) writer.u8(2).u8(method)
  for (const identifier of algorithms)
    writer
      .u8(3 + identifier.length)
      .u8(AUTH_METHOD.number.SIGNATURE)
      .u8(NO_LINK)
      .bytes(identifier)
  return notify(NOTIFY.number.SUPPORTED_AUTH_METHODS, writer.finish())
}

/** To a CERTREQ, of which there is none. */
const NO_LINK = 0
