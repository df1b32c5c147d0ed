/**
 * What a directory remembers about itself for the people who run it: since when something is wrong, and what the network
 * was like. It decides nothing. The history is kept in a file, and losing it loses a picture.
 */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { equalBytes, toHex } from '#base/bytes'
import type { Result } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { Alarm } from '#directory/alarms'
import { countSignatures, type Envelope, openDocument } from '#directory/canonical'
import { type Certificate, noticeOf } from '#directory/certificate'
import { formatMoment } from '#directory/consensus'
import { decodeHistory, encodeHistory, extendHistory, type HistoryPoint } from '#directory/history'
import type { CouncilReport } from '#directory/minutes'
import { factsOf } from '#directory/page/facts'
import type { AuthorityOutlook, Outlook } from '#directory/page/outlook'
import type { Publication } from '#directory/publication'
import { courseOf, decodeRates, encodeRates, extendRates, NO_RATES, type Rates } from '#directory/rates'
import type { DirectoryClock, DirectoryLog, DirectoryService } from '#directory/service'

export interface WatchOptions {
  readonly crypto: CryptoProvider
  readonly clock: DirectoryClock
  readonly log: DirectoryLog
  /** All pinned authorities, now; one of them is `self`, where this directory is one. */
  readonly trust: () => WatchedTrust
  readonly self?: Uint8Array
  /** Of the key this directory signs with. */
  readonly certificate?: Certificate
  /** Seconds. */
  readonly period: number
  /** Absent: the history ends with the process. */
  readonly historyFile?: string
  /** The same of each node's bandwidth. */
  readonly ratesFile?: string
}

export interface WatchedTrust {
  readonly authorities: readonly { readonly name: string; readonly key: Uint8Array }[]
  readonly threshold: number
}

interface Seen {
  readonly publication: Publication
  readonly authorities: readonly AuthorityOutlook[]
  /** By the identities that made them. */
  readonly certificates: ReadonlyMap<string, Certificate>
}

export interface CertificateReport {
  /** Name. */
  readonly authority: string
  readonly validAfter: UnixTime
  readonly validUntil: UnixTime
}

const DAY = 86_400
/** Periods between two figures of one node. */
const RATES_EVERY = 2

/** What is watched. */
export type Watched = Pick<DirectoryService, 'publication' | 'problem'>

export class DirectoryWatch {
  readonly #options: WatchOptions
  #history: readonly HistoryPoint[] = []
  #rates: Rates = NO_RATES
  #seen: Seen | undefined
  #warned: UnixTime | undefined
  #problem: { readonly line: string; readonly since: UnixTime } | undefined
  /** The end of the queue of writes; never rejects. */
  #writing: Promise<unknown> = Promise.resolve()

  constructor(options: WatchOptions) {
    this.#options = options
  }

  /** Reads what a predecessor kept. */
  async restore(): Promise<void> {
    const { historyFile, ratesFile } = this.#options
    this.#history = decodeHistory(await this.#read(historyFile))
    this.#rates = decodeRates(await this.#read(ratesFile))
  }

