import { writeSync } from 'node:fs'
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { C, failure, sys } from '#linux/ffi'
import type { PlaneCommand, PlaneReply, PlaneRequest, PlaneWorkerData } from '#linux/plane-messages'
import type { DataPlane, PlaneOperation, SaCounters, SaKey } from '#telescope/plane'
import { INNER_MTU } from '#telescope/plane'

/** How long a worker that was asked to close may take, in milliseconds. */
const CLOSE_PATIENCE = 3000
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer)

/**
 * The userspace data plane: the face on the main thread. SAs, policies, packets and the TUN live in the worker and
 * vanish with the process, so there is never anything of a predecessor to clean up.
 *
 * The device has the inner MTU, on clients and nodes alike: the kernel then fragments, and answers with the path-MTU
 * errors of RFC 1191 (through the exit's NAT, too), everything that would be too big for a telescope, and the engine's
 * own check is for packets that never see the device. The MTU limits what the kernel sends into the device, not what
 * comes out of it: a peer with a larger inner MTU is served.
 */
export class UserPlane implements DataPlane {
  readonly kind = 'userspace'
  readonly device: string
  readonly #failureListeners: ((error: Error) => void)[] = []
  readonly #heardListeners: ((sa: SaKey) => void)[] = []
  #running: RunningWorker | undefined

  constructor(device = 'ippriv0') {
    this.device = device
  }

  async open(): Promise<void> {
    if (this.#running !== undefined) throw new IpprivError('IPP_PLANE_OPERATION', 'the plane is open')
    const running = new RunningWorker(this.device, {
      failed: (error) => {
        if (this.#running === running) for (const listener of this.#failureListeners) listener(error)
      },
      heard: (sa) => {
        for (const listener of this.#heardListeners) listener(sa)
      },
    })
    await running.opened
    this.#running = running
  }

  async apply(operations: readonly PlaneOperation[]): Promise<void> {
    const worker = this.#worker()
    // Keys may be views into larger buffers, which a message would copy whole.
    const copies = operations.map((operation) =>
      operation.kind === 'sa.install'
        ? { ...operation, sa: { ...operation.sa, key: operation.sa.key.slice() } }
        : operation,
    )
    const answer = worker.request({ kind: 'apply', operations: copies })
    for (const copy of copies) if (copy.kind === 'sa.install') wipe(copy.sa.key)
    await answer
  }

  async counters(): Promise<readonly SaCounters[]> {
    return (await this.#worker().request({ kind: 'counters' })) as SaCounters[]
  }

  async drops(): Promise<Readonly<Record<string, number>>> {
    return (await this.#worker().request({ kind: 'drops' })) as Record<string, number>
  }

  onHeard(listener: (sa: SaKey) => void): void {
    this.#heardListeners.push(listener)
  }

  onFailure(listener: (error: Error) => void): void {
    this.#failureListeners.push(listener)
  }

  async close(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    await running?.close()
  }

  #worker(): RunningWorker {
    if (this.#running === undefined) throw new IpprivError('IPP_PLANE_DEAD', 'the plane is not open')
    return this.#running
  }
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
  readonly #ended: Promise<void>
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #death: IpprivError | undefined
  #closing = false

  constructor(
    device: string,
    told: { readonly failed: (error: Error) => void; readonly heard: (sa: SaKey) => void },
  ) {
    this.#wakeFd = sys.eventfd(0, C.EFD_CLOEXEC | C.EFD_NONBLOCK)
    if (this.#wakeFd < 0) throw failure('eventfd')
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    const workerData: PlaneWorkerData = { device, mtu: INNER_MTU, port: port2, wakeFd: this.#wakeFd }
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
    this.#ended = new Promise((resolve) => {
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

  async close(): Promise<void> {
    this.#closing = true
    const timer = setTimeout(() => void this.#worker.terminate(), CLOSE_PATIENCE)
    // A worker that is ending anyway answers with its end.
    if (this.#death === undefined) await this.request({ kind: 'close' }).catch(() => undefined)
    await this.#ended
    clearTimeout(timer)
  }

  #settle(reply: PlaneReply & { kind: 'done' | 'refused' }): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (reply.kind === 'done') waiting?.resolve(reply.value)
    else waiting?.reject(new IpprivError(reply.code, reply.where))
  }
}
