import { writeSync } from 'node:fs'
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { NAT_T_PORT, openEspSocket } from '#linux/esp-socket'
import { C, failure, sys } from '#linux/ffi'
import type { PlaneCommand, PlaneReply, PlaneRequest, PlaneWorkerData } from '#linux/plane-messages'
import { Tun } from '#linux/tun'
import { Turns } from '#linux/turns'
import type { DataPlane, PlaneOperation, SaCounters, SaEnds, SaKey } from '#telescope/plane'
import { INNER_MTU } from '#telescope/plane'
import { sharedState } from '#telescope/shared'

/** How long workers that were asked to close may take, in milliseconds. */
const CLOSE_PATIENCE = 3000
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer)

export interface UserPlaneOptions {
  readonly device?: string
  /** Threads that work on packets: 1..`MAX_WORKERS`. */
  readonly workers?: number
  /**
   * What is spread over them. `connection`: every SA has its worker, by its SPI, and every connection that enters
   * at the TUN. `packet`: each takes the next batch, whosever it is, and they send in the order they received.
   */
  readonly parallel?: 'connection' | 'packet'
}

export const MAX_WORKERS = 64

/**
 * The userspace data plane: the face on the main thread. SAs, policies, packets and the TUN live in the workers and
 * vanish with the process, so there is never anything of a predecessor to clean up.
 *
 * Every worker has every SA and policy, so any of them can do any packet; counters and windows of SAs are shared
 * (`telescope/shared.ts`), so that none is used twice.
 *
 * The device has the inner MTU, on clients and nodes alike: the kernel then fragments, and answers with the path-MTU
 * errors of RFC 1191 (through the exit's NAT, too), everything that would be too big for a telescope, and the engine's
 * own check is for packets that never see the device. The MTU limits what the kernel sends into the device, not what
 * comes out of it: a peer with a larger inner MTU is served.
 */
export class UserPlane implements DataPlane {
  readonly kind = 'userspace'
  readonly device: string
  readonly #workers: number
  readonly #parallel: 'connection' | 'packet'
  readonly #failureListeners: ((error: Error) => void)[] = []
  readonly #heardListeners: ((sa: SaKey) => void)[] = []
  #crew: Crew | undefined

  constructor({ device = 'ippriv0', workers = 1, parallel = 'connection' }: UserPlaneOptions = {}) {
    this.device = device
    this.#workers = workers
    this.#parallel = parallel
  }

  /** Over how many workers inbound SAs are spread, by their SPI modulo that. */
  get spread(): number {
    return this.#parallel === 'connection' ? this.#workers : 1
  }

