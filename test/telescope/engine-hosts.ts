/**
 * Hosts made of a packet engine and the least of an IP stack, joined by an underlay that delivers by destination
 * address. Policies are those of the table "Policies and states" of the design notes, one function per role:
 *
 *     S ==A== A ==overlay== B ==overlay== C ---- D        (D is a plain host)
 */
import assert from 'node:assert/strict'
import type { Spi } from '#base/ids'
import { ANY, host, type Ip, ip, ipToUint32, type Prefix } from '#base/ip'
import { NodeCipherDriver } from '#linux/ciphers'
import type { DropReason } from '#telescope/drops'
import { HEADROOM, PacketEngine, TAILROOM, VERDICT, type Verdict } from '#telescope/engine'
import type { PlaneOperation, PolicySpec, SaSpec, Template } from '#telescope/plane'
import { PRIORITY, reqId } from '#telescope/plane'
import { addressText, destination, IPV4_HEADER, source, totalLength, writeIpv4 } from '#wire/ipv4'

export const ROOM = 4096

export class Host {
  readonly name: string
  readonly address: Ip
  readonly pool: Prefix | undefined
  readonly engine = new PacketEngine({ driver: new NodeCipherDriver() })
  readonly network: Network
  /** What the engine wrote to the TUN. */
  readonly delivered: Uint8Array[] = []
  /** What the engine sent, as it left. */
  readonly sent: Uint8Array[] = []

  constructor(network: Network, name: string, address: string, pool?: Prefix) {
    this.network = network
    this.name = name
    this.address = ip(address)
    this.pool = pool
    network.hosts.set(this.address, this)
  }

  apply(...operations: PlaneOperation[]): void {
    this.engine.apply(operations)
  }

  /** The kernel routes a packet into the TUN. */
  route(packet: Uint8Array): void {
    this.#take(packet, (bytes, at, length) => this.engine.fromTun(bytes, at, length))
  }

  /** The underlay delivers a packet. */
  receive(packet: Uint8Array): void {
    this.#take(packet, (bytes, at, length) => this.engine.fromNetwork(bytes, at, length))
  }

  /** Drops counted since the last call, those that are not zero. */
  drops(): Partial<Record<DropReason, number>> {
    const now = this.engine.drops()
    const since: Partial<Record<DropReason, number>> = {}
    for (const [reason, count] of Object.entries(now) as [DropReason, number][])
      if (count !== (this.#before[reason] ?? 0)) since[reason] = count - (this.#before[reason] ?? 0)
    this.#before = now
    return since
  }

  #before: Partial<Record<DropReason, number>> = {}

  #take(packet: Uint8Array, engine: (bytes: Uint8Array, at: number, length: number) => Verdict): void {
    // Guards around the packet show a write outside of what the engine promises to touch.
    const bytes = new Uint8Array(ROOM).fill(0xee)
    const at = HEADROOM + 16
    bytes.set(packet, at)
    const verdict = engine(bytes, at, packet.length)
    const end = at + packet.length + TAILROOM
    assert.ok(
      bytes.subarray(0, 16).every((octet) => octet === 0xee),
      'wrote in front of the headroom',
    )
    assert.ok(
      bytes.subarray(end).every((octet) => octet === 0xee),
      'wrote behind the tailroom',
    )
    if (verdict === VERDICT.drop) return
    const { offset, length } = this.engine
    const result = bytes.slice(offset, offset + length)
    assert.equal(totalLength(result, 0), length)
    if (verdict === VERDICT.tun) this.delivered.push(result)
    else {
      this.sent.push(result)
      this.network.carry(result)
    }
  }
}

export class Network {
  readonly hosts = new Map<Ip, Host>()
  /** Every packet on the underlay, in order. */
  readonly wire: Uint8Array[] = []

