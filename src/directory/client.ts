/**
 * The reader's side: fetches and verifies the consensus, keeps the last good one on disk, publishes descriptors.
 *
 * Every request is the same for everybody: fixed headers, the whole document, never anything that depends on a
 * path. The entity tag sent is computed from the document's bytes, so that a server cannot mark a client with one.
 */
import { open, readFile, rename } from 'node:fs/promises'
import { promisify } from 'node:util'
import { brotliDecompress, gunzip } from 'node:zlib'
import { type Dispatcher, request } from 'undici'
import { utf8 } from '#base/bytes'
import { ERRORS, type ErrorCode, IpprivError } from '#base/errors'
import { type Failure, failure, type Result, success, within } from '#base/result'
import { type Duration, SECOND, type UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { readBounded } from '#directory/body'
import { DOCUMENT_LIMITS } from '#directory/canonical'
import { bodyOf, formatMoment, verifyConsensus } from '#directory/consensus'
import type { Consensus } from '#directory/documents'
import { documentTag } from '#directory/publication'

export interface DirectoryClientOptions {
  /** `http://192.0.2.1:9030`; paths are appended. Of several, all serve the same: the next is asked when one fails. */
  readonly urls: readonly [string, ...string[]]
  /** Pinned Ed25519 keys of the directory. */
  readonly authorities: readonly Uint8Array[]
  readonly threshold?: number
  readonly crypto: CryptoProvider
  readonly unixTime: () => UnixTime
  /** Makes the sockets; undici's global one when absent. */
  readonly dispatcher?: Dispatcher
  /** Where the last good document is kept; absent: nowhere. Its folder must exist. */
  readonly cacheFile?: string
  /** For a whole request; 20 s unless said otherwise. */
  readonly timeout?: Duration
}

export interface Fetched {
  readonly kind: 'new' | 'unchanged'
  readonly consensus: Consensus
  /** The document is good and in use, but it could not be kept on disk: IPP_STATE_UNUSABLE. */
  readonly unkept?: Failure
}

export interface Published {
  /** The directory had these very bytes already. */
  readonly known: boolean
}

interface Held {
  readonly consensus: Consensus
  readonly tag: string
  /** Two documents that differ in who signed them say the same. */
  readonly body: string
}

export class DirectoryClient {
  readonly #options: DirectoryClientOptions
  readonly #bases: readonly string[]
  /** The one that answered well the last time. */
  #preferred = 0
  #held: Held | undefined
  #fetching: Promise<Result<Fetched>> | undefined

  constructor(options: DirectoryClientOptions) {
    this.#options = options
    this.#bases = options.urls.map((url) => url.replace(/\/+$/, ''))
  }

  /** The last good document while it is valid, else undefined: what must not be used is not handed out. */
  get current(): Consensus | undefined {
    const consensus = this.#held?.consensus
    return consensus !== undefined && this.#options.unixTime() < consensus.validUntil ? consensus : undefined
  }

  /**
   * Reads the document kept by a predecessor. `undefined`: there is none.
   * Errors: those of `verifyConsensus`, IPP_STATE_UNUSABLE; the client works without it then.
   */
  async restore(): Promise<Result<Consensus | undefined>> {
    const { cacheFile } = this.#options
    if (cacheFile === undefined) return success(undefined)
    let document: Buffer
    try {
      document = await readFile(cacheFile)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return success(undefined)
      return failure('IPP_STATE_UNUSABLE', `${cacheFile}: ${messageOf(error)}`)
    }
    const verified = this.#verify(document)
    if (!verified.ok) return within(cacheFile, verified)
    this.#held = hold(document, verified.value)
    return verified
  }

  /**
   * Asks for the document, one server after the other until one has a good one. After a failure `current` is what it was before, and the failure says how long that
   * may still be used. Calls at the same time share one request.
   * Errors: IPP_DIR_UNREACHABLE, IPP_DIR_RATE_LIMITED, those of `verifyConsensus`.
   */
  async fetchConsensus(): Promise<Result<Fetched>> {
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined
    })
    const outcome = await this.#fetching
    return outcome.ok ? outcome : this.#explained(outcome)
  }

  /**
   * Hands a signed descriptor in, to every server; so many as must sign a document must take it.
   * Errors: IPP_DIR_UNREACHABLE, and the directory's own refusals by their code.
   */
  async publish(descriptorText: string): Promise<Result<Published>> {
    const outcomes = await Promise.all(this.#bases.map((base) => this.#publishTo(base, descriptorText)))
    const taken = outcomes.filter((outcome) => outcome.ok)
    const refusal = outcomes.find((outcome) => !outcome.ok)
    const needed = Math.min(this.#options.threshold ?? 1, outcomes.length)
    if (refusal !== undefined && taken.length < needed) return refusal
    return success({ known: taken.every(({ value }) => value.known) })
  }

  async #publishTo(base: string, descriptorText: string): Promise<Result<Published>> {
    const reply = await this.#request(base, 'POST', '/v1/descriptor', utf8(descriptorText))
    if (!reply.ok) return reply
    const { status } = reply.value
    if (status === 200 || status === 201) return success({ known: status === 200 })
    return this.#refusal(base, reply.value)
  }

  async #fetch(): Promise<Result<Fetched>> {
    const count = this.#bases.length
    const first = this.#preferred
    let failed: Failure | undefined
    for (let i = 0; i < count; i++) {
      const which = (first + i) % count
      const outcome = await this.#fetchFrom(this.#bases[which]!)
      if (outcome.ok) {
        this.#preferred = which
        return outcome
      }
      failed ??= outcome
    }
    return failed!
  }

  async #fetchFrom(base: string): Promise<Result<Fetched>> {
    const reply = await this.#request(base, 'GET', '/v1/consensus')
    if (!reply.ok) return reply
    const { status, body } = reply.value
    if (status === 304) {
      const { current } = this
      // Not a document that expired meanwhile, and not an answer to a question that was not asked.
      if (current === undefined)
        return failure('IPP_DIR_EXPIRED', `${base} has nothing newer than a document that has expired`)
      return success({ kind: 'unchanged', consensus: current })
    }
    if (status !== 200) return this.#refusal(base, reply.value)
    const tag = documentTag(body)
    const { current } = this
    if (current !== undefined && tag === this.#held?.tag)
      return success({ kind: 'unchanged', consensus: current })
    const verified = this.#verify(body)
    if (!verified.ok) return within(base, verified)
    if (current !== undefined && this.#held?.body === bodyOf(body.toString('latin1')))
      return success({ kind: 'unchanged', consensus: current })
    this.#held = hold(body, verified.value)
    const kept = await this.#keep(body)
    return success({ kind: 'new', consensus: verified.value, ...(kept.ok ? {} : { unkept: kept }) })
  }

  /**
   * No step back while the last document is valid. When it has expired, so has everything before it, and a
   * directory that lost its state may count from one again.
   */
  #verify(document: Uint8Array): Result<Consensus> {
    const { authorities, threshold, crypto, unixTime } = this.#options
    const { current } = this
    const verified = verifyConsensus(
      document,
      {
        authorities,
        now: unixTime(),
        ...(threshold === undefined ? {} : { threshold }),
        ...(current === undefined ? {} : { lastSerial: current.serial }),
      },
      crypto,
    )
    if (
      verified.ok &&
      verified.value.serial === current?.serial &&
      bodyOf(Buffer.from(document).toString('latin1')) !== this.#held?.body
    )
      return failure('IPP_DIR_REPLAYED', `consensus: there are two documents with serial ${current.serial}`)
    return verified
  }

  /** Whole or not at all: a reader after a crash finds the old document or the new one. */
  async #keep(document: Uint8Array): Promise<Result<undefined>> {
    const { cacheFile } = this.#options
    if (cacheFile === undefined) return success(undefined)
    const draft = `${cacheFile}.new`
    try {
      await using file = await open(draft, 'w', 0o600)
      await file.writeFile(document)
      await file.sync()
      await rename(draft, cacheFile)
      return success(undefined)
    } catch (error) {
      return failure('IPP_STATE_UNUSABLE', `${cacheFile}: ${messageOf(error)}`)
    }
  }

  async #request(
    base: string,
    method: 'GET' | 'POST',
    path: string,
    upload?: Uint8Array,
  ): Promise<Result<Reply>> {
    const { dispatcher, timeout = 20 * SECOND } = this.#options
    const current = this.current === undefined ? undefined : this.#held
    try {
      const reply = await request(`${base}${path}`, {
        method,
        headers:
          upload === undefined
            ? {
                'accept-encoding': 'br, gzip',
                ...(current === undefined ? {} : { 'if-none-match': current.tag }),
              }
            : { 'content-type': 'text/plain' },
        ...(upload === undefined ? {} : { body: upload }),
        ...(dispatcher === undefined ? {} : { dispatcher }),
        signal: AbortSignal.timeout(timeout),
      })
      const packed = await readBounded(reply.body, MAX_REPLY)
      if (packed === undefined) return oversized(base)
      const coding = reply.headers['content-encoding']
      return success({ status: reply.statusCode, body: await unpack(packed, coding) })
    } catch (error) {
      if (errnoOf(error) === 'ERR_BUFFER_TOO_LARGE') return oversized(base)
      const timedOut = error instanceof Error && error.name === 'TimeoutError'
      const reason = timedOut ? `no answer within ${timeout / SECOND} s` : messageOf(error)
      return failure('IPP_DIR_UNREACHABLE', `${base}: ${reason}`)
    }
  }

  /** What the directory said instead of yes. Its words are a stranger's: only the known parts are passed on. */
  #refusal(base: string, { status, body }: Reply): Failure {
    const said = parseRefusal(body)
    if (said !== undefined) return failure(said.code, `${base} answered: ${said.message}`)
    return failure('IPP_DIR_UNREACHABLE', `${base} answered with HTTP status ${status}`)
  }

  #explained(failed: Failure): Failure {
    const { current } = this
    const rest =
      current === undefined
        ? 'there is no valid document'
        : `the last document is usable until ${formatMoment(current.validUntil)}`
    return failure(failed.code, `${failed.where}; ${rest}`)
  }
}

const hold = (document: Buffer, consensus: Consensus): Held => ({
  consensus,
  tag: documentTag(document),
  body: bodyOf(document.toString('latin1')),
})

interface Reply {
  readonly status: number
  readonly body: Buffer
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

function parseRefusal(body: Buffer): { code: ErrorCode; message: string } | undefined {
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
  return { code, message: message.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200) }
}

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code)

const inflateBrotli = promisify(brotliDecompress)
const inflateGzip = promisify(gunzip)

const oversized = (url: string): Failure =>
  failure('IPP_DIR_OVERSIZED', `${url}: an answer of more than ${MAX_REPLY} octets`)

const errnoOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error ? String(error.code) : undefined

/** One line: for several addresses tried at once there is no message of their own. */
function messageOf(error: unknown): string {
  if (error instanceof IpprivError) return error.where
  if (error instanceof AggregateError && error.errors.length > 0) return messageOf(error.errors[0])
  const text = error instanceof Error ? error.message || error.name : String(error)
  return text.replaceAll(/\s+/g, ' ').slice(0, 200)
}
