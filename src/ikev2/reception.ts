/**
 * Requests that begin an IKE SA: IKE_SA_INIT and IKE_SESSION_RESUME of whoever it may be. They are answered under limits.
 *
 * Under load (RFC 7296 section 2.6, RFC 8019): from `cookieAt` half-open IKE SAs on, a request must return a cookie, and
 * from `puzzleAt` on solve a puzzle (`gate.ts`). At `halfOpen` a newcomer takes the place of the oldest of whichever
 * neighbourhood has most (`shares.ts`), or is dropped if that is its own.
 */
import { equalBytes, toHex } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import { type Ip, ipToBytes, type UdpPath } from '#base/ip'
import type { Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { Beginning } from '#ikev2/admission'
import { Association } from '#ikev2/association'
import type { Computation } from '#ikev2/computation'
import type { IkeContext } from '#ikev2/context'
import type { ResponderPolicy } from '#ikev2/events'
import { answerInit } from '#ikev2/exchange/init'
import { answerResume, noTicket, readTicket } from '#ikev2/exchange/resume'
import { asFault, PeerFault, protocolFault } from '#ikev2/fault'
import { type Demand, Gate } from '#ikev2/gate'
import { encodeClear } from '#ikev2/message/encrypted'
import { HEADER_LENGTH, isZeroSpi, type ReceivedHeader, SPI_LENGTH, spiKey } from '#ikev2/message/header'
import { decodePayloads, type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { checkContents } from '#ikev2/message/registry'
import { responderMethods } from '#ikev2/methods'
import { frame, natDetection, readNatDetection } from '#ikev2/nat'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { Register } from '#ikev2/register'
import type { Usage } from '#ikev2/resumption/strategy'
import type { Grant } from '#ikev2/resumption/ticket'
import { IkeSa } from '#ikev2/sa'
import { Session } from '#ikev2/session'
import type { Customer } from '#ikev2/workshop'

/** How many there may be, as in `IkeLimits`. */
interface Room {
  readonly sas: number
  readonly halfOpen: number
  readonly cookieAt: number
  readonly puzzleAt: number
}

export class Reception {
  readonly #crypto: CryptoProvider
  readonly #policy: ResponderPolicy | undefined
  readonly #limits: Room
  readonly #context: IkeContext
  readonly #register: Register
  readonly #nextId: () => IkeSaId
  readonly #countSas: () => number
  readonly #gate: Gate
  /** How initiators may prove themselves to us. */
  readonly #methods: readonly Payload[]
  /** IKE_SA_INIT requests whose answer is being computed, by source and SPI. */
  readonly #beginning = new Set<string>()

  /** Without `policy` nobody is received. */
  constructor(
    policy: ResponderPolicy | undefined,
    limits: Room,
    context: IkeContext,
    register: Register,
    allocation: { readonly nextId: () => IkeSaId; readonly countSas: () => number },
  ) {
    this.#crypto = context.crypto
    this.#policy = policy
    this.#limits = limits
    this.#context = context
    this.#register = register
    this.#nextId = allocation.nextId
    this.#countSas = allocation.countSas
    this.#gate = new Gate(context.crypto, context.rng, limits)
    this.#methods = policy === undefined ? [] : [responderMethods(policy.publishedKey)]
  }

  /** @throws PeerFault, DecodeError: nothing has changed */
  receive(header: ReceivedHeader, path: UdpPath, datagram: Uint8Array, now: Instant): void {
    if (this.#policy === undefined)
      return this.#context.refuse('not-a-responder', `${EXCHANGE.nameOf(header.exchange)} request`)
    if (!header.fromInitiator || !isZeroSpi(header.spiResponder) || header.messageId !== 0)
      throw protocolFault('bad-init', `${EXCHANGE.nameOf(header.exchange)} that begins nothing`)
    const initKey = `${path.remote.address} ${path.remote.port} ${spiKey(header.spiInitiator)}`
    const known = this.#register.begunBy(initKey)
    if (
      known?.initDigest !== undefined &&
      equalBytes(known.initDigest, this.#crypto.hash('sha256', datagram))
    )
      return known.first.repeatInit()
    if (this.#beginning.has(initKey)) return
    const strangers = this.#strangers
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
      const group = this.#policy?.neighbourOf?.(path) ?? networkOf(path.remote.address)
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
    if (this.#context.workshop!.isFull)
      throw new PeerFault('IPP_IKE_LIMIT', 'busy', 'IKE_SA_INIT while too much is being computed')
    const association = this.#associate(knock)
    this.#beginning.add(initKey)
    const customer: Customer<ReturnType<typeof answerInit> extends Computation<infer T> ? T : never> = {
      sa: undefined,
      isWaiting: () => true,
      done: (finish, at) => {
        this.#beginning.delete(initKey)
        if (finish === undefined) return this.#context.refuse('not-computed', 'IKE_SA_INIT unanswered')
        this.#orAnswer(knock, () => this.#respond(knock, association, { kind: 'full', ...finish() }, at))
      },
    }
    this.#context.workshop!.begin(
      answerInit(this.#crypto, association, payloads, this.#methods),
      customer,
      now,
    )
  }

  #associate({ header, path }: Knock): Association {
    return new Association(this.#nextId(), path, header.spiInitiator.slice(), this.#context.freshIkeSpi())
  }

  /** Makes an IKE SA of what was found acceptable. */
  #respond(knock: Knock, association: Association, begun: Beginning, now: Instant): void {
    const { header, path, datagram, payloads, initKey, group } = knock
    const policy = this.#policy!
    const { way } = association
    const nat = policy.mayMove?.(path) ? readNatDetection(this.#crypto, header, path, payloads) : undefined
    if (nat !== undefined) {
      way.traverse(nat)
      begun.payloads.push(...natDetection(this.#crypto, association, path))
    }
    const session = new Session(this.#context, association.id, 'responder', way, policy)
    const first = IkeSa.respond(this.#context, session, association, policy, datagram, begun, now)
    this.#register.add({ session, first, initKey, initDigest: this.#crypto.hash('sha256', datagram), group })
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
      this.#context.refuse(fault.counter, fault.message)
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
      const session = this.#register.get(id)?.session
      return session === undefined || session.isOver ? undefined : session.usage(now)
    }
    const found = resumption?.mayResume(path)
      ? resumption.mint.open(opaque, now, liveUsage)
      : 'ticket-unwanted'
    if (typeof found !== 'string') return found
    this.#context.refuse(found, 'IKE_SESSION_RESUME with a ticket that is worth nothing')
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
    const demand = this.#gate.demand(knock, this.#strangers, now)
    if (demand !== undefined) {
      this.#demand(demand, header, path)
      return false
    }
    const { halfOpen, sas } = this.#limits
    const isFull = this.#countSas() >= sas
    // Half of the room is for whoever has less than the others.
    if (isFull || (this.#register.guests >= sas / 2 && this.#register.hasMostGuests(group)))
      throw new PeerFault('IPP_IKE_LIMIT', 'limit', 'IKE_SA_INIT while the limit of IKE SAs is reached')
    if (this.#strangers >= halfOpen) this.#displace(group)
    return true
  }

  #demand({ counter, detail, answer }: Demand, header: ReceivedHeader, path: UdpPath): void {
    this.#context.refuse(counter, detail)
    if (answer.length > 0) this.#answerInClear(header, path, answer)
  }

  /** Makes room for one more half-open IKE SA. @throws PeerFault when there is none for this neighbourhood */
  #displace(group: string): void {
    const victim = this.#register.victimFor(group)
    if (victim === undefined)
      throw new PeerFault('IPP_IKE_LIMIT', 'limit', 'IKE_SA_INIT while the limit of IKE SAs is reached')
    this.#context.refuse('half-open-displaced', 'a half-open IKE SA of the neighbourhood that has most')
    victim.session.abandon()
    this.#register.settle(victim)
  }

  #answerInClear(header: ReceivedHeader, path: UdpPath, payloads: readonly NotifyPayload[]): void {
    const { spiInitiator, exchange, messageId } = header
    const spiResponder = new Uint8Array(SPI_LENGTH)
    const answer = { spiInitiator, spiResponder, exchange, messageId, fromInitiator: false, response: true }
    this.#context.emit({ kind: 'transmit', path, bytes: frame(path, encodeClear(answer, payloads)) })
  }

  /** IKE SAs of whom nothing is known yet, and those to be. */
  get #strangers(): number {
    return this.#register.halfOpen + this.#beginning.size
  }
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

/** Who has no neighbour of ours before it: its /24, or /56. */
function networkOf(address: Ip): string {
  const octets = ipToBytes(address)
  return toHex(octets.subarray(0, octets.length === 4 ? 3 : 7))
}

const ANSWERED_IN_CLEAR: ReadonlySet<number> = new Set([
  NOTIFY.number.UNSUPPORTED_CRITICAL_PAYLOAD,
  NOTIFY.number.NO_PROPOSAL_CHOSEN,
  NOTIFY.number.INVALID_KE_PAYLOAD,
])
