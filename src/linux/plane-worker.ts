import { networkInterfaces } from 'node:os'
import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type Ip, ipToUint32, uint32ToIp } from '#base/ip'
import { Coalescer } from '#linux/coalescer'
import { EspSocket } from '#linux/esp-socket'
import { Arena, C, E, errno, failure, MessageBatch, PollSet, sys } from '#linux/ffi'
import { INTAKE_LENGTH, Intake } from '#linux/intake'
import { measuredPlacement } from '#linux/placement'
import type { PlaneCommand, PlaneReply, PlaneRequest, PlaneWorkerData } from '#linux/plane-messages'
import { Segmenter } from '#linux/segmenter'
import { TUN_READ } from '#linux/tun'
import { Turns } from '#linux/turns'
import { VIRTIO_HEADER } from '#linux/virtio'
import { HEADROOM, PacketEngine, TAILROOM, VERDICT, type Verdict } from '#telescope/engine'
import { destination, IPV4_HEADER, PROTOCOL, protocol, source } from '#wire/ipv4'

/**
 * A thread of the userspace plane: packets between the TUN, the raw sockets and the engine, in batches. It is
 * synchronous from end to end: it blocks in poll(), or while it waits for its turn, and its event loop never turns.
 */

/**
 * Packets that are worked on together. Fewer cost calls; more keep the next host waiting, which may have a processor
 * that is free. Workers that take turns have the cost of a turn on top.
 */
const BATCH = (workerData as PlaneWorkerData).turns === undefined ? 24 : 64
const SLOT = 4096
/** Where a packet is received inside its slot. */
const START = (HEADROOM + 15) & ~15
const CAPACITY = SLOT - START - TAILROOM
/** Behind the slots: rooms of the intake; of workers that take turns, where the TUN is read to, aligned as there. */
const INTAKE = BATCH * SLOT
const LANDING = INTAKE + 16 - VIRTIO_HEADER
/** poll() ends after this long, in ms: a thread that is asked to terminate cannot do so inside the call. */
const POLL_TIMEOUT = 500
/** Who waits to receive looks for commands this often, in ms, should it have missed being woken. */
const FOLLOW_TIMEOUT = 50
/** Addresses of the host are read again after this long, in ms, and with every command. */
const ADDRESS_INTERVAL = 2000

const WAKE = 0
const TUN = 1
const ESP = 2
const UDP = 3

/** One for all packets of the thread; the cipher driver computes addresses in it. */
const memory = new Arena(BATCH * SLOT + INTAKE_LENGTH)
const wakeCount = new Arena(8)

const slot = (i: number): number => i * SLOT + START

class PlaneLoop {
  readonly #data: PlaneWorkerData
  readonly #turns: Turns | undefined
  readonly #placement = measuredPlacement(memory)
  readonly #engine = new PacketEngine({ driver: this.#placement })
  readonly #segmenter = new Segmenter(memory, CAPACITY)
  readonly #coalescer: Coalescer
  /** Of workers with descriptors of their own: others would have packets of the same flow. */
  readonly #intake: Intake | undefined
  readonly #esp: EspSocket
  #udp: EspSocket | undefined
  readonly #poll = new PollSet(4)
  readonly #receive = new MessageBatch(BATCH)
  readonly #sendEsp = new MessageBatch(BATCH)
  readonly #sendUdp = new MessageBatch(BATCH)
  /** Of the batch in hand: lengths of what arrived, by slot. */
  readonly #arrived = new Int32Array(BATCH)
  #arrivals = 0
  /** Behind them, a packet of the TUN that is yet to be cut. */
  #hasLarge = false
  /** What goes to the TUN: offset and length. */
  readonly #deliveries = new Int32Array(2 * BATCH)
  #delivered = 0
  #queuedEsp = 0
  #queuedUdp = 0
  /** Of the batch in hand, while its turn to be sent has not come. */
  #ticket: number | undefined
  #sendFailures = 0
  #readFailures = 0
  #addressesRead = 0
  #now = 0
  /** The last batch from the entrances was full. */
  #mayEnter = false
  #closing = false

