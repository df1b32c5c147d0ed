/**
 * What makes a Child SA inside an exchange: `[CP] SA TSi TSr` (RFC 7296 sections 1.2, 2.9, 2.19).
 * The keys are not its business: they follow from the exchange around it.
 */
import type { IkeSaId, Spi } from '#base/ids'
import { SPI_MIN } from '#base/ids'
import { bytesToIp, type Ip, ipToBytes, ipToUint32, type UdpPath } from '#base/ip'
import type { EspCipher } from '#crypto/suites'
import type { Refusal } from '#ikev2/counters'
import { ANY_SELECTOR, type PeerIdentity, type ResponderPolicy, type TrafficSelector } from '#ikev2/events'
import { faultOfNotify, noProposal, PeerFault, tsUnacceptable } from '#ikev2/fault'
import type { Payload, Proposal } from '#ikev2/message/payload'
import { errorNotify, find, need } from '#ikev2/message/registry'
import { CP_ATTRIBUTE, CP_TYPE, NOTIFY } from '#ikev2/numbers'
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
  const address: Payload = {
    kind: 'CP',
    type: CP_TYPE.number.REQUEST,
    attributes: [{ type: CP_ATTRIBUTE.number.INTERNAL_IP4_ADDRESS, data: new Uint8Array(0) }],
  }
  return [
    ...(offer.requestAddress ? [address] : []),
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
  const leased = offer.requestAddress ? readLease(payloads) : undefined
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
      ...(leased === undefined ? [] : [leaseReply(leased)]),
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
  const cp = find(payloads, 'CP')
  const asks = cp?.attributes.some(({ type }) => type === CP_ATTRIBUTE.number.INTERNAL_IP4_ADDRESS)
  if (cp?.type !== CP_TYPE.number.REQUEST || !asks)
    throw addressFault('no-cp', 'a nobody that asks for no address', NOTIFY.number.FAILED_CP_REQUIRED)
  if (!covers(proposedLocal, [ANY_SELECTOR]) || !covers(proposedRemote, [ANY_SELECTOR]))
    throw tsUnacceptable('a nobody proposes any <-> any')
  const leased = policy.lease(request.sa, request.path)
  if (leased === undefined)
    throw addressFault('no-address', 'no address is left to lend', NOTIFY.number.INTERNAL_ADDRESS_FAILURE)
  return { leased, localSelectors: [ANY_SELECTOR], remoteSelectors: [hostSelector(leased)] }
}

const leaseReply = (leased: Ip): Payload => ({
  kind: 'CP',
  type: CP_TYPE.number.REPLY,
  attributes: [{ type: CP_ATTRIBUTE.number.INTERNAL_IP4_ADDRESS, data: ipToBytes(leased) }],
})

/** The one address of the answer. DNS and whatever else it offers is not asked for and not looked at. */
function readLease(payloads: readonly Payload[]): Ip {
  const cp = find(payloads, 'CP')
  if (cp?.type !== CP_TYPE.number.REPLY) throw addressRefused('no configuration reply')
  const of = (type: number): Uint8Array[] =>
    cp.attributes.filter((attribute) => attribute.type === type).map(({ data }) => data)
  const { number } = CP_ATTRIBUTE
  const [address, ...others] = of(number.INTERNAL_IP4_ADDRESS)
  if (address?.length !== 4 || others.length > 0) throw addressRefused('not exactly one IPv4 address')
  if (of(number.INTERNAL_IP6_ADDRESS).length > 0) throw addressRefused('an IPv6 address nobody asked for')
  if (
    of(number.INTERNAL_IP4_NETMASK).some((mask) => mask.length !== 4 || mask.some((octet) => octet !== 255))
  )
    throw addressRefused('a netmask wider than the address')
  const leased = bytesToIp(address)
  if (!isUnicast(leased)) throw addressRefused('not an address a host can have')
  return leased
}

/** Not "this network", loopback, multicast or reserved. Whether it is in the right pool, the overlay knows. */
function isUnicast(address: Ip): boolean {
  const first = ipToUint32(address) >>> 24
  return first !== 0 && first !== 127 && first < 224
}

/** @throws PeerFault */
export function readSpi(spi: Uint8Array): Spi {
  const value = new Reader(spi).u32()
  if (value < SPI_MIN) throw noProposal('a reserved SPI')
  return value as Spi
}

const addressRefused = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_ADDRESS_REFUSED', 'bad-lease', detail)

const addressFault = (counter: Refusal, detail: string, type: number): PeerFault =>
  new PeerFault('IPP_IKE_ADDRESS_REFUSED', counter, detail, { type })
