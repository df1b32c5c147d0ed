/** What a host refuses must not be taken for done: every plane and host effect fails here at least once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ClientEvent } from '#overlay/client'
import type { Effect } from '#overlay/ports'
import { SERVER, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm']
const PATH = ['alder', 'birch', 'cedar']

function raised(options: ConstructorParameters<typeof SimOverlay>[1]): SimOverlay {
  const world = new SimOverlay(NAMES, options)
  assert.ok(world.raise(), 'every overlay tunnel came up')
  return world
}

function start(world: SimOverlay): void {
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
}

const isReady = (world: SimOverlay) => () => world.client.machine.state === 'ready'
const kinds = (world: SimOverlay): string[] => world.client.events.map(({ kind }) => kind)
const defaultCircuit = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope

type Any = Effect<unknown>
const setsFilter = (effect: Any): boolean =>
  effect.kind === 'host' && effect.operations.some(({ kind }) => kind === 'firewall.set')
const blocks = (effect: Any): boolean =>
  effect.kind === 'plane' &&
  effect.operations.some((each) => each.kind === 'policy.install' && each.policy.action === 'block')
const pins = (effect: Any): boolean =>
  effect.kind === 'plane' &&
  effect.operations.some(
    (each) => each.kind === 'policy.install' && each.policy.selector.sourcePort === 500,
  ) &&
  effect.operations.every((each) => each.kind === 'policy.install')
const adds = (kind: 'address.add' | 'route.add') => (effect: Any) =>
  effect.kind === 'host' && effect.operations.some((each) => each.kind === kind)
const installsSas = (effect: Any): boolean =>
  effect.kind === 'plane' && effect.operations.some(({ kind }) => kind === 'sa.install')

/** Refuses the effects number `first`..`last` (from 1) of those that match. */
function refusal(matches: (effect: Any) => boolean, first: number, last = first) {
  let seen = 0
  return (effect: Any): boolean => {
    if (!matches(effect)) return false
    seen++
    return seen >= first && seen <= last
  }
}

for (const [name, matches] of [
  ['packet filter', setsFilter],
  ['block policies', blocks],
  ['routes', adds('route.add')],
] as const) {
  test(`a guard whose ${name} cannot be installed: nothing is built until it stands`, () => {
    const world = raised({ seed: 31 })
    world.client.refuses = refusal(matches, 1, 3)
    start(world)
    assert.equal(world.client.machine.state, 'unguarded')
    world.client.input({ kind: 'build', ticket: 1 })
    const refused = world.client.events.find((event) => event.kind === 'circuit.failed')
    assert.equal(refused?.code, 'IPP_GUARD_DOWN')
    world.run(6000)
    assert.equal(world.client.machine.state, 'unguarded')
    assert.ok(!world.wire.some(({ from }) => from === world.client.address), 'the client said nothing')
    assert.ok(world.runUntil(isReady(world), 60_000), 'tried again, with growing pauses')
    assert.equal(kinds(world).filter((kind) => kind === 'guard.failed').length, 3)
  })
}

test('a pass for the entry that could not be installed is asked for again, whole', () => {
  for (const matches of [pins, (each: Any) => setsFilter(each) && adds('route.add')(each)]) {
    const world = raised({ seed: 32, path: PATH })
    let asked = 0
    const refuse = refusal(matches, 1)
    world.client.refuses = (effect) => {
      if (matches(effect)) asked++
      return refuse(effect)
    }
    start(world)
    world.run(500)
    assert.deepEqual(kinds(world), ['circuit.failed', 'circuit.closed'], 'not built without it')
    assert.ok(world.runUntil(isReady(world), 60_000))
    assert.equal(asked, 2)
  }
})

for (const layer of [1, 2, 3]) {
  test(`layer ${layer} cannot be installed: the circuit is never open, and another is built`, () => {
    const world = raised({ seed: 33 })
    world.client.refuses = refusal(installsSas, layer)
    start(world)
    assert.ok(world.runUntil(() => kinds(world).includes('circuit.failed'), 30_000))
    assert.ok(!kinds(world).includes('circuit.open'))
    assert.ok(world.runUntil(isReady(world), 60_000))
    assert.equal(defaultCircuit(world).id, 2)
    world.client.say(defaultCircuit(world).privateAddresses[2]!, SERVER, 7007, 'x')
    world.run(1000)
    assert.equal(world.delivered.length, 2)
    world.run(10_000)
    assert.equal(world.client.engine.counters().length, 6, 'nothing of the first is left')
  })
}

