/** Circuits that stand ready: handed over at once, rotated, and retired. See overlay/reserve.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CircuitUse } from '#overlay/circuits'
import { MAX_RETIRED } from '#overlay/reserve'
import type { Telescope } from '#telescope/telescope'
import { SERVER, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir', 'ginkgo']
const MINUTE = 60_000

function start(seed: number, rotation = 0, spares = 2, names = NAMES): SimOverlay {
  const world = new SimOverlay(names, { seed, reserve: { spares, rotation } })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  return world
}

const open = (world: SimOverlay, use: CircuitUse): Telescope[] =>
  world.client.machine.circuits
    .filter((circuit) => circuit.use === use && circuit.telescope.state === 'open')
    .map(({ telescope }) => telescope)
const isReserved = (world: SimOverlay) => () =>
  open(world, 'default').length + open(world, 'spare').length === 2
const inside = (telescope: Telescope) => telescope.hops.slice(1).map(({ name }) => name)
/** What applications use as their source, as the host was told last. */
const sourceOf = (world: SimOverlay) =>
  world.client.hostOperations
    .filter((operation) => operation.kind === 'route.add' && operation.route.via === 'overlay')
    .flatMap((operation) => (operation.kind === 'route.add' ? [operation.route.source] : []))
    .at(-1)

function reaches(world: SimOverlay, telescope: Telescope, count: number): void {
  world.client.say(telescope.privateAddresses.at(-1)!, SERVER, 7007, `${telescope.id}`)
  world.run(1000)
  assert.equal(world.delivered.length, 2 * count, 'there and back')
}

test('a spare through the same entry and other nodes, and applications do not use it', () => {
  const world = start(70)
  assert.ok(world.runUntil(isReserved(world), MINUTE))
  const [[used], [spare]] = [open(world, 'default'), open(world, 'spare')] as [Telescope[], Telescope[]]
  assert.equal(used!.hops[0]!.name, spare!.hops[0]!.name)
  assert.deepEqual(
    inside(used!).filter((name) => inside(spare!).includes(name)),
    [],
  )
  assert.equal(sourceOf(world), used!.privateAddresses.at(-1))
  world.run(10 * MINUTE)
  assert.equal(open(world, 'spare').length, 1, 'one is enough while nothing breaks')
})

test('a lost circuit is replaced within the step in which the loss is noticed', () => {
  const world = start(71)
  assert.ok(world.runUntil(isReserved(world), MINUTE))
  const [[used], [spare]] = [open(world, 'default'), open(world, 'spare')] as [Telescope[], Telescope[]]
  world.routers.get(inside(used!)[1]!)!.alive = false
  assert.ok(world.runUntil(() => used!.state !== 'open', 10 * MINUTE))
  assert.deepEqual(open(world, 'default'), [spare], 'no time has passed')
  assert.equal(world.client.machine.state, 'ready')
  assert.equal(sourceOf(world), spare!.privateAddresses.at(-1))
  reaches(world, spare!, 1)
  const failing = world.client.machine.avoided.map(({ name }) => name)
  assert.ok(failing.includes(inside(used!)[1]!), 'and who failed is named')
  assert.ok(world.runUntil(isReserved(world), 5 * MINUTE), 'and another stands ready')
  assert.ok(!inside(open(world, 'spare')[0]!).includes(inside(used!)[1]!))
})

test('where circuits break often, two stand ready', () => {
  const world = start(72)
  for (let i = 0; i < 2; i++) {
    assert.ok(world.runUntil(isReserved(world), 5 * MINUTE))
    const [used] = open(world, 'default')
    const exit = inside(used!)[1]!
    world.routers.get(exit)!.input({ kind: 'stop' })
    assert.ok(world.runUntil(() => used!.state !== 'open', MINUTE))
    world.run(2000)
    const again = world.boot(exit)
    again.input({ kind: 'start' })
    again.input({ kind: 'consensus', consensus: world.consensus })
  }
  assert.ok(world.runUntil(() => open(world, 'spare').length === 2, 5 * MINUTE))
})

test('rotation: new connections go elsewhere, old ones end where they began, and it has jitter', () => {
  const world = start(73, 10 * MINUTE)
  assert.ok(world.runUntil(isReserved(world), MINUTE))
  const began: number[] = []
  let [used] = open(world, 'default')
  for (let i = 0; i < 6; i++) {
    assert.ok(
      world.runUntil(() => open(world, 'default')[0] !== used, 20 * MINUTE),
      `rotation ${i}`,
    )
    began.push(world.now)
    assert.equal(used!.state, 'open')
    reaches(world, used!, i + 1)
    ;[used] = open(world, 'default')
    assert.equal(sourceOf(world), used!.privateAddresses.at(-1))
  }
  const between = began.slice(1).map((at, i) => at - began[i]!)
  for (const each of between) assert.ok(each > 7 * MINUTE && each < 14 * MINUTE, `${each} ms`)
  assert.equal(new Set(between.map((each) => Math.round(each / 1000))).size, between.length)
  assert.ok(open(world, 'retired').length <= MAX_RETIRED)
  const entries = world.client.machine.circuits.map(({ telescope }) => telescope.hops[0]!.name)
  assert.equal(new Set(entries).size, 1)
  const wasRetired = open(world, 'retired')[0]!
  assert.ok(
    world.runUntil(() => wasRetired.state === 'closed', 360 * MINUTE),
    'retired for good',
  )
})

