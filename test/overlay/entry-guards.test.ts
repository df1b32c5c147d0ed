import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { NodeId } from '#base/ids'
import { ip } from '#base/ip'
import type { Rng } from '#base/rng'
import { instant, unixTime } from '#base/time'
import type { NodeRole } from '#directory/documents'
import {
  CONFIRMED_LIFETIME,
  EntryGuards,
  FRUITLESS,
  LIFETIME,
  MAX_SAMPLE,
  PATIENCE,
  SAMPLE,
  type SampledGuard,
  UNLISTED,
} from '#overlay/entry-guards'
import type { Roster } from '#overlay/roster'
import { seededRng } from '../sim/random.ts'
import { id, node, roster } from './nodes.ts'

const T0 = instant(0)
const MINUTE = 60_000

const rng = (seed: number): Rng => seededRng(seed)
const DAY = 86_400
const consensus = (ids: readonly number[], roles: readonly NodeRole[] = ['entry'], day = 0): Roster =>
  roster(
    ids.map((n) => node(n, { roles, address: ip('192.0.2.1') })),
    day * DAY,
  )
const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i)
const names = (guards: readonly SampledGuard[]): NodeId[] => guards.map(({ nodeId }) => nodeId)

test('a few are drawn once, whatever the network grows to', () => {
  const guards = new EntryGuards([], rng(1))
  const first = guards.candidates(consensus(range(0, 20)), T0)
  assert.equal(new Set(first).size, SAMPLE)
  const { sampled } = guards
  assert.deepEqual(guards.candidates(consensus(range(0, 500)), T0), first)
  assert.equal(guards.sampled, sampled, 'nothing to keep anew')
})

test('only nodes that serve as entry are drawn', () => {
  const guards = new EntryGuards([], rng(2))
  assert.deepEqual(guards.candidates(consensus(range(0, 9), ['middle', 'exit']), T0), [])
})

test('every entry is drawn about as often as any other', () => {
  const drawn = new Map<NodeId, number>()
  const source = rng(3)
  for (let i = 0; i < 2000; i++)
    for (const guard of new EntryGuards([], source).candidates(consensus(range(0, 10)), T0))
      drawn.set(guard, (drawn.get(guard) ?? 0) + 1)
  for (const count of drawn.values()) assert.ok(count > 480 && count < 720, `${count} of 600`)
  assert.equal(drawn.size, 10)
})

test('what was kept comes back, in its order', () => {
  const kept = [3, 1, 2].map((n) => ({ nodeId: id(n), confirmed: n === 3, expires: unixTime(LIFETIME) }))
  const guards = new EntryGuards(kept, rng(3))
  assert.deepEqual(guards.candidates(consensus(range(0, 20)), T0), [id(3), id(1), id(2)])
})

test('who is not listed is replaced, and comes back to its place', () => {
  const guards = new EntryGuards([], rng(4))
  const [primary, ...others] = guards.candidates(consensus(range(0, 20)), T0)
  const without = range(0, 20).filter((n) => id(n) !== primary)
  const meanwhile = guards.candidates(consensus(without), T0)
  assert.deepEqual(meanwhile.slice(0, 2), others)
  assert.equal(meanwhile.length, SAMPLE)
  assert.equal(guards.candidates(consensus(range(0, 20)), T0)[0], primary)
})

test('the sample is bounded, and forgets only who is not listed', () => {
  const guards = new EntryGuards([], rng(5))
  for (let i = 0; i < 20; i++) {
    const listed = guards.candidates(consensus(range(100 * i, 50)), T0)
    assert.equal(listed.length, SAMPLE)
    assert.ok(guards.sampled.length <= MAX_SAMPLE)
    assert.deepEqual(names(guards.sampled).slice(-SAMPLE), listed)
  }
})

test('one chosen for want of a path is adopted while there is room', () => {
  const guards = new EntryGuards([], rng(5))
  guards.candidates(consensus(range(0, 50)), T0)
  for (let n = 100; guards.sampled.length < MAX_SAMPLE; n++) assert.ok(guards.adopt(id(n)))
  assert.equal(guards.adopt(id(999)), false)
  assert.equal(guards.adopt(guards.sampled[0]!.nodeId), true)
  assert.equal(guards.sampled.length, MAX_SAMPLE)
})

test('confirmed guards come first, in the order in which they were confirmed', () => {
  const guards = new EntryGuards([], rng(6))
  const network = consensus(range(0, 20))
  const [a, b, c] = guards.candidates(network, T0)
  guards.succeeded(b!)
  assert.deepEqual(guards.candidates(network, T0), [b, a, c])
  guards.succeeded(a!)
  assert.deepEqual(guards.candidates(network, T0), [b, a, c])
  assert.deepEqual(
    guards.sampled.map(({ confirmed }) => confirmed),
    [true, true, false],
  )
})

