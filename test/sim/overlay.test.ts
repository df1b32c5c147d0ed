/** Whole networks in virtual time: the drawing is in overlay.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PUBLISHED_KEY } from '#overlay/identity'
import { PROTOCOL } from '#wire/ipv4'
import { CLIENT, SERVER, SimOverlay, type Weather } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm']
const PATH = ['alder', 'birch', 'cedar']
const BAD: Weather = { loss: 0.02, duplication: 0.02, latency: 10, jitter: 20 }
const TERRIBLE: Weather = { loss: 0.15, duplication: 0.1, latency: 20, jitter: 60 }

function open(options: ConstructorParameters<typeof SimOverlay>[1], patience = 30_000): SimOverlay {
  const world = new SimOverlay(NAMES, options)
  assert.ok(world.raise(), 'every overlay tunnel came up')
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(
    world.runUntil(() => world.client.machine.state === 'ready', patience),
    `circuit did not open: ${world.client.machine.state}`,
  )
  return world
}

const circuit = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope

test('five nodes make ten overlay tunnels, and a circuit of three hops carries a question and its answer', () => {
  const world = open({ seed: 1, path: PATH })
  const telescope = circuit(world)
  assert.deepEqual(
    telescope.hops.map((hop) => hop.name),
    PATH,
  )
  const [, , exitAddress] = telescope.privateAddresses
  world.client.say(exitAddress!, SERVER, 7007, 'hello')
  world.run(1000)
  assert.deepEqual(world.delivered, [
    { at: SERVER, from: world.routers.get('cedar')!.address, payload: 'hello' },
    { at: exitAddress, from: SERVER, payload: 're: hello' },
  ])
})

test('the client speaks to its entry only, and no private address is ever an outer one', () => {
  const world = open({ seed: 2, path: PATH })
  world.client.say(circuit(world).privateAddresses[2]!, SERVER, 7007, 'x')
  world.run(1000)
  const entry = world.routers.get('alder')!.address
  for (const { from, to, protocol } of world.wire) {
    if (from === CLIENT) assert.equal(to, entry)
    if (to === CLIENT) assert.equal(from, entry)
    assert.ok(!from.startsWith('10.') && !to.startsWith('10.'), `${from} > ${to}`)
    if (from === CLIENT || to === CLIENT) assert.ok(protocol === PROTOCOL.udp || protocol === PROTOCOL.esp)
  }
})

test('nothing leaves through a shorter telescope: only the innermost address speaks to the world', () => {
  const world = open({ seed: 21, path: PATH })
  const [fromAlder, fromBirch, fromCedar] = circuit(world).privateAddresses
  const [alder, birch, cedar] = PATH.map((name) => world.routers.get(name)!.address)
  const before = world.wire.length
  for (const early of [fromAlder!, fromBirch!]) {
    world.client.say(early, SERVER, 7007, 'early')
    // Not even to the node its IKE goes to, and not IKE to another node.
    for (const node of [alder!, birch!, cedar!]) world.client.say(early, node, 7007, 'early')
    world.client.say(early, early === fromAlder ? cedar! : birch!, 500, 'early')
  }
  assert.equal(world.wire.length, before, 'dropped on the spot')
  world.run(1000)
  assert.deepEqual(world.delivered, [])
  assert.equal(world.client.engine.drops().XfrmOutPolBlock, 10)
  world.client.say(fromCedar!, SERVER, 7007, 'whole')
  world.run(1000)
  assert.equal(world.delivered.length, 2)
})

test('a hop can send nothing but IKE to the address it lent', () => {
  const world = open({ seed: 22, path: PATH })
  const [fromAlder, fromBirch] = circuit(world).privateAddresses
  for (const [name, lent] of [
    ['alder', fromAlder!],
    ['birch', fromBirch!],
  ] as const) {
    const hop = world.routers.get(name)!
    hop.say(hop.address, lent, 7007, 'probe')
  }
  world.run(1000)
  assert.deepEqual(world.delivered, [])
  assert.equal(world.client.engine.drops().XfrmInPolBlock, 2)
})

for (const hops of [1, 2, 3, 4, 5]) {
  test(`a circuit of ${hops} hops works`, () => {
    const world = open({ seed: 10 + hops, hops })
    assert.equal(circuit(world).layers.length, hops)
    world.client.say(circuit(world).privateAddresses.at(-1)!, SERVER, 7007, 'ping')
    world.run(2000)
    assert.equal(world.delivered.length, 2)
  })
}

test('two percent loss, duplication and reordering on every link: circuits open and stay', () => {
  for (let seed = 100; seed < 110; seed++) {
    const world = open({ seed, weather: BAD }, 60_000)
    world.run(120_000)
    assert.equal(world.client.machine.state, 'ready', `seed ${seed}`)
  }
})

test('fifteen percent loss: a circuit opens in the end, on this path or another', () => {
  for (let seed = 200; seed < 204; seed++) {
    const world = new SimOverlay(NAMES, { seed, weather: TERRIBLE })
    assert.ok(world.raise(180_000), `seed ${seed}: overlay`)
    world.client.input({ kind: 'start' })
    world.client.input({ kind: 'consensus', consensus: world.consensus })
    assert.ok(
      world.runUntil(() => world.client.machine.state === 'ready', 300_000),
      `seed ${seed}`,
    )
  }
})

test('the end of a circuit frees everything at every node', () => {
  const world = open({ seed: 3, path: PATH })
  assert.deepEqual(
    [...world.routers.values()].map(({ machine }) => machine.circuitCount),
    [1, 1, 1, 0, 0],
  )
  world.client.input({ kind: 'stop' })
  assert.ok(world.runUntil(() => world.client.machine.state === 'stopped', 5000))
  world.run(1000)
  for (const [name, { machine, engine }] of world.routers) {
    assert.equal(machine.circuitCount, 0, name)
    assert.equal(machine.leases().inUse, 0, name)
    assert.equal(engine.counters().length, 2 * 4, `${name} keeps its four overlay tunnels`)
  }
  assert.equal(world.client.engine.counters().length, 0)
  assert.deepEqual([...world.client.addresses], [CLIENT])
  const last = world.client.hostOperations.at(-1)!
  assert.equal(last.kind, 'firewall.clear', 'the guard leaves last')
  assert.equal(world.client.hostOperations[0]!.kind, 'firewall.set', 'and came first')
})

test('a client that vanishes is forgotten', () => {
  const world = open({ seed: 4, path: PATH })
  world.client.alive = false
  world.run(10 * 60_000)
  for (const [name, { machine }] of world.routers) assert.equal(machine.circuitCount, 0, name)
})

test('a middle node that dies costs the circuit, and the client builds another without it', () => {
  const world = open({ seed: 5 })
  const first = circuit(world)
  const victim = first.hops[1]!.name
  world.routers.get(victim)!.alive = false
  assert.ok(
    world.runUntil(() => world.client.machine.state !== 'ready', 120_000),
    'the loss is noticed',
  )
  assert.ok(
    world.runUntil(() => world.client.machine.state === 'ready', 120_000),
    'another circuit opens',
  )
  assert.ok(!circuit(world).hops.some((hop) => hop.name === victim))
})

test('a node that stops leaves nothing behind in itself', () => {
  const world = open({ seed: 6 })
  const elm = world.routers.get('elm')!
  elm.input({ kind: 'stop' })
  world.run(3000)
  assert.ok(elm.events.some((event) => event.kind === 'stopped'))
  assert.equal(elm.engine.counters().length, 0)
})

for (const name of NAMES) {
  test(`${name} crashes, comes back with an empty memory and gets its tunnels back`, () => {
    const world = open({ seed: 60 })
    world.routers.get(name)!.alive = false
    world.run(2000)
    const again = world.boot(name)
    again.input({ kind: 'start' })
    again.input({ kind: 'consensus', consensus: world.consensus })
    const up = (): number => again.machine.overlay().filter((link) => link.state === 'up').length
    assert.ok(
      world.runUntil(() => up() === NAMES.length - 1, 30_000),
      `${up()} of 4 tunnels`,
    )
    world.run(60_000)
    assert.equal(up(), NAMES.length - 1, 'and keeps them')
    for (const [other, { engine }] of world.routers)
      assert.ok(engine.counters().length >= 8, `${other} has both directions of four tunnels`)
  })
}

test('an exhausted pool refuses the new circuit and leaves the old one alone', () => {
  // A /29 lends few addresses.
  const world = open({ seed: 7, path: PATH, poolLength: 29 })
  const before = circuit(world)
  const failures: string[] = []
  for (let ticket = 1; ticket <= 8; ticket++) {
    world.client.input({ kind: 'build', ticket, path: PATH })
    world.run(20_000)
  }
  for (const event of world.client.events) if (event.kind === 'circuit.failed') failures.push(event.code)
  assert.ok(failures.length > 0)
  assert.ok(
    failures.every((code) => code === 'IPP_IKE_ADDRESS_REFUSED' || code === 'IPP_PATH_NONE'),
    failures.join(),
  )
  assert.equal(before.state, 'open')
  world.client.say(before.privateAddresses[2]!, SERVER, 7007, 'still here')
  world.run(1000)
  assert.equal(world.delivered.at(-1)?.payload, 're: still here')
})

test('to a node listed as a stock router the client shows the published key', () => {
  const world = new SimOverlay(NAMES, { seed: 9, path: PATH })
  world.raise()
  const stock = (key: string) =>
    world.consensus.nodes.map((node) =>
      node.name === 'birch' ? { ...node, ike: { method: 'psk', key } as const } : node,
    )
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: { ...world.consensus, nodes: stock('another') } })
  world.runUntil(() => world.client.events.some((event) => event.kind === 'circuit.failed'), 20_000)
  const failure = world.client.events.find((event) => event.kind === 'circuit.failed')
  assert.equal(failure?.kind === 'circuit.failed' && failure.code, 'IPP_IKE_REFUSED')
  world.client.input({ kind: 'consensus', consensus: { ...world.consensus, nodes: stock(PUBLISHED_KEY) } })
  world.runUntil(() => world.client.events.some((event) => event.kind === 'circuit.open'), 200_000)
  assert.ok(world.client.events.some((event) => event.kind === 'circuit.open'))
})

test('a node with another key than the consensus says is not used', () => {
  const world = new SimOverlay(NAMES, { seed: 8, path: PATH })
  world.raise()
  const forged = world.consensus.nodes.map((node) =>
    node.name === 'birch' ? { ...node, ikeKey: world.consensus.nodes[0]!.identityKey } : node,
  )
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: { ...world.consensus, nodes: forged } })
  world.runUntil(() => world.client.events.some((event) => event.kind === 'circuit.failed'), 20_000)
  const failure = world.client.events.find((event) => event.kind === 'circuit.failed')
  assert.equal(failure?.kind === 'circuit.failed' && failure.code, 'IPP_IKE_AUTH_FAILED')
})
