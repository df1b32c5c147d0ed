/**
 * A whole overlay in one process and in virtual time: the production machines (client, routers), the production
 * packet engine with real ESP, and between the hosts a network that loses, duplicates and reorders by a seed.
 *
 *      client S ----.                 .---- node A, B, C, ...
 *                    >--  network  --<
 *      server D ----'                 '---- (every pair may talk; only what the machines send is sent)
 *
 * Not simulated: the kernel's routing and the packet filter. A packet is handed to the engine as if the kernel had
 * routed it into the plane's device, which is what every route of ours does.
 */
import type { ReqId } from '#base/ids'
import { contains, type Ip, ip, ipToUint32, prefix, type UdpPath } from '#base/ip'
import type { Machine } from '#base/machine'
import type { Rng } from '#base/rng'
import { type Duration, type Instant, instant, unixTime } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import { nodeIdOf } from '#directory/descriptor'
import type { Consensus, ConsensusNode, NodeRole } from '#directory/documents'
import type { Lifetimes } from '#ikev2/events'
import { NAT_T_PORT } from '#ikev2/nat'
import { NodeCipherDriver } from '#linux/ciphers'
import { DEFAULT_EXIT_POLICY } from '#nat/exit-policy'
import { type ClientEvent, type ClientInput, OverlayClient } from '#overlay/client'
import type { SampledGuard } from '#overlay/entry-guards'
import type { IsolationRule } from '#overlay/groups'
import type { Effect, HostOperation } from '#overlay/ports'
import type { ReserveOptions } from '#overlay/reserve'
import { OverlayRouter, type RouterEvent, type RouterInput } from '#overlay/router'
import { HEADROOM, PacketEngine, TAILROOM, VERDICT } from '#telescope/engine'
import type { Inventory, PlaneOperation, PolicySpec, SaKey, Selector } from '#telescope/plane'
import { addressText, destination, IPV4_HEADER, PROTOCOL, protocol, source, writeIpv4 } from '#wire/ipv4'
import { destinationPort, NON_ESP_MARKER, sourcePort, UDP_HEADER, writeUdp } from '#wire/udp'
import type { NatBox } from './nat.ts'

export interface Weather {
  /** Probability that a packet is lost, sent twice, or late by up to `jitter`. */
  readonly loss: number
  readonly duplication: number
  readonly latency: Duration
  readonly jitter: Duration
}

export const FAIR: Weather = { loss: 0, duplication: 0, latency: 5, jitter: 0 }
export const POOL_SPACE = prefix('10.64.0.0/10')
export const CLIENT = ip('198.18.1.1')
export const SERVER = ip('198.18.40.1')

/** Who listens where. */
export interface Taps {
  readonly keyLog?: boolean
  /** False: SAs have 32-bit sequence numbers, as with peers that know no others. */
  readonly esn?: boolean
  /** Every IP packet that is put on the network, whatever becomes of it. */
  packet?(packet: Uint8Array): void
  /** Every IKE datagram that a host hears, as the last tunnel let it out. */
  heard?(at: Ip, path: UdpPath, bytes: Uint8Array): void
}

export interface Delivery {
  readonly at: Ip
  readonly from: Ip
  readonly payload: string
}

export class SimOverlay {
  now: Instant = instant(1000)
  weather: Weather
  readonly consensus: Consensus
  readonly routers = new Map<string, SimHost<RouterInput, RouterEvent, OverlayRouter>>()
  client: SimClient
  /** Datagrams of applications that arrived: at the server, or back at the client. */
  readonly delivered: Delivery[] = []
  /** Every packet that crossed the network: outer source, destination, protocol. */
  readonly wire: { readonly from: Ip; readonly to: Ip; readonly protocol: number }[] = []
  readonly taps: Taps
  /** A NAT that somebody stands behind. */
  nat: NatBox | undefined
  readonly #rng: SeededRng
  readonly #hurry: { readonly lifetimes?: Lifetimes }
  /** `client` is one of them. */
  readonly clients: SimClient[] = []
  readonly #nodes = new Map<string, SimNode>()
  readonly #queue: { readonly due: number; readonly order: number; readonly deliver: () => void }[] = []
  #order = 0
  #kept: readonly SampledGuard[] = []

