/**
 * How many circuits stand ready, and when the one in use makes way for one of them. Decisions only; `client.ts` acts.
 *
 * A schedule that is the same for every client and does not look at what its user does says nothing about him. It has
 * jitter, or one who sees two ends change at once could count clients by it.
 */
import { jittered, type Rng } from '#base/rng'
import { after, type Duration, HOUR, type Instant, MINUTE, SECOND } from '#base/time'

export interface ReserveOptions {
  /** Circuits that stand ready at most; 0: none, and nothing is rotated. */
  readonly spares: number
  /** For how long a circuit gets new connections; 0: as long as it lives. */
  readonly rotation: Duration
}

/** A client that lost its circuit so often lately keeps one more ready than otherwise. */
const LOSSES = 2
const LATELY: Duration = 10 * MINUTE
/** For connections that began on a circuit, after it got the last one. */
const LINGER: Duration = 4 * HOUR
/** Then it goes on for those that last longer: until nothing came for so long, */
const QUIET: Duration = 30 * MINUTE
/** and no longer than this after it got the last one. */
const LONGEST: Duration = 24 * HOUR
/** Of circuits that linger the quietest are closed: a node lends no more addresses to one client than this. */
export const MAX_RETIRED = 8
/** A spare that stood by for so long is replaced: its nodes may have become others' favourites. */
const SPARE_LIFE: Duration = HOUR
const RETRY_FIRST: Duration = 2 * SECOND
const RETRY_MAX: Duration = 5 * MINUTE

export class Reserve {
  readonly #options: ReserveOptions
  readonly #rng: Rng
  #losses: Instant[] = []
  #backoff = RETRY_FIRST

  constructor(options: ReserveOptions, rng: Rng) {
    this.#options = options
    this.#rng = rng
  }

  /** One is enough while circuits last; where they break, the next may break as well. */
  wanted(now: Instant): number {
    this.#losses = this.#losses.filter((at) => after(at, LATELY) > now)
    return Math.min(this.#options.spares, this.#losses.length >= LOSSES ? 2 : 1)
  }

  /** A circuit in use broke. */
  lost(now: Instant): void {
    this.#losses = [...this.#losses, now].slice(-LOSSES)
  }

  /** Until when one that is in use from now on gets new connections. */
  rotationAt(now: Instant): Instant | undefined {
    const { rotation, spares } = this.#options
    return rotation === 0 || spares === 0 ? undefined : this.#around(now, rotation)
  }

  /** When one that gets no new connections from now on is looked at, and how long it may go on at the very most. */
  retirementAt(now: Instant): { readonly look: Instant; readonly end: Instant } {
    return { look: this.#around(now, LINGER), end: this.#around(now, LONGEST) }
  }

  /** Its time is over: until when it goes on all the same, for what is heard on it; undefined: it ends now. */
  prolongedTo(heardAt: Instant | undefined, end: Instant, now: Instant): Instant | undefined {
    const until = heardAt === undefined ? now : Math.min(after(heardAt, QUIET), end)
    return until > now ? (until as Instant) : undefined
  }

  replacementAt(now: Instant): Instant {
    return this.#around(now, SPARE_LIFE)
  }

  /** A spare could not be built. */
  retryAt(now: Instant): Instant {
    const at = this.#around(now, this.#backoff)
    this.#backoff = Math.min(2 * this.#backoff, RETRY_MAX)
    return at
  }

  built(): void {
    this.#backoff = RETRY_FIRST
  }

  #around(now: Instant, mean: Duration): Instant {
    return after(now, jittered(this.#rng, mean, mean / 4))
  }
}
