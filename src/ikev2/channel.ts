/**
 * The protected side of one IKE SA: its keys, and the messages under them. A channel lives from IKE_SA_INIT to the
 * end of the IKE SA; a rekeyed IKE SA has another.
 */
import { concat, wipe } from '#base/bytes'
import type { Spi } from '#base/ids'
import type { CryptoProvider } from '#crypto/provider'
import { keyingLength } from '#crypto/suites'
import type { Association } from '#ikev2/association'
import type { IkeContext } from '#ikev2/context'
import type { ChildSa, IkeRole } from '#ikev2/events'
import type { ChildTerms } from '#ikev2/exchange/child'
import type { InitAnswered, InitResult } from '#ikev2/exchange/init'
import type { ChildKeying, Keying } from '#ikev2/exchange/key-exchange'
import type { ResumeResult } from '#ikev2/exchange/resume'
import { malformed, PeerFault, protocolFault } from '#ikev2/fault'
import {
  childKeys,
  firstSecrets,
  type IkeSecrets,
  ikeSecrets,
  type KeyLengths,
  type Prf,
  prfOf,
  skeyseedFrom,
  skeyseedResumed,
  wipeSecrets,
} from '#ikev2/keys'
import { FRAGMENT_HEADER_LENGTH, MessageKey } from '#ikev2/message/encrypted'
import { type Opened, readFragmentOf, sealMessage } from '#ikev2/message/fragment'
import { HEADER_LENGTH, type Header, type ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import type { AuthContext } from '#ikev2/proof'
import type { IkeSuite } from '#ikev2/proposal'
import type { Grant } from '#ikev2/resumption/ticket'
import { Writer } from '#wire/cursor'

export class Channel {
  readonly suite: IkeSuite
  /** The IKE SA, or the one it goes back to, was authenticated with both messages that began it (transcript.ts). */
  readonly fullTranscript: boolean
  readonly #prf: Prf
  readonly #skD: Uint8Array
  readonly #sending: MessageKey
  readonly #receiving: MessageKey
  /** Both sides can put fragments together (RFC 7383). */
  readonly #mayFragment: boolean

  /** Takes over `secrets.skD`; the others are still the caller's to wipe. */
  constructor(
    crypto: CryptoProvider,
    suite: IkeSuite,
    role: IkeRole,
    secrets: IkeSecrets,
    { mayFragment, fullTranscript }: Extensions,
  ) {
    const { skD, skEi, skEr } = secrets
    const [own, peers] = role === 'initiator' ? [skEi, skEr] : [skEr, skEi]
    this.suite = suite
    this.fullTranscript = fullTranscript
    this.#prf = prfOf(crypto, suite.prf)
    this.#skD = skD
    this.#mayFragment = mayFragment
    this.#sending = new MessageKey(crypto, suite.cipher, own)
    this.#receiving = new MessageKey(crypto, suite.cipher, peers)
  }

  /** The datagrams of a message: sealed once, and then repeated as they are. */
  seal(header: Header, payloads: readonly Payload[]): readonly Uint8Array[] {
    return sealMessage(this.#sending, header, payloads, this.#mayFragment)
  }

  /** @throws PeerFault, DecodeError when the datagram is not authentic: nothing in it is to be believed. */
  open(header: ReceivedHeader, datagram: Uint8Array): Opened {
    const outer = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'message')
    const sk = outer.at(-1)
    if (sk?.kind === 'SKF' && !this.#mayFragment)
      throw protocolFault('fragment', 'a fragment, and fragmentation was not negotiated')
    if (sk?.kind !== 'SK' && sk?.kind !== 'SKF') throw malformed('the message is not encrypted')
    const fragment = sk.kind === 'SKF' ? readFragmentOf(sk.data) : undefined
    const sealedLength = sk.data.length - (fragment === undefined ? 0 : FRAGMENT_HEADER_LENGTH)
    const plaintext = this.#receiving.open(datagram, sealedLength)
    if (plaintext === undefined) throw new PeerFault('IPP_IKE_MALFORMED', 'icv', 'the ICV does not verify')
    const front = datagram.subarray(0, datagram.length - sk.data.length)
    return { firstPayload: sk.inner, plaintext, front, ...(fragment === undefined ? {} : { fragment }) }
  }

  /**
   * The Child SA that an exchange made: IKE_AUTH, without a key exchange of its own, or CREATE_CHILD_SA. `initiated`:
   * we began that exchange, whoever began the IKE SA (RFC 7296 section 2.17).
   */
  childSa(initiated: boolean, inboundSpi: Spi, terms: ChildTerms, keying: ChildKeying): ChildSa {
    const { suite, outboundSpi, localSelectors, remoteSelectors } = terms
    const { cipher, esn } = suite
    const { ni, nr, sharedSecret, additional } = keying
    const secrets = [sharedSecret, additional].filter((secret) => secret !== undefined)
    const keys = childKeys(this.#prf, this.#skD, cipher, ni, nr, secrets)
    wipe(...secrets)
    const [inboundKey, outboundKey] = initiated
      ? [keys.responderToInitiator, keys.initiatorToResponder]
      : [keys.initiatorToResponder, keys.responderToInitiator]
    return { cipher, esn, inboundSpi, outboundSpi, inboundKey, outboundKey, localSelectors, remoteSelectors }
  }

  /** The channel of the IKE SA that takes this one's place (RFC 7296 section 2.18). Wipes the shared secrets. */
  renew(context: KeyContext, association: Association, suite: IkeSuite, keying: Keying): Channel {
    // The exchange belongs to the old IKE SA, and so does the PRF of its result.
    const { ni, nr, sharedSecret } = keying
    const additional = keying.additional === undefined ? [] : [keying.additional]
    const seed = skeyseedFrom(this.#prf, this.#skD, sharedSecret, ni, nr, additional)
    wipe(sharedSecret, ...additional)
    const { channel, secrets } = derive(context, association, suite, seed, { ...keying, ...this.#extensions })
    wipeSecrets(secrets)
    return channel
  }

  /**
   * The channel after an additional key exchange, and what AUTH is made of then (RFC 9370 section 2.2.2, RFC 9242
   * section 3.3.2). `transcript` is what IntAuth covers. Wipes the shared secret and the secrets of before.
   */
  extend(
    context: KeyContext,
    association: Association,
    auth: AuthContext,
    sharedSecret: Uint8Array,
    transcript: { readonly initiator: Uint8Array; readonly responder: Uint8Array },
  ): { readonly channel: Channel; readonly auth: AuthContext } {
    const { ni, nr, secrets: before } = auth
    const intAuth = concat(
      this.#prf(before.skPi, transcript.initiator),
      this.#prf(before.skPr, transcript.responder),
      new Writer(4).u32(AUTH_AFTER_INTERMEDIATE).finish(),
    )
    const seed = skeyseedFrom(this.#prf, this.#skD, sharedSecret, ni, nr)
    wipe(sharedSecret)
    wipeSecrets(before)
    const { channel, secrets } = derive(context, association, this.suite, seed, {
      ni,
      nr,
      ...this.#extensions,
    })
    return { channel, auth: { ...auth, secrets, intAuth } }
  }

  /** A copy of SK_d, the caller's to wipe: what a ticket stands for. */
  copySkD(): Uint8Array {
    return this.#skD.slice()
  }

  destroy(): void {
    wipe(this.#skD)
    this.#sending.destroy()
    this.#receiving.destroy()
  }

  get #extensions(): Extensions {
    return { mayFragment: this.#mayFragment, fullTranscript: this.fullTranscript }
  }
}

/** What an IKE SA has from the exchange that began it, and hands on to the one that takes its place. */
type Extensions = Pick<InitResult, 'mayFragment' | 'fullTranscript'>

/** The message ID of IKE_AUTH after one IKE_INTERMEDIATE. */
const AUTH_AFTER_INTERMEDIATE = 2

type KeyContext = Pick<IkeContext, 'crypto' | 'logKeys'>

/**
 * All keys of a new IKE SA, and what its AUTH payloads are made of. `initRequest` and `initResponse` are the two
 * datagrams as they travelled last. Takes over the keys of `result`, or wipes its shared secret.
 */
export function openChannel(
  context: KeyContext,
  association: Association,
  initRequest: Uint8Array,
  initResponse: Uint8Array,
  result: InitResult | InitAnswered,
): { readonly channel: Channel; readonly auth: AuthContext } {
  const { suite, ni, nr, peerHashes, peerMethods, wantsRawKey, fullTranscript } = result
  const prf = prfOf(context.crypto, suite.prf)
  const { spiInitiator, spiResponder } = association
  const secrets =
    'secrets' in result
      ? result.secrets
      : firstSecrets(prf, result.sharedSecret, { ni, nr, spiInitiator, spiResponder }, keyLengths(suite))
  const channel = establish(context, association, suite, secrets, result)
  return {
    channel,
    auth: {
      prf,
      secrets,
      initRequest: initRequest.slice(),
      initResponse: initResponse.slice(),
      ni: ni.slice(),
      nr: nr.slice(),
      peerHashes,
      peerMethods,
      wantsRawKey,
      fullTranscript,
    },
  }
}

/**
 * The same for a resumed session (RFC 5723 section 5.1): the suite of the old IKE SA, and keys that follow from its
 * SK_d. Whose additional key exchange that was, is no longer to be negotiated.
 */
export function resumeChannel(
  context: KeyContext,
  association: Association,
  resumeRequest: Uint8Array,
  resumeResponse: Uint8Array,
  { skD, suite, fullTranscript }: Resumable,
  result: ResumeResult,
): { readonly channel: Channel; readonly auth: AuthContext } {
  const { ni, nr } = result
  const prf = prfOf(context.crypto, suite.prf)
  const seed = skeyseedResumed(prf, skD, ni, nr)
  const { channel, secrets } = derive(context, association, suite, seed, { ...result, fullTranscript })
  const initRequest = resumeRequest.slice()
  const initResponse = resumeResponse.slice()
  const nonces = { ni: ni.slice(), nr: nr.slice() }
  const messages = { initRequest, initResponse, fullTranscript }
  return { channel, auth: { prf, secrets, ...messages, ...nonces, peerHashes: new Set() } }
}

/** What a session leaves to the one that resumes it. */
type Resumable = Pick<Grant, 'skD' | 'suite' | 'fullTranscript'>

/** Keys from a SKEYSEED, which is wiped, and SK_e with it once the channel has them. */
function derive(
  context: KeyContext,
  association: Association,
  suite: IkeSuite,
  seed: Uint8Array,
  { ni, nr, ...extensions }: Extensions & Pick<InitResult, 'ni' | 'nr'>,
): { readonly channel: Channel; readonly secrets: IkeSecrets } {
  const { spiInitiator, spiResponder } = association
  const prf = prfOf(context.crypto, suite.prf)
  const secrets = ikeSecrets(prf, seed, { ni, nr, spiInitiator, spiResponder }, keyLengths(suite))
  wipe(seed)
  return { channel: establish(context, association, suite, secrets, extensions), secrets }
}

/** How long the keys of an IKE SA are. */
export const keyLengths = (suite: IkeSuite): KeyLengths => ({
  prf: suite.prfLength,
  encryption: keyingLength(suite.cipher),
})

/** The channel under these keys. Wipes SK_e once the channel has them. */
function establish(
  { crypto, logKeys }: KeyContext,
  { id: sa, role, path, spiInitiator, spiResponder }: Association,
  suite: IkeSuite,
  secrets: IkeSecrets,
  extensions: Extensions,
): Channel {
  const channel = new Channel(crypto, suite, role, secrets, extensions)
  const { skEi, skEr } = secrets
  const { cipher } = suite
  logKeys?.({ sa, path, spiInitiator, spiResponder, skEi: skEi.slice(), skEr: skEr.slice(), cipher })
  wipe(skEi, skEr)
  return channel
}
