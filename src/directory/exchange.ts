/**
 * One HTTP request to a server that nobody trusts, with every bound there is: time, octets on the wire, octets when
 * unpacked, and what is repeated of its words.
 */
import { promisify } from 'node:util'
import { brotliDecompress, gunzip } from 'node:zlib'
import { type Dispatcher, request } from 'undici'
import { ERRORS, type ErrorCode, IpprivError } from '#base/errors'
import { type Failure, failure, type Result, success } from '#base/result'
import { type Duration, SECOND } from '#base/time'
import { readBounded } from '#directory/body'
import { DOCUMENT_LIMITS } from '#directory/canonical'

export interface Question {
  /** `http://192.0.2.1:9030`, without a slash behind it. */
  readonly base: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Makes it a POST. */
  readonly upload?: Uint8Array
  readonly dispatcher?: Dispatcher
  /** For all of it. */
  readonly timeout: Duration
}

export interface Reply {
  readonly status: number
  /** Unpacked. */
  readonly body: Buffer
}

/** The best first, and the same of every client. */
export const CODINGS = 'br, gzip'

/** Never rejects. Errors: IPP_DIR_UNREACHABLE, IPP_DIR_OVERSIZED. */
export async function exchange(question: Question): Promise<Result<Reply>> {
  const { base, path, headers, upload, dispatcher, timeout } = question
  try {
    const reply = await request(`${base}${path}`, {
      method: upload === undefined ? 'GET' : 'POST',
      headers,
      ...(upload === undefined ? {} : { body: upload }),
      ...(dispatcher === undefined ? {} : { dispatcher }),
      signal: AbortSignal.timeout(timeout),
    })
    const packed = await readBounded(reply.body, MAX_REPLY)
    if (packed === undefined) return oversized(base)
    return success({
      status: reply.statusCode,
      body: await unpack(packed, reply.headers['content-encoding']),
    })
  } catch (error) {
    if (errnoOf(error) === 'ERR_BUFFER_TOO_LARGE') return oversized(base)
    const timedOut = error instanceof Error && error.name === 'TimeoutError'
    const reason = timedOut ? `no answer within ${timeout / SECOND} s` : messageOf(error)
    return failure('IPP_DIR_UNREACHABLE', `${base}: ${reason}`)
  }
}

/** What a server said instead of yes. Its words are a stranger's: only the known parts are passed on. */
export function refusalOf(base: string, { status, body }: Reply): Failure {
  const said = parseRefusal(body)
  if (said !== undefined) return failure(said.code, `${base} answered: ${said.message}`)
  return failure('IPP_DIR_UNREACHABLE', `${base} answered with HTTP status ${status}`)
}

/** Bits of work that an upload lacked (work.ts). Undefined: it was refused for something else, or not at all. */
export function workAsked({ status, body }: Reply): number | undefined {
  const asked = status === 403 ? parseRefusal(body) : undefined
  return asked?.code === 'IPP_DIR_WORK' ? asked.work : undefined
}

const MAX_REPLY = DOCUMENT_LIMITS.consensus.octets

/** Unpacks no more than a document may have, however small the packed bytes are. */
async function unpack(packed: Buffer, coding: string | readonly string[] | undefined): Promise<Buffer> {
  const options = { maxOutputLength: MAX_REPLY }
  if (coding === 'br') return inflateBrotli(packed, options)
  if (coding === 'gzip') return inflateGzip(packed, options)
  if (coding === undefined || coding === 'identity') return packed
  throw new Error('the content coding is unknown')
}

interface Refusal {
  readonly code: ErrorCode
  readonly message: string
  readonly work?: number
}

function parseRefusal(body: Buffer): Refusal | undefined {
  if (body.length > 4096) return undefined
  let value: unknown
  try {
    value = JSON.parse(body.toString('utf8'))
  } catch {
    // Not an answer of a directory; the caller names the status instead.
    return undefined
  }
  if (typeof value !== 'object' || value === null || !('error' in value)) return undefined
  const { error } = value
  if (typeof error !== 'object' || error === null || !('code' in error) || !('message' in error))
    return undefined
  const { code, message } = error
  if (typeof code !== 'string' || typeof message !== 'string' || !isErrorCode(code)) return undefined
  const work = 'work' in error && Number.isSafeInteger(error.work) ? (error.work as number) : undefined
  return {
    code,
    message: message.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200),
    ...(work === undefined || work < 1 ? {} : { work }),
  }
}

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code)

const inflateBrotli = promisify(brotliDecompress)
const inflateGzip = promisify(gunzip)

const oversized = (url: string): Failure =>
  failure('IPP_DIR_OVERSIZED', `${url}: an answer of more than ${MAX_REPLY} octets`)

export const errnoOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error ? String(error.code) : undefined

/** One line: for several addresses tried at once there is no message of their own. */
export function messageOf(error: unknown): string {
  if (error instanceof IpprivError) return error.where
  if (error instanceof AggregateError && error.errors.length > 0) return messageOf(error.errors[0])
  const text = error instanceof Error ? error.message || error.name : String(error)
  return text.replaceAll(/\s+/g, ' ').slice(0, 200)
}
