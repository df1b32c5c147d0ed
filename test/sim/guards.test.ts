/** The entry of a client is its own choice, and stays it: see overlay/entry-guards.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SERVER, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir']

function open(seed: number): SimOverlay {
  const world = new SimOverlay(NAMES, { seed })
  assert.ok(world.raise())
  start(world)
  return world
}

function start(world: SimOverlay): void {
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  ready(world)
}

const ready = (world: SimOverlay, patience = 300_000): void =>
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', patience))
const circuit = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope
const names = (world: SimOverlay): string[] => circuit(world).hops.map(({ name }) => name)

test('circuits that end, or that a hop breaks, do not change the entry', () => {
  const world = open(51)
  const [first] = names(world)
  const exits = new Set<string>()
  for (let i = 0; i < 8; i++) {
    const before = circuit(world)
    const exit = names(world)[2]!
    exits.add(exit)
    if (i % 2 === 0) world.client.input({ kind: 'close', circuit: before.id })
    else {
      // An exit that goes takes every circuit through it along.
      world.routers.get(exit)!.input({ kind: 'stop' })
      world.run(3000)
      const again = world.boot(exit)
      again.input({ kind: 'start' })
      again.input({ kind: 'consensus', consensus: world.consensus })
    }
    assert.ok(world.runUntil(() => before.state === 'closed', 120_000))
    ready(world)
    assert.equal(names(world)[0], first)
  }
  assert.ok(exits.size > 1, 'while the other hops do change')
})

test('a middle that drops everything: every hop but the entry is avoided', () => {
  const world = open(52)
  const before = circuit(world)
  const [first, middle, exit] = names(world)
  world.routers.get(middle!)!.alive = false
  assert.ok(world.runUntil(() => before.state === 'closed', 300_000))
  ready(world)
  const now = names(world)
  assert.equal(now[0], first)
  assert.ok(!now.includes(middle!) && !now.includes(exit!), now.join())
})

test('the entry is the same after a restart', () => {
  const world = open(53)
  const [first] = names(world)
  for (let i = 0; i < 5; i++) {
    world.client.input({ kind: 'stop' })
    assert.ok(world.runUntil(() => world.client.machine.state === 'stopped', 10_000))
    world.rebootClient()
    start(world)
    assert.equal(names(world)[0], first)
  }
})

test('an entry that is dead is left after some tries, for another of the sample, and nobody else', () => {
  const world = open(54)
  const [first] = names(world)
  world.routers.get(first!)!.alive = false
  assert.ok(world.runUntil(() => world.client.machine.state !== 'ready', 300_000))
  ready(world, 600_000)
  const [second] = names(world)
  assert.notEqual(second, first)
  world.client.say(circuit(world).privateAddresses[2]!, SERVER, 7007, 'x')
  world.run(1000)
  assert.equal(world.delivered.length, 2)
  const spokenTo = new Set(world.wire.filter(({ from }) => from === world.client.address).map(({ to }) => to))
  assert.deepEqual(spokenTo, new Set([first!, second!].map((name) => world.routers.get(name)!.address)))
})
