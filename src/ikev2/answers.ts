/**
 * What the peer asks on one IKE SA, and what it is answered: every request once, and a repetition of it the same again
 * (RFC 7296 section 2.1). Until the peer is authenticated, `Admission` knows the answers; afterwards the session does.
 */
import type { UdpPath } from '#base/ip'
import type { Instant } from '#base/time'
import type { Admission } from '#ikev2/admission'
import type { Computation } from '#ikev2/computation'
import type { IkeContext } from '#ikev2/context'
import { asFault, type PeerFault } from '#ikev2/fault'
import type { Intake } from '#ikev2/intake'
import type { Message } from '#ikev2/message/fragment'
import type { ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { checkContents } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { IkeSa } from '#ikev2/sa'
import type { Session } from '#ikev2/session'
import { mayRequest } from '#ikev2/transitions'
import { type Datagrams, ResponseWindow } from '#ikev2/window'
import type { Customer } from '#ikev2/workshop'

/** What is answered to a request. */
export interface Answer {
  readonly payloads: readonly Payload[]
  /** What happens once the answer is on its way. */
  readonly conclude?: (sent: Datagrams) => void
}

export class Answers {
  readonly #context: IkeContext
  readonly #session: Session
  readonly #intake: Intake
  readonly #window: ResponseWindow
  /** What a responder keeps until its peer is authenticated. */
  #admission: Admission | undefined
  /** The request that is due is there, and its answer is being computed. */
  #isAnswering = false

  constructor(context: IkeContext, session: Session, intake: Intake) {
    this.#context = context
    this.#session = session
    this.#intake = intake
    this.#window = new ResponseWindow(context.crypto)
  }

  /** The peer is not authenticated yet. */
  get areForStranger(): boolean {
    return this.#admission !== undefined
  }

  /** Sends the answer to the request that began the IKE SA; what comes next is for `admission`. */
  begin(sa: IkeSa, admission: Admission, request: Uint8Array, response: Uint8Array): void {
    this.#admission = admission
    this.#window.answered([this.#context.crypto.hash('sha256', request)], [response])
    sa.transmit([response])
  }

  /** The request that began the IKE SA came again: its answer was lost. */
  repeatInit(sa: IkeSa): void {
    if (this.#window.answeredInitOnly) sa.transmit(this.#window.lastResponse)
    else this.#context.refuse('late-init', 'a repeated IKE_SA_INIT of an IKE SA that went on')
  }

  /** Of what is kept until the peer is authenticated. */
  forgetSecrets(): void {
    this.#admission?.wipe()
    this.#admission = undefined
  }

  /** @throws PeerFault, DecodeError: the datagram is not authentic, and nothing has changed */
  receive(sa: IkeSa, header: ReceivedHeader, datagram: Uint8Array, path: UdpPath, now: Instant): void {
    const { exchange, messageId } = header
    const name = EXCHANGE.nameOf(exchange)
    switch (this.#window.classify(messageId, datagram)) {
      case 'repeated':
        return sa.transmit(this.#window.lastResponse, path)
      case 'repeated fragment':
        return
      case 'changed':
        return this.#context.refuse('changed-retransmission', `${name} repeated with other content`)
      case 'out of window':
        return this.#context.refuse('message-id', `${name} request with a message ID outside the window`)
      case 'new':
    }
    if (!mayRequest(sa.state, exchange))
      return this.#context.refuse('illegal-exchange', `${name} request while ${sa.state}`)
    // Whatever this is, what has the same number is being answered.
    if (this.#isAnswering) return
    if (this.#admission !== undefined && this.#context.workshop?.isFull)
      return this.#context.refuse('busy', `${name} while too much is being computed`)
    const { channel } = sa
    const message = this.#intake.take(channel, header, datagram, now)
    if (message === undefined) return
    this.#session.heard(now)
    this.#session.heardFrom(path)
    const reply = (answer: () => Answer, at: Instant): void => {
      const { payloads, conclude } = this.#orFault(sa, answer, at)
      const response = channel.seal(sa.association.header(exchange, messageId, true), payloads)
      this.#window.answered(message.digests, response)
      sa.transmit(response, path)
      conclude?.(response)
    }
    const admission = this.#admission
    if (admission !== undefined) return this.#admit(sa, admission, exchange, message, reply, now)
    const answer = () => this.#session.answer(sa, exchange, readRequest(exchange, message), path, now)
    reply(answer, now)
  }

  /** Answers a peer that is not authenticated, at once or when the answer is computed. */
  #admit(
    sa: IkeSa,
    admission: Admission,
    exchange: number,
    message: Message,
    reply: (answer: () => Answer, at: Instant) => void,
    now: Instant,
  ): void {
    function* computation(): Computation<(at: Instant) => Answer> {
      return yield* admission.answer(sa, exchange, readRequest(exchange, message), message)
    }
    this.#isAnswering = true
    const customer: Customer<(at: Instant) => Answer> = {
      sa: sa.association.id,
      isWaiting: () => this.#admission === admission,
      done: (finish, at) => {
        this.#isAnswering = false
        if (finish === undefined)
          return this.#context.refuse('not-computed', `${EXCHANGE.nameOf(exchange)} unanswered`)
        reply(() => finish()(at), at)
      },
    }
    this.#context.workshop!.begin(computation(), customer, now)
  }

  /** The answer to an authentic request, or what is said of its fault. */
  #orFault(sa: IkeSa, answer: () => Answer, now: Instant): Answer {
    try {
      return answer()
    } catch (error) {
      return this.#answerFault(sa, asFault(error), now)
    }
  }

  /** RFC 7296 section 2.21: before authentication any fault is fatal; afterwards only a malformed message is. */
  #answerFault(sa: IkeSa, fault: PeerFault, now: Instant): Answer {
    this.#context.refuse(fault.counter, fault.message)
    const payloads = fault.notify === undefined ? [] : [notify(fault.notify.type, fault.notify.data)]
    if (this.#admission !== undefined) return { payloads, conclude: () => sa.turnAway(now) }
    if (fault.notify?.type !== NOTIFY.number.INVALID_SYNTAX) return { payloads }
    return { payloads, conclude: () => this.#session.endedByPeer(sa, fault.message, now, fault.code) }
  }
}

/** @throws PeerFault, DecodeError */
function readRequest(exchange: number, { firstPayload, plaintext }: Message): Payload[] {
  const payloads = decodePayloads(firstPayload, plaintext, EXCHANGE.nameOf(exchange))
  checkContents(exchange, false, payloads)
  return payloads
}
