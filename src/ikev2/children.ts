/**
 * The Child SAs of one session, and how one follows another. Whatever ends one, ends it here: once, and in public.
 *
 *     usable ---> replaced ---> (DELETE) ---> retired ---> closed       another took its place
 *        '----------------> deleting ------------------> closed         it is not wanted any more
 *
 * Make before break (RFC 7296 section 2.8): the heir is announced before the peer can use it. Whoever rekeyed sends
 * on the heir as soon as it is answered, the other side when it hears the heir or when the old one is deleted, which
 * both prove that the heir is installed over there. The old one is deleted by whoever rekeyed and stays a moment for packets on their way.
 *
 * Rekeys that cross (sections 2.8.1, 2.25.1): both are answered; of the four nonces the lowest decides which
 * exchange was in vain, and whoever began that one deletes what it made. With an additional key exchange (RFC 9370)
 * that is decided before IKE_FOLLOWUP_KE: the loser's is never asked for, and makes nothing.
 */
import { wipe } from '#base/bytes'
import type { IkeSaId, Spi } from '#base/ids'
import { jittered } from '#base/rng'
import { after, type Duration, type Instant, SECOND, TimerTable } from '#base/time'
import type { EspCipher } from '#crypto/suites'
import type { Answer } from '#ikev2/answers'
import { isPassing, loses, type NoncePair, retryPause } from '#ikev2/collision'
import { type Agenda, type IkeContext, LIFETIME_JITTER, PEER_PATIENCE, type Task } from '#ikev2/context'
import type { ChildSa } from '#ikev2/events'
import {
  answerChildRekey,
  type ChildRekeyed,
  type ChildRekeyOffer,
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
import type { NotifyPayload, Payload } from '#ikev2/message/payload'
import { errorNotify } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { IkeSa } from '#ikev2/sa'

/** Packets that were sent on an SA before its end may arrive for so long after it. */
const GRACE: Duration = 5 * SECOND
/** A peer that rekeys faster than it deletes has to wait. */
const MAX_CHILDREN = 8

/** A Child SA that peer and we have in common. */
interface Child {
  readonly sa: ChildSa
  /** The owner was told of it. What lost a collision is nobody's business. */
  readonly announced: boolean
  readonly rekey: Task
  readonly remove: Task
  state: 'usable' | 'replaced' | 'deleting'
  /** What takes its place. */
  heir?: Child
  /** Our rekey that is out. */
  attempt?: Attempt
  /** The peer's rekey that is half done. */
  begun?: Rival
  /** Its owner had it deleted: whatever takes its place goes the same way. */
  isUnwanted?: true
  /** How often the peer put off our rekey. */
  postponed: number
  /** The key exchange method that the peer asked for, and not that of the IKE SA. */
  group?: number
}

interface Attempt {
  readonly offer: ChildRekeyOffer
  /** The peer's rekey of the same Child SA. */
  rival?: Rival
  /** It has won, and IKE_FOLLOWUP_KE is out: the first shared secret. */
  secret?: Uint8Array | undefined
}

interface Rival {
  readonly nonces: NoncePair
  /** What it made; not there while its IKE_FOLLOWUP_KE is to come. */
  readonly child?: Child
  readonly begun?: Begun
}

export class Children {
  readonly #context: IkeContext
  readonly #session: IkeSaId
  readonly #agenda: Agenda
  readonly #followUp: FollowUp
  readonly #ciphers: readonly EspCipher[]
  readonly #lifetime: Duration | undefined
  /** By our inbound SPI. */
  readonly #live = new Map<Spi, Child>()
  /** Deleted on both sides, and heard until then. */
  readonly #retired = new TimerTable<ChildSa>()
  #sending: Child | undefined
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
    this.#session = session
    this.#agenda = agenda
    this.#followUp = followUp
    this.#ciphers = wishes.espCiphers
    this.#lifetime = wishes.lifetime
  }

  /** A request of ours about a Child SA is out: no time to renew the IKE SA (RFC 7296 section 2.25.2). */
  get isBusy(): boolean {
    return this.#isBusy
  }

  /** The Child SA of IKE_AUTH, which its session announces. */
  first(sa: ChildSa, now: Instant): void {
    this.#sending = this.#add(sa, now)
  }

  /** Rekeys a Child SA, or the one that took its place meanwhile, as soon as the window is free. */
  rekey(inboundSpi: Spi, now: Instant): void {
    const child = this.#find(inboundSpi)
    if (child?.state === 'usable' && child.attempt === undefined) this.#agenda.set(child.rekey, now)
  }

  /** Rekeys every Child SA in use at a moment, unless it is done by then. */
  rekeyAll(at: Instant): void {
    for (const child of this.#live.values()) if (child.state === 'usable') this.#agenda.set(child.rekey, at)
  }

  /** The peer sends on it: so it has both halves, and we may send on it, too, if it is the heir of what we send on. */
  heard(inboundSpi: Spi): void {
    const child = this.#live.get(inboundSpi)
    if (child?.state === 'usable') this.#switch(child)
  }

  /** Deletes a Child SA, or the one that took its place meanwhile, as soon as the window is free. */
  remove(inboundSpi: Spi, now: Instant): void {
    const child = this.#find(inboundSpi)
    if (child?.state === 'usable') this.#forsake(child, now)
  }

  nextTimeout(): Instant | undefined {
    return this.#retired.next()
  }

  tick(now: Instant): void {
    for (const sa of this.#retired.expired(now)) this.#closed(sa)
  }

  closeAll(): void {
    if (this.#promised !== undefined) this.#context.releaseSpi(this.#promised)
    this.#promised = undefined
    for (const child of [...this.#live.values()]) this.#close(child)
    for (const sa of this.#retired.expired(Infinity as Instant)) this.#closed(sa)
  }

  // -------------------------------------------------------------------------------------------- the peer asks

  /** @throws PeerFault whose notify is the answer; nothing has changed then. */
  answerRekey(sa: IkeSa, outboundSpi: Spi, payloads: readonly Payload[], now: Instant): Payload[] {
    const old = this.#byOutbound(outboundSpi)
    if (old === undefined) return childNotFound(outboundSpi)
    const { attempt } = old
    const isTaken = attempt?.rival !== undefined || attempt?.secret !== undefined
    if (old.state !== 'usable' || isTaken || this.#isCrowded) return temporaryFailure()
    const inboundSpi = this.#context.allocateSpi()
    try {
      const { crypto } = this.#context
      const answer = answerChildRekey(crypto, old.sa, this.#ciphers, inboundSpi, payloads)
      if (answer.terms.suite.additional !== undefined)
        return [...answer.payloads, this.#expectMore(sa, old, inboundSpi, answer, now)]
      this.#taken(sa, old, inboundSpi, answer, now)
      return answer.payloads
    } catch (error) {
      if (!this.#live.has(inboundSpi)) this.#context.releaseSpi(inboundSpi)
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
        if (!this.#isLive(old) || old.state !== 'usable') {
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
    const child = this.#add(sa.channel.childSa(false, inboundSpi, terms, keying), now)
    this.#context.emit({ kind: 'child.rekeyed', sa: this.#session, old: old.sa, child: child.sa })
    if (old.attempt !== undefined) old.attempt.rival = { child, nonces: keying }
    else this.#replace(old, child, now, PEER_PATIENCE)
  }

  /** RFC 7296 section 1.4.1: the answer lists our halves, but not those that a DELETE of ours is out for. */
  answerDelete(outboundSpis: readonly Spi[], now: Instant): Answer {
    const named = new Set(outboundSpis.flatMap((spi) => this.#byOutbound(spi) ?? []))
    const children = [...named].filter(({ state }) => state !== 'deleting')
    const spis = children.map(({ sa }) => sa.inboundSpi)
    return {
      payloads: spis.length === 0 ? [] : [deleteChildren(spis)],
      conclude: () => {
        for (const child of children) this.#deleted(child, now)
      },
    }
  }

  // -------------------------------------------------------------------------------------------- we ask

  #rekey(old: Child, sa: IkeSa, now: Instant): void {
    if (!this.#isLive(old) || old.state !== 'usable') return
    if (this.#isUnheard(old)) return this.#agenda.set(old.rekey, after(now, GRACE))
    const { crypto } = this.#context
    const { suite } = sa.channel
    const inboundSpi = this.#context.allocateSpi()
    const offer = childRekeyOffer(crypto, old.sa, this.#ciphers, inboundSpi, suite, old.group)
    const attempt: Attempt = { offer, ...(old.begun === undefined ? {} : { rival: old.begun }) }
    const request = childRekeyRequest(old.sa, offer)
    this.#askFor(old, attempt, sa, EXCHANGE.number.CREATE_CHILD_SA, request, now, (payloads, at) => {
      const answer = readChildRekeyAnswer(crypto, offer, payloads)
      const rival = this.#rival(attempt)
      const isLost = rival !== undefined && loses(answer.keying, rival.nonces)
      if (answer.terms.suite.additional === undefined) return this.#made(old, attempt, sa, answer, isLost, at)
      if (!isLost && this.#isLive(old) && sa.state === 'established')
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
    if (!this.#isLive(old) || isLost) {
      // In vain: the peer announced what we made, so it is ours to delete. Nobody here ever hears of it.
      this.#agenda.set(this.#add(made, now, false).remove, now)
      if (rival !== undefined && this.#isLive(old)) this.#await(old, rival, now)
      return
    }
    if (rival?.begun !== undefined) this.#followUp.forget(rival.begun)
    const child = this.#add(made, now)
    this.#context.emit({ kind: 'child.rekeyed', sa: this.#session, old: old.sa, child: made })
    this.#replace(old, child, now)
    this.#switch(child)
    if (rival?.child !== undefined) this.#replace(rival.child, child, now, PEER_PATIENCE)
  }

  /** @throws PeerFault when there is no use in trying again: the IKE SA is to be built anew. */
  #refused(old: Child, attempt: Attempt, error: NotifyPayload, now: Instant): void {
    if (!this.#isLive(old)) return
    const rival = this.#rival(attempt)
    if (rival !== undefined) return this.#await(old, rival, now)
    // The peer deleted it and we did not hear of that yet (RFC 7296 section 2.25.1).
    if (error.type === NOTIFY.number.CHILD_SA_NOT_FOUND) return this.#close(old)
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
    if (rival.child !== undefined) this.#replace(old, rival.child, now, PEER_PATIENCE)
    else this.#agenda.set(old.rekey, after(now, PEER_PATIENCE))
  }

  /** The peer's rekey, unless what it made is gone. */
  #rival({ rival }: Attempt): Rival | undefined {
    return rival?.child === undefined || this.#isLive(rival.child) ? rival : undefined
  }

  #remove(child: Child, sa: IkeSa, now: Instant): void {
    if (!this.#isLive(child) || child.state === 'deleting') return
    if (this.#isUnheard(child)) return this.#agenda.set(child.remove, after(now, GRACE))
    child.state = 'deleting'
    this.#isBusy = true
    sa.ask(EXCHANGE.number.INFORMATIONAL, [deleteChildren([child.sa.inboundSpi])], now, (_, at) => {
      this.#isBusy = false
      // Whatever the answer lists, the pair is gone on both sides now (RFC 7296 section 1.4.1).
      if (this.#isLive(child)) this.#deleted(child, at)
    })
  }

  /** The peer's rekey made it, and our answer may be lost: to the peer its SPI may be no one's yet. */
  #isUnheard(child: Child): boolean {
    return this.#sending?.state === 'replaced' && this.#sending.heir === child && child.state === 'usable'
  }

  // -------------------------------------------------------------------------------------------- beginning and end

  #add(sa: ChildSa, now: Instant, announced = true): Child {
    const child: Child = {
      sa,
      announced,
      rekey: { run: (ike, at) => this.#rekey(child, ike, at) },
      remove: { run: (ike, at) => this.#remove(child, ike, at) },
      state: 'usable',
      postponed: 0,
    }
    this.#live.set(sa.inboundSpi, child)
    const lifetime = this.#lifetime
    if (lifetime !== undefined) {
      const at = jittered(this.#context.rng, lifetime, LIFETIME_JITTER * lifetime)
      this.#agenda.set(child.rekey, after(now, at))
    }
    return child
  }

  /** `patience`: for the peer to delete the old one, if it is the peer that is to do that. */
  #replace(old: Child, heir: Child, now: Instant, patience: Duration = 0): void {
    old.state = 'replaced'
    old.heir = heir
    this.#agenda.clear(old.rekey)
    this.#agenda.set(old.remove, after(now, patience))
    if (old.isUnwanted) this.#forsake(heir, now)
  }

  #forsake(child: Child, now: Instant): void {
    child.isUnwanted = true
    this.#agenda.set(child.remove, now)
  }

  /** From what we send on to an heir of it, or an heir's heir. Never back: the news may be late. */
  #switch(heir: Child): void {
    const old = this.#sending
    let each = old?.heir
    while (each !== undefined && each !== heir) each = each.heir
    if (old === undefined || each === undefined) return
    this.#sending = heir
    this.#context.emit({ kind: 'child.switched', sa: this.#session, old: old.sa, child: heir.sa })
  }

  /** Both sides agreed on its end. */
  #deleted(child: Child, now: Instant): void {
    // The peer deletes what a rekey of its own replaced, and so says that it won if ours is still out.
    const rival = child.attempt?.rival?.child
    if (child.heir === undefined && rival !== undefined) {
      child.heir = rival
      if (child.isUnwanted) this.#forsake(rival, now)
    }
    if (child.heir !== undefined && this.#isLive(child.heir)) this.#switch(child.heir)
    if (child === this.#sending || !child.announced) return this.#close(child)
    this.#drop(child)
    this.#retired.set(child.sa, after(now, GRACE))
  }

  #close(child: Child): void {
    this.#drop(child)
    if (child.announced) this.#closed(child.sa)
    else this.#context.releaseSpi(child.sa.inboundSpi)
  }

  #drop(child: Child): void {
    this.#live.delete(child.sa.inboundSpi)
    this.#agenda.clear(child.rekey)
    this.#agenda.clear(child.remove)
  }

  #closed(sa: ChildSa): void {
    this.#context.releaseSpi(sa.inboundSpi)
    this.#context.emit({ kind: 'child.closed', sa: this.#session, child: sa })
  }

  // -------------------------------------------------------------------------------------------- pieces

  get #isCrowded(): boolean {
    return this.#live.size + this.#retired.size >= MAX_CHILDREN
  }

  #isLive(child: Child): boolean {
    return this.#live.get(child.sa.inboundSpi) === child
  }

  /** The one in use, if an SPI is of one that was replaced. */
  #find(inboundSpi: Spi): Child | undefined {
    let child = this.#live.get(inboundSpi)
    while (child?.heir !== undefined) child = child.heir
    return child
  }

  #byOutbound(spi: Spi): Child | undefined {
    for (const child of this.#live.values()) if (child.sa.outboundSpi === spi) return child
    return undefined
  }
}
