import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadCommand, readLoads } from '../../bench/stress/load.ts'
import { divide } from '../../bench/stress/processors.ts'
import { readStandings, report, type StressSample } from '../../bench/stress.ts'

test('loads: the one without is always measured, first, and a load ends by itself', () => {
  assert.deepEqual(readLoads('disk,cpu'), ['none', 'cpu', 'disk'])
  assert.throws(() => readLoads('cpu,gpu'), /gpu/)
  assert.equal(loadCommand('none', '/scratch', 5), undefined)
  const command = loadCommand('memory', '/scratch', 4.2)!
  assert.deepEqual(command.slice(0, 3), ['stress-ng', '--vm', '20'])
  assert.ok(command.join(' ').includes('--timeout 5s --temp-path /scratch'))
})

test('standings keep their order, and one that is none is refused', () => {
  assert.deepEqual(readStandings('apart, equal'), ['equal', 'apart'])
  assert.throws(() => readStandings('equal,nice'), /nice/)
})

test('one processor for the host under load, all others for the others', () => {
  assert.deepEqual(divide(2), { loaded: 1, others: '0' })
  assert.deepEqual(divide(8), { loaded: 7, others: '0-6' })
  assert.throws(() => divide(1), /processor of its own/)
})

test('the report: a share is of the same side without load, and a side without round trips has none', () => {
  const sample = (
    system: StressSample['system'],
    load: StressSample['load'],
    mbps: number,
    rtt?: number,
  ) => ({
    ...({ system, load, mbps, standing: 'equal', round: 1 } as const),
    ...(rtt === undefined ? {} : { rtt, rtt95: 2 * rtt }),
  })
  const { tables, plots } = report(
    3,
    ['none', 'cpu'],
    [
      ...[100, 300, 200].map((mbps) => sample('ippriv', 'none', mbps, 4)),
      sample('ippriv', 'cpu', 50, 8),
      sample('kernel plane', 'none', 20),
      sample('kernel plane', 'cpu', 19),
    ],
  )
  const [goodput, share, trip] = tables
  assert.deepEqual(goodput!.columns, ['load', 'ippriv', 'kernel plane'])
  assert.deepEqual(goodput!.rows, [
    ['none', 200, 20],
    ['cpu', 50, 19],
  ])
  assert.deepEqual(share!.rows[1], ['cpu', 25, 95])
  assert.deepEqual(trip!.rows[1], ['cpu', 8, Number.NaN])
  assert.equal(plots![0]!.values.length, 6)
})
