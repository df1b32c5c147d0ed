/**
 * CREATE_CHILD_SA (RFC 7296 section 1.3) as far as it renews what exists: a Child SA, or the IKE SA itself, each with
 * a key exchange of its own (perfect forward secrecy). Only what the messages say stands here; when they are sent and
 * what follows, `children.ts` and `succession.ts` know.
 *
 *     either side                                   the other
 *     N(REKEY_SA) SA Nonce KE TSi TSr    --->                          a Child SA
 *                                        <---       SA Nonce KE TSi TSr
 *     SA Nonce KE                        --->                          the IKE SA; SPIs stand in the proposals
 *                                        <---       SA Nonce KE
 *                                        <---       or N(TEMPORARY_FAILURE), N(CHILD_SA_NOT_FOUND), ...
 *
 * An IKE SA of ours has the one Child SA it was made for: a second one is refused (NO_ADDITIONAL_SAS).
 */
import { wipe } from '#base/bytes'
import type { Spi } from '#base/ids'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import type { EspCipher } from '#crypto/suites'
import type { ChildSa } from '#ikev2/events'
import {
  type ChildOffer,
  type ChildTerms,
  childRequest,
  readChildAnswer,
  readSpi,
  spiBytes,
} from '#ikev2/exchange/child'
import { agree, checkNonce, invalidKe, type Keying, NONCE_LENGTH } from '#ikev2/exchange/key-exchange'
import { malformed, noProposal, protocolFault, tsUnacceptable } from '#ikev2/fault'
import { ACCEPTED_GROUPS, groupOf } from '#ikev2/groups'
import { isZeroSpi } from '#ikev2/message/header'
import { notify, type Payload } from '#ikev2/message/payload'
import { need, notifies } from '#ikev2/message/registry'
import { NOTIFY, PROTOCOL } from '#ikev2/numbers'
import { acceptIke, chooseEsp, chooseIke, IKE_GROUPS, type IkeSuite, ikeProposals } from '#ikev2/proposal'
import { covers, fromWire, toWire } from '#ikev2/selectors'
import { Reader } from '#wire/cursor'

/** What a request wants. `outboundSpi` is how the peer names the Child SA: its inbound, our outbound SPI. */
export type Wish =
  | { readonly kind: 'rekey child'; readonly outboundSpi: Spi }
  | { readonly kind: 'rekey ike' }
  | { readonly kind: 'new child' }

/** @throws PeerFault INVALID_SYNTAX for a REKEY_SA that cannot name a Child SA. */
export function readWish(payloads: readonly Payload[]): Wish {
  for (const { protocol, spi } of notifies(payloads, NOTIFY.number.REKEY_SA)) {
    if (protocol !== PROTOCOL.number.ESP || spi.length !== 4)
      throw malformed(`REKEY_SA for ${PROTOCOL.nameOf(protocol)} with an SPI of ${spi.length} octets`)
    return { kind: 'rekey child', outboundSpi: new Reader(spi).u32() as Spi }
  }
  const isIke = need(payloads, 'SA').proposals.some(({ protocol }) => protocol === PROTOCOL.number.IKE)
  return { kind: isIke ? 'rekey ike' : 'new child' }
}

export const temporaryFailure = (): Payload[] => [notify(NOTIFY.number.TEMPORARY_FAILURE)]
export const noAdditionalSas = (): Payload[] => [notify(NOTIFY.number.NO_ADDITIONAL_SAS)]

/** RFC 7296 section 2.25.1; the notify names the SA that was not found. */
export const childNotFound = (outboundSpi: Spi): Payload[] => [
  aboutChild(NOTIFY.number.CHILD_SA_NOT_FOUND, outboundSpi),
]

// ---------------------------------------------------------------------------------------------- a Child SA

/** What the requesting side keeps until it is answered. */
export interface ChildRekeyOffer {
  readonly child: ChildOffer
  readonly keyPair: KeyPair
  readonly nonce: Uint8Array
}

export interface ChildRekeyed {
  readonly terms: ChildTerms
  readonly keying: Keying
}

/** Asks for the selectors of `old`, no less and no more (RFC 7296 section 2.9.2). */
export function childRekeyOffer(
  crypto: CryptoProvider,
  old: ChildSa,
  ciphers: readonly EspCipher[],
  inboundSpi: Spi,
): ChildRekeyOffer {
  const { localSelectors, remoteSelectors } = old
  return {
    child: {
      inboundSpi,
      ciphers,
      groups: IKE_GROUPS,
      requestAddress: false,
      localSelectors,
      remoteSelectors,
    },
    ...fresh(crypto),
  }
}

export function childRekeyRequest(old: ChildSa, { child, keyPair, nonce }: ChildRekeyOffer): Payload[] {
  const [sa, ...selectors] = childRequest(child)
  return [
    aboutChild(NOTIFY.number.REKEY_SA, old.inboundSpi),
    sa!,
    { kind: 'Nonce', data: nonce },
    { kind: 'KE', group: IKE_GROUPS[0]!, data: keyPair.publicKey },
    ...selectors,
  ]
}

/** @throws PeerFault when the answer is anything else than what was asked for. */
export function readChildRekeyAnswer(
  crypto: CryptoProvider,
  { child, keyPair, nonce }: ChildRekeyOffer,
  payloads: readonly Payload[],
): ChildRekeyed {
  const terms = readChildAnswer(child, payloads)
  return { terms, keying: readKeying(crypto, keyPair, nonce, terms.suite.group, payloads) }
}

