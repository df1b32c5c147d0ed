/** A circuit that is lost comes back through the same entry, resumed there and nowhere else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { contains, type Ip } from '#base/ip'
import { MINUTE, SECOND } from '#base/time'
import { EXCHANGE } from '#ikev2/numbers'
import { CLIENT, POOL_SPACE, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm']
const { IKE_SESSION_RESUME } = EXCHANGE.number

interface Heard {
  readonly at: Ip
  readonly from: Ip
  readonly exchange: number
  readonly length: number
}

function open(seed: number, path?: string[]) {
  const heard: Heard[] = []
  const world = new SimOverlay(NAMES, {
    seed,
    ...(path ? { path } : {}),
    taps: {
      heard: (at, { remote }, bytes) =>
        heard.push({ at, from: remote.address, exchange: bytes[18]!, length: bytes.length }),
    },
  })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(isReady(world))
  world.run(2 * SECOND)
  return { world, heard }
}

const isReady = (world: SimOverlay): boolean =>
  world.runUntil(() => world.client.machine.state === 'ready', 5 * MINUTE)

const telescope = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope

const names = (world: SimOverlay, hop: number): string[] =>
  telescope(world)
    .exchanges.filter((each) => each.hop === hop)
    .map(({ name }) => name)

const FULL = ['IKE_SA_INIT', 'IKE_INTERMEDIATE', 'IKE_AUTH']

/** Everything that inner hops of the client's circuit heard of IKE, without where and when. */
const inner = (heard: readonly Heard[]) =>
  heard
    .filter(({ from, at }) => contains(POOL_SPACE, from) && at !== CLIENT)
    .map(({ exchange, length }) => `${exchange} ${length}`)

for (const lost of [1, 2]) {
  test(`hop ${lost + 1} dies: the same entry, resumed; the others are met as strangers`, () => {
    const { world, heard } = open(20 + lost)
    const before = telescope(world).hops.map(({ name }) => name)
    for (const hop of [1, 2, 3]) assert.deepEqual(names(world, hop), FULL)
    const first = inner(heard).filter((each) => !each.startsWith(`${EXCHANGE.number.INFORMATIONAL} `))
    heard.length = 0
    world.routers.get(before[lost]!)!.alive = false
    assert.ok(world.runUntil(() => world.client.machine.state !== 'ready', 10 * MINUTE))
    heard.length = 0
    assert.ok(isReady(world))
    const path = telescope(world).hops.map(({ name }) => name)
    assert.equal(path[0], before[0], 'the same guard')
    assert.notEqual(path[lost], before[lost])
    // Keys of its own follow while the other hops are built.
    assert.deepEqual(names(world, 1).slice(0, 3), ['IKE_SESSION_RESUME', 'IKE_AUTH', 'CREATE_CHILD_SA'])
    assert.deepEqual([names(world, 2), names(world, 3)], [FULL, FULL])
    const resumes = heard.filter(({ exchange }) => exchange === IKE_SESSION_RESUME)
    const entry = world.routers.get(path[0]!)!.address
    assert.ok(resumes.length > 0)
    for (const { at, from } of resumes) assert.ok((at === entry && from === CLIENT) || at === CLIENT)
    // Hops 2 and 3 cannot tell from what they hear whether hop 1 was resumed.
    const again = inner(heard).filter((each) => !each.startsWith(`${EXCHANGE.number.INFORMATIONAL} `))
    assert.deepEqual(again, first)
    assert.equal(world.routers.get(path[0]!)!.machine.counters()['established.resumed'], 1)
    world.run(10 * SECOND)
    assert.equal(world.client.machine.state, 'ready')
  })
}

test('inner hops give no tickets, and are not asked', () => {
  const { world } = open(31, ['alder', 'birch', 'cedar'])
  const issued = (name: string): number => world.routers.get(name)!.machine.counters()['tickets.issued'] ?? 0
  const nodes = NAMES.map(issued)
  world.client.input({ kind: 'build', ticket: 1, path: ['alder', 'dogwood', 'elm'] })
  world.run(10 * SECOND)
  assert.deepEqual(
    NAMES.map(issued).map((count, at) => count - nodes[at]!),
    [1, 0, 0, 0, 0],
  )
})

test('the entry restarts with the circuit: its tickets are worth nothing, and a full exchange follows', () => {
  const { world } = open(41, ['alder', 'birch', 'cedar'])
  world.boot('alder')
  const host = world.routers.get('alder')!
  host.input({ kind: 'start' })
  host.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(world.runUntil(() => world.client.machine.state !== 'ready', 10 * MINUTE))
  assert.ok(isReady(world))
  assert.deepEqual(names(world, 1), FULL)
  assert.equal(world.client.machine.counters()['resumption.fell-back'], 1)
  assert.equal(host.machine.counters()['ticket-unreadable'], 1)
})

test('a circuit that its user closed does not come back as itself', () => {
  const { world, heard } = open(51, ['alder', 'birch', 'cedar'])
  world.client.input({ kind: 'close', circuit: telescope(world).id })
  assert.ok(world.runUntil(() => world.client.machine.state !== 'ready', MINUTE))
  assert.ok(isReady(world))
  assert.deepEqual(names(world, 1), FULL)
  // Nodes may resume their tunnels whenever they like.
  const ofClient = heard.filter(({ from }) => from === CLIENT || contains(POOL_SPACE, from))
  assert.equal(
    ofClient.some(({ exchange }) => exchange === IKE_SESSION_RESUME),
    false,
  )
})

test('two nodes that lost each other resume their tunnel', () => {
  const { world } = open(62)
  const resumed = (): number =>
    [...world.routers.values()].reduce(
      (sum, { machine }) => sum + (machine.counters()['established.resumed'] ?? 0),
      0,
    )
  const before = resumed()
  // The others began its tunnels, and so have tickets. They try for as long as it is away.
  const last = world.consensus.nodes.at(-1)!.name
  const lost = world.routers.get(last)!
  lost.alive = false
  assert.ok(
    world.runUntil(() => world.linksUp <= 20 - 4, 10 * MINUTE),
    `${world.linksUp} links`,
  )
  world.run(5 * MINUTE)
  lost.alive = true
  assert.ok(
    world.runUntil(() => world.linksUp === 20, 10 * MINUTE),
    `${world.linksUp} links`,
  )
  // Both ends count, of four tunnels. Where both began at once, more IKE SAs were established than are kept.
  assert.ok(resumed() - before >= 8)
})
