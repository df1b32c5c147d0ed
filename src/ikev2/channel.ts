/**
 * The protected side of one IKE SA: its keys, and the messages under them. A channel lives from IKE_SA_INIT to the
 * end of the IKE SA; a rekeyed IKE SA has another.
 */
import { wipe } from '#base/bytes'
import type { Spi } from '#base/ids'
import type { CryptoProvider } from '#crypto/provider'
import { keyingLength } from '#crypto/suites'
import type { Association } from '#ikev2/association'
import type { IkeContext } from '#ikev2/context'
import type { ChildSa, IkeRole } from '#ikev2/events'
import type { ChildTerms } from '#ikev2/exchange/child'
import type { InitResult } from '#ikev2/exchange/init'
import { malformed, PeerFault, protocolFault } from '#ikev2/fault'
import { childKeys, type IkeSecrets, ikeSecrets, type Prf, prfOf, skeyseed } from '#ikev2/keys'
import { MessageKey } from '#ikev2/message/encrypted'
import { HEADER_LENGTH, type Header, type ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import type { AuthContext } from '#ikev2/proof'
import type { IkeSuite } from '#ikev2/proposal'

/** An authentic message, its payloads not yet decoded. */
export interface Opened {
  readonly firstPayload: number
  readonly plaintext: Uint8Array
}

export class Channel {
  readonly suite: IkeSuite
  readonly #role: IkeRole
  readonly #prf: Prf
  readonly #skD: Uint8Array
  readonly #sending: MessageKey
  readonly #receiving: MessageKey

  /** Takes over `secrets.skD`; the others are still the caller's to wipe. */
  constructor(crypto: CryptoProvider, suite: IkeSuite, role: IkeRole, secrets: IkeSecrets) {
    const { skD, skEi, skEr } = secrets
    const [own, peers] = role === 'initiator' ? [skEi, skEr] : [skEr, skEi]
    this.suite = suite
    this.#role = role
    this.#prf = prfOf(crypto, suite.prf)
    this.#skD = skD
    this.#sending = new MessageKey(crypto, suite.cipher, own)
    this.#receiving = new MessageKey(crypto, suite.cipher, peers)
  }

  /** The datagrams of a message: sealed once, and then repeated as they are. */
  seal(header: Header, payloads: readonly Payload[]): readonly Uint8Array[] {
    return [this.#sending.seal(header, payloads)]
  }

  /** @throws PeerFault, DecodeError when the datagram is no authentic message: nothing in it is to be believed. */
  open(header: ReceivedHeader, datagram: Uint8Array): Opened {
    const outer = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'message')
    const sk = outer.at(-1)
    if (sk?.kind === 'SKF')
      throw protocolFault('fragment', 'a fragment, and fragmentation was not negotiated')
    if (sk?.kind !== 'SK') throw malformed('the message is not encrypted')
    const plaintext = this.#receiving.open(datagram, sk.data.length)
    if (plaintext === undefined) throw new PeerFault('IPP_IKE_MALFORMED', 'icv', 'the ICV does not verify')
    return { firstPayload: sk.inner, plaintext }
  }

  /** The Child SA that an exchange with these nonces made. */
  childSa(inboundSpi: Spi, terms: ChildTerms, ni: Uint8Array, nr: Uint8Array): ChildSa {
    const { suite, outboundSpi, localSelectors, remoteSelectors } = terms
    const { initiatorToResponder, responderToInitiator } = childKeys(
      this.#prf,
      this.#skD,
      suite.cipher,
      ni,
      nr,
    )
    const [inboundKey, outboundKey] =
      this.#role === 'initiator'
        ? [responderToInitiator, initiatorToResponder]
        : [initiatorToResponder, responderToInitiator]
    return { ...suite, inboundSpi, outboundSpi, inboundKey, outboundKey, localSelectors, remoteSelectors }
  }

  destroy(): void {
    wipe(this.#skD)
    this.#sending.destroy()
    this.#receiving.destroy()
  }
}

/**
 * All keys of a new IKE SA, and what its AUTH payloads are made of. `initRequest` and `initResponse` are the two
 * datagrams as they travelled last. Wipes the shared secret, and SK_e once the channel has it.
 */
export function openChannel(
  { crypto, logKeys }: Pick<IkeContext, 'crypto' | 'logKeys'>,
  association: Association,
  initRequest: Uint8Array,
  initResponse: Uint8Array,
  result: InitResult,
): { readonly channel: Channel; readonly auth: AuthContext } {
  const { suite, ni, nr, sharedSecret, peerTakesEd25519 } = result
  const { id: sa, role, path, spiInitiator, spiResponder } = association
  const prf = prfOf(crypto, suite.prf)
  const seed = skeyseed(prf, sharedSecret, ni, nr)
  const lengths = { prf: suite.prfLength, encryption: keyingLength(suite.cipher) }
  const secrets = ikeSecrets(prf, seed, { ni, nr, spiInitiator, spiResponder }, lengths)
  wipe(seed, sharedSecret)
  const channel = new Channel(crypto, suite, role, secrets)
  const { skEi, skEr } = secrets
  logKeys?.({
    sa,
    path,
    spiInitiator,
    spiResponder,
    skEi: skEi.slice(),
    skEr: skEr.slice(),
    cipher: suite.cipher,
  })
  wipe(skEi, skEr)
  return {
    channel,
    auth: {
      prf,
      secrets,
      initRequest: initRequest.slice(),
      initResponse: initResponse.slice(),
      ni: ni.slice(),
      nr: nr.slice(),
      peerTakesEd25519,
    },
  }
}
