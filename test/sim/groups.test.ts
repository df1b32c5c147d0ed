/** Groups of traffic: a circuit of each, never one of another, and none is better than another's. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ip, prefix } from '#base/ip'
import { groupsOf, rulesOf, tableOf } from '#overlay/groups'
import type { Telescope } from '#telescope/telescope'
import { SERVER, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir', 'ginkgo', 'hazel', 'juniper']
const MINUTE = 60_000
const ISOLATION = [
  { name: 'mail', user: 1001 },
  { name: 'bank', destination: prefix('203.0.113.0/24') },
]
const GROUPS = groupsOf(ISOLATION)

function start(seed: number, options: { rotation?: number; spares?: number } = {}): SimOverlay {
  const reserve = { spares: options.spares ?? 0, rotation: options.rotation ?? 0 }
  const world = new SimOverlay(NAMES, { seed, reserve, isolation: ISOLATION })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  return world
}

/** What each group has, by name. */
const inUse = (world: SimOverlay): Map<string, Telescope> =>
  new Map(
    world.client.machine.circuits
      .filter(({ use, telescope }) => (use === 'default' || use === 'group') && telescope.state === 'open')
      .map(({ group, telescope }) => [group!.name, telescope]),
  )
const haveAll = (world: SimOverlay) => () => inUse(world).size === GROUPS.length
/** What the host was told last of where the traffic of each group starts from; null: from nowhere. */
function sources(world: SimOverlay): (Ip | null)[] {
  const told = new Map<number | undefined, Ip | null>()
  for (const operation of world.client.hostOperations)
    if (operation.kind === 'route.add' && operation.route.via === 'overlay')
      told.set(operation.route.table, operation.route.source ?? null)
  return GROUPS.map((group) => told.get(group.rule === undefined ? undefined : tableOf(group)) ?? null)
}
const lastAddresses = (world: SimOverlay): (Ip | undefined)[] =>
  GROUPS.map(({ name }) => inUse(world).get(name)?.privateAddresses.at(-1))

test('each group has a circuit of its own: other nodes behind the entry, other addresses, other SPIs', () => {
  const world = start(80)
  assert.ok(world.runUntil(haveAll(world), MINUTE))
  world.run(1000)
  assert.deepEqual(sources(world), lastAddresses(world))
  const telescopes = [...inUse(world).values()]
  const inside = telescopes.flatMap(({ hops }) => hops.slice(1).map(({ name }) => name))
  assert.equal(new Set(inside).size, inside.length, 'there are nodes enough')
  const addresses = telescopes.flatMap(({ privateAddresses }) => privateAddresses)
  assert.equal(new Set(addresses).size, addresses.length)
  const spis = telescopes.flatMap(({ layers }) => layers.map(({ child }) => child.inboundSpi))
  assert.equal(new Set(spis).size, spis.length)
  for (const [index, telescope] of telescopes.entries()) {
    world.client.say(telescope.privateAddresses.at(-1)!, SERVER, 7007, `${index}`)
    world.run(1000)
    assert.equal(world.delivered.length, 2 * (index + 1), 'it carries')
    assert.equal(world.delivered.at(-2)!.from, telescope.hops.at(-1)!.address, 'through its own exit')
  }
})

test('before the first circuit the rules stand and lead nowhere; the stop takes them away', () => {
  const world = new SimOverlay(NAMES, { seed: 81, isolation: ISOLATION })
  world.client.input({ kind: 'start' })
  const { hostOperations } = world.client
  const added = hostOperations.flatMap((each) => (each.kind === 'rule.add' ? [each.rule] : []))
  assert.deepEqual(added, GROUPS.flatMap(rulesOf))
  assert.equal(added.length, 3 * ISOLATION.length)
  const tables = hostOperations
    .flatMap((each) => (each.kind === 'route.add' ? [each.route] : []))
    .filter(({ via, source }) => via === 'overlay' && source === undefined)
    .map(({ table }) => table)
  assert.deepEqual(new Set(tables), new Set([undefined, ...GROUPS.slice(1).map(tableOf)]))
  const firstRule = hostOperations.findIndex(({ kind }) => kind === 'rule.add')
  assert.ok(
    hostOperations.slice(firstRule).every(({ kind }) => kind === 'rule.add'),
    'no rule before there is something in its table',
  )
  world.client.input({ kind: 'stop' })
  const removed = hostOperations.flatMap((each) => (each.kind === 'rule.remove' ? [each.rule] : []))
  assert.deepEqual(removed, added)
})

test('a group that loses its circuit has none until it has another of its own; others keep theirs', () => {
  const world = start(82)
  assert.ok(world.runUntil(haveAll(world), MINUTE))
  world.run(1000)
  const before = lastAddresses(world)
  const lost = inUse(world).get('mail')!
  world.routers.get(lost.hops[2]!.name)!.alive = false
  assert.ok(world.runUntil(() => lost.state !== 'open', 10 * MINUTE))
  assert.deepEqual(sources(world), [before[0], null, before[2]], 'nothing leads anywhere else meanwhile')
  assert.deepEqual(
    world.client.machine.groups.map(({ name, state }) => `${name} ${state}`),
    ['default open', 'mail closing', 'bank open'],
  )
  assert.ok(world.runUntil(haveAll(world), 5 * MINUTE))
  world.run(1000)
  const now = lastAddresses(world)
  assert.deepEqual(sources(world), now)
  assert.deepEqual([now[0], now[2]], [before[0], before[2]])
  assert.ok(now[1] !== before[1] && !before.includes(now[1]))
})

test('spares and rotation: a circuit is handed to one group, and never to a second one', () => {
  const world = start(83, { rotation: 5 * MINUTE, spares: 2 })
  assert.ok(world.runUntil(haveAll(world), MINUTE))
  const groupOf = new Map<number, string>()
  const handed = new Set<string>()
  for (let step = 0; step < 120; step++) {
    world.run(MINUTE / 2)
    for (const { telescope, group, use } of world.client.machine.circuits) {
      if (use === 'spare' || use === 'asked') {
        assert.equal(group, undefined)
        assert.equal(groupOf.get(telescope.id), undefined, 'it was of a group and is a spare')
      } else {
        const name = group!.name
        assert.equal(groupOf.get(telescope.id) ?? name, name, 'it went from one group to another')
        groupOf.set(telescope.id, name)
      }
    }
    for (const event of world.client.events) if (event.kind === 'circuit.default') handed.add(event.group)
  }
  assert.deepEqual(
    [...handed].sort(),
    ['bank', 'default', 'mail'],
    'every group was given one that stood ready',
  )
  world.run(1000)
  assert.deepEqual(sources(world), lastAddresses(world))
})

test('an entry that does not answer is asked once at a time, however many groups there are', () => {
  const world = new SimOverlay(NAMES, { seed: 84, isolation: ISOLATION })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  for (const router of world.routers.values()) router.alive = false
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  for (let step = 0; step < 60; step++) {
    world.run(1000)
    assert.ok(world.client.machine.circuits.length <= 1)
  }
})
