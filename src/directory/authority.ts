/**
 * One of n authorities, as a machine: bytes and the time go in, effects come out. It takes descriptors, votes, exchanges
 * votes and signatures by the schedule, and holds the document that t of them signed.
 *
 * What it says to others is kept first (`keep` comes before `tell`): after a crash it must not vote or sign a second time,
 * or an honest authority would be taken for one that lies. For the same reason it sits out a period in the middle of which
 * it was started, and takes the document from others.
 */
import { equalBytes, toHex, utf8 } from '#base/bytes'
import type { ErrorCode } from '#base/errors'
import type { NodeId } from '#base/ids'
import type { Ip } from '#base/ip'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type {
  AlarmName,
  AuthorityEffect,
  AuthorityRecord,
  HeardFrom,
  HeldDocument,
  KeptState,
  MessageKind,
  Question,
} from '#directory/authority-events'
import { draftVote } from '#directory/ballot'
import { signBody } from '#directory/canonical'
import { Census } from '#directory/census'
import { identityOf, type Signer } from '#directory/certificate'
import { bodyOf, type ListedNode, verifyConsensus } from '#directory/consensus'
import { Counters } from '#directory/counters'
import { CLOCK_TOLERANCE, type NetworkParameters } from '#directory/documents'
import { inquiries } from '#directory/inquiry'
import { type Complaint, joinSignatures, judgeSignatures, judgeVotes } from '#directory/judgement'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { decodeEndorsement, decodeRoll, encodeEndorsement, encodeRoll } from '#directory/roll'
import { type Filed, Round } from '#directory/round'
import { roundAt, scheduleOf, stepOf } from '#directory/schedule'
import { decodeVote, encodeVote, type KnownDescriptors, type VoteTerms } from '#directory/vote'
import { listedWords } from '#directory/words'

export interface AuthorityOptions {
  readonly key: Signer
  /** All of them, this one included. */
  readonly authorities: readonly Uint8Array[]
  /** How many must sign. More than half of them, or two documents could be valid at a time. */
  readonly threshold: number
  readonly terms: VoteTerms
  readonly crypto: CryptoProvider
  /** What it proposes; `DEFAULT_PARAMETERS` unless said otherwise. */
  readonly parameters?: NetworkParameters
  /** Ed25519 keys of those who measure for it. */
  readonly measurers?: readonly Uint8Array[]
  /** What a predecessor kept. */
  readonly kept?: KeptState
  /** Of a predecessor in this process, to go on with. */
  readonly counters?: Counters
}

export class Authority {
  readonly counters: Counters
  #options: AuthorityOptions
  #others: readonly Uint8Array[]
  readonly #step: number
  readonly #census: Census
  /** The one being prepared, and the next, when others are early. */
  readonly #rounds = new Map<number, Round>()
  #known: KnownDescriptors = new Map()
  #document: HeldDocument | undefined
  #voted: number
  #signed: number
  #askedAt = 0
  /** The round in the middle of which it was started: what is missing of that one is not news. */
  #first: number | undefined

  constructor(options: AuthorityOptions) {
    const { authorities, terms, kept, crypto, threshold } = options
    this.#options = options
    this.counters = options.counters ?? new Counters()
    this.#others = othersOf(options)
    this.#step = stepOf(terms.length)
    this.#census = new Census(options, kept?.records)
    this.#voted = kept?.voted ?? 0
    this.#signed = kept?.signed ?? 0
    if (kept?.document === undefined) return
    // Whether it is still valid is looked at when it is served.
    const now = (Number(/"validAfter":(\d+)/.exec(kept.document)?.[1] ?? 0) + 1) as UnixTime
    const verified = verifyConsensus(utf8(kept.document), { authorities, threshold, now }, crypto)
    if (verified.ok) this.#document = { text: kept.document, consensus: verified.value }
  }

  /** The last document that enough authorities signed; it may have expired. */
  get document(): HeldDocument | undefined {
    return this.#document
  }

  get records(): ReadonlyMap<NodeId, AuthorityRecord> {
    return this.#census.records
  }

  /** From whom something came for a period, by keys in hex. Undefined: it is not one of the last two. */
  heard(period: number): HeardFrom | undefined {
    return this.#rounds.get(period)?.heardFrom()
  }

