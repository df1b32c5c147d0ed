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
import { equalBytes, wipe } from '#base/bytes'
import type { ErrorCode } from '#base/errors'
import type { IkeSaId, Spi } from '#base/ids'
import type { UdpEndpoint, UdpPath } from '#base/ip'
import { jittered, type Rng } from '#base/rng'
import { after, type Duration, earliest, type Instant, MINUTE, SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { Attempt } from '#ikev2/attempt'
import { type Channel, openChannel } from '#ikev2/channel'
import type {
  ChildSa,
  IkeOutput,
  IkeRole,
  InitiateRequest,
  PeerIdentity,
  ResponderPolicy,
} from '#ikev2/events'
import { answerAuth } from '#ikev2/exchange/auth'
import type { ChildTerms } from '#ikev2/exchange/child'
import { answerCreateChild } from '#ikev2/exchange/create-child'
import { deleteChildren, deleteIke, readDeletes, saysAuthFailed } from '#ikev2/exchange/informational'
import type { InitResult } from '#ikev2/exchange/init'
import { asFault, faultOfNotify, type PeerFault, protocolFault } from '#ikev2/fault'
import { wipeSecrets } from '#ikev2/keys'
import { encodeClear } from '#ikev2/message/encrypted'
import { HEADER_LENGTH, type Header, isZeroSpi, type ReceivedHeader, SPI_LENGTH } from '#ikev2/message/header'
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

/** What an engine lends to its SAs. */
export interface SaContext {
  readonly crypto: CryptoProvider
  readonly rng: Rng
  readonly keyLog: boolean
  emit(output: IkeOutput): void
  /** Counts a refusal and tells the owner. `detail` never quotes addresses or octets of the peer. */
  refuse(counter: string, detail: string): void
  /** A fresh inbound ESP SPI, unique in this engine until it is released. */
  allocateSpi(): Spi
  releaseSpi(spi: Spi): void
}

interface Verdict {
  readonly code: ErrorCode
  readonly detail: string
}

export class IkeSa {
  readonly id: IkeSaId
  readonly role: IkeRole
  readonly path: UdpPath
  readonly #context: SaContext
  readonly #spiInitiator: Uint8Array
  #spiResponder: Uint8Array
  #state: IkeState
  readonly #requests: RequestWindow<readonly Payload[]>
  readonly #responses: ResponseWindow
  readonly #policy: ResponderPolicy | undefined
  readonly #liveness: Duration | undefined
  readonly #patience: Duration
  #attempt: Attempt | undefined
  #auth: AuthContext | undefined
  #channel: Channel | undefined
  readonly #children = new Map<Spi, ChildSa>()
  /** Known to the owner, and not closed yet. */
  #announced: boolean
  /** Why the SA ends, as soon as it is known: the peer's hint, or our own close. */
  #verdict: Verdict | undefined
  /** When the present state ends by itself. */
  #expiry: Instant | undefined
  #livenessAt: Instant | undefined

  private constructor(options: {
    readonly id: IkeSaId
    readonly role: IkeRole
    readonly path: UdpPath
    readonly context: SaContext
    readonly spiInitiator: Uint8Array
    readonly spiResponder: Uint8Array
    readonly request?: InitiateRequest
    readonly policy?: ResponderPolicy
  }) {
    const { context, request, policy } = options
    this.id = options.id
    this.role = options.role
    this.path = options.path
    this.#context = context
    this.#spiInitiator = options.spiInitiator
    this.#spiResponder = options.spiResponder
    this.#policy = policy
    this.#liveness = request?.liveness ?? policy?.liveness
    this.#patience = request?.patience ?? ESTABLISHED_PATIENCE
    this.#state = request === undefined ? 'half-open' : 'initiating'
    this.#announced = request !== undefined
    this.#requests = new RequestWindow({
      rng: context.rng,
      roundTrip: new RoundTrip(request?.initialTimeout),
      patience: request?.patience ?? ESTABLISHING_PATIENCE,
      firstId: 0,
    })
    this.#responses = new ResponseWindow(context.crypto)
  }

  /** Begins an IKE SA: IKE_SA_INIT is in the outputs. */
  static initiate(
    context: SaContext,
    id: IkeSaId,
    spiInitiator: Uint8Array,
    request: InitiateRequest,
    now: Instant,
  ): IkeSa {
    const spiResponder = new Uint8Array(SPI_LENGTH)
    const sa = new IkeSa({
      id,
      role: 'initiator',
      path: request.path,
      context,
      spiInitiator,
      spiResponder,
      request,
    })
    sa.#attempt = new Attempt(context.crypto, request, context.allocateSpi())
    sa.#sendInit(sa.#attempt, now)
    return sa
  }

  /** Takes an acceptable IKE_SA_INIT request, and answers it. */
  static respond(
    context: SaContext,
    id: IkeSaId,
    policy: ResponderPolicy,
    request: {
      readonly path: UdpPath
      readonly spiInitiator: Uint8Array
      readonly spiResponder: Uint8Array
      readonly datagram: Uint8Array
    },
    answer: { readonly result: InitResult; readonly payloads: readonly Payload[] },
    now: Instant,
  ): IkeSa {
    const { path, spiInitiator, spiResponder, datagram } = request
    const sa = new IkeSa({ id, role: 'responder', path, context, spiInitiator, spiResponder, policy })
    const response = encodeClear(sa.#header(EXCHANGE.number.IKE_SA_INIT, 0, true), answer.payloads)
    sa.#keyUp(answer.result, datagram, response)
    sa.#responses.answered(datagram, [response])
    sa.#expiry = after(now, HALF_OPEN_LIFETIME)
    sa.#transmit([response])
    return sa
  }

  get state(): IkeState {
    return this.#state
  }

  /** Why a datagram with our SPI and role is none of this SA's, if so: the peer's SPI, or where it came from. */
  mismatch(header: Header, path: UdpPath): string | undefined {
    const [theirs, expected] =
      this.role === 'initiator'
        ? [header.spiResponder, this.#spiResponder]
        : [header.spiInitiator, this.#spiInitiator]
    // Before IKE_SA_INIT is answered, the peer has no SPI that we know.
    if (this.#state !== 'initiating' && !equalBytes(theirs, expected)) return 'foreign-spi'
    return samePath(path, this.path) ? undefined : 'foreign-path'
  }

  /** When `tick` has something to do. */
  nextTimeout(): Instant | undefined {
    const { current } = this.#requests
    const idle = current === undefined ? this.#livenessAt : undefined
    return earliest(earliest(current?.retransmission.deadline, this.#expiry), idle)
  }

  tick(now: Instant): void {
    if (this.#expiry !== undefined && now >= this.#expiry) return this.#expired()
    const due = this.#requests.current?.retransmission.due(now)
    if (due === 'repeat') return this.#transmit(this.#requests.current!.datagrams)
    if (due === 'give up') return this.#unanswered()
    if (this.#livenessAt !== undefined && now >= this.#livenessAt && this.#requests.current === undefined)
      this.#request(EXCHANGE.number.INFORMATIONAL, [], now)
  }

  /** A datagram of this SA: its SPIs, path and role were checked by the engine. */
  receive(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    try {
      if (header.response) this.#receiveResponse(header, datagram, now)
      else this.#receiveRequest(header, datagram, now)
    } catch (error) {
      // Only what is not authenticated gets here: it is refused, and nothing has changed.
      const fault = asFault(error)
      this.#context.refuse(fault.counter, fault.message)
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
      this.#request(EXCHANGE.number.INFORMATIONAL, [deleteIke()], now, () => this.#expired())
    } else if (this.#state === 'authenticating') {
      // The peer may hold an SA already: it is deleted as soon as IKE_AUTH is answered.
      this.#requests.current?.retransmission.hurry(CLOSING_PATIENCE, now)
    } else if (this.#state === 'initiating') this.#finish(this.#verdict)
  }

  /** Sends DELETE for one Child SA; it is closed when that is answered. */
  closeChild(inboundSpi: Spi, now: Instant): void {
    if (this.#state !== 'established' || !this.#children.has(inboundSpi)) return
    this.#request(EXCHANGE.number.INFORMATIONAL, [deleteChildren([inboundSpi])], now, () => {
      // Whatever the answer lists: the SA pair is gone on both sides (RFC 7296 section 1.4.1).
      this.#closeChild(inboundSpi)
    })
  }

  /** Ends at once and without a word. */
  abandon(): void {
    this.#finish({ code: 'IPP_IKE_CLOSED', detail: 'abandoned by us' })
  }

  /** Authenticated traffic of the peer arrived, here or on a Child SA: it lives. */
  heard(now: Instant): void {
    if (this.#liveness === undefined || this.#state !== 'established') return
    this.#livenessAt = after(
      now,
      jittered(this.#context.rng, this.#liveness, LIVENESS_JITTER * this.#liveness),
    )
  }

  /** The datagram that began this SA, again (responder): the answer was lost. */
  repeatInit(): void {
    if (this.#state === 'half-open') this.#transmit(this.#responses.lastResponse)
    else this.#context.refuse('late-init', 'a repeated IKE_SA_INIT of an IKE SA that went on')
  }

  // -------------------------------------------------------------------------------------------- requests of the peer

  #receiveRequest(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const name = EXCHANGE.nameOf(header.exchange)
    switch (this.#responses.classify(header.messageId, datagram)) {
      case 'repeated':
        return this.#transmit(this.#responses.lastResponse)
      case 'changed':
        return this.#context.refuse('changed-retransmission', `${name} repeated with other content`)
      case 'out of window':
        return this.#context.refuse('message-id', `${name} request with a message ID outside the window`)
      case 'new':
    }
    if (!mayRequest(this.#state, header.exchange))
      return this.#context.refuse('illegal-exchange', `${name} request while ${this.#state}`)
    const { firstPayload, plaintext } = this.#channel!.open(header, datagram)
    this.heard(now)
    const { payloads, conclude } = this.#answer(header.exchange, firstPayload, plaintext, now)
    const response = this.#channel!.seal(this.#header(header.exchange, header.messageId, true), payloads)
    this.#responses.answered(datagram, response)
    this.#transmit(response)
    conclude?.()
  }

  /** The answer to an authentic request, and what happens once it is on its way. */
  #answer(exchange: number, firstPayload: number, plaintext: Uint8Array, now: Instant): Answer {
    try {
      const payloads = decodePayloads(firstPayload, plaintext, EXCHANGE.nameOf(exchange))
      checkContents(exchange, false, payloads)
      switch (exchange) {
        case EXCHANGE.number.IKE_AUTH:
          return this.#answerAuth(payloads, now)
        case EXCHANGE.number.CREATE_CHILD_SA:
          return { payloads: answerCreateChild(payloads, (spi) => this.#childByOutbound(spi) !== undefined) }
        default:
          return this.#answerInformational(payloads, now)
      }
    } catch (error) {
      return this.#answerFault(asFault(error), now)
    }
  }

  #answerAuth(request: readonly Payload[], now: Instant): Answer {
    const inboundSpi = this.#context.allocateSpi()
    try {
      const where = { sa: this.id, path: this.path, inboundSpi }
      const answer = answerAuth(this.#context.crypto, this.#auth!, this.#policy!, where, request)
      if (answer.kind === 'established') {
        // Announced before the answer is transmitted: the SA is installed when the peer begins to use it.
        this.#establish(answer.peer, inboundSpi, answer.terms, now)
        return { payloads: answer.payloads }
      }
      this.#context.releaseSpi(inboundSpi)
      this.#context.refuse(answer.fault.counter, answer.fault.message)
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
    const closed = outboundSpis.flatMap((spi) => this.#childByOutbound(spi) ?? [])
    const spis = [...new Set(closed.map(({ inboundSpi }) => inboundSpi))]
    return {
      payloads: spis.length === 0 ? [] : [deleteChildren(spis)],
      conclude: () => {
        for (const spi of spis) this.#closeChild(spi)
      },
    }
  }

  /** RFC 7296 section 2.21: before authentication any fault is fatal; afterwards only a malformed message is. */
  #answerFault(fault: PeerFault, now: Instant): Answer {
    this.#context.refuse(fault.counter, fault.message)
    const payloads = fault.notify === undefined ? [] : [notify(fault.notify.type, fault.notify.data)]
    if (this.#state === 'half-open') return { payloads, conclude: () => this.#linger('refused', now) }
    if (fault.notify?.type !== NOTIFY.number.INVALID_SYNTAX || this.#state === 'lingering')
      return { payloads }
    return { payloads, conclude: () => this.#endedByPeer(fault.message, now, fault.code) }
  }

  // -------------------------------------------------------------------------------------------- answers of the peer

  #receiveResponse(header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const { current } = this.#requests
    if (header.messageId !== current?.messageId || header.exchange !== current.request.exchange)
      return this.#context.refuse(
        'unexpected-response',
        `${EXCHANGE.nameOf(header.exchange)} response to nothing`,
      )
    if (this.#state === 'initiating') return this.#receiveInit(current, header, datagram, now)
    const { firstPayload, plaintext } = this.#channel!.open(header, datagram)
    this.#completed(current, now)
    this.heard(now)
    try {
      const payloads = decodePayloads(firstPayload, plaintext, EXCHANGE.nameOf(header.exchange))
      checkContents(header.exchange, true, payloads)
      current.request.answered(payloads, now)
    } catch (error) {
      const fault = asFault(error)
      this.#context.refuse(fault.counter, fault.message)
      return this.#fail(verdictOf(fault), now)
    }
    this.#transmit(this.#requests.begin(now))
  }

  /** The answer to IKE_SA_INIT is unprotected: one that is no use is remembered as a hint, and waited out. */
  #receiveInit(current: Outgoing, header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const attempt = this.#attempt!
    try {
      const payloads = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'IKE_SA_INIT')
      checkContents(header.exchange, true, payloads)
      const result = attempt.readInit(payloads)
      if (result === 'stale') return
      if (result === 'again') {
        this.#step('restart')
        return this.#sendInit(attempt, now)
      }
      if (isZeroSpi(header.spiResponder)) throw protocolFault('zero-spi', 'the responder has no SPI')
      this.#spiResponder = header.spiResponder.slice()
      this.#keyUp(result, attempt.datagram, datagram)
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
    const exchange = EXCHANGE.number.IKE_SA_INIT
    const datagram = attempt.encodeInit(this.#header(exchange, 0, false))
    // The one request whose answer is unprotected: it goes to `#receiveInit`.
    this.#transmit(this.#requests.replace({ exchange, encode: () => [datagram], answered: () => {} }, now))
  }

  #authenticate(attempt: Attempt, now: Instant): void {
    const auth = this.#auth!
    let payloads: Payload[]
    try {
      payloads = attempt.authRequest(auth)
    } catch (error) {
      return this.#finish(verdictOf(asFault(error)))
    }
    this.#request(EXCHANGE.number.IKE_AUTH, payloads, now, (answer) => {
      const { peer, terms } = attempt.readAuth(auth, answer)
      if (this.#verdict === undefined) this.#establish(peer, attempt.inboundSpi, terms, now)
      else this.#fail(this.#verdict, now)
    })
  }

  #completed(current: Outgoing, now: Instant): void {
    const { started, transmissions } = current.retransmission
    const name = EXCHANGE.nameOf(current.request.exchange)
    this.#requests.complete(now)
    if (this.#announced)
      this.#context.emit({ kind: 'exchange', sa: this.id, name, duration: now - started, transmissions })
  }

  // -------------------------------------------------------------------------------------------- keys and children

  #keyUp(result: InitResult, initRequest: Uint8Array, initResponse: Uint8Array): void {
    const { crypto, keyLog } = this.#context
    const [spiInitiator, spiResponder] = [this.#spiInitiator, this.#spiResponder]
    const messages = { initRequest, initResponse, spiInitiator, spiResponder }
    const { channel, auth } = openChannel(crypto, this.role, messages, result)
    this.#channel = channel
    this.#auth = auth
    const { skEi, skEr } = auth.secrets
    if (keyLog) {
      const { path, id: sa } = this
      const keys = { skEi: skEi.slice(), skEr: skEr.slice(), cipher: channel.suite.cipher }
      this.#context.emit({ kind: 'keys', sa, path, spiInitiator, spiResponder, ...keys })
    }
    wipe(skEi, skEr)
  }

  /** Both sides are authenticated: announces the IKE SA and its Child SA. */
  #establish(peer: PeerIdentity, inboundSpi: Spi, terms: ChildTerms, now: Instant): void {
    const { ni, nr, secrets } = this.#auth!
    const channel = this.#channel!
    const child = channel.childSa(inboundSpi, terms, ni, nr)
    wipe(secrets.skPi, secrets.skPr)
    this.#children.set(inboundSpi, child)
    this.#attempt = undefined
    this.#auth = undefined
    this.#expiry = undefined
    this.#requests.patience = this.#patience
    this.#step('authenticated')
    this.heard(now)
    this.#announced = true
    const { id: sa, role, path } = this
    const common = { sa, role, path, peer, ...(terms.leased === undefined ? {} : { leased: terms.leased }) }
    this.#context.emit({ kind: 'ike.established', ...common, suite: formatSuite(channel.suite) })
    this.#context.emit({ kind: 'child.established', ...common, child })
  }

  #childByOutbound(spi: Spi): ChildSa | undefined {
    for (const child of this.#children.values()) if (child.outboundSpi === spi) return child
    return undefined
  }

  #closeChild(inboundSpi: Spi): void {
    const child = this.#children.get(inboundSpi)
    if (child === undefined) return
    this.#children.delete(inboundSpi)
    this.#context.releaseSpi(inboundSpi)
    this.#context.emit({ kind: 'child.closed', sa: this.id, child })
  }

  // -------------------------------------------------------------------------------------------- the end

  #unanswered(): void {
    this.#finish(this.#verdict ?? { code: 'IPP_IKE_TIMEOUT', detail: `no answer while ${this.#state}` })
  }

  /** The state lasted as long as it may: half-open, closing or lingering. */
  #expired(): void {
    if (this.#state === 'half-open') this.#context.refuse('half-open-expired', 'IKE_AUTH never came')
    this.#finish(this.#verdict ?? { code: 'IPP_IKE_TIMEOUT', detail: `no longer ${this.#state}` })
  }

  /** An answer showed that this SA is no use. The peer may think otherwise: it is told, once. */
  #fail(verdict: Verdict, now: Instant): void {
    this.#requests.clear()
    this.#request(EXCHANGE.number.INFORMATIONAL, [deleteIke()], now)
    this.#finish(verdict)
  }

  #endedByPeer(detail: string, now: Instant, code: ErrorCode = 'IPP_IKE_DELETED'): void {
    if (this.#state === 'lingering') return
    this.#requests.clear()
    this.#announceEnd(this.#verdict ?? { code, detail })
    this.#linger('ended by peer', now)
  }

  #linger(step: IkeStep, now: Instant): void {
    this.#step(step)
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
    this.#forget()
  }

  #announceEnd({ code: reason, detail }: Verdict): void {
    for (const inboundSpi of [...this.#children.keys()]) this.#closeChild(inboundSpi)
    if (!this.#announced) return
    this.#announced = false
    const { id: sa, role, path } = this
    this.#context.emit({ kind: 'ike.closed', sa, role, path, reason, detail })
  }

  #forget(): void {
    if (this.#attempt !== undefined) {
      this.#attempt.wipe()
      this.#context.releaseSpi(this.#attempt.inboundSpi)
    }
    if (this.#auth !== undefined) wipeSecrets(this.#auth.secrets)
    this.#channel?.destroy()
    this.#attempt = undefined
    this.#auth = undefined
    this.#channel = undefined
  }

  // -------------------------------------------------------------------------------------------- messages

  #step(step: IkeStep): void {
    this.#state = next(this.#state, step)
  }

  #header(exchange: number, messageId: number, response: boolean): Header {
    const fromInitiator = this.role === 'initiator'
    const [spiInitiator, spiResponder] = [this.#spiInitiator, this.#spiResponder]
    return { spiInitiator, spiResponder, exchange, fromInitiator, response, messageId }
  }

  /** Sends a request now, or when those before it are answered. */
  #request(
    exchange: number,
    payloads: readonly Payload[],
    now: Instant,
    answered: Answered = ignoreAnswer,
  ): void {
    const encode = (messageId: number): Datagrams =>
      this.#channel!.seal(this.#header(exchange, messageId, false), payloads)
    this.#requests.push({ exchange, encode, answered })
    this.#transmit(this.#requests.begin(now))
  }

  #transmit(datagrams: Datagrams): void {
    for (const bytes of datagrams) this.#context.emit({ kind: 'transmit', path: this.path, bytes })
  }
}

const samePath = (a: UdpPath, b: UdpPath): boolean =>
  sameEndpoint(a.local, b.local) && sameEndpoint(a.remote, b.remote)

const sameEndpoint = (a: UdpEndpoint, b: UdpEndpoint): boolean => a.address === b.address && a.port === b.port

const verdictOf = (fault: PeerFault): Verdict => ({ code: fault.code, detail: fault.message })

type Outgoing = Outstanding<readonly Payload[]>
type Answered = (answer: readonly Payload[], now: Instant) => void

interface Answer {
  readonly payloads: readonly Payload[]
  /** What happens once the answer is on its way. */
  readonly conclude?: () => void
}

/** An error in an answer of which nothing else is expected. */
const ignoreAnswer: Answered = (answer) => {
  const error = errorNotify(answer)
  if (error !== undefined) throw faultOfNotify(error.type)
}
