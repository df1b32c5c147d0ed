import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { NodeId } from '#base/ids'
import { unixTime } from '#base/time'
import type { AuthorityRecord } from '#directory/authority-events'
import { draftVote, MEASURED_FOR } from '#directory/ballot'
import type { DescriptorFields } from '#directory/descriptor'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { flagsOf, STAY } from '#directory/standing'
import { parseExitPolicy } from '#nat/exit-policy'
import { NEXT } from './authorities.ts'
import { at, describe, PERIOD } from './network.ts'

const NOW = at(0)
const DAY = 86_400
const MONTH = 30 * DAY

const record = (
  name: string,
  known: { since?: number; up?: number; figure?: readonly [number, number] },
  fields: Partial<DescriptorFields> = {},
): AuthorityRecord => ({
  ...describe(name, fields),
  pool: undefined,
  since: unixTime(NOW - (known.since ?? MONTH)),
  ...(known.up === undefined ? {} : { up: unixTime(NOW - known.up) }),
  ...(known.figure === undefined
    ? {}
    : { figure: { bandwidth: known.figure[0], at: unixTime(NOW - known.figure[1]) } }),
})

function lettersOf(records: readonly AuthorityRecord[], speeds: Readonly<Record<string, number>> = {}) {
  const names = new Map<NodeId, string>(records.map(({ descriptor }) => [descriptor.nodeId, descriptor.name]))
  const flags = flagsOf(records, {
    now: NOW,
    period: PERIOD,
    bandwidthOf: (node) => speeds[names.get(node)!],
  })
  return Object.fromEntries(
    [...flags].map(([node, its]) => [
      names.get(node)!,
      its
        .map((flag) => flag[0])
        .sort()
        .join(''),
    ]),
  )
}

test('a network in which nobody was measured and all are new: everybody is as good', () => {
  const all = ['alder', 'birch', 'cedar'].map((name) => record(name, { since: MONTH, up: DAY }))
  assert.deepEqual(lettersOf(all), { alder: 'efgrsv', birch: 'efgrsv', cedar: 'efgrsv' })
})

test('a stay of proof comes before flags that draw clients', () => {
  const [old, young] = [record('alder', { up: DAY }), record('birch', { since: STAY * PERIOD - 1, up: 10 })]
  assert.deepEqual(lettersOf([old, young]), { alder: 'efgrsv', birch: 'rv' })
})

test('not running: our own measurer found lately that nothing comes through', () => {
  assert.deepEqual(
    lettersOf([
      record('alder', { up: DAY, figure: [0, PERIOD] }),
      record('birch', { up: DAY, figure: [0, 4 * PERIOD] }),
      record('cedar', { up: DAY, figure: [5, PERIOD] }),
    ]),
    { alder: 'v', birch: 'efgrsv', cedar: 'efgrsv' },
  )
})

test('fast, stable, guard: by rank, or by being good enough', () => {
  const names = Array.from({ length: 9 }, (_, i) => `n${i}`)
  const speeds = Object.fromEntries(names.map((name, i) => [name, 100 * (i + 1)]))
  const slow = lettersOf(
    names.map((name, i) => record(name, { up: (i + 1) * 3600 })),
    speeds,
  )
  assert.deepEqual(
    names.map((name) => slow[name]),
    ['erv', 'efrv', 'efrv', 'efrv', 'efgrsv', 'efgrsv', 'efgrsv', 'efgrsv', 'efgrsv'],
  )
  const ample = Object.fromEntries(names.map((name, i) => [name, 16_000 * (i + 1)]))
  const all = lettersOf(
    names.map((name, i) => record(name, { up: (8 + i) * DAY })),
    ample,
  )
  for (const name of names) assert.equal(all[name], 'efgrsv')
  const fresh = names.map((name, i) => record(name, { up: DAY, since: i < 2 ? DAY : MONTH }))
  assert.equal(lettersOf(fresh, ample).n0, 'efrsv', 'too young to be a guard')
})

test('exit: the web is reachable nearly everywhere', () => {
  const policy = (...lines: string[]) => {
    const parsed = parseExitPolicy(lines)
    assert.ok(parsed.ok)
    return { exitPolicy: parsed.value }
  }
  const up = { up: DAY }
  assert.deepEqual(
    lettersOf([
      record('alder', up, policy('accept 0.0.0.0/0 tcp 80', 'accept 0.0.0.0/0 tcp 443')),
      record('birch', up, policy('accept 0.0.0.0/0 tcp 443')),
      record('cedar', up, policy('reject 0.0.0.0/1', 'accept 0.0.0.0/0')),
      record('dogwood', up, { roles: ['entry', 'middle'], exitPolicy: [] }),
    ]),
    { alder: 'efgrsv', birch: 'fgrsv', cedar: 'fgrsv', dogwood: 'fgrsv' },
  )
})

test('a vote says what was found: figures while they are fresh, and since when a node is up', () => {
  const records = [
    record('alder', { up: DAY, figure: [700, 60] }),
    record('birch', { up: DAY, figure: [700, MEASURED_FOR + 60] }),
    record('cedar', { figure: [0, 60], up: DAY }),
    record('dogwood', {}),
    record('elm', { up: DAY }, { published: at(-4 * PERIOD) }),
  ]
  const { draft, changed } = draftVote(new Map(records.map((each) => [each.descriptor.nodeId, each])), {
    now: NOW,
    period: NEXT,
    length: PERIOD,
    document: undefined,
    words: new Map(),
    parameters: DEFAULT_PARAMETERS,
  })
  const said = Object.fromEntries(
    draft.nodes.map(({ descriptor, flags, measured }) => [
      descriptor.name,
      [flags.includes('running'), measured],
    ]),
  )
  assert.deepEqual(said, {
    alder: [true, 700],
    birch: [true, undefined],
    cedar: [false, 0],
    dogwood: [true, undefined],
  })
  assert.deepEqual(Object.fromEntries(changed.map(({ descriptor, up }) => [descriptor.name, up])), {
    cedar: undefined,
    dogwood: NOW,
    elm: undefined,
  })
})