  constructor(data: PlaneWorkerData) {
    this.#data = data
    this.#turns = data.turns && new Turns(data.turns)
    this.#esp = new EspSocket(data.espFd)
    this.#coalescer = new Coalescer(memory, data.tunFd)
    if (data.turns === undefined)
      this.#intake = new Intake(memory, INTAKE, CAPACITY, data, (offset, length) =>
        this.#engine.circuitOf(memory.bytes, offset, length),
      )
    for (let i = 0; i < BATCH; i++) this.#receive.setBuffer(i, memory.address + i * SLOT + START, CAPACITY)
    this.#poll.set(WAKE, data.wakeFd, C.POLLIN)
    this.#poll.set(TUN, data.tunFd, C.POLLIN)
    this.#poll.set(ESP, data.espFd, C.POLLIN)
  }

  run(): void {
    try {
      this.#readAddresses()
      this.#say({ kind: 'opened' })
      // While the main thread negotiates: nothing waits for it, and later packets would.
      this.#placement.prepare()
      while (!this.#closing) {
        if (this.#intake !== undefined) this.#loop(this.#intake)
        else this.#takeTurn(this.#turns!)
        for (const sa of this.#engine.takeHeard()) this.#say({ kind: 'heard', sa })
        if (performance.now() - this.#addressesRead > ADDRESS_INTERVAL) this.#readAddresses()
      }
    } finally {
      this.#engine.clear()
    }
  }

  /** All that is ready, by the only worker of these descriptors. The network first: that is further on its way. */
  #loop(intake: Intake): void {
    this.#poll.wait(this.#patience(intake.entrance))
    if (this.#poll.ready(WAKE)) this.#takeCommands()
    this.#now = performance.now()
    for (const source of [ESP, UDP]) if (this.#poll.ready(source) && this.#takeIn(source)) this.#work(source)
    if (this.#poll.ready(TUN)) intake.fill(this.#now)
    this.#letIn(intake)
  }

  /** How long to wait for something to happen, in ms. */
  #patience({ isEmpty, deadline }: Intake['entrance']): number {
    if (isEmpty) return POLL_TIMEOUT
    return this.#mayEnter ? 0 : Math.min(POLL_TIMEOUT, Math.max(1, Math.ceil(deadline - this.#now)))
  }

  /** A batch of what waits at the entrances. */
  #letIn(intake: Intake): void {
    let count = 0
    this.#mayEnter = true
    while (count < BATCH) {
      const length = intake.next(slot(count), this.#now)
      this.#mayEnter = length > 0
      if (length === 0) break
      this.#dispatch(this.#engine.fromTun(memory.bytes, slot(count++), length))
    }
    if (count > 0) this.#flush()
  }

  /** One batch, while other workers have theirs. */
  #takeTurn(turns: Turns): void {
    if (!turns.tryLead(FOLLOW_TIMEOUT)) return this.#takeCommands()
    let source = 0
    try {
      source = this.#lead()
      if (source > WAKE) this.#ticket = turns.take()
    } finally {
      turns.pass()
    }
    if (source === WAKE) return this.#takeCommands()
    this.#work(source)
    this.#awaitTurn()
    turns.done(this.#ticket!)
    this.#ticket = undefined
  }

  /** @returns the source of which a batch was received; `WAKE` when there is none. */
  #lead(): number {
    this.#poll.wait(POLL_TIMEOUT)
    if (this.#poll.ready(WAKE)) return WAKE
    // The network first: what it brings is further on its way.
    for (const source of [ESP, UDP, TUN]) if (this.#poll.ready(source) && this.#takeIn(source)) return source
    return WAKE
  }

  #awaitTurn(): void {
    if (this.#ticket !== undefined) this.#turns!.await(this.#ticket)
  }

  /** Fills the slots. @returns whether there is anything to do. */
  #takeIn(source: number): boolean {
    if (source === TUN) return this.#takeInTun()
    const count = (source === ESP ? this.#esp : this.#udp!).receive(this.#receive)
    // A truncated packet fails the length check of its header.
    for (let i = 0; i < count; i++) this.#arrived[i] = Math.min(this.#receive.length(i), CAPACITY)
    this.#arrivals = count
    return count > 0
  }

  /** Packets of ordinary size go to slots; a large one ends the batch. */
  #takeInTun(): boolean {
    this.#arrivals = 0
    while (this.#arrivals < BATCH) {
      const length = sys.read(this.#data.tunFd, memory.address + LANDING, TUN_READ)
      if (length < 0) {
        const code = errno()
        if (code === E.again || code === E.interrupted) break
        throw failure(`read ${this.#data.device}`)
      }
      if (!this.#segmenter.begin(LANDING, length)) this.#readFailures++
      else if (this.#segmenter.isLarge) {
        this.#hasLarge = true
        break
      } else this.#arrived[this.#arrivals] = this.#segmenter.next(slot(this.#arrivals++))
    }
    return this.#arrivals > 0 || this.#hasLarge
  }

  #work(source: number): void {
    for (let i = 0; i < this.#arrivals; i++) {
      const length = this.#arrived[i]!
      const engine = this.#engine
      if (source === TUN) this.#dispatch(engine.fromTun(memory.bytes, slot(i), length))
      else {
        const verdict = engine.fromNetwork(memory.bytes, slot(i), length)
        if (verdict === VERDICT.tun) this.#intake?.entrance.hear(memory.bytes, engine.offset, this.#now)
        this.#dispatch(verdict)
      }
    }
    if (this.#hasLarge) this.#workOnLarge()
    this.#flush()
  }

  #workOnLarge(): void {
    this.#hasLarge = false
    for (let i = this.#arrivals; ; i++) {
      if (i === BATCH) {
        this.#flush()
        i = 0
      }
      const length = this.#segmenter.next(slot(i))
      if (length === 0) return
      this.#dispatch(this.#engine.fromTun(memory.bytes, slot(i), length))
    }
  }

  /** Queues the engine's result until the end of the batch: it stays in its slot until then. */
  #dispatch(verdict: Verdict): void {
    if (verdict === VERDICT.drop) return
    const { offset, length } = this.#engine
    if (verdict === VERDICT.tun) {
      this.#deliveries[this.#delivered++] = offset
      this.#deliveries[this.#delivered++] = length
      return
    }
    // The kernel writes the outer IP header.
    const encapsulated = protocol(memory.bytes, offset) === PROTOCOL.udp
    const batch = encapsulated ? this.#sendUdp : this.#sendEsp
    const i = encapsulated ? this.#queuedUdp++ : this.#queuedEsp++
    batch.setBuffer(i, memory.address + offset + IPV4_HEADER, length - IPV4_HEADER)
    batch.setAddresses(i, source(memory.bytes, offset), destination(memory.bytes, offset))
  }

  /** Everything goes out, in its turn, and every slot is free again. */
  #flush(): void {
    this.#awaitTurn()
    for (let i = 0; i < this.#delivered; i += 2)
      this.#coalescer.push(this.#deliveries[i]!, this.#deliveries[i + 1]!)
    this.#coalescer.flush()
    if (this.#queuedEsp > 0) this.#sendFailures += this.#esp.send(this.#sendEsp, this.#queuedEsp)
    if (this.#queuedUdp > 0) this.#sendFailures += this.#udp!.send(this.#sendUdp, this.#queuedUdp)
    this.#delivered = 0
    this.#queuedEsp = 0
    this.#queuedUdp = 0
  }

  #takeCommands(): void {
    sys.read(this.#data.wakeFd, wakeCount.address, 8)
    for (;;) {
      const received = receiveMessageOnPort(this.#data.port) as { message: PlaneRequest } | undefined
      if (received === undefined) return
      const request = received.message
      this.#readAddresses()
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
        return this.#apply(command)
      case 'counters':
        return this.#engine.counters()
      case 'drops':
        return {
          ...this.#engine.drops(),
          XfrmOutError: this.#sendFailures,
          CryptoDriverMoved: this.#placement.moves,
          TunReadError: this.#readFailures + (this.#intake?.malformed ?? 0),
          TunQueueDrop: this.#intake?.dropped ?? 0,
          TunWriteError: this.#coalescer.failures,
        }
      case 'close':
        this.#closing = true
        return undefined
    }
  }

  #apply({ operations, shared, udpFd }: PlaneCommand & { kind: 'apply' }): void {
    try {
      if (udpFd !== undefined && this.#udp === undefined) {
        this.#udp = new EspSocket(udpFd)
        this.#poll.set(UDP, udpFd, C.POLLIN)
      }
      this.#engine.apply(operations, shared)
    } finally {
      // Ours is a copy, and the ciphers have theirs.
      for (const operation of operations) if (operation.kind === 'sa.install') wipe(operation.sa.key)
    }
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
