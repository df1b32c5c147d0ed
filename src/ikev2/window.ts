/**
 * The two halves of a window of size 1 (RFC 7296 sections 2.1 to 2.3): our requests, numbered and repeated until
 * they are answered, and the peer's, answered once and then answered the same, octet by octet.
 *
 * Messages are lists of datagrams: a fragmented message (RFC 7383) is several.
 */
import { equalBytes } from '#base/bytes'
import type { Rng } from '#base/rng'
import type { Duration, Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { Retransmission, type RoundTrip } from '#ikev2/retransmit'

export type Datagrams = readonly Uint8Array[]

/** A request of ours: what is sent, and what is called with its answer. */
export interface Request<Answered> {
  readonly exchange: number
  readonly encode: (messageId: number) => Datagrams
  readonly answered: Answered
  /** Given up after this long, if not after what is usual here. */
  readonly patience?: Duration
}

export interface Outstanding<Answered> {
  readonly request: Request<Answered>
  readonly messageId: number
  readonly datagrams: Datagrams
  readonly retransmission: Retransmission
}

export class RequestWindow<Answered> {
  readonly #rng: Rng
  readonly #roundTrip: RoundTrip
  #patience: Duration
  #nextId = 0
  #current: Outstanding<Answered> | undefined

  constructor(options: {
    readonly rng: Rng
    readonly roundTrip: RoundTrip
    readonly patience: Duration
  }) {
    this.#rng = options.rng
    this.#roundTrip = options.roundTrip
    this.#patience = options.patience
  }

  get current(): Outstanding<Answered> | undefined {
    return this.#current
  }

  /** Requests made from now on are given up after this long. */
  set patience(patience: Duration) {
    this.#patience = patience
  }

  get isFree(): boolean {
    return this.#current === undefined
  }

  /** Begins a request; the window must be free. The datagrams to transmit. */
  begin(request: Request<Answered>, now: Instant): Datagrams {
    if (this.#current !== undefined) throw new Error('a request is out already')
    const messageId = this.#nextId++
    this.#current = {
      request,
      messageId,
      datagrams: request.encode(messageId),
      retransmission: new Retransmission(
        this.#rng,
        this.#roundTrip.firstTimeout(),
        request.patience ?? this.#patience,
        now,
      ),
    }
    return this.#current.datagrams
  }

  /** Replaces the request that is out, under the same message ID and with a fresh schedule: a retried IKE_SA_INIT. */
  replace(request: Request<Answered>, now: Instant): Datagrams {
    this.#nextId = this.#current?.messageId ?? this.#nextId
    this.#current = undefined
    return this.begin(request, now)
  }

  /** The request that is out is answered. */
  complete(now: Instant): void {
    const { retransmission } = this.#current!
    if (retransmission.transmissions === 1) this.#roundTrip.sample(now - retransmission.started)
    this.#current = undefined
  }

  /** Forgets the request that is out: nobody waits for its answer any more. */
  clear(): void {
    this.#current = undefined
  }
}

export type Arrival = 'new' | 'repeated' | 'repeated fragment' | 'changed' | 'out of window'

export class ResponseWindow {
  readonly #crypto: CryptoProvider
  #nextId = 0
  #lastRequest: readonly Uint8Array[] = []
  #lastResponse: Datagrams = []

  constructor(crypto: CryptoProvider) {
    this.#crypto = crypto
  }

  /** What a request is, by its number and octets alone: a repetition needs no decryption. */
  classify(messageId: number, datagram: Uint8Array): Arrival {
    if (messageId === this.#nextId) return 'new'
    if (messageId !== this.#nextId - 1 || this.#lastRequest.length === 0) return 'out of window'
    const digest = this.#crypto.hash('sha256', datagram)
    const index = this.#lastRequest.findIndex((known) => equalBytes(known, digest))
    // RFC 7383 section 2.6.1: of a repeated request the first fragment is answered, the others are not.
    return index < 0 ? 'changed' : index === 0 ? 'repeated' : 'repeated fragment'
  }

  get lastResponse(): Datagrams {
    return this.#lastResponse
  }

  /** Nothing was answered since IKE_SA_INIT: the last response is that one. */
  get answeredInitOnly(): boolean {
    return this.#nextId === 1
  }

  /** The request with the expected number, whose datagrams have these SHA-256 digests, was answered so. */
  answered(request: readonly Uint8Array[], response: Datagrams): void {
    this.#nextId++
    this.#lastRequest = request
    this.#lastResponse = response
  }
}
