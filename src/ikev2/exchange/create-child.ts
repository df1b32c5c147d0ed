/**
 * CREATE_CHILD_SA (RFC 7296 section 1.3) as far as it renews what exists: a Child SA, or the IKE SA itself, each with
 * a key exchange of its own (perfect forward secrecy), and a second one in `follow-up.ts` where that is agreed. Only
 * what the messages say stands here; when they are sent and what follows, `children.ts` and `succession.ts` know.
 *
 *     either side                                   the other
 *     N(REKEY_SA) SA Nonce KE TSi TSr    --->                          a Child SA
 *                                        <---       SA Nonce KE TSi TSr
 *     SA Nonce KE                        --->                          the IKE SA; SPIs stand in the proposals
 *                                        <---       SA Nonce KE
 *                                        <---       ... N(ADDITIONAL_KEY_EXCHANGE)    and IKE_FOLLOWUP_KE is due
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
import {
  agree,
  type ChildKeying,
  checkNonce,
  invalidKe,
  type Keying,
  NONCE_LENGTH,
} from '#ikev2/exchange/key-exchange'
import { malformed, noProposal, protocolFault, tsUnacceptable } from '#ikev2/fault'
import { groupOf } from '#ikev2/groups'
import { isZeroSpi } from '#ikev2/message/header'
import { notify, type Payload } from '#ikev2/message/payload'
import type { Proposal } from '#ikev2/message/proposal'
import { find, need, notifies } from '#ikev2/message/registry'
import { NOTIFY, PROTOCOL } from '#ikev2/numbers'
import {
  acceptIke,
  chooseEspRekey,
  chooseIke,
  type IkeSuite,
  ikeRekeyProposals,
  rekeyGroups,
} from '#ikev2/proposal'
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
  readonly groups: readonly number[]
  /** Of the KE payload. */
  readonly group: number
  readonly keyPair: KeyPair
  readonly nonce: Uint8Array
}

export interface ChildRekeyed {
  readonly terms: ChildTerms
  readonly keying: ChildKeying
}

/** Asks for the selectors of `old`, no less and no more (RFC 7296 section 2.9.2). `like`: the suite of the IKE SA. */
export function childRekeyOffer(
  crypto: CryptoProvider,
  old: ChildSa,
  ciphers: readonly EspCipher[],
  inboundSpi: Spi,
  like: IkeSuite,
  group: number = like.group,
): ChildRekeyOffer {
  const { localSelectors, remoteSelectors } = old
  return {
    child: {
      inboundSpi,
      ciphers,
      like,
      requestAddress: false,
      localSelectors,
      remoteSelectors,
    },
    groups: rekeyGroups(like),
    group,
    ...fresh(crypto, group),
  }
}

export function childRekeyRequest(
  old: ChildSa,
  { child, group, keyPair, nonce }: ChildRekeyOffer,
): Payload[] {
  const [sa, ...selectors] = childRequest(child)
  return [
    aboutChild(NOTIFY.number.REKEY_SA, old.inboundSpi),
    sa!,
    { kind: 'Nonce', data: nonce },
    { kind: 'KE', group, data: keyPair.publicKey },
    ...selectors,
  ]
}

/** @throws PeerFault when the answer is anything else than what was asked for. */
export function readChildRekeyAnswer(
  crypto: CryptoProvider,
  offer: ChildRekeyOffer,
  payloads: readonly Payload[],
): ChildRekeyed {
  const terms = readChildAnswer(offer.child, payloads)
  const { group } = terms.suite
  const keying =
    group === undefined
      ? { ni: offer.nonce, nr: nonceOf(payloads) }
      : readKeying(crypto, offer, group, payloads)
  return { terms, keying }
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
  const begun = find(payloads, 'KE') !== undefined
  const { suite, proposal } = chooseEspRekey(need(payloads, 'SA').proposals, ciphers, begun)
  const outboundSpi = readSpi(proposal.spi)
  if (
    !covers(fromWire(need(payloads, 'TSi').selectors), remoteSelectors) ||
    !covers(fromWire(need(payloads, 'TSr').selectors), localSelectors)
  )
    throw tsUnacceptable('a rekey that would narrow the selectors')
  const { keying, exchange } =
    suite.group === undefined ? answerNonce(crypto, payloads) : answerKeying(crypto, suite.group, payloads)
  return {
    terms: { suite, outboundSpi, localSelectors, remoteSelectors },
    keying,
    payloads: [
      { kind: 'SA', proposals: [{ ...proposal, spi: spiBytes(inboundSpi) }] },
      { kind: 'Nonce', data: keying.nr },
      ...exchange,
      { kind: 'TSi', selectors: toWire(remoteSelectors) },
      { kind: 'TSr', selectors: toWire(localSelectors) },
    ],
  }
}

