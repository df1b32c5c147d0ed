/** Outcomes as values, for everything that may fail because of what somebody else sent. */
import { type ErrorCode, IpprivError } from '#base/errors'

export type Result<T> = Success<T> | Failure

export interface Success<T> {
  readonly ok: true
  readonly value: T
}

/** `where` says what exactly, on one line, and may be shown to a person. */
export interface Failure {
  readonly ok: false
  readonly code: ErrorCode
  readonly where: string
}

export const success = <T>(value: T): Success<T> => ({ ok: true, value })
export const failure = (code: ErrorCode, where: string): Failure => ({ ok: false, code, where })

/** The same failure, seen from further out: `nodes[3]: published: ...`. */
export const within = (place: string, inner: Failure): Failure =>
  failure(inner.code, `${place}: ${inner.where}`)

export const toError = (failed: Failure, options?: ErrorOptions): IpprivError =>
  new IpprivError(failed.code, failed.where, options)

/** The value, where a failure ends the operation anyway. @throws IpprivError */
export function unwrap<T>(result: Result<T>): T {
  if (!result.ok) throw toError(result)
  return result.value
}
