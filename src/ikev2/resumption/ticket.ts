/**
 * What a responder gives away sealed and gets back when a session is resumed (RFC 5723 section 5, "ticket by value"),
 * and what an initiator keeps beside the sealed octets. The format is the responder's own affair: nobody else opens it.
 *
 *     version (1) | cipher (1) | PRF (1) | group (2) | additional (2) | full transcript (1) | session (8)
 *     since (8) | connected (8) | octets (8) | expires (8)
 *     IDi type (1) | length (2) | data | key length (2) | key | SK_d length (1) | SK_d
 */
import { wipe } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import type { Duration, Instant } from '#base/time'
import { HASH_LENGTH, type HashName } from '#crypto/provider'
import type { EspCipher } from '#crypto/suites'
import type { ExpectedPeer, IkeId, PeerIdentity } from '#ikev2/events'
import type { IkeSuite } from '#ikev2/proposal'
import type { Usage } from '#ikev2/resumption/strategy'
import { Reader, Writer } from '#wire/cursor'

/** What an initiator needs to resume. Whoever drops it wipes it. */
export interface ResumptionTicket {
  /** Sealed for the responder. In the clear on the wire when it is used, and so good for one use. */
  readonly opaque: Uint8Array
  /** SK_d of the IKE SA it was given on. */
  readonly skD: Uint8Array
  readonly suite: IkeSuite
  /** AUTH covers both messages of the exchange that begins an IKE SA (transcript.ts). */
  readonly fullTranscript: boolean
  /** Who gave it, and the only one that gets it. */
  readonly peer: ExpectedPeer
  /** Who we said that we are: the same again (RFC 5723 section 4.3.3). */
  readonly id: IkeId
  readonly expires: Instant
}

export const wipeTicket = (ticket: ResumptionTicket | undefined): void => wipe(ticket?.skD, ticket?.opaque)

/** What a responder knows of a session that may be resumed. */
export interface Grant {
  readonly skD: Uint8Array
  readonly suite: IkeSuite
  /** As in `ResumptionTicket`: neither side says it again. */
  readonly fullTranscript: boolean
  readonly peer: PeerIdentity
  /** IDi of the peer, whether or not it proves anything. */
  readonly id: IkeId
  /** The session it was given on: over, should it still exist when its ticket comes back. */
  readonly session: IkeSaId
  readonly usage: Usage
  readonly expires: Instant
}

const VERSION = 2
const CIPHERS: readonly EspCipher[] = ['aes-256-gcm-16', 'chacha20-poly1305', 'aes-128-gcm-16']
const PRFS: readonly HashName[] = ['sha256', 'sha384', 'sha512']
/** In place of an additional key exchange. */
const NONE = 0

export function encodeGrant(grant: Grant): Uint8Array {
  const { skD, suite, fullTranscript, peer, id, session, usage, expires } = grant
  const key = peer.kind === 'key' ? peer.publicKey : new Uint8Array(0)
  const writer = new Writer(64 + id.data.length + key.length + skD.length)
    .u8(VERSION)
    .u8(CIPHERS.indexOf(suite.cipher))
    .u8(PRFS.indexOf(suite.prf))
    .u16(suite.group)
    .u16(suite.additional ?? NONE)
    .u8(fullTranscript ? 1 : 0)
  writer.bytes(encodeNumbers([session, usage.since, usage.connected, usage.octets, expires]))
  return writer
    .u8(id.type)
    .u16(id.data.length)
    .bytes(id.data)
    .u16(key.length)
    .bytes(key)
    .u8(skD.length)
    .bytes(skD)
    .finish()
}

/** @throws DecodeError: not one that we made. The caller has authenticated it, so that is a defect of ours. */
export function decodeGrant(bytes: Uint8Array): Grant {
  const reader = new Reader(bytes, 'ticket')
  const version = reader.u8()
  if (version !== VERSION) reader.fail(`version ${version}`)
  const cipher = CIPHERS[reader.u8()]
  const prf = PRFS[reader.u8()]
  const group = reader.u16()
  const additional = reader.u16()
  const fullTranscript = reader.u8() === 1
  const [session, since, connected, octets, expires] = decodeNumbers(reader.bytes(5 * NUMBER_LENGTH))
  const id: IkeId = { type: reader.u8(), data: reader.bytes(reader.u16()).slice() }
  const publicKey = reader.bytes(reader.u16()).slice()
  const skD = reader.bytes(reader.u8()).slice()
  reader.end()
  if (cipher === undefined || prf === undefined) return reader.fail('unknown algorithms')
  return {
    skD,
    suite: {
      cipher,
      prf,
      prfLength: HASH_LENGTH[prf],
      group,
      ...(additional === NONE ? {} : { additional }),
    },
    fullTranscript,
    peer: publicKey.length === 0 ? { kind: 'none' } : { kind: 'key', id, publicKey },
    id,
    session: session as IkeSaId,
    usage: { since: since as Instant, connected: connected as Duration, octets },
    expires: expires as Instant,
  }
}

type Numbers = readonly [session: number, since: number, connected: number, octets: number, expires: number]

function encodeNumbers(values: Numbers): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * NUMBER_LENGTH))
  values.forEach((value, i) => {
    view.setFloat64(i * NUMBER_LENGTH, value)
  })
  return new Uint8Array(view.buffer)
}

function decodeNumbers(bytes: Uint8Array): Numbers {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const at = (i: number): number => view.getFloat64(i * NUMBER_LENGTH)
  return [at(0), at(1), at(2), at(3), at(4)]
}

const NUMBER_LENGTH = 8
