/**
 * The address this host has outside the telescope, and when it is another one: a laptop that changes networks.
 *
 * Looked at every second rather than told by the kernel: it is one call, and a network that comes up brings a burst
 * of messages anyway. A new address counts when two looks in a row find it, since its routes come one by one.
 */
import { networkInterfaces } from 'node:os'
import { errorLine } from '#base/errors'
import { contains, type Ip } from '#base/ip'
import { listAddresses } from '#linux/interfaces'
import { Netlink } from '#linux/netlink'
import {
  decodeRoute,
  encodeRouteDump,
  RT_SCOPE,
  RT_TABLE_MAIN,
  RT_TYPE,
  RTM,
  RTPROT_IPPRIV,
} from '#wire/netlink/route'

/** Milliseconds from look to look. */
const INTERVAL = 1000

export interface UnderlayOptions {
  /** Where the host must be able to go, past every route of ours. */
  readonly target: Ip
  readonly self: Ip
  /** Our address is another one; or the one we had was gone for a while, and what led through it has to be renewed. */
  onMove(self: Ip): void
  onError(line: string): void
}

export class Underlay {
  readonly #options: UnderlayOptions
  readonly #timer: NodeJS.Timeout
  #self: Ip
  /** What the last look found in place of `self`; null while `self` is there. */
  #seen: Ip | undefined | null = null
  #isLooking = false

  /** Looks until `end`. */
  constructor(options: UnderlayOptions) {
    this.#options = options
    this.#self = options.self
    this.#timer = setInterval(() => void this.#look(), INTERVAL)
  }

  end(): void {
    clearInterval(this.#timer)
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return
    this.#isLooking = true
    try {
      const isHere = hasAddress(this.#self)
      if (isHere && this.#seen === null) return
      const found = isHere ? this.#self : await sourceBeneath(this.#options.target)
      const before = this.#seen
      this.#seen = found
      if (found === undefined || found !== before) return
      this.#seen = null
      this.#self = found
      this.#options.onMove(found)
    } catch (error) {
      this.#options.onError(errorLine(error))
    } finally {
      this.#isLooking = false
    }
  }
}

/** On a device that is up. */
const hasAddress = (address: Ip): boolean =>
  Object.values(networkInterfaces()).some((list) => list?.some((each) => each.address === address))

/** The address this host would speak from towards `target` if no route of ours were there; undefined: it could not. */
async function sourceBeneath(target: Ip): Promise<Ip | undefined> {
  const netlink = new Netlink('route')
  try {
    const request = { name: 'GETROUTE', type: RTM.getRoute, payload: encodeRouteDump() }
    const routes = (await netlink.dump(request))
      .flatMap(({ type, payload }) => (type === RTM.newRoute ? (decodeRoute(payload) ?? []) : []))
      .filter(
        ({ table, protocol, type }) =>
          table === RT_TABLE_MAIN && protocol !== RTPROT_IPPRIV && type === RT_TYPE.unicast,
      )
      .filter(({ destination }) => contains(destination, target))
      .sort((a, b) => b.destination.length - a.destination.length || (a.priority ?? 0) - (b.priority ?? 0))
    const addresses = await listAddresses(netlink)
    for (const { source, device } of routes) {
      const found =
        source ?? addresses.find((each) => each.index === device && each.scope === RT_SCOPE.universe)?.address
      if (found !== undefined && hasAddress(found)) return found
    }
    return undefined
  } finally {
    netlink.close()
  }
}
