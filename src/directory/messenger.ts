/**
 * How an authority speaks to the others: signed requests to the addresses that are configured for them. What was lost
 * is asked for again by the machine, so nothing is repeated here.
 */
import { Agent, type Dispatcher, request } from 'undici'
import { toHex, utf8 } from '#base/bytes'
import { type Failure, failure, type Result, success } from '#base/result'
import { type Duration, SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { MessageKind, Question } from '#directory/authority-events'
import { readBounded } from '#directory/body'
import { DOCUMENT_LIMITS } from '#directory/canonical'
import type { Signer } from '#directory/certificate'
import { signRequest } from '#directory/http-signature'
import type { Member } from '#directory/minutes'

export interface MessengerOptions {
  readonly key: Signer
  readonly crypto: CryptoProvider
  /** For a whole request; 10 s unless said otherwise. */
  readonly timeout?: Duration
  readonly dispatcher?: Dispatcher
  /** Told what a member's clock says, in milliseconds since 1970 and by the whole second. */
  readonly onDate?: (who: Member, date: number) => void
}

/** Where messages of a kind go, and where they are asked for. */
export const messagePath = (kind: MessageKind | ''): string => `/v1/authority/${kind}`
export const questionPath = ({ kind, period, digest }: Question): string =>
  `${messagePath(kind)}/${period}${digest === undefined ? '' : `/${digest}`}`

export class Messenger {
  readonly #options: MessengerOptions
  readonly #dispatcher: Dispatcher
  readonly #closing = new AbortController()
  /** Answers that are awaited: a slow one is not asked a second time. */
  readonly #asked = new Set<string>()

  constructor(options: MessengerOptions) {
    this.#options = options
    this.#dispatcher = options.dispatcher ?? new Agent({ connections: 4 })
  }

  /** Errors: IPP_DIR_UNREACHABLE. */
  async tell(to: Member, kind: MessageKind, text: string): Promise<Result<undefined>> {
    const reply = await this.#request(to, 'POST', messagePath(kind), 4096, utf8(text))
    if (!reply.ok) return reply
    return reply.value.status === 204 ? success(undefined) : unexpected(to, reply.value.status)
  }

  /**
   * Undefined: it has no such thing, or the same question is on its way.
   * Errors: IPP_DIR_UNREACHABLE, IPP_DIR_OVERSIZED.
   */
  async ask(who: Member, question: Question): Promise<Result<Uint8Array | undefined>> {
    const path = questionPath(question)
    const id = `${toHex(who.key)} ${path}`
    if (this.#asked.has(id)) return success(undefined)
    this.#asked.add(id)
    try {
      const reply = await this.#request(who, 'GET', path, DOCUMENT_LIMITS[question.kind].octets)
      if (!reply.ok) return reply
      const { status, body } = reply.value
      if (status === 404) return success(undefined)
      return status === 200 ? success(body) : unexpected(who, status)
    } finally {
      this.#asked.delete(id)
    }
  }

  /** Gives up what is on its way. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#dispatcher.destroy()
  }

  async #request(
    member: Member,
    method: 'GET' | 'POST',
    path: string,
    limit: number,
    upload?: Uint8Array,
  ): Promise<Result<{ readonly status: number; readonly body: Uint8Array }>> {
    const { key, crypto, timeout = 10 * SECOND, onDate } = this.#options
    const { name, url } = member
    try {
      const reply = await request(`${url}${path}`, {
        method,
        headers: {
          ...signRequest({ method, path }, upload, key, crypto),
          ...(upload === undefined ? {} : { 'content-type': 'text/plain' }),
        },
        ...(upload === undefined ? {} : { body: upload }),
        dispatcher: this.#dispatcher,
        signal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeout)]),
      })
      const date = Date.parse(String(reply.headers.date))
      if (!Number.isNaN(date)) onDate?.(member, date)
      const body = await readBounded(reply.body, limit)
      if (body === undefined)
        return failure('IPP_DIR_OVERSIZED', `${name}: an answer of more than ${limit} octets`)
      return success({ status: reply.statusCode, body })
    } catch (error) {
      const reason = error instanceof Error ? error.message || error.name : String(error)
      return failure('IPP_DIR_UNREACHABLE', `${name}: ${reason.replaceAll(/\s+/g, ' ').slice(0, 200)}`)
    }
  }
}

const unexpected = ({ name }: Member, status: number): Failure =>
  failure('IPP_DIR_UNREACHABLE', `${name} answered with HTTP status ${status}`)
