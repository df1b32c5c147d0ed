/**
 * All IKE SAs of a host, in both roles, as one machine without I/O: datagrams in, datagrams and events out.
 *
 * Theory of operation. The engine finds the IKE SA of a datagram by our own SPI in its header and hands it over
 * (`sa.ts`); IKE SAs that follow each other are one session (`session.ts`). What belongs to no IKE SA is either an
 * IKE_SA_INIT or IKE_SESSION_RESUME request, which a responder answers under limits (`reception.ts`), or it is
 * counted and dropped without an answer: an unprotected error from us would tell a stranger what is here, and an
 * unprotected error from them proves nothing.
 */
import type { IkeSaId, Spi } from '#base/ids'
import type { Ip, UdpPath } from '#base/ip'
import type { Machine } from '#base/machine'
import type { Rng } from '#base/rng'
import { type Instant, SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { Allowance } from '#ikev2/allowance'
import { Association } from '#ikev2/association'
import type { Job } from '#ikev2/computation'
import type { IkeContext, Resumption } from '#ikev2/context'
import type { Counter, Gauge, Refusal } from '#ikev2/counters'
import type { Computed, IkeInput, IkeOutput, InitiateRequest, ResponderPolicy } from '#ikev2/events'
import { asFault, protocolFault } from '#ikev2/fault'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, isZeroSpi, type ReceivedHeader, SPI_LENGTH, spiKey } from '#ikev2/message/header'
import { notify } from '#ikev2/message/payload'
import { unframe } from '#ikev2/nat'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { Reception } from '#ikev2/reception'
import { Register } from '#ikev2/register'
import { TicketMint } from '#ikev2/resumption/mint'
import { IkeSa } from '#ikev2/sa'
import { Session } from '#ikev2/session'
import { InboundSpis } from '#ikev2/spis'
import { Workshop } from '#ikev2/workshop'

export interface IkeEngineOptions {
  readonly crypto: CryptoProvider
  /** Absent: requests of strangers are refused; this host only initiates. */
  readonly responder?: ResponderPolicy
  /** Emit `keys` events. For debugging alone: whoever has them reads everything. */
  readonly keyLog?: boolean
  readonly limits?: Partial<IkeLimits>
  /** Whoever drives this engine does what takes a responder long (`compute` and `computed`). Default: no, it is done here. */
  readonly offload?: boolean
  /** Workers over which the data plane spreads SAs by SPI: those with peers that prove who they are are drawn evenly. */
  readonly spread?: number
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
  readonly #limits: IkeLimits
  readonly #context: IkeContext
  /** Of a responder. */
  readonly #workshop: Workshop | undefined
  /** By our own SPI. */
  readonly #bySpi = new Map<string, IkeSa>()
  readonly #register: Register
  readonly #reception: Reception
  /** Answers to messages of other versions. */
  readonly #strays = new Allowance(STRAYS_PER_SECOND, SECOND)
  readonly #inboundSpis: InboundSpis
  readonly #counters = new Map<Counter, number>()
  #outputs: IkeOutput[] = []
  #polled = 0
  #lastId = 0

  constructor(options: IkeEngineOptions) {
    const { crypto } = options
    this.#crypto = crypto
    this.#rng = { bytes: (length) => crypto.random(length) }
    this.#inboundSpis = new InboundSpis(this.#rng, options.spread)
    this.#responder = options.responder
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#register = new Register(this.#limits.lingering)
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
      allocateSpi: (wish) => this.#inboundSpis.take(wish),
      releaseSpi: (spi) => this.#inboundSpis.release(spi),
      freshIkeSpi: () => this.#freshIkeSpi(),
      listen: (spi, sa) => this.#bySpi.set(spiKey(spi), sa),
      forget: (spi) => this.#bySpi.delete(spiKey(spi)),
    }
    this.#reception = new Reception(options.responder, this.#limits, this.#context, this.#register, {
      nextId: () => this.#nextId(),
      countSas: () => this.#bySpi.size,
    })
  }

  /** Begins an IKE SA with its first Child SA. It ends in exactly one `ike.closed`. */
  initiate(request: InitiateRequest, now: Instant): IkeSaId {
    const spi = this.#freshIkeSpi()
    const association = new Association(this.#nextId(), request.path, spi)
    const session = new Session(this.#context, association.id, 'initiator', association.way, request)
    const first = IkeSa.initiate(this.#context, session, association, request, now)
    this.#register.add({ session, first })
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

  /** We proved who we are, so the peer may have this IKE SA by now, with its first Child SA. */
  hasProved(id: IkeSaId): boolean {
    return this.#register.get(id)?.session.hasProved === true
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
    const entry = sa === undefined ? undefined : this.#register.get(sa)
    if (entry !== undefined) this.#register.settle(entry)
  }

  tick(now: Instant): void {
    for (const entry of this.#register.expired(now)) {
      entry.session.tick(now)
      this.#register.settle(entry)
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
    return this.#register.nextTimeout()
  }

  /** What was counted since the start, and what there is now, under the names of `counters.ts`. */
  counters(): Record<string, number> {
    const gauges: Record<Gauge, number> = {
      'sas.all': this.#bySpi.size,
      'sas.half-open': this.#register.halfOpen,
      'sas.lingering': this.#register.lingering,
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
      return this.#reception.receive(header, path, datagram, now)

    const own = header.fromInitiator ? header.spiResponder : header.spiInitiator
    const sa = this.#bySpi.get(spiKey(own))
    // A message of ours that comes back says it is from our role: no SA of ours is its receiver.
    if (sa === undefined || sa.association.role !== (header.fromInitiator ? 'responder' : 'initiator'))
      return this.#refuse('unknown-spi', `${EXCHANGE.nameOf(header.exchange)} for no IKE SA of ours`)
    const mismatch = sa.association.mismatch(header, path)
    if (mismatch !== undefined)
      return this.#refuse(mismatch, `${EXCHANGE.nameOf(header.exchange)} that is not from the peer`)
    const entry = this.#register.get(sa.association.id)!
    sa.receive(header, datagram, path, now)
    this.#register.settle(entry)
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

  // -------------------------------------------------------------------------------------------- bookkeeping

  /** An id that is unknown, or no longer means anything, is no error: events and calls cross. */
  #on(id: IkeSaId, action: (session: Session) => void): void {
    const entry = this.#register.get(id)
    if (entry === undefined || entry.session.isOver) return
    action(entry.session)
    this.#register.settle(entry)
  }

  #nextId(): IkeSaId {
    return ++this.#lastId as IkeSaId
  }

  #freshIkeSpi(): Uint8Array {
    for (;;) {
      const spi = this.#crypto.random(SPI_LENGTH)
      if (!isZeroSpi(spi) && !this.#bySpi.has(spiKey(spi))) return spi
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

const STRAYS_PER_SECOND = 10
