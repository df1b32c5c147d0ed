/**
 * Threads that do what takes a responder long (`ikev2/computation.ts`), so that a flood of handshakes does not hold up the
 * daemon. A thread that dies takes the answers it was working on with it, and nothing else: peers ask again, and there is
 * a new thread for the next job.
 *
 * Octets move between threads and are not copied: secrets are in one place at a time, and wiped where they end. Jobs of
 * one turn of the event loop go together, a few at a time, for a message between threads costs half as much as its job.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { IpprivError } from '#base/errors'
import type { HandshakeReply, HandshakeRequest } from '#daemon/handshake-worker'
import { move } from '#daemon/move'
import type { SigningCredential } from '#ikev2/computation'
import type { Compute, Computed } from '#ikev2/events'

type Answer = (computed: Computed) => void

interface Thread {
  readonly worker: Worker
  /** By the number of the job, which is the engine's. */
  readonly answers: Map<number, Answer>
  /** What it is to be told next. */
  readonly waiting: Moved[]
}

type Moved = ReturnType<typeof move<HandshakeRequest>>

export interface HandshakeWorkersOptions {
  /** What the responder signs with: every thread has a copy. */
  readonly credential: SigningCredential
  /** Default: one for each processor but the one of the event loop, and one at least. */
  readonly threads?: number
  onFailure(error: IpprivError): void
}

export class HandshakeWorkers {
  readonly #options: HandshakeWorkersOptions
  readonly #threads: (Thread | undefined)[]

  constructor(options: HandshakeWorkersOptions) {
    this.#options = options
    const { threads = Math.max(1, availableParallelism() - 1) } = options
    // At once: the first handshake is not to wait for them.
    this.#threads = Array.from({ length: threads }, (_, index) => this.#start(index))
  }

  /** Does a job, and answers later. What is in it is copied before this returns. */
  compute({ id, job }: Compute, answer: Answer): void {
    const index = this.#idlest()
    const thread = this.#threads[index] ?? this.#start(index)
    this.#threads[index] = thread
    thread.answers.set(id, answer)
    thread.waiting.push(move<HandshakeRequest>({ id, job }))
    if (thread.waiting.length === 1) setImmediate(() => tell(thread))
    else if (thread.waiting.length === BATCH) tell(thread)
  }

  async close(): Promise<void> {
    const threads = this.#threads.splice(0)
    for (const thread of threads) thread?.worker.removeAllListeners()
    await Promise.all(threads.map((thread) => thread?.worker.terminate()))
  }

  /** Which thread has least to do. One that is not there has nothing to do, and takes long to come. */
  #idlest(): number {
    const load = this.#threads.map((thread) => thread?.answers.size ?? RESTART_COST)
    return load.indexOf(Math.min(...load))
  }

  #start(index: number): Thread {
    const worker = new Worker(new URL('./handshake-worker.ts', import.meta.url), {
      workerData: this.#options.credential,
      name: 'ippriv-handshake',
    })
    const answers = new Map<number, Answer>()
    worker.on('message', (replies: readonly HandshakeReply[]) => {
      for (const { id, result } of replies) {
        const answer = answers.get(id)
        answers.delete(id)
        answer?.({ kind: 'computed', id, done: { result } })
      }
    })
    let cause: unknown
    worker.on('error', (error) => {
      cause = error
    })
    worker.on('exit', (code) => {
      this.#threads[index] = undefined
      const detail = cause instanceof Error ? cause.message : `it ended with ${code}`
      this.#options.onFailure(new IpprivError('IPP_WORKER_FAILED', detail, { cause }))
      for (const [id, answer] of answers) answer({ kind: 'computed', id, done: undefined })
    })
    worker.unref()
    return { worker, answers, waiting: [] }
  }
}

function tell({ worker, waiting }: Thread): void {
  const batch = waiting.splice(0)
  if (batch.length === 0) return
  worker.postMessage(
    batch.map(({ value }) => value),
    batch.map(({ buffer }) => buffer),
  )
}

/** In jobs: under a millisecond until the first is answered. */
const BATCH = 4
/** In jobs. */
const RESTART_COST = 16
