/**
 * The tickets of one session (RFC 5723 section 4.1). The initiator asks: with IKE_AUTH, whenever the IKE SA has new
 * keys, when half the life of its ticket is over, and at the end if it means to come back. The responder gives: every
 * time a fresh one, that knows what the session used so far.
 *
 * A resumed session has keys without forward secrecy. Until they are replaced there is no ticket of it.
 */
import { wipe } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import { jittered } from '#base/rng'
import { after, type Instant, MINUTE } from '#base/time'
import type { Agenda, IkeContext, Task } from '#ikev2/context'
import type { IkeId, IkeRole, PeerIdentity } from '#ikev2/events'
import {
  asksForTicket,
  noTicket,
  putsOffTicket,
  readGivenTicket,
  TICKET_REQUEST,
  ticketLater,
  ticketPayload,
} from '#ikev2/exchange/resume'
import type { Payload } from '#ikev2/message/payload'
import { EXCHANGE } from '#ikev2/numbers'
import type { Usage } from '#ikev2/resumption/strategy'
import type { IkeSa } from '#ikev2/sa'
import type { Way } from '#ikev2/way'

/** A ticket is renewed after this share of its life, give or take. */
const RENEWAL = 0.5
const RENEWAL_JITTER = 0.1

/** Between whom the session is, once that is proven. */
export interface Parties {
  readonly peer: PeerIdentity
  /** IDi, whether or not it proves anything. */
  readonly idi: IkeId
  /** The session was resumed; for a responder with what was used of the authentication before. */
  readonly resumed?: { readonly usage?: Usage }
}

/** The session, as far as it matters here. */
interface Owner {
  readonly id: IkeSaId
  readonly role: IkeRole
  readonly way: Way
}

export class Tickets {
  readonly #context: IkeContext
  readonly #session: Owner
  readonly #agenda: Agenda
  readonly #isWanted: boolean
  readonly #request: Task = { run: (sa, now) => this.#ask(sa, now) }
  #parties: Parties | undefined
  #since = 0 as Instant
  #isBorrowed = false
  /** Where what is used after the last ticket is put down. */
  #mark: string | undefined

  constructor(context: IkeContext, session: Owner, agenda: Agenda, isWanted: boolean) {
    this.#context = context
    this.#session = session
    this.#agenda = agenda
    this.#isWanted = isWanted
  }

  /** The session begins. `answer` is what an initiator got for its IKE_AUTH. */
  begin(sa: IkeSa, parties: Parties, answer: readonly Payload[] | undefined, now: Instant): void {
    this.#parties = parties
    this.#since = now
    this.#isBorrowed = parties.resumed !== undefined
    this.#context.count(this.#isBorrowed ? 'established.resumed' : 'established.full')
    if (answer !== undefined && !this.#isBorrowed) this.take(sa, answer, now)
  }

  /** The keys are those of an earlier session. */
  get isBorrowed(): boolean {
    return this.#isBorrowed
  }

  /** The IKE SA has keys of its own. */
  renewed(now: Instant): void {
    this.#isBorrowed = false
    if (this.#isWanted) this.#agenda.set(this.#request, now)
  }

  /** What goes with the DELETE of an initiator that means to come back. */
  lastRequest(): readonly Payload[] {
    return this.#isWanted && !this.#isBorrowed ? [TICKET_REQUEST] : []
  }

  /** The initiator's ticket, if one was given: announced, and renewed in time. */
  take(sa: IkeSa, answer: readonly Payload[], now: Instant): void {
    if (!this.#isWanted || this.#parties?.peer.kind !== 'key') return
    if (putsOffTicket(answer)) return this.#agenda.set(this.#request, after(now, MINUTE))
    const given = readGivenTicket(answer)
    if (given === undefined) return
    const { opaque, lifetime } = given
    const { peer, idi } = this.#parties
    const { channel } = sa
    this.#context.emit({
      kind: 'ticket',
      sa: this.#session.id,
      ticket: {
        opaque,
        skD: channel.copySkD(),
        suite: channel.suite,
        fullTranscript: channel.fullTranscript,
        peer,
        id: idi,
        expires: after(now, lifetime),
      },
    })
    const pause = jittered(this.#context.rng, RENEWAL * lifetime, RENEWAL_JITTER * lifetime)
    this.#agenda.set(this.#request, after(now, pause))
  }

  /** A responder's answer to whatever a request says about tickets. */
  answer(sa: IkeSa, request: readonly Payload[], now: Instant): Payload[] {
    if (this.#session.role === 'initiator' || !asksForTicket(request)) return []
    const { resumption } = this.#context
    if (this.#parties === undefined || resumption?.mayResume(this.#session.way.path) !== true)
      return [noTicket()]
    if (this.#isBorrowed) return [ticketLater()]
    const { peer, idi: id } = this.#parties
    const { suite, fullTranscript } = sa.channel
    const skD = sa.channel.copySkD()
    const grant = { skD, suite, fullTranscript, peer, id, session: this.#session.id }
    const issued = resumption.mint.issue({ ...grant, usage: this.usage(now) }, now)
    wipe(skD)
    if (issued === undefined) return [noTicket()]
    this.#mark = issued.mark
    this.#context.count('tickets.issued')
    return [ticketPayload(issued.opaque, issued.expires - now)]
  }

  /** What was used of the authentication, as a responder counts. */
  usage(now: Instant): Usage {
    const before = this.#parties?.resumed?.usage ?? { since: this.#since, connected: 0, octets: 0 }
    return {
      since: before.since,
      connected: before.connected + (now - this.#since),
      octets: before.octets + (this.#context.resumption?.octetsOf(this.#session.id) ?? 0),
    }
  }

  /** The session is over. */
  end(now: Instant | undefined): void {
    if (this.#mark !== undefined && now !== undefined)
      this.#context.resumption?.mint.settle(this.#mark, this.usage(now), now)
    this.#mark = undefined
  }

  #ask(sa: IkeSa, now: Instant): void {
    sa.ask(EXCHANGE.number.INFORMATIONAL, [TICKET_REQUEST], now, (answer, at) => this.take(sa, answer, at))
  }
}
