/**
 * One IKE SA on the wire, in either role: its keys, its requests, its state and its timers. What the peer asks is
 * answered beside it (`answers.ts`); what the SA is for, its session knows (`session.ts`).
 *
 * Error contract: whatever a peer sends, `receive` returns. A datagram that does not authenticate changes nothing
 * but a counter. An authenticated fault of the peer ends the SA, as RFC 7296 section 2.21 has it; an unprotected
 * one (IKE_SA_INIT) is a hint that at most shortens the wait for a better answer.
 */
import type { UdpPath } from '#base/ip'
import { after, type Duration, earliest, type Instant, SECOND } from '#base/time'
import { Admission, type Beginning } from '#ikev2/admission'
import { Answers } from '#ikev2/answers'
import type { Association } from '#ikev2/association'
import { Attempt, type Initiation } from '#ikev2/attempt'
import type { Channel } from '#ikev2/channel'
import { type IkeContext, PEER_PATIENCE, REQUEST_PATIENCE, type Verdict, verdictOf } from '#ikev2/context'
import type { InitiateRequest, ResponderPolicy } from '#ikev2/events'
import type { Proven } from '#ikev2/exchange/auth'
import { deleteIke } from '#ikev2/exchange/informational'
import { asFault, faultOfNotify, type PeerFault } from '#ikev2/fault'
import { Intake } from '#ikev2/intake'
import type { Message } from '#ikev2/message/fragment'
import type { ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import { checkContents, errorNotify } from '#ikev2/message/registry'
import { frame } from '#ikev2/nat'
import { EXCHANGE } from '#ikev2/numbers'
import { isUsable, ResumptionAttempt } from '#ikev2/resumption/attempt'
import { wipeTicket } from '#ikev2/resumption/ticket'
import type { Session } from '#ikev2/session'
import { type IkeState, type IkeStep, isUnprotected, next } from '#ikev2/transitions'
import { type Datagrams, type Outstanding, RequestWindow } from '#ikev2/window'

/** How long an exchange may take before there is a peer at all, unless the owner wishes otherwise. */
const ESTABLISHING_PATIENCE: Duration = 30 * SECOND
/** For a better answer, once an unprotected one was no use (RFC 7296 section 2.21.1). */
const HINT_PATIENCE: Duration = 5 * SECOND
/** For the answer to IKE_AUTH when nobody wants the SA any more. */
const LAST_PATIENCE: Duration = 10 * SECOND
/** RFC 8019 section 4.6: a half-open SA is kept whatever it receives, and not for longer. */
const HALF_OPEN_LIFETIME: Duration = 30 * SECOND
const LINGER: Duration = 10 * SECOND

type Answered = (answer: readonly Payload[], now: Instant, message: Message) => void

export class IkeSa {
  readonly association: Association
  readonly #context: IkeContext
  readonly #session: Session
  readonly #requests: RequestWindow<Answered>
  readonly #intake: Intake
  readonly #answers: Answers
  #state: IkeState
  #channel: Channel | undefined
  /** What an initiator keeps until it is authenticated. */
  #attempt: Initiation | undefined
  /** When the present state ends by itself. */
  #expiry: Instant | undefined
  /** Our DELETE waits for the window. */
  #mustDelete = false

  private constructor(
    context: IkeContext,
    session: Session,
    association: Association,
    state: IkeState,
    patience: Duration,
  ) {
    const { rng, crypto } = context
    this.association = association
    this.#context = context
    this.#session = session
    this.#state = state
    this.#requests = new RequestWindow({ rng, roundTrip: session.roundTrip, patience })
    this.#intake = new Intake(crypto)
    this.#answers = new Answers(context, session, this.#intake)
    session.join(this)
  }

  /** Begins an IKE SA: IKE_SA_INIT is in the outputs. */
  static initiate(
    context: IkeContext,
    session: Session,
    association: Association,
    request: InitiateRequest,
    now: Instant,
  ): IkeSa {
    const patience = request.patience ?? ESTABLISHING_PATIENCE
    const ticket = request.resume?.ticket
    const resumes = ticket !== undefined && isUsable(ticket, request, now)
    if (!resumes) wipeTicket(ticket)
    const sa = new IkeSa(context, session, association, resumes ? 'resuming' : 'initiating', patience)
    sa.#attempt = resumes ? new ResumptionAttempt(context, request, ticket) : new Attempt(context, request)
    sa.#attempt.begin(sa, now)
    return sa
  }

  /** Answers a request that begins an IKE SA and was found acceptable. */
  static respond(
    context: IkeContext,
    session: Session,
    association: Association,
    policy: ResponderPolicy,
    request: Uint8Array,
    begun: Beginning,
    now: Instant,
  ): IkeSa {
    const hasMore = begun.kind === 'full' && begun.result.suite.additional !== undefined
    const state = hasMore ? 'half-keyed' : 'half-open'
    const sa = new IkeSa(context, session, association, state, session.patience)
    const { admission, channel, response } = Admission.begin(context, policy, association, request, begun)
    sa.#channel = channel
    sa.#expiry = after(now, HALF_OPEN_LIFETIME)
    sa.#answers.begin(sa, admission, request, response)
    return sa
  }

  /** An IKE SA made by a rekey: established from the start, message IDs from 0 (RFC 7296 section 2.18). */
  static succeed(context: IkeContext, session: Session, association: Association, channel: Channel): IkeSa {
    const sa = new IkeSa(context, session, association, 'established', REQUEST_PATIENCE)
    sa.#channel = channel
    return sa
  }

  get state(): IkeState {
    return this.#state
  }

  /** A stranger's, still. */
  get isHalfOpen(): boolean {
    return this.#answers.areForStranger
  }

  /** IKE_AUTH is out, or was answered. */
  get hasProved(): boolean {
    return !isUnprotected(this.#state) && this.#state !== 'exchanging'
  }

  /** There are keys. */
  get channel(): Channel {
    return this.#channel!
  }

  /** May something be asked? */
  get isIdle(): boolean {
    return this.#state === 'established' && this.#requests.isFree
  }

  /** When `tick` has something to do. */
  nextTimeout(): Instant | undefined {
    const { current } = this.#requests
    const own = earliest(earliest(current?.retransmission.deadline, this.#expiry), this.#intake.nextTimeout())
    return earliest(own, this.#attempt?.nextTimeout)
  }

  tick(now: Instant): void {
    this.#attempt?.tick?.(this, now)
    const { current } = this.#requests
    this.#intake.tick(now)
    if (this.#expiry !== undefined && now >= this.#expiry) return this.#expired(now)
    const due = current?.retransmission.due(now)
    if (due === 'repeat') this.transmit(current!.datagrams)
    if (due === 'give up') this.#end(this.#session.verdict ?? timeout(`no answer while ${this.#state}`), now)
  }

  /** A datagram of this SA: its SPIs, path and role were checked by the engine. */
  receive(header: ReceivedHeader, datagram: Uint8Array, path: UdpPath, now: Instant): void {
    try {
      if (header.response) this.#receiveResponse(header, datagram, now)
      else this.#answers.receive(this, header, datagram, path, now)
    } catch (error) {
      // Only what is not authenticated gets here: it is refused, and nothing has changed.
      this.#refuse(asFault(error))
    }
  }

  /**
   * Asks the peer; the window must be free. Without `answered` an error is fatal, and nothing else expected.
   * `patience`: if it is not what the state of this SA calls for. Returns the datagrams, which are transmitted.
   */
  ask(
    exchange: number,
    payloads: readonly Payload[],
    now: Instant,
    answered: Answered = refuseErrors,
    patience?: Duration,
  ): Datagrams {
    const encode = (messageId: number): Datagrams =>
      this.channel.seal(this.association.header(exchange, messageId, false), payloads)
    const request = { exchange, encode, answered, ...(patience === undefined ? {} : { patience }) }
    const datagrams = this.#requests.begin(request, now)
    this.transmit(datagrams)
    return datagrams
  }

  /** A request whose answer is unprotected: it goes to the attempt. Takes the place of the one before. */
  askInClear(exchange: number, datagram: Uint8Array, now: Instant): void {
    const request = { exchange, encode: () => [datagram], answered: () => {} }
    this.transmit(this.#requests.replace(request, now))
  }

  /** IKE_SA_INIT is answered, and hints count no more. */
  initAnswered(step: IkeStep, channel: Channel, now: Instant): void {
    this.#session.verdict = undefined
    this.#completed(this.#requests.current!, now)
    this.enter(step, channel)
  }

  /** Goes on, with new keys if there are any. */
  enter(step: IkeStep, channel?: Channel): void {
    this.#step(step)
    if (channel === undefined) return
    this.#channel?.destroy()
    this.#channel = channel
  }

  /** Both sides are authenticated. If nobody wants the SA any more, it ends here. */
  establish({ inboundSpi, terms, initiated, nonces, ...proven }: Proven, now: Instant): void {
    const { verdict } = this.#session
    if (verdict !== undefined) return this.#fail(verdict, now)
    const child = this.channel.childSa(initiated, inboundSpi, terms, { ni: nonces.ni, nr: nonces.nr })
    this.#forgetSecrets()
    this.#expiry = undefined
    this.#requests.patience = REQUEST_PATIENCE
    this.#step('authenticated')
    const { leased } = terms
    this.#session.establish(this, { ...proven, child, ...(leased === undefined ? {} : { leased }) }, now)
  }

  /** What a responder says about tickets, if it was asked, beside whatever else it answers. */
  giveTicket(request: readonly Payload[], now: Instant): Payload[] {
    return this.#state === 'established' ? this.#session.giveTicket(this, request, now) : []
  }

  /** A responder's peer is not admitted: there is nothing to close in public. */
  turnAway(now: Instant): void {
    this.#session.turnedAway()
    this.linger('refused', now)
  }

  /** Sends DELETE as soon as the window is free, and ends when it is answered or `patience` is over. */
  close(now: Instant, patience: Duration): void {
    if (this.#state === 'established' || this.#state === 'replaced') {
      this.#step('close')
      this.#expiry = after(now, patience)
      this.#mustDelete = true
      this.#proceed(now)
    } else if (this.#state === 'authenticating') {
      // The peer may hold an SA already: it is deleted as soon as IKE_AUTH is answered.
      this.#requests.current?.retransmission.hurry(LAST_PATIENCE, now)
    } else if (isUnprotected(this.#state) || this.#state === 'exchanging')
      this.#end(this.#session.verdict!, now)
  }

  /** Another took its place, and the peer is to delete this one. */
  retire(now: Instant): void {
    if (this.#state !== 'established') return
    this.#step('replace')
    this.#expiry = after(now, PEER_PATIENCE)
  }

  /** Stays a while to repeat the last answer, and to answer a DELETE. */
  linger(step: IkeStep, now: Instant): void {
    if (this.#state === 'lingering') return
    this.#step(step)
    this.#requests.clear()
    this.#forgetSecrets()
    this.#expiry = after(now, LINGER)
  }

  /** A response takes the way its request came (RFC 7296 section 2.11). */
  transmit(datagrams: Datagrams, path: UdpPath = this.association.path): void {
    for (const bytes of datagrams) this.#context.emit({ kind: 'transmit', path, bytes: frame(path, bytes) })
  }

  /** The way is another one: whatever is unanswered may have been lost on the old one. */
  repeat(): void {
    const { current } = this.#requests
    if (current !== undefined) this.transmit(current.datagrams)
  }

  /** Ends at once and without a word. */
  finish(): void {
    this.#end({ code: 'IPP_IKE_CLOSED', detail: 'no longer wanted' })
  }

  /** The datagram that began this SA, again (responder): the answer was lost. */
  repeatInit(): void {
    this.#answers.repeatInit(this)
  }

  // -------------------------------------------------------------------------------------------- the peer answers

  #receiveResponse(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const { exchange } = header
    const { current } = this.#requests
    if (header.messageId !== current?.messageId || exchange !== current.request.exchange)
      return this.#context.refuse('unexpected-response', `${EXCHANGE.nameOf(exchange)} response to nothing`)
    if (isUnprotected(this.#state)) return this.#receiveInit(this.#attempt!, header, datagram, now)
    const message = this.#intake.take(this.channel, header, datagram, now)
    if (message === undefined) return
    const { firstPayload, plaintext } = message
    this.#completed(current, now)
    this.#session.heard(now)
    try {
      const payloads = decodePayloads(firstPayload, plaintext, EXCHANGE.nameOf(exchange))
      checkContents(exchange, true, payloads)
      current.request.answered(payloads, now, message)
    } catch (error) {
      const fault = asFault(error)
      this.#refuse(fault)
      return this.#fail(verdictOf(fault), now)
    }
    this.#proceed(now)
  }

  /** The window is free again: our DELETE if it waits, or whatever the session has to ask. */
  #proceed(now: Instant): void {
    if (this.#state === 'closing' && this.#mustDelete && this.#requests.isFree) {
      this.#mustDelete = false
      // Whatever the answer says, it is over.
      const payloads = [deleteIke(), ...this.#session.lastRequest(this)]
      this.ask(EXCHANGE.number.INFORMATIONAL, payloads, now, (answer, at) => {
        this.#session.lastAnswer(this, answer, at)
        this.#expired(at)
      })
    }
    this.#session.proceed(now)
  }

  /** The answer to IKE_SA_INIT is unprotected: one that is no use is remembered as a hint, and waited out. */
  #receiveInit(attempt: Initiation, header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    try {
      attempt.receive(this, header, datagram, now)
    } catch (error) {
      const fault = asFault(error)
      // We cannot prove who we are to this peer, and it holds nothing yet.
      if (!isUnprotected(this.#state)) return this.#end(verdictOf(fault), now)
      this.#session.verdict = verdictOf(fault)
      this.#requests.current?.retransmission.hurry(HINT_PATIENCE, now)
      throw fault
    }
  }

  #completed(current: Outstanding<Answered>, now: Instant): void {
    const { started, transmissions } = current.retransmission
    const name = EXCHANGE.nameOf(current.request.exchange)
    this.#requests.complete(now)
    if (!this.#session.isAnnounced) return
    const sa = this.association.id
    this.#context.emit({ kind: 'exchange', sa, name, duration: now - started, transmissions })
  }

  // -------------------------------------------------------------------------------------------- beginning and end

  /** The state lasted as long as it may: half-open, replaced, closing or lingering. */
  #expired(now: Instant): void {
    if (this.isHalfOpen) this.#context.refuse('half-open-expired', 'IKE_AUTH never came')
    this.#end(this.#session.verdict ?? timeout(`no longer ${this.#state}`), now)
  }

  /** An answer showed that this SA is no use. The peer may think otherwise: it is told, once. */
  #fail(verdict: Verdict, now: Instant): void {
    this.#requests.clear()
    if (this.#state !== 'exchanging') this.ask(EXCHANGE.number.INFORMATIONAL, [deleteIke()], now)
    this.#end(verdict, now)
  }

  #end(verdict: Verdict, now?: Instant): void {
    if (this.#state === 'gone') return
    this.#step('finish')
    this.#requests.clear()
    this.#intake.clear()
    this.#expiry = undefined
    if (this.#attempt !== undefined) this.#context.releaseSpi(this.#attempt.inboundSpi)
    this.#forgetSecrets()
    this.#channel?.destroy()
    this.#channel = undefined
    this.#session.leave(this, verdict, now)
  }

  /** Of what was kept until both sides are authenticated. */
  #forgetSecrets(): void {
    this.#attempt?.wipe()
    this.#attempt = undefined
    this.#answers.forgetSecrets()
  }

  #step(step: IkeStep): void {
    this.#state = next(this.#state, step)
  }

  #refuse(fault: PeerFault): void {
    this.#context.refuse(fault.counter, fault.message)
  }
}

const timeout = (detail: string): Verdict => ({ code: 'IPP_IKE_TIMEOUT', detail })

/** For an answer of which nothing else is expected. */
const refuseErrors: Answered = (answer) => {
  const error = errorNotify(answer)
  if (error !== undefined) throw faultOfNotify(error.type)
}
