/**
 * The sessions there are, and which of several lists each is in: half-open ones and those that strangers began, by their
 * neighbourhood; those that are over and repeat their last answer; and when each wants to be woken.
 */
import type { IkeSaId } from '#base/ids'
import { type Instant, TimerTable } from '#base/time'
import type { IkeSa } from '#ikev2/sa'
import type { Session } from '#ikev2/session'
import { Shares } from '#ikev2/shares'

export interface Entry {
  readonly session: Session
  /** The one that IKE_SA_INIT made. */
  readonly first: IkeSa
  /** Where its IKE_SA_INIT came from, with the SPI in it. */
  readonly initKey?: string
  readonly initDigest?: Uint8Array
  /** Whose half-open IKE SA it is, of a responder. */
  readonly group?: string
}

export class Register {
  readonly #limit: number
  readonly #entries = new Map<IkeSaId, Entry>()
  /** By source and SPI of the IKE_SA_INIT request, the last one of its kind: a repeated one is not a new peer. */
  readonly #byInit = new Map<string, Entry>()
  readonly #halfOpen = new Shares<Entry>()
  /** Those that strangers began, half-open or not. */
  readonly #guests = new Shares<Entry>()
  /** In the order in which they ended. */
  readonly #lingering = new Set<Entry>()
  readonly #timers = new TimerTable<Entry>()

  /** `lingering`: how many may repeat their last answer. */
  constructor(lingering: number) {
    this.#limit = lingering
  }

  get(id: IkeSaId): Entry | undefined {
    return this.#entries.get(id)
  }

  begunBy(initKey: string): Entry | undefined {
    return this.#byInit.get(initKey)
  }

  get halfOpen(): number {
    return this.#halfOpen.size
  }

  get guests(): number {
    return this.#guests.size
  }

  get lingering(): number {
    return this.#lingering.size
  }

  /** Has no neighbourhood more guests than this one? */
  hasMostGuests(group: string): boolean {
    return this.#guests.hasMost(group)
  }

  /** The half-open one that has to go so that `group` may have another; undefined: it has as many as anybody. */
  victimFor(group: string): Entry | undefined {
    return this.#halfOpen.victimFor(group)
  }

  expired(now: Instant): Entry[] {
    return this.#timers.expired(now)
  }

  nextTimeout(): Instant | undefined {
    return this.#timers.next()
  }

  add(entry: Entry): void {
    this.#entries.set(entry.session.id, entry)
    if (entry.initKey !== undefined) this.#byInit.set(entry.initKey, entry)
    if (entry.group !== undefined) this.#guests.add(entry.group, entry)
    this.settle(entry)
  }

  /** Follows a session after anything happened to it: which list it is in, and when it wants to be woken. */
  settle(entry: Entry): void {
    const { session } = entry
    const { group = '' } = entry
    if (session.isHalfOpen) this.#halfOpen.add(group, entry)
    else this.#halfOpen.delete(group, entry)
    if (session.isGone) return this.#remove(entry)
    if (session.isOver) this.#linger(entry)
    const at = session.nextTimeout()
    if (at === undefined) this.#timers.clear(entry)
    else this.#timers.set(entry, at)
  }

  #linger(entry: Entry): void {
    this.#lingering.add(entry)
    if (this.#lingering.size <= this.#limit) return
    const [oldest] = this.#lingering
    oldest!.session.abandon()
    this.#remove(oldest!)
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.session.id)
    const { initKey = '' } = entry
    if (this.#byInit.get(initKey) === entry) this.#byInit.delete(initKey)
    const { group = '' } = entry
    this.#halfOpen.delete(group, entry)
    this.#guests.delete(group, entry)
    this.#lingering.delete(entry)
    this.#timers.clear(entry)
  }
}
