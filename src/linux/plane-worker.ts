import { networkInterfaces } from 'node:os'
import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type Ip, ipToUint32, uint32ToIp } from '#base/ip'
import { cipherDriver } from '#linux/ciphers'
import { Coalescer } from '#linux/coalescer'
import { EspSocket, NAT_T_PORT } from '#linux/esp-socket'
import { Arena, C, E, errno, failure, MessageBatch, PollSet, sys } from '#linux/ffi'
import type { PlaneCommand, PlaneReply, PlaneRequest, PlaneWorkerData } from '#linux/plane-messages'
import { Segmenter } from '#linux/segmenter'
import { TUN_READ, Tun } from '#linux/tun'
import { VIRTIO_HEADER } from '#linux/virtio'
import { HEADROOM, PacketEngine, TAILROOM, VERDICT, type Verdict } from '#telescope/engine'
import type { PlaneOperation } from '#telescope/plane'
import { destination, IPV4_HEADER, PROTOCOL, protocol, source } from '#wire/ipv4'

/**
 * The thread of the userspace plane: packets between the TUN, the raw sockets and the engine, in batches. It is
 * synchronous from end to end: it blocks in poll() and nowhere else, and its event loop never turns.
 */

const BATCH = 64
const SLOT = 4096
/** Where a packet is received inside its slot. */
const START = (HEADROOM + 15) & ~15
const CAPACITY = SLOT - START - TAILROOM
/** Behind the slots: where the TUN is read to, so that the packet behind the virtio header is aligned. */
const INTAKE = BATCH * SLOT + 16 - VIRTIO_HEADER
const INTAKE_LENGTH = 16 + TUN_READ
/** poll() ends after this long, in ms: a thread that is asked to terminate cannot do so inside the call. */
const POLL_TIMEOUT = 500
/** Addresses of the host are read again after this long, in ms, and with every command. */
const ADDRESS_INTERVAL = 2000

const WAKE = 0
const TUN = 1
const ESP = 2
const UDP = 3

/** One for all packets of the thread; the cipher driver computes addresses in it. */
const memory = new Arena(BATCH * SLOT + INTAKE_LENGTH)
const wakeCount = new Arena(8)

class PlaneLoop {
  readonly #data: PlaneWorkerData
  readonly #engine = new PacketEngine({ driver: cipherDriver(memory) })
  readonly #tun: Tun
  readonly #segmenter = new Segmenter(memory, CAPACITY)
  readonly #coalescer: Coalescer
  readonly #esp: EspSocket
  #udp: EspSocket | undefined
  readonly #poll = new PollSet(4)
  readonly #receive = new MessageBatch(BATCH)
  readonly #sendEsp = new MessageBatch(BATCH)
  readonly #sendUdp = new MessageBatch(BATCH)
  #queuedEsp = 0
  #queuedUdp = 0
  #sendFailures = 0
  #readFailures = 0
  /** Slots in use, of a batch from the TUN. */
  #slot = 0
  #addressesRead = 0
  #closing = false

  constructor(data: PlaneWorkerData) {
    this.#data = data
    // The sockets first: privileges are checked before a device appears.
    this.#esp = EspSocket.open('esp')
    try {
      this.#tun = Tun.open(data.device, data.mtu)
    } catch (error) {
      this.#esp.close()
      throw error
    }
    this.#coalescer = new Coalescer(memory, this.#tun.fd)
    for (let i = 0; i < BATCH; i++) this.#receive.setBuffer(i, memory.address + i * SLOT + START, CAPACITY)
    this.#poll.set(WAKE, data.wakeFd, C.POLLIN)
    this.#poll.set(TUN, this.#tun.fd, C.POLLIN)
    this.#poll.set(ESP, this.#esp.fd, C.POLLIN)
  }

