/**
 * When to repeat a request and when to give up (RFC 7296 section 2.4).
 *
 * A message of hop n is lost if any of the tunnels below loses it, so the first timeout follows the round-trip
 * time measured on this IKE SA, and a deeper hop starts with a longer one.
 */
import { jittered, type Rng } from '#base/rng'
import { after, type Duration, type Instant, SECOND } from '#base/time'

const FIRST_TIMEOUT: Duration = SECOND
const TIMEOUT_CAP: Duration = 30 * SECOND
const BACKOFF = 2
/** Of a timeout, to either side: two clients that lost a packet together do not repeat together. */
const JITTER = 0.1
/** The first timeout, in smoothed round-trip times. */
const RTT_MULTIPLE = 4
/** Weight of a new sample (RFC 6298 section 2.3). */
const SMOOTHING = 1 / 8

/** The smoothed round-trip time of one IKE SA. */
export class RoundTrip {
  readonly #floor: Duration
  #smoothed: Duration | undefined

  /** `floor` bounds the first timeout from below. */
  constructor(floor: Duration = FIRST_TIMEOUT) {
    this.#floor = floor
  }

  /** Takes a sample. Exchanges that were retransmitted give none (Karn's rule). */
  sample(duration: Duration): void {
    this.#smoothed =
      this.#smoothed === undefined ? duration : this.#smoothed + SMOOTHING * (duration - this.#smoothed)
  }

  firstTimeout(): Duration {
    return Math.min(TIMEOUT_CAP, Math.max(this.#floor, RTT_MULTIPLE * (this.#smoothed ?? 0)))
  }
}

/** The life of one request: transmitted at once, repeated with growing pauses, given up in the end. */
export class Retransmission {
  readonly #started: Instant
  readonly #rng: Rng
  #giveUpAt: Instant
  #timeout: Duration
  #next: Instant
  #transmissions = 1

  constructor(rng: Rng, firstTimeout: Duration, patience: Duration, now: Instant) {
    this.#rng = rng
    this.#started = now
    this.#giveUpAt = after(now, patience)
    this.#timeout = firstTimeout
    this.#next = this.#plan(now)
  }

  get started(): Instant {
    return this.#started
  }

  get transmissions(): number {
    return this.#transmissions
  }

  /** When `due` has something to say. */
  get deadline(): Instant {
    return Math.min(this.#next, this.#giveUpAt) as Instant
  }

  due(now: Instant): 'repeat' | 'give up' | undefined {
    if (now >= this.#giveUpAt) return 'give up'
    if (now < this.#next) return undefined
    this.#transmissions++
    this.#timeout = Math.min(TIMEOUT_CAP, this.#timeout * BACKOFF)
    this.#next = this.#plan(now)
    return 'repeat'
  }

  /** Leaves at most `patience` from now. */
  hurry(patience: Duration, now: Instant): void {
    const at = after(now, patience)
    if (at < this.#giveUpAt) this.#giveUpAt = at
  }

  #plan(now: Instant): Instant {
    return after(now, jittered(this.#rng, this.#timeout, JITTER * this.#timeout))
  }
}
