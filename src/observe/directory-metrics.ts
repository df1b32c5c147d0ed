/** What a directory tells Prometheus beside its counters: the document, the other authorities, and what is wrong. */
import type { Exposition, Sample } from '#observe/prometheus'

export interface StatusOfDirectory {
  readonly role: string
  readonly nodes?: number
  readonly counters?: Readonly<Record<string, number>>
  readonly document?: {
    readonly validAfter: number
    readonly freshUntil: number
    readonly validUntil: number
    readonly measured: number
    readonly signatures: number
    readonly threshold: number
    readonly authorities: number
  } | null
  readonly alarms?: readonly {
    readonly name: string
    readonly authority: string | undefined
    readonly since: number
  }[]
  readonly certificates?: readonly { readonly authority: string; readonly validUntil: number }[]
  readonly now?: number
  readonly council?: {
    readonly period: number
    readonly authorities: readonly {
      readonly name: string
      readonly lastVote: number
      readonly silentSince: number | undefined
      readonly clockSkew: number | undefined
    }[]
    readonly raised: readonly {
      readonly name: string
      readonly authority: string | undefined
      readonly total: number
    }[]
  }
}

export function writeDirectoryMetrics(status: StatusOfDirectory, to: Exposition): void {
  if (status.role !== 'directory') return
  const { nodes = 0, counters = {}, document, alarms = [], certificates = [], now = 0, council } = status
  const gauge = (name: string, help: string, samples: readonly Sample[]): void =>
    to.family(`ippriv_directory_${name}`, 'gauge', help, samples)
  const counter = (name: string, help: string, samples: readonly Sample[]): void =>
    to.family(`ippriv_directory_${name}`, 'counter', help, samples)
  if (document) {
    const { validAfter, freshUntil, validUntil, measured, signatures, threshold, authorities } = document
    gauge('document_valid_after_seconds', 'From when on the document is valid, Unix time.', [
      [{}, validAfter],
    ])
    gauge('document_fresh_until_seconds', 'When the next document is due, Unix time.', [[{}, freshUntil]])
    gauge('document_valid_until_seconds', 'When the document expires, Unix time.', [[{}, validUntil]])
    gauge('nodes', 'Nodes in the document.', [[{}, nodes]])
    gauge('nodes_measured', 'Nodes in the document with a measured bandwidth.', [[{}, measured]])
    gauge('signatures', 'Authorities whose signature is on the document.', [[{}, signatures]])
    gauge('signatures_needed', 'Signatures without which a document is not valid.', [[{}, threshold]])
    gauge('authorities', 'Authorities of the network.', [[{}, authorities]])
  }
  gauge(
    'alarm_since_seconds',
    'Since when an alarm stands, Unix time; absent: it does not.',
    alarms.map(({ name, authority, since }) => [{ alarm: name, ...about(authority) }, since]),
  )
  gauge(
    'certificate_seconds_left',
    'Until the certificate of the signing key of an authority ends; negative: since it did.',
    certificates.map(({ authority, validUntil }) => [{ authority }, validUntil - now]),
  )
  counter(
    'upload_errors_total',
    'Requests that were refused, by the name of the error.',
    Object.entries(counters).flatMap(([name, value]): Sample[] =>
      name.startsWith('refused.') ? [[{ error: name.slice('refused.'.length) }, value]] : [],
    ),
  )
  if (council === undefined) return
  const { period, authorities, raised } = council
  counter(
    'alarms_total',
    'How often an alarm was raised: once in a period for each authority.',
    raised.map(({ name, authority, total }) => [{ alarm: name, ...about(authority) }, total]),
  )
  counter(
    'votes_missed_total',
    'Periods in which no vote of an authority came.',
    authorities.map(({ name }) => [
      { authority: name },
      raised.find((one) => one.name === 'vote-missing' && one.authority === name)?.total ?? 0,
    ]),
  )
  gauge(
    'votes_behind',
    'Periods since the last vote of an authority that came.',
    authorities.flatMap(({ name, lastVote }): Sample[] =>
      lastVote === 0 ? [] : [[{ authority: name }, Math.max(0, period - lastVote)]],
    ),
  )
  gauge(
    'clock_skew_seconds',
    'By how much the clock of an authority is ahead of ours.',
    authorities.flatMap(({ name, clockSkew }): Sample[] =>
      clockSkew === undefined ? [] : [[{ authority: name }, clockSkew]],
    ),
  )
  gauge(
    'authority_answers',
    'Whether an authority answers (1) or does not (0).',
    authorities.map(({ name, silentSince }) => [{ authority: name }, silentSince === undefined ? 1 : 0]),
  )
}

const about = (authority: string | undefined) => (authority === undefined ? {} : { authority })