  carry(packet: Uint8Array): void {
    this.wire.push(packet)
    this.hosts.get(addressText(destination(packet, 0)))?.receive(packet)
  }
}

let spis = 0x1000
let seeds = 1

/** One SA, on its receiver first and then on its sender. @returns its key. */
export function installSa(
  from: Ip,
  to: Ip,
  index: number,
  receiver: Host,
  sender: Host,
  more: Partial<SaSpec> = {},
) {
  const seed = seeds++
  const sa = {
    source: from,
    destination: to,
    spi: spis++ as Spi,
    reqid: reqId(index),
    cipher: 'aes-256-gcm-16',
    key: Uint8Array.from({ length: 36 }, (_, i) => (seed * 31 + i * 7) & 255),
    esn: true,
    replayWindow: 1024,
    ...more,
  } as const
  receiver.apply({ kind: 'sa.install', sa: { ...sa, flow: 'inbound' } })
  sender.apply({ kind: 'sa.install', sa: { ...sa, flow: 'outbound' } })
  return sa
}

export const policy = (
  direction: PolicySpec['direction'],
  from: Prefix,
  to: Prefix,
  priority: number,
  templates: readonly Template[] | 'block',
): PlaneOperation => ({
  kind: 'policy.install',
  policy: {
    direction,
    selector: { source: from, destination: to },
    action: templates === 'block' ? 'block' : 'protect',
    priority,
    templates: templates === 'block' ? [] : templates,
  },
})

export const template = (from: Ip, to: Ip, index: number): Template => ({
  source: from,
  destination: to,
  reqid: reqId(index),
})

/** The long-term tunnel between two nodes. */
export function overlay(x: Host, y: Host, index: number): void {
  for (const [a, b] of [
    [x, y],
    [y, x],
  ] as const) {
    installSa(a.address, b.address, index, b, a)
    const out = [template(a.address, b.address, index)]
    const back = [template(b.address, a.address, index)]
    a.apply(
      policy('out', a.pool!, host(b.address), PRIORITY.overlay, out),
      policy('out', host(a.address), b.pool!, PRIORITY.overlay, out),
      policy('out', host(a.address), host(b.address), PRIORITY.overlayNodeToNode, out),
      policy('fwd', host(b.address), a.pool!, PRIORITY.overlay, back),
      policy('in', b.pool!, host(a.address), PRIORITY.overlay, back),
      policy('in', host(b.address), host(a.address), PRIORITY.overlayNodeToNode, back),
    )
  }
}

export function harden(node: Host, role: 'relay' | 'exit'): void {
  node.apply(policy('fwd', node.pool!, node.pool!, PRIORITY.isolation, 'block'))
  if (role === 'exit') return
  node.apply(
    policy('fwd', ANY, node.pool!, PRIORITY.injection, 'block'),
    policy('out', node.pool!, ANY, PRIORITY.injection, 'block'),
  )
}

export function guard(client: Host): void {
  for (const direction of ['in', 'out', 'fwd'] as const)
    client.apply(policy(direction, ANY, ANY, PRIORITY.guard, 'block'))
}

/** A client's telescope, layer by layer. */
export class Telescope {
  readonly client: Host
  readonly out: Template[] = []
  readonly in: Template[] = []
  readonly addresses: Ip[] = []

  constructor(client: Host) {
    this.client = client
  }

  /** Adds the layer to `node`, reached from the previous one through the overlay tunnel `overlayIndex`. */
  extend(node: Host, lent: string, index: number, previous?: Host, overlayIndex = 0): void {
    const from = this.addresses.at(-1) ?? this.client.address
    const own = ip(lent)
    installSa(from, node.address, index, node, this.client)
    installSa(node.address, from, index, this.client, node)
    this.out.unshift(template(from, node.address, index))
    this.in.unshift(template(node.address, from, index))
    this.addresses.push(own)
    this.client.apply(
      policy('out', host(own), ANY, PRIORITY.circuit, [...this.out]),
      policy('in', ANY, host(own), PRIORITY.circuit, [...this.in]),
    )
    const inward = previous === undefined ? [] : [template(previous.address, node.address, overlayIndex)]
    const outward = previous === undefined ? [] : [template(node.address, previous.address, overlayIndex)]
    node.apply(
      policy('fwd', host(own), ANY, PRIORITY.circuit, [template(from, node.address, index), ...inward]),
      policy('out', ANY, host(own), PRIORITY.circuit, [template(node.address, from, index), ...outward]),
    )
  }
}

/** A UDP-shaped packet. */
export function packet(
  from: string,
  to: string,
  more: {
    length?: number
    ttl?: number
    tos?: number
    df?: boolean
    ports?: [number, number]
    protocol?: number
  } = {},
): Uint8Array {
  const length = more.length ?? 60
  const bytes = new Uint8Array(length)
  for (let i = IPV4_HEADER + 8; i < length; i++) bytes[i] = i & 255
  writeIpv4(bytes, 0, {
    totalLength: length,
    protocol: more.protocol ?? 17,
    ttl: more.ttl ?? 64,
    tos: more.tos ?? 0,
    id: 0x7777,
    dontFragment: more.df ?? false,
    source: ipToUint32(ip(from)),
    destination: ipToUint32(ip(to)),
  })
  const [sourcePort, destinationPort] = more.ports ?? [40000, 40001]
  if (length >= IPV4_HEADER + 8) new DataView(bytes.buffer).setUint16(20, sourcePort)
  if (length >= IPV4_HEADER + 8) new DataView(bytes.buffer).setUint16(22, destinationPort)
  return bytes
}

export const ends = (bytes: Uint8Array): string =>
  `${addressText(source(bytes, 0))} > ${addressText(destination(bytes, 0))}`
