/** What a new consensus, or none any more, means for circuits that are open. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ip } from '#base/ip'
import type { ConsensusNode } from '#directory/documents'
import { SERVER, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir']

function open(): SimOverlay {
  const world = new SimOverlay(NAMES, { seed: 61 })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(ready(world))
  return world
}

const ready = (world: SimOverlay): boolean =>
  world.runUntil(() => world.client.machine.state === 'ready', 60_000)
const circuit = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope

const changes: Readonly<Record<string, (node: ConsensusNode) => ConsensusNode | undefined>> = {
  'is gone': () => undefined,
  'has another key': (node) => ({ ...node, ikeKey: new Uint8Array(32) }),
  'has another address': (node) => ({ ...node, address: ip('198.18.99.9') }),
  'has no role any more': (node) => ({ ...node, roles: [] }),
}

for (const [what, change] of Object.entries(changes))
  for (const hop of [1, 2, 3])
    test(`hop ${hop} ${what}: its circuit is closed, and another is built without it`, () => {
      const world = open()
      const before = circuit(world)
      const { nodeId } = before.hops[hop - 1]!
      const nodes = world.consensus.nodes.flatMap((node) =>
        node.nodeId === nodeId ? (change(node) ?? []) : node,
      )
      world.client.input({ kind: 'consensus', consensus: { ...world.consensus, serial: 2, nodes } })
      const failure = world.client.events.find((event) => event.kind === 'circuit.failed')
      assert.equal(failure?.code, 'IPP_PATH_UNKNOWN_NODE')
      assert.ok(world.runUntil(() => before.state === 'closed', 10_000))
      if (what === 'has another key' || what === 'has another address') return
      assert.ok(ready(world))
      assert.ok(!circuit(world).hops.some((other) => other.nodeId === nodeId))
    })

test('a new consensus with the same nodes disturbs nothing', () => {
  const world = open()
  const before = circuit(world)
  const nodes = world.consensus.nodes.map((node) => ({
    ...node,
    software: 'ippriv 9',
    ikeKey: node.ikeKey.slice(),
  }))
  for (const host of [world.client, ...world.routers.values()])
    host.input({ kind: 'consensus', consensus: { ...world.consensus, serial: 2, nodes } })
  world.run(1000)
  assert.equal(circuit(world), before)
  assert.equal(before.state, 'open')
})

test('an expired consensus: what is open stays, nothing is built, until there is a new one', () => {
  const world = open()
  for (const host of [world.client, ...world.routers.values()]) host.input({ kind: 'consensus.expired' })
  const before = circuit(world)
  world.client.say(before.privateAddresses[2]!, SERVER, 7007, 'x')
  world.run(1000)
  assert.equal(world.delivered.length, 2)
  world.client.input({ kind: 'build', ticket: 1 })
  world.client.input({ kind: 'close', circuit: before.id })
  world.run(60_000)
  assert.equal(world.client.machine.state, 'waiting-for-consensus')
  const codes = world.client.events.flatMap((event) => (event.kind === 'circuit.failed' ? [event.code] : []))
  assert.deepEqual(codes, ['IPP_PATH_NONE'])
  assert.deepEqual(world.client.machine.circuits, [])
  // A client that still believes in it is told no.
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  world.run(5000)
  const refusal = world.client.events.findLast((event) => event.kind === 'circuit.failed')
  assert.equal(refusal?.code, 'IPP_IKE_REFUSED')
  for (const host of world.routers.values()) host.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(ready(world))
})
