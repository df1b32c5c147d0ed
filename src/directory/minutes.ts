/** What an authority remembers of the others, for people: who votes, who signs, what is wrong and since when. Pure. */
import { equalBytes, toHex, utf8 } from '#base/bytes'
import type { UnixTime } from '#base/time'
import type { Authority } from '#directory/authority'
import type { AlarmName } from '#directory/authority-events'
import { openDocument } from '#directory/canonical'
import { identityOf, type Signer } from '#directory/certificate'
import { roundAt, type Schedule, scheduleOf } from '#directory/schedule'
import type { VoteTerms } from '#directory/vote'

/** One of the authorities. */
export interface Member {
  /** For people: 1..19 of [a-z0-9-]. */
  readonly name: string
  /** Ed25519 key by which it is known, 32 octets. */
  readonly key: Uint8Array
  /** `http://address:port`, without a slash at the end. */
  readonly url: string
}

export interface CouncilReport {
  /** Our name. */
  readonly self: string
  readonly threshold: number
  /** The period that is being prepared, or whose document was the last to be. */
  readonly period: number
  readonly schedule: Schedule
  readonly authorities: readonly MemberReport[]
  /** Since when each alarm that was raised lately is raised period after period; `authority` is a name. */
  readonly alarms: readonly StandingAlarm[]
  /** How often each was raised since the start. */
  readonly raised: readonly RaisedAlarm[]
  readonly document: DocumentReport | undefined
}

export interface MemberReport {
  readonly name: string
  readonly key: string
  readonly url: string
  /** Did its vote, roll and signature come for `period`? */
  readonly voted: boolean
  readonly called: boolean
  readonly signed: boolean
  /** The last periods of which something came; 0: none since this start. */
  readonly lastVote: number
  readonly lastSignature: number
  /** Since when it does not answer; undefined: it does, or is ourselves. */
  readonly silentSince: UnixTime | undefined
  /** Seconds by which its clock is ahead of ours, give or take one; undefined: it never answered. */
  readonly clockSkew: number | undefined
}

export interface StandingAlarm {
  readonly name: AlarmName
  readonly authority: string | undefined
  readonly since: UnixTime
  readonly last: UnixTime
  /** Periods. */
  readonly count: number
}

export interface RaisedAlarm {
  readonly name: AlarmName
  readonly authority: string | undefined
  readonly total: number
}

export interface DocumentReport {
  readonly serial: number
  readonly nodes: number
  readonly validAfter: UnixTime
  readonly freshUntil: UnixTime
  readonly validUntil: UnixTime
  /** Names. */
  readonly signers: readonly string[]
}

export interface MinutesOptions {
  readonly key: Signer
  readonly members: readonly Member[]
  readonly threshold: number
  readonly terms: VoteTerms
}

export class Minutes {
  #options: MinutesOptions
  readonly #alarms = new Map<string, StandingAlarm>()
  readonly #raised = new Map<string, RaisedAlarm>()
  /** Seconds, by name. */
  readonly #skews = new Map<string, number>()
  /** By name. */
  readonly #silent = new Map<string, UnixTime>()
  readonly #lastVotes = new Map<string, number>()
  readonly #lastSignatures = new Map<string, number>()

  constructor(options: MinutesOptions) {
    this.#options = options
  }

  /** The network has other authorities now; what was remembered of those who stay is remembered. */
  reseat(members: readonly Member[], threshold: number): void {
    this.#options = { ...this.#options, members, threshold }
    for (const seen of [this.#skews, this.#silent])
      for (const name of seen.keys()) if (!members.some((member) => member.name === name)) seen.delete(name)
  }

  /** Our own name. */
  get self(): string {
    return this.nameOf(identityOf(this.#options.key)) ?? ''
  }

  memberOf(key: Uint8Array): Member | undefined {
    return this.#options.members.find((member) => equalBytes(member.key, key))
  }

  nameOf(key: Uint8Array | undefined): string | undefined {
    return key === undefined ? undefined : this.memberOf(key)?.name
  }

  alarm({ name, author }: { readonly name: AlarmName; readonly author?: Uint8Array }, now: UnixTime): void {
    const authority = this.nameOf(author)
    const id = `${name} ${authority ?? ''}`
    const before = this.#alarms.get(id)
    const stands = before !== undefined && now - before.last <= 2 * this.#options.terms.length
    const since = stands ? before.since : now
    this.#raised.set(id, { name, authority, total: (this.#raised.get(id)?.total ?? 0) + 1 })
    this.#alarms.set(id, { name, authority, since, last: now, count: stands ? before.count + 1 : 1 })
  }

  /** Whether it answered just now. */
  reached({ name }: Member, answered: boolean, now: UnixTime): void {
    if (answered) this.#silent.delete(name)
    else if (!this.#silent.has(name)) this.#silent.set(name, now)
  }

  /** What its clock says, as seconds ahead of ours. */
  dated({ name }: Member, skew: number): void {
    this.#skews.set(name, skew)
  }

  /** Who was heard of. To be called a few times in a period. */
  note(machine: Authority | undefined, now: UnixTime): void {
    const current = roundAt(now, this.#options.terms.length)
    for (const period of [current - 1, current]) {
      const heard = machine?.heard(period)
      for (const author of heard?.votes ?? []) this.#lastVotes.set(author, period)
      for (const author of heard?.signatures ?? []) this.#lastSignatures.set(author, period)
    }
  }

  report(machine: Authority | undefined, now: UnixTime): CouncilReport {
    const { members, threshold, terms } = this.#options
    const period = roundAt(now, terms.length)
    this.note(machine, now)
    const heard = machine?.heard(period)
    return {
      self: this.self,
      threshold,
      period,
      schedule: scheduleOf(period, terms.length),
      authorities: members.map(({ name, key, url }) => {
        const id = toHex(key)
        return {
          name,
          key: id,
          url,
          voted: heard?.votes.has(id) ?? false,
          called: heard?.rolls.has(id) ?? false,
          signed: heard?.signatures.has(id) ?? false,
          lastVote: this.#lastVotes.get(id) ?? 0,
          lastSignature: this.#lastSignatures.get(id) ?? 0,
          silentSince: this.#silent.get(name),
          clockSkew: this.#skews.get(name),
        }
      }),
      alarms: [...this.#alarms.values()].filter(({ last }) => now - last <= 2 * terms.length),
      raised: [...this.#raised.values()],
      document: this.#document(machine),
    }
  }

  #document(machine: Authority | undefined): DocumentReport | undefined {
    const held = machine?.document
    if (held === undefined) return undefined
    const { serial, nodes, validAfter, freshUntil, validUntil } = held.consensus
    const envelope = openDocument('consensus', utf8(held.text))
    const keys = envelope.ok
      ? envelope.value.signatures.map(({ key, certificate }) => certificate?.identity ?? key)
      : []
    const signers = keys.flatMap((key) => this.nameOf(key) ?? [])
    return { serial, nodes: nodes.length, validAfter, freshUntil, validUntil, signers }
  }
}
