/**
 * Which nodes a client enters by. An entry knows who the client is, so a client that drew another one for every
 * circuit would sooner or later draw the attacker's, and one who can break circuits decides how soon. So a few are
 * drawn once and kept for months, as Tor does (guard-spec, proposal 271, of which this keeps the names):
 *
 *     sampled     drawn by bandwidth weight, SAMPLE of them; kept also while the consensus does not list them
 *     confirmed   sampled, and a first hop was built to it once; these come first, in that order
 *     primary     the first of them that is listed and not down
 *
 * Only hop 1 itself speaks against a guard: three times in a row, then it rests, longer each time, and the next one of
 * the sample stands in. What breaks further inside does not count, unless nothing ever succeeds inside.
 *
 * A guard expires: after LIFETIME, or when it has not been listed for UNLISTED. Else old guards, which have the most
 * clients, would have ever more. Days are those of the consensus; the day each expires is drawn with it, so that a file
 * of guards tells roughly when a client began and not exactly.
 */
import type { NodeId } from '#base/ids'
import { fraction, type Rng } from '#base/rng'
import { after, type Duration, HOUR, type Instant, MINUTE, type UnixTime, unixTime } from '#base/time'
import type { Roster } from '#overlay/roster'

/** What is kept of a guard between runs. The order of a list of them is that of preference. */
export interface SampledGuard {
  readonly nodeId: NodeId
  readonly confirmed: boolean
  readonly expires: UnixTime
  /** The first consensus that did not list it, while none does. */
  readonly unlisted?: UnixTime
}

/** Listed guards to choose from; nobody can make a client use more than these while they are listed. */
export const SAMPLE = 3
/** With those that are not listed any more. */
export const MAX_SAMPLE = 10
/** First hops in a row that must fail before the next guard is tried. */
export const PATIENCE = 3
/** Circuits in a row that break behind hop 1, with different nodes there, are worth one failure of hop 1. */
export const FRUITLESS = 8
const REST_FIRST: Duration = 1 * MINUTE
const REST_MAX: Duration = 1 * HOUR

/** Seconds. Tor's numbers: GUARD_LIFETIME, GUARD_CONFIRMED_MIN_LIFETIME, REMOVE_UNLISTED_GUARDS_AFTER. */
const DAY = 86_400
export const LIFETIME = 120 * DAY
export const CONFIRMED_LIFETIME = 60 * DAY
export const UNLISTED = 20 * DAY

/** Not kept: a client that starts anew asks its guards anew. */
interface Experience {
  failures: number
  fruitless: number
  restsUntil: Instant | undefined
}

export class EntryGuards {
  readonly #rng: Rng
  #sampled: readonly SampledGuard[]
  readonly #experience = new Map<NodeId, Experience>()
  /** The date of the last consensus: this is days, and its clock is everybody's. */
  #today = 0 as UnixTime

  constructor(kept: readonly SampledGuard[], rng: Rng) {
    this.#sampled = kept.slice(0, MAX_SAMPLE)
    this.#rng = rng
  }

  get sampled(): readonly SampledGuard[] {
    return this.#sampled
  }

  /**
   * The guards to try, the primary first; draws what the sample lacks. Those that rest come last: none is worse.
   * @param allowed of a node's index: may it be used at all? Others are kept, but not tried and not drawn
   */
  candidates(
    roster: Roster,
    now: Instant,
    allowed: (index: number) => boolean = () => true,
  ): readonly NodeId[] {
    const usable = (nodeId: NodeId): boolean => {
      const index = roster.find(nodeId)
      return index !== undefined && isEntry(roster, nodeId) && allowed(index)
    }
    this.#today = roster.consensus.validAfter
    this.#expire(roster)
    this.#fill(roster, usable)
    const restOf = (nodeId: NodeId): number => {
      const until = this.#experience.get(nodeId)?.restsUntil
      return until === undefined || until <= now ? 0 : until
    }
    return this.#sampled
      .map(({ nodeId }) => nodeId)
      .filter(usable)
      .sort((a, b) => restOf(a) - restOf(b))
  }

