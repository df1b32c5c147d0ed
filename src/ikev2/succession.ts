/**
 * How an IKE SA is followed by another (RFC 7296 sections 1.3.2, 2.8, 2.18): new SPIs, keys and message IDs, the same
 * session with the same Child SAs. Whoever rekeyed deletes the old IKE SA.
 *
 * Rekeys that cross (section 2.25.2): both are answered, so there are two candidates; of the four nonces the lowest
 * decides which was in vain, and whoever began that one deletes it. Until then the session goes on with the old one.
 */
import { jittered } from '#base/rng'
import { after, type Duration, type Instant } from '#base/time'
import { loses, type NoncePair, retryPause } from '#ikev2/collision'
import { type Agenda, type IkeContext, LIFETIME_JITTER, PEER_PATIENCE, type Task } from '#ikev2/context'
import {
  answerIkeRekey,
  type IkeRekeyOffer,
  ikeRekeyOffer,
  ikeRekeyRequest,
  readIkeRekeyAnswer,
  temporaryFailure,
} from '#ikev2/exchange/create-child'
import { faultOfNotify } from '#ikev2/fault'
import type { Payload } from '#ikev2/message/payload'
import { errorNotify } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { IkeSa } from '#ikev2/sa'
import type { Session } from '#ikev2/session'

/** Our rekey that is out. */
interface Attempt {
  readonly old: IkeSa
  /** What the peer's rekey of the same IKE SA made meanwhile. */
  rival?: { readonly sa: IkeSa; readonly nonces: NoncePair }
}

export class Succession {
  readonly #context: IkeContext
  readonly #session: Session
  readonly #agenda: Agenda
  readonly #lifetime: Duration | undefined
  readonly #task: Task = { run: (sa, now) => this.#rekey(sa, now) }
  #attempt: Attempt | undefined
  #postponed = 0

  constructor(context: IkeContext, session: Session, agenda: Agenda, lifetime: Duration | undefined) {
    this.#context = context
    this.#session = session
    this.#agenda = agenda
    this.#lifetime = lifetime
  }

  /** A rekey of ours is out: no time for anything about Child SAs (RFC 7296 section 2.25.2). */
  get isBusy(): boolean {
    return this.#attempt !== undefined
  }

  /** A new IKE SA is in use: it grows old from now on. */
  begin(now: Instant): void {
    this.#attempt = undefined
    this.#postponed = 0
    this.#agenda.clear(this.#task)
    const lifetime = this.#lifetime
    if (lifetime === undefined) return
    this.#agenda.set(
      this.#task,
      after(now, jittered(this.#context.rng, lifetime, LIFETIME_JITTER * lifetime)),
    )
  }

  /** Rekeys at a moment, as soon as the window is free. */
  rekey(at: Instant): void {
    if (this.#attempt === undefined) this.#agenda.set(this.#task, at)
  }

  /** Who inherits if the peer deletes this IKE SA now: its own candidate, which it thereby says has won. */
  heirOf(sa: IkeSa): IkeSa | undefined {
    return this.#attempt?.old === sa ? this.#rival(this.#attempt)?.sa : undefined
  }

  /** @throws PeerFault whose notify is the answer; nothing has changed then. */
  answer(old: IkeSa, payloads: readonly Payload[], now: Instant): Payload[] {
    const attempt = this.#attempt
    if (attempt?.rival !== undefined) return temporaryFailure()
    const spi = this.#context.freshIkeSpi()
    const answer = answerIkeRekey(this.#context.crypto, spi, payloads)
    const { suite, peerSpi, keying } = answer
    const association = old.association.succeed('responder', peerSpi, spi)
    const channel = old.channel.renew(this.#context, association, suite, keying)
    const sa = IkeSa.succeed(this.#context, this.#session, association, channel)
    if (attempt !== undefined) attempt.rival = { sa, nonces: keying }
    else {
      this.#session.promote(sa, now)
      old.retire(now)
    }
    return answer.payloads
  }

  #rekey(old: IkeSa, now: Instant): void {
    const offer = ikeRekeyOffer(this.#context.crypto, this.#context.freshIkeSpi())
    const attempt: Attempt = { old }
    this.#attempt = attempt
    old.ask(EXCHANGE.number.CREATE_CHILD_SA, ikeRekeyRequest(offer), now, (payloads, at) => {
      this.#attempt = undefined
      this.#answered(attempt, offer, payloads, at)
    })
  }

  #answered(attempt: Attempt, offer: IkeRekeyOffer, payloads: readonly Payload[], now: Instant): void {
    const { old } = attempt
    const rival = this.#rival(attempt)
    const error = errorNotify(payloads)
    if (error !== undefined) return this.#refused(old, rival?.sa, error.type, now)
    const { suite, peerSpi, keying } = readIkeRekeyAnswer(this.#context.crypto, offer, payloads)
    const association = old.association.succeed('initiator', offer.spi, peerSpi)
    const channel = old.channel.renew(this.#context, association, suite, keying)
    const sa = IkeSa.succeed(this.#context, this.#session, association, channel)
    if (rival !== undefined && loses(keying, rival.nonces)) {
      this.#session.promote(rival.sa, now)
      old.retire(now)
      sa.close(now, PEER_PATIENCE)
      return
    }
    this.#session.promote(sa, now)
    rival?.sa.retire(now)
    old.close(now, PEER_PATIENCE)
  }

  /** @throws PeerFault when there is no use in trying again: the IKE SA is to be built anew. */
  #refused(old: IkeSa, rival: IkeSa | undefined, type: number, now: Instant): void {
    if (rival !== undefined) {
      this.#session.promote(rival, now)
      old.retire(now)
      return
    }
    if (old.state !== 'established') return
    const pause =
      type === NOTIFY.number.TEMPORARY_FAILURE ? retryPause(this.#context.rng, this.#postponed++) : undefined
    if (pause === undefined) throw faultOfNotify(type)
    this.#agenda.set(this.#task, after(now, pause))
  }

  /** The peer's candidate, unless the peer has given it up since. */
  #rival({ rival }: Attempt): Attempt['rival'] {
    return rival?.sa.state === 'established' ? rival : undefined
  }
}
