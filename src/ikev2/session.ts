/**
 * One IKE SA as its owner knows it: an id that stays while IKE SAs follow each other on the wire. The session holds
 * what a rekey does not change - the peer, the path, the Child SAs, what is to be done and when - and says in public
 * when it begins and ends.
 *
 *     session ---- current IkeSa ---- the window our requests go through
 *        |    \--- other IkeSas       replaced, in vain or over; they still answer
 *        |---- Children               Child SAs and their rekeys
 *        '---- Succession             rekeys of the IKE SA
 *
 * An initiator's session is known to its owner from the start. A responder's is announced when both sides are
 * authenticated, and only what was announced is closed in public.
 */
import type { ErrorCode } from '#base/errors'
import type { IkeSaId, Spi } from '#base/ids'
import type { Ip, UdpPath } from '#base/ip'
import { jittered } from '#base/rng'
import { after, type Duration, earliest, type Instant, SECOND, TimerTable } from '#base/time'
import type { Answer } from '#ikev2/answers'
import { Children } from '#ikev2/children'
import { type IkeContext, PEER_PATIENCE, type Task, type Verdict } from '#ikev2/context'
import type { ChildSa, IkeRole, InitiateRequest, ResponderPolicy } from '#ikev2/events'
import { noAdditionalSas, readWish, temporaryFailure } from '#ikev2/exchange/create-child'
import { readDeletes, saysAuthFailed } from '#ikev2/exchange/informational'
import { FollowUp } from '#ikev2/follow-up'
import type { Payload } from '#ikev2/message/payload'
import { Mobility } from '#ikev2/mobility'
import { EXCHANGE } from '#ikev2/numbers'
import { formatSuite } from '#ikev2/proposal'
import type { Usage } from '#ikev2/resumption/strategy'
import { type Parties, Tickets } from '#ikev2/resumption/tickets'
import { RoundTrip } from '#ikev2/retransmit'
import type { IkeSa } from '#ikev2/sa'
import { Succession } from '#ikev2/succession'
import type { Way } from '#ikev2/way'

/** For the answer to our DELETE: afterwards the session ends without it. */
const CLOSING_PATIENCE: Duration = 10 * SECOND
/** Of the liveness interval, to either side. */
const LIVENESS_JITTER = 0.1
/** For a peer to replace the keys of the session it resumed. */
const REFRESH_PATIENCE: Duration = 10 * SECOND
/** A peer that rekeys faster than it deletes has to wait. */
const MAX_MEMBERS = 4

/** What is lent and promised when both sides are authenticated. */
export interface Established extends Parties {
  readonly answer?: readonly Payload[]
  readonly leased?: Ip
  readonly child: ChildSa
}

