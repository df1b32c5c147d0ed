/** Traffic while every layer of a telescope and every overlay tunnel under it gets new keys, again and again. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MINUTE, SECOND } from '#base/time'
import type { PacketEngine } from '#telescope/engine'
import { FAIR, SERVER, SimOverlay, type Weather } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar']
const LIFETIMES = { child: 40 * SECOND, ike: 100 * SECOND }

function open(weather: Weather, seed: number): SimOverlay {
  const world = new SimOverlay(NAMES, { seed, weather, path: NAMES, lifetimes: LIFETIMES })
  assert.ok(world.raise(), 'every overlay tunnel came up')
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', 60_000))
  return world
}

const circuit = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope
const hostsOf = (world: SimOverlay) => [...world.routers.values(), world.client]
/** SPIs of every SA of a host, sorted. */
const spisOf = ({ engine }: { readonly engine: PacketEngine }): string[] =>
  engine
    .counters()
    .map(({ spi }) => `${spi}`)
    .sort()

for (const [name, weather] of [
  ['in order', FAIR],
  ['out of order', { ...FAIR, jitter: 40 }],
] as const) {
  test(`packets ${name}: none is lost in ten minutes of rekeys of every layer and overlay tunnel`, () => {
    const world = open(weather, 1)
    const telescope = circuit(world)
    const [first, policies] = [
      hostsOf(world).map((host) => spisOf(host)),
      hostsOf(world).map(({ planeOperations }) => planeOperations.length),
    ]
    const reqids = telescope.layers.map(({ reqid }) => reqid)
    const addresses = telescope.privateAddresses
    let said = 0
    for (const end = world.now + 10 * MINUTE; world.now < end; ) {
      world.client.say(addresses.at(-1)!, SERVER, 7007, `${said++}`)
      world.run(100)
    }
    // No new request: every one may be in the middle of a rekey, so the last packets have time to arrive.
    world.run(2 * SECOND)
    const heard = new Set(world.delivered.map(({ payload }) => payload))
    assert.equal(heard.size, 2 * said, 'every question, and every answer')
    for (const host of hostsOf(world)) {
      const { XfrmInNoStates, XfrmOutNoStates, XfrmInTmplMismatch, XfrmInNoPols } = host.engine.drops()
      assert.deepEqual([XfrmInNoStates, XfrmOutNoStates, XfrmInTmplMismatch, XfrmInNoPols], [0, 0, 0, 0])
    }

    assert.equal(world.client.machine.state, 'ready')
    assert.equal(circuit(world), telescope, 'the same circuit')
    assert.deepEqual(
      telescope.layers.map(({ reqid }) => reqid),
      reqids,
    )
    hostsOf(world).forEach((host, index) => {
      const operations = host.planeOperations.slice(policies[index]!)
      assert.ok(
        operations.every(({ kind }) => kind.startsWith('sa.')),
        'no policy was touched',
      )
      const installs = operations.filter(({ kind }) => kind === 'sa.install').length
      assert.ok(installs > 2 * 10, `${installs} SAs were installed`)
      const before = new Set(first[index])
      assert.ok(
        spisOf(host).every((spi) => !before.has(spi)),
        'every SA is another',
      )
    })
  })
}

test('rekeys in bad weather: circuits stay, and the end frees everything', () => {
  let kept = 0
  for (let seed = 1; seed <= 3; seed++) {
    const world = open({ loss: 0.02, duplication: 0.02, latency: 10, jitter: 20 }, seed)
    const telescope = circuit(world)
    world.run(10 * MINUTE)
    // A liveness check that is lost four times over ends a circuit, and another one takes its place.
    if (circuit(world) === telescope) kept++
    world.client.input({ kind: 'stop' })
    world.runUntil(() => world.client.machine.state === 'stopped', 5000)
    // A node that missed the DELETE asks for four minutes before it gives up.
    world.run(10 * MINUTE)
    assert.equal(world.client.engine.counters().length, 0)
    for (const { machine, engine } of world.routers.values()) {
      assert.equal(machine.circuitCount, 0)
      const links = NAMES.length - 1
      const sas = engine.counters().length
      assert.ok(sas >= 2 * links && sas <= 6 * links, `${sas} SAs for ${links} overlay tunnels`)
    }
  }
  assert.ok(kept >= 2, `${kept} of 3 circuits stayed`)
})

test('the first packet on a new SA is announced, once, to whoever may then send on its pair', () => {
  const world = open(FAIR, 5)
  const address = circuit(world).privateAddresses.at(-1)!
  let said = 0
  for (const end = world.now + 2 * MINUTE; world.now < end; ) {
    world.client.say(address, SERVER, 7007, `${said++}`)
    world.run(50)
  }
  const announced = hostsOf(world).flatMap(({ planeOperations }) =>
    planeOperations.flatMap((each) => (each.kind === 'sa.install' && each.sa.announce ? [each.sa] : [])),
  )
  assert.ok(announced.length > 10)
  assert.ok(
    announced.every(({ flow }) => flow === 'inbound'),
    'there is nothing to hear on the others',
  )
  const heard = hostsOf(world).flatMap((host) => host.heard)
  assert.ok(heard.length > 10, `${heard.length} heirs were heard`)
  assert.equal(new Set(heard).size, heard.length, 'each once')
})
