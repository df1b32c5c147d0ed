/**
 * Peers that follow the protocol until a test tells them not to: each takes functions that change the payloads of
 * a message before it is sent. They talk to an engine directly, without a network and without time.
 */
import type { IkeSaId } from '#base/ids'
import { type Instant, instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { Association } from '#ikev2/association'
import { type Channel, openChannel } from '#ikev2/channel'
import { finishNow } from '#ikev2/computation'
import { IkeEngine, type IkeEngineOptions } from '#ikev2/engine'
import type { IkeOutput, InitiateRequest, LocalCredential, ResponderPolicy } from '#ikev2/events'
import { answerProven, authRequest, exchangeProofs } from '#ikev2/exchange/auth'
import { type IkeRekeyOffer, readIkeRekeyAnswer } from '#ikev2/exchange/create-child'
import { answerInit, type InitOffer, initOffer, initRequest, readInitAnswer } from '#ikev2/exchange/init'
import {
  authenticatedOctets,
  intermediateRequest,
  readIntermediateAnswer,
} from '#ikev2/exchange/intermediate'
import { encodeClear } from '#ikev2/message/encrypted'
import { sentMessage } from '#ikev2/message/fragment'
import { decodeHeader, HEADER_LENGTH, type Header } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import type { Proposal } from '#ikev2/message/proposal'
import { EXCHANGE, NOTIFY, TRANSFORM } from '#ikev2/numbers'
import type { AuthContext } from '#ikev2/proof'
import { anonymousRequest, CLIENT, NODE, type NodeKey, nodeKey, openPolicy, pathBetween } from './pair.ts'

export type Alter = (payloads: readonly Payload[]) => readonly Payload[]
export const asIs: Alter = (payloads) => payloads

export const KEY: NodeKey = nodeKey(nodeCrypto)
const { number: X } = EXCHANGE
const QUIET = { crypto: nodeCrypto, logKeys: undefined }

/** An engine under test, fed by hand. */
export class Subject {
  readonly engine: IkeEngine
  readonly outputs: IkeOutput[] = []
  now: Instant = instant(0)

  constructor(options: Partial<IkeEngineOptions> = {}) {
    this.engine = new IkeEngine({ crypto: nodeCrypto, ...options })
  }

  /** What it transmits in answer to a datagram; other outputs are collected. */
  hear(bytes: Uint8Array, path = pathBetween(NODE, CLIENT)): Uint8Array[] {
    this.engine.handle({ kind: 'datagram', path, bytes }, this.now)
    return this.drain()
  }

  drain(): Uint8Array[] {
    const sent: Uint8Array[] = []
    for (let output = this.engine.poll(); output !== undefined; output = this.engine.poll()) {
      this.outputs.push(output)
      if (output.kind === 'transmit') sent.push(output.bytes)
    }
    return sent
  }

  /** Lets time pass, timer by timer. */
  sleep(duration: number): Uint8Array[] {
    const end = instant(this.now + duration)
    const sent: Uint8Array[] = []
    for (let i = 0; i < 10_000; i++) {
      const next = this.engine.nextTimeout()
      if (next === undefined || next > end) break
      this.now = instant(Math.max(next, this.now))
      this.engine.tick(this.now)
      sent.push(...this.drain())
    }
    this.now = end
    return sent
  }

  count(counter: string): number {
    return this.engine.counters()[counter] ?? 0
  }

  /** The last output of a kind. */
  last<K extends IkeOutput['kind']>(kind: K): Extract<IkeOutput, { kind: K }> | undefined {
    return this.outputs.findLast((output): output is Extract<IkeOutput, { kind: K }> => output.kind === kind)
  }

  /** Octets, SAs and timers: what must not grow. */
  get isEmpty(): boolean {
    const left = this.count('sas.all') + this.count('spis.inbound')
    return left === 0 && this.engine.nextTimeout() === undefined
  }
}

export const responder = (overrides: Partial<ReturnType<typeof openPolicy>> = {}): Subject =>
  new Subject({ responder: openPolicy(KEY, overrides) })

/** A client that talks to a responder under test. */
export class RogueClient {
  readonly subject: Subject
  /** Without an additional key exchange, unless a test is about that (intermediate.test.ts). */
  offer: InitOffer = initOffer(nodeCrypto, undefined, false)
  readonly spiInitiator: Uint8Array
  spiResponder: Uint8Array = new Uint8Array(8)
  channel: Channel | undefined
  auth: AuthContext | undefined
  nextId = 1
  /** Sends large messages whole, as peers without RFC 7383 do, unless a test is about that. */
  mayFragment = false

  /** Offers the one key exchange method, if one is named. */
  constructor(subject: Subject, spiInitiator = nodeCrypto.random(8), group?: number) {
    this.subject = subject
    this.spiInitiator = spiInitiator
    const offer = initOffer(nodeCrypto, group, false)
    this.offer = group === undefined ? offer : { ...offer, proposals: withGroup(offer.proposals, group) }
  }

  header(exchange: number, messageId: number, response = false): Header {
    const { spiInitiator, spiResponder } = this
    return { spiInitiator, spiResponder, exchange, messageId, response, fromInitiator: true }
  }

  initDatagram(alter: Alter = asIs): Uint8Array {
    return encodeClear(this.header(X.IKE_SA_INIT, 0), alter(initRequest(this.offer)))
  }

  /** The payloads of the answer in the clear, or undefined for silence. Opens the channel if there is one. */
  init(alter: Alter = asIs): readonly Payload[] | undefined {
    const initMessage = this.initDatagram(alter)
    const [response] = this.subject.hear(initMessage)
    if (response === undefined) return undefined
    const header = decodeHeader(response)
    const payloads = decodePayloads(header.firstPayload, response.subarray(HEADER_LENGTH), 'answer')
    if (payloads.some(({ kind }) => kind === 'SA')) {
      this.spiResponder = header.spiResponder
      const answer = readInitAnswer(nodeCrypto, this.offer, payloads)
      if (answer.kind !== 'accepted') throw new Error(answer.kind)
      const association = new Association(1 as IkeSaId, pathBetween(CLIENT, NODE), this.spiInitiator)
      association.learnResponder(this.spiResponder)
      const { mayFragment } = this
      const opened = openChannel(QUIET, association, initMessage, response, { ...answer.result, mayFragment })
      this.channel = opened.channel
      this.auth = opened.auth
    }
    return payloads
  }

  /** An authentic request, and the payloads of its authentic answer. */
  ask(
    exchange: number,
    payloads: readonly Payload[],
    messageId = this.nextId++,
  ): readonly Payload[] | undefined {
    const [response] = this.subject.hear(this.seal(exchange, payloads, messageId))
    return response === undefined ? undefined : this.open(response)
  }

  seal(
    exchange: number,
    payloads: readonly Payload[],
    messageId = this.nextId++,
    response = false,
  ): Uint8Array {
    return this.channel!.seal(this.header(exchange, messageId, response), payloads)[0]!
  }

  open(datagram: Uint8Array): readonly Payload[] {
    const { firstPayload, plaintext } = this.channel!.open(decodeHeader(datagram), datagram)
    return decodePayloads(firstPayload, plaintext, 'answer')
  }

  authPayloads(credential: LocalCredential = { kind: 'null' }): Payload[] {
    const { espCiphers: ciphers, ...request } = anonymousRequest(KEY)
    const child = { ...request, ciphers, inboundSpi: 0x1234_5678 as never }
    return authRequest(nodeCrypto, this.auth!, credential, request.peer, child)
  }

  /** The same with an additional key exchange: `intermediate` is due after `init`. */
  hybrid(): this {
    this.offer = initOffer(nodeCrypto)
    return this
  }

  /** IKE_INTERMEDIATE; the payloads of the answer. `alterOctets` spoils what IntAuth covers. */
  intermediate(
    alter: Alter = asIs,
    alterOctets: (octets: Uint8Array) => Uint8Array = (octets) => octets,
  ): readonly Payload[] | undefined {
    const keyPair = nodeCrypto.mlkem768Generate()
    const request = alter(intermediateRequest(keyPair))
    const sent = this.seal(X.IKE_INTERMEDIATE, request)
    const [response] = this.subject.hear(sent)
    if (response === undefined) return undefined
    const opened = this.channel!.open(decodeHeader(response), response)
    const payloads = decodePayloads(opened.firstPayload, opened.plaintext, 'answer')
    if (!payloads.some(({ kind }) => kind === 'KE')) return payloads
    const next = this.channel!.extend(
      QUIET,
      new Association(
        1 as IkeSaId,
        pathBetween(CLIENT, NODE),
        this.spiInitiator,
        this.spiResponder,
        'initiator',
      ),
      this.auth!,
      readIntermediateAnswer(nodeCrypto, keyPair, payloads),
      {
        initiator: alterOctets(authenticatedOctets(sentMessage([sent], request))),
        responder: authenticatedOctets(opened),
      },
    )
    this.channel = next.channel
    this.auth = next.auth
    return payloads
  }

  /** IKE_AUTH as nobody. */
  authenticate(alter: Alter = asIs): readonly Payload[] | undefined {
    return this.ask(X.IKE_AUTH, alter(this.authPayloads()))
  }

  /** The client on the IKE SA that a rekey of its own made. */
  renewed(offer: IkeRekeyOffer, answer: readonly Payload[]): RogueClient {
    const { suite, peerSpi, keying } = readIkeRekeyAnswer(nodeCrypto, offer, answer)
    const next = new RogueClient(this.subject, offer.spi)
    next.spiResponder = peerSpi
    const association = new Association(
      1 as IkeSaId,
      pathBetween(CLIENT, NODE),
      offer.spi,
      peerSpi,
      'initiator',
    )
    next.channel = this.channel!.renew(QUIET, association, suite, keying)
    next.nextId = 0
    return next
  }

  /** Everything up to an established IKE SA. */
  establish(): this {
    this.init()
    if (this.authenticate()?.some(({ kind }) => kind === 'SA') !== true) throw new Error('not established')
    return this
  }
}

/** A node that answers an initiator under test. */
export class RogueNode {
  readonly subject: Subject = new Subject({ keyLog: true })
  readonly sa: IkeSaId
  readonly spiResponder = nodeCrypto.random(8)
  readonly request: Uint8Array
  channel: Channel | undefined
  auth: AuthContext | undefined
  authRequest: Uint8Array | undefined
  /** Takes the additional key exchange; most tests are quicker without. */
  isHybrid = false

  constructor(request: Partial<InitiateRequest> = {}) {
    this.sa = this.subject.engine.initiate(anonymousRequest(KEY, request), this.subject.now)
    this.request = this.subject.drain()[0]!
  }

  hear(bytes: Uint8Array): Uint8Array[] {
    return this.subject.hear(bytes, pathBetween(CLIENT, NODE))
  }

  /** A response in the clear to the request the subject sent last. */
  clear(
    payloads: readonly Payload[],
    spiResponder: Uint8Array = this.spiResponder,
    to = this.request,
  ): Uint8Array[] {
    const { spiInitiator } = decodeHeader(to)
    const header = { spiInitiator, spiResponder, exchange: X.IKE_SA_INIT, messageId: 0 }
    return this.hear(encodeClear({ ...header, response: true, fromInitiator: false }, payloads))
  }

  /** Answers IKE_SA_INIT. The subject goes on with IKE_AUTH if it accepts. */
  init(alter: Alter = asIs, to = this.request): Uint8Array[] {
    const { spiInitiator, firstPayload } = decodeHeader(to)
    const { spiResponder } = this
    const request = decodePayloads(firstPayload, to.subarray(HEADER_LENGTH), 'request')
    const spis = { spiInitiator: spiInitiator.slice(), spiResponder }
    const heard = this.isHybrid ? request : plain(request)
    const answer = finishNow(nodeCrypto, KEY.credential, answerInit(nodeCrypto, spis, heard))
    const header = { spiInitiator, spiResponder, exchange: X.IKE_SA_INIT, messageId: 0, response: true }
    const response = encodeClear({ ...header, fromInitiator: false }, alter(answer.payloads))
    const association = new Association(1 as IkeSaId, pathBetween(NODE, CLIENT), spiInitiator, spiResponder)
    // It sends everything whole.
    const result = { ...answer.result, mayFragment: false }
    const opened = openChannel(QUIET, association, to, response, result)
    this.channel = opened.channel
    this.auth = opened.auth
    const sent = this.hear(response)
    this.authRequest = sent[0]
    return sent
  }

  /** Answers IKE_AUTH, with whatever change. What the subject then sends. */
  authenticate(alter: Alter = asIs, policy: Partial<ResponderPolicy> = {}): Uint8Array[] {
    const header = decodeHeader(this.authRequest!)
    const { firstPayload, plaintext } = this.channel!.open(header, this.authRequest!)
    const payloads = decodePayloads(firstPayload, plaintext, 'request')
    const where = { sa: 1 as IkeSaId, path: pathBetween(NODE, CLIENT), inboundSpi: 0x2345_6789 as never }
    const heard = withoutMethods(payloads)
    const rules = openPolicy(KEY, policy)
    const hash = this.channel!.suite.prf
    const proofs = exchangeProofs(hash, this.auth!, rules, where.path, heard)
    const { peer, proof } = finishNow(nodeCrypto, rules.credential, proofs)
    const answer = answerProven(rules, where, peer, proof, heard)
    return this.respond(X.IKE_AUTH, header.messageId, alter(answer.payloads))
  }

  respond(exchange: number, messageId: number, payloads: readonly Payload[]): Uint8Array[] {
    return this.hear(this.seal(exchange, messageId, payloads, true))
  }

  seal(exchange: number, messageId: number, payloads: readonly Payload[], response = false): Uint8Array {
    const { spiInitiator } = decodeHeader(this.request)
    const { spiResponder } = this
    const header = { spiInitiator, spiResponder, exchange, messageId, response, fromInitiator: false }
    return this.channel!.seal(header, payloads)[0]!
  }

  open(datagram: Uint8Array): readonly Payload[] {
    const { firstPayload, plaintext } = this.channel!.open(decodeHeader(datagram), datagram)
    return decodePayloads(firstPayload, plaintext, 'request')
  }
}

const withGroup = (proposals: readonly Proposal[], id: number): Proposal[] =>
  proposals.map((proposal) => ({
    ...proposal,
    transforms: proposal.transforms.map((each) =>
      each.type === TRANSFORM.number.KE ? { ...each, id } : each,
    ),
  }))

/** A request of somebody who knows no IKE_INTERMEDIATE. */
const plain: Alter = (payloads) =>
  payloads.filter(
    (payload) => payload.kind !== 'Notify' || payload.type !== NOTIFY.number.INTERMEDIATE_EXCHANGE_SUPPORTED,
  )

/** As somebody without RFC 9593: a rogue proves itself as it likes. */
export const withoutMethods: Alter = (payloads) =>
  payloads.filter(
    (payload) => payload.kind !== 'Notify' || payload.type !== NOTIFY.number.SUPPORTED_AUTH_METHODS,
  )

export const without =
  (kind: Payload['kind']): Alter =>
  (payloads) =>
    payloads.filter((payload) => payload.kind !== kind)

export const twice =
  (kind: Payload['kind']): Alter =>
  (payloads) =>
    payloads.flatMap((payload) => (payload.kind === kind ? [payload, payload] : [payload]))

export const replace =
  <K extends Payload['kind']>(kind: K, change: (payload: Payload & { kind: K }) => Payload): Alter =>
  (payloads) =>
    payloads.map((payload) => (payload.kind === kind ? change(payload as Payload & { kind: K }) : payload))

/** The types of the notifies among payloads. */
export const notifyTypes = (payloads: readonly Payload[] | undefined): number[] =>
  (payloads ?? []).flatMap((payload) => (payload.kind === 'Notify' ? [payload.type] : []))
