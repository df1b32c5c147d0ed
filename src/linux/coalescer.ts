import { type Arena, IoVector, sys } from '#linux/ffi'
import { VIRTIO_HEADER, writeVirtioNone, writeVirtioTcp } from '#linux/virtio'
import { foldChecksum, sumWords } from '#wire/checksum'
import {
  destination,
  dontFragment,
  IPV4_HEADER,
  identification,
  isFragment,
  PROTOCOL,
  protocol,
  resizeIpv4,
  source,
  tos,
  ttl,
} from '#wire/ipv4'
import {
  TCP_CHECKSUM,
  TCP_FLAG,
  TCP_HEADER,
  tcpAcknowledgment,
  tcpFlags,
  tcpHeaderLength,
  tcpPorts,
  tcpPseudoHeader,
  tcpSequence,
  writeTcpChecksum,
  writeTcpFlags,
} from '#wire/tcp'

/** Connections whose segments may wait for more at a time. */
const MAX_RUNS = 16
const MAX_PIECES = 64
const MAX_PACKET = 0xffff

/**
 * Writes packets to a TUN, consecutive segments of a TCP connection in one piece (GRO): the kernel routes,
 * translates and delivers them once. Order within a connection is kept; `flush` ends every batch, so nothing waits
 * for what has not arrived.
 *
 * The rules are those of the kernel's own GRO: what is joined can be cut into exactly the packets it was made of. A
 * segment is joined only if its checksum is right, for the kernel makes a new one.
 */
export class Coalescer {
  readonly #memory: Arena
  readonly #fd: number
  readonly #vector = new IoVector(MAX_PIECES)
  readonly #runs = Array.from({ length: MAX_RUNS }, () => new Run())
  /** Runs in use stand first, oldest first. */
  #open = 0
  #failures = 0

  constructor(memory: Arena, fd: number) {
    this.#memory = memory
    this.#fd = fd
  }

  /** Writes that failed. */
  get failures(): number {
    return this.#failures
  }

