/**
 * Keeps a daemon's view of the network current: publishes our descriptor (nodes), fetches the consensus, and
 * says so. Of several authorities a document is asked for when it is due (asking.ts). A directory that decides alone makes
 * one as soon as a node comes or changes: young networks do so by the second, old ones by the hour, so the pace slows
 * down with age. And it slows down with every failure, or a directory that comes back would be knocked over by all
 * who wait for it.
 */
import { type Failure, toError } from '#base/result'
import { jittered, type Rng } from '#base/rng'
import { type Duration, MINUTE, SECOND, type UnixTime } from '#base/time'
import { dueAt } from '#daemon/asking'
import type { DirectoryClient } from '#directory/client'
import type { Consensus } from '#directory/documents'

export interface DirectorySyncOptions {
  readonly client: Pick<DirectoryClient, 'current' | 'fetchConsensus' | 'publish'>
  readonly rng: Rng
  readonly unixTime: () => UnixTime
  /** Documents come at fixed times: they are made by several authorities. */
  readonly isScheduled: boolean
  /** A fresh signed descriptor, for nodes. */
  readonly descriptor?: () => string
  onConsensus(consensus: Consensus): void
  /** Said once per outage, and once when it ends. */
  onTrouble(line: string): void
  onRecovered(): void
}

/** For the first half minute ask every second, then rarely. */
const YOUNG: Duration = 30 * SECOND
const PACE_YOUNG: Duration = 1 * SECOND
const PACE_OLD: Duration = 1 * MINUTE
/** Of short periods this share is old, or documents would expire unseen. */
const PACE_SHARE = 8
/** While authorities have made no document yet. */
const PACE_NO_DOCUMENT: Duration = 5 * SECOND
/** Each failure makes the next attempt later, up to this. */
const PACE_TROUBLED_MAX: Duration = 2 * MINUTE
const BACKOFF = 1.5
/** Until a consensus says how long a descriptor stays fresh. */
const PUBLISH_AT_FIRST: Duration = 30 * MINUTE

export class DirectorySync {
  readonly #options: DirectorySyncOptions
  readonly #started = performance.now()
  #published = Number.NEGATIVE_INFINITY
  #publishEvery = PUBLISH_AT_FIRST
  #timer: NodeJS.Timeout | undefined
  #troubled = false
  #backoff: Duration = PACE_YOUNG
  #paceOld = PACE_OLD
  #warnedUnkept = false
  /** When the successor of a document is asked for. */
  #due: { readonly serial: number; readonly at: UnixTime } | undefined
  /** How often in a row it was not there yet. */
  #early = 0
  readonly #ending = new AbortController()

  constructor(options: DirectorySyncOptions) {
    this.#options = options
  }

  start(): void {
    void this.#turn()
  }

  end(): void {
    this.#ending.abort()
    clearTimeout(this.#timer)
  }

  async #turn(): Promise<void> {
    // A node that is refused needs the consensus all the same.
    const unpublished = await this.#publish()
    const failed = (await this.#fetch()) ?? unpublished
    if (this.#ending.signal.aborted) return
    if (failed === undefined && this.#troubled) this.#options.onRecovered()
    if (failed !== undefined && !this.#troubled) this.#options.onTrouble(toError(failed).line)
    this.#troubled = failed !== undefined
    this.#backoff = this.#troubled ? Math.min(BACKOFF * this.#backoff, PACE_TROUBLED_MAX) : PACE_YOUNG
    if (failed?.code === 'IPP_DIR_NO_DOCUMENT') this.#backoff = Math.min(this.#backoff, PACE_NO_DOCUMENT)
    this.#timer = setTimeout(() => void this.#turn(), this.#pace())
  }

  async #publish(): Promise<Failure | undefined> {
    const { client, descriptor } = this.#options
    if (descriptor === undefined || performance.now() - this.#published < this.#publishEvery) return undefined
    const answer = await client.publish(descriptor(), this.#ending.signal)
    if (!answer.ok) return answer
    this.#published = performance.now()
    return undefined
  }

  async #fetch(): Promise<Failure | undefined> {
    if (this.#untilDue() > 0) return undefined
    const answer = await this.#options.client.fetchConsensus()
    if (this.#ending.signal.aborted) return undefined
    if (!answer.ok) return answer
    const { kind, consensus, unkept } = answer.value
    this.#early = kind === 'new' ? 0 : this.#early + 1
    if (kind === 'new') {
      // A descriptor must be renewed well before it falls out, three periods after it was made.
      const period = (consensus.freshUntil - consensus.validAfter) * SECOND
      this.#publishEvery = period / 2
      this.#paceOld = Math.min(PACE_OLD, Math.max(PACE_YOUNG, period / PACE_SHARE))
      this.#options.onConsensus(consensus)
    }
    if (unkept !== undefined && !this.#warnedUnkept) {
      this.#warnedUnkept = true
      this.#options.onTrouble(toError(unkept).line)
    }
    return undefined
  }

  #pace(): Duration {
    const { rng, client, isScheduled } = this.#options
    const age = performance.now() - this.#started
    const healthy = age < YOUNG ? PACE_YOUNG : this.#paceOld
    // By the calendar, which may jump: so it is looked at again and again, without asking anybody.
    const due = this.#untilDue()
    if (!this.#troubled && due > 0) return Math.min(due, jittered(rng, healthy, healthy / 5))
    const waiting = Math.min(PACE_YOUNG * BACKOFF ** this.#early, this.#paceOld)
    const pace = this.#troubled ? this.#backoff : isScheduled && client.current ? waiting : healthy
    return jittered(rng, pace, pace / 5)
  }

  /** Until the document should be asked for; 0: now. */
  #untilDue(): Duration {
    const { client, rng, unixTime, descriptor, isScheduled } = this.#options
    const { current } = client
    if (!isScheduled || current === undefined) return 0
    if (this.#due?.serial !== current.serial) {
      const at = dueAt(current, descriptor === undefined ? 'client' : 'node', rng)
      this.#due = { serial: current.serial, at }
    }
    return Math.max(0, (this.#due.at - unixTime()) * SECOND)
  }
}
