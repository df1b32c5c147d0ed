/**
 * A line of packet engines in one process, with the operations the daemons would give them: a client, three nodes, and
 * as many telescopes as asked for. What it measures is the plane itself: no socket, no TUN, no kernel.
 */
import { randomBytes } from 'node:crypto'
import type { Spi } from '#base/ids'
import { type Ip, ip, type Prefix, prefix, uint32ToIp } from '#base/ip'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import type { ChildSa } from '#ikev2/events'
import type { Arena } from '#linux/ffi'
import { HEADROOM, PacketEngine, VERDICT } from '#telescope/engine'
import {
  type Binding,
  bind,
  clientExtend,
  harden,
  IKE_PORT,
  type Layer,
  type OverlayLink,
  overlayPolicies,
  overlaySas,
} from '#telescope/plan'
import { reqId } from '#telescope/plane'
import type { CipherDriver } from '#telescope/seal'

export const ROLES = ['client', 'entry', 'middle', 'exit'] as const
export type LineRole = (typeof ROLES)[number]
export type Way = 'up' | 'down'

/** Microseconds per packet. */
export type Costs = Readonly<Record<Way, Readonly<Record<LineRole, number>>>>

const ADDRESSES: readonly Ip[] = ['198.18.1.1', '198.18.10.1', '198.18.20.1', '198.18.30.1'].map(ip)
const POOLS: readonly Prefix[] = ['10.65.0.0/16', '10.66.0.0/16', '10.67.0.0/16'].map(prefix)
const FIRST_LEASE = [0x0a41_0002, 0x0a42_0002, 0x0a43_0002]
const SERVER = [203, 0, 113, 80]
/** Packets between two looks at the clock. */
const CHUNK = 100
/** Where further nodes and their pools begin. */
const PEER = 0xc612_8000
const PEER_POOL = 0x0a80_0000

export interface LineSize {
  readonly circuits: number
  /** Nodes beside the three, each with a tunnel to all of them. */
  readonly peers?: number
}

export class Line {
  readonly #memory: Arena
  readonly #engines: readonly PacketEngine[]
  readonly #circuits: number
  #spi = 0x1000