  run(): void {
    try {
      this.#readAddresses()
      this.#say({ kind: 'opened' })
      while (!this.#closing) this.#turn()
    } finally {
      this.#engine.clear()
      this.#tun.close()
      this.#esp.close()
      this.#udp?.close()
    }
  }

  #turn(): void {
    this.#poll.wait(POLL_TIMEOUT)
    if (this.#poll.ready(WAKE)) this.#takeCommands()
    if (performance.now() - this.#addressesRead > ADDRESS_INTERVAL) this.#readAddresses()
    if (this.#poll.ready(ESP)) this.#drainSocket(this.#esp)
    if (this.#udp !== undefined && this.#poll.ready(UDP)) this.#drainSocket(this.#udp)
    if (this.#poll.ready(TUN)) this.#drainTun()
    for (const sa of this.#engine.takeHeard()) this.#say({ kind: 'heard', sa })
  }

  #drainSocket(socket: EspSocket): void {
    const count = socket.receive(this.#receive)
    for (let i = 0; i < count; i++) {
      // A truncated packet fails the length check of its header.
      const length = Math.min(this.#receive.length(i), CAPACITY)
      this.#dispatch(this.#engine.fromNetwork(memory.bytes, i * SLOT + START, length))
    }
    this.#flush()
  }

  #drainTun(): void {
    // A read may fill every slot by itself: it is followed by another only while it is likely not to.
    for (let reads = 0; reads < BATCH && this.#slot < BATCH / 2; reads++) {
      const length = sys.read(this.#tun.fd, memory.address + INTAKE, TUN_READ)
      if (length < 0) {
        const code = errno()
        if (code === E.again || code === E.interrupted) break
        throw failure(`read ${this.#tun.name}`)
      }
      if (this.#segmenter.begin(INTAKE, length)) this.#sealSegments()
      else this.#readFailures++
    }
    this.#flush()
  }

  #sealSegments(): void {
    for (;;) {
      if (this.#slot === BATCH) this.#flush()
      const at = this.#slot * SLOT + START
      const length = this.#segmenter.next(at)
      if (length === 0) return
      this.#slot++
      this.#dispatch(this.#engine.fromTun(memory.bytes, at, length))
    }
  }

  /** Sends the engine's result, or queues it until the end of the batch: it stays in its slot until then. */
  #dispatch(verdict: Verdict): void {
    const { offset, length } = this.#engine
    if (verdict === VERDICT.tun) return this.#coalescer.push(offset, length)
    if (verdict !== VERDICT.network) return
    // The kernel writes the outer IP header.
    const encapsulated = protocol(memory.bytes, offset) === PROTOCOL.udp
    const batch = encapsulated ? this.#sendUdp : this.#sendEsp
    const i = encapsulated ? this.#queuedUdp++ : this.#queuedEsp++
    batch.setBuffer(i, memory.address + offset + IPV4_HEADER, length - IPV4_HEADER)
    batch.setAddresses(i, source(memory.bytes, offset), destination(memory.bytes, offset))
  }

  /** Ends a batch: everything goes out, and every slot is free again. */
  #flush(): void {
    this.#coalescer.flush()
    if (this.#queuedEsp > 0) this.#sendFailures += this.#esp.send(this.#sendEsp, this.#queuedEsp)
    if (this.#queuedUdp > 0) this.#sendFailures += this.#udp!.send(this.#sendUdp, this.#queuedUdp)
    this.#queuedEsp = 0
    this.#queuedUdp = 0
    this.#slot = 0
  }

  #takeCommands(): void {
    sys.read(this.#data.wakeFd, wakeCount.address, 8)
    this.#readAddresses()
    for (;;) {
      const received = receiveMessageOnPort(this.#data.port) as { message: PlaneRequest } | undefined
      if (received === undefined) return
      const request = received.message
      try {
        this.#say({ kind: 'done', id: request.id, value: this.#perform(request) })
      } catch (error) {
        if (!(error instanceof IpprivError)) throw error
        this.#say({ kind: 'refused', id: request.id, code: error.code, where: error.where })
      }
    }
  }

  #perform(command: PlaneCommand): unknown {
    switch (command.kind) {
      case 'apply':
        return this.#apply(command.operations)
      case 'counters':
        return this.#engine.counters()
      case 'drops':
        return {
          ...this.#engine.drops(),
          XfrmOutError: this.#sendFailures,
          TunReadError: this.#readFailures,
          TunWriteError: this.#coalescer.failures,
        }
      case 'close':
        this.#closing = true
        return undefined
    }
  }

  #apply(operations: readonly PlaneOperation[]): void {
    try {
      for (const operation of operations)
        if (operation.kind === 'sa.install' && operation.sa.encapsulation !== undefined)
          this.#openUdp(operation.sa.encapsulation, operation.sa.flow)
      this.#engine.apply(operations)
    } finally {
      // Ours is a copy, and the ciphers have theirs.
      for (const operation of operations) if (operation.kind === 'sa.install') wipe(operation.sa.key)
    }
  }

  #openUdp(ports: { sourcePort: number; destinationPort: number }, flow: 'inbound' | 'outbound'): void {
    const local = flow === 'inbound' ? ports.destinationPort : ports.sourcePort
    if (local !== NAT_T_PORT)
      throw new IpprivError('IPP_PLANE_OPERATION', `UDP encapsulation on port ${local}, not ${NAT_T_PORT}`)
    if (this.#udp !== undefined) return
    this.#udp = EspSocket.open('udp')
    this.#poll.set(UDP, this.#udp.fd, C.POLLIN)
  }

  #readAddresses(): void {
    this.#addressesRead = performance.now()
    this.#engine.setHostAddresses(hostAddresses())
  }

  #say(reply: PlaneReply): void {
    this.#data.port.postMessage(reply)
  }
}

/** Every IPv4 address of this host, with the network and broadcast addresses that are delivered locally as well. */
function hostAddresses(): Ip[] {
  const addresses: Ip[] = []
  for (const list of Object.values(networkInterfaces()))
    for (const { family, address, netmask } of list ?? []) {
      if (family !== 'IPv4') continue
      addresses.push(address as Ip)
      const mask = ipToUint32(netmask as Ip)
      const own = ipToUint32(address as Ip)
      if (~mask >>> 0 >= 3) addresses.push(uint32ToIp((own & mask) >>> 0), uint32ToIp((own | ~mask) >>> 0))
    }
  return addresses
}

function main(data: PlaneWorkerData): void {
  try {
    new PlaneLoop(data).run()
  } catch (error) {
    const reason =
      error instanceof IpprivError
        ? { code: error.code, where: error.where }
        : { code: 'IPP_INTERNAL' as const, where: error instanceof Error ? error.message : String(error) }
    data.port.postMessage({ kind: 'failed', ...reason } satisfies PlaneReply)
  } finally {
    data.port.close()
  }
}

main(workerData as PlaneWorkerData)
