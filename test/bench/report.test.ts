import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isMet, type Report } from '../../bench/bench.ts'
import { roundsHelp } from '../../bench/command.ts'
import { keep, print } from '../../bench/report.ts'
import { figure, median, quantile } from '../../bench/stats.ts'

const report: Report = {
  title: 'apples beside pears',
  tables: [
    {
      title: 'weight',
      columns: ['fruit', 'g'],
      rows: [
        ['apple', 123.456],
        ['pear', 98],
      ],
    },
  ],
  targets: [{ what: 'apples to pears', measured: 1.26, bound: 1.5, sense: 'least', unit: 'x' }],
  samples: { apple: [123, 124] },
  plots: [
    {
      name: 'weight',
      values: [{ fruit: 'apple', g: 123 }],
      spec: {
        mark: 'bar',
        encoding: { x: { field: 'fruit', type: 'nominal' }, y: { field: 'g', type: 'quantitative' } },
      },
    },
  ],
}

test('median and quantiles', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 2, 3]), 2.5)
  assert.ok(Number.isNaN(median([])))
  assert.equal(median([Number.NaN, 3, 1, Number.NaN, 2]), 2)
  assert.equal(quantile([5, 1, 4, 2, 3], 0.99), 5)
})

test('figures have three digits and no exponent', () => {
  assert.deepEqual([0.012345, 1.23456, 12.3456, 123456, 0, Number.NaN].map(figure), [
    '0.0123',
    '1.23',
    '12.3',
    '123456',
    '0',
    '-',
  ])
})

test('a target says on which side of its bound it lies', () => {
  assert.ok(!isMet(report.targets[0]!))
  assert.ok(isMet({ ...report.targets[0]!, sense: 'most' }))
})

test('the printed report shows a missed target, and columns line up', () => {
  const text = print(report)
  assert.match(text, /MISSED {2}apples to pears {2}1\.26x {5}at least 1\.5x/)
  assert.match(text, /apple {3}123\npear {3}98\.0\n/)
})

test('what is kept: JSON with samples, and a plot as SVG and PNG', async (t) => {
  const out = await mkdtemp(join(tmpdir(), 'bench-'))
  t.after(() => rm(out, { recursive: true }))
  const files = await keep('fruit', report, out)
  assert.deepEqual(
    files,
    ['fruit.json', 'weight.svg', 'weight.png'].map((file) => join(out, file)),
  )
  const json = JSON.parse(await readFile(files[0]!, 'utf8')) as {
    samples: object
    targets: { met: boolean }[]
  }
  assert.deepEqual(json.samples, report.samples)
  assert.equal(json.targets[0]!.met, false)
  assert.match(await readFile(files[1]!, 'utf8'), /^<svg/)
  assert.equal((await readFile(files[2]!)).subarray(1, 4).toString(), 'PNG')
})

test('help says how long the rounds take', () => {
  assert.equal(roundsHelp({ rounds: 5 }), 'alternating rounds (default: 5)')
  assert.match(roundsHelp({ rounds: 5, minutesPerRound: 1.5 }), /about 1\.5 minutes each .*so 8 minutes/)
})