  constructor(
    memory: Arena,
    driver: CipherDriver,
    cipher: EspCipher,
    { circuits, peers = 0 }: LineSize = { circuits: 1 },
  ) {
    this.#memory = memory
    this.#circuits = circuits
    this.#engines = ROLES.map(() => new PacketEngine({ driver }))
    const links = [1, 2].map((i) => this.#join(i, cipher))
    for (const [i, pool] of POOLS.entries()) this.#engines[i + 1]!.apply(harden(pool, i === 2))
    for (let n = 0; n < peers; n++) this.#meet(n, cipher)
    for (let n = 0; n < circuits; n++) this.#extend(n, cipher, links)
  }

  /** `count` packets of `length` octets there and back, over circuits at random. */
  measure(count: number, length: number): Costs {
    const circuits = Array.from({ length: count }, () => Math.floor(Math.random() * this.#circuits))
    const up = this.#run([0, 1, 2, 3], packets(circuits, length, 'up'))
    const down = this.#run([3, 2, 1, 0], packets(circuits, length, 'down'))
    return { up, down }
  }

  /** Each engine takes what the one before made of all packets. */
  #run(order: readonly number[], first: Uint8Array[]): Record<LineRole, number> {
    const costs: Record<LineRole, number> = { client: 0, entry: 0, middle: 0, exit: 0 }
    let batch = first
    for (const [step, i] of order.entries()) {
      const engine = this.#engines[i]!
      const next: Uint8Array[] = []
      const times: number[] = []
      for (let at = 0; at < batch.length; at += CHUNK) {
        const chunk = batch.slice(at, at + CHUNK)
        const results = chunk.map(() => 0)
        const began = performance.now()
        for (const [k, packet] of chunk.entries()) {
          this.#memory.bytes.set(packet, HEADROOM)
          results[k] =
            step === 0
              ? engine.fromTun(this.#memory.bytes, HEADROOM, packet.length)
              : engine.fromNetwork(this.#memory.bytes, HEADROOM, packet.length)
          next.push(this.#memory.bytes.slice(engine.offset, engine.offset + engine.length))
        }
        times.push(((performance.now() - began) * 1000) / chunk.length)
        if (results.includes(VERDICT.drop))
          throw new Error(`${ROLES[i]} dropped a packet: ${JSON.stringify(engine.drops())}`)
      }
      costs[ROLES[i]!] = times.sort((a, b) => a - b)[times.length >> 1]!
      batch = next
    }
    return costs
  }

  /** The overlay tunnel between node `i` and the next. */
  #join(i: number, cipher: EspCipher): { readonly near: OverlayLink; readonly far: OverlayLink } {
    const [near, far] = [i, i + 1].map(
      (self, end): OverlayLink => ({
        self: ADDRESSES[self]!,
        selfPool: POOLS[self - 1]!,
        peer: ADDRESSES[end === 0 ? i + 1 : i]!,
        peerPool: POOLS[(end === 0 ? i + 1 : i) - 1]!,
        reqid: reqId(i),
      }),
    )
    const [a, b] = this.#childPair(cipher)
    this.#engines[i]!.apply([...overlayPolicies(near!), ...overlaySas(near!, a)])
    this.#engines[i + 1]!.apply([...overlayPolicies(far!), ...overlaySas(far!, b)])
    return { near: near!, far: far! }
  }

  /** A tunnel from every node of the line to one more node. */
  #meet(n: number, cipher: EspCipher): void {
    const peer = uint32ToIp(PEER + n)
    const peerPool = prefix(`${uint32ToIp(PEER_POOL + (n << 8))}/24`)
    for (const [i, selfPool] of POOLS.entries()) {
      const link = { self: ADDRESSES[i + 1]!, selfPool, peer, peerPool, reqid: reqId(100_000 + 3 * n + i) }
      const [child] = this.#childPair(cipher)
      this.#engines[i + 1]!.apply([...overlayPolicies(link), ...overlaySas(link, child)])
    }
  }

  #extend(n: number, cipher: EspCipher, links: readonly { readonly far: OverlayLink }[]): void {
    const layers: Layer[] = []
    for (const hop of [0, 1, 2]) {
      const [child, theirs] = this.#childPair(cipher)
      const leased = uint32ToIp(FIRST_LEASE[hop]! + n)
      const outerSource = hop === 0 ? ADDRESSES[0]! : layers[hop - 1]!.leased
      const reqid = reqId(10 + 3 * n + hop)
      const next = hop === 2 ? {} : { next: { address: ADDRESSES[hop + 2]!, port: IKE_PORT } }
      layers.push({ hop: ADDRESSES[hop + 1]!, outerSource, leased, reqid, child, ...next })
      this.#engines[0]!.apply(clientExtend(layers))
      const via = hop === 0 ? {} : { via: links[hop - 1]!.far }
      const binding: Binding = {
        self: ADDRESSES[hop + 1]!,
        client: outerSource,
        leased,
        reqid,
        child: theirs,
        ...via,
      }
      this.#engines[hop + 1]!.apply(bind(binding))
    }
  }

  /** The two ends of one Child SA. */
  #childPair(cipher: EspCipher): [ChildSa, ChildSa] {
    const [one, other] = [this.#spi++, this.#spi++] as [number, number] as [Spi, Spi]
    const length = ESP_CIPHERS[cipher].keyLength + 4
    const [there, back] = [randomBytes(length), randomBytes(length)]
    const common = { cipher, esn: true, localSelectors: [], remoteSelectors: [] }
    return [
      { ...common, inboundSpi: one, outboundSpi: other, inboundKey: back, outboundKey: there },
      // Keys are the engine's once it has them.
      {
        ...common,
        inboundSpi: other,
        outboundSpi: one,
        inboundKey: Uint8Array.from(there),
        outboundKey: Uint8Array.from(back),
      },
    ]
  }
}

/** UDP datagrams between a telescope's innermost address and the server. */
function packets(circuits: readonly number[], length: number, way: Way): Uint8Array[] {
  return circuits.map((n) => {
    const bytes = new Uint8Array(length)
    const view = new DataView(bytes.buffer)
    const [client, server] = way === 'up' ? [12, 16] : [16, 12]
    bytes.set([0x45, 0, length >> 8, length & 255, 0, 0, 0x40, 0, 64, 17])
    view.setUint32(client, FIRST_LEASE[2]! + n)
    bytes.set(SERVER, server)
    view.setUint16(10, headerChecksum(view))
    view.setUint16(20, 5000)
    view.setUint16(22, 5001)
    view.setUint16(24, length - 20)
    return bytes
  })
}

function headerChecksum(view: DataView): number {
  let sum = 0
  for (let at = 0; at < 20; at += 2) sum += view.getUint16(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
