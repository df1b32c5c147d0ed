/**
 * What an initiator holds until it is authenticated: what it asked for, the IKE_SA_INIT it sent last, and what
 * the AUTH payloads are made of.
 */
import { equalBytes, wipe } from '#base/bytes'
import type { Spi } from '#base/ids'
import { after, type Duration, type Instant } from '#base/time'
import type { KeyPair } from '#crypto/provider'
import { openChannel } from '#ikev2/channel'
import type { IkeContext } from '#ikev2/context'
import type { InitiateRequest } from '#ikev2/events'
import { authRequest, readAuthAnswer } from '#ikev2/exchange/auth'
import type { ChildOffer } from '#ikev2/exchange/child'
import { type InitAnswer, type InitOffer, initOffer, initRequest, readInitAnswer } from '#ikev2/exchange/init'
import {
  authenticatedOctets,
  intermediateRequest,
  readIntermediateAnswer,
} from '#ikev2/exchange/intermediate'
import { TICKET_REQUEST } from '#ikev2/exchange/resume'
import { protocolFault } from '#ikev2/fault'
import { wipeSecrets } from '#ikev2/keys'
import { encodeClear } from '#ikev2/message/encrypted'
import { sentMessage } from '#ikev2/message/fragment'
import { HEADER_LENGTH, isZeroSpi, type ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads } from '#ikev2/message/payload'
import { checkContents, need } from '#ikev2/message/registry'
import { demandTaken, readMethods } from '#ikev2/methods'
import { MOBIKE_SUPPORTED, saysMobike } from '#ikev2/mobility'
import { natDetection, readNatDetection } from '#ikev2/nat'
import { EXCHANGE } from '#ikev2/numbers'
import type { AuthContext } from '#ikev2/proof'
import { PuzzleSolver } from '#ikev2/puzzle'
import type { IkeSa } from '#ikev2/sa'

/** HMACs at a time, about 3 ms, and what is left in between to everything else. */
const TRIES = 1_000
const PAUSE: Duration = 1

/** How often an initiator begins again with a cookie or another group. */
const MAX_RESTARTS = 4

/** What an initiator does until it is authenticated, by whatever way. */
export interface Initiation {
  /** When there is more to do than wait. */
  readonly nextTimeout?: Instant | undefined
  tick?(sa: IkeSa, now: Instant): void
  readonly inboundSpi: Spi
  begin(sa: IkeSa, now: Instant): void
  receive(sa: IkeSa, header: ReceivedHeader, datagram: Uint8Array, now: Instant): void
  wipe(): void
}

export function childOffer(request: InitiateRequest, inboundSpi: Spi): ChildOffer {
  const { requestAddress, localSelectors, remoteSelectors, espCiphers: ciphers } = request
  return { inboundSpi, ciphers, requestAddress, localSelectors, remoteSelectors }
}

export class Attempt implements Initiation {
  readonly inboundSpi: Spi
  readonly #context: IkeContext
  readonly #request: InitiateRequest
  readonly #child: ChildOffer
  #offer: InitOffer
  #datagram: Uint8Array = new Uint8Array(0)
  #restarts = 0
  /** The puzzle that is being solved. */
  #work: { readonly solver: PuzzleSolver; readonly at: Instant } | undefined
  #auth: AuthContext | undefined
  /** Of the additional key exchange. */
  #additional: KeyPair | undefined

  constructor(context: IkeContext, request: InitiateRequest, inboundSpi = context.allocateSpi('evenly')) {
    this.inboundSpi = inboundSpi
    this.#context = context
    this.#request = request
    this.#child = childOffer(request, inboundSpi)
    this.#offer = initOffer(context.crypto, undefined, request.hybrid)
  }

