import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { IkeSaId } from '#base/ids'
import { contains, type Ip, prefix } from '#base/ip'
import type { Rng } from '#base/rng'
import { type Instant, instant, MINUTE } from '#base/time'
import { AddressPool, poolCapacity, QUARANTINE } from '#nat/pool'

const sa = (n: number) => n as IkeSaId
const seeded = (seed: number): Rng => {
  let state = seed >>> 0 || 1
  return {
    bytes(length) {
      const out = new Uint8Array(length)
      for (let i = 0; i < length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0
        out[i] = state >>> 24
      }
      return out
    },
  }
}

test('capacity excludes the network, the first and the broadcast address', () => {
  assert.equal(poolCapacity(prefix('10.64.0.0/20')), 4093)
  assert.equal(poolCapacity(prefix('10.64.0.0/30')), 1)
  assert.equal(poolCapacity(prefix('10.64.0.0/31')), 0)
  assert.equal(poolCapacity(prefix('10.64.0.0/32')), 0)
})

test('every lendable address is lent exactly once, then the pool says so', () => {
  const pool = new AddressPool(prefix('10.64.16.0/28'), seeded(7))
  const seen = new Set<Ip>()
  for (let n = 1; n <= 13; n++) seen.add(pool.lease(sa(n), instant(0))!)
  assert.equal(seen.size, 13)
  for (const never of ['10.64.16.0', '10.64.16.1', '10.64.16.15']) assert.ok(!seen.has(never as Ip), never)
  assert.equal(pool.lease(sa(14), instant(0)), undefined)
  assert.deepEqual(pool.counts(instant(0)), { inUse: 13, free: 0, quarantined: 0 })
  assert.equal(pool.addressOf(sa(14)), undefined)
  for (let n = 1; n <= 13; n++) assert.equal(pool.ownerOf(pool.addressOf(sa(n))!), sa(n), 'others untouched')
})

test('a returned address rests for the whole quarantine', () => {
  const pool = new AddressPool(prefix('10.64.0.0/30'), seeded(1))
  assert.equal(pool.lease(sa(1), instant(0)), '10.64.0.2')
  assert.equal(pool.lease(sa(1), instant(5)), '10.64.0.2', 'the same IKE SA asks again')
  assert.equal(pool.release(sa(1), instant(MINUTE)), '10.64.0.2')
  assert.equal(pool.release(sa(1), instant(MINUTE)), undefined)
  assert.equal(pool.ownerOf('10.64.0.2' as Ip), undefined)
  assert.deepEqual(pool.counts(instant(MINUTE)), { inUse: 0, free: 0, quarantined: 1 })
  assert.equal(pool.lease(sa(2), instant(MINUTE + QUARANTINE - 1)), undefined)
  assert.equal(pool.lease(sa(2), instant(MINUTE + QUARANTINE)), '10.64.0.2')
})

test('addresses are random, not sequential and not sticky', () => {
  const addressesOf = (seed: number) => {
    const pool = new AddressPool(prefix('10.64.0.0/20'), seeded(seed))
    return Array.from({ length: 8 }, (_, n) => pool.lease(sa(n), instant(0)))
  }
  assert.notDeepEqual(addressesOf(1), addressesOf(2))
  const pool = new AddressPool(prefix('10.64.0.0/20'), seeded(3), 0)
  const first = pool.lease(sa(1), instant(0))
  let again = 0
  for (let n = 0; n < 50; n++) {
    pool.release(sa(1), instant(n))
    if (pool.lease(sa(1), instant(n + 1)) === first) again++
  }
  assert.ok(again <= 1, `${again} of 50`)
})

test('a large prefix costs nothing until it is used', () => {
  const pool = new AddressPool(prefix('10.0.0.0/8'), seeded(9))
  const address = pool.lease(sa(1), instant(0))!
  assert.ok(contains(prefix('10.0.0.0/8'), address))
  assert.equal(pool.counts(instant(0)).free, 2 ** 24 - 4)
})