test('a connection goes on where it began for as long as it is used; unused circuits end', () => {
  const HOUR = 60 * MINUTE
  /** Answers to what is said on both addresses every five minutes, as long as `use` says so. */
  const follow = (
    world: SimOverlay,
    telescope: Telescope,
    use: (sinceRetired: number) => boolean,
  ): number => {
    const retired = world.now
    const said = new Set<string>()
    while (telescope.state === 'open' && world.now - retired < 40 * HOUR) {
      if (use(world.now - retired)) {
        const text = `${world.now}`
        said.add(text)
        world.client.say(telescope.privateAddresses.at(-1)!, SERVER, 7007, text)
      }
      world.run(5 * MINUTE)
      world.client.input({ kind: 'traffic', counters: world.client.engine.counters() })
      if (telescope.state !== 'open') break
      for (const text of said)
        assert.ok(
          world.delivered.some(({ payload }) => payload === `re: ${text}`),
          `${text} was answered`,
        )
      said.clear()
    }
    return world.now - retired
  }
  const rotated = (seed: number): [SimOverlay, Telescope] => {
    const world = start(seed, 6 * HOUR, 1, ['alder', 'birch', 'cedar', 'dogwood'])
    assert.ok(world.runUntil(isReserved(world), MINUTE))
    const [used] = open(world, 'default')
    world.client.input({ kind: 'traffic', counters: world.client.engine.counters() })
    assert.ok(world.runUntil(() => open(world, 'default')[0] !== used, 8 * HOUR))
    return [world, used!]
  }
  const [first, unused] = rotated(78)
  const idle = follow(first, unused, () => false)
  assert.ok(idle > 3 * HOUR && idle < 5.5 * HOUR, `without a connection: ${idle / HOUR} h`)
  const [second, long] = rotated(78)
  const used = follow(second, long, (since) => since < 7 * HOUR)
  assert.ok(used > 7 * HOUR && used < 8 * HOUR, `used for seven hours: ${used / HOUR} h`)
})

test('more that linger than there may: those that are in use stay', () => {
  const world = start(79, 10 * MINUTE)
  assert.ok(world.runUntil(isReserved(world), MINUTE))
  const [used] = open(world, 'default')
  for (let minute = 0; minute < 200; minute++) {
    world.client.say(used!.privateAddresses.at(-1)!, SERVER, 7007, `${minute}`)
    world.run(MINUTE)
    world.client.input({ kind: 'traffic', counters: world.client.engine.counters() })
    assert.ok(open(world, 'retired').length <= MAX_RETIRED)
    assert.equal(used!.state, 'open', `after ${minute} minutes`)
  }
  assert.ok(used!.id + MAX_RETIRED < open(world, 'default')[0]!.id, 'others went before it')
})

test('somebody asks for one of his own: it is never handed to others, and closing it changes nothing', () => {
  const world = start(74)
  assert.ok(world.runUntil(isReserved(world), MINUTE))
  world.client.input({ kind: 'build', ticket: 9 })
  assert.ok(world.runUntil(() => open(world, 'asked').length === 1, MINUTE))
  const [[used], [own], [spare]] = [open(world, 'default'), open(world, 'asked'), open(world, 'spare')]
  const addresses = [used, own, spare].flatMap((each) => each!.privateAddresses)
  assert.equal(new Set(addresses).size, addresses.length, 'nothing that links them')
  world.client.input({ kind: 'close', circuit: used!.id })
  assert.deepEqual(open(world, 'default'), [spare])
  world.client.input({ kind: 'close', circuit: own!.id })
  world.run(2000)
  assert.deepEqual(open(world, 'default'), [spare])
})

test('a network too small for a second way has no spare, and is not asked for one all the time', () => {
  const world = start(75, 10 * MINUTE, 2, ['alder', 'birch', 'cedar'])
  assert.ok(world.runUntil(isReserved(world), MINUTE), 'the same nodes are better than none')
  const [used] = open(world, 'default')
  world.routers.get(used!.hops[2]!.name)!.alive = false
  assert.ok(world.runUntil(() => world.client.machine.state !== 'ready', 20 * MINUTE))
  const before = world.wire.length
  world.run(20 * MINUTE)
  assert.ok(world.wire.length - before < 20_000, `${world.wire.length - before} packets`)
})

test('a stop closes spares as well', () => {
  const world = start(76, 5 * MINUTE)
  assert.ok(world.runUntil(isReserved(world), MINUTE))
  world.run(12 * MINUTE)
  world.client.input({ kind: 'stop' })
  assert.ok(world.runUntil(() => world.client.machine.state === 'stopped', 10_000))
  assert.deepEqual(world.client.engine.counters(), [])
})

test('on demand: no circuit but those that are asked for, each by an entry of its own choice', () => {
  const world = new SimOverlay(NAMES, { seed: 77, onDemand: true })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  world.run(MINUTE)
  assert.equal(world.client.machine.state, 'ready')
  assert.deepEqual(world.client.machine.circuits, [])
  for (const path of [['alder', 'birch'], ['cedar'], ['birch', 'alder']]) {
    world.client.input({ kind: 'build', ticket: 1, path })
    assert.ok(world.runUntil(() => open(world, 'asked').length === 1, MINUTE))
    const [built] = open(world, 'asked')
    assert.deepEqual(
      built!.hops.map(({ name }) => name),
      path,
    )
    world.client.input({ kind: 'close', circuit: built!.id })
    assert.ok(world.runUntil(() => world.client.machine.circuits.length === 0, MINUTE))
  }
})
