/**
 * What an initiator with a ticket holds until it is authenticated. A ticket is tried once: if the responder does not
 * want it, a full exchange follows under the same IKE SPI, as if there had been none.
 */
import { equalBytes, wipe } from '#base/bytes'
import type { IkeSaId, Spi } from '#base/ids'
import type { Instant } from '#base/time'
import { Attempt, childOffer, type Initiation } from '#ikev2/attempt'
import { resumeChannel } from '#ikev2/channel'
import type { IkeContext } from '#ikev2/context'
import type { InitiateRequest } from '#ikev2/events'
import {
  type ResumeOffer,
  readResumeAnswer,
  readResumedAuthAnswer,
  resumedAuthRequest,
  resumeOffer,
  resumeRequest,
} from '#ikev2/exchange/resume'
import { protocolFault } from '#ikev2/fault'
import { wipeSecrets } from '#ikev2/keys'
import { encodeClear } from '#ikev2/message/encrypted'
import { HEADER_LENGTH, isZeroSpi, type ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads } from '#ikev2/message/payload'
import { checkContents } from '#ikev2/message/registry'
import { MOBIKE_SUPPORTED, saysMobike } from '#ikev2/mobility'
import { natDetection, readNatDetection } from '#ikev2/nat'
import { EXCHANGE } from '#ikev2/numbers'
import { type AuthContext, sameId } from '#ikev2/proof'
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'
import type { IkeSa } from '#ikev2/sa'

const { IKE_SESSION_RESUME, IKE_AUTH } = EXCHANGE.number
/** How often it begins again with a cookie. */
const MAX_RESTARTS = 4

/** Is this ticket of the peer that is to be asked, and good still? */
export const isUsable = (ticket: ResumptionTicket, { peer }: InitiateRequest, now: Instant): boolean =>
  now < ticket.expires && sameId(ticket.peer.id, peer.id) && equalBytes(ticket.peer.publicKey, peer.publicKey)

export class ResumptionAttempt implements Initiation {
  readonly inboundSpi: Spi
  readonly #context: IkeContext
  readonly #request: InitiateRequest
  #offer: ResumeOffer
  #datagram: Uint8Array = new Uint8Array(0)
  #restarts = 0
  #sa: IkeSaId | undefined
  #auth: AuthContext | undefined
  /** The full exchange, once the ticket was refused. */
  #full: Attempt | undefined

  /** Takes over the ticket. */
  constructor(context: IkeContext, request: InitiateRequest, ticket: ResumptionTicket) {
    this.inboundSpi = context.allocateSpi('evenly')
    this.#context = context
    this.#request = request
    this.#offer = resumeOffer(context.crypto, ticket)
  }

  /** Sends IKE_SESSION_RESUME: AUTH covers the last one, with its cookie. */
  begin(sa: IkeSa, now: Instant): void {
    this.#sa = sa.association.id
    const header = sa.association.header(IKE_SESSION_RESUME, 0, false)
    const { path } = sa.association
    const detection = this.#request.mobile ? natDetection(this.#context.crypto, header, path) : []
    this.#datagram = encodeClear(header, resumeRequest(this.#offer, detection))
    sa.askInClear(IKE_SESSION_RESUME, this.#datagram, now)
  }

  /** @throws PeerFault, DecodeError when the answer is no use: then nothing has changed */
  receive(sa: IkeSa, header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    if (this.#full !== undefined) return this.#full.receive(sa, header, datagram, now)
    const payloads = decodePayloads(
      header.firstPayload,
      datagram.subarray(HEADER_LENGTH),
      'IKE_SESSION_RESUME',
    )
    checkContents(header.exchange, true, payloads)
    const answer = readResumeAnswer(this.#offer, payloads)
    switch (answer.kind) {
      case 'cookie':
        return this.#again(sa, answer.cookie, now)
      case 'refused':
        return this.#beginFull(sa, now)
      case 'resumed': {
        if (isZeroSpi(header.spiResponder)) throw protocolFault('zero-spi', 'the responder has no SPI')
        const { association } = sa
        const { ticket } = this.#offer
        const nat = this.#request.mobile
          ? readNatDetection(this.#context.crypto, header, association.path, payloads)
          : undefined
        association.learnResponder(header.spiResponder)
        if (nat !== undefined) {
          association.way.traverse(nat)
          association.way.float()
        }
        const { channel, auth } = resumeChannel(
          this.#context,
          association,
          this.#datagram,
          datagram,
          ticket,
          answer.result,
        )
        this.#auth = auth
        wipe(ticket.skD)
        sa.initAnswered('init answered', channel, now)
        this.#authenticate(sa, auth, now)
      }
    }
  }

  wipe(): void {
    const isUnanswered = this.#auth === undefined && this.#full === undefined
    if (isUnanswered && this.#request.resume?.returnUnanswered && this.#sa !== undefined)
      this.#context.emit({ kind: 'ticket', sa: this.#sa, ticket: this.#offer.ticket })
    else wipeTicket(this.#offer.ticket)
    if (this.#auth !== undefined) wipeSecrets(this.#auth.secrets)
    this.#full?.wipe()
  }

  #authenticate(sa: IkeSa, auth: AuthContext, now: Instant): void {
    const { ticket } = this.#offer
    const { inboundSpi } = this
    const child = childOffer(this.#request, inboundSpi)
    const payloads = resumedAuthRequest(auth, ticket, child)
    const { way } = sa.association
    if (way.traverses) payloads.push(MOBIKE_SUPPORTED)
    sa.ask(IKE_AUTH, payloads, now, (answer, at) => {
      const result = readResumedAuthAnswer(auth, ticket.peer, child, answer)
      const { id: idi } = ticket
      way.isMobile = way.traverses && saysMobike(answer)
      sa.establish({ ...result, inboundSpi, initiated: true, nonces: auth, idi, answer, resumed: {} }, at)
    })
  }

  /** RFC 7296 section 2.6: the same with the cookie, and the nonce stays. One that comes again is an old answer. */
  #again(sa: IkeSa, cookie: Uint8Array, now: Instant): void {
    const known = this.#offer.cookie
    if (known !== undefined && equalBytes(cookie, known)) return
    if (this.#restarts === MAX_RESTARTS)
      throw protocolFault('init-loop', 'the peer asks to begin anew for ever')
    this.#restarts++
    this.#offer = { ...this.#offer, cookie }
    sa.enter('restart')
    this.begin(sa, now)
  }

  /** That the refusal is not protected costs us nothing but the shortcut. */
  #beginFull(sa: IkeSa, now: Instant): void {
    wipeTicket(this.#offer.ticket)
    this.#context.count('resumption.fell-back')
    this.#full = new Attempt(this.#context, this.#request, this.inboundSpi)
    sa.enter('ticket refused')
    this.#full.begin(sa, now)
  }
}
