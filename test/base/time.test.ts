/** The timer table against the obvious one: a list that is searched. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Instant, instant, TimerTable } from '#base/time'

type Step =
  | { readonly kind: 'set'; readonly key: number; readonly at: number }
  | { readonly kind: 'clear'; readonly key: number }
  | { readonly kind: 'take' | 'expired'; readonly now: number }

const key = fc.integer({ min: 0, max: 12 })
const time = fc.integer({ min: 0, max: 20 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('set' as const), key, at: time }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const), key }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('take' as const, 'expired' as const), now: time }),
  },
)

/** Of two that are due at once, the one that was set first. */
class List {
  #timers: { key: number; at: number }[] = []

  set(key: number, at: number): void {
    this.clear(key)
    this.#timers.push({ key, at })
  }

  clear(key: number): void {
    this.#timers = this.#timers.filter((timer) => timer.key !== key)
  }

  next(): number | undefined {
    return this.#sorted()[0]?.at
  }

  expired(now: number, most = Infinity): number[] {
    const due = this.#sorted()
      .filter(({ at }) => at <= now)
      .slice(0, most)
      .map((timer) => timer.key)
    for (const each of due) this.clear(each)
    return due
  }

  get size(): number {
    return this.#timers.length
  }

  #sorted(): { key: number; at: number }[] {
    return this.#timers.toSorted((a, b) => a.at - b.at)
  }
}

test('a timer table does what a list does', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const table = new TimerTable<number>()
      const list = new List()
      for (const each of steps) {
        if (each.kind === 'set') {
          table.set(each.key, instant(each.at))
          list.set(each.key, each.at)
          assert.equal(table.get(each.key), each.at)
        } else if (each.kind === 'clear') {
          table.clear(each.key)
          list.clear(each.key)
          assert.equal(table.get(each.key), undefined)
        } else if (each.kind === 'take')
          assert.equal(table.take(instant(each.now)), list.expired(each.now, 1)[0])
        else assert.deepEqual(table.expired(instant(each.now)), list.expired(each.now))
        assert.equal(table.next(), list.next())
        assert.equal(table.size, list.size)
      }
      assert.deepEqual(table.expired(Infinity as Instant), list.expired(Infinity))
      assert.equal(table.next(), undefined)
    }),
  )
})

test('one timer set a million times takes no room', () => {
  const table = new TimerTable<string>()
  table.set('other', instant(0))
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < 1_000_000; i++) table.set('again', instant(1_000_000 + i))
  assert.ok(process.memoryUsage().heapUsed - before < 30 * 2 ** 20)
  assert.deepEqual(table.expired(instant(2_000_000)), ['other', 'again'])
})