export class Session {
  readonly id: IkeSaId
  readonly role: IkeRole
  readonly roundTrip: RoundTrip
  /** For the answer to a liveness check, and while there is no IKE SA yet. */
  readonly patience: Duration
  readonly #context: IkeContext
  readonly #way: Way
  readonly #mobility: Mobility
  readonly #liveness: Duration | undefined
  readonly #agenda = new TimerTable<Task>()
  readonly #children: Children
  readonly #succession: Succession
  readonly #tickets: Tickets
  /** Rekeys of the peer that are half done. */
  readonly #followUp: FollowUp
  readonly #askIfAlive: Task = {
    run: (sa, now) => sa.ask(EXCHANGE.number.INFORMATIONAL, [], now, undefined, this.patience),
  }
  readonly #members = new Set<IkeSa>()
  #current: IkeSa | undefined
  /** Known to the owner, and not closed yet. */
  #announced: boolean
  #isEstablished = false
  #isOver = false
  /** It is closed, and is to be resumed. */
  #isToReturn = false
  #verdict: Verdict | undefined

  constructor(context: IkeContext, id: IkeSaId, role: IkeRole, way: Way, wishes: Wishes) {
    this.#context = context
    this.id = id
    this.role = role
    this.#way = way
    this.roundTrip = new RoundTrip(wishes.initialTimeout)
    this.patience = wishes.patience ?? PEER_PATIENCE
    this.#liveness = wishes.liveness
    this.#announced = role === 'initiator'
    const { espCiphers, lifetimes } = wishes
    this.#followUp = new FollowUp(context)
    const child = { espCiphers, lifetime: lifetimes?.child }
    this.#children = new Children(context, id, this.#agenda, this.#followUp, child)
    this.#succession = new Succession(context, this, this.#agenda, this.#followUp, lifetimes?.ike)
    this.#mobility = new Mobility(context, {
      role,
      way,
      agenda: this.#agenda,
      mayBeAt: (path) => wishes.mayMove?.(path) === true,
      moved: () => this.#moved(),
    })
    this.#tickets = new Tickets(context, { id, role, way }, this.#agenda, wishes.resume !== undefined)
  }

  // -------------------------------------------------------------------------------------------- the owner

  /**
   * Sends DELETE and ends when it is answered, or after `CLOSING_PATIENCE`. Idempotent. `toReturn`: asks for a last
   * ticket with it.
   */
  close(now: Instant, toReturn = false): void {
    this.#isToReturn = toReturn
    this.#verdict = { code: 'IPP_IKE_CLOSED', detail: 'closed by us' }
    this.#clearAgenda()
    for (const sa of [...this.#members]) sa.close(now, CLOSING_PATIENCE)
  }

  /** Sends DELETE for one Child SA; it is closed when that is answered. */
  closeChild(inboundSpi: Spi, now: Instant): void {
    this.#children.remove(inboundSpi, now)
    this.proceed(now)
  }

  rekeyChild(inboundSpi: Spi, now: Instant): void {
    this.#children.rekey(inboundSpi, now)
    this.proceed(now)
  }

  rekeyIke(now: Instant): void {
    if (!this.#isEstablished || this.#isOver) return
    this.#succession.rekey(now)
    this.proceed(now)
  }

  /** Our own address is another one. */
  move(local: Ip, now: Instant): void {
    if (!this.#isEstablished || !this.#way.isMobile) return this.abandon('our address is another one')
    this.#mobility.leave(local, now)
    for (const sa of this.#members) sa.repeat()
    this.proceed(now)
  }

  /** Ends at once and without a word. */
  abandon(detail = 'abandoned by us'): void {
    this.#end({ code: 'IPP_IKE_CLOSED', detail })
    for (const sa of [...this.#members]) sa.finish()
  }

  /** An authentic request came this way. */
  heardFrom(path: UdpPath): void {
    this.#mobility.heardFrom(path, !this.#isEstablished)
  }

  /** Authenticated traffic of the peer arrived, on an IKE SA or a Child SA: it lives. */
  heard(now: Instant): void {
    const interval = this.#liveness
    if (interval === undefined || !this.#isEstablished || this.#isOver || this.#verdict !== undefined) return
    const pause = jittered(this.#context.rng, interval, LIVENESS_JITTER * interval)
    this.#agenda.set(this.#askIfAlive, after(now, pause))
  }

  /** The same, on a Child SA of which the owner was told by `child.rekeyed`. */
  heardOn(inboundSpi: Spi, now: Instant): void {
    this.heard(now)
    if (!this.#isOver) this.#children.heard(inboundSpi)
  }

  // -------------------------------------------------------------------------------------------- the engine

  /** Nothing answers any more for this session. */
  get isGone(): boolean {
    return this.#members.size === 0
  }

  /** Closed in public, and still repeating its last answers. */
  get isOver(): boolean {
    return this.#isOver
  }

  get isHalfOpen(): boolean {
    return this.#current?.isHalfOpen === true
  }

  get hasProved(): boolean {
    return this.#current?.hasProved === true
  }

  nextTimeout(): Instant | undefined {
    const mayAsk = this.#current?.isIdle === true
    let next = earliest(this.#children.nextTimeout(), mayAsk ? this.#agenda.next() : undefined)
    next = earliest(next, this.#followUp.nextTimeout())
    for (const sa of this.#members) next = earliest(next, sa.nextTimeout())
    return earliest(next, this.#mobility.nextTimeout())
  }

  tick(now: Instant): void {
    for (const sa of [...this.#members]) sa.tick(now)
    this.#children.tick(now)
    this.#mobility.tick(now)
    this.#followUp.tick(now)
    this.proceed(now)
  }

  // -------------------------------------------------------------------------------------------- its IKE SAs

  /** Why the session will end, if that is known before it does: a hint of the peer, or our own close. */
  get verdict(): Verdict | undefined {
    return this.#verdict
  }

  set verdict(verdict: Verdict | undefined) {
    this.#verdict = verdict
  }

  /** A request of ours about a Child SA is out: not the moment to change the IKE SA under it. */
  get isChangingChild(): boolean {
    return this.#children.isBusy
  }

  get isAnnounced(): boolean {
    return this.#announced
  }

  join(sa: IkeSa): void {
    this.#members.add(sa)
    this.#current ??= sa
    this.#context.listen(sa.association.ownSpi, sa)
  }

  /** An IKE SA is gone; with it the session, if there is no other to go on with. */
  leave(sa: IkeSa, verdict: Verdict, now?: Instant): void {
    this.#members.delete(sa)
    this.#context.forget(sa.association.ownSpi)
    if (sa !== this.#current) return
    const heir = now === undefined ? undefined : this.#succession.heirOf(sa)
    if (heir !== undefined) this.promote(heir, now!)
    else this.#end(verdict, now)
  }

  /** Both sides are authenticated: announces the IKE SA and its Child SA. */
  establish(sa: IkeSa, { child, leased, answer, ...parties }: Established, now: Instant): void {
    this.#isEstablished = true
    this.#announced = true
    const { id, role } = this
    const { path } = this.#way
    const { peer } = parties
    const common = { sa: id, role, path, peer, ...(leased === undefined ? {} : { leased }) }
    this.#context.emit({ kind: 'ike.established', ...common, suite: formatSuite(sa.channel.suite) })
    this.#children.first(child, now)
    this.#context.emit({ kind: 'child.established', ...common, ...encapsulation(this.#way), child })
    this.#succession.begin(now)
    this.#mobility.begin(now)
    this.#tickets.begin(sa, parties, answer, now)
    // RFC 5723 section 9.8: there is no forward secrecy before this.
    if (parties.resumed !== undefined) this.#succession.rekey(this.#refreshAt(now))
    this.heard(now)
  }

  /** Another IKE SA is the one we ask on from now on. */
  promote(sa: IkeSa, now: Instant): void {
    this.#current = sa
    if (!this.#isOver) this.#context.emit({ kind: 'ike.rekeyed', sa: this.id })
    this.#succession.begin(now)
    if (this.#tickets.isBorrowed) this.#children.rekeyAll(this.#refreshAt(now))
    this.#tickets.renewed(now)
    if (this.#verdict !== undefined) sa.close(now, CLOSING_PATIENCE)
  }

  /** What goes with our DELETE. */
  lastRequest(sa: IkeSa): readonly Payload[] {
    return this.#isToReturn && sa === this.#current ? this.#tickets.lastRequest() : []
  }

  lastAnswer(sa: IkeSa, answer: readonly Payload[], now: Instant): void {
    if (this.#isToReturn && sa === this.#current) this.#tickets.take(sa, answer, now)
  }

  giveTicket(sa: IkeSa, request: readonly Payload[], now: Instant): Payload[] {
    return this.#tickets.answer(sa, request, now)
  }

  /** What was used of the authentication of its peer so far. */
  usage(now: Instant): Usage {
    return this.#tickets.usage(now)
  }

  /** Asks what is due, one thing after the other. */
  proceed(now: Instant): void {
    while (this.#current?.isIdle === true) {
      const task = this.#agenda.take(now)
      if (task === undefined) return
      task.run(this.#current, now)
    }
  }

  /** The answer to an authentic request on an IKE SA that is established, or was. @throws PeerFault */
  answer(sa: IkeSa, exchange: number, payloads: readonly Payload[], path: UdpPath, now: Instant): Answer {
    switch (exchange) {
      case EXCHANGE.number.INFORMATIONAL:
        return this.#answerInformational(sa, payloads, path, now)
      case EXCHANGE.number.IKE_FOLLOWUP_KE:
        return { payloads: this.#followUp.answer(sa, payloads, now) }
      default:
        return { payloads: this.#answerCreateChild(sa, payloads, now) }
    }
  }

  /** The peer ended an IKE SA, or broke it. */
  endedByPeer(sa: IkeSa, detail: string, now: Instant, code: ErrorCode = 'IPP_IKE_DELETED'): void {
    if (sa === this.#current) {
      const heir = this.#succession.heirOf(sa)
      if (heir !== undefined) this.promote(heir, now)
      else this.#end(this.#verdict ?? { code, detail }, now)
    }
    sa.linger('ended by peer', now)
  }

  /** A responder's peer was not admitted: there is nothing to close in public. */
  turnedAway(): void {
    this.#isOver = true
  }

  #answerInformational(sa: IkeSa, request: readonly Payload[], path: UdpPath, now: Instant): Answer {
    const { ike, outboundSpis } = readDeletes(request)
    const tickets = sa === this.#current ? this.#tickets.answer(sa, request, now) : []
    if (ike) return { payloads: tickets, conclude: () => this.endedByPeer(sa, 'deleted by the peer', now) }
    if (saysAuthFailed(request))
      return { payloads: [], conclude: () => this.endedByPeer(sa, 'the peer did not accept our proof', now) }
    const moving = this.#isOver ? [] : this.#mobility.answer(sa, request, path, now)
    const answer = this.#children.answerDelete(outboundSpis, now)
    return { ...answer, payloads: [...answer.payloads, ...moving, ...tickets] }
  }

  /** What may not overlap is put off (RFC 7296 section 2.25). */
  #answerCreateChild(sa: IkeSa, request: readonly Payload[], now: Instant): Payload[] {
    const wish = readWish(request)
    if (sa.state !== 'established') return temporaryFailure()
    this.#followUp.forget()
    switch (wish.kind) {
      case 'new child':
        return noAdditionalSas()
      case 'rekey child':
        if (this.#succession.isBusy) return temporaryFailure()
        return this.#children.answerRekey(sa, wish.outboundSpi, request, now)
      case 'rekey ike':
        if (this.#children.isBusy || this.#members.size >= MAX_MEMBERS) return temporaryFailure()
        return this.#succession.answer(sa, request, now)
    }
  }

  // -------------------------------------------------------------------------------------------- the end

  #end({ code: reason, detail }: Verdict, now?: Instant): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#tickets.end(now)
    this.#clearAgenda()
    this.#mobility.end()
    this.#followUp.forget()
    this.#children.closeAll()
    for (const sa of [...this.#members]) {
      const isWaiting = sa.state === 'established' || sa.state === 'replaced'
      if (sa !== this.#current && isWaiting) sa.finish()
    }
    if (!this.#announced) return
    this.#announced = false
    const { id: sa, role } = this
    const { path } = this.#way
    this.#context.emit({ kind: 'ike.closed', sa, role, path, reason, detail })
  }

  #moved(): void {
    const { id: sa, role } = this
    const { path } = this.#way
    this.#context.emit({ kind: 'ike.moved', sa, role, path, ...encapsulation(this.#way) })
  }

  /** When the keys of a resumed session are to be replaced: at once by whoever began it, else by us in the end. */
  #refreshAt(now: Instant): Instant {
    return this.role === 'initiator' ? now : after(now, REFRESH_PATIENCE)
  }

  #clearAgenda(): void {
    this.#agenda.expired(Infinity as Instant)
  }
}

type Wishes = Pick<
  InitiateRequest,
  'resume' | 'liveness' | 'patience' | 'initialTimeout' | 'lifetimes' | 'espCiphers'
> &
  Pick<ResponderPolicy, 'mayMove'>

const encapsulation = (way: Way): { encapsulated?: true } =>
  way.isEncapsulated ? { encapsulated: true } : {}