  /** Looks at what is served, and at why nothing newer is. To be called a few times in a period. */
  look({ publication, problem }: Watched): void {
    const { clock, period } = this.#options
    this.#warn(clock.unixTime())
    if (problem === undefined) this.#problem = undefined
    else this.#problem = { line: problem.line, since: this.#problem?.since ?? clock.unixTime() }
    if (publication === undefined || publication === this.#seen?.publication) return
    const envelope = openDocument('consensus', publication.packed.identity)
    const authorities = this.#signers(publication, envelope)
    this.#seen = { publication, authorities, certificates: certificatesIn(envelope) }
    const { consensus } = publication
    const facts = consensus.nodes.map(factsOf)
    const measured = facts.flatMap(({ bandwidth }) => (bandwidth === undefined ? [] : [bandwidth]))
    const point: HistoryPoint = {
      at: consensus.validAfter,
      nodes: facts.length,
      exits: facts.filter(({ flags }) => flags.includes('exit')).length,
      ...(measured.length === 0 ? {} : { bandwidth: measured.reduce((sum, rate) => sum + rate, 0) }),
      signatures: authorities.filter(({ signed }) => signed).length,
    }
    this.#history = extendHistory(this.#history, point, period / 2)
    this.#keep(this.#options.historyFile, encodeHistory(this.#history))
    const before = this.#rates
    const listed = consensus.nodes.flatMap(({ nodeId, bandwidth }) =>
      bandwidth === undefined ? [] : [[nodeId, bandwidth] as const],
    )
    this.#rates = extendRates(before, consensus.validAfter, new Map(listed), RATES_EVERY * period)
    // Documents that are made early do not write megabytes.
    if (this.#rates.at.at(-2) === before.at.at(-1))
      this.#keep(this.#options.ratesFile, encodeRates(this.#rates))
  }

  /** How it is now. Undefined: no document was ever made. */
  outlook(watched: Watched, council?: CouncilReport): Outlook | undefined {
    this.look(watched)
    const { clock, trust } = this.#options
    const { threshold } = trust()
    const { publication } = watched
    if (publication === undefined) return undefined
    const { consensus, packed } = publication
    const now = clock.unixTime()
    return {
      now,
      consensus,
      size: { plain: packed.identity.length, packed: packed.br.length },
      authorities: (this.#seen?.authorities ?? []).map((authority) => {
        const member = council?.authorities.find(({ name }) => name === authority.name)
        if (council === undefined || member === undefined) return authority
        // Before the roll is called a vote may still come.
        const due = now < council.schedule.roll ? council.period - 1 : council.period
        return { ...authority, voted: member.lastVote >= due }
      }),
      threshold,
      alarms: this.alarms(watched, council),
      history: this.#history,
      courseOf: (id) => courseOf(this.#rates, id),
    }
  }

  /** What is wrong now, the eldest first. */
  alarms({ publication }: Watched, council?: CouncilReport): Alarm[] {
    const now = this.#options.clock.unixTime()
    const alarms: Alarm[] = [...(council?.alarms ?? [])]
    for (const { name, silentSince } of council?.authorities ?? [])
      if (silentSince !== undefined)
        alarms.push({ name: 'silent', authority: name, since: silentSince, last: now })
    if (this.#problem !== undefined) {
      const { line, since } = this.#problem
      alarms.push({ name: 'publishing', authority: undefined, since, last: now, detail: line })
    }
    for (const { authority, validUntil, ...certificate } of this.certificates()) {
      const since = noticeOf({ validUntil, ...certificate })
      const detail = `It ${validUntil > now ? 'ends' : 'ended'} ${formatMoment(validUntil)}.`
      if (now >= since) alarms.push({ name: 'certificate', authority, since, last: now, detail })
    }
    const end = publication?.consensus.validUntil
    if (end !== undefined && now >= end)
      alarms.push({ name: 'expired', authority: undefined, since: end, last: now })
    return alarms.sort((a, b) => a.since - b.since || (a.name < b.name ? -1 : 1))
  }

  /** Of our own signing key, and of those that signed the document. */
  certificates(): CertificateReport[] {
    const { certificate: own, self, trust } = this.#options
    return trust().authorities.flatMap(({ name, key }) => {
      const isSelf = self !== undefined && equalBytes(self, key)
      const certificate = isSelf ? own : this.#seen?.certificates.get(toHex(key))
      if (certificate === undefined) return []
      const { validAfter, validUntil } = certificate
      return [{ authority: name, validAfter, validUntil }]
    })
  }

  /** Resolves when what was begun is written. */
  async idle(): Promise<void> {
    await this.#writing
  }

  /** Once a day. */
  #warn(now: UnixTime): void {
    const { certificate, log } = this.#options
    if (certificate === undefined || now < noticeOf(certificate)) return
    if (this.#warned !== undefined && now >= this.#warned && now < this.#warned + DAY) return
    this.#warned = now
    const until = formatMoment(certificate.validUntil)
    log.warn({ until }, 'the certificate of our signing key ends soon, or did: make another')
  }

  #signers({ consensus }: Publication, envelope: Result<Envelope>): AuthorityOutlook[] {
    const { trust, self, crypto } = this.#options
    return trust().authorities.map(({ name, key }) => ({
      name,
      key: toHex(key),
      signed: envelope.ok && countSignatures(envelope.value, [key], crypto, consensus.validAfter) === 1,
      self: self !== undefined && equalBytes(self, key),
    }))
  }

  /** Empty: there is nothing, or nothing that can be read. */
  async #read(file: string | undefined): Promise<string> {
    if (file === undefined) return ''
    try {
      return await readFile(file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#options.log.warn({ error: String(error) }, 'could not read a history; it begins anew')
      return ''
    }
  }

  #keep(file: string | undefined, text: string): void {
    const { log } = this.#options
    if (file === undefined) return
    this.#writing = this.#writing.then(async () => {
      try {
        await writeFile(`${file}.new`, text, { mode: 0o600 })
        await rename(`${file}.new`, file)
      } catch (error) {
        log.warn({ error: String(error) }, 'could not keep a history')
      }
    })
  }
}

const certificatesIn = (envelope: Result<Envelope>): Map<string, Certificate> =>
  new Map(
    (envelope.ok ? envelope.value.signatures : []).flatMap(({ certificate }) =>
      certificate === undefined ? [] : [[toHex(certificate.identity), certificate] as const],
    ),
  )
