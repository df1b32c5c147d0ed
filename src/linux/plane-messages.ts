import type { MessagePort } from 'node:worker_threads'
import type { ErrorCode } from '#base/errors'
import type { PlaneOperation, SaKey } from '#telescope/plane'

/** What the main thread and the plane worker say to each other. Requests are answered in order, by `id`. */
export type PlaneRequest = { readonly id: number } & PlaneCommand

export type PlaneCommand =
  | { readonly kind: 'apply'; readonly operations: readonly PlaneOperation[] }
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

export interface PlaneWorkerData {
  readonly device: string
  readonly mtu: number
  readonly port: MessagePort
  /** An eventfd: the worker blocks in poll() and is woken through it. */
  readonly wakeFd: number
}
