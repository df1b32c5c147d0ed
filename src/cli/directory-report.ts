/** What `ippriv directory status` and `health` say, from the status of the daemon. */
import { IpprivError } from '#base/errors'
import { spanText } from '#base/span'
import { columns, EXIT, paint } from '#cli/output'

export interface DirectoryReport {
  readonly now: number
  readonly serial: number
  readonly nodes: number
  readonly publicKey: string
  readonly document: {
    readonly validAfter: number
    readonly freshUntil: number
    readonly validUntil: number
    readonly measured: number
    readonly signatures: number
    readonly threshold: number
    readonly authorities: number
  } | null
  readonly alarms: readonly {
    readonly name: string
    readonly authority?: string
    readonly since: number
    readonly last: number
    readonly meaning?: string
    readonly detail?: string
  }[]
  readonly certificates?: readonly { readonly authority: string; readonly validUntil: number }[]
  readonly council?: {
    readonly self: string
    readonly period: number
    readonly authorities: readonly {
      readonly name: string
      readonly url: string
      readonly lastVote: number
      readonly lastSignature: number
      readonly silentSince?: number
      readonly clockSkew?: number
    }[]
  }
}

export interface Health {
  readonly state: 'well' | 'worn' | 'ill'
  readonly exitCode: number
  /** The eldest first. */
  readonly problems: readonly {
    readonly name: string
    readonly authority: string | null
    /** ISO 8601; null: as long as is known. */
    readonly since: string | null
    readonly seconds: number | null
    readonly what: string
  }[]
}

/** There is no valid document. */
export const NO_DOCUMENT = 3

/** @throws IpprivError IPP_CONFIG_INVALID when another daemon listens there */
export function directoryReport(status: unknown): DirectoryReport {
  if ((status as { role?: unknown } | null)?.role !== 'directory')
    throw new IpprivError('IPP_CONFIG_INVALID', 'the daemon behind this socket is no directory')
  return status as DirectoryReport
}

export function healthOf({ now, document, alarms }: DirectoryReport): Health {
  const problems: Health['problems'][number][] = alarms.map(
    ({ name, authority, since, meaning, detail }) => ({
      name,
      authority: authority ?? null,
      since: momentText(since),
      seconds: now - since,
      what: [meaning, detail].filter(Boolean).join(' '),
    }),
  )
  const told = (name: string, since: number | null, what: string): void => {
    const seconds = since === null ? null : now - since
    problems.push({ name, authority: null, since: since === null ? null : momentText(since), seconds, what })
  }
  if (document === null) told('no-document', null, 'The authorities have made no document yet.')
  else {
    const { freshUntil, validUntil, signatures, threshold, authorities } = document
    if (now >= freshUntil && now < validUntil)
      told('stale', freshUntil, 'A new document was due; the last one can still be used.')
    if (signatures < authorities)
      told(
        'signatures',
        document.validAfter,
        `${signatures} of ${authorities} authorities signed the document; ${threshold} are needed.`,
      )
  }
  const dead = document === null || now >= document.validUntil || document.signatures < document.threshold
  const state = dead ? 'ill' : problems.length > 0 ? 'worn' : 'well'
  const exitCode = { well: EXIT.ok, worn: EXIT.failed, ill: NO_DOCUMENT }[state]
  return { state, exitCode, problems: problems.sort((a, b) => (b.seconds ?? 0) - (a.seconds ?? 0)) }
}

export function healthLines({ state, problems }: Health): string[] {
  const verdict = {
    well: paint('green', 'well'),
    worn: paint('yellow', 'it works, but not all is well'),
    ill: paint('red', 'there is no valid document'),
  }[state]
  const rows = problems.map(({ name, authority, since, seconds, what }) => [
    paint('red', name),
    authority ?? '-',
    since === null || seconds === null ? '-' : `${since} (${spanText(seconds)})`,
    what,
  ])
  return [
    verdict,
    ...(rows.length === 0 ? [] : ['', ...columns(rows, ['what', 'about', 'since', 'meaning'])]),
  ]
}

export function statusLines(report: DirectoryReport): string[] {
  const { now, serial, nodes, document, certificates = [], council, publicKey } = report
  const facts: string[][] = [['public key', publicKey]]
  if (document === null) facts.push(['document', 'none yet'])
  else {
    const { validAfter, freshUntil, validUntil, measured, signatures, threshold, authorities } = document
    facts.push(
      ['document', `${serial}, ${nodes} nodes, ${measured} of them measured`],
      ['signatures', `${signatures} of ${authorities}, ${threshold} needed`],
      ...(
        [
          ['valid after', validAfter],
          ['fresh until', freshUntil],
          ['valid until', validUntil],
        ] as const
      ).map(([name, at]) => [name, whenText(at, now)]),
    )
  }
  for (const { authority, validUntil } of certificates)
    facts.push([`certificate of ${authority}`, `until ${whenText(validUntil, now)}`])
  const lines = columns(facts.map(([name = '', value = '']) => [paint('dim', name), value]))
  if (council !== undefined) {
    const rows = council.authorities.map(({ name, url, lastVote, lastSignature, silentSince, clockSkew }) => [
      name === council.self ? `${name}*` : name,
      url,
      behind(council.period, lastVote),
      behind(council.period, lastSignature),
      clockSkew === undefined ? '-' : `${clockSkew} s`,
      silentSince === undefined
        ? paint('green', 'answers')
        : paint('red', `silent for ${spanText(now - silentSince)}`),
    ])
    lines.push('', ...columns(rows, ['authority', 'url', 'last vote', 'last signature', 'clock', 'now']))
  }
  return [...lines, '', ...healthLines(healthOf(report))]
}

/** How many periods ago. */
const behind = (period: number, last: number): string =>
  last === 0 ? 'never' : last >= period ? 'this period' : `${period - last} periods ago`

const whenText = (at: number, now: number): string =>
  `${momentText(at)} (${at > now ? `in ${spanText(at - now)}` : `${spanText(now - at)} ago`})`

const momentText = (at: number): string => new Date(at * 1000).toISOString().replace('.000Z', 'Z')
