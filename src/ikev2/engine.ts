/**
 * All IKE SAs of a host, in both roles, as one machine without I/O: datagrams in, datagrams and events out.
 *
 * Theory of operation. The engine finds the IKE SA of a datagram by our own SPI in its header and hands it over
 * (`sa.ts`); IKE SAs that follow each other are one session (`session.ts`). What belongs to no IKE SA is either an
 * IKE_SA_INIT or IKE_SESSION_RESUME request, which a responder answers under the limits
 * below, or it is counted and dropped without an answer: an unprotected error from us would tell a stranger what
 * is here, and an unprotected error from them proves nothing.
 *
 * Under load (RFC 7296 section 2.6, RFC 8019): from `cookieAt` half-open IKE SAs on, a request must return a cookie, and
 * from `puzzleAt` on solve a puzzle (`gate.ts`). At `halfOpen` a newcomer takes the place of the oldest of whichever
 * neighbourhood has most (`shares.ts`), or is dropped if that is its own.
 */
import { equalBytes, toHex } from '#base/bytes'
import { type IkeSaId, SPI_MIN, type Spi } from '#base/ids'
import { type Ip, ipToBytes, type UdpPath } from '#base/ip'
import type { Machine } from '#base/machine'
import { type Rng, uniform } from '#base/rng'
import { type Instant, SECOND, TimerTable } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { Allowance } from '#ikev2/allowance'
import { Association } from '#ikev2/association'
import type { Computation, Job } from '#ikev2/computation'
import type { IkeContext, Resumption } from '#ikev2/context'
import type { Counter, Gauge, Refusal } from '#ikev2/counters'
import type { Computed, IkeInput, IkeOutput, InitiateRequest, ResponderPolicy } from '#ikev2/events'
import { answerInit } from '#ikev2/exchange/init'
import { answerResume, noTicket, readTicket } from '#ikev2/exchange/resume'
import { asFault, PeerFault, protocolFault } from '#ikev2/fault'
import { type Demand, Gate } from '#ikev2/gate'
import { encodeClear } from '#ikev2/message/encrypted'
import {
  decodeHeader,
  HEADER_LENGTH,
  isZeroSpi,
  type ReceivedHeader,
  SPI_LENGTH,
  spiKey,
} from '#ikev2/message/header'
import { decodePayloads, type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { checkContents } from '#ikev2/message/registry'
import { responderMethods } from '#ikev2/methods'
import { frame, natDetection, readNatDetection, unframe } from '#ikev2/nat'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { TicketMint } from '#ikev2/resumption/mint'
import type { Usage } from '#ikev2/resumption/strategy'
import type { Grant } from '#ikev2/resumption/ticket'
import { type Beginning, IkeSa } from '#ikev2/sa'
import { Session } from '#ikev2/session'
import { Shares } from '#ikev2/shares'
import { type Customer, Workshop } from '#ikev2/workshop'

export interface IkeEngineOptions {
  readonly crypto: CryptoProvider
  /** Absent: requests of strangers are refused; this host only initiates. */
  readonly responder?: ResponderPolicy
  /** Emit `keys` events. For debugging alone: whoever has them reads everything. */
  readonly keyLog?: boolean
  readonly limits?: Partial<IkeLimits>
  /** Whoever drives this engine does what takes a responder long (`compute` and `computed`). Default: no, it is done here. */
  readonly offload?: boolean
}

export interface IkeLimits {
  /** IKE SAs altogether; new peers are refused beyond. */
  readonly sas: number
  /** IKE SAs that answered IKE_SA_INIT and wait for IKE_AUTH. */
  readonly halfOpen: number
  /** Half-open IKE SAs from which on cookies are demanded. */
  readonly cookieAt: number
  /** Half-open IKE SAs from which on puzzles are demanded. */
  readonly puzzleAt: number
  /** IKE SAs that are over and repeat their last answer; beyond, the oldest is forgotten early. */
  readonly lingering: number
  /** Answers to strangers that are being computed elsewhere; what else they ask meanwhile is dropped. */
  readonly computing: number
}

const DEFAULT_LIMITS: IkeLimits = {
  sas: 20_000,
  halfOpen: 1_000,
  cookieAt: 32,
  puzzleAt: 256,
  lingering: 1_000,
  computing: 256,
}

export class IkeEngine implements Machine<IkeInput, IkeOutput> {
  readonly #crypto: CryptoProvider
  readonly #rng: Rng
  readonly #responder: ResponderPolicy | undefined
  /** How initiators may prove themselves to us. */
  readonly #methods: readonly Payload[]
  readonly #limits: IkeLimits
  readonly #context: IkeContext
  readonly #gate: Gate
  /** Of a responder. */
  readonly #workshop: Workshop | undefined
  /** IKE_SA_INIT requests whose answer is being computed, as in `#byInit`. */
  readonly #beginning = new Set<string>()
  /** By our own SPI. */
  readonly #bySpi = new Map<string, IkeSa>()
  readonly #entries = new Map<IkeSaId, Entry>()
  /** By source and SPI of the IKE_SA_INIT request, the last one of its kind: a repeated one is not a new peer. */
  readonly #byInit = new Map<string, Entry>()
  readonly #halfOpen = new Shares<Entry>()
  /** Those that strangers began, half-open or not. */
  readonly #guests = new Shares<Entry>()
  /** Answers to messages of other versions. */
  readonly #strays = new Allowance(STRAYS_PER_SECOND, SECOND)
  /** In the order in which they ended. */
  readonly #lingering = new Set<Entry>()
  readonly #timers = new TimerTable<Entry>()
  readonly #inboundSpis = new Set<Spi>()
  readonly #counters = new Map<Counter, number>()
  #outputs: IkeOutput[] = []
  #polled = 0
  #lastId = 0

  constructor(options: IkeEngineOptions) {
    const { crypto } = options
    this.#crypto = crypto
    this.#rng = { bytes: (length) => crypto.random(length) }
    this.#responder = options.responder
    this.#methods = options.responder === undefined ? [] : [responderMethods(options.responder.publishedKey)]
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#gate = new Gate(crypto, this.#rng, this.#limits)
    const send = (id: number, job: Job): void => this.#emit({ kind: 'compute', id, job })
    this.#workshop =
      options.responder &&
      new Workshop(
        crypto,
        options.responder.credential,
        this.#limits.computing,
        options.offload ? send : undefined,
      )
    this.#context = {
      crypto,
      workshop: this.#workshop,
      rng: this.#rng,
      logKeys: options.keyLog ? (keys) => this.#emit({ kind: 'keys', ...keys }) : undefined,
      emit: (output) => this.#emit(output),
      refuse: (counter, detail) => this.#refuse(counter, detail),
      count: (counter) => this.#count(counter),
      resumption: resumptionOf(crypto, options.responder),
      supersede: (session) => this.abandon(session),
      allocateSpi: () => this.#allocateSpi(),
      releaseSpi: (spi) => this.#inboundSpis.delete(spi),
      freshIkeSpi: () => this.#freshIkeSpi(),
      listen: (spi, sa) => this.#bySpi.set(spiKey(spi), sa),
      forget: (spi) => this.#bySpi.delete(spiKey(spi)),
    }
  }

  /** Begins an IKE SA with its first Child SA. It ends in exactly one `ike.closed`. */
  initiate(request: InitiateRequest, now: Instant): IkeSaId {
    const spi = this.#freshIkeSpi()
    const association = new Association(this.#nextId(), request.path, spi)
    const session = new Session(this.#context, association.id, 'initiator', association.way, request)
    const first = IkeSa.initiate(this.#context, session, association, request, now)
    this.#add({ session, first })
    return association.id
  }

  /**
   * Sends DELETE; `ike.closed` follows when it is answered, or without an answer a little later. Idempotent.
   * `toReturn`: asks for a last ticket with it, which comes before `ike.closed`.
   */
  close(id: IkeSaId, now: Instant, { toReturn = false } = {}): void {
    this.#on(id, (session) => session.close(now, toReturn))
  }

  /** Sends DELETE for one Child SA; `child.closed` follows. */
  closeChild(id: IkeSaId, inboundSpi: Spi, now: Instant): void {
    this.#on(id, (session) => session.closeChild(inboundSpi, now))
  }

  /** Renews a Child SA: `child.rekeyed` follows, then `child.switched`. An SPI of one that was replaced will do. */
  rekeyChild(id: IkeSaId, inboundSpi: Spi, now: Instant): void {
    this.#on(id, (session) => session.rekeyChild(inboundSpi, now))
  }

  /** Renews the keys of an IKE SA: `ike.rekeyed` follows. Id and Child SAs stay. */
  rekeyIke(id: IkeSaId, now: Instant): void {
    this.#on(id, (session) => session.rekeyIke(now))
  }

  /**
   * Our address is another one: tells the peer, if that can be done, and ends the IKE SA without a word if not.
   * `ike.moved` follows when the peer knows.
   */
  move(id: IkeSaId, local: Ip, now: Instant): void {
    this.#on(id, (session) => session.move(local, now))
  }

  /** Drops an IKE SA without sending anything: its path is gone. */
  abandon(id: IkeSaId): void {
    this.#on(id, (session) => session.abandon())
  }

  /** ESP of this IKE SA's peer arrived: it lives, and the liveness check waits. */
  heard(id: IkeSaId, now: Instant): void {
    this.#on(id, (session) => session.heard(now))
  }

  /** ESP arrived on this Child SA, the heir of another: `child.switched` may follow. */
  heardOn(id: IkeSaId, inboundSpi: Spi, now: Instant): void {
    this.#on(id, (session) => session.heardOn(inboundSpi, now))
  }

  handle(input: IkeInput, now: Instant): void {
    if (input.kind === 'computed') return this.#computed(input, now)
    this.#count('datagrams')
    this.#context.resumption?.mint.age(now)
    try {
      this.#receive(input.path, input.bytes, now)
    } catch (error) {
      const fault = asFault(error)
      this.#refuse(fault.counter, fault.message)
    }
  }

  #computed({ id, done }: Computed, now: Instant): void {
    const sa = this.#workshop?.resume(id, done, now)
    const entry = sa === undefined ? undefined : this.#entries.get(sa)
    if (entry !== undefined) this.#settle(entry)
  }

  tick(now: Instant): void {
    for (const entry of this.#timers.expired(now)) {
      entry.session.tick(now)
      this.#settle(entry)
    }
  }

  poll(): IkeOutput | undefined {
    if (this.#polled === this.#outputs.length) {
      this.#outputs = []
      this.#polled = 0
      return undefined
    }
    return this.#outputs[this.#polled++]
  }

  nextTimeout(): Instant | undefined {
    return this.#timers.next()
  }

  /** What was counted since the start, and what there is now, under the names of `counters.ts`. */
  counters(): Record<string, number> {
    const gauges: Record<Gauge, number> = {
      'sas.all': this.#bySpi.size,
      'sas.half-open': this.#halfOpen.size,
      'sas.lingering': this.#lingering.size,
      'spis.inbound': this.#inboundSpis.size,
      'answers.computing': this.#workshop?.size ?? 0,
    }
    return { ...Object.fromEntries([...this.#counters].sort()), ...gauges }
  }

  // -------------------------------------------------------------------------------------------- demultiplexing

  #receive(path: UdpPath, framed: Uint8Array, now: Instant): void {
    const datagram = unframe(path, framed)
    if (datagram === undefined) return
    const header = decodeHeader(datagram)
    if (header.majorVersion !== 2) return this.#refuseVersion(header, path, now)
    if (isZeroSpi(header.spiInitiator)) throw protocolFault('zero-spi', 'the initiator has no SPI')
    if (BEGINNINGS.has(header.exchange) && !header.response)
      return this.#receiveInit(header, path, datagram, now)

    const own = header.fromInitiator ? header.spiResponder : header.spiInitiator
    const sa = this.#bySpi.get(spiKey(own))
    // A message of ours that comes back says it is from our role: no SA of ours is its receiver.
    if (sa === undefined || sa.association.role !== (header.fromInitiator ? 'responder' : 'initiator'))
      return this.#refuse('unknown-spi', `${EXCHANGE.nameOf(header.exchange)} for no IKE SA of ours`)
    const mismatch = sa.association.mismatch(header, path)
    if (mismatch !== undefined)
      return this.#refuse(mismatch, `${EXCHANGE.nameOf(header.exchange)} that is not from the peer`)
    const entry = this.#entries.get(sa.association.id)!
    sa.receive(header, datagram, path, now)
    this.#settle(entry)
  }

  /** RFC 7296 section 2.5. A version before ours would not understand us, and an answer is not answered. */
  #refuseVersion(header: ReceivedHeader, path: UdpPath, now: Instant): void {
    this.#refuse('version', `IKE version ${header.majorVersion}`)
    const isAnswered = this.#responder !== undefined && header.majorVersion > 2 && !header.response
    if (!isAnswered || !this.#strays.take(now)) return
    const answer = { ...header, fromInitiator: !header.fromInitiator, response: true }
    const bytes = encodeClear(answer, [notify(NOTIFY.number.INVALID_MAJOR_VERSION)])
    this.#emit({ kind: 'transmit', path, bytes })
  }

  #receiveInit(header: ReceivedHeader, path: UdpPath, datagram: Uint8Array, now: Instant): void {
    if (this.#responder === undefined)
      return this.#refuse('not-a-responder', `${EXCHANGE.nameOf(header.exchange)} request`)
    if (!header.fromInitiator || !isZeroSpi(header.spiResponder) || header.messageId !== 0)
      throw protocolFault('bad-init', `${EXCHANGE.nameOf(header.exchange)} that begins nothing`)
    const initKey = `${path.remote.address} ${path.remote.port} ${spiKey(header.spiInitiator)}`
    const known = this.#byInit.get(initKey)
    if (known?.initDigest !== undefined && equalBytes(known.initDigest, this.#digest(datagram)))
      return known.first.repeatInit()
    if (this.#beginning.has(initKey)) return
    const strangers = this.#halfOpen.size + this.#beginning.size
    const away = this.#gate.turnAway(header, datagram, path.remote.address, strangers, now)
    if (away !== undefined) return this.#demand(away, header, path)

    const payloads = decodePayloads(
      header.firstPayload,
      datagram.subarray(HEADER_LENGTH),
      EXCHANGE.nameOf(header.exchange),
    )
    const knock: Knock = { header, path, datagram, payloads, initKey, group: '' }
    this.#orAnswer(knock, () => {
      checkContents(header.exchange, false, payloads)
      const group = this.#responder?.neighbourOf?.(path) ?? networkOf(path.remote.address)
      if (this.#admit(header, path, group, payloads, now)) this.#begin({ ...knock, group }, now)
    })
  }

  /** Answers a request that is admitted, at once or when the answer is computed. @throws PeerFault */
  #begin(knock: Knock, now: Instant): void {
    const { header, path, payloads, initKey } = knock
    if (header.exchange === EXCHANGE.number.IKE_SESSION_RESUME) {
      const begun = this.#answerResume(header, path, payloads, now)
      if (begun !== undefined) this.#respond(knock, this.#associate(knock), begun, now)
      return
    }
    if (this.#workshop!.isFull)
      throw new PeerFault('IPP_IKE_LIMIT', 'busy', 'IKE_SA_INIT while too much is being computed')
    const association = this.#associate(knock)
    this.#beginning.add(initKey)
    const customer: Customer<ReturnType<typeof answerInit> extends Computation<infer T> ? T : never> = {
      sa: undefined,
      isWaiting: () => true,
      done: (finish, at) => {
        this.#beginning.delete(initKey)
        if (finish === undefined) return this.#refuse('not-computed', 'IKE_SA_INIT unanswered')
        this.#orAnswer(knock, () => this.#respond(knock, association, { kind: 'full', ...finish() }, at))
      },
    }
    this.#workshop!.begin(answerInit(this.#crypto, association, payloads, this.#methods), customer, now)
  }

  #associate({ header, path }: Knock): Association {
    return new Association(this.#nextId(), path, header.spiInitiator.slice(), this.#freshIkeSpi())
  }

  /** Makes an IKE SA of what was found acceptable. */
  #respond(knock: Knock, association: Association, begun: Beginning, now: Instant): void {
    const { header, path, datagram, payloads, initKey, group } = knock
    const policy = this.#responder!
    const { way } = association
    const nat = policy.mayMove?.(path) ? readNatDetection(this.#crypto, header, path, payloads) : undefined
    if (nat !== undefined) {
      way.traverse(nat)
      begun.payloads.push(...natDetection(this.#crypto, association, path))
    }
    const session = new Session(this.#context, association.id, 'responder', way, policy)
    const first = IkeSa.respond(this.#context, session, association, policy, datagram, begun, now)
    this.#add({ session, first, initKey, initDigest: this.#digest(datagram), group })
  }

  /** What is wrong with a request that begins an IKE SA is answered where that has a place, and counted. */
  #orAnswer({ header, path }: Knock, action: () => void): void {
    try {
      action()
    } catch (error) {
      const fault = asFault(error)
      // Only these have a place before there are keys; anything else would be noise for whoever asks.
      const { notify: why } = fault
      if (why !== undefined && ANSWERED_IN_CLEAR.has(why.type))
        this.#answerInClear(header, path, [notify(why.type, why.data)])
      this.#refuse(fault.counter, fault.message)
    }
  }

  #answerResume(
    header: ReceivedHeader,
    path: UdpPath,
    payloads: readonly Payload[],
    now: Instant,
  ): Beginning | undefined {
    const grant = this.#redeem(header, path, payloads, now)
    return grant && { kind: 'resumed', grant, ...answerResume(this.#crypto, payloads) }
  }

  /** What the ticket of an IKE_SESSION_RESUME stands for; if it is worth nothing, the peer is told so. @throws PeerFault */
  #redeem(
    header: ReceivedHeader,
    path: UdpPath,
    payloads: readonly Payload[],
    now: Instant,
  ): Grant | undefined {
    const opaque = readTicket(payloads)
    const { resumption } = this.#context
    const liveUsage = (id: IkeSaId): Usage | undefined => {
      const session = this.#entries.get(id)?.session
      return session === undefined || session.isOver ? undefined : session.usage(now)
    }
    const found = resumption?.mayResume(path)
      ? resumption.mint.open(opaque, now, liveUsage)
      : 'ticket-unwanted'
    if (typeof found !== 'string') return found
    this.#refuse(found, 'IKE_SESSION_RESUME with a ticket that is worth nothing')
    this.#answerInClear(header, path, [noTicket()])
    return undefined
  }

  /** May this peer cost us state? If it has to do something for it first, it is told. @throws PeerFault at the limit */
  #admit(
    header: ReceivedHeader,
    path: UdpPath,
    group: string,
    payloads: readonly Payload[],
    now: Instant,
  ): boolean {
    const { spiInitiator } = header
    const knock = { payloads, spiInitiator, source: path.remote.address }
    const demand = this.#gate.demand(knock, this.#halfOpen.size + this.#beginning.size, now)
    if (demand !== undefined) {
      this.#demand(demand, header, path)
      return false
    }
    const { halfOpen, sas } = this.#limits
    const isFull = this.#bySpi.size >= sas
    // Half of the room is for whoever has less than the others.
    if (isFull || (this.#guests.size >= sas / 2 && this.#guests.hasMost(group)))
      throw new PeerFault('IPP_IKE_LIMIT', 'limit', 'IKE_SA_INIT while the limit of IKE SAs is reached')
    if (this.#halfOpen.size + this.#beginning.size >= halfOpen) this.#displace(group)
    return true
  }

  #demand({ counter, detail, answer }: Demand, header: ReceivedHeader, path: UdpPath): void {
    this.#refuse(counter, detail)
    if (answer.length > 0) this.#answerInClear(header, path, answer)
  }

  /** Makes room for one more half-open IKE SA. @throws PeerFault when there is none for this neighbourhood */
  #displace(group: string): void {
    const victim = this.#halfOpen.victimFor(group)
    if (victim === undefined)
      throw new PeerFault('IPP_IKE_LIMIT', 'limit', 'IKE_SA_INIT while the limit of IKE SAs is reached')
    this.#refuse('half-open-displaced', 'a half-open IKE SA of the neighbourhood that has most')
    victim.session.abandon()
    this.#settle(victim)
  }

  #answerInClear(header: ReceivedHeader, path: UdpPath, payloads: readonly NotifyPayload[]): void {
    const { spiInitiator, exchange, messageId } = header
    const spiResponder = new Uint8Array(SPI_LENGTH)
    const answer = { spiInitiator, spiResponder, exchange, messageId, fromInitiator: false, response: true }
    this.#emit({ kind: 'transmit', path, bytes: frame(path, encodeClear(answer, payloads)) })
  }

  // -------------------------------------------------------------------------------------------- bookkeeping

  #add(entry: Entry): void {
    this.#entries.set(entry.session.id, entry)
    if (entry.initKey !== undefined) this.#byInit.set(entry.initKey, entry)
    if (entry.group !== undefined) this.#guests.add(entry.group, entry)
    this.#settle(entry)
  }

  /** Follows a session after anything happened to it: which list it is in, and when it wants to be woken. */
  #settle(entry: Entry): void {
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
    if (this.#lingering.size <= this.#limits.lingering) return
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

  /** An id that is unknown, or no longer means anything, is no error: events and calls cross. */
  #on(id: IkeSaId, action: (session: Session) => void): void {
    const entry = this.#entries.get(id)
    if (entry === undefined || entry.session.isOver) return
    action(entry.session)
    this.#settle(entry)
  }

  #nextId(): IkeSaId {
    return ++this.#lastId as IkeSaId
  }

  #digest(request: Uint8Array): Uint8Array {
    return this.#crypto.hash('sha256', request)
  }

  #freshIkeSpi(): Uint8Array {
    for (;;) {
      const spi = this.#crypto.random(SPI_LENGTH)
      if (!isZeroSpi(spi) && !this.#bySpi.has(spiKey(spi))) return spi
    }
  }

  /** From the full range: a narrower one would be a fingerprint of this implementation. */
  #allocateSpi(): Spi {
    for (;;) {
      const spi = (SPI_MIN + uniform(this.#rng, 2 ** 32 - SPI_MIN)) as Spi
      if (this.#inboundSpis.has(spi)) continue
      this.#inboundSpis.add(spi)
      return spi
    }
  }

  #emit(output: IkeOutput): void {
    this.#outputs.push(output)
  }

  #refuse(counter: Refusal, detail: string): void {
    this.#count(counter)
    this.#emit({ kind: 'refused', counter, detail })
  }

  #count(counter: Counter): void {
    this.#counters.set(counter, (this.#counters.get(counter) ?? 0) + 1)
  }
}

/** The exchanges that begin an IKE SA. */
const BEGINNINGS: ReadonlySet<number> = new Set([
  EXCHANGE.number.IKE_SA_INIT,
  EXCHANGE.number.IKE_SESSION_RESUME,
])

function resumptionOf(crypto: CryptoProvider, policy: ResponderPolicy | undefined): Resumption | undefined {
  const wishes = policy?.resumption
  if (policy === undefined || wishes === undefined) return undefined
  const mint = new TicketMint(crypto, policy.credential.id, wishes.strategy)
  return { mint, mayResume: (path) => wishes.mayResume(path), octetsOf: (sa) => wishes.octetsOf(sa) }
}

/** A request that begins an IKE SA. */
interface Knock {
  readonly header: ReceivedHeader
  readonly path: UdpPath
  readonly datagram: Uint8Array
  readonly payloads: readonly Payload[]
  /** As in `Entry`, and its group. */
  readonly initKey: string
  readonly group: string
}

interface Entry {
  readonly session: Session
  /** The one that IKE_SA_INIT made. */
  readonly first: IkeSa
  /** Where its IKE_SA_INIT came from, with the SPI in it. */
  readonly initKey?: string
  readonly initDigest?: Uint8Array
  /** Whose half-open IKE SA it is, of a responder. */
  readonly group?: string
}

/** Who has no neighbour of ours before it: its /24, or /56. */
function networkOf(address: Ip): string {
  const octets = ipToBytes(address)
  return toHex(octets.subarray(0, octets.length === 4 ? 3 : 7))
}

const STRAYS_PER_SECOND = 10

const ANSWERED_IN_CLEAR: ReadonlySet<number> = new Set([
  NOTIFY.number.UNSUPPORTED_CRITICAL_PAYLOAD,
  NOTIFY.number.NO_PROPOSAL_CHOSEN,
  NOTIFY.number.INVALID_KE_PAYLOAD,
])