  constructor(
    names: readonly string[],
    options: {
      seed: number
      weather?: Weather
      hops?: number
      path?: string[]
      poolLength?: number
      lifetimes?: Lifetimes
      taps?: Taps
      reserve?: ReserveOptions
      onDemand?: boolean
      isolation?: readonly IsolationRule[]
    },
  ) {
    this.taps = options.taps ?? {}
    this.#rng = new SeededRng(options.seed)
    this.weather = options.weather ?? FAIR
    this.#hurry = options.lifetimes ? { lifetimes: options.lifetimes } : {}
    const nodes = names.map((name, index) => simNode(name, index, options.poolLength ?? 20))
    this.consensus = {
      validAfter: unixTime(0),
      freshUntil: unixTime(3600),
      validUntil: unixTime(10800),
      serial: 1,
      poolSpace: POOL_SPACE,
      nodes: nodes.map(({ listed }) => listed).sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1)),
    }
    for (const node of nodes) {
      this.#nodes.set(node.listed.name, node)
      this.boot(node.listed.name)
    }
    this.client = this.addClient({ ...options, address: CLIENT })
  }

  /** A client's host; it is not started yet. `skew`: how much more its clock shows. */
  addClient(options: {
    readonly address: Ip
    readonly hops?: number
    readonly path?: readonly string[]
    readonly crypto?: CryptoProvider
    readonly skew?: Duration
    readonly guards?: readonly SampledGuard[]
    readonly reserve?: ReserveOptions
    readonly onDemand?: boolean
    readonly isolation?: readonly IsolationRule[]
  }): SimClient {
    const { address, crypto = nodeCrypto, skew = 0 } = options
    const machine = new OverlayClient({
      self: address,
      directories: [{ address: ip('198.18.50.1'), port: 9030 }],
      context: { plane: 'userspace', device: 'ippriv0', address },
      hops: options.hops ?? 3,
      ciphers: ['aes-256-gcm-16'],
      sameNetwork: true,
      crypto,
      rng: this.#rng,
      keyLog: this.taps.keyLog === true,
      ...(options.path ? { path: options.path } : {}),
      ...(options.reserve ? { reserve: options.reserve } : {}),
      ...(options.onDemand ? { onDemand: true } : {}),
      ...(options.isolation ? { isolation: options.isolation } : {}),
      ...(options.guards ? { guards: options.guards } : {}),
      ...this.#hurry,
    })
    const host: SimClient = new SimHost(this, machine, address, skew)
    this.clients.push(host)
    return host
  }

  /** The client's host with nothing left of its past but what it asked to be kept. */
  rebootClient(): void {
    const told = this.client.events.findLast((event) => event.kind === 'guards.changed')
    this.#kept = told?.sampled ?? this.#kept
    this.clients.splice(this.clients.indexOf(this.client), 1)
    this.client = this.addClient({ address: this.client.address, guards: this.#kept })
  }

  /**
   * A node's host with an empty memory: the first time, or after a crash. It is not started yet. With a `predecessor`
   * its program alone crashed: the data plane is the kernel's, and still there.
   */
  boot(name: string, predecessor?: SimNodeHost): SimNodeHost {
    const { listed, ikeKey } = this.#nodes.get(name)!
    const router = new OverlayRouter({
      nodeId: listed.nodeId,
      self: listed.address,
      port: 500,
      roles: listed.roles,
      exitPolicy: listed.exitPolicy,
      ikeKey,
      ciphers: ['aes-256-gcm-16'],
      resumption: { kind: 'clocked', limit: 7_200_000 },
      context: { plane: 'userspace', device: 'ippriv0', address: listed.address },
      crypto: nodeCrypto,
      rng: this.#rng,
      keyLog: this.taps.keyLog === true,
      ...(predecessor === undefined ? {} : { inventory: predecessor.inventory() }),
      ...this.#hurry,
    })
    const host: SimNodeHost = new SimHost(this, router, listed.address, 0, predecessor)
    this.routers.set(name, host)
    return host
  }

  /** Starts every node and lets the overlay come up. */
  raise(patience: Duration = 60_000): boolean {
    for (const host of this.routers.values()) {
      host.input({ kind: 'start' })
      host.input({ kind: 'consensus', consensus: this.consensus })
    }
    return this.runUntil(() => this.linksUp === this.routers.size * (this.routers.size - 1), patience)
  }

  get linksUp(): number {
    let up = 0
    for (const { machine } of this.routers.values())
      up += machine.overlay().filter((link) => link.state === 'up').length
    return up
  }

  /** Runs until `done`, at most `patience` of virtual time. @returns whether it came to that */
  runUntil(done: () => boolean, patience: Duration): boolean {
    const deadline = this.now + patience
    while (!done()) {
      const next = this.#next()
      if (next === undefined || next > deadline) {
        this.now = instant(deadline)
        return done()
      }
      this.now = instant(Math.max(next, this.now))
      for (const host of this.#hosts()) host.tick()
      while ((this.#queue[0]?.due ?? Number.POSITIVE_INFINITY) <= this.now) this.#queue.shift()!.deliver()
    }
    return true
  }

  run(duration: Duration): void {
    this.runUntil(() => false, duration)
  }

  /** Puts a packet on the network, or not, as the weather has it. */
  transport(sent: Uint8Array): void {
    this.taps.packet?.(sent)
    const packet = this.nat === undefined ? sent : translate(this.nat, sent)
    if (packet === undefined) return
    const from = addressText(source(packet, 0))
    const to = addressText(destination(packet, 0))
    this.wire.push({ from, to, protocol: protocol(packet, 0) })
    const host = [...this.#hosts()].find(({ address }) => address === to)
    if (host === undefined) return
    const { loss, duplication, latency, jitter } = this.weather
    const copies = this.#rng.chance() < loss ? 0 : this.#rng.chance() < duplication ? 2 : 1
    for (let copy = 0; copy < copies; copy++) {
      const entry = {
        due: this.now + latency + this.#rng.chance() * jitter,
        order: this.#order++,
        deliver: () => host.hear(packet),
      }
      const at = this.#queue.findIndex(({ due }) => due > entry.due)
      this.#queue.splice(at < 0 ? this.#queue.length : at, 0, entry)
    }
  }

  /** A plain packet that left an exit: the server answers what it heard, to whom it came from. */
  arriveAtServer(exit: SimHost<RouterInput, RouterEvent, OverlayRouter>, packet: Uint8Array): void {
    const text = new TextDecoder().decode(packet.subarray(IPV4_HEADER + UDP_HEADER))
    this.delivered.push({ at: addressText(destination(packet, 0)), from: exit.address, payload: text })
    exit.fromKernel(
      udpPacket(
        destination(packet, 0),
        source(packet, 0),
        destinationPort(packet, IPV4_HEADER),
        sourcePort(packet, IPV4_HEADER),
        new TextEncoder().encode(`re: ${text}`),
      ),
    )
  }

  *#hosts(): Generator<AnyHost> {
    yield* this.routers.values()
    yield* this.clients
  }

  #next(): number | undefined {
    let next = this.#queue[0]?.due
    for (const host of this.#hosts()) {
      const timeout = host.alive ? host.nextTimeout() : undefined
      if (timeout !== undefined && (next === undefined || timeout < next)) next = timeout
    }
    return next
  }
}

export type SimNodeHost = SimHost<RouterInput, RouterEvent, OverlayRouter>
export type SimClient = SimHost<ClientInput, ClientEvent, OverlayClient>
type AnyHost = SimHost<RouterInput, RouterEvent, OverlayRouter> | SimClient

/** One machine with its engine; what the driver, the kernel and the plane are in a real host. */
export class SimHost<Input, Event, M extends Machine<Input, Effect<Event>>> {
  readonly machine: M
  address: Ip
  readonly events: Event[] = []
  readonly hostOperations: HostOperation[] = []
  readonly planeOperations: PlaneOperation[]
  /** SAs that announced their first packet. */
  readonly heard: string[] = []
  readonly engine: PacketEngine
  /** The plane and host effects this host cannot perform. */
  refuses: (effect: Effect<Event>) => boolean = () => false
  /** False: the host is dead and hears nothing. */
  alive = true
  /** False: its program is away, and its kernel goes on. */
  isRunning = true
  readonly addresses = new Set<Ip>()
  readonly #world: SimOverlay
  readonly #skew: Duration

  constructor(
    world: SimOverlay,
    machine: M,
    address: Ip,
    skew: Duration = 0,
    predecessor?: SimHost<Input, Event, M>,
  ) {
    this.engine = predecessor?.engine ?? new PacketEngine({ driver: new NodeCipherDriver() })
    this.planeOperations = [...(predecessor?.planeOperations ?? [])]
    this.#world = world
    this.#skew = skew
    this.machine = machine
    this.address = address
    this.addresses.add(address)
    this.engine.setHostAddresses([...this.addresses])
  }

  /** What a dump of the kernel's tables would show: all that was installed, and not removed since. */
  inventory(): Inventory {
    const policies = new Map<string, PolicySpec>()
    const sas = new Map<string, SaKey & { readonly reqid: ReqId }>()
    const saName = ({ source, destination, spi }: SaKey) => `${source} ${destination} ${spi}`
    const policyName = (direction: string, selector: Selector) => JSON.stringify([direction, selector])
    for (const each of this.planeOperations) {
      if (each.kind === 'sa.install') {
        const { source, destination, spi, reqid } = each.sa
        sas.set(saName(each.sa), { source, destination, spi, reqid })
      } else if (each.kind === 'sa.remove') sas.delete(saName(each.sa))
      else if (each.kind === 'policy.install')
        policies.set(policyName(each.policy.direction, each.policy.selector), each.policy)
      else if (each.kind === 'policy.remove') policies.delete(policyName(each.direction, each.selector))
    }
    return { policies: [...policies.values()], sas: [...sas.values()] }
  }

  input(input: Input): void {
    if (!this.alive || !this.isRunning) return
    this.machine.handle(input, this.#now)
    this.#perform()
  }

  tick(): void {
    if (!this.alive || !this.isRunning) return
    this.machine.tick(this.#now)
    this.#perform()
  }

  /** In the world's time. */
  nextTimeout(): number | undefined {
    const timeout = this.isRunning ? this.machine.nextTimeout() : undefined
    return timeout === undefined ? undefined : timeout - this.#skew
  }

  get #now(): Instant {
    return instant(this.#world.now + this.#skew)
  }

  /** An application datagram from this host. */
  say(from: Ip, to: Ip, port: number, text: string): void {
    this.fromKernel(udpPacket(ipToUint32(from), ipToUint32(to), port, port, new TextEncoder().encode(text)))
  }

  /** A packet the kernel would route into the plane's device. */
  fromKernel(packet: Uint8Array): void {
    const { buffer, offset } = room(packet)
    if (this.engine.fromTun(buffer, offset, packet.length) === VERDICT.network) this.#emit(buffer)
  }

  /** A packet from the network: for the packet engine, or for the socket of IKE. */
  hear(packet: Uint8Array): void {
    if (!this.alive) return
    if (protocol(packet, 0) === PROTOCOL.esp || isEspInUdp(packet)) return this.#hearEsp(packet)
    const local = { address: this.address, port: destinationPort(packet, IPV4_HEADER) }
    const remote = { address: addressText(source(packet, 0)), port: sourcePort(packet, IPV4_HEADER) }
    this.#hearUdp({ local, remote }, packet.slice(IPV4_HEADER + UDP_HEADER))
  }

  /** The host is somewhere else in the network. */
  relocate(address: Ip): void {
    this.addresses.delete(this.address)
    this.address = address
    this.addresses.add(address)
    this.engine.setHostAddresses([...this.addresses])
  }

  #hearEsp(packet: Uint8Array): void {
    const { buffer, offset } = room(packet)
    const verdict = this.engine.fromNetwork(buffer, offset, packet.length)
    if (verdict === VERDICT.network) this.#emit(buffer)
    const heard = this.engine.takeHeard()
    if (verdict === VERDICT.tun)
      this.#toKernel(buffer.slice(this.engine.offset, this.engine.offset + this.engine.length))
    for (const sa of heard) {
      this.heard.push(`${sa.source} ${sa.destination} ${sa.spi}`)
      this.input({ kind: 'heard', sa } as Input)
    }
  }

  #hearUdp(path: UdpPath, bytes: Uint8Array): void {
    this.#world.taps.heard?.(this.address, path, bytes)
    this.input({ kind: 'datagram', path, bytes } as Input)
  }

  #perform(): void {
    for (let effect = this.machine.poll(); effect !== undefined; effect = this.machine.poll()) {
      if (this.refuses(effect)) this.#refuse(effect)
      else if (effect.kind === 'plane') this.#plane(effect.operations)
      else if (effect.kind === 'event') this.events.push(effect.event)
      else if (effect.kind === 'host') this.#host(effect.operations)
      else if (effect.kind === 'transmit') this.#transmit(effect.path, effect.bytes)
      else throw new Error('machines of a simulation compute themselves')
    }
  }

  #refuse(effect: Effect<Event>): void {
    const failed = { kind: 'effect.failed', effect, code: 'IPP_HOST_TOOL', detail: 'no room' }
    this.machine.handle(failed as Input, this.#world.now)
  }

  #plane(operations: readonly PlaneOperation[]): void {
    const esn = this.#world.taps.esn
    const wanted = operations.map((each) =>
      each.kind === 'sa.install' && esn !== undefined ? { ...each, sa: { ...each.sa, esn } } : each,
    )
    this.planeOperations.push(...wanted)
    this.engine.apply(wanted)
  }

  #host(operations: readonly HostOperation[]): void {
    this.hostOperations.push(...operations)
    for (const operation of operations) {
      if (operation.kind === 'address.add') this.addresses.add(operation.address)
      if (operation.kind === 'address.remove') this.addresses.delete(operation.address)
    }
    this.engine.setHostAddresses([...this.addresses])
  }

  /** Private addresses are routed into the plane's device, public ones to the network. */
  #transmit(path: UdpPath, bytes: Uint8Array): void {
    const { local, remote } = path
    const packet = udpPacket(
      ipToUint32(local.address),
      ipToUint32(remote.address),
      local.port,
      remote.port,
      bytes,
    )
    if (contains(POOL_SPACE, local.address) || contains(POOL_SPACE, remote.address))
      return this.fromKernel(packet)
    this.#world.transport(packet)
  }

  #emit(buffer: Uint8Array): void {
    this.#world.transport(buffer.slice(this.engine.offset, this.engine.offset + this.engine.length))
  }

  /** What the engine hands to the kernel: for a socket here, for the Internet (an exit), or an answer to us. */
  #toKernel(packet: Uint8Array): void {
    const to = addressText(destination(packet, 0))
    if (protocol(packet, 0) !== PROTOCOL.udp) return
    const local = { address: to, port: destinationPort(packet, IPV4_HEADER) }
    const remote = { address: addressText(source(packet, 0)), port: sourcePort(packet, IPV4_HEADER) }
    const payload = packet.slice(IPV4_HEADER + UDP_HEADER)
    if (!this.addresses.has(to)) return this.#world.arriveAtServer(this as never, packet)
    if (local.port === 500) return this.#hearUdp({ local, remote }, payload)
    this.#world.delivered.push({ at: to, from: remote.address, payload: new TextDecoder().decode(payload) })
  }
}