  /**
   * Takes a packet, which must stand still until `flush`, with room for a virtio header in front of it. Its IPv4
   * header was checked and `length` is its total length.
   */
  push(offset: number, length: number): void {
    const { bytes } = this.#memory
    if (
      protocol(bytes, offset) !== PROTOCOL.tcp ||
      length < IPV4_HEADER + TCP_HEADER ||
      isFragment(bytes, offset)
    )
      return this.#writeOne(offset, length)
    const tcp = offset + IPV4_HEADER
    const headers = IPV4_HEADER + tcpHeaderLength(bytes, tcp)
    const payload = length - headers
    const flags = tcpFlags(bytes, tcp)
    const joinable =
      headers >= IPV4_HEADER + TCP_HEADER &&
      payload > 0 &&
      (flags & ~TCP_FLAG.psh) === TCP_FLAG.ack &&
      (offset & 3) === 0
    const at = this.#find(offset)
    if (at >= 0) {
      const run = this.#runs[at]!
      if (joinable && this.#joins(run, offset, headers, payload)) {
        run.add(offset + headers, payload, (flags & TCP_FLAG.psh) !== 0)
        if (run.isComplete) this.#finish(at)
        return
      }
      this.#finish(at)
    }
    if (!joinable || (flags & TCP_FLAG.psh) !== 0) return this.#writeOne(offset, length)
    if (this.#open === MAX_RUNS) this.#finish(0)
    this.#runs[this.#open++]!.begin(offset, headers, payload)
  }

  flush(): void {
    for (let i = 0; i < this.#open; i++) this.#write(this.#runs[i]!)
    this.#open = 0
  }

  /** The run of the packet's connection, or -1. */
  #find(offset: number): number {
    const { bytes } = this.#memory
    for (let i = 0; i < this.#open; i++) {
      const first = this.#runs[i]!.first
      if (
        tcpPorts(bytes, first + IPV4_HEADER) === tcpPorts(bytes, offset + IPV4_HEADER) &&
        source(bytes, first) === source(bytes, offset) &&
        destination(bytes, first) === destination(bytes, offset)
      )
        return i
    }
    return -1
  }

  #joins(run: Run, offset: number, headers: number, payload: number): boolean {
    const { bytes } = this.#memory
    const { first } = run
    const [tcp, firstTcp] = [offset + IPV4_HEADER, first + IPV4_HEADER]
    if (headers !== run.headers || payload > run.segment || !run.hasRoom(payload)) return false
    if (tcpSequence(bytes, tcp) !== ((tcpSequence(bytes, firstTcp) + run.payload) | 0)) return false
    if (tcpAcknowledgment(bytes, tcp) !== tcpAcknowledgment(bytes, firstTcp)) return false
    if (tos(bytes, offset) !== tos(bytes, first) || ttl(bytes, offset) !== ttl(bytes, first)) return false
    const fixed = dontFragment(bytes, first)
    if (dontFragment(bytes, offset) !== fixed) return false
    if (!fixed && identification(bytes, offset) !== ((identification(bytes, first) + run.count) & 0xffff))
      return false
    for (let i = TCP_HEADER; i < headers - IPV4_HEADER; i++)
      if (bytes[tcp + i] !== bytes[firstTcp + i]) return false
    if (run.count === 1 && !this.#isSound(first, run.headers + run.payload)) return false
    return this.#isSound(offset, headers + payload)
  }

  /** Is the TCP checksum right? */
  #isSound(offset: number, length: number): boolean {
    const { bytes } = this.#memory
    const segment = length - IPV4_HEADER
    const sum = sumWords(this.#memory.words, bytes, offset + IPV4_HEADER, segment)
    const pseudo = tcpPseudoHeader(source(bytes, offset), destination(bytes, offset), segment)
    return foldChecksum(sum + pseudo) === 0
  }

  #finish(at: number): void {
    const runs = this.#runs
    const run = runs[at]!
    this.#write(run)
    this.#open--
    for (let i = at; i < this.#open; i++) runs[i] = runs[i + 1]!
    runs[this.#open] = run
  }

  #write(run: Run): void {
    const { first, headers, count } = run
    const length = headers + run.payload
    if (count === 1) return this.#writeOne(first, length)
    const { bytes, view, address } = this.#memory
    resizeIpv4(bytes, first, length, identification(bytes, first))
    const tcp = first + IPV4_HEADER
    if (run.isPushed) writeTcpFlags(bytes, tcp, tcpFlags(bytes, tcp) | TCP_FLAG.psh)
    // Where the checksum is left to the kernel, the field holds the sum of the pseudo header.
    const pseudo = tcpPseudoHeader(source(bytes, first), destination(bytes, first), length - IPV4_HEADER)
    writeTcpChecksum(bytes, tcp, ~foldChecksum(pseudo) & 0xffff)
    writeVirtioTcp(view, first - VIRTIO_HEADER, headers, run.segment, IPV4_HEADER, TCP_CHECKSUM)
    this.#vector.set(0, address + first - VIRTIO_HEADER, VIRTIO_HEADER + headers + run.segment)
    for (let i = 1; i < count; i++) this.#vector.set(i, address + run.offsetOf(i), run.lengthOf(i))
    if (sys.writev(this.#fd, this.#vector.address, count) < 0) this.#failures++
  }

  #writeOne(offset: number, length: number): void {
    const { view, address } = this.#memory
    const at = offset - VIRTIO_HEADER
    writeVirtioNone(view, at)
    if (sys.write(this.#fd, address + at, VIRTIO_HEADER + length) < 0) this.#failures++
  }
}

/** Consecutive segments of one connection. */
class Run {
  /** Offset of the first packet, whose headers stand for all. */
  first = 0
  headers = 0
  /** Payload of all but the last. */
  segment = 0
  payload = 0
  count = 0
  isPushed = false
  readonly #offsets = new Int32Array(MAX_PIECES)
  readonly #lengths = new Int32Array(MAX_PIECES)

  begin(offset: number, headers: number, payload: number): void {
    this.first = offset
    this.headers = headers
    this.segment = payload
    this.payload = payload
    this.count = 1
    this.isPushed = false
  }

  add(offset: number, payload: number, isPushed: boolean): void {
    this.#offsets[this.count] = offset
    this.#lengths[this.count] = payload
    this.count++
    this.payload += payload
    this.isPushed = isPushed
  }

  hasRoom(payload: number): boolean {
    return this.count < MAX_PIECES && this.headers + this.payload + payload <= MAX_PACKET
  }

  /** A short segment, or one that asks to be delivered, is the last. */
  get isComplete(): boolean {
    return this.isPushed || this.#lengths[this.count - 1]! < this.segment
  }

  offsetOf(i: number): number {
    return this.#offsets[i]!
  }

  lengthOf(i: number): number {
    return this.#lengths[i]!
  }
}
