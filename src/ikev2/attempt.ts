/**
 * What an initiator holds until it is authenticated: what it asked for, and the IKE_SA_INIT it sent last.
 */
import { equalBytes, wipe } from '#base/bytes'
import type { Spi } from '#base/ids'
import type { CryptoProvider } from '#crypto/provider'
import type { InitiateRequest, PeerIdentity } from '#ikev2/events'
import { authRequest, readAuthAnswer } from '#ikev2/exchange/auth'
import type { ChildOffer, ChildTerms } from '#ikev2/exchange/child'
import {
  type InitAnswer,
  type InitOffer,
  type InitResult,
  initOffer,
  initRequest,
  readInitAnswer,
} from '#ikev2/exchange/init'
import { protocolFault } from '#ikev2/fault'
import { encodeClear } from '#ikev2/message/encrypted'
import type { Header } from '#ikev2/message/header'
import type { Payload } from '#ikev2/message/payload'
import type { AuthContext } from '#ikev2/proof'

/** How often an initiator begins again with a cookie or another group. */
const MAX_RESTARTS = 4

export class Attempt {
  readonly inboundSpi: Spi
  readonly #crypto: CryptoProvider
  readonly #request: InitiateRequest
  readonly #child: ChildOffer
  #offer: InitOffer
  #datagram: Uint8Array = new Uint8Array(0)
  #restarts = 0

  constructor(crypto: CryptoProvider, request: InitiateRequest, inboundSpi: Spi) {
    const { requestAddress, localSelectors, remoteSelectors, espCiphers: ciphers } = request
    this.inboundSpi = inboundSpi
    this.#crypto = crypto
    this.#request = request
    this.#child = { inboundSpi, ciphers, requestAddress, localSelectors, remoteSelectors }
    this.#offer = initOffer(crypto)
  }

  /** The IKE_SA_INIT request that AUTH covers: the last one (RFC 7296 section 2.6). */
  get datagram(): Uint8Array {
    return this.#datagram
  }

  encodeInit(header: Header): Uint8Array {
    this.#datagram = encodeClear(header, initRequest(this.#offer))
    return this.#datagram
  }

  /**
   * What the answer amounts to: the exchange is done, or must begin again with what it asks for (`again`), or is
   * one we have already followed (`stale`). @throws PeerFault when it is no use.
   */
  readInit(payloads: readonly Payload[]): InitResult | 'again' | 'stale' {
    const answer = readInitAnswer(this.#crypto, this.#offer, payloads)
    if (answer.kind === 'accepted') return answer.result
    const { cookie } = this.#offer
    if (answer.kind === 'cookie' && cookie !== undefined && equalBytes(answer.cookie, cookie)) return 'stale'
    if (this.#restarts === MAX_RESTARTS)
      throw protocolFault('init-loop', 'the peer asks to begin anew for ever')
    this.#restarts++
    this.#follow(answer)
    return 'again'
  }

  /** @throws PeerFault when the responder could not verify our credential. */
  authRequest(auth: AuthContext): Payload[] {
    const { credential, peer } = this.#request
    return authRequest(this.#crypto, auth, credential, peer, this.#child)
  }

  /** @throws PeerFault */
  readAuth(
    auth: AuthContext,
    payloads: readonly Payload[],
  ): { readonly peer: PeerIdentity; readonly terms: ChildTerms } {
    return readAuthAnswer(this.#crypto, auth, this.#request.peer, this.#child, payloads)
  }

  wipe(): void {
    wipe(this.#offer.keyPair.privateKey)
  }

  /** RFC 7296 section 2.6.1: the nonce stays, and another group keeps the cookie. */
  #follow(answer: Exclude<InitAnswer, { kind: 'accepted' }>): void {
    if (answer.kind === 'cookie') {
      this.#offer = { ...this.#offer, cookie: answer.cookie }
      return
    }
    this.wipe()
    const { group, keyPair } = initOffer(this.#crypto, answer.group)
    this.#offer = { ...this.#offer, group, keyPair }
  }
}