  async open(): Promise<void> {
    if (this.#crew !== undefined) throw new IpprivError('IPP_PLANE_OPERATION', 'the plane is open')
    const isShared = this.#workers > 1 && this.#parallel === 'packet'
    const crew: Crew = new Crew(this.device, this.#workers, isShared, {
      failed: (error) => {
        if (this.#crew === crew) for (const listener of this.#failureListeners) listener(error)
      },
      heard: (sa) => {
        for (const listener of this.#heardListeners) listener(sa)
      },
    })
    await crew.opened()
    this.#crew = crew
  }

  async apply(operations: readonly PlaneOperation[]): Promise<void> {
    await this.#open().apply(operations)
  }

  async counters(): Promise<readonly SaCounters[]> {
    return sumCounters((await this.#open().ask({ kind: 'counters' })) as SaCounters[][])
  }

  async drops(): Promise<Readonly<Record<string, number>>> {
    const sum: Record<string, number> = {}
    for (const drops of (await this.#open().ask({ kind: 'drops' })) as Record<string, number>[])
      for (const [name, count] of Object.entries(drops)) sum[name] = (sum[name] ?? 0) + count
    return sum
  }

  onHeard(listener: (sa: SaKey) => void): void {
    this.#heardListeners.push(listener)
  }

  onFailure(listener: (error: Error) => void): void {
    this.#failureListeners.push(listener)
  }

  async close(): Promise<void> {
    const crew = this.#crew
    this.#crew = undefined
    await crew?.close()
  }

  #open(): Crew {
    if (this.#crew === undefined) throw new IpprivError('IPP_PLANE_DEAD', 'the plane is not open')
    return this.#crew
  }
}

/** By SA: every worker has all of them, in the same order. */
function sumCounters(workers: readonly SaCounters[][]): readonly SaCounters[] {
  const sum = (i: number, of: (sa: SaCounters) => number) =>
    workers.reduce((total, worker) => total + of(worker[i]!), 0)
  return workers[0]!.map((sa, i) => ({
    ...sa,
    packets: sum(i, (w) => w.packets),
    bytes: sum(i, (w) => w.bytes),
    replayed: sum(i, (w) => w.replayed),
    corrupted: sum(i, (w) => w.corrupted),
  }))
}

interface Told {
  failed(error: Error): void
  heard(sa: SaKey): void
}

const nameOf = ({ source, destination, spi }: SaKey): string => `${source} ${destination} ${spi}`

/** All workers of an open plane with their descriptors, from start to end. When one dies, all end. */
class Crew {
  readonly #workers: RunningWorker[] = []
  readonly #fds: number[] = []
  readonly #tun: Tun
  readonly #turns: SharedArrayBuffer | undefined
  /** For each worker, once UDP is needed. */
  #udp: readonly number[] = []
  readonly #ended: Promise<unknown>
  readonly #told: Told
  /** SAs whose first packet nobody has met yet, by name: each worker meets one. */
  readonly #unheard = new Set<string>()
  #hasFailed = false

  /** @throws IpprivError IPP_HOST_*, IPP_PLANE_UNAVAILABLE */
  constructor(device: string, count: number, sharesDescriptors: boolean, told: Told) {
    this.#told = told
    this.#turns = sharesDescriptors ? Turns.memory() : undefined
    // The sockets first: privileges are checked before a device appears.
    const esp = this.#openSockets('esp', count)
    try {
      this.#tun = Tun.open(device, INNER_MTU, sharesDescriptors ? 1 : count)
    } catch (error) {
      for (const fd of this.#fds) sys.close(fd)
      throw error
    }
    for (let i = 0; i < count; i++) {
      const own = sharesDescriptors ? 0 : i
      const data = { device, tunFd: this.#tun.fds[own]!, espFd: esp[i]!, turns: this.#turns }
      this.#workers.push(
        new RunningWorker(data, {
          failed: (error) => this.#fail(error),
          heard: (sa) => {
            if (this.#unheard.delete(nameOf(sa))) told.heard(sa)
          },
        }),
      )
    }
    this.#ended = Promise.all(this.#workers.map((worker) => worker.ended)).then(() => {
      this.#tun.close()
      for (const fd of this.#fds) sys.close(fd)
    })
  }

  /** @throws IpprivError, of the first worker that could not open; then all have ended. */
  async opened(): Promise<void> {
    try {
      await Promise.all(this.#workers.map((worker) => worker.opened))
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /** Performed by every worker. They hold the same, so what one refuses all refuse. */
  async apply(operations: readonly PlaneOperation[]): Promise<void> {
    for (const operation of operations) {
      if (operation.kind === 'sa.install' && operation.sa.announce) this.#unheard.add(nameOf(operation.sa))
      else if (operation.kind === 'sa.remove') this.#unheard.delete(nameOf(operation.sa))
      else if (operation.kind === 'sa.move' && this.#unheard.delete(nameOf(operation.sa)))
        this.#unheard.add(nameOf({ ...operation.to, spi: operation.sa.spi }))
      if (operation.kind === 'sa.install') this.#openUdp(operation.sa)
      else if (operation.kind === 'sa.move') this.#openUdp(operation.to)
    }
    const shared = operations.map((operation) =>
      operation.kind === 'sa.install' && this.#workers.length > 1
        ? sharedState(operation.sa.replayWindow)
        : undefined,
    )
    // Keys may be views into larger buffers, which a message would copy whole.
    const copies = operations.map((operation) =>
      operation.kind === 'sa.install'
        ? { ...operation, sa: { ...operation.sa, key: operation.sa.key.slice() } }
        : operation,
    )
    const answers = this.#workers.map((worker, i) =>
      worker.request({ kind: 'apply', operations: copies, shared, udpFd: this.#udp[i] }),
    )
    this.#wake()
    for (const copy of copies) if (copy.kind === 'sa.install') wipe(copy.sa.key)
    await allSettled(answers)
  }

  async ask(command: PlaneCommand): Promise<unknown[]> {
    const answers = this.#workers.map((worker) => worker.request(command))
    this.#wake()
    return await allSettled(answers)
  }

  async close(): Promise<void> {
    this.#hasFailed = true
    const closing = this.#workers.map((worker) => worker.close())
    this.#wake()
    await Promise.all(closing)
    await this.#ended
  }

  /** Those that wait to receive do not see their eventfd. */
  #wake(): void {
    if (this.#turns !== undefined) new Turns(this.#turns).wake()
  }

  #fail(error: Error): void {
    if (this.#hasFailed) return
    this.#hasFailed = true
    for (const worker of this.#workers) worker.terminate()
    void this.#ended.then(() => this.#told.failed(error))
  }

  /** One for each worker, or the same for all. */
  #openSockets(kind: 'esp' | 'udp', count: number): number[] {
    const opened: number[] = []
    const sockets = this.#turns === undefined ? count : 1
    try {
      for (let index = 0; index < sockets; index++)
        opened.push(openEspSocket(kind, { index, count: sockets }))
    } catch (error) {
      for (const fd of opened) sys.close(fd)
      throw error
    }
    this.#fds.push(...opened)
    return Array.from({ length: count }, (_, i) => opened[i] ?? opened[0]!)
  }

  #openUdp({ encapsulation }: SaEnds): void {
    if (encapsulation === undefined) return
    const { sourcePort, destinationPort } = encapsulation
    // One of the two is ours, and the peer's is what a NAT made of it.
    if (sourcePort !== NAT_T_PORT && destinationPort !== NAT_T_PORT)
      throw new IpprivError('IPP_PLANE_OPERATION', `UDP encapsulation without port ${NAT_T_PORT}`)
    if (this.#udp.length === 0) this.#udp = this.#openSockets('udp', this.#workers.length)
  }
}

/** Waits for all, then fails with the first failure. */
async function allSettled<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises)
  return await Promise.all(promises)
}

interface Waiting {
  resolve(value: unknown): void
  reject(error: Error): void
}

/** One worker thread from start to end. After its end every request is rejected with the reason. */
class RunningWorker {
  readonly opened: Promise<void>
  readonly #worker: Worker
  readonly #port: MessagePort
  readonly #wakeFd: number
  readonly ended: Promise<void>
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #death: IpprivError | undefined
  #closing = false

  constructor(data: Omit<PlaneWorkerData, 'port' | 'wakeFd'>, told: Told) {
    this.#wakeFd = sys.eventfd(0, C.EFD_CLOEXEC | C.EFD_NONBLOCK)
    if (this.#wakeFd < 0) throw failure('eventfd')
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    const workerData: PlaneWorkerData = { ...data, port: port2, wakeFd: this.#wakeFd }
    this.#worker = new Worker(new URL('./plane-worker.ts', import.meta.url), {
      workerData,
      transferList: [port2],
      name: 'ippriv-plane',
    })
    let isOpen = false
    const opening = Promise.withResolvers<void>()
    this.opened = opening.promise
    const take = (reply: PlaneReply): void => {
      if (reply.kind === 'opened') {
        isOpen = true
        opening.resolve()
      } else if (reply.kind === 'heard') told.heard(reply.sa)
      else if (reply.kind === 'failed')
        this.#death = new IpprivError(isOpen ? 'IPP_PLANE_DEAD' : reply.code, reply.where)
      else this.#settle(reply)
    }
    port1.on('message', take)
    this.#worker.on('error', (error) => {
      this.#death ??= new IpprivError('IPP_PLANE_DEAD', error.message, { cause: error })
    })
    // The exit event comes over another channel than the messages: take what is left in the port first.
    this.ended = new Promise((resolve) => {
      let exits = 0
      const end = () => {
        if (++exits < 2) return
        sys.close(this.#wakeFd)
        const reason = this.#death ?? new IpprivError('IPP_PLANE_DEAD', 'the worker ended')
        this.#death = reason
        for (const { reject } of this.#waiting.values()) reject(reason)
        this.#waiting.clear()
        opening.reject(reason)
        resolve()
        if (isOpen && !this.#closing) told.failed(reason)
      }
      this.#worker.on('exit', () => {
        // To close a port is to lose what was not read yet: the reason, of a worker that failed at once.
        for (let left = receiveMessageOnPort(port1); left !== undefined; left = receiveMessageOnPort(port1))
          take(left.message as PlaneReply)
        this.#port.close()
        end()
      })
      port1.on('close', end)
    })
  }

  request(command: PlaneCommand): Promise<unknown> {
    if (this.#death !== undefined) return Promise.reject(this.#death)
    const id = ++this.#lastId
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    this.#port.postMessage({ id, ...command } satisfies PlaneRequest)
    writeSync(this.#wakeFd, ONE)
    return answer
  }

  terminate(): void {
    void this.#worker.terminate()
  }

  async close(): Promise<void> {
    this.#closing = true
    const timer = setTimeout(() => void this.#worker.terminate(), CLOSE_PATIENCE)
    // A worker that is ending anyway answers with its end.
    if (this.#death === undefined) await this.request({ kind: 'close' }).catch(() => undefined)
    await this.ended
    clearTimeout(timer)
  }

  #settle(reply: PlaneReply & { kind: 'done' | 'refused' }): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (reply.kind === 'done') waiting?.resolve(reply.value)
    else waiting?.reject(new IpprivError(reply.code, reply.where))
  }
}
