import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '#base/ip'
import { Checklist, expect } from '#demo/checklist'
import { runDemo } from '#demo/demo'
import { formatReport, nameKnowledge, type Report } from '#demo/report'

const exchange = (hop: number, name: string, ms: number, transmissions = 1) => ({
  hop,
  node: ['alder', 'birch', 'cedar'][hop - 1]!,
  name,
  ms,
  transmissions,
})

const REPORT: Report = {
  ok: false,
  plane: 'userspace',
  kernel: '6.1.0',
  userModeLinux: false,
  path: ['alder', 'birch', 'cedar'],
  privateAddresses: ['10.64.0.2', '10.64.16.2', '10.64.32.2'],
  cipher: 'aes-256-gcm-16',
  suite: 'AES-256-GCM-16, X25519',
  circuitBuildMs: 41.24,
  exchanges: [
    [exchange(1, 'IKE_SA_INIT', 5.1), exchange(1, 'IKE_AUTH', 6)],
    [exchange(2, 'IKE_SA_INIT', 7, 2), exchange(2, 'IKE_AUTH', 8)],
    [exchange(3, 'IKE_SA_INIT', 9), exchange(3, 'IKE_AUTH', 10)],
  ],
  secondCircuit: null,
  download: null,
  goodputMbps: 50,
  directMbps: 200,
  yardstick: null,
  pings: { sent: 10, received: 9, rttMs: { min: 1, average: 1.5, max: 2 } },
  leaks: 2,
  checks: [
    { name: 'one', ok: true, evidence: 'seen' },
    { name: 'two', ok: false, evidence: 'not seen' },
  ],
  whoSawWhom: nameKnowledge(
    [{ party: 'server', addresses: ['198.18.30.1' as Ip, '198.18.99.1' as Ip] }],
    new Map([['198.18.30.1', 'cedar']]),
  ),
  sas: {},
  lossPercent: 0,
  seconds: 30.2,
  out: '/somewhere/demo-out',
}

test('the report says everything a person wants to know', () => {
  const text = formatReport(REPORT)
  for (const line of [
    'client > alder > birch > cedar > server',
    '10.64.0.2 (alder), 10.64.16.2 (birch), 10.64.32.2 (cedar)',
    'open after 41.2 ms',
    'hop 2, birch: IKE_SA_INIT 7.0 ms (sent 2 times), IKE_AUTH 8.0 ms',
    '50.0 Mbit/s through the circuit, 200.0 Mbit/s direct (25 %)',
    'server  cedar 198.18.30.1, ? 198.18.99.1',
    'FAIL two',
    '1 of 2 checks FAILED, 2 packets leaked; 30 s.',
    '/somewhere/demo-out',
  ])
    assert.ok(text.includes(line), `${line}\nis not in\n${text}`)
})

test('a failed check does not keep the next from being made', async () => {
  const told: string[] = []
  const list = new Checklist((line) => told.push(line))
  await list.run('first', async () => {
    expect(false, 'it does not hold')
    return 'never'
  })
  await list.run('second', async () => 'it holds')
  assert.deepEqual(list.all, [
    { name: 'first', ok: false, evidence: 'it does not hold' },
    { name: 'second', ok: true, evidence: 'it holds' },
  ])
  assert.deepEqual(told, ['FAIL first: it does not hold', 'ok   second'])
})

for (const [what, wrong] of [
  ['hops', { hops: 6 }],
  ['hops', { hops: Number.NaN }],
  ['cipher', { cipher: 'rot13' }],
  ['loss', { loss: 50 }],
  ['size', { size: 0 }],
  ['authorities', { authorities: 2 }],
  ['nodes', { nodes: 4 }],
] as const)
  test(`refuses ${JSON.stringify(wrong)} before anything is created`, async () => {
    const options = {
      json: false,
      plane: 'userspace',
      keep: false,
      hops: 3,
      cipher: 'aes-256-gcm-16',
      out: '/nonexistent',
      loss: 0,
      authorities: 1,
      nodes: 5,
    } as const
    await assert.rejects(runDemo({ ...options, ...wrong }), (error: Error & { code?: string }) => {
      assert.equal(error.code, 'IPP_CONFIG_INVALID')
      assert.match(error.message, new RegExp(`--${what}`))
      return true
    })
  })
