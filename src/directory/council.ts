/**
 * A seat in the council of authorities: drives the machine of one, with its disk and the way to the others. It owns no
 * timer: its driver calls `tick`.
 *
 * Inputs are taken one after another, and what one must not forget is on disk before it is said to anybody. When the disk fails, the
 * machine is given up and made again from what is there, as after a crash.
 */
import { errorLine, IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { type Failure, failure, type Result, success } from '#base/result'
import { type Duration, type Instant, instant, SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { Authority } from '#directory/authority'
import type { AuthorityEffect, MessageKind, Question } from '#directory/authority-events'
import type { AuthorityStore, Lasting } from '#directory/authority-store'
import { DOCUMENT_LIMITS } from '#directory/canonical'
import type { Signer } from '#directory/certificate'
import { ChangedFile } from '#directory/changed-file'
import { Counters } from '#directory/counters'
import type { NetworkParameters } from '#directory/documents'
import { type RequestHead, type Sender, verifyRequest } from '#directory/http-signature'
import { Messenger } from '#directory/messenger'
import { type CouncilReport, type Member, Minutes } from '#directory/minutes'
import { type Publication, preparePublication } from '#directory/publication'
import type { Acceptance, DirectoryClock, DirectoryLog, DirectoryService } from '#directory/service'
import { Shelf } from '#directory/shelf'
import type { VoteTerms } from '#directory/vote'

export interface CouncilOptions {
  readonly store: AuthorityStore
  /** One of the members'. */
  readonly key: Signer
  /** All authorities, this one included. */
  readonly members: readonly Member[]
  /** How many must sign. */
  readonly threshold: number
  readonly terms: VoteTerms
  readonly crypto: CryptoProvider
  readonly clock: DirectoryClock
  readonly log: DirectoryLog
  readonly measurer?: MeasurerOptions
  /** What it proposes to the others. */
  readonly parameters?: NetworkParameters
}

/** Who the authorities are, and how many must sign. */
export interface Seats {
  readonly members: readonly Member[]
  readonly threshold: number
}

/** Who measures for this authority, and where the reports are put. */
export interface MeasurerOptions {
  /** Ed25519 key it signs with. */
  readonly key: Uint8Array
  /** Absolute path. */
  readonly report: string
}

/** After the disk failed. */
const RETRY: Duration = 5 * SECOND

export class Council implements DirectoryService {
  readonly counters = new Counters()
  readonly shelf: Shelf
  #options: CouncilOptions
  readonly #messenger: Messenger
  readonly #minutes: Minutes
  readonly #report: ChangedFile | undefined
  /** Undefined: the disk failed. */
  #machine: Authority | undefined
  #failing: IpprivError | undefined
  #failedAt: Instant = instant(0)
  /** The end of the queue of inputs; never rejects. */
  #tail: Promise<unknown> = Promise.resolve()
  /** What was said or asked, and is not answered yet. */
  readonly #errands = new Set<Promise<void>>()
  #closed = false
  /** Who takes the seats when this period's work is done. */
  #elected: Seats | undefined

  /** @throws IpprivError IPP_STATE_UNUSABLE */
  static async open(options: CouncilOptions): Promise<Council> {
    const council = new Council(options)
    await council.#resume()
    return council
  }

  private constructor(options: CouncilOptions) {
    this.#options = options
    this.shelf = new Shelf(options.crypto)
    const { key, crypto, clock } = options
    this.#minutes = new Minutes(options)
    this.#report =
      options.measurer && new ChangedFile(options.measurer.report, DOCUMENT_LIMITS.measurement.octets)
    const onDate = (who: Member, date: number): void =>
      this.#minutes.dated(who, Math.floor(date / 1000) - clock.unixTime())
    this.#messenger = new Messenger({ key, crypto, onDate })
  }

  /** Which authority sends this request. Errors: IPP_DIR_BAD_SIGNATURE. */
  senderOf(request: RequestHead): Result<Sender> {
    const { members, crypto, clock } = this.#options
    return verifyRequest(
      request,
      members.map(({ key }) => key),
      crypto,
      clock.unixTime(),
    )
  }

  get publication(): Publication | undefined {
    return this.shelf.current
  }

  get problem(): IpprivError | undefined {
    return this.#failing
  }

  /** Nodes that are known, listed or not. */
  get size(): number {
    return this.#machine?.records.size ?? 0
  }

  get seats(): Seats {
    return this.#options
  }

  /**
   * The network has other authorities: from the next period on, so that those who agree on one are the same from its
   * beginning to its end. We must be among them.
   */
  elect(seats: Seats): void {
    this.#elected = seats
  }

  report(): CouncilReport {
    return this.#minutes.report(this.#machine, this.#options.clock.unixTime())
  }

  async accept(document: Uint8Array, source?: Ip): Promise<Result<Acceptance>> {
    const { clock, log } = this.#options
    const outcome = await this.#input((machine) => {
      const taken = machine.upload(document, clock.unixTime(), source)
      return taken.ok ? success([taken.value.effects, taken.value] as const) : taken
    })
    if (!outcome.ok) {
      log.debug({ code: outcome.code, where: outcome.where }, 'refused a descriptor')
      return outcome
    }
    const { nodeId, known } = outcome.value
    return success({ nodeId, known })
  }

  /** Takes a message of another authority, whoever brought it. Errors: those of `Authority.hear`, IPP_STATE_UNUSABLE. */
  async hear(kind: MessageKind, document: Uint8Array): Promise<Result<undefined>> {
    const { clock, log } = this.#options
    const outcome = await this.#input((machine) => {
      const heard = machine.hear(kind, document, clock.unixTime())
      return heard.ok ? success([heard.value, undefined] as const) : heard
    })
    if (!outcome.ok) log.debug({ kind, code: outcome.code, where: outcome.where }, 'refused a message')
    return outcome
  }

  /** Undefined: nothing of that kind, yet or any more. */
  answer(question: Question): string | undefined {
    return this.#machine?.answer(question)
  }

  /** Does what is due. Never rejects. */
  async tick(): Promise<void> {
    const { clock } = this.#options
    if (this.#machine === undefined && clock.monotonic() - this.#failedAt >= RETRY)
      await this.#serialised(() => this.#resume()).catch((error: unknown) => this.#fail(error))
    await this.#readReport()
    await this.#serialised(async () => this.#reseat())
    await this.#input((machine) => success([machine.tick(clock.unixTime()), undefined] as const))
    this.#minutes.note(this.#machine, clock.unixTime())
  }

  /** Resolves when every input was taken and everything said was answered. */
  async idle(): Promise<void> {
    await this.#tail
    while (this.#errands.size > 0) {
      await Promise.allSettled([...this.#errands])
      await this.#tail
    }
  }

  /** Says nothing more, and resolves when what was begun is on disk. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#messenger.close()
    await this.idle()
  }

  /** What our measurer found, when that is new. */
  async #readReport(): Promise<void> {
    const { clock, log } = this.#options
    try {
      const report = await this.#report?.next()
      if (report === undefined) return
      const taken = await this.#input((machine) => {
        const effects = machine.measure(report, clock.unixTime())
        return effects.ok ? success([effects.value, undefined] as const) : effects
      })
      if (!taken.ok) log.warn({ code: taken.code, where: taken.where }, 'refused the report of the measurer')
    } catch (error) {
      log.warn({ error: errorLine(error) }, 'could not read the report of the measurer')
    }
  }

  #reseat(): void {
    const { clock, log } = this.#options
    const elected = this.#elected
    if (elected === undefined || this.#machine?.isIdle(clock.unixTime()) === false) return
    this.#elected = undefined
    this.#options = { ...this.#options, ...elected }
    const { members, threshold } = elected
    this.#machine?.reseat(
      members.map(({ key }) => key),
      threshold,
    )
    this.#minutes.reseat(members, threshold)
    log.info({ authorities: members.map(({ name }) => name), threshold }, 'the network has other authorities')
  }

  async #resume(): Promise<void> {
    const { store, key, members, threshold, terms, crypto, log, measurer, parameters } = this.#options
    const measurers = measurer === undefined ? [] : [measurer.key]
    const kept = await store.load()
    for (const entry of kept.damaged) log.warn({ key: entry }, 'ignored a damaged entry of the store')
    const authorities = members.map((member) => member.key)
    const { counters } = this
    this.#machine = new Authority({
      key,
      authorities,
      threshold,
      terms,
      crypto,
      kept,
      counters,
      measurers,
      ...(parameters === undefined ? {} : { parameters }),
    })
    const { document } = this.#machine
    if (document !== undefined)
      this.shelf.put(await preparePublication(document.text, document.consensus, crypto))
    this.#failing = undefined
  }

  /** The machine's turn, and everything that follows from it. */
  #input<T>(
    turn: (machine: Authority) => Result<readonly [effects: readonly AuthorityEffect[], value: T]>,
  ): Promise<Result<T>> {
    return this.#serialised(async () => {
      const machine = this.#machine
      if (machine === undefined || this.#closed) return this.#unusable()
      const outcome = turn(machine)
      if (!outcome.ok) return outcome
      const [effects, value] = outcome.value
      try {
        await this.#perform(effects)
      } catch (error) {
        this.#fail(error)
        return this.#unusable()
      }
      return success(value)
    })
  }

  /** In their order. What lasts is written together as far as nothing is said in between. */
  async #perform(effects: readonly AuthorityEffect[]): Promise<void> {
    const lasting: Lasting[] = []
    for (const effect of effects) {
      if (effect.kind === 'keep' || effect.kind === 'forget' || effect.kind === 'publish') {
        lasting.push(effect)
        continue
      }
      await this.#keep(lasting.splice(0))
      if (effect.kind === 'tell') this.#tell(effect.message, effect.text)
      else if (effect.kind === 'ask') this.#ask(effect.who, effect.question)
      else {
        this.#minutes.alarm(effect, this.#options.clock.unixTime())
        this.#options.log.warn(
          { alarm: effect.name, authority: this.#minutes.nameOf(effect.author) },
          'alarm',
        )
      }
    }
    await this.#keep(lasting)
  }

  async #keep(effects: readonly Lasting[]): Promise<void> {
    if (effects.length === 0) return
    await this.#options.store.write(effects)
    for (const effect of effects) {
      if (effect.kind !== 'publish') continue
      this.shelf.put(await preparePublication(effect.text, effect.consensus, this.#options.crypto))
      const { serial, nodes } = effect.consensus
      this.#options.log.info({ serial, nodes: nodes.length }, 'published a document')
    }
  }

  #tell(kind: MessageKind, text: string): void {
    for (const member of this.#others()) {
      this.#errand(this.#messenger.tell(member, kind, text).then((told) => this.#remark(member, told)))
    }
  }

  #ask(who: Uint8Array, question: Question): void {
    const member = this.#minutes.memberOf(who)
    if (member === undefined) return
    const errand = this.#messenger.ask(member, question).then(async (answer) => {
      this.#remark(member, answer)
      if (answer.ok && answer.value !== undefined) await this.hear(question.kind, answer.value)
    })
    this.#errand(errand)
  }

  #errand(errand: Promise<void>): void {
    this.#errands.add(errand)
    void errand.finally(() => this.#errands.delete(errand))
  }

  #remark(member: Member, outcome: Result<unknown>): void {
    if (this.#closed) return
    this.#minutes.reached(member, outcome.ok, this.#options.clock.unixTime())
    if (outcome.ok) return
    this.counters.add(`messages.failed.${outcome.code}`)
    this.#options.log.debug(
      { authority: member.name, where: outcome.where },
      'another authority does not answer',
    )
  }

  #others(): Member[] {
    return this.#options.members.filter(({ name }) => name !== this.#minutes.self)
  }

  #fail(error: unknown): void {
    this.#machine = undefined
    this.#failedAt = this.#options.clock.monotonic()
    this.#failing =
      error instanceof IpprivError
        ? error
        : new IpprivError('IPP_INTERNAL', 'an authority could not go on', { cause: error })
    this.counters.add('store.failed')
    this.#options.log.error({ error: errorLine(error) }, 'could not keep what must not be forgotten')
  }

  #unusable(): Failure {
    return failure(this.#failing?.code ?? 'IPP_STATE_UNUSABLE', this.#failing?.where ?? 'it is being closed')
  }

  #serialised<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(change)
    this.#tail = done.catch(() => undefined)
    return done
  }
}
