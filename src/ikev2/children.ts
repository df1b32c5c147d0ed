/**
 * What the two sides of a session ask of each other about its Child SAs: rekeys and deletes. Which there are and how one
 * follows another, `Lineage` knows.
 *
 * Rekeys that cross (RFC 7296 sections 2.8.1, 2.25.1): both are answered; of the four nonces the lowest decides which
 * exchange was in vain, and whoever began that one deletes what it made. With an additional key exchange (RFC 9370)
 * that is decided before IKE_FOLLOWUP_KE: the loser's is never asked for, and makes nothing.
 */
import { wipe } from '#base/bytes'
import type { IkeSaId, Spi } from '#base/ids'
import { after, type Duration, type Instant } from '#base/time'
import type { EspCipher } from '#crypto/suites'
import type { Answer } from '#ikev2/answers'
import { isPassing, loses, retryPause } from '#ikev2/collision'
import { type Agenda, type IkeContext, PEER_PATIENCE } from '#ikev2/context'
import type { ChildSa } from '#ikev2/events'
import {
  answerChildRekey,
  type ChildRekeyed,
  childNotFound,
  childRekeyOffer,
  childRekeyRequest,
  readChildRekeyAnswer,
  temporaryFailure,
} from '#ikev2/exchange/create-child'
import { followUpRequest, needLink, readFollowUpAnswer, stateNotFound } from '#ikev2/exchange/follow-up'
import { deleteChildren } from '#ikev2/exchange/informational'
import { otherGroup } from '#ikev2/exchange/key-exchange'
import { faultOfNotify } from '#ikev2/fault'
import type { Begun, FollowUp } from '#ikev2/follow-up'
import { type Attempt, type Child, GRACE, Lineage, type Requests, type Rival } from '#ikev2/lineage'
import type { NotifyPayload, Payload } from '#ikev2/message/payload'
import { errorNotify } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { IkeSa } from '#ikev2/sa'

export class Children {
  readonly #context: IkeContext
  readonly #agenda: Agenda
  readonly #followUp: FollowUp
  readonly #ciphers: readonly EspCipher[]
  readonly #lineage: Lineage
  /** The SPI of a rekey of ours that is out. */
  #promised: Spi | undefined
  #isBusy = false

  constructor(
    context: IkeContext,
    session: IkeSaId,
    agenda: Agenda,
    followUp: FollowUp,
    wishes: { readonly espCiphers: readonly EspCipher[]; readonly lifetime: Duration | undefined },
  ) {
    this.#context = context
    this.#agenda = agenda
    this.#followUp = followUp
    this.#ciphers = wishes.espCiphers
    const requests: Requests = {
      rekey: (child, sa, now) => this.#rekey(child, sa, now),
      remove: (child, sa, now) => this.#remove(child, sa, now),
    }
    this.#lineage = new Lineage(context, session, agenda, requests, wishes.lifetime)
  }

  /** A request of ours about a Child SA is out: no time to renew the IKE SA (RFC 7296 section 2.25.2). */
  get isBusy(): boolean {
    return this.#isBusy
  }

  /** The Child SA of IKE_AUTH, which its session announces. */
  first(sa: ChildSa, now: Instant): void {
    this.#lineage.first(sa, now)
  }

  /** Rekeys a Child SA, or the one that took its place meanwhile, as soon as the window is free. */
  rekey(inboundSpi: Spi, now: Instant): void {
    const child = this.#lineage.find(inboundSpi)
    if (child?.state === 'usable' && child.attempt === undefined) this.#agenda.set(child.rekey, now)
  }

