import type { FilterInstruction, MessageBatch } from '#linux/ffi'
import { attachFilter, C, E, errno, failure, PollSet, setOption, sys } from '#linux/ffi'
import { DAEMON_MARK } from '#nat/rules'
import { OUTER } from '#telescope/engine'

const PROTOCOL = { esp: 50, udp: 17 } as const
/**
 * Some two hundred packets wait while a batch is worked on. More would never be lost, and so TCP would fill it: a
 * longer queue here adds nothing but delay for everybody else on the circuit.
 */
const SOCKET_BUFFER = 512 * 1024
/** How long a full send buffer is waited for before the packet is given up, in milliseconds. */
const SEND_PATIENCE = 20

/** UDP-encapsulated ESP goes to and from this port (RFC 3948 section 2.1). */
export const NAT_T_PORT = 4500

/**
 * A raw IPv4 socket for ESP, or for UDP-encapsulated ESP. Received packets have their IP header; sent ones get it
 * from the kernel, which also fragments them if the path is narrow: DF is clear.
 *
 * While it is open the kernel does not answer ESP with ICMP protocol unreachable: raw delivery counts as a taker.
 * It gets its copy also where the kernel has an ESP handler of its own.
 */
export class EspSocket {
  readonly fd: number
  readonly #writable = new PollSet(1)

  /** `fd` comes from `openEspSocket`. */
  constructor(fd: number) {
    this.fd = fd
    this.#writable.set(0, fd, C.POLLOUT)
  }

  /** @returns how many packets were received into the batch; 0 when none waits. */
  receive(batch: MessageBatch): number {
    const count = sys.recvmmsg(this.fd, batch.address, batch.size, C.MSG_DONTWAIT, 0)
    if (count >= 0) return count
    const code = errno()
    if (code === E.again || code === E.interrupted) return 0
    throw failure('recvmmsg')
  }

  /** Sends the first `count` messages of the batch. @returns how many could not be sent. */
  send(batch: MessageBatch, count: number): number {
    let failed = 0
    let done = 0
    let waited = false
    while (done < count) {
      const sent = sys.sendmmsg(this.fd, batch.at(done), count - done, 0)
      if (sent > 0) {
        done += sent
        waited = false
      } else if (errno() === E.again && !waited) {
        this.#writable.wait(SEND_PATIENCE)
        waited = true
      } else {
        // This one cannot go: no route, refused by the packet filter, or its source address has gone.
        failed++
        done++
      }
    }
    return failed
  }
}

/** Of several sockets that receive side by side: which this one is. */
export interface Share {
  readonly index: number
  readonly count: number
}

/**
 * With a `share` the socket takes the SAs whose SPI, modulo the count, is its index: the kernel offers every raw
 * socket every packet. SPIs are random, and a node's tunnels drawn evenly (`ikev2/spis.ts`); one SA is one socket's.
 * @returns a descriptor, to be closed by the caller.
 * @throws IpprivError IPP_HOST_*
 */
export function openEspSocket(kind: 'esp' | 'udp', share: Share = { index: 0, count: 1 }): number {
  const type = C.SOCK_RAW | C.SOCK_NONBLOCK | C.SOCK_CLOEXEC
  const fd = sys.socket(C.AF_INET, type, PROTOCOL[kind])
  if (fd < 0) throw failure(`raw socket for ${kind}`)
  try {
    if (kind === 'udp') attachFilter(fd, espInUdp(share))
    else if (share.count > 1) attachFilter(fd, espOf(share))
    setOption(fd, C.IPPROTO_IP, C.IP_MTU_DISCOVER, C.IP_PMTUDISC_DONT, 'IP_MTU_DISCOVER')
    setOption(fd, C.IPPROTO_IP, C.IP_TTL, OUTER.ttl, 'IP_TTL')
    setOption(fd, C.IPPROTO_IP, C.IP_TOS, OUTER.tos, 'IP_TOS')
    setOption(fd, C.SOL_SOCKET, C.SO_MARK, DAEMON_MARK, 'SO_MARK')
    setOption(fd, C.SOL_SOCKET, C.SO_RCVBUFFORCE, SOCKET_BUFFER, 'SO_RCVBUFFORCE')
    setOption(fd, C.SOL_SOCKET, C.SO_SNDBUFFORCE, SOCKET_BUFFER, 'SO_SNDBUFFORCE')
    return fd
  } catch (error) {
    sys.close(fd)
    throw error
  }
}

/** Classic BPF over a packet with IP header: ESP whose SPI is ours. */
const espOf = ({ index, count }: Share): readonly FilterInstruction[] => [
  [0xb1, 0, 0, 0], // ldxb 4*([0]&0xf)
  [0x40, 0, 0, 0], // ld [x], SPI
  [0x94, 0, 0, count], // mod
  [0x15, 0, 1, index], // jeq, else drop
  [0x06, 0, 0, 0xffff], // accept
  [0x06, 0, 0, 0], // drop
]

/**
 * The same in UDP to port 4500, where the first four octets are an SPI, or the non-ESP marker of IKE, which is zero
 * (RFC 3948 section 2.2). A NAT keepalive has fewer (section 2.3): a load behind the end drops.
 */
const espInUdp = ({ index, count }: Share): readonly FilterInstruction[] => [
  [0xb1, 0, 0, 0], // ldxb 4*([0]&0xf)
  [0x48, 0, 0, 2], // ldh [x+2], destination port
  [0x15, 0, 5, NAT_T_PORT], // jeq 4500, else drop
  [0x40, 0, 0, 8], // ld [x+8], first four octets of the datagram
  [0x15, 3, 0, 0], // jeq 0: drop
  [0x94, 0, 0, count], // mod
  [0x15, 0, 1, index], // jeq, else drop
  [0x06, 0, 0, 0xffff], // accept
  [0x06, 0, 0, 0], // drop
]
