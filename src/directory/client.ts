/**
 * The reader's side: fetches and verifies the consensus, keeps the last good one on disk, publishes descriptors.
 *
 * Requests are the same for everybody who has the same document: fixed headers, never anything that depends on a path.
 * A document is asked for by its name, which is a function of what was signed, so that no server can mark a reader.
 * Documents are signed, so it does not matter who hands them out: a mirror can be slow or behind the times, and both
 * are noticed.
 */
import { open, readFile, rename } from 'node:fs/promises'
import type { Dispatcher } from 'undici'
import { utf8 } from '#base/bytes'
import { type Failure, failure, type Result, success, within } from '#base/result'
import { type Duration, SECOND, type UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { DOCUMENT_LIMITS } from '#directory/canonical'
import { bodyOf, formatMoment, verifyConsensus } from '#directory/consensus'
import { Counters } from '#directory/counters'
import { applyDiff } from '#directory/diff'
import type { Consensus } from '#directory/documents'
import { CODINGS, errnoOf, exchange, messageOf, type Reply, refusalOf } from '#directory/exchange'
import { documentName, documentTag } from '#directory/publication'
import { type Uploaded, uploadTo } from '#directory/upload'

export interface DirectoryClientOptions {
  /** `http://192.0.2.1:9030`; paths are appended. Of several, all serve the same: the next is asked when one fails. */
  readonly urls: readonly [string, ...string[]]
  /** Who else may have the document, now: asked before the others, in this order. */
  readonly mirrors?: () => readonly Mirror[]
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
  /** Of the directory's operator, 32 octets: it frees uploads from work. */
  readonly token?: Uint8Array
}

export interface Mirror {
  readonly url: string
  /** Another way than that to the directory. */
  readonly dispatcher?: Dispatcher
}

/** Whose documents are believed, and who serves them. */
export interface ClientTrust {
  readonly authorities: readonly Uint8Array[]
  readonly threshold: number
  /** At least one. */
  readonly servers: readonly Mirror[]
}

export interface Fetched {
  readonly kind: 'new' | 'unchanged'
  readonly consensus: Consensus
  /** The document is good and in use, but it could not be kept on disk: IPP_STATE_UNUSABLE. */
  readonly unkept?: Failure
}

/** A document that was verified. */
export interface HeldDocument {
  readonly consensus: Consensus
  readonly text: string
}

interface Held extends HeldDocument {
  /** Two documents that differ in who signed them have one name. */
  readonly name: string
}

export class DirectoryClient {
  readonly counters = new Counters()
  readonly #options: DirectoryClientOptions
  #servers: readonly Mirror[]
  /** The one that answered well the last time. */
  #preferred = 0
  #held: Held | undefined
  #fetching: Promise<Result<Fetched>> | undefined

  #trust: { readonly authorities: readonly Uint8Array[]; readonly threshold: number }

  constructor(options: DirectoryClientOptions) {
    this.#options = options
    this.#trust = { authorities: options.authorities, threshold: options.threshold ?? 1 }
    const { urls, dispatcher } = options
    this.#servers = urls.map((url) => ({ url, ...(dispatcher === undefined ? {} : { dispatcher }) }))
  }

  /** The network has other authorities now, or they are elsewhere: a document that those did not sign is of no use any more. */
  believe({ authorities, threshold, servers }: ClientTrust): void {
    this.#trust = { authorities, threshold }
    this.#servers = servers
    this.#preferred = 0
    const held = this.#held
    this.#held = undefined
    const verified = held === undefined ? undefined : this.#verify(utf8(held.text))
    if (verified?.ok) this.#held = verified.value
  }

  /** The last good document while it is valid, else undefined: what must not be used is not handed out. */
  get current(): Consensus | undefined {
    return this.document?.consensus
  }

  /** The same with its letters, to be handed on. */
  get document(): HeldDocument | undefined {
    const held = this.#held
    return held !== undefined && this.#options.unixTime() < held.consensus.validUntil ? held : undefined
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
    this.#held = verified.value
    return success(verified.value.consensus)
  }

  /**
   * Asks for the document, one server after the other until one has a good one that is fresh; a good one that is not
   * fresh any more will do when nobody has a better one. After a failure `current` is what it was before, and the
   * failure says how long that may still be used. Calls at the same time share one request.
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
   * Hands a signed descriptor in, to every server; so many as must sign a document must take it. Where a newcomer has
   * to work, that is done here (upload.ts), until `signal` ends it.
   * Errors: IPP_DIR_UNREACHABLE, and the directory's own refusals by their code.
   */
  async publish(descriptorText: string, signal?: AbortSignal): Promise<Result<Uploaded>> {
    const { crypto, token } = this.#options
    const document = utf8(descriptorText)
    const outcomes = await uploadTo({
      document,
      servers: this.#servers,
      send: (server, headers) => this.#ask(server, '/v1/descriptor', headers, document),
      nameOf: ({ url }) => url,
      crypto,
      ...(token === undefined ? {} : { token }),
      ...(signal === undefined ? {} : { signal }),
    })
    const taken = outcomes.filter((outcome) => outcome.ok)
    const refusal = outcomes.find((outcome) => !outcome.ok)
    const needed = Math.min(this.#trust.threshold, outcomes.length)
    if (refusal !== undefined && taken.length < needed) return refusal
    return success({ known: taken.every(({ value }) => value.known) })
  }

  async #fetch(): Promise<Result<Fetched>> {
    const mirrors = this.#options.mirrors?.() ?? []
    const count = this.#servers.length
    const first = this.#preferred
    const servers = Array.from({ length: count }, (_, i) => this.#servers[(first + i) % count]!)
    let best: Result<Fetched> | undefined
    for (const [i, server] of [...mirrors, ...servers].entries()) {
      const outcome = await this.#fetchFrom(server)
      if (!outcome.ok) {
        this.counters.add(`refused.${outcome.code}`)
        if (best === undefined || (!best.ok && i === mirrors.length)) best = outcome
        continue
      }
      if (best === undefined || !best.ok || outcome.value.kind === 'new') best = outcome
      if (this.#options.unixTime() >= outcome.value.consensus.freshUntil) {
        this.counters.add('consensus.stale')
        continue
      }
      if (i >= mirrors.length) this.#preferred = (first + i - mirrors.length) % count
      break
    }
    return best!
  }

  async #fetchFrom(server: Mirror): Promise<Result<Fetched>> {
    const base = this.#held
    if (base !== undefined) {
      const reply = await this.#ask(server, `/v1/consensus/diff/${base.name}`, this.#question())
      if (!reply.ok) return reply
      const { status, body } = reply.value
      if (status === 304) return this.#unchanged(server)
      if (status === 429) return refusalOf(server.url, reply.value)
      const taken = status === 200 ? await this.#applyDiff(body, base) : refusalOf(server.url, reply.value)
      if (taken.ok) return taken
      this.counters.add(`diff.${taken.code}`)
    }
    // Whatever was wrong with the diff: the whole document is as good.
    const reply = await this.#ask(server, '/v1/consensus', this.#question())
    if (!reply.ok) return reply
    const { status, body } = reply.value
    if (status === 304) return this.#unchanged(server)
    if (status !== 200) return refusalOf(server.url, reply.value)
    const taken = await this.#take(body, 'consensus.whole')
    return taken.ok ? taken : within(server.url, taken)
  }

  async #applyDiff(diff: Uint8Array, { text }: Held): Promise<Result<Fetched>> {
    const { crypto } = this.#options
    const body = Buffer.from(bodyOf(text), 'latin1')
    const document = applyDiff(diff, body, DOCUMENT_LIMITS.consensus.octets, crypto)
    return document.ok ? await this.#take(document.value, 'consensus.diff') : document
  }

  async #take(document: Uint8Array, counter: string): Promise<Result<Fetched>> {
    const { current } = this
    const text = Buffer.from(document).toString('latin1')
    if (current !== undefined && documentName(text, this.#options.crypto) === this.#held?.name)
      return success({ kind: 'unchanged', consensus: current })
    const verified = this.#verify(document)
    if (!verified.ok) return verified
    this.#held = verified.value
    this.counters.add(counter)
    const kept = await this.#keep(document)
    const { consensus } = verified.value
    return success({ kind: 'new', consensus, ...(kept.ok ? {} : { unkept: kept }) })
  }

  #unchanged({ url }: Mirror): Result<Fetched> {
    const { current } = this
    // Not a document that expired meanwhile, and not an answer to a question that was not asked.
    if (current === undefined)
      return failure('IPP_DIR_EXPIRED', `${url} has nothing newer than a document that has expired`)
    this.counters.add('consensus.unchanged')
    return success({ kind: 'unchanged', consensus: current })
  }

  /**
   * No step back while the last document is valid. When it has expired, so has everything before it, and a
   * directory that lost its state may count from one again.
   */
  #verify(document: Uint8Array): Result<Held> {
    const { crypto, unixTime } = this.#options
    const { current } = this
    const verified = verifyConsensus(
      document,
      {
        ...this.#trust,
        now: unixTime(),
        ...(current === undefined ? {} : { lastSerial: current.serial }),
      },
      crypto,
    )
    if (!verified.ok) return verified
    const text = Buffer.from(document).toString('latin1')
    const name = documentName(text, crypto)
    if (verified.value.serial === current?.serial && name !== this.#held?.name)
      return failure('IPP_DIR_REPLAYED', `consensus: there are two documents with serial ${current.serial}`)
    return success({ consensus: verified.value, text, name })
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

  /** Headers of a question for the document. */
  #question(): Record<string, string> {
    const held = this.current === undefined ? undefined : this.#held
    return {
      'accept-encoding': CODINGS,
      ...(held === undefined ? {} : { 'if-none-match': documentTag(held.name) }),
    }
  }

  async #ask(
    { url, dispatcher }: Mirror,
    path: string,
    headers: Readonly<Record<string, string>>,
    upload?: Uint8Array,
  ): Promise<Result<Reply>> {
    return await exchange({
      base: url.replace(/\/+$/, ''),
      path,
      headers,
      timeout: this.#options.timeout ?? 20 * SECOND,
      ...(upload === undefined ? {} : { upload }),
      ...(dispatcher === undefined ? {} : { dispatcher }),
    })
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
