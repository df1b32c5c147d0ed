import type { MessagePort } from 'node:worker_threads'
import type { ErrorCode } from '#base/errors'
import type { PlaneOperation, SaKey } from '#telescope/plane'

/** What the main thread and the plane worker say to each other. Requests are answered in order, by `id`. */
export type PlaneRequest = { readonly id: number } & PlaneCommand

export type PlaneCommand =
  | {
      readonly kind: 'apply'
      readonly operations: readonly PlaneOperation[]
      /** At the index of an operation that installs an SA: what its workers share. */
      readonly shared: readonly (SharedArrayBuffer | undefined)[]
      /** A raw socket for ESP in UDP, from the first time it is needed on. */
      readonly udpFd: number | undefined
    }
  | { readonly kind: 'counters' }
  | { readonly kind: 'drops' }
  | { readonly kind: 'close' }

export type PlaneReply =
  | { readonly kind: 'opened' }
  | { readonly kind: 'done'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'refused'; readonly id: number; readonly code: ErrorCode; readonly where: string }
  | { readonly kind: 'heard'; readonly sa: SaKey }
  /** The worker could not open, or died of this. It ends after it. */
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly where: string }

/** Descriptors are the main thread's to close. */
export interface PlaneWorkerData {
  readonly port: MessagePort
  /** An eventfd: the worker blocks in poll() and is woken through it. */
  readonly wakeFd: number
  readonly device: string
  readonly tunFd: number
  readonly espFd: number
  /** Memory of `Turns`, where the descriptors are shared with other workers. */
  readonly turns: SharedArrayBuffer | undefined
}
