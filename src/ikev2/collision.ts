/** Exchanges of both sides that cross (RFC 7296 sections 2.8.1 and 2.25): who gives way, and when to try again. */
import { jittered, type Rng } from '#base/rng'
import { type Duration, SECOND } from '#base/time'
import { NOTIFY } from '#ikev2/numbers'

export interface NoncePair {
  readonly ni: Uint8Array
  readonly nr: Uint8Array
}

/** Of two exchanges that did the same, the one with the lowest of the four nonces was in vain. Is it ours? */
export const loses = (ours: NoncePair, theirs: NoncePair): boolean =>
  compare(lowest(ours), lowest(theirs)) < 0

/** An answer that a rekey may well not get the next time (RFC 7296 section 2.25, RFC 9370 section 2.2.4). */
export const isPassing = (type: number): boolean =>
  type === NOTIFY.number.TEMPORARY_FAILURE || type === NOTIFY.number.STATE_NOT_FOUND

/**
 * How long to wait after a TEMPORARY_FAILURE, the `attempt`-th in a row (from 0); undefined: a few minutes have passed
 * and the peer must be confused. Both sides may have been told so at once: the jitter parts them.
 */
export function retryPause(rng: Rng, attempt: number): Duration | undefined {
  if (attempt >= MAX_RETRIES) return undefined
  const mean = Math.min(RETRY_CAP, RETRY_FIRST * 2 ** attempt)
  return jittered(rng, mean, RETRY_JITTER * mean)
}

const RETRY_FIRST: Duration = 2 * SECOND
const RETRY_CAP: Duration = 30 * SECOND
const RETRY_JITTER = 0.5
const MAX_RETRIES = 12

const lowest = ({ ni, nr }: NoncePair): Uint8Array => (compare(ni, nr) < 0 ? ni : nr)

/** Octet by octet; a prefix of the other is the lower one. */
function compare(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
  return a.length - b.length
}
