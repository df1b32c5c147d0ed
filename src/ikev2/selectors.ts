/** Traffic selectors: ours (IPv4 ranges) and the wire's, and how they compare (RFC 7296 section 2.9). */

import { bytesToIp, type Ip, ipToBytes, ipToUint32 } from '#base/ip'
import { ANY_SELECTOR, type TrafficSelector } from '#ikev2/events'
import type { WireSelector } from '#ikev2/message/payload'

/** Exactly one address, every protocol and port. */
export const hostSelector = (address: Ip): TrafficSelector => ({
  ...ANY_SELECTOR,
  startAddress: address,
  endAddress: address,
})

export const toWire = (selectors: readonly TrafficSelector[]): WireSelector[] =>
  selectors.map(({ protocol, startPort, endPort, startAddress, endAddress }) => ({
    kind: 'range',
    protocol,
    startPort,
    endPort,
    start: ipToBytes(startAddress),
    end: ipToBytes(endAddress),
  }))

/** The IPv4 ranges among a proposal; others cannot be served and narrowing drops them. */
export const fromWire = (selectors: readonly WireSelector[]): TrafficSelector[] =>
  selectors.flatMap((selector) => fromWireSelector(selector) ?? [])

/** The selectors of an answer, or undefined when one of them is no IPv4 range: nobody asked for it. */
export function allFromWire(selectors: readonly WireSelector[]): TrafficSelector[] | undefined {
  const ranges = fromWire(selectors)
  return ranges.length === selectors.length ? ranges : undefined
}

/** The same set, in whatever order. */
export function sameSelectors(a: readonly TrafficSelector[], b: readonly TrafficSelector[]): boolean {
  const canonical = (selectors: readonly TrafficSelector[]): string => selectors.map(key).sort().join()
  return canonical(a) === canonical(b)
}

/** Every one of `narrow` lies within one of `wide`. */
export const covers = (wide: readonly TrafficSelector[], narrow: readonly TrafficSelector[]): boolean =>
  narrow.every((inner) => wide.some((outer) => contains(outer, inner)))

function contains(outer: TrafficSelector, inner: TrafficSelector): boolean {
  return (
    (outer.protocol === 0 || outer.protocol === inner.protocol) &&
    outer.startPort <= inner.startPort &&
    outer.endPort >= inner.endPort &&
    ipToUint32(outer.startAddress) <= ipToUint32(inner.startAddress) &&
    ipToUint32(outer.endAddress) >= ipToUint32(inner.endAddress)
  )
}

function fromWireSelector(selector: WireSelector): TrafficSelector | undefined {
  if (selector.kind !== 'range' || selector.start.length !== 4) return undefined
  const { protocol, startPort, endPort, start, end } = selector
  return { protocol, startPort, endPort, startAddress: bytesToIp(start), endAddress: bytesToIp(end) }
}

const key = (s: TrafficSelector): string =>
  `${s.protocol} ${s.startPort}-${s.endPort} ${s.startAddress}-${s.endAddress}`
