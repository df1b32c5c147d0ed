/** What layers of ESP leave of a path, and what they make of a packet. */
import { espCapacity, espLength } from '#wire/esp'
import { IPV4_HEADER } from '#wire/ipv4'

/** The largest outer packet: what every path of the Internet is expected to carry. */
export const PATH_MTU = 1500

/** The largest inner packet that `layers` plain ESP layers fit into `pathMtu`. */
export function innerMtu(pathMtu: number, layers: number): number {
  let capacity = pathMtu
  for (let i = 0; i < layers; i++) capacity = espCapacity(capacity - IPV4_HEADER)
  return capacity
}

/** The size of a packet of `length` after `layers` plain ESP layers. */
export function sealedLength(length: number, layers: number): number {
  let sealed = length
  for (let i = 0; i < layers; i++) sealed = espLength(sealed) + IPV4_HEADER
  return sealed
}
