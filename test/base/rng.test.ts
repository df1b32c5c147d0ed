import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { drawSome, type Rng } from '#base/rng'

const rng: Rng = { bytes: (length) => new Uint8Array(randomBytes(length)) }

test('some of a list: no more than there are, none twice, and each first as often as the others', () => {
  const items = ['a', 'b', 'c', 'd']
  assert.deepEqual(drawSome(rng, items, 9).toSorted(), items)
  assert.deepEqual(drawSome(rng, [], 3), [])
  const firsts = new Map<string, number>()
  for (let i = 0; i < 4000; i++) {
    const drawn = drawSome(rng, items, 2)
    assert.equal(new Set(drawn).size, 2)
    firsts.set(drawn[0]!, (firsts.get(drawn[0]!) ?? 0) + 1)
  }
  // Six standard deviations.
  for (const count of firsts.values()) assert.ok(Math.abs(count - 1000) < 6 * Math.sqrt(750), `${count}`)
  assert.deepEqual(items, ['a', 'b', 'c', 'd'])
})