/** The slow obvious twin: three sets. */
interface Model {
  now: Instant
  readonly held: Map<number, Ip>
  readonly resting: Map<Ip, number>
}

test('property: any history of leases agrees with the model', () => {
  const block = prefix('10.64.0.0/29')
  const capacity = 5
  class Lease implements fc.Command<Model, AddressPool> {
    readonly owner: number
    constructor(owner: number) {
      this.owner = owner
    }
    check = () => true
    run(model: Model, pool: AddressPool): void {
      const got = pool.lease(sa(this.owner), model.now)
      for (const [address, until] of model.resting) if (until <= model.now) model.resting.delete(address)
      const before = model.held.get(this.owner)
      if (before !== undefined) assert.equal(got, before)
      else if (model.held.size + model.resting.size === capacity) assert.equal(got, undefined)
      else {
        assert.ok(got !== undefined && contains(block, got))
        assert.ok(![...model.held.values()].includes(got), 'two owners of one address')
        assert.ok(!model.resting.has(got), 'lent during its quarantine')
        assert.ok(!['10.64.0.0', '10.64.0.1', '10.64.0.7'].includes(got))
        model.held.set(this.owner, got)
      }
      assert.equal(pool.counts(model.now).inUse, model.held.size)
    }
    toString = () => `lease(${this.owner})`
  }
  class Release implements fc.Command<Model, AddressPool> {
    readonly owner: number
    constructor(owner: number) {
      this.owner = owner
    }
    check = () => true
    run(model: Model, pool: AddressPool): void {
      const got = pool.release(sa(this.owner), model.now)
      assert.equal(got, model.held.get(this.owner))
      if (got !== undefined) model.resting.set(got, model.now + QUARANTINE)
      model.held.delete(this.owner)
    }
    toString = () => `release(${this.owner})`
  }
  class Wait implements fc.Command<Model, AddressPool> {
    readonly minutes: number
    constructor(minutes: number) {
      this.minutes = minutes
    }
    check = () => true
    run(model: Model): void {
      model.now = instant(model.now + this.minutes * MINUTE)
    }
    toString = () => `wait(${this.minutes} min)`
  }
  const owner = fc.integer({ min: 1, max: 8 })
  const commands = fc.commands(
    [
      owner.map((n) => new Lease(n)),
      owner.map((n) => new Release(n)),
      fc.integer({ min: 0, max: 12 }).map((m) => new Wait(m)),
    ],
    { maxCommands: 60 },
  )
  fc.assert(
    fc.property(commands, fc.nat(), (history, seed) => {
      fc.modelRun(
        () => ({
          model: { now: instant(0), held: new Map(), resting: new Map() },
          real: new AddressPool(block, seeded(seed)),
        }),
        history,
      )
    }),
    { numRuns: 200 },
  )
})

test('a withheld address is lent to nobody, then rests, then is free', () => {
  const pool = new AddressPool(prefix('10.64.16.0/29'), seeded(3))
  const taken = '10.64.16.4' as Ip
  pool.withhold(taken, Infinity as Instant)
  pool.withhold('10.64.99.4' as Ip, Infinity as Instant)
  assert.deepEqual(pool.counts(instant(0)), { inUse: 0, free: 4, quarantined: 1 })
  const lent = [1, 2, 3, 4].map((n) => pool.lease(sa(n), instant(0)))
  assert.deepEqual([...lent].sort(), ['10.64.16.2', '10.64.16.3', '10.64.16.5', '10.64.16.6'])
  assert.equal(pool.lease(sa(5), instant(0)), undefined)
  pool.withhold(taken, instant(1000))
  assert.equal(pool.lease(sa(5), instant(999 + QUARANTINE)), undefined)
  assert.equal(pool.lease(sa(5), instant(1000 + QUARANTINE)), taken)
})
