import { IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { isErrno, Netlink } from '#linux/netlink'
import { decodeRoute, encodeRouteQuery, RTM } from '#wire/netlink/route'

/**
 * The address this host would speak from towards `destination`.
 * @throws IpprivError IPP_HOST_ROUTE when there is no route, IPP_HOST_NETLINK
 */
export async function sourceTowards(destination: Ip): Promise<Ip> {
  const netlink = new Netlink('route')
  try {
    const request = {
      name: `GETROUTE ${destination}`,
      type: RTM.getRoute,
      payload: encodeRouteQuery(destination),
    }
    const source = decodeRoute((await netlink.get(request)).payload)?.source
    if (source === undefined) throw new IpprivError('IPP_HOST_ROUTE', destination)
    return source
  } catch (error) {
    if (!isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH')) throw error
    throw new IpprivError('IPP_HOST_ROUTE', destination, { cause: error })
  } finally {
    netlink.close()
  }
}