interface SimNode {
  readonly listed: ConsensusNode
  readonly ikeKey: KeyPair
}

function simNode(name: string, index: number, poolLength: number): SimNode {
  const identity = nodeCrypto.ed25519Generate()
  const ikeKey = nodeCrypto.ed25519Generate()
  const roles: NodeRole[] = ['entry', 'middle', 'exit']
  const listed: ConsensusNode = {
    nodeId: nodeIdOf(identity.publicKey, nodeCrypto),
    identityKey: identity.publicKey,
    ikeKey: ikeKey.publicKey,
    name,
    address: ip(`198.18.${10 * (index + 1)}.7`),
    port: 500,
    roles,
    exitPolicy: DEFAULT_EXIT_POLICY,
    published: unixTime(0),
    software: 'ippriv test',
    pool: prefix(`10.64.${16 * index}.0/${poolLength}`),
  }
  return { listed, ikeKey }
}

function udpPacket(
  from: number,
  to: number,
  fromPort: number,
  toPort: number,
  payload: Uint8Array,
): Uint8Array {
  const packet = new Uint8Array(IPV4_HEADER + UDP_HEADER + payload.length)
  writeIpv4(packet, 0, {
    totalLength: packet.length,
    protocol: PROTOCOL.udp,
    ttl: 64,
    id: 0,
    dontFragment: false,
    tos: 0,
    source: from,
    destination: to,
  })
  writeUdp(packet, IPV4_HEADER, fromPort, toPort, UDP_HEADER + payload.length)
  packet.set(payload, IPV4_HEADER + UDP_HEADER)
  return packet
}

