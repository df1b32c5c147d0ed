/**
 * Configuration payloads (RFC 7296 sections 2.19 and 3.15): the address that an initiator asks for, and is lent.
 *
 *     CP(CFG_REQUEST): INTERNAL_IP4_ADDRESS() --->
 *                                         <---   CP(CFG_REPLY): INTERNAL_IP4_ADDRESS(10.64.0.9)
 *
 * Tunnels carry IPv4, so no IPv6 address is ever lent: who asks for both kinds gets the one, who asks for IPv6 alone gets
 * INTERNAL_ADDRESS_FAILURE. Whatever else is asked for (DNS, netmasks, subnets) is left out, as section 3.15 has it.
 */
import { bytesToIp, type Ip, ipToBytes, ipToUint32 } from '#base/ip'
import type { Refusal } from '#ikev2/counters'
import { PeerFault } from '#ikev2/fault'
import type { Payload } from '#ikev2/message/payload'
import { find } from '#ikev2/message/registry'
import { CP_ATTRIBUTE, CP_TYPE, NOTIFY } from '#ikev2/numbers'

const { number } = CP_ATTRIBUTE

export function addressRequest(): Payload {
  const attributes = [{ type: number.INTERNAL_IP4_ADDRESS, data: new Uint8Array(0) }]
  return { kind: 'CP', type: CP_TYPE.number.REQUEST, attributes }
}

/** @throws PeerFault unless the request has a CP that asks for an address of the kind there is */
export function checkAddressRequest(payloads: readonly Payload[]): void {
  const cp = find(payloads, 'CP')
  const asks = (type: number): boolean =>
    cp?.type === CP_TYPE.number.REQUEST && cp.attributes.some((attribute) => attribute.type === type)
  if (asks(number.INTERNAL_IP4_ADDRESS)) return
  if (asks(number.INTERNAL_IP6_ADDRESS))
    throw addressFault('no-address', 'IPv6 alone is asked for', NOTIFY.number.INTERNAL_ADDRESS_FAILURE)
  throw addressFault('no-cp', 'a nobody that asks for no address', NOTIFY.number.FAILED_CP_REQUIRED)
}

export const addressReply = (leased: Ip): Payload => ({
  kind: 'CP',
  type: CP_TYPE.number.REPLY,
  attributes: [{ type: number.INTERNAL_IP4_ADDRESS, data: ipToBytes(leased) }],
})

export const noAddressLeft = (): PeerFault =>
  addressFault('no-address', 'no address is left to lend', NOTIFY.number.INTERNAL_ADDRESS_FAILURE)

/**
 * The one address of the answer. DNS and whatever else it offers is not asked for and not looked at.
 * @throws PeerFault when it is anything but one IPv4 address that a host can have
 */
export function readAddress(payloads: readonly Payload[]): Ip {
  const cp = find(payloads, 'CP')
  if (cp?.type !== CP_TYPE.number.REPLY) throw addressRefused('no configuration reply')
  const of = (type: number): Uint8Array[] =>
    cp.attributes.filter((attribute) => attribute.type === type).map(({ data }) => data)
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

const addressRefused = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_ADDRESS_REFUSED', 'bad-lease', detail)

const addressFault = (counter: Refusal, detail: string, type: number): PeerFault =>
  new PeerFault('IPP_IKE_ADDRESS_REFUSED', counter, detail, { type })
