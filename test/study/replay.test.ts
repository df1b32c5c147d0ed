/** The replay of connection logs: by hand, with generated logs, and against the published savings. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { IpprivError } from '#base/errors'
import { HOUR } from '#base/time'
import { type Connection, formatLog, parseLog } from '#study/log'
import { generateLog, POPULATIONS } from '#study/population'
import { replay, STRATEGIES_OF_STUDY } from '#study/replay'

const H = 3600
const at = (start: number, end: number, bytes = 0, user = 'a'): Connection => ({
  user,
  start: start * H,
  end: end * H,
  bytes,
})

test('the examples of the study', () => {
  // Eight hours by the clock: back after five hours, and after nine.
  const eight = { kind: 'clocked', limit: 8 * HOUR } as const
  assert.equal(replay([at(0, 2), at(5, 6)], [eight])[0]!.full, 1)
  assert.equal(replay([at(0, 2), at(9, 10)], [eight])[0]!.full, 2)
  // Eight hours of connection: two used, back twenty hours later.
  const connected = { kind: 'established', limit: 8 * HOUR } as const
  assert.equal(replay([at(0, 2), at(22, 23)], [connected])[0]!.full, 1)
  assert.equal(replay([at(0, 8), at(22, 23)], [connected])[0]!.full, 2)
  const data = { kind: 'data', limit: 20_000_000 } as const
  const volumes = [at(0, 1, 15e6), at(2, 3, 15e6), at(4, 5, 1)]
  assert.deepEqual(replay(volumes, [data])[0], { strategy: data, full: 2, resumed: 1, saved: 1 / 3 })
})

test('users have nothing in common, and the order of lines does not matter', () => {
  const log = [at(3, 4, 0, 'b'), at(0, 1, 0, 'a'), at(2, 3, 0, 'a'), at(1, 2, 0, 'b')]
  assert.equal(replay(log, [{ kind: 'clocked', limit: 4 * HOUR }])[0]!.full, 2)
  assert.deepEqual(replay([], [{ kind: 'clocked', limit: HOUR }])[0]!.saved, 0)
})

test('a log and back', () => {
  const log = [at(0, 1, 5), at(2, 3, 6, 'b')]
  assert.deepEqual(parseLog(formatLog(log), 'x'), log)
  const [line] = parseLog(
    'user, start, end, bytes\r\nu, 2006-08-19T00:00:00Z ,2006-08-19T01:00:00Z,7\r\n',
    'x',
  )
  assert.deepEqual(line, { user: 'u', start: 1155945600, end: 1155949200, bytes: 7 })
})

for (const [text, place] of [
  ['', '1:1: expected the header'],
  ['user,start,end\n', '1:1: expected the header'],
  ['user,start,end,bytes\nu,1,2\n', '2:7: expected 4 fields'],
  ['user,start,end,bytes\nu,1,2,3\nu,1,2,3,4\n', '3:9: expected 4 fields'],
  ['user,start,end,bytes\n,1,2,3\n', '2:1: expected a user'],
  ['user,start,end,bytes\nu,yesterday,2,3\n', '2:3: expected a time'],
  ['user,start,end,bytes\nu,1,2006-13-45,3\n', '2:5: expected a time'],
  ['user,start,end,bytes\nu,5,2,3\n', '2:5: expected an end that is not before'],
  ['user,start,end,bytes\nu,1,2,-3\n', '2:7: expected a number of bytes'],
  ['user,start,end,bytes\nu,1,2,3.5\n', '2:7: expected a number of bytes'],
] as const)
  test(`a bad log: ${JSON.stringify(text)}`, () => {
    assert.throws(
      () => parseLog(text, 'dir/vpn.csv'),
      (error) =>
        error instanceof IpprivError &&
        error.code === 'IPP_LOG_INVALID' &&
        error.message.includes(`dir/vpn.csv:${place}`),
    )
  })

for (const [name, population] of Object.entries(POPULATIONS)) {
  const log = generateLog(population, 7, 0.1)

  test(`${name}: the published totals, and shapes`, () => {
    const near = (found: number, wanted: number, share: number): void =>
      assert.ok(Math.abs(found / wanted - 1) < share, `${found} for ${wanted}`)
    const share = (count: number): number => count / log.length
    near(new Set(log.map(({ user }) => user)).size, population.users / 10, 0.001)
    near(log.length, population.connections / 10, 0.001)
    const mean = (of: (each: Connection) => number): number =>
      log.reduce((sum, each) => sum + of(each), 0) / log.length
    near(
      mean(({ start, end }) => end - start),
      population.meanDuration * H,
      0.01,
    )
    near(
      mean(({ bytes }) => bytes),
      population.meanVolume * 2 ** 20,
      0.01,
    )
    const lasted = (from: number, to: number): number =>
      share(log.filter(({ start, end }) => end - start >= from && end - start < to).length)
    assert.ok(lasted(0, 300) > 0.1, `${lasted(0, 300)} under five minutes`)
    assert.ok(lasted(600, 3 * H) > 0.4, `${lasted(600, 3 * H)} of 10 minutes to 3 hours`)
    assert.ok(share(log.filter(({ bytes }) => bytes <= 2 ** 20).length) > 0.5)
    const visits = Map.groupBy(log, ({ user }) => user)
    assert.ok([...visits.values()].filter(({ length }) => length > 1).length > 0.8 * visits.size)
    for (const each of visits.values())
      for (const [i, { start }] of each.entries()) assert.ok(i === 0 || start >= each[i - 1]!.end)
  })

  test(`${name}: the same seed gives the same log, another one another`, () => {
    assert.deepEqual(generateLog(population, 7, 0.01), generateLog(population, 7, 0.01))
    assert.notDeepEqual(generateLog(population, 7, 0.01), generateLog(population, 8, 0.01))
  })

  test(`${name}: a longer lifetime never costs more, and the savings reach those published`, () => {
    const outcomes = replay(log, STRATEGIES_OF_STUDY)
    for (const kind of ['clocked', 'established', 'data'] as const) {
      const saved = outcomes.filter(({ strategy }) => strategy.kind === kind).map((each) => each.saved)
      assert.deepEqual(
        saved,
        saved.toSorted((a, b) => a - b),
      )
      assert.ok(saved.at(-1)! >= 0.5, `${kind}: ${saved}`)
    }
  })
}
