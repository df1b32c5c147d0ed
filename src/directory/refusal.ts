/** How a refusal looks over HTTP. It repeats nothing that the stranger sent. */
import type { FastifyError, FastifyReply } from 'fastify'
import { ERRORS, type ErrorCode } from '#base/errors'
import { type Failure, failure } from '#base/result'

/** Answers `{"error":{"code","message"}}`, and what else there is to say, with the status of the code. */
export function refuse(
  reply: FastifyReply,
  failed: Failure,
  status = STATUS[failed.code] ?? 500,
  more: Readonly<Record<string, number>> = {},
): FastifyReply {
  return reply
    .code(status)
    .header('cache-control', 'no-store')
    .send({ error: { code: failed.code, message: `${ERRORS[failed.code][0]}: ${failed.where}`, ...more } })
}

/** Errors of the framework: the fault of the request (4xx), or ours. */
export function translate(error: FastifyError): readonly [status: number, Failure] {
  const status = error.statusCode ?? 500
  if (status === 413)
    return [413, failure('IPP_DIR_OVERSIZED', 'the body is longer than such a document may be')]
  if (status === 415) return [415, failure('IPP_DIR_MALFORMED', 'expected a body of type text/plain')]
  if (status >= 400 && status < 500) return [status, failure('IPP_DIR_MALFORMED', 'the request is not valid')]
  return [500, failure('IPP_INTERNAL', 'the request could not be handled')]
}

const STATUS: Partial<Record<ErrorCode, number>> = {
  IPP_DIR_MALFORMED: 400,
  IPP_DIR_BAD_SIGNATURE: 403,
  IPP_DIR_IDENTITY: 403,
  IPP_DIR_SOURCE: 403,
  IPP_DIR_WORK: 403,
  IPP_DIR_OUTDATED: 403,
  IPP_DIR_CROWDED: 409,
  IPP_DIR_NO_RESOURCE: 404,
  IPP_DIR_REPLAYED: 409,
  IPP_DIR_CONFLICT: 409,
  IPP_DIR_OVERSIZED: 413,
  IPP_DIR_EXPIRED: 422,
  IPP_DIR_RATE_LIMITED: 429,
  IPP_DIR_POOL: 503,
  IPP_DIR_NO_DOCUMENT: 503,
  IPP_STATE_UNUSABLE: 503,
}
