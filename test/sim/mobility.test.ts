/** Whole networks in virtual time: a client behind a NAT, and one that changes its address. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ip, ip } from '#base/ip'
import type { PlaneOperation } from '#telescope/plane'
import { PROTOCOL } from '#wire/ipv4'
import { NatBox } from './nat.ts'
import { CLIENT, FAIR, SERVER, SimOverlay, type Weather } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar']
const OUTSIDE = ip('198.18.2.99')
const ELSEWHERE = ip('198.18.3.3')
const BAD: Weather = { loss: 0.05, duplication: 0.05, latency: 10, jitter: 30 }

function open(seed: number, nat?: NatBox, lifetimes?: { child: number; ike: number }): SimOverlay {
  const world = new SimOverlay(NAMES, { seed, path: NAMES, ...(lifetimes ? { lifetimes } : {}) })
  world.nat = nat
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', 60_000))
  return world
}

const circuit = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope

/** Says something to the server and hears the answer. */
function works(world: SimOverlay, text: string): boolean {
  const own = circuit(world).privateAddresses.at(-1)!
  world.client.say(own, SERVER, 7007, text)
  return world.runUntil(() => world.delivered.some(({ payload }) => payload === `re: ${text}`), 2000)
}

function relocate(world: SimOverlay, to: Ip): void {
  world.client.relocate(to)
  world.client.input({ kind: 'moved', self: to })
}

const isMove = ({ kind }: { readonly kind: string }): boolean => kind === 'sa.move'

test('behind a NAT: only UDP on the cable of the client, and a circuit of three hops works', () => {
  const world = open(1, new NatBox(CLIENT, OUTSIDE))
  assert.ok(works(world, 'hello'))
  world.run(60_000)
  assert.ok(works(world, 'still here'))
  const outside = world.wire.filter(({ from, to }) => from === OUTSIDE || to === OUTSIDE || to === CLIENT)
  assert.ok(outside.length > 0)
  for (const { protocol } of outside) assert.equal(protocol, PROTOCOL.udp)
})

test('ESP of the first layer alone goes in UDP', () => {
  const world = open(2, new NatBox(CLIENT, OUTSIDE))
  const installed = (operations: readonly PlaneOperation[]) =>
    operations.flatMap((each) => (each.kind === 'sa.install' ? [each.sa] : []))
  const ours = installed(world.client.planeOperations)
  assert.deepEqual(
    ours.map(({ encapsulation }) => encapsulation !== undefined),
    [true, true, false, false, false, false],
  )
  for (const name of ['birch', 'cedar'])
    for (const sa of installed(world.routers.get(name)!.planeOperations))
      assert.equal(sa.encapsulation, undefined)
})

for (const [name, before, after] of [
  ['no NAT', undefined, undefined],
  ['into a NAT', undefined, () => new NatBox(ELSEWHERE, OUTSIDE)],
  ['out of a NAT', () => new NatBox(CLIENT, OUTSIDE), undefined],
  ['from NAT to NAT', () => new NatBox(CLIENT, OUTSIDE), () => new NatBox(ELSEWHERE, ip('198.18.2.98'))],
] as const)
  for (const weather of [FAIR, BAD])
    test(`the client changes networks, ${name}, ${weather === FAIR ? 'fair' : 'bad'} weather: the circuit stays`, () => {
      const world = open(3, before?.())
      const telescope = circuit(world)
      const addresses = telescope.privateAddresses
      assert.ok(works(world, 'before'))
      const heard = new Map([...world.routers].map(([node, host]) => [node, host.planeOperations.length]))
      const ours = world.client.planeOperations.length
      world.weather = weather
      world.nat = after?.()
      relocate(world, ELSEWHERE)
      const moved = (): boolean => world.client.events.some(({ kind }) => kind === 'circuit.moved')
      assert.ok(world.runUntil(moved, 9000))
      world.run(1000)
      world.weather = FAIR
      assert.ok(works(world, 'after'))
      assert.equal(circuit(world), telescope, 'the same circuit')
      assert.deepEqual(telescope.privateAddresses, addresses)
      assert.equal(telescope.self, ELSEWHERE)
      // Layer one alone, at both of its ends.
      assert.equal(world.client.planeOperations.slice(ours).filter(isMove).length, 2)
      for (const [node, host] of world.routers) {
        const later = host.planeOperations.slice(heard.get(node)).filter(isMove)
        assert.ok(node === 'alder' ? later.length >= 2 : later.length === 0, node)
      }
      world.client.input({ kind: 'stop' })
      assert.ok(world.runUntil(() => world.client.machine.state === 'stopped', 5000))
      world.run(1000)
      assert.equal(world.client.engine.counters().length, 0, 'no SA is left')
      for (const { machine } of world.routers.values()) assert.equal(machine.circuitCount, 0)
    })

test('rekeys of every layer before, between and after three moves', () => {
  const world = open(4, undefined, { child: 20_000, ike: 50_000 })
  const telescope = circuit(world)
  for (const [i, to] of [ELSEWHERE, CLIENT, ip('198.18.3.4')].entries()) {
    world.run(70_000)
    world.nat = i === 1 ? new NatBox(to, OUTSIDE) : undefined
    relocate(world, to)
    world.run(70_000)
    assert.ok(works(world, `move ${i}`), `move ${i}`)
  }
  assert.equal(circuit(world), telescope)
})

test('a client that moves while it builds begins anew from where it is', () => {
  const world = new SimOverlay(NAMES, { seed: 5, path: NAMES })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  world.run(7)
  relocate(world, ELSEWHERE)
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', 30_000))
  assert.equal(circuit(world).self, ELSEWHERE)
  assert.ok(works(world, 'hello'))
})

test('what may pass outside the telescope follows the address', () => {
  const world = open(6)
  const before = world.client.planeOperations.length
  relocate(world, ELSEWHERE)
  world.run(1000)
  const passes = world.client.planeOperations.slice(before).flatMap((each) => {
    if (each.kind === 'policy.install' && each.policy.action === 'bypass') return [each.policy.selector]
    return []
  })
  assert.ok(passes.length > 0)
  for (const { source, destination } of passes)
    assert.ok(source.address === ELSEWHERE || destination.address === ELSEWHERE)
  const removed = world.client.planeOperations.slice(before).filter(({ kind }) => kind === 'policy.remove')
  assert.equal(removed.length, passes.length)
})
