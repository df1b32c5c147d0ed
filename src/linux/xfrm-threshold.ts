/**
 * From which lengths of prefixes on the kernel finds policies by a hash, and not by a walk along all of them. Each
 * network namespace has its own.
 */

import { IpprivError } from '#base/errors'
import type { Netlink } from '#linux/netlink'
import type { HashThreshold } from '#wire/netlink/xfrm'
import { decodeSpdInfo, encodeHashThreshold, encodeInfoRequest, XFRM_MSG } from '#wire/netlink/xfrm'

/** The kernel hashes only policies between single hosts by default; ours are single host <-> anywhere. */
export const HASH_THRESHOLD: HashThreshold = { local: 0, remote: 32 }

/** @throws NetlinkError; IpprivError IPP_HOST_NETLINK for an answer that is none */
export async function readHashThreshold(xfrm: Netlink): Promise<HashThreshold> {
  const name = 'GETSPDINFO'
  const { payload } = await xfrm.get({ name, type: XFRM_MSG.getSpdInfo, payload: encodeInfoRequest() })
  const info = decodeSpdInfo(payload)
  if (info === undefined) throw new IpprivError('IPP_HOST_NETLINK', `${name}: not understood`)
  return info.hashThreshold
}

/** The kernel hashes anew, in its own time. @throws NetlinkError */
export async function setHashThreshold(xfrm: Netlink, threshold: HashThreshold): Promise<void> {
  const name = `hash threshold ${threshold.local} ${threshold.remote}`
  await xfrm.request({ name, type: XFRM_MSG.newSpdInfo, payload: encodeHashThreshold(threshold) })
}
