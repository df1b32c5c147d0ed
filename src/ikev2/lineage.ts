/**
 * Which Child SAs one session has, and which takes the place of which. Whatever ends one, ends it here: once, and in
 * public.
 *
 *     usable ---> replaced ---> (DELETE) ---> retired ---> closed       another took its place
 *        '----------------> deleting ------------------> closed         it is not wanted any more
 *
 * Make before break (RFC 7296 section 2.8): the heir is announced before the peer can use it. Whoever rekeyed sends
 * on the heir as soon as it is answered, the other side when it hears the heir or when the old one is deleted, which
 * both prove that the heir is installed over there. The old one is deleted by whoever rekeyed and stays a moment for
 * packets on their way.
 */
import type { IkeSaId, Spi } from '#base/ids'
import { jittered } from '#base/rng'
import { after, type Duration, type Instant, SECOND, TimerTable } from '#base/time'
import type { NoncePair } from '#ikev2/collision'
import { type Agenda, type IkeContext, LIFETIME_JITTER, type Task } from '#ikev2/context'
import type { ChildSa } from '#ikev2/events'
import type { ChildRekeyOffer } from '#ikev2/exchange/create-child'
import type { Begun } from '#ikev2/follow-up'
import type { IkeSa } from '#ikev2/sa'

/** Packets that were sent on an SA before its end may arrive for so long after it. */
export const GRACE: Duration = 5 * SECOND
/** A peer that rekeys faster than it deletes has to wait. */
const MAX_CHILDREN = 8

/** A Child SA that peer and we have in common. */
export interface Child {
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

export interface Attempt {
  readonly offer: ChildRekeyOffer
  /** The peer's rekey of the same Child SA. */
  rival?: Rival
  /** It has won, and IKE_FOLLOWUP_KE is out: the first shared secret. */
  secret?: Uint8Array | undefined
}

export interface Rival {
  readonly nonces: NoncePair
  /** What it made; not there while its IKE_FOLLOWUP_KE is to come. */
  readonly child?: Child
  readonly begun?: Begun
}

/** What is asked of the peer about a Child SA, once its time has come. */
export interface Requests {
  rekey(child: Child, sa: IkeSa, now: Instant): void
  remove(child: Child, sa: IkeSa, now: Instant): void
}

export class Lineage {
  readonly #context: IkeContext
  readonly #session: IkeSaId
  readonly #agenda: Agenda
  readonly #requests: Requests
  readonly #lifetime: Duration | undefined
  /** By our inbound SPI. */
  readonly #live = new Map<Spi, Child>()
  /** Deleted on both sides, and heard until then. */
  readonly #retired = new TimerTable<ChildSa>()
  #sending: Child | undefined

  /** `lifetime`: after which each is rekeyed, unless it is replaced by then. */
  constructor(
    context: IkeContext,
    session: IkeSaId,
    agenda: Agenda,
    requests: Requests,
    lifetime: Duration | undefined,
  ) {
    this.#context = context
    this.#session = session
    this.#agenda = agenda
    this.#requests = requests
    this.#lifetime = lifetime
  }

  get isCrowded(): boolean {
    return this.#live.size + this.#retired.size >= MAX_CHILDREN
  }

  has(child: Child): boolean {
    return this.#live.get(child.sa.inboundSpi) === child
  }

  /** The one in use, if an SPI is of one that was replaced. */
  find(inboundSpi: Spi): Child | undefined {
    let child = this.#live.get(inboundSpi)
    while (child?.heir !== undefined) child = child.heir
    return child
  }

  byOutbound(spi: Spi): Child | undefined {
    for (const child of this.#live.values()) if (child.sa.outboundSpi === spi) return child
    return undefined
  }

  all(): Iterable<Child> {
    return this.#live.values()
  }

  /** The peer's rekey made it, and our answer may be lost: to the peer its SPI may be no one's yet. */
  isUnheard(child: Child): boolean {
    return this.#sending?.state === 'replaced' && this.#sending.heir === child && child.state === 'usable'
  }

  nextTimeout(): Instant | undefined {
    return this.#retired.next()
  }

  tick(now: Instant): void {
    for (const sa of this.#retired.expired(now)) this.#closed(sa)
  }

  // -------------------------------------------------------------------------------------------- beginning

  /** The Child SA of IKE_AUTH, which its session announces. */
  first(sa: ChildSa, now: Instant): void {
    this.#sending = this.#add(sa, true, now)
  }

  /** What a rekey of `old` made. */
  bear(old: Child, sa: ChildSa, now: Instant): Child {
    const child = this.#add(sa, true, now)
    this.#context.emit({ kind: 'child.rekeyed', sa: this.#session, old: old.sa, child: sa })
    return child
  }

  /** What a rekey made in vain. The peer announced it, so it is ours to delete; nobody here ever hears of it. */
  bearInVain(sa: ChildSa, now: Instant): void {
    this.#agenda.set(this.#add(sa, false, now).remove, now)
  }

  #add(sa: ChildSa, announced: boolean, now: Instant): Child {
    const requests = this.#requests
    const child: Child = {
      sa,
      announced,
      rekey: { run: (ike, at) => requests.rekey(child, ike, at) },
      remove: { run: (ike, at) => requests.remove(child, ike, at) },
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

  // -------------------------------------------------------------------------------------------- succession

  /** `patience`: for the peer to delete the old one, if it is the peer that is to do that. */
  replace(old: Child, heir: Child, now: Instant, patience: Duration = 0): void {
    old.state = 'replaced'
    old.heir = heir
    this.#agenda.clear(old.rekey)
    this.#agenda.set(old.remove, after(now, patience))
    if (old.isUnwanted) this.forsake(heir, now)
  }

  /** The peer sends on it: so it has both halves, and we may send on it, too, if it is the heir of what we send on. */
  heard(inboundSpi: Spi): void {
    const child = this.#live.get(inboundSpi)
    if (child?.state === 'usable') this.sendOn(child)
  }

  /** From what we send on to an heir of it, or an heir's heir. Never back: the news may be late. */
  sendOn(heir: Child): void {
    const old = this.#sending
    let each = old?.heir
    while (each !== undefined && each !== heir) each = each.heir
    if (old === undefined || each === undefined) return
    this.#sending = heir
    this.#context.emit({ kind: 'child.switched', sa: this.#session, old: old.sa, child: heir.sa })
  }

  // -------------------------------------------------------------------------------------------- end

  /** Its owner does not want it any more: it is deleted as soon as the window is free. */
  forsake(child: Child, now: Instant): void {
    child.isUnwanted = true
    this.#agenda.set(child.remove, now)
  }

  /** Both sides agreed on its end. */
  deleted(child: Child, now: Instant): void {
    // The peer deletes what a rekey of its own replaced, and so says that it won if ours is still out.
    const rival = child.attempt?.rival?.child
    if (child.heir === undefined && rival !== undefined) {
      child.heir = rival
      if (child.isUnwanted) this.forsake(rival, now)
    }
    if (child.heir !== undefined && this.has(child.heir)) this.sendOn(child.heir)
    if (child === this.#sending || !child.announced) return this.close(child)
    this.#drop(child)
    this.#retired.set(child.sa, after(now, GRACE))
  }

  /** Ends it at once. */
  close(child: Child): void {
    this.#drop(child)
    if (child.announced) this.#closed(child.sa)
    else this.#context.releaseSpi(child.sa.inboundSpi)
  }

  closeAll(): void {
    for (const child of [...this.#live.values()]) this.close(child)
    for (const sa of this.#retired.expired(Infinity as Instant)) this.#closed(sa)
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
}
