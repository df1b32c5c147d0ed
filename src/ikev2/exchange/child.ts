/**
 * What makes a Child SA inside an exchange: `[CP] SA TSi TSr` (RFC 7296 sections 1.2, 2.9, 2.19).
 * The keys are not its business: they follow from the exchange around it.
 */
import type { IkeSaId, Spi } from '#base/ids'
import { SPI_MIN } from '#base/ids'
import type { Ip, UdpPath } from '#base/ip'
import type { EspCipher } from '#crypto/suites'
import { ANY_SELECTOR, type PeerIdentity, type ResponderPolicy, type TrafficSelector } from '#ikev2/events'
import {
  addressReply,
  addressRequest,
  checkAddressRequest,
  noAddressLeft,
  readAddress,
} from '#ikev2/exchange/configuration'
import { faultOfNotify, noProposal, tsUnacceptable } from '#ikev2/fault'
import type { Payload } from '#ikev2/message/payload'
import type { Proposal } from '#ikev2/message/proposal'
import { errorNotify, need } from '#ikev2/message/registry'
import {
  acceptEsp,
  chooseEsp,
  type EspSuite,
  espProposals,
  espRekeyProposals,
  type IkeSuite,
} from '#ikev2/proposal'
import { allFromWire, covers, fromWire, hostSelector, sameSelectors, toWire } from '#ikev2/selectors'
import { Reader, Writer } from '#wire/cursor'

/** What an initiator asks for. */
export interface ChildOffer {
  readonly inboundSpi: Spi
  readonly ciphers: readonly EspCipher[]
  readonly requestAddress: boolean
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  /** Of the IKE SA, in CREATE_CHILD_SA: what the key exchange is made of. In IKE_AUTH there is none. */
  readonly like?: IkeSuite
}

/** What was agreed, as this side sees it. */
export interface ChildTerms {
  readonly suite: EspSuite
  readonly outboundSpi: Spi
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  readonly leased?: Ip
}

export function childRequest(offer: ChildOffer): Payload[] {
  return [
    ...(offer.requestAddress ? [addressRequest()] : []),
    { kind: 'SA', proposals: proposalsOf(offer) },
    { kind: 'TSi', selectors: toWire(offer.localSelectors) },
    { kind: 'TSr', selectors: toWire(offer.remoteSelectors) },
  ]
}

/** Checks that the answer is exactly what was asked for. @throws PeerFault when it is anything else. */
export function readChildAnswer(offer: ChildOffer, payloads: readonly Payload[]): ChildTerms {
  const error = errorNotify(payloads)
  if (error !== undefined) throw faultOfNotify(error.type)
  const { suite, proposal } = acceptEsp(proposalsOf(offer), need(payloads, 'SA').proposals)
  const leased = offer.requestAddress ? readAddress(payloads) : undefined
  const localSelectors = leased === undefined ? offer.localSelectors : [hostSelector(leased)]
  const { remoteSelectors } = offer
  const tsi = allFromWire(need(payloads, 'TSi').selectors)
  const tsr = allFromWire(need(payloads, 'TSr').selectors)
  if (tsi === undefined || !sameSelectors(tsi, localSelectors))
    throw tsUnacceptable('TSi is not what was asked for')
  if (tsr === undefined || !sameSelectors(tsr, remoteSelectors))
    throw tsUnacceptable('TSr is not what was asked for')
  return {
    suite,
    outboundSpi: readSpi(proposal.spi),
    localSelectors,
    remoteSelectors,
    ...(leased === undefined ? {} : { leased }),
  }
}

/**
 * A responder's answer to an authenticated peer. The lease is taken last, so a refusal costs no address.
 * @throws PeerFault whose notify belongs into the answer beside a valid AUTH.
 */
export function answerChild(
  policy: ResponderPolicy,
  request: { readonly sa: IkeSaId; readonly path: UdpPath; readonly peer: PeerIdentity },
  inboundSpi: Spi,
  payloads: readonly Payload[],
): { readonly terms: ChildTerms; readonly payloads: Payload[] } {
  const { suite, proposal } = chooseEsp(need(payloads, 'SA').proposals, policy.espCiphers)
  const outboundSpi = readSpi(proposal.spi)
  const proposedRemote = fromWire(need(payloads, 'TSi').selectors)
  const proposedLocal = fromWire(need(payloads, 'TSr').selectors)
  const { leased, localSelectors, remoteSelectors } =
    request.peer.kind === 'none'
      ? lend(policy, request, payloads, proposedLocal, proposedRemote)
      : { leased: undefined, ...narrow(policy, request.peer, proposedLocal, proposedRemote) }
  return {
    terms: {
      suite,
      outboundSpi,
      localSelectors,
      remoteSelectors,
      ...(leased === undefined ? {} : { leased }),
    },
    payloads: [
      ...(leased === undefined ? [] : [addressReply(leased)]),
      { kind: 'SA', proposals: [{ ...proposal, spi: spiBytes(inboundSpi) }] },
      { kind: 'TSi', selectors: toWire(remoteSelectors) },
      { kind: 'TSr', selectors: toWire(localSelectors) },
    ],
  }
}

const proposalsOf = ({ ciphers, inboundSpi, like }: ChildOffer): Proposal[] =>
  like === undefined
    ? espProposals(ciphers, spiBytes(inboundSpi))
    : espRekeyProposals(ciphers, spiBytes(inboundSpi), like)

export const spiBytes = (spi: Spi): Uint8Array => new Writer(4).u32(spi).finish()

interface Narrowed {
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
}

/** A peer with a key gets what its owner says, and never more than it proposed. */
function narrow(
  policy: ResponderPolicy,
  peer: Extract<PeerIdentity, { kind: 'key' }>,
  proposedLocal: readonly TrafficSelector[],
  proposedRemote: readonly TrafficSelector[],
): Narrowed {
  const granted = policy.selectorsFor(peer.id, proposedLocal, proposedRemote)
  if (
    granted === undefined ||
    !covers(proposedLocal, granted.local) ||
    !covers(proposedRemote, granted.remote)
  )
    throw tsUnacceptable('the proposed selectors do not cover what this peer gets')
  return { localSelectors: granted.local, remoteSelectors: granted.remote }
}

/** Nobody gets an address of ours, and exactly lease <-> any (RFC 7619 section 2.5). */
function lend(
  policy: ResponderPolicy,
  request: { readonly sa: IkeSaId; readonly path: UdpPath },
  payloads: readonly Payload[],
  proposedLocal: readonly TrafficSelector[],
  proposedRemote: readonly TrafficSelector[],
): Narrowed & { readonly leased: Ip } {
  checkAddressRequest(payloads)
  if (!covers(proposedLocal, [ANY_SELECTOR]) || !covers(proposedRemote, [ANY_SELECTOR]))
    throw tsUnacceptable('a nobody proposes any <-> any')
  const leased = policy.lease(request.sa, request.path)
  if (leased === undefined) throw noAddressLeft()
  return { leased, localSelectors: [ANY_SELECTOR], remoteSelectors: [hostSelector(leased)] }
}

/** @throws PeerFault */
export function readSpi(spi: Uint8Array): Spi {
  const value = new Reader(spi).u32()
  if (value < SPI_MIN) throw noProposal('a reserved SPI')
  return value as Spi
}