/** @throws PeerFault whose notify is the answer; nothing has changed then. */
export function answerChildRekey(
  crypto: CryptoProvider,
  old: ChildSa,
  ciphers: readonly EspCipher[],
  inboundSpi: Spi,
  payloads: readonly Payload[],
): ChildRekeyed & { readonly payloads: Payload[] } {
  const { localSelectors, remoteSelectors } = old
  const { suite, proposal } = chooseEsp(need(payloads, 'SA').proposals, ciphers, ACCEPTED_GROUPS)
  const outboundSpi = readSpi(proposal.spi)
  if (
    !covers(fromWire(need(payloads, 'TSi').selectors), remoteSelectors) ||
    !covers(fromWire(need(payloads, 'TSr').selectors), localSelectors)
  )
    throw tsUnacceptable('a rekey that would narrow the selectors')
  const { keying, publicKey } = answerKeying(crypto, suite.group!, payloads)
  return {
    terms: { suite, outboundSpi, localSelectors, remoteSelectors },
    keying,
    payloads: [
      { kind: 'SA', proposals: [{ ...proposal, spi: spiBytes(inboundSpi) }] },
      { kind: 'Nonce', data: keying.nr },
      { kind: 'KE', group: suite.group!, data: publicKey },
      { kind: 'TSi', selectors: toWire(remoteSelectors) },
      { kind: 'TSr', selectors: toWire(localSelectors) },
    ],
  }
}

// ---------------------------------------------------------------------------------------------- the IKE SA

export interface IkeRekeyOffer {
  readonly spi: Uint8Array
  readonly keyPair: KeyPair
  readonly nonce: Uint8Array
}

/** A new IKE SA as agreed; `peerSpi` is the other side's. */
export interface IkeRekeyed {
  readonly suite: IkeSuite
  readonly peerSpi: Uint8Array
  readonly keying: Keying
}

export const ikeRekeyOffer = (crypto: CryptoProvider, spi: Uint8Array): IkeRekeyOffer => ({
  spi,
  ...fresh(crypto),
})

export const ikeRekeyRequest = ({ spi, keyPair, nonce }: IkeRekeyOffer): Payload[] => [
  { kind: 'SA', proposals: ikeProposals({ spi }) },
  { kind: 'Nonce', data: nonce },
  { kind: 'KE', group: IKE_GROUPS[0]!, data: keyPair.publicKey },
]

/** @throws PeerFault when the answer is no use. */
export function readIkeRekeyAnswer(
  crypto: CryptoProvider,
  { spi, keyPair, nonce }: IkeRekeyOffer,
  payloads: readonly Payload[],
): IkeRekeyed {
  const { suite, proposal } = acceptIke(ikeProposals({ spi }), need(payloads, 'SA').proposals)
  const keying = readKeying(crypto, keyPair, nonce, suite.group, payloads)
  return { suite, peerSpi: checkIkeSpi(proposal.spi), keying }
}

/** @throws PeerFault whose notify is the answer; nothing has changed then. */
export function answerIkeRekey(
  crypto: CryptoProvider,
  spi: Uint8Array,
  payloads: readonly Payload[],
): IkeRekeyed & { readonly payloads: Payload[] } {
  const { suite, proposal } = chooseIke(need(payloads, 'SA').proposals, { rekey: true })
  const peerSpi = checkIkeSpi(proposal.spi)
  const { keying, publicKey } = answerKeying(crypto, suite.group, payloads)
  return {
    suite,
    peerSpi,
    keying,
    payloads: [
      { kind: 'SA', proposals: [{ ...proposal, spi }] },
      { kind: 'Nonce', data: keying.nr },
      { kind: 'KE', group: suite.group, data: publicKey },
    ],
  }
}

// ---------------------------------------------------------------------------------------------- pieces

const aboutChild = (type: number, inboundSpi: Spi): Payload => ({
  kind: 'Notify',
  protocol: PROTOCOL.number.ESP,
  spi: spiBytes(inboundSpi),
  type,
  data: new Uint8Array(0),
})

const fresh = (
  crypto: CryptoProvider,
  group: number = IKE_GROUPS[0]!,
): { readonly keyPair: KeyPair; readonly nonce: Uint8Array } => ({
  keyPair: groupOf(group).generate(crypto),
  nonce: crypto.random(NONCE_LENGTH),
})

function readKeying(
  crypto: CryptoProvider,
  keyPair: KeyPair,
  ni: Uint8Array,
  group: number | undefined,
  payloads: readonly Payload[],
): Keying {
  const ke = need(payloads, 'KE')
  if (group === undefined || ke.group !== group)
    throw protocolFault('bad-ke', 'the key exchange is not of the group asked for')
  const nr = checkNonce(need(payloads, 'Nonce').data).slice()
  return { ni, nr, sharedSecret: agree(crypto, group, keyPair, ke.data) }
}

function answerKeying(
  crypto: CryptoProvider,
  group: number,
  payloads: readonly Payload[],
): { readonly keying: Keying; readonly publicKey: Uint8Array } {
  const ke = need(payloads, 'KE')
  if (ke.group !== group) throw invalidKe(group)
  const ni = checkNonce(need(payloads, 'Nonce').data).slice()
  const { keyPair, nonce: nr } = fresh(crypto, group)
  const sharedSecret = agree(crypto, group, keyPair, ke.data)
  wipe(keyPair.privateKey)
  return { keying: { ni, nr, sharedSecret }, publicKey: keyPair.publicKey }
}

function checkIkeSpi(spi: Uint8Array): Uint8Array {
  if (isZeroSpi(spi)) throw noProposal('the new IKE SA has no SPI')
  return spi.slice()
}
