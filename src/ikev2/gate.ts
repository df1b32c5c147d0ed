/**
 * What a stranger does for us before it costs us state (RFC 7296 section 2.6, RFC 8019 section 4). The more IKE SAs are
 * half-open, the more is asked:
 *
 *     from `cookieAt` on   return a cookie: it hears what is sent to its address
 *     from `puzzleAt` on   solve a puzzle besides: up to 64 times as hard when we are full as when we begin to ask
 *
 * A flood is answered before it is decoded: a stranger without a good cookie costs an HMAC and an answer.
 *
 * Who returns the cookie of a puzzle without a solution may be a stock client that knows none: one in so many is let in
 * (section 7.1.1). A solution counts once. The difficulty is in the cookie, so nothing is kept about whom it was asked.
 */
import { toHex } from '#base/bytes'
import type { Ip } from '#base/ip'
import { type Rng, uniform } from '#base/rng'
import type { Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { CookieJar } from '#ikev2/cookies'
import type { Refusal } from '#ikev2/counters'
import { readInitRequest } from '#ikev2/exchange/init'
import { isNonce } from '#ikev2/exchange/key-exchange'
import { glanceAt } from '#ikev2/message/glance'
import type { ReceivedHeader } from '#ikev2/message/header'
import { type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { find, need } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { hashFor, puzzleFor, solvesPuzzle } from '#ikev2/puzzle'

export interface Thresholds {
  readonly cookieAt: number
  readonly puzzleAt: number
  readonly halfOpen: number
}

/** Why a request is not let in yet, and what to answer; nothing: silence. */
export interface Demand {
  readonly counter: Refusal
  readonly detail: string
  readonly answer: readonly NotifyPayload[]
}

interface Knock {
  readonly payloads: readonly Payload[]
  readonly spiInitiator: Uint8Array
  readonly source: Ip
}

export class Gate {
  readonly #crypto: CryptoProvider
  readonly #rng: Rng
  readonly #thresholds: Thresholds
  readonly #cookies: CookieJar
  /** Cookies whose puzzle was solved, the oldest first. */
  readonly #spent = new Set<string>()

  constructor(crypto: CryptoProvider, rng: Rng, thresholds: Thresholds) {
    this.#crypto = crypto
    this.#rng = rng
    this.#thresholds = thresholds
    this.#cookies = new CookieJar(crypto)
  }

  /**
   * Decides about a flood before it is decoded: the cookie for a stranger that shows no good one while no puzzle is
   * asked for. Undefined: `demand` is to judge.
   */
  turnAway(
    header: ReceivedHeader,
    message: Uint8Array,
    source: Ip,
    halfOpen: number,
    now: Instant,
  ): Demand | undefined {
    const { cookieAt, puzzleAt } = this.#thresholds
    const { exchange, firstPayload, spiInitiator } = header
    if (halfOpen < cookieAt) return undefined
    if (halfOpen >= puzzleAt && exchange === EXCHANGE.number.IKE_SA_INIT) return undefined
    const seen = glanceAt(exchange, firstPayload, message)
    if (seen === undefined || !isNonce(seen.nonce)) return undefined
    const { nonce, cookie } = seen
    const isGood =
      cookie !== undefined && this.#cookies.verify(cookie, nonce, spiInitiator, source, now) !== undefined
    if (isGood) return undefined
    const fresh = this.#cookies.bake(nonce, spiInitiator, source, now, 0)
    const answer = [notify(NOTIFY.number.COOKIE, fresh)]
    return { counter: 'cookie-demanded', detail: WITHOUT_COOKIE, answer }
  }

  /** Undefined: it may come in, with so many half-open. @throws PeerFault when it is malformed */
  demand(knock: Knock, halfOpen: number, now: Instant): Demand | undefined {
    const { payloads, spiInitiator, source } = knock
    const { nonce, cookie } = readInitRequest(payloads)
    if (halfOpen < this.#thresholds.cookieAt) return undefined
    // A resumption has no SA and costs no public-key operation: the cookie is enough.
    const proposals = find(payloads, 'SA')?.proposals
    const wanted = proposals === undefined ? 0 : this.#difficulty(halfOpen)
    const promised = cookie && this.#cookies.verify(cookie, nonce, spiInitiator, source, now)
    const demand = (counter: Refusal, detail: string): Demand => {
      const fresh = this.#cookies.bake(nonce, spiInitiator, source, now, wanted)
      const puzzle = wanted === 0 ? undefined : puzzleFor(proposals!, wanted)
      const answer = [notify(NOTIFY.number.COOKIE, fresh), ...(puzzle === undefined ? [] : [puzzle])]
      return { counter, detail, answer }
    }
    if (cookie === undefined || promised === undefined) return demand('cookie-demanded', WITHOUT_COOKIE)
    if (wanted === 0) return undefined
    if (promised === 0) return demand('puzzle-demanded', 'IKE_SA_INIT under attack without a puzzle')
    return this.#judge(payloads, cookie, promised, demand)
  }

  #judge(
    payloads: readonly Payload[],
    cookie: Uint8Array,
    difficulty: number,
    demand: (counter: Refusal, detail: string) => Demand,
  ): Demand | undefined {
    const hash = hashFor(need(payloads, 'SA').proposals)
    if (hash === undefined || !solvesPuzzle(this.#crypto, payloads, { hash, difficulty }, cookie)) {
      const isLucky = uniform(this.#rng, ONE_IN) === 0
      return isLucky ? undefined : demand('puzzle-unsolved', 'IKE_SA_INIT without a solution of its puzzle')
    }
    const spent = toHex(cookie)
    if (this.#spent.has(spent))
      return { counter: 'puzzle-reused', detail: 'a solution that counted already', answer: [] }
    this.#spent.add(spent)
    if (this.#spent.size > SPENT_MAX) {
      const [oldest] = this.#spent
      this.#spent.delete(oldest!)
    }
    return undefined
  }

  /** 0: no puzzle. */
  #difficulty(halfOpen: number): number {
    const { puzzleAt, halfOpen: full } = this.#thresholds
    if (halfOpen < puzzleAt) return 0
    const load = Math.min(1, (halfOpen - puzzleAt) / Math.max(1, full - puzzleAt))
    return EASIEST + Math.floor(load * (HARDEST - EASIEST))
  }
}

const WITHOUT_COOKIE = 'a request under load without a good cookie'
/** 1,000 HMACs on average, a few milliseconds; and 65,000. */
const EASIEST = 8
const HARDEST = 14
const ONE_IN = 8
/** More than are solved while a cookie is good. */
const SPENT_MAX = 4_096
