import assert from 'node:assert/strict'
import { test } from 'node:test'
import { renderMetrics, type StatusOfDaemon } from '#observe/metrics'

const STATUS: StatusOfDaemon = {
  role: 'directory',
  nodes: 8,
  counters: { 'refused.IPP_DIR_SOURCE': 3, 'consensus.served': 7 },
  document: {
    validAfter: 3600,
    freshUntil: 7200,
    validUntil: 14_400,
    measured: 6,
    signatures: 4,
    threshold: 3,
    authorities: 5,
  },
  certificates: [
    { authority: 'ash', validUntil: 5000 },
    { authority: 'elm', validUntil: 3000 },
  ],
  now: 4000,
  alarms: [
    { name: 'vote-missing', authority: 'elm', since: 3500 },
    { name: 'publishing', authority: undefined, since: 3600 },
  ],
  council: {
    period: 9,
    authorities: [
      { name: 'ash', lastVote: 9, silentSince: undefined, clockSkew: undefined },
      { name: 'elm', lastVote: 6, silentSince: 3500, clockSkew: -130 },
    ],
    raised: [{ name: 'vote-missing', authority: 'elm', total: 3 }],
  },
}

test('what operators are to watch: votes, signatures, clocks, uploads, measurements', () => {
  const lines = renderMetrics(STATUS).split('\n')
  for (const line of [
    'ippriv_directory_votes_missed_total{role="directory",authority="elm"} 3',
    'ippriv_directory_votes_missed_total{role="directory",authority="ash"} 0',
    'ippriv_directory_votes_behind{role="directory",authority="elm"} 3',
    'ippriv_directory_signatures{role="directory"} 4',
    'ippriv_directory_signatures_needed{role="directory"} 3',
    'ippriv_directory_clock_skew_seconds{role="directory",authority="elm"} -130',
    'ippriv_directory_authority_answers{role="directory",authority="elm"} 0',
    'ippriv_directory_upload_errors_total{role="directory",error="IPP_DIR_SOURCE"} 3',
    'ippriv_directory_nodes{role="directory"} 8',
    'ippriv_directory_nodes_measured{role="directory"} 6',
    'ippriv_directory_alarm_since_seconds{role="directory",alarm="publishing"} 3600',
    'ippriv_directory_alarm_since_seconds{role="directory",alarm="vote-missing",authority="elm"} 3500',
    'ippriv_directory_document_valid_until_seconds{role="directory"} 14400',
    'ippriv_directory_certificate_seconds_left{role="directory",authority="ash"} 1000',
    'ippriv_directory_certificate_seconds_left{role="directory",authority="elm"} -1000',
    'ippriv_events_total{role="directory",event="consensus.served"} 7',
  ])
    assert.ok(lines.includes(line), line)
  // Every family is declared once, before its samples, and every line is one of the format.
  const declared = new Set<string>()
  for (const line of lines.filter(Boolean)) {
    const [, name] = /^# (?:HELP|TYPE) ([a-z_]+) /.exec(line) ?? []
    if (name !== undefined) {
      if (line.startsWith('# TYPE')) assert.ok(!declared.has(name), name)
      if (line.startsWith('# TYPE')) declared.add(name)
      continue
    }
    assert.match(line, /^[a-z_]+\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\} -?\d+$/)
    assert.ok(declared.has(line.slice(0, line.indexOf('{'))), line)
  }
})

test('a directory without a document, or alone, has fewer; a node has none of them', () => {
  const { council: _, ...alone } = STATUS
  assert.doesNotMatch(renderMetrics({ ...alone, document: null }), /votes_missed|signatures/)
  assert.doesNotMatch(renderMetrics({ role: 'node', counters: {} }), /directory/)
})