  /** One that was chosen otherwise, because no path begins at any of the sample. False: there is no room for it. */
  adopt(nodeId: NodeId): boolean {
    if (this.#isSampled(nodeId)) return true
    if (this.#sampled.length >= MAX_SAMPLE) return false
    this.#sampled = [...this.#sampled, this.#drawn(nodeId)]
    return true
  }

  /** A first hop to it was built. */
  succeeded(nodeId: NodeId): void {
    const experience = this.#experience.get(nodeId)
    if (experience !== undefined) {
      experience.failures = 0
      experience.restsUntil = undefined
    }
    const guard = this.#sampled.find((each) => each.nodeId === nodeId)
    if (guard === undefined || guard.confirmed) return
    const expires = unixTime(Math.max(guard.expires, this.#today + CONFIRMED_LIFETIME))
    const [confirmed, others] = [true, false].map((is) => this.#sampled.filter((g) => g.confirmed === is))
    this.#sampled = [
      ...confirmed!,
      { ...guard, confirmed: true, expires },
      ...others!.filter((each) => each !== guard),
    ]
  }

  /** A circuit through it opened. */
  fruitful(nodeId: NodeId): void {
    const experience = this.#experience.get(nodeId)
    if (experience !== undefined) experience.fruitless = 0
  }

  /** A circuit through it broke behind hop 1 before it was open. */
  fruitless(nodeId: NodeId, now: Instant): void {
    if (!this.#isSampled(nodeId)) return
    const experience = this.#experienceOf(nodeId)
    experience.fruitless++
    if (experience.fruitless % FRUITLESS !== 0) return
    experience.failures = Math.max(experience.failures, PATIENCE - 1)
    this.failed(nodeId, now)
  }

  /** Hop 1 could not be built, or was lost. */
  failed(nodeId: NodeId, now: Instant): void {
    if (!this.#isSampled(nodeId)) return
    const experience = this.#experienceOf(nodeId)
    experience.failures++
    const beyond = experience.failures - PATIENCE
    if (beyond < 0) return
    experience.restsUntil = after(now, Math.min(REST_FIRST * 2 ** beyond, REST_MAX))
  }

  /** Those that rest, and until when. */
  resting(now: Instant): { readonly nodeId: NodeId; readonly until: Instant }[] {
    const resting = []
    for (const [nodeId, { restsUntil: until }] of this.#experience)
      if (until !== undefined && until > now) resting.push({ nodeId, until })
    return resting
  }

  #isSampled(nodeId: NodeId): boolean {
    return this.#sampled.some((guard) => guard.nodeId === nodeId)
  }

  #experienceOf(nodeId: NodeId): Experience {
    const known = this.#experience.get(nodeId)
    if (known !== undefined) return known
    const fresh: Experience = { failures: 0, fruitless: 0, restsUntil: undefined }
    this.#experience.set(nodeId, fresh)
    return fresh
  }

  /** Somewhere in the last quarter of the longest life, so that not all of a sample end on one day. */
  #drawn(nodeId: NodeId): SampledGuard {
    const expires = unixTime(this.#today + LIFETIME * (1 - fraction(this.#rng) / 4))
    return { nodeId, confirmed: false, expires }
  }

  /** Says since when each is not listed as entry, and forgets those whose time is over. */
  #expire(roster: Roster): void {
    const today = this.#today
    const known = this.#sampled.map((guard): SampledGuard => {
      const { unlisted, ...rest } = guard
      if (isEntry(roster, guard.nodeId)) return unlisted === undefined ? guard : rest
      return unlisted === undefined ? { ...guard, unlisted: today } : guard
    })
    const kept = known.filter(
      ({ expires, unlisted }) => today < expires && (unlisted === undefined || today < unlisted + UNLISTED),
    )
    // Who compares must see that nothing changed.
    if (kept.length === this.#sampled.length && kept.every((guard, i) => guard === this.#sampled[i])) return
    this.#sampled = kept
    this.#forgetOthers()
  }

  #fill(roster: Roster, usable: (nodeId: NodeId) => boolean): void {
    let missing = SAMPLE - this.#sampled.filter(({ nodeId }) => usable(nodeId)).length
    for (; missing > 0; missing--) {
      const index = roster.draw('entry', this.#rng, (candidate) => {
        const { nodeId } = roster.nodes[candidate]!
        return usable(nodeId) && !this.#isSampled(nodeId)
      })
      if (index === undefined) break
      this.#sampled = [...this.#sampled, this.#drawn(roster.nodes[index]!.nodeId)]
    }
    while (this.#sampled.length > MAX_SAMPLE) {
      const gone = this.#sampled.find(({ nodeId }) => !usable(nodeId))
      this.#sampled = this.#sampled.filter((guard) => guard !== gone)
    }
    this.#forgetOthers()
  }

  #forgetOthers(): void {
    for (const nodeId of this.#experience.keys())
      if (!this.#isSampled(nodeId)) this.#experience.delete(nodeId)
  }
}

function isEntry(roster: Roster, nodeId: NodeId): boolean {
  const index = roster.find(nodeId)
  return index !== undefined && roster.weight(index, 'entry') > 0
}
