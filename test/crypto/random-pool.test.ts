/** Short random strings out of a pool: never the same octets twice, and nothing that was handed out is kept. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RandomPool } from '#crypto/random-pool'

test('every octet of the generator is handed out at most once, and in order', () => {
  let drawn = 0
  const pool = new RandomPool((out) => {
    for (let i = 0; i < out.length; i++) out[i] = ++drawn & 0xff
  })
  let last = 0
  for (let i = 0; i < 1000; i++)
    for (const length of [0, 1, 4, 8, 32, 64, 65, 200]) {
      const octets = pool.take(length)
      assert.equal(octets.length, length)
      if (length > 64 || length === 0) continue
      // A longer string, or the end of the pool, may have used up some between: never the other way round.
      for (const [at, octet] of octets.entries())
        if (at > 0) assert.equal(octet, (octets[at - 1]! + 1) & 0xff)
      last += length
      assert.ok(last <= drawn)
    }
})

test('what was handed out is wiped in the pool, and does not change any more', () => {
  let pooled: Uint8Array = new Uint8Array(0)
  const pool = new RandomPool((out) => {
    pooled = out.fill(7)
  })
  const octets = pool.take(32)
  assert.deepEqual(octets, new Uint8Array(32).fill(7))
  assert.deepEqual(pooled.subarray(0, 32), new Uint8Array(32))
  assert.notEqual(pooled.buffer, octets.buffer)
  assert.equal(pooled[32], 7)
})
