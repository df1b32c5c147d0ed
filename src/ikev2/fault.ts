import type { ErrorCode } from '#base/errors'
import type { Refusal } from '#ikev2/counters'
import { NOTIFY } from '#ikev2/numbers'
import { DecodeError } from '#wire/cursor'

/**
 * The peer did something we do not accept. Thrown by the code of an exchange and caught at one door
 * (`IkeSa.receive`, `IkeEngine.handle`): it never leaves the engine. A defect of ours is never a `PeerFault`.
 */
export class PeerFault extends Error {
  readonly code: ErrorCode
  /** The name under which it is counted. */
  readonly counter: Refusal
  /** What to tell the peer, where the exchange has a place for it. */
  readonly notify: ErrorNotify | undefined

  constructor(code: ErrorCode, counter: Refusal, detail: string, notify?: ErrorNotify) {
    super(detail)
    this.name = 'PeerFault'
    this.code = code
    this.counter = counter
    this.notify = notify
  }
}

export interface ErrorNotify {
  readonly type: number
  readonly data?: Uint8Array
}

/** The message does not follow its format, or lacks a payload. */
export const malformed = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_MALFORMED', 'malformed', detail, { type: NOTIFY.number.INVALID_SYNTAX })

/** The peer did not prove who it is. The reason is ours alone: the wire says AUTHENTICATION_FAILED. */
export const authFailed = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_AUTH_FAILED', 'auth-failed', detail, { type: NOTIFY.number.AUTHENTICATION_FAILED })

export const noProposal = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_NO_PROPOSAL', 'no-proposal', detail, { type: NOTIFY.number.NO_PROPOSAL_CHOSEN })

export const tsUnacceptable = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_TS_UNACCEPTABLE', 'ts-unacceptable', detail, { type: NOTIFY.number.TS_UNACCEPTABLE })

/** Well-formed, and against the rules of the exchange. */
export const protocolFault = (counter: Refusal, detail: string): PeerFault =>
  new PeerFault('IPP_IKE_PROTOCOL', counter, detail, { type: NOTIFY.number.INVALID_SYNTAX })

/** Whatever a peer's octets made us throw, as a fault of the peer. @throws a defect of ours, as it is */
export function asFault(error: unknown): PeerFault {
  if (error instanceof PeerFault) return error
  if (error instanceof DecodeError) return malformed(error.message)
  throw error
}

/** What the peer's error notify means to whoever asked for the SA. */
export function faultOfNotify(type: number): PeerFault {
  const name = NOTIFY.nameOf(type)
  const { number } = NOTIFY
  switch (type) {
    case number.NO_PROPOSAL_CHOSEN:
    case number.INVALID_KE_PAYLOAD:
      return new PeerFault('IPP_IKE_NO_PROPOSAL', 'peer-refused', `the peer answered ${name}`)
    case number.AUTHENTICATION_FAILED:
      return new PeerFault('IPP_IKE_REFUSED', 'peer-refused', `the peer answered ${name}`)
    case number.INTERNAL_ADDRESS_FAILURE:
    case number.FAILED_CP_REQUIRED:
      return new PeerFault('IPP_IKE_ADDRESS_REFUSED', 'peer-refused', `the peer answered ${name}`)
    case number.TS_UNACCEPTABLE:
    case number.SINGLE_PAIR_REQUIRED:
      return new PeerFault('IPP_IKE_TS_UNACCEPTABLE', 'peer-refused', `the peer answered ${name}`)
    default:
      return new PeerFault('IPP_IKE_PROTOCOL', 'peer-refused', `the peer answered ${name}`)
  }
}
