import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CoDel } from '#telescope/codel'

/** How many of the packets, one per ms, are dropped while they all wait for `sojourn` ms. */
function drops(codel: CoDel, sojourn: number, from: number, to: number, backlog = 100_000): number {
  let count = 0
  for (let now = from; now < to; now++) if (codel.drops(sojourn, backlog, now)) count++
  return count
}

test('a queue below the target loses nothing, nor one that empties within the interval', () => {
  const codel = new CoDel()
  assert.equal(drops(codel, 4.9, 0, 10_000), 0)
  for (let now = 10_000; now < 20_000; now += 100) {
    assert.equal(drops(codel, 50, now, now + 99), 0)
    assert.equal(drops(codel, 1, now + 99, now + 100), 0)
  }
})

test('a standing queue loses more and more, until it is short again', () => {
  const codel = new CoDel()
  assert.equal(drops(codel, 20, 0, 100), 0)
  const seconds = [100, 1100, 2100].map((from) => drops(codel, 20, from, from + 1000))
  assert.ok(seconds[0]! > 10 && seconds[1]! > seconds[0]! && seconds[2]! > seconds[1]!, `${seconds}`)
  assert.equal(drops(codel, 1, 3100, 3200), 0)
  // It remembers for a while what rate helped.
  assert.ok(drops(codel, 20, 3200, 4200) > seconds[0]!)
})

test('the last packet is never dropped, however late', () => {
  assert.equal(drops(new CoDel(), 500, 0, 10_000, 1500), 0)
})
