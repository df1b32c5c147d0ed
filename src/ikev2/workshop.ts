/**
 * The computations of an engine that are under way. Without `offload` each is done at once, and this remembers nothing.
 * With it every job goes out as `compute`, and its result comes back as `computed`, in whatever order.
 */
import { wipeDeep } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import type { Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import {
  type Computation,
  type Job,
  type JobResult,
  perform,
  type SigningCredential,
} from '#ikev2/computation'

/** Who waits for a computation. */
export interface Customer<T> {
  /** Whose it is; undefined: the IKE SA does not exist yet. */
  readonly sa: IkeSaId | undefined
  isWaiting(): boolean
  /** `finish` gives the result or throws what the computation threw. Undefined: a job failed, and nothing was done. */
  done(finish: (() => T) | undefined, now: Instant): void
}

interface Order {
  readonly computation: Computation<unknown>
  readonly customer: Customer<unknown>
}

export class Workshop {
  readonly #crypto: CryptoProvider
  readonly #credential: SigningCredential
  readonly #send: ((id: number, job: Job) => void) | undefined
  readonly #limit: number
  readonly #orders = new Map<number, Order>()
  #lastId = 0

  /** `send` takes a job away; absent: it is done here. */
  constructor(
    crypto: CryptoProvider,
    credential: SigningCredential,
    limit: number,
    send?: (id: number, job: Job) => void,
  ) {
    this.#crypto = crypto
    this.#credential = credential
    this.#limit = limit
    this.#send = send
  }

  get size(): number {
    return this.#orders.size
  }

  /** No more computations may begin. */
  get isFull(): boolean {
    return this.#orders.size >= this.#limit
  }

  begin<T>(computation: Computation<T>, customer: Customer<T>, now: Instant): void {
    this.#advance({ computation, customer: customer as Customer<unknown> }, undefined, now)
  }

  /** Goes on with the result of a job; undefined: it failed. Returns whose it was, or undefined if there is nobody. */
  resume(id: number, done: { readonly result: JobResult } | undefined, now: Instant): IkeSaId | undefined {
    const order = this.#orders.get(id)
    if (order === undefined) return undefined
    this.#orders.delete(id)
    const { customer, computation } = order
    if (!customer.isWaiting()) {
      wipeDeep(done?.result)
      computation.return(undefined)
      return undefined
    }
    if (done === undefined) customer.done(undefined, now)
    else this.#advance(order, done.result, now)
    return customer.sa
  }

  #advance(order: Order, result: JobResult, now: Instant): void {
    const { computation, customer } = order
    let finish: () => unknown
    try {
      // The first call of a generator ignores what it is given.
      let step = computation.next(result)
      if (this.#send !== undefined && step.done !== true) {
        const id = ++this.#lastId
        this.#orders.set(id, order)
        return this.#send(id, step.value)
      }
      while (step.done !== true) step = computation.next(perform(this.#crypto, this.#credential, step.value))
      const { value } = step
      finish = () => value
    } catch (error) {
      finish = () => {
        throw error
      }
    }
    customer.done(finish, now)
  }
}