  /** Sends IKE_SA_INIT: AUTH covers the last one (RFC 7296 section 2.6). */
  begin(sa: IkeSa, now: Instant): void {
    const header = sa.association.header(EXCHANGE.number.IKE_SA_INIT, 0, false)
    const { path } = sa.association
    const detection = this.#request.mobile ? natDetection(this.#context.crypto, header, path) : []
    this.#datagram = encodeClear(header, initRequest(this.#offer, detection))
    sa.askInClear(EXCHANGE.number.IKE_SA_INIT, this.#datagram, now)
  }

  /**
   * The answer to IKE_SA_INIT: goes on, or begins anew if that is what it asks for.
   * @throws PeerFault, DecodeError when it is no use: then nothing has changed
   */
  receive(sa: IkeSa, header: ReceivedHeader, datagram: Uint8Array, now: Instant): void {
    const payloads = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'IKE_SA_INIT')
    checkContents(header.exchange, true, payloads)
    const { crypto } = this.#context
    const answer = readInitAnswer(crypto, this.#offer, payloads)
    if (answer.kind !== 'accepted') {
      if (this.#follow(answer, now) !== 'again') return
      sa.enter('restart')
      return this.begin(sa, now)
    }
    demandTaken(answer.result.peerMethods, this.#request.credential)
    if (isZeroSpi(header.spiResponder)) throw protocolFault('zero-spi', 'the responder has no SPI')
    const { association } = sa
    const nat = this.#request.mobile
      ? readNatDetection(crypto, header, association.path, payloads)
      : undefined
    association.learnResponder(header.spiResponder)
    if (nat !== undefined) {
      association.way.traverse(nat)
      association.way.float()
    }
    const { channel, auth } = openChannel(this.#context, association, this.#datagram, datagram, answer.result)
    this.#work = undefined
    this.#auth = auth
    wipe(this.#offer.keyPair.privateKey)
    sa.initAnswered(channel.suite.additional === undefined ? 'init answered' : 'more keys', channel, now)
    this.#proceed(sa, now)
  }

  /** When there is more to do. */
  get nextTimeout(): Instant | undefined {
    return this.#work?.at
  }

  /** Works on a puzzle for a moment. Until it is solved the request of before is the one that is out. */
  tick(sa: IkeSa, now: Instant): void {
    const work = this.#work
    if (work === undefined || now < work.at) return
    const solution = work.solver.step(TRIES)
    if (solution === 'pending') {
      this.#work = { ...work, at: after(now, PAUSE) }
      return
    }
    this.#work = undefined
    if (solution !== undefined) this.#offer = { ...this.#offer, solution }
    sa.enter('restart')
    this.begin(sa, now)
  }

  /** Forgets every secret. The SPI is the Child SA's now, or the caller's to release. */
  wipe(): void {
    wipe(this.#offer.keyPair.privateKey)
    wipe(this.#additional?.privateKey)
    if (this.#auth !== undefined) wipeSecrets(this.#auth.secrets)
  }

  /** IKE_SA_INIT is answered: the additional key exchange, if one was agreed, and then the proofs. */
  #proceed(sa: IkeSa, now: Instant): void {
    if (sa.channel.suite.additional === undefined) return this.#authenticate(sa, now)
    const { crypto } = this.#context
    const keyPair = crypto.mlkem768Generate()
    this.#additional = keyPair
    const payloads = intermediateRequest(keyPair)
    const sent = sa.ask(EXCHANGE.number.IKE_INTERMEDIATE, payloads, now, (answer, at, message) => {
      const sharedSecret = readIntermediateAnswer(crypto, keyPair, answer)
      wipe(keyPair.privateKey)
      const initiator = authenticatedOctets(sentMessage(sent, payloads))
      const transcript = { initiator, responder: authenticatedOctets(message) }
      const next = sa.channel.extend(this.#context, sa.association, this.#auth!, sharedSecret, transcript)
      const announced = next.auth.peerMethods
      const peerMethods = announced === 'later' ? readMethods(answer) : announced
      this.#auth = { ...next.auth, peerMethods }
      sa.enter('keys complete', next.channel)
      this.#authenticate(sa, at)
    })
  }

  #authenticate(sa: IkeSa, now: Instant): void {
    const { crypto } = this.#context
    const { credential, peer } = this.#request
    const auth = this.#auth!
    demandTaken(auth.peerMethods, credential)
    // Throws when the responder could not verify our credential.
    const payloads = authRequest(crypto, auth, credential, peer, this.#child)
    const idi = need(payloads, 'IDi').id
    const { way } = sa.association
    if (way.traverses) payloads.push(MOBIKE_SUPPORTED)
    if (this.#request.resume !== undefined) payloads.push(TICKET_REQUEST)
    sa.ask(EXCHANGE.number.IKE_AUTH, payloads, now, (answer, at) => {
      const result = readAuthAnswer(crypto, auth, peer, this.#child, answer)
      way.isMobile = way.traverses && saysMobike(answer)
      sa.establish({ ...result, inboundSpi: this.inboundSpi, initiated: true, nonces: auth, idi, answer }, at)
    })
  }

  /** RFC 7296 section 2.6.1: the nonce stays, and another group keeps the cookie. */
  #follow(answer: Exclude<InitAnswer, { kind: 'accepted' }>, now: Instant): 'again' | 'stale' | 'later' {
    const offer = this.#offer
    if (answer.kind === 'cookie' && offer.cookie !== undefined && equalBytes(answer.cookie, offer.cookie))
      return 'stale'
    if (this.#restarts === MAX_RESTARTS)
      throw protocolFault('init-loop', 'the peer asks to begin anew for ever')
    this.#restarts++
    if (answer.kind === 'cookie') {
      const { cookie, puzzle } = answer
      const { solution: _, ...rest } = offer
      this.#offer = { ...rest, cookie }
      if (puzzle === 'too hard') this.#context.refuse('puzzle-too-hard', 'a puzzle that is left unsolved')
      if (puzzle === undefined || puzzle === 'too hard') return 'again'
      this.#work = { solver: new PuzzleSolver(this.#context.crypto, puzzle, cookie), at: now }
      return 'later'
    } else {
      wipe(offer.keyPair.privateKey)
      const { group, keyPair } = initOffer(this.#context.crypto, answer.group)
      this.#offer = { ...offer, group, keyPair }
    }
    return 'again'
  }
}
