/** When circuits make way: decisions alone, in time without a network. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { after, HOUR, type Instant, instant, MINUTE } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { Reserve } from '#overlay/reserve'

const rng = { bytes: (length: number) => nodeCrypto.random(length) }
const reserve = new Reserve({ spares: 1, rotation: HOUR }, rng)

/** When a circuit that is retired at 0 ends, if packets come every `every` until `last`. */
function endOf(every: number, last: number): Instant {
  const { look, end } = reserve.retirementAt(instant(0))
  for (let at = look; ; ) {
    const heardAt = last < 0 ? undefined : instant(Math.min(last, Math.floor(at / every) * every))
    const next = reserve.prolongedTo(heardAt, end, at)
    if (next === undefined) return at
    assert.ok(next > at, 'time passes')
    at = next
  }
}

test('a retired circuit that nothing is heard on ends on a schedule that looks at nobody', () => {
  for (let i = 0; i < 50; i++) {
    for (const last of [-1, 0, HOUR, 2 * HOUR]) {
      const end = endOf(MINUTE, last)
      assert.ok(end >= 3 * HOUR && end <= 5 * HOUR, `${end / HOUR} h`)
    }
  }
})

test('one that is in use goes on until half an hour of silence, and no longer than a day and a quarter', () => {
  for (let i = 0; i < 50; i++) {
    assert.equal(endOf(MINUTE, 10 * HOUR), after(instant(10 * HOUR), 30 * MINUTE))
    const ever = endOf(MINUTE, Number.POSITIVE_INFINITY)
    assert.ok(ever >= 18 * HOUR && ever <= 30 * HOUR, `${ever / HOUR} h`)
    assert.ok(
      endOf(40 * MINUTE, Number.POSITIVE_INFINITY) <= 9 * HOUR,
      'a sign every forty minutes is no use of it',
    )
  }
})
