/**
 * What the peer has begun and not finished: a rekey that it asked for, we agreed to, and whose additional key exchange
 * (IKE_FOLLOWUP_KE, RFC 9370) is still to come. A session keeps one. A peer that begins anew has given the one before
 * up, and one that never comes back is forgotten; should it come later, it hears STATE_NOT_FOUND and begins anew.
 */
import { equalBytes } from '#base/bytes'
import { after, type Instant } from '#base/time'
import { type IkeContext, PEER_PATIENCE } from '#ikev2/context'
import { answerFollowUp, linkOf, linkPayload, stateNotFound } from '#ikev2/exchange/follow-up'
import type { Payload } from '#ikev2/message/payload'
import type { IkeSa } from '#ikev2/sa'

/** A rekey of the peer that waits for its second half. Exactly one of the two is called, once. */
export interface Begun {
  /** The second shared secret is there, and is the callee's to wipe. @throws PeerFault when it comes too late */
  finish(additional: Uint8Array, now: Instant): void
  /** Gives back what was promised, and wipes the first shared secret. */
  forget(): void
}

/** Octets of a link: nobody guesses one, and none comes twice. */
const LINK_LENGTH = 16

export class FollowUp {
  readonly #context: IkeContext
  #open:
    | { readonly begun: Begun; readonly sa: IkeSa; readonly link: Uint8Array; readonly until: Instant }
    | undefined

  constructor(context: IkeContext) {
    this.#context = context
  }

  /** The payload that tells the peer how to go on. Forgets what was open. */
  expect(sa: IkeSa, begun: Begun, now: Instant): Payload {
    this.forget()
    const link = this.#context.crypto.random(LINK_LENGTH)
    this.#open = { begun, sa, link, until: after(now, PEER_PATIENCE) }
    return linkPayload(link)
  }

  /** @throws PeerFault STATE_NOT_FOUND when this is not what is open; that stays open then. */
  answer(sa: IkeSa, request: readonly Payload[], now: Instant): Payload[] {
    const open = this.#open
    const link = linkOf(request)
    if (open === undefined || open.sa !== sa || link === undefined || !equalBytes(link, open.link))
      throw stateNotFound('a key exchange that follows nothing we know')
    const { sharedSecret, payloads } = answerFollowUp(this.#context.crypto, request)
    this.#open = undefined
    open.begun.finish(sharedSecret, now)
    return payloads
  }

  /** Gives up what is open, or only this one. */
  forget(begun = this.#open?.begun): void {
    if (begun === undefined || this.#open?.begun !== begun) return
    this.#open = undefined
    begun.forget()
  }

  nextTimeout(): Instant | undefined {
    return this.#open?.until
  }

  tick(now: Instant): void {
    if (this.#open !== undefined && now >= this.#open.until) this.forget()
  }
}
