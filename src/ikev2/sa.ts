/**
 * One IKE SA, in either role: its state, its two windows, its Child SAs and its timers.
 *
 * Error contract: whatever a peer sends, `receive` returns. A datagram that does not authenticate changes nothing
 * but a counter. An authenticated fault of the peer ends the SA, as RFC 7296 section 2.21 has it; an unprotected
 * one (IKE_SA_INIT) is a hint that at most shortens the wait for a better answer.
 *
 * An initiator's SA is known to its owner from the start. A responder's is announced when both sides are
 * authenticated, and only what was announced is closed in public.
 */
import type { ErrorCode } from '#base/errors'
import type { Spi } from '#base/ids'
import { jittered } from '#base/rng'
import { after, type Duration, earliest, type Instant, MINUTE, SECOND } from '#base/time'
import type { Association } from '#ikev2/association'
import { Attempt } from '#ikev2/attempt'
import { type Channel, openChannel } from '#ikev2/channel'
import { Children } from '#ikev2/children'
import { type IkeContext, type Verdict, verdictOf } from '#ikev2/context'
import type { InitiateRequest, PeerIdentity, ResponderPolicy } from '#ikev2/events'
import { answerAuth } from '#ikev2/exchange/auth'
import type { ChildTerms } from '#ikev2/exchange/child'
import { answerCreateChild } from '#ikev2/exchange/create-child'
import { deleteChildren, deleteIke, readDeletes, saysAuthFailed } from '#ikev2/exchange/informational'
import type { InitResult } from '#ikev2/exchange/init'
import { asFault, faultOfNotify, type PeerFault } from '#ikev2/fault'
import { wipeSecrets } from '#ikev2/keys'
import { encodeClear } from '#ikev2/message/encrypted'
import type { ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { checkContents, errorNotify } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { AuthContext } from '#ikev2/proof'
import { formatSuite } from '#ikev2/proposal'
import { RoundTrip } from '#ikev2/retransmit'
import { type IkeState, type IkeStep, mayRequest, next } from '#ikev2/transitions'
import { type Datagrams, type Outstanding, RequestWindow, ResponseWindow } from '#ikev2/window'

/** How long an exchange may take before its SA is given up. */
const ESTABLISHING_PATIENCE: Duration = 30 * SECOND
const ESTABLISHED_PATIENCE: Duration = 2 * MINUTE
/** For the answer to our DELETE: afterwards the SA ends without it. */
const CLOSING_PATIENCE: Duration = 10 * SECOND
/** For a better answer, once an unprotected one was no use (RFC 7296 section 2.21.1). */
const HINT_PATIENCE: Duration = 5 * SECOND
/** RFC 8019 section 4.6: a half-open SA is kept whatever it receives, and not for longer. */
const HALF_OPEN_LIFETIME: Duration = 30 * SECOND
const LINGER: Duration = 10 * SECOND
/** Of the liveness interval, to either side. */
const LIVENESS_JITTER = 0.1

const { number: X } = EXCHANGE

export class IkeSa {
  readonly association: Association
  readonly #context: IkeContext
  readonly #requests: RequestWindow<readonly Payload[]>
  readonly #responses: ResponseWindow
  readonly #children: Children
  readonly #liveness: Duration | undefined
  readonly #patience: Duration
  #state: IkeState
  #channel: Channel | undefined
  /** What a side keeps until it is authenticated: one of the two. */
  #attempt: Attempt | undefined
  #admission: Admission | undefined
  /** Known to the owner, and not closed yet. */
  #announced: boolean
  /** Why the SA ends, if that is known before it does: the peer's hint, or our own close. */
  #verdict: Verdict | undefined
  /** When the present state ends by itself. */
  #expiry: Instant | undefined
  #livenessAt: Instant | undefined

  private constructor(context: IkeContext, association: Association, wishes: Wishes) {
    const { rng, crypto } = context
    this.association = association
    this.#context = context
    this.#liveness = wishes.liveness
    this.#patience = wishes.patience ?? ESTABLISHED_PATIENCE
    this.#state = association.role === 'initiator' ? 'initiating' : 'half-open'
    this.#announced = association.role === 'initiator'
    const patience = wishes.patience ?? ESTABLISHING_PATIENCE
    this.#requests = new RequestWindow({ rng, roundTrip: new RoundTrip(wishes.initialTimeout), patience })
    this.#responses = new ResponseWindow(crypto)
    this.#children = new Children((child) => {
      context.releaseSpi(child.inboundSpi)
      context.emit({ kind: 'child.closed', sa: association.id, child })
    })
  }

  /** Begins an IKE SA: IKE_SA_INIT is in the outputs. */
  static initiate(
    context: IkeContext,
    association: Association,
    request: InitiateRequest,
    now: Instant,
  ): IkeSa {
    const sa = new IkeSa(context, association, request)
    sa.#attempt = new Attempt(context, request)
    sa.#sendInit(sa.#attempt, now)
    return sa
  }

  /** Answers an IKE_SA_INIT request that was found acceptable. */
  static respond(
    context: IkeContext,
    association: Association,
    policy: ResponderPolicy,
    request: Uint8Array,
    answer: { readonly result: InitResult; readonly payloads: readonly Payload[] },
    now: Instant,
  ): IkeSa {
    const sa = new IkeSa(context, association, policy)
    const response = encodeClear(association.header(X.IKE_SA_INIT, 0, true), answer.payloads)
    const { channel, auth } = openChannel(context, association, request, response, answer.result)
    sa.#channel = channel
    sa.#admission = { policy, auth }
    sa.#expiry = after(now, HALF_OPEN_LIFETIME)
    sa.#responses.answered(request, [response])
    sa.#transmit([response])
    return sa
  }

  get state(): IkeState {
    return this.#state
  }

  /** When `tick` has something to do. */
  nextTimeout(): Instant | undefined {
    const { current } = this.#requests
    const idle = current === undefined ? this.#livenessAt : undefined
    return earliest(earliest(current?.retransmission.deadline, this.#expiry), idle)
  }

  tick(now: Instant): void {
    const { current } = this.#requests
    if (this.#expiry !== undefined && now >= this.#expiry) return this.#expired()
    if (current !== undefined) {
      const due = current.retransmission.due(now)
      if (due === 'repeat') this.#transmit(current.datagrams)
      if (due === 'give up') this.#finish(this.#verdict ?? timeout(`no answer while ${this.#state}`))
    } else if (this.#livenessAt !== undefined && now >= this.#livenessAt) {
      this.#request(X.INFORMATIONAL, [], now)
    }
  }

  /** A datagram of this SA: its SPIs, path and role were checked by the engine. */
  receive(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    try {
      if (header.response) this.#receiveResponse(header, datagram, now)
      else this.#receiveRequest(header, datagram, now)
    } catch (error) {
      // Only what is not authenticated gets here: it is refused, and nothing has changed.
      this.#refuse(asFault(error))
    }
  }

  /** Sends DELETE and ends when it is answered, or after `CLOSING_PATIENCE`. Idempotent. */
  close(now: Instant): void {
    this.#verdict = { code: 'IPP_IKE_CLOSED', detail: 'closed by us' }
    if (this.#state === 'established') {
      this.#step('close')
      this.#livenessAt = undefined
      this.#expiry = after(now, CLOSING_PATIENCE)
      this.#requests.clearQueue()
      this.#request(X.INFORMATIONAL, [deleteIke()], now, () => this.#expired())
    } else if (this.#state === 'authenticating') {
      // The peer may hold an SA already: it is deleted as soon as IKE_AUTH is answered.
      this.#requests.current?.retransmission.hurry(CLOSING_PATIENCE, now)
    } else if (this.#state === 'initiating') this.#finish(this.#verdict)
  }

  /** Sends DELETE for one Child SA; it is closed when that is answered. */
  closeChild(inboundSpi: Spi, now: Instant): void {
    if (this.#state !== 'established' || !this.#children.has(inboundSpi)) return
    // Whatever the answer lists, the pair is gone on both sides then (RFC 7296 section 1.4.1).
    const answered = (): void => this.#children.close(inboundSpi)
    this.#request(X.INFORMATIONAL, [deleteChildren([inboundSpi])], now, answered)
  }

  /** Ends at once and without a word. */
  abandon(): void {
    this.#finish({ code: 'IPP_IKE_CLOSED', detail: 'abandoned by us' })
  }

  /** Authenticated traffic of the peer arrived, here or on a Child SA: it lives. */
  heard(now: Instant): void {
    const interval = this.#liveness
    if (interval === undefined || this.#state !== 'established') return
    this.#livenessAt = after(now, jittered(this.#context.rng, interval, LIVENESS_JITTER * interval))
  }

  /** The datagram that began this SA, again (responder): the answer was lost. */
  repeatInit(): void {
    if (this.#state === 'half-open') this.#transmit(this.#responses.lastResponse)
    else this.#context.refuse('late-init', 'a repeated IKE_SA_INIT of an IKE SA that went on')
  }

  // -------------------------------------------------------------------------------------------- the peer asks

  #receiveRequest(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const { exchange, messageId } = header
    const name = EXCHANGE.nameOf(exchange)
    switch (this.#responses.classify(messageId, datagram)) {
      case 'repeated':
        return this.#transmit(this.#responses.lastResponse)
      case 'changed':
        return this.#context.refuse('changed-retransmission', `${name} repeated with other content`)
      case 'out of window':
        return this.#context.refuse('message-id', `${name} request with a message ID outside the window`)
      case 'new':
    }
    if (!mayRequest(this.#state, exchange))
      return this.#context.refuse('illegal-exchange', `${name} request while ${this.#state}`)
    const channel = this.#channel!
    const { firstPayload, plaintext } = channel.open(header, datagram)
    this.heard(now)
    const { payloads, conclude } = this.#answer(exchange, firstPayload, plaintext, now)
    const response = channel.seal(this.association.header(exchange, messageId, true), payloads)
    this.#responses.answered(datagram, response)
    this.#transmit(response)
    conclude?.()
  }

  /** The answer to an authentic request, and what happens once it is on its way. */
  #answer(exchange: number, firstPayload: number, plaintext: Uint8Array, now: Instant): Answer {
    try {
      const payloads = decodePayloads(firstPayload, plaintext, EXCHANGE.nameOf(exchange))
      checkContents(exchange, false, payloads)
      if (exchange === X.IKE_AUTH) return this.#answerAuth(this.#admission!, payloads, now)
      if (exchange === X.INFORMATIONAL) return this.#answerInformational(payloads, now)
      return { payloads: answerCreateChild(payloads, (spi) => this.#children.byOutbound(spi) !== undefined) }
    } catch (error) {
      return this.#answerFault(asFault(error), now)
    }
  }

  #answerAuth({ policy, auth }: Admission, request: readonly Payload[], now: Instant): Answer {
    const { id: sa, path } = this.association
    const inboundSpi = this.#context.allocateSpi()
    try {
      const answer = answerAuth(this.#context.crypto, auth, policy, { sa, path, inboundSpi }, request)
      if (answer.kind === 'established') {
        // Announced before the answer is transmitted: the SA is installed when the peer begins to use it.
        this.#establish(answer.peer, inboundSpi, answer.terms, auth, now)
        return { payloads: answer.payloads }
      }
      this.#refuse(answer.fault)
      this.#context.releaseSpi(inboundSpi)
      return { payloads: answer.payloads, conclude: () => this.#linger('refused', now) }
    } catch (error) {
      this.#context.releaseSpi(inboundSpi)
      throw error
    }
  }

  #answerInformational(request: readonly Payload[], now: Instant): Answer {
    const { ike, outboundSpis } = readDeletes(request)
    if (ike) return { payloads: [], conclude: () => this.#endedByPeer('deleted by the peer', now) }
    if (saysAuthFailed(request))
      return { payloads: [], conclude: () => this.#endedByPeer('the peer did not accept our proof', now) }
    const named = outboundSpis.flatMap((spi) => this.#children.byOutbound(spi)?.inboundSpi ?? [])
    const spis = [...new Set(named)]
    return {
      payloads: spis.length === 0 ? [] : [deleteChildren(spis)],
      conclude: () => {
        for (const spi of spis) this.#children.close(spi)
      },
    }
  }

  /** RFC 7296 section 2.21: before authentication any fault is fatal; afterwards only a malformed message is. */
  #answerFault(fault: PeerFault, now: Instant): Answer {
    this.#refuse(fault)
    const payloads = fault.notify === undefined ? [] : [notify(fault.notify.type, fault.notify.data)]
    if (this.#state === 'half-open') return { payloads, conclude: () => this.#linger('refused', now) }
    if (fault.notify?.type !== NOTIFY.number.INVALID_SYNTAX) return { payloads }
    return { payloads, conclude: () => this.#endedByPeer(fault.message, now, fault.code) }
  }

  // -------------------------------------------------------------------------------------------- the peer answers

  #receiveResponse(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const { exchange } = header
    const { current } = this.#requests
    if (header.messageId !== current?.messageId || exchange !== current.request.exchange)
      return this.#context.refuse('unexpected-response', `${EXCHANGE.nameOf(exchange)} response to nothing`)
    if (this.#state === 'initiating') return this.#receiveInit(this.#attempt!, current, header, datagram, now)
    const { firstPayload, plaintext } = this.#channel!.open(header, datagram)
    this.#completed(current, now)
    this.heard(now)
    try {
      const payloads = decodePayloads(firstPayload, plaintext, EXCHANGE.nameOf(exchange))
      checkContents(exchange, true, payloads)
      current.request.answered(payloads, now)
    } catch (error) {
      const fault = asFault(error)
      this.#refuse(fault)
      return this.#fail(verdictOf(fault), now)
    }
    this.#transmit(this.#requests.begin(now))
  }

  /** The answer to IKE_SA_INIT is unprotected: one that is no use is remembered as a hint, and waited out. */
  #receiveInit(
    attempt: Attempt,
    current: Outgoing,
    header: ReceivedHeader,
    datagram: Uint8Array,
    now: Instant,
  ): void {
    try {
      const answer = attempt.receiveInit(this.association, header, datagram)
      if (answer === 'stale') return
      if (answer === 'again') {
        this.#step('restart')
        return this.#sendInit(attempt, now)
      }
      this.#channel = answer
    } catch (error) {
      const fault = asFault(error)
      this.#verdict = verdictOf(fault)
      current.retransmission.hurry(HINT_PATIENCE, now)
      throw fault
    }
    this.#verdict = undefined
    this.#completed(current, now)
    this.#step('init answered')
    this.#authenticate(attempt, now)
  }

  #sendInit(attempt: Attempt, now: Instant): void {
    const datagram = attempt.encodeInit(this.association.header(X.IKE_SA_INIT, 0, false))
    // The one request whose answer is unprotected: it goes to `#receiveInit`.
    const request = { exchange: X.IKE_SA_INIT, encode: () => [datagram], answered: () => {} }
    this.#transmit(this.#requests.replace(request, now))
  }

  #authenticate(attempt: Attempt, now: Instant): void {
    let payloads: Payload[]
    try {
      payloads = attempt.authRequest()
    } catch (error) {
      return this.#finish(verdictOf(asFault(error)))
    }
    this.#request(X.IKE_AUTH, payloads, now, (answer) => {
      const { peer, terms } = attempt.readAuth(answer)
      if (this.#verdict !== undefined) return this.#fail(this.#verdict, now)
      this.#attempt = undefined
      this.#establish(peer, attempt.inboundSpi, terms, attempt.nonces, now)
      attempt.wipe()
    })
  }

  #completed(current: Outgoing, now: Instant): void {
    const { started, transmissions } = current.retransmission
    const name = EXCHANGE.nameOf(current.request.exchange)
    this.#requests.complete(now)
    if (!this.#announced) return
    const sa = this.association.id
    this.#context.emit({ kind: 'exchange', sa, name, duration: now - started, transmissions })
  }

  // -------------------------------------------------------------------------------------------- beginning and end

  /** Both sides are authenticated: announces the IKE SA and its Child SA. */
  #establish(peer: PeerIdentity, inboundSpi: Spi, terms: ChildTerms, nonces: Nonces, now: Instant): void {
    const channel = this.#channel!
    const child = channel.childSa(inboundSpi, terms, nonces.ni, nonces.nr)
    this.#children.add(child)
    this.#forgetAdmission()
    this.#expiry = undefined
    this.#requests.patience = this.#patience
    this.#step('authenticated')
    this.heard(now)
    this.#announced = true
    const { id: sa, role, path } = this.association
    const common = { sa, role, path, peer, ...(terms.leased === undefined ? {} : { leased: terms.leased }) }
    this.#context.emit({ kind: 'ike.established', ...common, suite: formatSuite(channel.suite) })
    this.#context.emit({ kind: 'child.established', ...common, child })
  }

  /** The state lasted as long as it may: half-open, closing or lingering. */
  #expired(): void {
    if (this.#state === 'half-open') this.#context.refuse('half-open-expired', 'IKE_AUTH never came')
    this.#finish(this.#verdict ?? timeout(`no longer ${this.#state}`))
  }

  /** An answer showed that this SA is no use. The peer may think otherwise: it is told, once. */
  #fail(verdict: Verdict, now: Instant): void {
    this.#requests.clear()
    this.#request(X.INFORMATIONAL, [deleteIke()], now)
    this.#finish(verdict)
  }

  #endedByPeer(detail: string, now: Instant, code: ErrorCode = 'IPP_IKE_DELETED'): void {
    if (this.#state === 'lingering') return
    this.#announceEnd(this.#verdict ?? { code, detail })
    this.#linger('ended by peer', now)
  }

  /** Stays a while to repeat the last answer, and to answer a DELETE. */
  #linger(step: IkeStep, now: Instant): void {
    this.#step(step)
    this.#requests.clear()
    this.#forgetAdmission()
    this.#livenessAt = undefined
    this.#expiry = after(now, LINGER)
  }

  #finish(verdict: Verdict): void {
    if (this.#state === 'gone') return
    this.#announceEnd(verdict)
    this.#step('finish')
    this.#requests.clear()
    this.#expiry = undefined
    this.#livenessAt = undefined
    if (this.#attempt !== undefined) {
      this.#attempt.wipe()
      this.#context.releaseSpi(this.#attempt.inboundSpi)
    }
    this.#attempt = undefined
    this.#forgetAdmission()
    this.#channel?.destroy()
    this.#channel = undefined
  }

  #announceEnd({ code: reason, detail }: Verdict): void {
    this.#children.closeAll()
    if (!this.#announced) return
    this.#announced = false
    const { id: sa, role, path } = this.association
    this.#context.emit({ kind: 'ike.closed', sa, role, path, reason, detail })
  }

  #forgetAdmission(): void {
    if (this.#admission !== undefined) wipeSecrets(this.#admission.auth.secrets)
    this.#admission = undefined
  }

  // -------------------------------------------------------------------------------------------- plumbing

  #step(step: IkeStep): void {
    this.#state = next(this.#state, step)
  }

  /** Sends a request now, or when those before it are answered. */
  #request(
    exchange: number,
    payloads: readonly Payload[],
    now: Instant,
    answered: Answered = refuseErrors,
  ): void {
    const encode = (messageId: number): Datagrams =>
      this.#channel!.seal(this.association.header(exchange, messageId, false), payloads)
    this.#requests.push({ exchange, encode, answered })
    this.#transmit(this.#requests.begin(now))
  }

  #transmit(datagrams: Datagrams): void {
    const { path } = this.association
    for (const bytes of datagrams) this.#context.emit({ kind: 'transmit', path, bytes })
  }

  #refuse(fault: PeerFault): void {
    this.#context.refuse(fault.counter, fault.message)
  }
}

type Wishes = Pick<InitiateRequest, 'liveness' | 'patience' | 'initialTimeout'>
type Nonces = Pick<AuthContext, 'ni' | 'nr'>
type Outgoing = Outstanding<readonly Payload[]>
type Answered = (answer: readonly Payload[], now: Instant) => void

/** What a responder holds until its peer is authenticated. */
interface Admission {
  readonly policy: ResponderPolicy
  readonly auth: AuthContext
}

interface Answer {
  readonly payloads: readonly Payload[]
  /** What happens once the answer is on its way. */
  readonly conclude?: () => void
}

const timeout = (detail: string): Verdict => ({ code: 'IPP_IKE_TIMEOUT', detail })

/** For an answer of which nothing else is expected. */
const refuseErrors: Answered = (answer) => {
  const error = errorNotify(answer)
  if (error !== undefined) throw faultOfNotify(error.type)
}