// ---------------------------------------------------------------------------------------------- the IKE SA

export interface IkeRekeyOffer {
  readonly spi: Uint8Array
  readonly groups: readonly number[]
  readonly proposals: readonly Proposal[]
  /** Of the KE payload. */
  readonly group: number
  readonly keyPair: KeyPair
  readonly nonce: Uint8Array
}

/** A new IKE SA as agreed; `peerSpi` is the other side's. */
export interface IkeRekeyed {
  readonly suite: IkeSuite
  readonly peerSpi: Uint8Array
  readonly keying: Keying
}

/** `like`: the suite of the IKE SA to be renewed. */
export const ikeRekeyOffer = (
  crypto: CryptoProvider,
  spi: Uint8Array,
  like: IkeSuite,
  group: number = like.group,
): IkeRekeyOffer => ({
  spi,
  proposals: ikeRekeyProposals(spi, like),
  groups: rekeyGroups(like),
  group,
  ...fresh(crypto, group),
})

export const ikeRekeyRequest = ({ proposals, group, keyPair, nonce }: IkeRekeyOffer): Payload[] => [
  { kind: 'SA', proposals },
  { kind: 'Nonce', data: nonce },
  { kind: 'KE', group, data: keyPair.publicKey },
]

/** @throws PeerFault when the answer is no use. */
export function readIkeRekeyAnswer(
  crypto: CryptoProvider,
  offer: IkeRekeyOffer,
  payloads: readonly Payload[],
): IkeRekeyed {
  const { suite, proposal } = acceptIke(offer.proposals, need(payloads, 'SA').proposals)
  const keying = readKeying(crypto, offer, suite.group, payloads)
  return { suite, peerSpi: checkIkeSpi(proposal.spi), keying }
}

/** @throws PeerFault whose notify is the answer; nothing has changed then. */
export function answerIkeRekey(
  crypto: CryptoProvider,
  spi: Uint8Array,
  payloads: readonly Payload[],
): IkeRekeyed & { readonly payloads: Payload[] } {
  const { suite, proposal } = chooseIke(need(payloads, 'SA').proposals, { rekey: true, hybrid: true })
  const peerSpi = checkIkeSpi(proposal.spi)
  const { keying, exchange } = answerKeying(crypto, suite.group, payloads)
  return {
    suite,
    peerSpi,
    keying,
    payloads: [
      { kind: 'SA', proposals: [{ ...proposal, spi }] },
      { kind: 'Nonce', data: keying.nr },
      ...exchange,
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
  group: number,
): { readonly keyPair: KeyPair; readonly nonce: Uint8Array } => ({
  keyPair: groupOf(group).generate(crypto),
  nonce: crypto.random(NONCE_LENGTH),
})

function readKeying(
  crypto: CryptoProvider,
  { group, keyPair, nonce: ni }: Pick<ChildRekeyOffer, 'group' | 'keyPair' | 'nonce'>,
  agreed: number,
  payloads: readonly Payload[],
): Keying {
  const ke = need(payloads, 'KE')
  if (agreed !== group || ke.group !== group)
    throw protocolFault('bad-ke', 'the key exchange is not of the group asked for')
  const nr = nonceOf(payloads)
  return { ni, nr, sharedSecret: agree(crypto, group, keyPair, ke.data) }
}

const nonceOf = (payloads: readonly Payload[]): Uint8Array => checkNonce(need(payloads, 'Nonce').data).slice()

/** Where no key exchange is agreed, a KE payload is a guess that was wrong (RFC 7296 section 1.3.1). */
const answerNonce = (
  crypto: CryptoProvider,
  payloads: readonly Payload[],
): { readonly keying: ChildKeying; readonly exchange: Payload[] } => ({
  keying: { ni: nonceOf(payloads), nr: crypto.random(NONCE_LENGTH) },
  exchange: [],
})

function answerKeying(
  crypto: CryptoProvider,
  group: number,
  payloads: readonly Payload[],
): { readonly keying: Keying; readonly exchange: Payload[] } {
  const ke = find(payloads, 'KE')
  if (ke?.group !== group) throw invalidKe(group)
  const ni = nonceOf(payloads)
  const { keyPair, nonce: nr } = fresh(crypto, group)
  const sharedSecret = agree(crypto, group, keyPair, ke.data)
  wipe(keyPair.privateKey)
  const exchange: Payload[] = [{ kind: 'KE', group, data: keyPair.publicKey }]
  return { keying: { ni, nr, sharedSecret }, exchange }
}

function checkIkeSpi(spi: Uint8Array): Uint8Array {
  if (isZeroSpi(spi)) throw noProposal('the new IKE SA has no SPI')
  return spi.slice()
}
