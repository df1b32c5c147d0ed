/**
 * Reader of capture files as tcpdump writes them (pcap, micro- or nanoseconds, either byte order), yielding
 * network-layer packets. A file cut short in its last record yields what is whole.
 *
 *     file header, 24 octets: magic 4, version 4, zone 4, accuracy 4, snapshot length 4, link type 4
 *     per record: seconds 4, fraction 4, captured length 4, original length 4, frame
 */
export interface Frame {
  /** Seconds since 1970. */
  readonly time: number
  /** EtherType: 0x0800 IPv4, 0x0806 ARP, 0x86dd IPv6. */
  readonly type: number
  /** From the network header on. */
  readonly packet: Uint8Array
  /** Octets the packet had on the wire from the network header on, whatever the capture kept. */
  readonly wireLength: number
}

export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
export const ETHERTYPE_IPV6 = 0x86dd

/** @throws RangeError when it is not a pcap file of a link type known here. */
export function* readPcap(file: Uint8Array): Generator<Frame> {
  if (file.length < FILE_HEADER) throw new RangeError('not a pcap file: shorter than its header')
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const little = MAGICS.has(view.getUint32(0, true))
  if (!little && !MAGICS.has(view.getUint32(0, false))) throw new RangeError('not a pcap file: wrong magic')
  const fraction = MAGICS.get(view.getUint32(0, little))!
  // The upper 16 bits carry other things (length of a frame check sequence).
  const linkType = view.getUint32(20, little) & 0xffff
  const link = LINKS.get(linkType)
  if (link === undefined) throw new RangeError(`unknown pcap link type ${linkType}`)
  let at = FILE_HEADER
  while (at + RECORD_HEADER <= file.length) {
    const captured = view.getUint32(at + 8, little)
    const original = view.getUint32(at + 12, little)
    const start = at + RECORD_HEADER
    if (start + captured > file.length) return
    const time = view.getUint32(at, little) + view.getUint32(at + 4, little) * fraction
    at = start + captured
    if (captured < link.length) continue
    const type =
      link.typeAt === undefined ? typeOfRaw(view.getUint8(start)) : view.getUint16(start + link.typeAt)
    const packet = file.subarray(start + link.length, at)
    yield { time, type, packet, wireLength: original - link.length }
  }
}

const FILE_HEADER = 24
const RECORD_HEADER = 16
/** Magic number to the length of one fraction tick, in seconds. */
const MAGICS = new Map([
  [0xa1b2c3d4, 1e-6],
  [0xa1b23c4d, 1e-9],
])

interface Link {
  readonly length: number
  /** Where the EtherType stands; absent: there is none, the version nibble says it. */
  readonly typeAt?: number
}

/** https://www.tcpdump.org/linktypes.html */
const LINKS = new Map<number, Link>([
  [1, { length: 14, typeAt: 12 }], // Ethernet
  [12, { length: 0 }], // raw IP, as this platform numbers it
  [101, { length: 0 }], // raw IP
  [113, { length: 16, typeAt: 14 }], // Linux cooked capture
  [276, { length: 20, typeAt: 0 }], // Linux cooked capture v2
])

const typeOfRaw = (first: number): number => (first >>> 4 === 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4)