test('an address or the route of applications cannot be added: the circuit is never open', () => {
  // The first two additions of routes are the guard and the pass for the entry.
  for (const refuse of [refusal(adds('address.add'), 3), refusal(adds('route.add'), 3)]) {
    const world = raised({ seed: 34 })
    world.client.refuses = refuse
    start(world)
    assert.ok(world.runUntil(() => kinds(world).includes('circuit.failed'), 30_000))
    assert.ok(!kinds(world).includes('circuit.open'))
    assert.ok(world.runUntil(isReady(world), 60_000))
  }
})

test('new keys that cannot be installed cost their circuit only', () => {
  const world = raised({ seed: 35, lifetimes: { child: 60_000, ike: 600_000 } })
  start(world)
  assert.ok(world.runUntil(isReady(world), 30_000))
  world.client.input({ kind: 'build', ticket: 1 })
  world.run(10_000)
  assert.equal(world.client.machine.circuits.filter(({ telescope }) => telescope.state === 'open').length, 2)
  world.client.refuses = refusal(installsSas, 1)
  assert.ok(
    world.runUntil(() => kinds(world).includes('circuit.failed'), 120_000),
    'noticed while open',
  )
  const failures = world.client.events.filter(
    (event): event is ClientEvent & { kind: 'circuit.failed' } => event.kind === 'circuit.failed',
  )
  assert.deepEqual(
    failures.map(({ code }) => code),
    ['IPP_HOST_TOOL'],
  )
})

test('who waits for a circuit hears of its end, also when it is closed while it is built, or with everything', () => {
  for (const ending of ['close', 'stop'] as const) {
    const world = raised({ seed: 36 })
    start(world)
    assert.ok(world.runUntil(isReady(world), 30_000))
    world.client.input({ kind: 'build', ticket: 9 })
    world.run(20)
    const building = world.client.machine.circuits.find(({ isDefault }) => !isDefault)!.telescope
    assert.equal(building.state, 'building')
    world.client.input(ending === 'close' ? { kind: 'close', circuit: building.id } : { kind: 'stop' })
    world.run(10_000)
    const told = world.client.events.filter((event) => 'ticket' in event && event.ticket === 9)
    assert.deepEqual(
      told.map((event) => [event.kind, 'code' in event && event.code]),
      [['circuit.failed', 'IPP_CIRCUIT_CLOSED']],
    )
  }
})

for (const [name, matches] of [
  ['packet filter', setsFilter],
  ['hardening', blocks],
  ['private route', adds('route.add')],
] as const) {
  test(`a node whose ${name} cannot be installed admits nobody until it stands`, () => {
    const world = new SimOverlay(NAMES, { seed: 41, path: PATH })
    const alder = world.routers.get('alder')!
    let broken = true
    alder.refuses = (effect) => broken && matches(effect)
    world.raise()
    start(world)
    world.run(100_000)
    assert.notEqual(world.client.machine.state, 'ready')
    assert.equal(alder.machine.circuitCount, 0)
    const failures = world.client.events.filter((event) => event.kind === 'circuit.failed')
    assert.ok(failures.every(({ code }) => code === 'IPP_IKE_REFUSED'))
    const tries = alder.events.filter(({ kind }) => kind === 'guard.failed').length
    assert.ok(tries >= 5 && tries <= 10, `pauses grow: ${tries} tries`)
    broken = false
    assert.ok(world.runUntil(isReady(world), 120_000))
  })
}

test('an overlay tunnel that could not be installed is taken away and made anew, at both ends', () => {
  for (const name of NAMES.slice(0, 2)) {
    const world = new SimOverlay(NAMES.slice(0, 2), { seed: 42 })
    const node = world.routers.get(name)!
    node.refuses = refusal(installsSas, 1)
    for (const host of world.routers.values()) {
      host.input({ kind: 'start' })
      host.input({ kind: 'consensus', consensus: world.consensus })
    }
    world.runUntil(() => node.events.some(({ kind }) => kind === 'overlay.down'), 10_000)
    assert.equal(node.machine.overlay()[0]?.state ?? 'gone', 'gone')
    world.run(30_000)
    for (const [other, { machine, engine }] of world.routers) {
      assert.equal(machine.overlay()[0]?.state, 'up', other)
      assert.equal(engine.counters().length, 2, other)
    }
  }
})

test('a circuit that a node cannot bind is refused, and leaves nothing there', () => {
  const world = raised({ seed: 43, path: PATH })
  const birch = world.routers.get('birch')!
  birch.refuses = refusal(installsSas, 1)
  start(world)
  assert.ok(world.runUntil(() => kinds(world).includes('circuit.failed'), 30_000))
  assert.equal(birch.machine.circuitCount, 0)
  assert.ok(world.runUntil(isReady(world), 60_000))
  world.run(1000)
  assert.equal(birch.machine.leases().inUse, 1)
})
