import type { Arena } from '#linux/ffi'
import {
  VIRTIO_FLAG,
  VIRTIO_GSO,
  VIRTIO_HEADER,
  virtioChecksumOffset,
  virtioChecksumStart,
  virtioFlags,
  virtioGsoSize,
  virtioGsoType,
} from '#linux/virtio'
import { foldChecksum, sumWords } from '#wire/checksum'
import {
  destination,
  IPV4_HEADER,
  identification,
  PROTOCOL,
  protocol,
  resizeIpv4,
  source,
  writeUint16,
} from '#wire/ipv4'
import {
  TCP_FLAG,
  TCP_HEADER,
  tcpFlags,
  tcpHeaderLength,
  tcpPseudoHeader,
  tcpSequence,
  writeTcpChecksum,
  writeTcpFlags,
  writeTcpSequence,
} from '#wire/tcp'

/**
 * Cuts what the kernel's TCP hands to the TUN in one piece (TSO) into the packets that fit the telescope, and
 * completes the checksums it left to the device. One read, and one way through the kernel, serve up to 50 packets.
 */
export class Segmenter {
  readonly #memory: Arena
  readonly #limit: number
  #packet = 0
  #headers = 0
  /** Octets of payload in a segment; 0: the packet is not to be cut. */
  #segment = 0
  #end = 0
  /** The payload not yet handed out begins here; `#end` when all is. */
  #at = 0
  #index = 0

  /** `limit`: octets of the longest packet there is room for. */
  constructor(memory: Arena, limit: number) {
    this.#memory = memory
    this.#limit = limit
  }

  /**
   * Takes what was read from the TUN to `at`, virtio header first; the packet behind it must be aligned to 4.
   * @returns whether it is sound: not of a kind that was never asked for, nor with lengths that lie.
   */
  begin(at: number, length: number): boolean {
    this.#at = this.#end
    if (length < VIRTIO_HEADER) return false
    const { view } = this.#memory
    this.#packet = at + VIRTIO_HEADER
    this.#end = at + length
    this.#at = this.#end
    const type = virtioGsoType(view, at)
    if (type === VIRTIO_GSO.tcp4) return this.#beginTcp(virtioGsoSize(view, at))
    if (type !== VIRTIO_GSO.none) return false
    if ((virtioFlags(view, at) & VIRTIO_FLAG.needsChecksum) !== 0) {
      const start = this.#packet + virtioChecksumStart(view, at)
      if (!this.#complete(start, start + virtioChecksumOffset(view, at))) return false
    }
    if (this.#end - this.#packet > this.#limit) return false
    this.#segment = 0
    this.#at = this.#packet
    return true
  }

  /** Is it to be cut? */
  get isLarge(): boolean {
    return this.#segment > 0
  }

  /** Octets that were not handed out yet. */
  get left(): number {
    return this.#end - this.#at
  }

  /** Writes the next packet to `to`, aligned to 4. @returns its length; 0 when there is none. */
  next(to: number): number {
    if (this.#at === this.#end) return 0
    if (this.#segment > 0) return this.#nextTcp(to)
    this.#memory.bytes.copyWithin(to, this.#packet, this.#end)
    this.#at = this.#end
    return this.#end - this.#packet
  }

  #beginTcp(segment: number): boolean {
    const { bytes } = this.#memory
    const tcp = this.#packet + IPV4_HEADER
    // The engine takes no IP options either.
    if (segment === 0 || this.#end < tcp + TCP_HEADER) return false
    if (bytes[this.#packet] !== 0x45 || protocol(bytes, this.#packet) !== PROTOCOL.tcp) return false
    const headers = IPV4_HEADER + tcpHeaderLength(bytes, tcp)
    if (headers < IPV4_HEADER + TCP_HEADER || this.#packet + headers >= this.#end) return false
    if (headers + segment > this.#limit) return false
    this.#headers = headers
    this.#segment = segment
    this.#at = this.#packet + headers
    this.#index = 0
    return true
  }

  #nextTcp(to: number): number {
    const { bytes } = this.#memory
    const headers = this.#headers
    const packet = this.#packet
    const payload = Math.min(this.#segment, this.#end - this.#at)
    bytes.copyWithin(to, packet, packet + headers)
    bytes.copyWithin(to + headers, this.#at, this.#at + payload)
    const before = this.#at - packet - headers
    this.#at += payload
    const length = headers + payload
    resizeIpv4(bytes, to, length, identification(bytes, packet) + this.#index)
    const tcp = to + IPV4_HEADER
    writeTcpSequence(bytes, tcp, (tcpSequence(bytes, tcp) + before) | 0)
    // What ends the data ends the last segment, and what answers a congestion mark is said once.
    let flags = tcpFlags(bytes, tcp)
    if (this.#at < this.#end) flags &= ~(TCP_FLAG.fin | TCP_FLAG.psh)
    if (this.#index++ > 0) flags &= ~TCP_FLAG.cwr
    writeTcpFlags(bytes, tcp, flags)
    writeTcpChecksum(bytes, tcp, 0)
    const pseudo = tcpPseudoHeader(source(bytes, to), destination(bytes, to), length - IPV4_HEADER)
    const sum = sumWords(this.#memory.words, bytes, tcp, length - IPV4_HEADER)
    writeTcpChecksum(bytes, tcp, foldChecksum(sum + pseudo))
    return length
  }

  /** The kernel left the sum of the pseudo header in the field. */
  #complete(start: number, field: number): boolean {
    const { bytes } = this.#memory
    if (start % 4 !== 0 || field + 2 > this.#end || start >= this.#end) return false
    const checksum = foldChecksum(sumWords(this.#memory.words, bytes, start, this.#end - start))
    // In UDP zero means that there is none; in the others 0xffff is as good.
    writeUint16(bytes, field, checksum === 0 ? 0xffff : checksum)
    return true
  }
}
