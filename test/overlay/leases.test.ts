import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IkeSaId } from '#base/ids'
import { ip } from '#base/ip'
import type { Instant } from '#base/time'
import { Leases, networkOf } from '#overlay/leases'
import { seededRng } from '../sim/random.ts'

const now = 0 as Instant
const sa = (number: number): IkeSaId => number as IkeSaId
/** 29 addresses to lend. */
const pool = { address: ip('10.8.0.0'), length: 27 }
const hog = networkOf(ip('192.0.2.1'))
const other = networkOf(ip('198.51.100.1'))

/** @returns how many it got before it was refused */
function takeAll(leases: Leases, who: number | string, first: number): number {
  let count = 0
  while (leases.lend(sa(first + count), who as typeof hog, now) !== undefined) {
    count++
    assert.ok(count < 256)
  }
  return count
}

test('who asks for everything gets half, who comes next a half of the rest or so, and a newcomer always one', () => {
  const leases = new Leases(pool, seededRng(1))
  const { free } = leases.counts(now)
  const first = takeAll(leases, hog, 1)
  assert.equal(first, Math.ceil(free / 2))
  const second = takeAll(leases, other, 100)
  assert.equal(second, Math.ceil((free - first) / 2))
  assert.notEqual(leases.lend(sa(1000), networkOf(ip('203.0.113.9')), now), undefined)
  // An address in the same network is no newcomer.
  assert.equal(leases.lend(sa(1001), networkOf(ip('192.0.2.254')), now), undefined)
})

test('an IKE SA that asks again gets what it has, also when its neighbourhood may have no more', () => {
  const leases = new Leases(pool, seededRng(2))
  const address = leases.lend(sa(1), hog, now)
  takeAll(leases, hog, 2)
  assert.equal(leases.lend(sa(1), hog, now), address)
})

test('what is given back counts no more, once', () => {
  const leases = new Leases({ ...pool, length: 24 }, seededRng(3))
  const taken = takeAll(leases, hog, 1)
  for (let i = 0; i < 40; i++) leases.end(sa(1 + i), now)
  leases.end(sa(1), now)
  assert.equal(leases.counts(now).inUse, taken - 40)
  assert.notEqual(leases.lend(sa(1000), hog, now), undefined)
})
