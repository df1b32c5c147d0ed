/**
 * Which nodes a client enters by. An entry knows who the client is, so a client that drew another one for every
 * circuit would sooner or later draw the attacker's, and one who can break circuits decides how soon. So a few are
 * drawn once and kept for good, as Tor does (guard-spec.txt, of which this keeps the names):
 *
 *     sampled     drawn at random, SAMPLE of them; kept also while the consensus does not list them
 *     confirmed   sampled, and a first hop was built to it once; these come first, in that order
 *     primary     the first of them that is listed and not down
 *
 * Only hop 1 itself speaks against a guard: three times in a row, then it rests, longer each time, and the next one of
 * the sample stands in. What breaks further inside does not count, unless nothing ever succeeds inside.
 */
import type { NodeId } from '#base/ids'
import { type Rng, uniform } from '#base/rng'
import { after, type Duration, HOUR, type Instant, MINUTE } from '#base/time'
import type { Consensus } from '#directory/documents'

/** What is kept of a guard between runs. The order of a list of them is that of preference. */
export interface SampledGuard {
  readonly nodeId: NodeId
  readonly confirmed: boolean
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

  constructor(kept: readonly SampledGuard[], rng: Rng) {
    this.#sampled = kept.slice(0, MAX_SAMPLE)
    this.#rng = rng
  }

  get sampled(): readonly SampledGuard[] {
    return this.#sampled
  }

  /** The guards to try, the primary first; draws what the sample lacks. Those that rest come last: none is worse. */
  candidates(consensus: Consensus, now: Instant): readonly NodeId[] {
    const entries = entriesOf(consensus)
    this.#fill(entries)
    const listed = this.#sampled.map(({ nodeId }) => nodeId).filter((nodeId) => entries.includes(nodeId))
    const restOf = (nodeId: NodeId): number => {
      const until = this.#experience.get(nodeId)?.restsUntil
      return until === undefined || until <= now ? 0 : until
    }
    return listed.sort((a, b) => restOf(a) - restOf(b))
  }

  /** One that was chosen otherwise, because no path begins at any of the sample. False: there is no room for it. */
  adopt(nodeId: NodeId): boolean {
    if (this.#isSampled(nodeId)) return true
    if (this.#sampled.length >= MAX_SAMPLE) return false
    this.#sampled = [...this.#sampled, { nodeId, confirmed: false }]
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
    const [confirmed, others] = [true, false].map((is) => this.#sampled.filter((g) => g.confirmed === is))
    this.#sampled = [...confirmed!, { nodeId, confirmed: true }, ...others!.filter((each) => each !== guard)]
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

  #fill(entries: readonly NodeId[]): void {
    const isListed = ({ nodeId }: SampledGuard): boolean => entries.includes(nodeId)
    const others = entries.filter((nodeId) => !this.#isSampled(nodeId))
    let missing = SAMPLE - this.#sampled.filter(isListed).length
    for (; missing > 0 && others.length > 0; missing--) {
      const [nodeId] = others.splice(uniform(this.#rng, others.length), 1)
      this.#sampled = [...this.#sampled, { nodeId: nodeId!, confirmed: false }]
    }
    while (this.#sampled.length > MAX_SAMPLE) {
      const gone = this.#sampled.find((guard) => !isListed(guard))
      this.#sampled = this.#sampled.filter((guard) => guard !== gone)
      if (gone !== undefined) this.#experience.delete(gone.nodeId)
    }
  }
}

const entriesOf = ({ nodes }: Consensus): NodeId[] =>
  nodes.filter(({ roles }) => roles.includes('entry')).map(({ nodeId }) => nodeId)
