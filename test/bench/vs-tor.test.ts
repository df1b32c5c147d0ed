import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { draw } from '../../bench/plot.ts'
import { Comparison, type Sample, TOR_BEST } from '../../bench/vs-tor/comparison.ts'

/** Two rounds, the machine twice as slow in the second. */
const samples: Sample[] = [1, 2].flatMap((round): Sample[] => {
  const common = { part: 'open', round } as const
  const five = { ...common, what: '5 down' } as const
  return [
    { ...five, system: 'direct', goodput: 9000 / round, rtt: 10, cost: 1 },
    { ...five, system: 'ippriv', goodput: 240 / round, rtt: 5 * round, cost: 50 },
    { ...five, system: 'tor', goodput: 60 / round, rtt: 30 * round, cost: 100 },
    { ...common, what: TOR_BEST, system: 'tor', goodput: 200 / round, rtt: 40 * round, cost: 60 },
    { ...common, what: 'build', system: 'ippriv', ms: 50 },
  ]
})

test('tor’s best arrangement stands in every table, and is what five streams are held against', () => {
  const { tables, targets } = new Comparison(2, samples).report()
  for (const [i, title] of [/goodput/, /cost/, /round trip/].entries()) {
    assert.match(tables[i]!.title, title)
    const row = tables[i]!.rows.find(([what]) => what === TOR_BEST)!
    assert.ok(Number.isFinite(row.at(-1)))
  }
  const measured = (what: string) => targets.find((target) => target.what.startsWith(what))!.measured
  assert.equal(measured('five streams'), 1.2)
  assert.equal(measured('processor seconds per gigabyte, five streams'), 50 / 60)
})

test('ratios are of rounds: a machine that slows down changes none', () => {
  const ratios = new Comparison(2, samples).report().tables.at(-1)!.rows
  const row = (what: string) => ratios.find(([name]) => name === what)!.slice(1)
  assert.deepEqual(row('5 down'), ['4.00 (4.00 to 4.00)', '0.500 (0.500 to 0.500)', '0.167 (0.167 to 0.167)'])
  assert.deepEqual(row('5 down, tor with five circuits')[0], '1.20 (1.20 to 1.20)')
  assert.deepEqual(row('1 up'), ['-', '-', '-'])
})

test('the open part is drawn', async (t) => {
  const out = await mkdtemp(join(tmpdir(), 'bench-'))
  t.after(() => rm(out, { recursive: true }))
  const [plot] = new Comparison(2, samples).report().plots!
  assert.equal(plot!.name, 'vs-tor-open')
  assert.equal((await draw(plot!, out)).length, 2)
})

test('no target is judged by what was not measured', () => {
  const { targets } = new Comparison(2, samples).report()
  assert.ok(targets.every(({ measured }) => Number.isFinite(measured)))
  assert.ok(!targets.some(({ what }) => what.startsWith('a web page')))
})
