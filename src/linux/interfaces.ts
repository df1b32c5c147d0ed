/** Network devices and their addresses, by rtnetlink. */

import { IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { isErrno, Netlink } from '#linux/netlink'
import { NLM_F } from '#wire/netlink/message'
import type { InterfaceAddress, Link } from '#wire/netlink/route'
import {
  decodeAddress,
  decodeLink,
  encodeAddress,
  encodeAddressDump,
  encodeLink,
  encodeLinkKey,
  IFF,
  RT_SCOPE,
  RTM,
} from '#wire/netlink/route'

/** The device of that name, or undefined. */
export async function findLink(netlink: Netlink, name: string): Promise<Link | undefined> {
  try {
    const request = { name: `GETLINK ${name}`, type: RTM.getLink, payload: encodeLinkKey({ name }) }
    return decodeLink((await netlink.get(request)).payload)
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return undefined
    throw error
  }
}

/** The device of that index, or undefined. */
export async function linkAt(netlink: Netlink, index: number): Promise<Link | undefined> {
  try {
    const request = { name: `GETLINK #${index}`, type: RTM.getLink, payload: encodeLinkKey({ index }) }
    return decodeLink((await netlink.get(request)).payload)
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return undefined
    throw error
  }
}

/**
 * A fresh dummy device, up. One of that name that a predecessor left is replaced; any other device of that
 * name is not touched.
 * @throws IpprivError IPP_HOST_KERNEL when the kernel has no dummy driver, IPP_HOST_NETLINK
 */
export async function createDummy(netlink: Netlink, name: string, mtu: number): Promise<Link> {
  await deleteDummy(netlink, name)
  try {
    await netlink.request({
      name: `NEWLINK ${name} type dummy`,
      type: RTM.newLink,
      flags: NLM_F.create | NLM_F.excl,
      payload: encodeLink(0, {
        name,
        mtu,
        kind: 'dummy',
        flags: IFF.up | IFF.noArp,
        flagMask: IFF.up | IFF.noArp,
      }),
    })
  } catch (error) {
    if (isErrno(error, 'EOPNOTSUPP', 'ENOTSUP'))
      throw new IpprivError('IPP_HOST_KERNEL', `no driver for dummy device ${name}`, { cause: error })
    throw error
  }
  const link = await findLink(netlink, name)
  if (!link) throw new IpprivError('IPP_HOST_NETLINK', `device ${name} vanished`)
  return link
}

/** Removes the dummy device of that name, if there is one. Another kind of device of that name stays. */
export async function deleteDummy(netlink: Netlink, name: string): Promise<void> {
  const link = await findLink(netlink, name)
  if (link?.kind !== 'dummy') return
  try {
    await netlink.request({
      name: `DELLINK ${name}`,
      type: RTM.deleteLink,
      payload: encodeLinkKey({ index: link.index }),
    })
  } catch (error) {
    if (!isErrno(error, 'ENODEV')) throw error
  }
}

/** Every IPv4 address of this network namespace. */
export async function listAddresses(netlink: Netlink): Promise<readonly InterfaceAddress[]> {
  const request = { name: 'GETADDR', type: RTM.getAddress, payload: encodeAddressDump() }
  const messages = await netlink.dump(request)
  return messages
    .filter(({ type }) => type === RTM.newAddress)
    .map(({ payload }) => decodeAddress(payload))
    .filter((address) => address !== undefined)
}

/** Adds a /32. Harmless when it is there. */
export async function addAddress(netlink: Netlink, link: Link, address: Ip): Promise<void> {
  try {
    await netlink.request({
      name: `NEWADDR ${address} dev ${link.name}`,
      type: RTM.newAddress,
      flags: NLM_F.create | NLM_F.excl,
      payload: encodeAddress(hostAddress(link.index, address)),
    })
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
  }
}

/** Removes a /32. Harmless when it, or its device, is gone. */
export async function removeAddress(netlink: Netlink, index: number, address: Ip): Promise<void> {
  try {
    await netlink.request({
      name: `DELADDR ${address}`,
      type: RTM.deleteAddress,
      payload: encodeAddress(hostAddress(index, address)),
    })
  } catch (error) {
    if (!isErrno(error, 'EADDRNOTAVAIL', 'ENODEV')) throw error
  }
}

/**
 * The device that holds a public address of ours.
 * @throws IpprivError IPP_HOST_ADDRESS when no device of this host has it.
 */
export async function requireLocalAddress(address: Ip): Promise<Link> {
  const netlink = new Netlink('route')
  try {
    const found = (await listAddresses(netlink)).find((entry) => entry.address === address)
    const link = found && (await linkAt(netlink, found.index))
    if (!link) throw new IpprivError('IPP_HOST_ADDRESS', address)
    return link
  } finally {
    netlink.close()
  }
}

const hostAddress = (index: number, address: Ip): InterfaceAddress => ({
  index,
  address,
  prefixLength: 32,
  scope: RT_SCOPE.universe,
})