  /** Is nothing being agreed upon? The document of the last period is out, and nobody votes on the next yet. */
  isIdle(now: UnixTime): boolean {
    const { length } = this.#options.terms
    const { start } = scheduleOf(roundAt(now, length), length)
    return now >= start + this.#step
  }

  /** The network has other authorities now, ourselves among them. The document of those before stays until the next. */
  reseat(authorities: readonly Uint8Array[], threshold: number): void {
    this.#options = { ...this.#options, authorities, threshold }
    this.#others = othersOf(this.#options)
    this.counters.add('authorities.changed')
  }

  /** Takes a descriptor that was sent from `source`; undefined: wherever. Errors: those of `Census.upload`. */
  upload(
    document: Uint8Array,
    now: UnixTime,
    source?: Ip,
  ): Result<{ readonly known: boolean; readonly nodeId: NodeId; readonly effects: AuthorityEffect[] }> {
    const minimum = this.#document?.consensus.parameters?.minimum
    const taken = this.#census.upload(document, now, {
      ...(source === undefined ? {} : { source }),
      ...(minimum === undefined ? {} : { minimum }),
    })
    if (!taken.ok) return this.#refused(taken)
    const { nodeId, record } = taken.value
    this.counters.add(`descriptor.${record === undefined ? 'known' : 'accepted'}`)
    if (record === undefined) return success({ known: true, nodeId, effects: [] })
    return success({ known: false, nodeId, effects: [{ kind: 'keep', what: 'nodes', records: [record] }] })
  }

  /** Takes the report of our measurer. Errors: those of `Census.measure`. */
  measure(document: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const changed = this.#census.measure(document, now)
    if (!changed.ok) return this.#refused(changed)
    this.counters.add('measurement.accepted')
    return success(keeping(changed.value))
  }

  /**
   * Takes what another authority said, by itself or when asked. It is signed, so the way it came does not matter.
   * Errors: those of the decoders, IPP_DIR_EXPIRED (of a period that is over, or not begun).
   */
  hear(kind: MessageKind, document: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const outcome =
      kind === 'consensus'
        ? this.#hearConsensus(document, now)
        : kind === 'vote'
          ? this.#hearVote(document, now)
          : kind === 'roll'
            ? this.#hearRoll(document, now)
            : this.#hearSignature(document, now)
    return outcome.ok ? outcome : this.#refused(outcome)
  }

  /** What it says when asked. Undefined: nothing of that kind, yet or any more. */
  answer(question: Question): string | undefined {
    const { kind, period } = question
    if (kind !== 'consensus') return this.#rounds.get(period)?.answer(question)
    return this.#document !== undefined && this.#document.consensus.serial >= period
      ? this.#document.text
      : undefined
  }

  /** Does what is due. To be called every second or so; a call too many does nothing. */
  tick(now: UnixTime): AuthorityEffect[] {
    const { length } = this.#options.terms
    const round = this.#round(roundAt(now, length))
    const at = scheduleOf(round.period, length)
    this.#first ??= round.period
    const effects: AuthorityEffect[] = []
    if (round.ownVote === undefined && now < at.roll) effects.push(...this.#vote(round, now))
    if (round.ownRoll === undefined && round.ownVote !== undefined && now >= at.roll && now < at.sign)
      effects.push(...this.#callRoll(round))
    if (!round.judged && now >= at.sign) effects.push(...this.#judge(round, now < at.start))
    if (now >= at.start) effects.push(...this.#publish(round, now))
    effects.push(...this.#ask(round, now))
    return effects
  }

  #vote(round: Round, now: UnixTime): AuthorityEffect[] {
    const { terms, key, crypto } = this.#options
    if (this.#voted >= round.period) return []
    this.#voted = round.period
    const listed = this.#listedWords()
    const forgotten = this.#census.forget(now, listed)
    const { draft, changed } = draftVote(this.#census.records, {
      now,
      period: round.period,
      length: terms.length,
      document: this.#document?.consensus,
      words: listed,
      parameters: this.#options.parameters ?? DEFAULT_PARAMETERS,
    })
    this.#census.put(changed)
    const vote = encodeVote(draft, terms, key, crypto)
    const effects: AuthorityEffect[] = []
    if (forgotten.length > 0) effects.push({ kind: 'forget', nodes: forgotten })
    effects.push(...keeping(changed))
    if (!vote.ok) {
      this.counters.add(`refused.${vote.code}`)
      return effects
    }
    round.ownVote = vote.value
    round.addVote(vote.value, true)
    this.counters.add('vote.cast')
    effects.push({ kind: 'keep', what: 'voted', period: round.period })
    effects.push({ kind: 'tell', message: 'vote', text: vote.value.text })
    return effects
  }

  #listedWords(): ReadonlyMap<NodeId, ListedNode> {
    const held = this.#document
    return held === undefined ? new Map() : listedWords(held.text, held.consensus)
  }

  #callRoll(round: Round): AuthorityEffect[] {
    const { key, crypto } = this.#options
    const roll = encodeRoll({ period: round.period, votes: round.timelyVotes }, key, crypto)
    if (!roll.ok) return []
    round.ownRoll = roll.value
    round.addRoll(roll.value)
    return [{ kind: 'tell', message: 'roll', text: roll.value.text }]
  }

  /** Counts, and signs what comes out: once in a period, and only by who took part from the beginning. */
  #judge(round: Round, inTime: boolean): AuthorityEffect[] {
    const { key, crypto } = this.#options
    round.judged = true
    if (!inTime || round.ownRoll === undefined || this.#signed >= round.period) return []
    const { complaints, document } = judgeVotes(round, this.#others, this.#options)
    const effects = this.#complain(round, complaints)
    if (document === undefined) return effects
    if (!document.ok) {
      this.counters.add(`refused.${document.code}`)
      return effects
    }
    round.ownDocument = document.value
    const { body, digest } = document.value
    const signature = signBody('consensus', body, key, crypto)
    const endorsement = encodeEndorsement({ period: round.period, digest, signature }, key, crypto)
    if (!endorsement.ok) return effects
    round.ownEndorsement = endorsement.value
    round.addEndorsement(endorsement.value)
    this.#signed = round.period
    effects.push({ kind: 'keep', what: 'signed', period: round.period })
    effects.push({ kind: 'tell', message: 'signature', text: endorsement.value.text })
    return effects
  }

  #publish(round: Round, now: UnixTime): AuthorityEffect[] {
    const { authorities, terms } = this.#options
    const effects: AuthorityEffect[] = []
    const own = round.ownDocument
    if (own !== undefined && this.#document?.consensus.serial !== round.period) {
      const { complaints, text } = joinSignatures(round, own, this.#options)
      effects.push(...this.#complain(round, complaints))
      if (text !== undefined) effects.push(...this.#adopt({ text, consensus: own.consensus }))
    }
    if (now < scheduleOf(round.period, terms.length).start + this.#step) return effects
    // Everybody had time enough.
    if (this.#document?.consensus.serial !== round.period && round.period !== this.#first)
      effects.push(...this.#alarm(round, 'document-missing'))
    return [...effects, ...this.#complain(round, judgeSignatures(round, authorities))]
  }

  #ask(round: Round, now: UnixTime): AuthorityEffect[] {
    const every = Math.max(1, Math.floor(this.#step / 5))
    // A clock that was set back must not silence it.
    if (now >= this.#askedAt && now < this.#askedAt + every) return []
    this.#askedAt = now
    const { length } = this.#options.terms
    return inquiries(round, this.#others, this.#document?.consensus.serial ?? 0, now, length)
  }

  #hearVote(document: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const { authorities, terms, crypto } = this.#options
    const vote = decodeVote(document, authorities, terms, crypto, this.#known, now)
    if (!vote.ok) return vote
    const { author, period, published } = vote.value
    const round = this.#roundFor(period, now)
    if (round === undefined) return this.#otherPeriod(author, now)
    const effects: AuthorityEffect[] = []
    if (
      published > now + CLOCK_TOLERANCE ||
      published < scheduleOf(period, terms.length).vote - CLOCK_TOLERANCE
    )
      effects.push(...this.#alarm(round, 'clock', author))
    const timely = now < scheduleOf(period, terms.length).roll
    const filed = round.addVote(vote.value, timely)
    return success([...effects, ...this.#filed(round, filed, author)])
  }

  #hearRoll(document: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const { authorities, crypto, terms } = this.#options
    const roll = decodeRoll(document, authorities, crypto, now)
    if (!roll.ok) return roll
    const { period, author } = roll.value
    const round = this.#roundFor(period, now)
    if (round === undefined || now >= scheduleOf(period, terms.length).sign)
      return this.#otherPeriod(author, now)
    return success(this.#filed(round, round.addRoll(roll.value), author))
  }

  #hearSignature(document: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const { authorities, crypto } = this.#options
    const endorsement = decodeEndorsement(document, authorities, crypto, now)
    if (!endorsement.ok) return endorsement
    const { period, author } = endorsement.value
    const round = this.#roundFor(period, now)
    if (round === undefined) return this.#otherPeriod(author, now)
    return success(this.#filed(round, round.addEndorsement(endorsement.value), author))
  }

  #hearConsensus(document: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const { authorities, threshold, crypto, terms } = this.#options
    const held = this.#document
    const verified = verifyConsensus(document, { authorities, threshold, now }, crypto)
    if (!verified.ok) return verified
    const text = new TextDecoder().decode(document)
    const consensus = verified.value
    if (
      held !== undefined &&
      consensus.serial === held.consensus.serial &&
      bodyOf(text) !== bodyOf(held.text)
    ) {
      // Both have enough signatures: so many authorities misbehave that a person must look.
      return success(this.#alarm(this.#round(roundAt(now, terms.length)), 'fork'))
    }
    if (held !== undefined && consensus.serial <= held.consensus.serial) return success([])
    this.counters.add('document.adopted')
    return success(this.#adopt({ text, consensus }))
  }

  #adopt(document: HeldDocument): AuthorityEffect[] {
    this.#document = document
    const changed = this.#census.follow(document)
    this.counters.add('document.published')
    return [{ kind: 'publish', ...document }, ...keeping(changed)]
  }

  #filed(round: Round, filed: Filed, author: Uint8Array): AuthorityEffect[] {
    return filed === 'equivocation' ? this.#alarm(round, 'equivocation', author) : []
  }

  #otherPeriod(author: Uint8Array, now: UnixTime): Result<AuthorityEffect[]> {
    const round = this.#round(roundAt(now, this.#options.terms.length))
    const raised = this.#alarm(round, 'other-period', author)
    return raised.length > 0
      ? success(raised)
      : failure('IPP_DIR_EXPIRED', 'message: of a period that is over, or has not begun')
  }

  #complain(round: Round, complaints: readonly Complaint[]): AuthorityEffect[] {
    return complaints.flatMap(({ name, author }) => this.#alarm(round, name, author))
  }

  #alarm(round: Round, name: AlarmName, author?: Uint8Array): AuthorityEffect[] {
    if (!round.raise(`${name} ${author === undefined ? '' : toHex(author)}`)) return []
    this.counters.add(`alarm.${name}`)
    return [{ kind: 'alarm', name, ...(author === undefined ? {} : { author }) }]
  }

  /** The round of a period that is being prepared, or will be within a step: clocks differ. */
  #roundFor(period: number, now: UnixTime): Round | undefined {
    const { length } = this.#options.terms
    const soon = roundAt((now + this.#step) as UnixTime, length)
    return period === roundAt(now, length) || period === soon ? this.#round(period) : undefined
  }

  #round(period: number): Round {
    const held = this.#rounds.get(period)
    if (held !== undefined) return held
    const round = new Round(period)
    this.#rounds.set(period, round)
    // Two are enough: what was, and what is to be. In a new round descriptors are verified anew, so that this stays small.
    for (const old of [...this.#rounds.keys()].sort((a, b) => a - b).slice(0, -2)) this.#rounds.delete(old)
    this.#known = this.#census.known(this.#listedWords())
    return round
  }

  #refused<T extends { readonly ok: false; readonly code: ErrorCode }>(refusal: T): T {
    this.counters.add(`refused.${refusal.code}`)
    return refusal
  }
}

const othersOf = ({ authorities, key }: AuthorityOptions): Uint8Array[] =>
  authorities.filter((other) => !equalBytes(other, identityOf(key)))

const keeping = (records: readonly AuthorityRecord[]): AuthorityEffect[] =>
  records.length === 0 ? [] : [{ kind: 'keep', what: 'nodes', records }]
