import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { unixTime } from '#base/time'
import { Expiry } from '#daemon/expiry'
import type { Consensus } from '#directory/documents'

const until = (moment: number): Consensus => ({ validUntil: unixTime(moment) }) as unknown as Consensus

test('a document that expires is said once; one that is replaced in time is not', (t) => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.after(() => mock.timers.reset())
  let now = 0
  let expired = 0
  const expiry = new Expiry(
    () => unixTime(now),
    () => expired++,
    1000,
  )
  const pass = (seconds: number): void => {
    for (let i = 0; i < seconds; i++) {
      now++
      mock.timers.tick(1000)
    }
  }
  pass(10)
  assert.equal(expired, 0, 'there is none')
  expiry.watch(until(20))
  pass(5)
  expiry.watch(until(30))
  pass(10)
  assert.equal(expired, 0)
  pass(10)
  assert.equal(expired, 1)
  // A clock that jumps: found out at the next look.
  expiry.watch(until(10_000))
  now = 20_000
  pass(1)
  assert.equal(expired, 2)
  expiry.watch(until(20_010))
  expiry.end()
  pass(60)
  assert.equal(expired, 2)
})
