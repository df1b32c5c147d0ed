import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { planesReport, type Sample, type Trip } from '../../bench/planes.ts'
import { draw } from '../../bench/plot.ts'
import { recipeReport } from '../../bench/recipe.ts'
import type { RecipeSample } from '../../bench/recipe-guest.ts'

const sample = (side: string, mbps: number): Sample => ({
  ...{ side, streams: 1, direction: 'down', mbps },
  ...{ secondsPerGigabyte: 50, daemons: [10, 10, 10, 10], retransmissions: 0 },
})
const trip = (side: string, ms: number): Trip => ({ side, beside: 'idle', ms })

test('planes: what a hop adds, and another version within the round', () => {
  const bulk = [
    sample('userspace', 100),
    sample('against', 80),
    sample('userspace', 50),
    sample('against', 50),
  ]
  const trips = [trip('direct', 0.4), trip('userspace', 1.6), trip('against', 1.9)]
  const { tables, targets } = planesReport(3, ['direct', 'userspace', 'against'], bulk, trips)
  const added = tables.find(({ title }) => title.startsWith('added'))!.rows[0]!
  assert.equal(added[0], 'idle')
  assert.ok(Math.abs(Number(added[1]) - 0.4) < 1e-9 && Math.abs(Number(added[2]) - 0.5) < 1e-9)
  assert.deepEqual(
    targets.map(({ what, measured }) => [what, measured]),
    [['1 down, ratio to the other', 1.125]],
  )
})

test('planes: without another side there is nothing to be better than', () => {
  assert.deepEqual(planesReport(3, ['direct', 'userspace'], [sample('userspace', 1)], []).targets, [])
})

test('kernel plane: every side has what its hops add to its own plain, cost and a plot', async (t) => {
  const one = (side: RecipeSample['side'], down: number, ms: number): RecipeSample => ({
    ...{ side, down, up: down, ms, downCost: 1000 / down, upCost: 1000 / down },
  })
  const samples = [
    one('plain', 2000, 0.1),
    one('daemons', 19, 0.7),
    one('by hand', 20, 0.7),
    one('plain, later', 1000, 0.2),
    one('userspace', 5, 6.2),
  ]
  const { tables, targets, plots } = recipeReport(1, samples)
  const [sides, against] = tables as [(typeof tables)[number], (typeof tables)[number]]
  const added = Object.fromEntries(sides.rows.map((row) => [row[0], row.at(-1)]))
  assert.ok(Math.abs(Number(added.userspace) - 2) < 1e-9 && Math.abs(Number(added.daemons) - 0.2) < 1e-9)
  assert.equal(added.plain, '-')
  assert.equal(against.rows[0]![0], 19 / 5)
  assert.equal(targets[0]!.measured, 0.95)
  const out = await mkdtemp(join(tmpdir(), 'bench-'))
  t.after(() => rm(out, { recursive: true }))
  assert.equal((await draw(plots![0]!, out)).length, 2)
})
