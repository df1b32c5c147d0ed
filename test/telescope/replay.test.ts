import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ReplayWindow } from '#telescope/replay'
import { SlowReplay } from '../twins/slow-replay.ts'

const CYCLE = 0x1_0000_0000

function take(window: ReplayWindow, low: number): boolean {
  const sequence = window.infer(low)
  if (!window.admits(sequence)) return false
  window.accept(sequence)
  return true
}

/** Numbers of packets as a network may deliver them: forward mostly, with reordering, repeats and jumps. */
const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: -6, max: 8 }) },
    { weight: 2, arbitrary: fc.integer({ min: -300, max: 300 }) },
    { weight: 1, arbitrary: fc.integer({ min: -9000, max: 9000 }) },
  ),
  { maxLength: 300 },
)

for (const esn of [false, true])
  test(`agrees with the slow twin on random arrivals, ${esn ? 'extended' : '32-bit'} numbers`, () => {
    const starts = esn
      ? fc.constantFrom(1, 40, CYCLE - 200, CYCLE - 1, CYCLE, CYCLE + 10, 5 * CYCLE - 50, 5 * CYCLE + 4000)
      : fc.constantFrom(1, 40, 1_000_000, CYCLE - 10_000)
    fc.assert(
      fc.property(fc.integer({ min: 32, max: 4096 }), starts, steps, (size, start, moves) => {
        const window = new ReplayWindow(size, esn)
        const twin = new SlowReplay(size, esn)
        // A window that starts high: as if everything before had been received.
        window.accept(start)
        twin.top = BigInt(start)
        twin.seen.add(BigInt(start))
        let at = start
        for (const move of moves) {
          at = Math.max(0, at + move)
          const low = at % CYCLE
          assert.equal(BigInt(window.infer(low)), twin.infer(BigInt(low)))
          assert.equal(take(window, low), twin.take(BigInt(low)), `number ${at} with top ${twin.top}`)
          assert.equal(BigInt(window.top), twin.top)
        }
      }),
      { numRuns: 400 },
    )
  })

test('zero is never a number, and each is taken once', () => {
  for (const esn of [false, true]) {
    const window = new ReplayWindow(64, esn)
    assert.ok(!take(window, 0))
    for (const low of [1, 3, 2]) assert.ok(take(window, low))
    for (const low of [1, 2, 3]) assert.ok(!take(window, low))
  }
})

test('the edge: the oldest number in the window is taken, one older is not', () => {
  const window = new ReplayWindow(4096, false)
  window.accept(10_000)
  assert.ok(take(window, 10_000 - 4095))
  assert.ok(!take(window, 10_000 - 4096))
})

test('extended numbers go over 2^32, and late packets of the old cycle still count', () => {
  const window = new ReplayWindow(64, true)
  window.accept(CYCLE - 3)
  for (const low of [CYCLE - 1, 0, 2, CYCLE - 2, 1]) assert.ok(take(window, low), `low ${low}`)
  assert.equal(window.top, CYCLE + 2)
  for (const low of [CYCLE - 1, 0, 2, CYCLE - 2, 1]) assert.ok(!take(window, low), `low ${low} again`)
})

test('before the first cycle there is nothing', () => {
  const window = new ReplayWindow(64, true)
  assert.ok(window.infer(CYCLE - 1) < 0)
  assert.ok(!take(window, CYCLE - 1))
})

test('sizes out of range are refused', () => {
  for (const size of [0, 31, 4097, 64.5, Number.NaN])
    assert.throws(() => new ReplayWindow(size, true), RangeError)
})