/** RFC 3948 section 2: neither IKE with its marker nor a keepalive. */
function isEspInUdp(packet: Uint8Array): boolean {
  if (destinationPort(packet, IPV4_HEADER) !== NAT_T_PORT) return false
  const payload = packet.subarray(IPV4_HEADER + UDP_HEADER)
  return payload.length > 1 && payload.subarray(0, NON_ESP_MARKER).some((octet) => octet !== 0)
}

/** UDP as it leaves the box, and nothing else of who is behind it. */
function translate(box: NatBox, packet: Uint8Array): Uint8Array | undefined {
  const isUdp = protocol(packet, 0) === PROTOCOL.udp
  const end = (address: number, port: number) => ({ address: addressText(address), port })
  const passed = box.pass({
    source: end(source(packet, 0), isUdp ? sourcePort(packet, IPV4_HEADER) : 0),
    destination: end(destination(packet, 0), isUdp ? destinationPort(packet, IPV4_HEADER) : 0),
    bytes: packet,
  })
  if (passed === undefined) return undefined
  const [from, to] = [passed.source, passed.destination]
  if (!isUdp) return from.address === addressText(source(packet, 0)) ? packet : undefined
  return udpPacket(
    ipToUint32(from.address),
    ipToUint32(to.address),
    from.port,
    to.port,
    packet.subarray(IPV4_HEADER + UDP_HEADER),
  )
}

function room(packet: Uint8Array): { buffer: Uint8Array; offset: number } {
  const buffer = new Uint8Array(HEADROOM + packet.length + TAILROOM)
  buffer.set(packet, HEADROOM)
  return { buffer, offset: HEADROOM }
}

/** xorshift32: the same world for the same seed. Never for keys: those come from the provider. */
class SeededRng implements Rng {
  #state: number

  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0 || 1
  }

  chance(): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x >>> 0
    return this.#state / 0x1_0000_0000
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => Math.floor(this.chance() * 256))
  }
}
