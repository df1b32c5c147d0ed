import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nodeIdFromBytes } from '#base/ids'
import {
  courseOf,
  decodeRates,
  encodeRates,
  extendRates,
  NO_RATES,
  RATE_POINTS,
  type Rates,
} from '#directory/rates'
import { at, PERIOD } from './network.ts'

const idOf = (n: number) => nodeIdFromBytes(new Uint8Array(32).fill(n))
const [A, B] = [idOf(1), idOf(2)]
const SPACING = 2 * PERIOD
const HOURS = Array.from({ length: 400 }, (_, hour) => hour)

test('a figure for every other document, for a week; gaps stay gaps', () => {
  let rates: Rates = NO_RATES
  for (const hour of HOURS) {
    const listed = new Map([[A, 1000 + hour]])
    if (hour >= 300 && hour !== 360) listed.set(B, 5)
    rates = extendRates(rates, at(hour * PERIOD), listed, SPACING)
  }
  const course = courseOf(rates, A)
  assert.equal(course.length, RATE_POINTS)
  assert.deepEqual(course.at(-1), { at: at(399 * PERIOD), value: 1_399_000 })
  const gaps = course.slice(1, -1).map((point, i) => point.at - course[i]!.at)
  assert.deepEqual([...new Set(gaps)], [SPACING])
  const young = courseOf(rates, B)
  assert.ok(young.length >= 49 && young.length <= 51, `${young.length}`)
  assert.ok(young.every(({ at: moment, value }) => moment >= at(298 * PERIOD) && value === 5000))
  assert.deepEqual(courseOf(rates, idOf(3)), [])
  assert.deepEqual(decodeRates(encodeRates(rates)), rates)
})

test('who is gone is forgotten after a week, and a crowd of them at once', () => {
  let rates = extendRates(
    NO_RATES,
    at(0),
    new Map([
      [A, 1],
      [B, 2],
    ]),
    SPACING,
  )
  for (const hour of HOURS.slice(1, 100))
    rates = extendRates(rates, at(hour * PERIOD), new Map([[B, 2]]), SPACING)
  assert.ok(rates.of.has(A))
  for (const hour of HOURS.slice(100))
    rates = extendRates(rates, at(hour * PERIOD), new Map([[B, 2]]), SPACING)
  assert.deepEqual([...rates.of.keys()], [B])
  const crowd = (first: number) =>
    new Map(
      Array.from({ length: 15_000 }, (_, i) => {
        const octets = new Uint8Array(32)
        new DataView(octets.buffer).setUint32(0, first + i)
        return [nodeIdFromBytes(octets), 1] as const
      }),
    )
  rates = extendRates(NO_RATES, at(0), crowd(0), SPACING)
  rates = extendRates(rates, at(SPACING), crowd(15_000), SPACING)
  assert.equal(rates.of.size, 20_000)
  assert.ok(
    [...crowd(15_000).keys()].every((id) => rates.of.has(id)),
    'who is listed is kept',
  )
})

test('a calendar that is set back leaves moments in order, and nothing grows', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 300 }), (hours) => {
      let rates: Rates = NO_RATES
      for (const hour of hours) rates = extendRates(rates, at(hour * PERIOD), new Map([[A, hour]]), SPACING)
      assert.ok(rates.at.length <= RATE_POINTS)
      assert.ok((rates.of.get(A)?.length ?? 0) <= rates.at.length)
      const { at: moments } = decodeRates(encodeRates(rates))
      assert.deepEqual(moments, rates.at)
    }),
  )
})

test('what is no history is none', () => {
  for (const text of [
    '',
    '{',
    '[]',
    '{"at":[1],"rates":{"x":[1]}}',
    `{"at":[1],"rates":{"${A}":[1,2]}}`,
    `{"at":[2,1],"rates":{}}`,
    `{"at":[1],"rates":{"${A}":["1"]}}`,
    `{"at":[1],"rates":{"${A}":[-1]}}`,
    `{"at":[${Array.from({ length: 85 }, (_, i) => i)}],"rates":{}}`,
  ])
    assert.deepEqual(decodeRates(text), NO_RATES, text)
})
