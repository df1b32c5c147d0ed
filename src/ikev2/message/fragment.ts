/**
 * Messages that are too large for one datagram (RFC 7383): cut into pieces that are sealed one by one, and put
 * together again.
 *
 * A receiver has at most one unfinished message per direction: the one whose message ID is expected. Pieces are kept
 * only when they are authentic, so filling this memory takes a peer with keys; it is bounded all the same.
 */
import { concat } from '#base/bytes'
import { after, type Duration, type Instant, SECOND } from '#base/time'
import { protocolFault } from '#ikev2/fault'
import {
  FRAGMENT_HEADER_LENGTH,
  type FragmentOf,
  type MessageKey,
  SEALED_OVERHEAD,
} from '#ikev2/message/encrypted'
import { HEADER_LENGTH, type Header } from '#ikev2/message/header'
import { MAX_DATAGRAM } from '#ikev2/message/padding'
import { encodePayloads, firstType, GENERIC_HEADER_LENGTH, type Payload } from '#ikev2/message/payload'
import { Reader } from '#wire/cursor'

const PIECE = MAX_DATAGRAM - HEADER_LENGTH - SEALED_OVERHEAD - FRAGMENT_HEADER_LENGTH

const MAX_FRAGMENTS = 64
const MAX_OCTETS = 32 * 1024
/** An unfinished message is forgotten after this long: a peer that still wants an answer sends it all again. */
const PATIENCE: Duration = 30 * SECOND

/** The datagrams of a message: one, or several when it is large and the peer can put them together. */
export function sealMessage(
  key: MessageKey,
  header: Header,
  payloads: readonly Payload[],
  mayFragment: boolean,
): Uint8Array[] {
  const content = encodePayloads(payloads)
  if (!mayFragment || HEADER_LENGTH + SEALED_OVERHEAD + content.length <= MAX_DATAGRAM)
    return [key.sealEncoded(header, firstType(payloads), content)]
  const total = Math.ceil(content.length / PIECE)
  return Array.from({ length: total }, (_, index) => {
    const piece = content.subarray(index * PIECE, (index + 1) * PIECE)
    // RFC 7383 section 2.5: only the first names the type of the first payload.
    return key.sealFragment(header, index === 0 ? firstType(payloads) : 0, piece, {
      number: index + 1,
      total,
    })
  })
}

/** Reads "number" and "total" of an SKF payload. @throws PeerFault, DecodeError when they are impossible */
export function readFragmentOf(data: Uint8Array): FragmentOf {
  const reader = new Reader(data, 'SKF')
  const number = reader.u16()
  const total = reader.u16()
  if (number === 0 || number > total) throw protocolFault('fragment', `fragment ${number} of ${total}`)
  return { number, total }
}

/** What one datagram turned out to hold. */
export interface Opened {
  readonly firstPayload: number
  readonly plaintext: Uint8Array
  /** Everything in front of the sealed part, the generic header of SK or SKF included. */
  readonly front: Uint8Array
  /** Present: this is a piece. */
  readonly fragment?: FragmentOf
}

/** What the receiver of our own datagrams finds in them. */
export const sentMessage = (
  [first]: readonly Uint8Array[],
  payloads: readonly Payload[],
): Pick<Opened, 'front' | 'plaintext'> => ({
  front: first!.subarray(0, HEADER_LENGTH + GENERIC_HEADER_LENGTH),
  plaintext: encodePayloads(payloads),
})

/** A message that is complete; `digests` of its datagrams, in order of the pieces. */
export interface Message extends Opened {
  readonly digests: readonly Uint8Array[]
}

interface Unfinished {
  readonly messageId: number
  readonly total: number
  readonly pieces: Map<number, { readonly opened: Opened; readonly digest: Uint8Array }>
  readonly deadline: Instant
  octets: number
}

export class Reassembly {
  #unfinished: Unfinished | undefined

  /** When the unfinished message is to be forgotten. */
  get deadline(): Instant | undefined {
    return this.#unfinished?.deadline
  }

  /**
   * Takes an authentic datagram of the message ID that is expected. Undefined: pieces are missing.
   * @throws PeerFault for a piece that cannot belong to the message, or when it would become too large
   */
  take(messageId: number, opened: Opened, digest: Uint8Array, now: Instant): Message | undefined {
    const { fragment } = opened
    if (fragment === undefined) {
      this.clear()
      return { ...opened, digests: [digest] }
    }
    const set = this.#setFor(messageId, fragment.total, now)
    if (set.pieces.has(fragment.number)) return undefined
    set.octets += opened.plaintext.length
    if (set.octets > MAX_OCTETS) {
      this.clear()
      throw protocolFault('fragment', `a fragmented message of more than ${MAX_OCTETS} octets`)
    }
    // A copy: the datagram is the caller's.
    const kept = { ...opened, plaintext: opened.plaintext.slice(), front: opened.front.slice() }
    set.pieces.set(fragment.number, { opened: kept, digest })
    if (set.pieces.size < set.total) return undefined
    this.clear()
    const pieces = Array.from({ length: set.total }, (_, index) => set.pieces.get(index + 1)!)
    return {
      ...pieces[0]!.opened,
      plaintext: concat(...pieces.map((piece) => piece.opened.plaintext)),
      digests: pieces.map((piece) => piece.digest),
    }
  }

  clear(): void {
    this.#unfinished = undefined
  }

  /**
   * RFC 7383 section 2.6: a peer may cut the message again into smaller, and so more, pieces. Those of before are
   * dropped then; fewer pieces than known are an old datagram that was late.
   */
  #setFor(messageId: number, total: number, now: Instant): Unfinished {
    if (total > MAX_FRAGMENTS) throw protocolFault('fragment', `a message of ${total} fragments`)
    const known = this.#unfinished
    if (known?.messageId === messageId) {
      if (total === known.total) return known
      if (total < known.total) throw protocolFault('fragment', `${total} fragments that were ${known.total}`)
    }
    const deadline = known?.messageId === messageId ? known.deadline : after(now, PATIENCE)
    this.#unfinished = { messageId, total, pieces: new Map(), deadline, octets: 0 }
    return this.#unfinished
  }
}