  /** Rekeys every Child SA in use at a moment, unless it is done by then. */
  rekeyAll(at: Instant): void {
    for (const child of this.#lineage.all()) if (child.state === 'usable') this.#agenda.set(child.rekey, at)
  }

  /** The peer sends on it. */
  heard(inboundSpi: Spi): void {
    this.#lineage.heard(inboundSpi)
  }

  /** Deletes a Child SA, or the one that took its place meanwhile, as soon as the window is free. */
  remove(inboundSpi: Spi, now: Instant): void {
    const child = this.#lineage.find(inboundSpi)
    if (child?.state === 'usable') this.#lineage.forsake(child, now)
  }

  nextTimeout(): Instant | undefined {
    return this.#lineage.nextTimeout()
  }

  tick(now: Instant): void {
    this.#lineage.tick(now)
  }

  closeAll(): void {
    if (this.#promised !== undefined) this.#context.releaseSpi(this.#promised)
    this.#promised = undefined
    this.#lineage.closeAll()
  }

  // -------------------------------------------------------------------------------------------- the peer asks

  /** @throws PeerFault whose notify is the answer; nothing has changed then. */
  answerRekey(sa: IkeSa, outboundSpi: Spi, payloads: readonly Payload[], now: Instant): Payload[] {
    const old = this.#lineage.byOutbound(outboundSpi)
    if (old === undefined) return childNotFound(outboundSpi)
    const { attempt } = old
    const isTaken = attempt?.rival !== undefined || attempt?.secret !== undefined
    if (old.state !== 'usable' || isTaken || this.#lineage.isCrowded) return temporaryFailure()
    const inboundSpi = this.#context.allocateSpi({ like: old.sa.inboundSpi })
    try {
      const { crypto } = this.#context
      const answer = answerChildRekey(crypto, old.sa, this.#ciphers, inboundSpi, payloads)
      if (answer.terms.suite.additional !== undefined)
        return [...answer.payloads, this.#expectMore(sa, old, inboundSpi, answer, now)]
      this.#taken(sa, old, inboundSpi, answer, now)
      return answer.payloads
    } catch (error) {
      if (this.#lineage.find(inboundSpi) === undefined) this.#context.releaseSpi(inboundSpi)
      throw error
    }
  }

  /** Agrees to a rekey of the peer whose IKE_FOLLOWUP_KE is to come; the payload says how. */
  #expectMore(sa: IkeSa, old: Child, inboundSpi: Spi, answer: ChildRekeyed, now: Instant): Payload {
    const { keying } = answer
    const over = (): void => {
      delete old.begun
      if (old.attempt?.rival === rival) delete old.attempt.rival
    }
    const forget = (): void => {
      over()
      this.#context.releaseSpi(inboundSpi)
      wipe(keying.sharedSecret)
    }
    const begun: Begun = {
      finish: (additional, at) => {
        if (!this.#lineage.has(old) || old.state !== 'usable') {
          forget()
          wipe(additional)
          throw stateNotFound('a rekey of a Child SA that is gone or was replaced meanwhile')
        }
        over()
        this.#taken(sa, old, inboundSpi, { ...answer, keying: { ...keying, additional } }, at)
      },
      forget,
    }
    const rival: Rival = { nonces: keying, begun }
    old.begun = rival
    if (old.attempt !== undefined) old.attempt.rival = rival
    return this.#followUp.expect(sa, begun, now)
  }

  /** The peer's rekey is complete: it is what takes the place of `old`, or the rival of ours. */
  #taken(sa: IkeSa, old: Child, inboundSpi: Spi, { terms, keying }: ChildRekeyed, now: Instant): void {
    const child = this.#lineage.bear(old, sa.channel.childSa(false, inboundSpi, terms, keying), now)
    if (old.attempt !== undefined) old.attempt.rival = { child, nonces: keying }
    else this.#lineage.replace(old, child, now, PEER_PATIENCE)
  }

  /** RFC 7296 section 1.4.1: the answer lists our halves, but not those that a DELETE of ours is out for. */
  answerDelete(outboundSpis: readonly Spi[], now: Instant): Answer {
    const named = new Set(outboundSpis.flatMap((spi) => this.#lineage.byOutbound(spi) ?? []))
    const children = [...named].filter(({ state }) => state !== 'deleting')
    const spis = children.map(({ sa }) => sa.inboundSpi)
    return {
      payloads: spis.length === 0 ? [] : [deleteChildren(spis)],
      conclude: () => {
        for (const child of children) this.#lineage.deleted(child, now)
      },
    }
  }

  // -------------------------------------------------------------------------------------------- we ask

  #rekey(old: Child, sa: IkeSa, now: Instant): void {
    if (!this.#lineage.has(old) || old.state !== 'usable') return
    if (this.#lineage.isUnheard(old)) return this.#agenda.set(old.rekey, after(now, GRACE))
    const { crypto } = this.#context
    const { suite } = sa.channel
    const inboundSpi = this.#context.allocateSpi({ like: old.sa.inboundSpi })
    const offer = childRekeyOffer(crypto, old.sa, this.#ciphers, inboundSpi, suite, old.group)
    const attempt: Attempt = { offer, ...(old.begun === undefined ? {} : { rival: old.begun }) }
    const request = childRekeyRequest(old.sa, offer)
    this.#askFor(old, attempt, sa, EXCHANGE.number.CREATE_CHILD_SA, request, now, (payloads, at) => {
      const answer = readChildRekeyAnswer(crypto, offer, payloads)
      const rival = this.#rival(attempt)
      const isLost = rival !== undefined && loses(answer.keying, rival.nonces)
      if (answer.terms.suite.additional === undefined) return this.#made(old, attempt, sa, answer, isLost, at)
      if (!isLost && this.#lineage.has(old) && sa.state === 'established')
        return this.#follow(old, attempt, sa, answer, needLink(payloads), at)
      // Nothing was made, so there is nothing to delete: what the peer keeps of it, it forgets.
      this.#context.releaseSpi(inboundSpi)
      wipe(answer.keying.sharedSecret)
      if (isLost) this.#await(old, rival, at)
    })
  }

  /** The additional key exchange of a rekey of ours that has won. */
  #follow(
    old: Child,
    attempt: Attempt,
    sa: IkeSa,
    answer: ChildRekeyed,
    link: Uint8Array,
    now: Instant,
  ): void {
    const { crypto } = this.#context
    const { keying } = answer
    const keyPair = crypto.mlkem768Generate()
    const request = followUpRequest(keyPair, link)
    attempt.secret = keying.sharedSecret
    this.#askFor(old, attempt, sa, EXCHANGE.number.IKE_FOLLOWUP_KE, request, now, (payloads, at) => {
      const additional = readFollowUpAnswer(crypto, keyPair, payloads)
      this.#made(old, attempt, sa, { ...answer, keying: { ...keying, additional } }, false, at)
    })
    if (attempt.rival?.begun !== undefined) this.#followUp.forget(attempt.rival.begun)
  }

  /** Asks for a part of a rekey. Until it is answered the Child SA is taken, and the new one's SPI promised. */
  #askFor(
    old: Child,
    attempt: Attempt,
    sa: IkeSa,
    exchange: number,
    request: readonly Payload[],
    now: Instant,
    answered: (payloads: readonly Payload[], now: Instant) => void,
  ): void {
    const { inboundSpi } = attempt.offer.child
    old.attempt = attempt
    this.#isBusy = true
    this.#promised = inboundSpi
    sa.ask(exchange, request, now, (payloads, at) => {
      this.#isBusy = false
      this.#promised = undefined
      delete old.attempt
      try {
        const error = errorNotify(payloads)
        if (error === undefined) return answered(payloads, at)
        this.#context.releaseSpi(inboundSpi)
        wipe(attempt.secret)
        this.#refused(old, attempt, error, at)
      } catch (error) {
        this.#context.releaseSpi(inboundSpi)
        throw error
      }
    })
  }

  /** Our rekey is complete. */
  #made(
    old: Child,
    attempt: Attempt,
    sa: IkeSa,
    { terms, keying }: ChildRekeyed,
    isLost: boolean,
    now: Instant,
  ): void {
    const rival = this.#rival(attempt)
    const made = sa.channel.childSa(true, attempt.offer.child.inboundSpi, terms, keying)
    if (!this.#lineage.has(old) || isLost) {
      this.#lineage.bearInVain(made, now)
      if (rival !== undefined && this.#lineage.has(old)) this.#await(old, rival, now)
      return
    }
    if (rival?.begun !== undefined) this.#followUp.forget(rival.begun)
    const child = this.#lineage.bear(old, made, now)
    this.#lineage.replace(old, child, now)
    this.#lineage.sendOn(child)
    if (rival?.child !== undefined) this.#lineage.replace(rival.child, child, now, PEER_PATIENCE)
  }

  /** @throws PeerFault when there is no use in trying again: the IKE SA is to be built anew. */
  #refused(old: Child, attempt: Attempt, error: NotifyPayload, now: Instant): void {
    if (!this.#lineage.has(old)) return
    const rival = this.#rival(attempt)
    if (rival !== undefined) return this.#await(old, rival, now)
    // The peer deleted it and we did not hear of that yet (RFC 7296 section 2.25.1).
    if (error.type === NOTIFY.number.CHILD_SA_NOT_FOUND) return this.#lineage.close(old)
    const group =
      old.group === undefined ? otherGroup(error, attempt.offer.group, attempt.offer.groups) : undefined
    if (group !== undefined) {
      old.group = group
      return this.#agenda.set(old.rekey, now)
    }
    const pause = isPassing(error.type) ? retryPause(this.#context.rng, old.postponed++) : undefined
    if (pause === undefined) throw faultOfNotify(error.type)
    this.#agenda.set(old.rekey, after(now, pause))
  }

  /** Leaves it to the peer's rekey. If that is half done and remains so, ours is tried again. */
  #await(old: Child, rival: Rival, now: Instant): void {
    if (rival.child !== undefined) this.#lineage.replace(old, rival.child, now, PEER_PATIENCE)
    else this.#agenda.set(old.rekey, after(now, PEER_PATIENCE))
  }

  /** The peer's rekey, unless what it made is gone. */
  #rival({ rival }: Attempt): Rival | undefined {
    return rival?.child === undefined || this.#lineage.has(rival.child) ? rival : undefined
  }

  #remove(child: Child, sa: IkeSa, now: Instant): void {
    if (!this.#lineage.has(child) || child.state === 'deleting') return
    if (this.#lineage.isUnheard(child)) return this.#agenda.set(child.remove, after(now, GRACE))
    child.state = 'deleting'
    this.#isBusy = true
    sa.ask(EXCHANGE.number.INFORMATIONAL, [deleteChildren([child.sa.inboundSpi])], now, (_, at) => {
      this.#isBusy = false
      // Whatever the answer lists, the pair is gone on both sides now (RFC 7296 section 1.4.1).
      if (this.#lineage.has(child)) this.#lineage.deleted(child, at)
    })
  }
}
