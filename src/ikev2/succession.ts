/**
 * How an IKE SA is followed by another (RFC 7296 sections 1.3.2, 2.8, 2.18): new SPIs, keys and message IDs, the same
 * session with the same Child SAs. Whoever rekeyed deletes the old IKE SA.
 *
 * Rekeys that cross (section 2.25.2): both are answered, so there are two candidates; of the four nonces the lowest
 * decides which was in vain, and whoever began that one deletes it. Until then the session goes on with the old one.
 * With an additional key exchange (RFC 9370) that is decided before IKE_FOLLOWUP_KE: the loser's is never asked for, and
 * its IKE SA never there.
 */
import { wipe } from '#base/bytes'
import { jittered } from '#base/rng'
import { after, type Duration, type Instant } from '#base/time'
import { isPassing, loses, type NoncePair, retryPause } from '#ikev2/collision'
import { type Agenda, type IkeContext, LIFETIME_JITTER, PEER_PATIENCE, type Task } from '#ikev2/context'
import {
  answerIkeRekey,
  type IkeRekeyed,
  type IkeRekeyOffer,
  ikeRekeyOffer,
  ikeRekeyRequest,
  readIkeRekeyAnswer,
  temporaryFailure,
} from '#ikev2/exchange/create-child'
import { followUpRequest, needLink, readFollowUpAnswer, stateNotFound } from '#ikev2/exchange/follow-up'
import { otherGroup } from '#ikev2/exchange/key-exchange'
import { faultOfNotify } from '#ikev2/fault'
import type { Begun, FollowUp } from '#ikev2/follow-up'
import type { NotifyPayload, Payload } from '#ikev2/message/payload'
import { errorNotify } from '#ikev2/message/registry'
import { EXCHANGE } from '#ikev2/numbers'
import { IkeSa } from '#ikev2/sa'
import type { Session } from '#ikev2/session'

/** Our rekey that is out. */
interface Attempt {
  readonly old: IkeSa
  readonly offer: IkeRekeyOffer
  /** The peer's rekey of the same IKE SA. */
  rival?: Rival
  /** It has won, and IKE_FOLLOWUP_KE is out. */
  isDecided?: true
}

interface Rival {
  readonly nonces: NoncePair
  /** What it made; not there while its IKE_FOLLOWUP_KE is to come. */
  readonly sa?: IkeSa
  readonly begun?: Begun
}

export class Succession {
  readonly #context: IkeContext
  readonly #session: Session
  readonly #agenda: Agenda
  readonly #followUp: FollowUp
  readonly #lifetime: Duration | undefined
  readonly #task: Task = { run: (sa, now) => this.#rekey(sa, now) }
  #attempt: Attempt | undefined
  /** The peer's rekey that is half done. */
  #begun: Rival | undefined
  #postponed = 0
  /** The key exchange method that the peer asked for, and not that of the IKE SA. */
  #group: number | undefined

  constructor(
    context: IkeContext,
    session: Session,
    agenda: Agenda,
    followUp: FollowUp,
    lifetime: Duration | undefined,
  ) {
    this.#context = context
    this.#session = session
    this.#agenda = agenda
    this.#followUp = followUp
    this.#lifetime = lifetime
  }

  /** A rekey of ours is out: no time for anything about Child SAs (RFC 7296 section 2.25.2). */
  get isBusy(): boolean {
    return this.#attempt !== undefined
  }

