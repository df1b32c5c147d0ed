/** What a responder holds until its peer is authenticated: the policy, and what the AUTH payloads are made of. */
import { wipe } from '#base/bytes'
import type { Instant } from '#base/time'
import type { Answer } from '#ikev2/answers'
import type { Association } from '#ikev2/association'
import { type Channel, openChannel, resumeChannel } from '#ikev2/channel'
import { type Computation, compute } from '#ikev2/computation'
import type { IkeContext } from '#ikev2/context'
import type { PeerIdentity, ResponderPolicy } from '#ikev2/events'
import { type AuthAnswer, answerProven, exchangeProofs, type Where } from '#ikev2/exchange/auth'
import type { InitAnswered } from '#ikev2/exchange/init'
import { answerKeyWith, authenticatedOctets, readKey } from '#ikev2/exchange/intermediate'
import { answerResumedAuth, type ResumeResult } from '#ikev2/exchange/resume'
import { wipeSecrets } from '#ikev2/keys'
import { encodeClear } from '#ikev2/message/encrypted'
import { type Message, sentMessage } from '#ikev2/message/fragment'
import type { Payload } from '#ikev2/message/payload'
import { need } from '#ikev2/message/registry'
import { MOBIKE_SUPPORTED, saysMobike } from '#ikev2/mobility'
import { EXCHANGE } from '#ikev2/numbers'
import type { AuthContext } from '#ikev2/proof'
import type { Grant } from '#ikev2/resumption/ticket'
import type { IkeSa } from '#ikev2/sa'

/** How a responder begins: with new keys, or with those of a session before. */
export type Beginning =
  | { readonly kind: 'full'; readonly result: InitAnswered; readonly payloads: Payload[] }
  | {
      readonly kind: 'resumed'
      readonly result: ResumeResult
      readonly payloads: Payload[]
      readonly grant: Grant
    }

const { number: X } = EXCHANGE

export class Admission {
  readonly #context: IkeContext
  readonly #policy: ResponderPolicy
  /** Of a session that is resumed. */
  readonly #grant: Grant | undefined
  #auth: AuthContext

  private constructor(context: IkeContext, policy: ResponderPolicy, auth: AuthContext, grant?: Grant) {
    this.#context = context
    this.#policy = policy
    this.#grant = grant
    this.#auth = auth
  }

  /** Answers what begins an IKE SA: the message, the keys from it on, and what is held then. */
  static begin(
    context: IkeContext,
    policy: ResponderPolicy,
    association: Association,
    request: Uint8Array,
    begun: Beginning,
  ): { readonly admission: Admission; readonly channel: Channel; readonly response: Uint8Array } {
    const exchange = begun.kind === 'full' ? X.IKE_SA_INIT : X.IKE_SESSION_RESUME
    const response = encodeClear(association.header(exchange, 0, true), begun.payloads)
    const grant = begun.kind === 'full' ? undefined : begun.grant
    const { channel, auth } =
      begun.kind === 'full'
        ? openChannel(context, association, request, response, begun.result)
        : resumeChannel(context, association, request, response, begun.grant, begun.result)
    return { admission: new Admission(context, policy, auth, grant), channel, response }
  }

  /**
   * The answer to IKE_INTERMEDIATE or IKE_AUTH, whichever is due: first what takes long, then, in the function that comes
   * of it, all that changes anything. @throws PeerFault: the peer is not admitted
   */
  *answer(
    sa: IkeSa,
    exchange: number,
    payloads: readonly Payload[],
    message: Message,
  ): Computation<(now: Instant) => Answer> {
    return exchange === X.IKE_INTERMEDIATE
      ? yield* this.#answerIntermediate(sa, payloads, message)
      : yield* this.#answerAuth(sa, payloads)
  }

  wipe(): void {
    wipeSecrets(this.#auth.secrets)
    wipe(this.#grant?.skD)
  }

  *#answerIntermediate(sa: IkeSa, request: readonly Payload[], message: Message): Computation<() => Answer> {
    const initiator = authenticatedOctets(message)
    const publicKey = readKey(request)
    const { sharedSecret, payloads } = answerKeyWith(yield* compute({ kind: 'encapsulation', publicKey }))
    return () => ({
      payloads,
      // The answer itself still goes under the keys of before.
      conclude: (sent) => {
        const responder = authenticatedOctets(sentMessage(sent, payloads))
        const { association, channel } = sa
        const transcript = { initiator, responder }
        const next = channel.extend(this.#context, association, this.#auth, sharedSecret, transcript)
        this.#auth = next.auth
        sa.enter('keys complete', next.channel)
      },
    })
  }

  *#answerAuth(sa: IkeSa, request: readonly Payload[]): Computation<(now: Instant) => Answer> {
    const policy = this.#policy
    const grant = this.#grant
    if (grant !== undefined) {
      const { resumption } = this.#context
      return (now) => {
        const spend = (): boolean => resumption?.mint.spend(grant, now) === true
        const answer = (where: Where): AuthAnswer =>
          answerResumedAuth(this.#auth, policy, grant, spend, where, request)
        return this.#conclude(sa, request, grant.peer, answer, now)
      }
    }
    const { path } = sa.association
    const hash = sa.channel.suite.prf
    const { peer, proof } = yield* exchangeProofs(hash, this.#auth, policy, path, request)
    const answer = (where: Where): AuthAnswer => answerProven(policy, where, peer, proof, request)
    return (now) => this.#conclude(sa, request, peer, answer, now)
  }

  #conclude(
    sa: IkeSa,
    request: readonly Payload[],
    { kind }: PeerIdentity,
    answerFrom: (where: Where) => AuthAnswer,
    now: Instant,
  ): Answer {
    const { id, path, way } = sa.association
    const inboundSpi = this.#context.allocateSpi(kind === 'key' ? 'evenly' : undefined)
    try {
      const answer = answerFrom({ sa: id, path, inboundSpi })
      const { payloads } = answer
      if (answer.kind === 'established') {
        // Announced before the answer is transmitted: the SA is installed when the peer begins to use it.
        const { peer, terms } = answer
        way.isMobile = way.traverses && saysMobike(request)
        const idi = need(request, 'IDi').id
        const grant = this.#grant
        const resumed = grant === undefined ? {} : { resumed: { usage: grant.usage } }
        sa.establish({ peer, inboundSpi, terms, initiated: false, nonces: this.#auth, idi, ...resumed }, now)
        if (grant !== undefined) this.#context.supersede(grant.session)
        if (way.isMobile) payloads.push(MOBIKE_SUPPORTED)
        payloads.push(...sa.giveTicket(request, now))
        return { payloads }
      }
      this.#context.refuse(answer.fault.counter, answer.fault.message)
      this.#context.releaseSpi(inboundSpi)
      return { payloads, conclude: () => sa.turnAway(now) }
    } catch (error) {
      this.#context.releaseSpi(inboundSpi)
      throw error
    }
  }
}
