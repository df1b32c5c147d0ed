import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bench } from '../../sim/paths.ts'

test('the simulation of paths: guards are worth having, and positions carry alike', async () => {
  const report = await bench.run({
    rounds: 1,
    out: '/nowhere',
    options: { nodes: '200', clients: '25', days: '6', circuits: '20', seed: '3' },
    signal: new AbortController().signal,
    say: () => undefined,
  })
  const [entropy, load, chance] = report.tables
  for (const [, nodes, bits, equals] of entropy!.rows) {
    assert.ok(
      Number(bits) > 2 && Number(bits) < Math.log2(Number(nodes)),
      'less than uniform, and not by much',
    )
    assert.ok(Math.abs(2 ** Number(bits) - Number(equals)) < 1e-6)
  }
  const [weighted, even] = load!.rows
  assert.ok(Number(weighted![4]) < Number(even![4]), 'the heaviest load is lighter with weights')
  const sum = (column: number) => chance!.rows.reduce((total, row) => total + Number(row[column]), 0)
  assert.ok(sum(1) < 0.7 * sum(2), `with guards ${sum(1)}, without ${sum(2)}`)
  assert.ok(Number(chance!.rows.at(-1)![2]) > 90, 'with a third of all, everybody is seen without guards')
  assert.deepEqual(
    report.plots!.map(({ values }) => values.length),
    [12, 72],
  )
})