  /** A new IKE SA is in use: it grows old from now on. */
  begin(now: Instant): void {
    this.#attempt = undefined
    this.#begun = undefined
    this.#postponed = 0
    this.#group = undefined
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
    if (attempt?.rival !== undefined || attempt?.isDecided) return temporaryFailure()
    const spi = this.#context.freshIkeSpi()
    const answer = answerIkeRekey(this.#context.crypto, spi, payloads)
    if (answer.suite.additional !== undefined)
      return [...answer.payloads, this.#expectMore(old, spi, answer, now)]
    this.#taken(old, spi, answer, now)
    return answer.payloads
  }

  /** Agrees to a rekey of the peer whose IKE_FOLLOWUP_KE is to come; the payload says how. */
  #expectMore(old: IkeSa, spi: Uint8Array, answer: IkeRekeyed, now: Instant): Payload {
    const { keying } = answer
    const over = (): void => {
      this.#begun = undefined
      if (this.#attempt?.rival === rival) delete this.#attempt.rival
    }
    const begun: Begun = {
      finish: (additional, at) => {
        over()
        if (old.state !== 'established' || this.#session.isChangingChild) {
          wipe(keying.sharedSecret, additional)
          throw stateNotFound('a rekey of an IKE SA that is replaced, or in use for another exchange')
        }
        this.#taken(old, spi, { ...answer, keying: { ...keying, additional } }, at)
      },
      forget: () => {
        over()
        wipe(keying.sharedSecret)
      },
    }
    const rival: Rival = { nonces: keying, begun }
    this.#begun = rival
    if (this.#attempt !== undefined) this.#attempt.rival = rival
    return this.#followUp.expect(old, begun, now)
  }

  /** The peer's rekey is complete: it is what we go on with, or the rival of ours. */
  #taken(old: IkeSa, spi: Uint8Array, { suite, peerSpi, keying }: IkeRekeyed, now: Instant): void {
    const association = old.association.succeed('responder', peerSpi, spi)
    const channel = old.channel.renew(this.#context, association, suite, keying)
    const sa = IkeSa.succeed(this.#context, this.#session, association, channel)
    if (this.#attempt !== undefined) this.#attempt.rival = { sa, nonces: keying }
    else this.#yield(old, sa, now)
  }

  #rekey(old: IkeSa, now: Instant): void {
    const { crypto } = this.#context
    const { suite } = old.channel
    const offer = ikeRekeyOffer(crypto, this.#context.freshIkeSpi(), suite, this.#group ?? suite.group)
    const attempt: Attempt = { old, offer, ...(this.#begun === undefined ? {} : { rival: this.#begun }) }
    this.#attempt = attempt
    old.ask(EXCHANGE.number.CREATE_CHILD_SA, ikeRekeyRequest(offer), now, (payloads, at) => {
      this.#attempt = undefined
      this.#answered(attempt, payloads, at)
    })
  }

  #answered(attempt: Attempt, payloads: readonly Payload[], now: Instant): void {
    const { old, offer } = attempt
    const error = errorNotify(payloads)
    if (error !== undefined) return this.#refused(attempt, error, now)
    const answer = readIkeRekeyAnswer(this.#context.crypto, offer, payloads)
    const rival = this.#rival(attempt)
    const isLost = rival !== undefined && loses(answer.keying, rival.nonces)
    if (answer.suite.additional === undefined) return this.#made(attempt, answer, isLost, now)
    if (!isLost && old.state === 'established') return this.#follow(attempt, answer, needLink(payloads), now)
    // Nothing was made, so there is nothing to delete: what the peer keeps of it, it forgets.
    wipe(answer.keying.sharedSecret)
    if (isLost) this.#await(old, rival, now)
  }

  /** The additional key exchange of a rekey of ours that has won. */
  #follow(attempt: Attempt, answer: IkeRekeyed, link: Uint8Array, now: Instant): void {
    const { crypto } = this.#context
    const { keying } = answer
    const keyPair = crypto.mlkem768Generate()
    this.#attempt = attempt
    attempt.isDecided = true
    if (attempt.rival?.begun !== undefined) this.#followUp.forget(attempt.rival.begun)
    const request = followUpRequest(keyPair, link)
    attempt.old.ask(EXCHANGE.number.IKE_FOLLOWUP_KE, request, now, (payloads, at) => {
      this.#attempt = undefined
      const error = errorNotify(payloads)
      if (error !== undefined) {
        wipe(keying.sharedSecret)
        return this.#refused(attempt, error, at)
      }
      const additional = readFollowUpAnswer(crypto, keyPair, payloads)
      this.#made(attempt, { ...answer, keying: { ...keying, additional } }, false, at)
    })
  }

  /** Our rekey is complete. */
  #made(attempt: Attempt, { suite, peerSpi, keying }: IkeRekeyed, isLost: boolean, now: Instant): void {
    const { old, offer } = attempt
    const rival = this.#rival(attempt)
    const association = old.association.succeed('initiator', offer.spi, peerSpi)
    const channel = old.channel.renew(this.#context, association, suite, keying)
    const sa = IkeSa.succeed(this.#context, this.#session, association, channel)
    if (isLost && rival !== undefined) {
      this.#await(old, rival, now)
      sa.close(now, PEER_PATIENCE)
      return
    }
    if (rival?.begun !== undefined) this.#followUp.forget(rival.begun)
    this.#session.promote(sa, now)
    rival?.sa?.retire(now)
    old.close(now, PEER_PATIENCE)
  }

  /** @throws PeerFault when there is no use in trying again: the IKE SA is to be built anew. */
  #refused(attempt: Attempt, error: NotifyPayload, now: Instant): void {
    const { old, offer } = attempt
    const rival = this.#rival(attempt)
    if (rival !== undefined) return this.#await(old, rival, now)
    if (old.state !== 'established') return
    const group = this.#group === undefined ? otherGroup(error, offer.group, offer.groups) : undefined
    if (group !== undefined) {
      this.#group = group
      return this.#agenda.set(this.#task, now)
    }
    const pause = isPassing(error.type) ? retryPause(this.#context.rng, this.#postponed++) : undefined
    if (pause === undefined) throw faultOfNotify(error.type)
    this.#agenda.set(this.#task, after(now, pause))
  }

  /** Leaves it to the peer's rekey. If that is half done and remains so, ours is tried again. */
  #await(old: IkeSa, rival: Rival, now: Instant): void {
    if (rival.sa !== undefined) this.#yield(old, rival.sa, now)
    else this.#agenda.set(this.#task, after(now, PEER_PATIENCE))
  }

  #yield(old: IkeSa, heir: IkeSa, now: Instant): void {
    this.#session.promote(heir, now)
    old.retire(now)
  }

  /** The peer's rekey, unless the peer has given up what it made. */
  #rival({ rival }: Attempt): Rival | undefined {
    return rival?.sa === undefined || rival.sa.state === 'established' ? rival : undefined
  }
}
