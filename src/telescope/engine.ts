import { IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { ipToUint32 } from '#base/ip'
import { type DropReason, type Drops, noDrops } from '#telescope/drops'
import { PATH_MTU } from '#telescope/mtu'
import type { PlaneOperation, PolicySpec, SaCounters, SaKey } from '#telescope/plane'
import { MAX_TEMPLATES, operationName } from '#telescope/plane'
import type { Bundle, InboundSa } from '#telescope/sad'
import { Sad } from '#telescope/sad'
import type { CipherDriver } from '#telescope/seal'
import { OPEN, openLayer, SEAL, SEAL_HEADROOM, SEAL_TAILROOM, sealLayer } from '#telescope/seal'
import type { Flow, Policy } from '#telescope/spd'
import { readFlow, Spd } from '#telescope/spd'
import { espCapacity, spi } from '#wire/esp'
import { FRAGMENTATION_NEEDED, makeFragmentationNeeded } from '#wire/icmp'
import {
  checkIpv4,
  decrementTtl,
  destination,
  IPV4_HEADER,
  isFragment,
  PROTOCOL,
  protocol,
  source,
  totalLength,
  ttl,
  writeIpv4Fields,
} from '#wire/ipv4'
import { UDP_HEADER, writeUdp } from '#wire/udp'

/**
 * The packet engine of the userspace plane: what the kernel's XFRM does to a packet, sans I/O.
 *
 *     host's IP stack -- TUN --> fromTun:     out policy, seal all layers ----------------------> network
 *     network -- ESP --> fromNetwork:         open layers addressed to us, noting the security path
 *                                             |- to us:      in policy ---------------------> TUN
 *                                             |- to others:  fwd policy, then out policy
 *                                                            |- protect: seal --------------> network
 *                                                            `- none: plain, for an exit ---> TUN
 *
 * **Drive rule: a call transforms the packet in place; when the verdict is not `drop`, the result stands at
 * `engine.offset` with `engine.length` octets in the same buffer and must be sent before the next call.** The buffer
 * needs `HEADROOM` octets in front of the packet and `TAILROOM` behind it.
 *
 * Everything an outer header could carry over from the inner one is a constant instead: TTL, TOS (DSCP and ECN), DF
 * (clear, so that a narrow path fragments ESP rather than asking for errors that cannot be trusted). The IP ID
 * is the low half of that layer's ESP sequence number: whoever sees one sees the other.
 */
export const VERDICT = { drop: 0, tun: 1, network: 2 } as const
export type Verdict = (typeof VERDICT)[keyof typeof VERDICT]

const LAYER_HEADROOM = IPV4_HEADER + UDP_HEADER + SEAL_HEADROOM
export const HEADROOM = MAX_TEMPLATES * LAYER_HEADROOM + FRAGMENTATION_NEEDED
export const TAILROOM = MAX_TEMPLATES * SEAL_TAILROOM

/** Our constants of every outer header. */
export const OUTER = { ttl: 64, tos: 0, dontFragment: false } as const

/** As XFRM_MAX_DEPTH: more layers on one packet than this are an attack on our time. */
const MAX_DEPTH = MAX_TEMPLATES + 1

const NOTHING_HEARD: readonly SaKey[] = []

export interface PacketEngineOptions {
  readonly driver: CipherDriver
  /** Outer packets may not be larger than this. */
  readonly pathMtu?: number
}

export class PacketEngine {
  offset = 0
  length = 0
  readonly #sad: Sad
  readonly #spd: Spd
  readonly #pathMtu: number
  readonly #drops: Drops
  #heard: SaKey[] = []
  /** How many `in` policies protect this address, as int32: private addresses of ours. */
  readonly #private = new Map<number, number>()
  #hostAddresses: ReadonlySet<number> = new Set()
  // Scratch of the packet in hand.
  readonly #flow: Flow = { source: 0, destination: 0, protocol: 0, sourcePort: 0, destinationPort: 0 }
  readonly #path: (InboundSa | undefined)[] = new Array(MAX_DEPTH).fill(undefined)
  #depth = 0

  constructor(options: PacketEngineOptions) {
    this.#sad = new Sad(options.driver)
    this.#spd = new Spd(this.#sad)
    this.#pathMtu = options.pathMtu ?? PATH_MTU
    this.#drops = noDrops()
  }

  /**
   * `shared`: for each SA to be installed, at the index of its operation, what it shares with engines of other threads.
   * @throws IpprivError IPP_PLANE_OPERATION naming the operation that failed; those before it are done.
   */
  apply(
    operations: readonly PlaneOperation[],
    shared: readonly (SharedArrayBuffer | undefined)[] = [],
  ): void {
    for (const [i, operation] of operations.entries()) {
      try {
        this.#perform(operation, shared[i])
      } catch (error) {
        throw new IpprivError(
          'IPP_PLANE_OPERATION',
          `${operationName(operation)}: ${(error as Error).message}`,
        )
      }
    }
  }

  /** Addresses of this host beside the end points of SAs, which the engine knows by itself. */
  setHostAddresses(addresses: readonly Ip[]): void {
    this.#hostAddresses = new Set(addresses.map((address) => ipToUint32(address) | 0))
  }

  counters(): SaCounters[] {
    return this.#sad.counters()
  }

  /** SAs that were to announce their packets, and had the first one since the last call. */
  takeHeard(): readonly SaKey[] {
    if (this.#heard.length === 0) return NOTHING_HEARD
    const heard = this.#heard
    this.#heard = []
    return heard
  }

  drops(): Drops {
    return { ...this.#drops }
  }

  /** Removes every policy and SA and forgets every key. */
  clear(): void {
    this.#spd.clear()
    this.#sad.clear()
    this.#private.clear()
  }

  /** What stands for the circuit a packet from the TUN will go into: its policy, or the engine where there is none. */
  circuitOf(bytes: Uint8Array, offset: number, length: number): object {
    if (length < IPV4_HEADER) return this
    readFlow(this.#flow, bytes, offset)
    return this.#spd.lookup('out', this.#flow) ?? this
  }

  /** A packet the kernel routed into the TUN: made on this host, or forwarded by it. */
  fromTun(bytes: Uint8Array, offset: number, length: number): Verdict {
    if (checkIpv4(bytes, offset, length) !== undefined) return this.#drop('TunMalformed')
    this.#depth = 0
    readFlow(this.#flow, bytes, offset)
    // What came in from outside must pass the forward policies like any packet without a security path:
    // that is what keeps injected clear text out of a telescope.
    if (!this.#isLocal(this.#flow.source) && !this.#accepts('fwd')) return VERDICT.drop
    const policy = this.#spd.lookup('out', this.#flow)
    // Nothing leaves the TUN in clear: `bypass` traffic belongs on the uplink, and is routed there.
    if (policy === undefined || policy.spec.action === 'bypass') return this.#drop('TunNoPolicy')
    if (policy.spec.action === 'block') return this.#drop('XfrmOutPolBlock')
    const total = totalLength(bytes, offset)
    const capacity = this.#capacity(policy)
    if (total > capacity) {
      this.#drop('TunTooBig')
      // From the packet's own destination: it passes every reverse-path check, and a NAT translates it.
      const error = makeFragmentationNeeded(
        bytes,
        offset,
        capacity,
        this.#flow.destination,
        this.#flow.source,
      )
      return error === undefined ? VERDICT.drop : this.#deliver(error, FRAGMENTATION_NEEDED)
    }
    return this.#seal(policy, bytes, offset, total)
  }

  /** An ESP packet, or one in UDP, addressed to this host, with its IP header. */
  fromNetwork(bytes: Uint8Array, offset: number, length: number): Verdict {
    this.#depth = 0
    let at = offset
    let room = length
    for (;;) {
      if (checkIpv4(bytes, at, room) !== undefined) return this.#drop('XfrmInHdrError')
      const outermost = this.#depth === 0
      if (!outermost && !(protocol(bytes, at) === PROTOCOL.esp && this.#isLocal(destination(bytes, at))))
        break
      if (isFragment(bytes, at)) return this.#drop('XfrmInBufferError')
      if (this.#depth === MAX_DEPTH) return this.#drop('XfrmInBufferError')
      const opened = this.#open(bytes, at)
      if (opened < 0) return VERDICT.drop
      at = this.offset
      room = opened
    }
    readFlow(this.#flow, bytes, at)
    const total = totalLength(bytes, at)
    if (this.#isLocal(this.#flow.destination)) {
      return this.#accepts('in') ? this.#deliver(at, total) : VERDICT.drop
    }
    return this.#accepts('fwd') ? this.#forward(bytes, at, total) : VERDICT.drop
  }

  /** Takes one layer off. @returns octets of inner data at `this.offset`, or -1. */
  #open(bytes: Uint8Array, at: number): number {
    const total = totalLength(bytes, at)
    const encapsulated = protocol(bytes, at) === PROTOCOL.udp
    const header = IPV4_HEADER + (encapsulated ? UDP_HEADER : 0)
    const esp = at + header
    if (total < header + SEAL_HEADROOM) return this.#fail('XfrmInHdrError')
    const sa = this.#sad.findInbound(source(bytes, at), destination(bytes, at), spi(bytes, esp))
    if (sa === undefined) return this.#fail('XfrmInNoStates')
    if (encapsulated !== (sa.encapsulation !== undefined)) return this.#fail('XfrmInStateMismatch')
    const inner = openLayer(sa, bytes, esp, total - header)
    if (inner < 0) {
      if (inner === OPEN.replayed) {
        sa.replayed++
        return this.#fail('XfrmInStateSeqError')
      }
      if (inner === OPEN.dummy) return this.#fail('TunDummy')
      if (inner === OPEN.corrupted) sa.corrupted++
      return this.#fail('XfrmInStateProtoError')
    }
    sa.packets++
    sa.octets += inner
    if (sa.announce) {
      sa.announce = false
      this.#heard.push(sa.key)
    }
    this.#path[this.#depth++] = sa
    this.offset = esp + SEAL_HEADROOM
    return inner
  }

  /** A packet out of a tunnel for somebody else. */
  #forward(bytes: Uint8Array, offset: number, total: number): Verdict {
    const policy = this.#spd.lookup('out', this.#flow)
    // An exit: the kernel routes and translates it, and takes the hop off itself.
    if (policy === undefined || policy.spec.action === 'bypass') return this.#deliver(offset, total)
    if (policy.spec.action === 'block') return this.#drop('XfrmOutPolBlock')
    // No time-exceeded error: it would tell a prober which hop it comes from.
    if (ttl(bytes, offset) <= 1) return this.#drop('XfrmFwdHdrError')
    const capacity = this.#capacity(policy)
    if (total > capacity) return this.#refuseForwarded(policy, bytes, offset, capacity)
    decrementTtl(bytes, offset)
    return this.#seal(policy, bytes, offset, total)
  }

  /** Tells the sender of a forwarded packet that it is too big, through the tunnel that leads back to it. */
  #refuseForwarded(policy: Policy, bytes: Uint8Array, offset: number, capacity: number): Verdict {
    this.#drop('TunTooBig')
    const self = policy.bundles[policy.bundles.length - 1]!.source
    const error = makeFragmentationNeeded(bytes, offset, capacity, self, this.#flow.source)
    if (error === undefined) return VERDICT.drop
    readFlow(this.#flow, bytes, error)
    const back = this.#spd.lookup('out', this.#flow)
    if (back === undefined || back.spec.action !== 'protect') return VERDICT.drop
    return this.#seal(back, bytes, error, FRAGMENTATION_NEEDED)
  }

  /** Puts on all layers of a policy, innermost first, in one pass. */
  #seal(policy: Policy, bytes: Uint8Array, offset: number, total: number): Verdict {
    const { bundles } = policy
    // All or nothing: no sequence number is spent on a packet that cannot leave.
    for (const bundle of bundles) if (bundle.outbound.length === 0) return this.#drop('XfrmOutNoStates')
    let at = offset
    let length = total
    for (const bundle of bundles) {
      const sa = newest(bundle)
      const esp = sealLayer(sa, bytes, at, length)
      if (esp < 0)
        return this.#drop(esp === SEAL.exhausted ? 'XfrmOutStateSeqError' : 'XfrmOutStateProtoError')
      sa.packets++
      sa.octets += length
      at -= SEAL_HEADROOM
      length = esp
      let next: number = PROTOCOL.esp
      if (sa.encapsulation !== undefined) {
        at -= UDP_HEADER
        length += UDP_HEADER
        writeUdp(bytes, at, sa.encapsulation.sourcePort, sa.encapsulation.destinationPort, length)
        next = PROTOCOL.udp
      }
      at -= IPV4_HEADER
      length += IPV4_HEADER
      const id = sa.sequence & 0xffff
      writeIpv4Fields(
        bytes,
        at,
        length,
        next,
        OUTER.ttl,
        id,
        OUTER.dontFragment,
        OUTER.tos,
        sa.source,
        sa.destination,
      )
    }
    this.offset = at
    this.length = length
    return VERDICT.network
  }

  /** The largest packet that fits the path after this policy. */
  #capacity(policy: Policy): number {
    let capacity = this.#pathMtu
    for (let i = policy.bundles.length - 1; i >= 0; i--) {
      const bundle = policy.bundles[i]!
      const encapsulated = bundle.outbound.length > 0 && newest(bundle).encapsulation !== undefined
      capacity = espCapacity(capacity - IPV4_HEADER - (encapsulated ? UDP_HEADER : 0))
    }
    return capacity
  }

  /** RFC 4301 section 5.2 step 4: did the packet come through exactly the SAs its policy asks for? */
  #accepts(direction: 'in' | 'fwd'): boolean {
    const policy = this.#spd.lookup(direction, this.#flow)
    if (policy === undefined) {
      if (this.#depth === 0) return true
      this.#drop('XfrmInNoPols')
      return false
    }
    if (policy.spec.action === 'block') {
      this.#drop('XfrmInPolBlock')
      return false
    }
    // Templates stand innermost first, the path outermost first.
    let matches = policy.bundles.length === this.#depth
    for (let i = 0; matches && i < this.#depth; i++)
      matches = this.#path[this.#depth - 1 - i]!.bundle === policy.bundles[i]
    if (!matches) this.#drop('XfrmInTmplMismatch')
    return matches
  }

  /** An address packets are delivered to, not forwarded: ours, or one no router forwards to. */
  #isLocal(address: number): boolean {
    const first = address >>> 24
    if (first === 127 || first === 0 || first >= 224) return true
    return this.#sad.isLocal(address) || this.#private.has(address) || this.#hostAddresses.has(address)
  }

  #perform(operation: PlaneOperation, shared: SharedArrayBuffer | undefined): void {
    switch (operation.kind) {
      case 'sa.install':
        return this.#sad.install(operation.sa, shared)
      case 'sa.remove':
        return this.#sad.remove(operation.sa)
      case 'sa.move':
        return this.#sad.move(operation.sa, operation.to)
      case 'policy.install': {
        const replaced = this.#spd.install(operation.policy)
        if (replaced !== undefined) this.#countPrivate(replaced, -1)
        return this.#countPrivate(operation.policy, 1)
      }
      case 'policy.remove': {
        const removed = this.#spd.remove(operation.direction, operation.selector)
        if (removed !== undefined) this.#countPrivate(removed, -1)
      }
    }
  }

  #countPrivate(policy: PolicySpec, change: number): void {
    const to = policy.selector.destination
    if (policy.direction !== 'in' || policy.action !== 'protect' || to.length !== 32) return
    const address = ipToUint32(to.address) | 0
    const count = (this.#private.get(address) ?? 0) + change
    if (count === 0) this.#private.delete(address)
    else this.#private.set(address, count)
  }

  #deliver(offset: number, length: number): Verdict {
    this.offset = offset
    this.length = length
    return VERDICT.tun
  }

  #drop(reason: DropReason): Verdict {
    this.#drops[reason]++
    return VERDICT.drop
  }

  #fail(reason: DropReason): -1 {
    this.#drops[reason]++
    return -1
  }
}

const newest = (bundle: Bundle) => bundle.outbound[bundle.outbound.length - 1]!
