import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { instant } from '#base/time'
import { RateLimiter } from '#directory/rate-limit'

test('a burst, then the rate', () => {
  const limiter = new RateLimiter({ burst: 3, perSecond: 2 })
  const admitted = (ms: number) => limiter.admit('a', instant(ms))
  assert.deepEqual([admitted(0), admitted(0), admitted(0), admitted(0)], [true, true, true, false])
  assert.deepEqual([admitted(499), admitted(500), admitted(500)], [false, true, false])
  assert.ok(limiter.admit('b', instant(500)))
  assert.deepEqual(
    [3, 3, 3, 3].map((s) => admitted(s * 10_000)),
    [true, true, true, false],
  )
})

test('never more than burst plus rate, for any times', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(300), { maxLength: 100 }), (gaps) => {
      const limiter = new RateLimiter({ burst: 5, perSecond: 4 })
      let now = 0
      let count = 0
      for (const gap of gaps) {
        now += gap
        if (limiter.admit('x', instant(now))) count++
      }
      assert.ok(count <= 5 + (now / 1000) * 4)
    }),
  )
})

test('memory is bounded: the source that was silent longest is forgotten', () => {
  const limiter = new RateLimiter({ burst: 1, perSecond: 0.001 }, 100)
  for (let i = 0; i < 1000; i++) limiter.admit(`source ${i}`, instant(i))
  assert.equal(limiter.size, 100)
  assert.ok(!limiter.admit('source 999', instant(1000)))
  assert.ok(limiter.admit('source 0', instant(1000)))
})
