/**
 * `struct virtio_net_hdr` (linux/virtio_net.h), which stands in front of every packet of a TUN with IFF_VNET_HDR:
 *
 *     | flags 1 | GSO type 1 | header length 2 | GSO size 2 | checksum start 2 | checksum offset 2 |
 *
 * Numbers are in the machine's order, which is little-endian wherever we run.
 */
export const VIRTIO_HEADER = 10
export const VIRTIO_FLAG = { needsChecksum: 1 } as const
export const VIRTIO_GSO = { none: 0, tcp4: 1 } as const

export const virtioFlags = (view: DataView, at: number): number => view.getUint8(at)
export const virtioGsoType = (view: DataView, at: number): number => view.getUint8(at + 1)
export const virtioGsoSize = (view: DataView, at: number): number => view.getUint16(at + 4, true)
export const virtioChecksumStart = (view: DataView, at: number): number => view.getUint16(at + 6, true)
export const virtioChecksumOffset = (view: DataView, at: number): number => view.getUint16(at + 8, true)

/** Of a packet as it is. */
export function writeVirtioNone(view: DataView, at: number): void {
  view.setUint32(at, 0)
  view.setUint32(at + 4, 0)
  view.setUint16(at + 8, 0)
}

/** Of TCP segments in one: the kernel cuts it again where it must, and sums each segment. */
export function writeVirtioTcp(
  view: DataView,
  at: number,
  headers: number,
  segment: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  view.setUint8(at, VIRTIO_FLAG.needsChecksum)
  view.setUint8(at + 1, VIRTIO_GSO.tcp4)
  view.setUint16(at + 2, headers, true)
  view.setUint16(at + 4, segment, true)
  view.setUint16(at + 6, checksumStart, true)
  view.setUint16(at + 8, checksumOffset, true)
}