test('a guard rests after some failures in a row, longer each time, and is the primary again afterwards', () => {
  const guards = new EntryGuards([], rng(7))
  const network = consensus(range(0, 20))
  const [a, b, c] = guards.candidates(network, T0)
  for (let i = 1; i < PATIENCE; i++) guards.failed(a!, T0)
  assert.equal(guards.candidates(network, T0)[0], a)
  guards.succeeded(a!)
  for (let i = 1; i < PATIENCE; i++) guards.failed(a!, T0)
  assert.equal(guards.candidates(network, T0)[0], a, 'a success in between: not in a row')
  guards.failed(a!, T0)
  assert.deepEqual(guards.candidates(network, T0), [b, c, a])
  assert.equal(guards.candidates(network, instant(MINUTE))[0], a)
  guards.failed(a!, instant(MINUTE))
  assert.equal(guards.candidates(network, instant(2.5 * MINUTE))[0], b)
  assert.equal(guards.candidates(network, instant(3 * MINUTE))[0], a)
  for (let i = 0; i < 100; i++) guards.failed(a!, instant(3 * MINUTE))
  assert.equal(guards.candidates(network, instant(63 * MINUTE))[0], a, 'an hour at most')
})

test('when all rest, the one that is back first is tried; no other is drawn', () => {
  const guards = new EntryGuards([], rng(8))
  const network = consensus(range(0, 20))
  const all = guards.candidates(network, T0)
  for (const [i, guard] of [...all].reverse().entries())
    for (let n = 0; n < PATIENCE; n++) guards.failed(guard, instant(i * 1000))
  assert.deepEqual(guards.candidates(network, instant(5000)), [...all].reverse())
})

test('what breaks inside does not count against a guard, unless nothing ever succeeds', () => {
  const guards = new EntryGuards([], rng(9))
  const network = consensus(range(0, 20))
  const [a, b] = guards.candidates(network, T0)
  for (let i = 0; i < 3; i++) {
    for (let n = 1; n < FRUITLESS; n++) guards.fruitless(a!, T0)
    guards.fruitful(a!)
  }
  assert.equal(guards.candidates(network, T0)[0], a)
  for (let n = 0; n < FRUITLESS; n++) guards.fruitless(a!, T0)
  assert.equal(guards.candidates(network, T0)[0], b)
})

test('guards are drawn by bandwidth', () => {
  const net = roster([...range(1, 9).map((n) => node(n, { bandwidth: 1000 })), node(10, { bandwidth: 9000 })])
  const source = rng(10)
  let first = 0
  for (let i = 0; i < 2000; i++) if (new EntryGuards([], source).candidates(net, T0)[0] === id(10)) first++
  assert.ok(Math.abs(first - 1000) < 120, `${first} of 1000`)
})

test('nodes that may not be used are neither tried nor drawn, and come back when they may', () => {
  const guards = new EntryGuards([], rng(11))
  const net = consensus(range(0, 20))
  const [a, ...others] = guards.candidates(net, T0)
  const without = guards.candidates(net, T0, (index) => net.nodes[index]!.nodeId !== a)
  assert.deepEqual(without.slice(0, 2), others)
  assert.equal(without.length, SAMPLE)
  assert.equal(guards.candidates(net, T0)[0], a)
})

test('a guard expires; one that was confirmed late stays a while', () => {
  const guards = new EntryGuards([], rng(12))
  const on = (day: number) => guards.candidates(consensus(range(0, 20), ['entry'], day), T0)
  const sample = on(0)
  for (const { expires } of guards.sampled) assert.ok(expires > 0.74 * LIFETIME && expires <= LIFETIME)
  assert.equal(new Set(guards.sampled.map(({ expires }) => expires)).size, SAMPLE, 'not all on one day')
  assert.deepEqual(on(85), sample)
  guards.succeeded(sample[1]!)
  const confirmed = guards.sampled[0]!
  assert.equal(confirmed.expires, 85 * DAY + CONFIRMED_LIFETIME)
  const later = on(121)
  assert.equal(later[0], sample[1])
  assert.deepEqual(
    later.slice(1).filter((guard) => sample.includes(guard) && names(guards.sampled).includes(guard)).length,
    guards.sampled.filter(
      ({ nodeId, expires }) => nodeId !== sample[1] && sample.includes(nodeId) && expires > 121 * DAY,
    ).length,
  )
  for (const { nodeId, expires } of guards.sampled)
    assert.ok(expires > 121 * DAY, `${nodeId} should have gone`)
  assert.ok(!names(guards.sampled).every((guard) => sample.includes(guard)))
})

test('a guard that is not listed for long is forgotten, one that comes back in time is not', () => {
  const guards = new EntryGuards([], rng(13))
  const [a, b, c] = guards.candidates(consensus(range(0, 20)), T0)
  const without = (gone: readonly (NodeId | undefined)[], day: number) =>
    guards.candidates(
      consensus(
        range(0, 20).filter((n) => !gone.includes(id(n))),
        ['entry'],
        day,
      ),
      T0,
    )
  without([a, b], 1)
  const marked = guards.sampled
  assert.deepEqual(
    marked.filter(({ unlisted }) => unlisted !== undefined).map(({ nodeId, unlisted }) => [nodeId, unlisted]),
    [a, b].map((guard) => [guard, unixTime(DAY)]),
  )
  without([a, b], 2)
  assert.equal(guards.sampled, marked, 'since when does not change')
  without([a], 19)
  assert.equal(guards.sampled.find(({ nodeId }) => nodeId === b)!.unlisted, undefined)
  without([a], 1 + UNLISTED / DAY)
  assert.ok(!names(guards.sampled).includes(a!))
  assert.ok(names(guards.sampled).includes(b!) && names(guards.sampled).includes(c!))
})
