/** Rekeys on request: a layer of a telescope, an overlay tunnel, their IKE SAs, and what cannot be rekeyed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CircuitId } from '#base/ids'
import { SERVER, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar']
/** Short of every lifetime: only what was asked for happens. */
const PATIENCE = 20_000

function open(): SimOverlay {
  const world = new SimOverlay(NAMES, { seed: 11, path: NAMES, taps: { keyLog: true } })
  assert.ok(world.raise(), 'every overlay tunnel came up')
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', 60_000))
  return world
}

const telescope = (world: SimOverlay) => world.client.machine.circuits[0]!.telescope
const spisOf = (world: SimOverlay) =>
  telescope(world).layers.map(({ child }) => `${child.inboundSpi} ${child.outboundSpi}`)
const outcomes = ({ events }: { readonly events: readonly { readonly kind: string }[] }) =>
  events.filter(({ kind }) => kind === 'rekeyed' || kind === 'rekey.failed')
const ikeKeysOf = ({ events }: { readonly events: readonly { readonly kind: string }[] }) =>
  events.filter(({ kind }) => kind === 'keys').length

function carries(world: SimOverlay): void {
  const before = world.delivered.length
  world.client.say(telescope(world).privateAddresses.at(-1)!, SERVER, 7007, 'still there?')
  assert.ok(
    world.runUntil(() => world.delivered.length === before + 2, 5000),
    'asked and answered',
  )
}

test('one layer after the other gets new keys, the others keep theirs, and packets go on', () => {
  const world = open()
  const { id: circuit } = telescope(world)
  for (const hop of [1, 2, 3]) {
    const before = spisOf(world)
    world.client.input({ kind: 'rekey', ticket: hop, circuit, hop, ike: false })
    assert.ok(world.runUntil(() => outcomes(world.client).length === hop, PATIENCE))
    assert.deepEqual(outcomes(world.client).at(-1), { kind: 'rekeyed', ticket: hop })
    assert.deepEqual(
      spisOf(world).map((spi, index) => spi === before[index]),
      [1, 2, 3].map((each) => each !== hop),
    )
    carries(world)
  }
})

test('the IKE SA of a layer gets new keys, and its Child SA stays', () => {
  const world = open()
  const { id: circuit } = telescope(world)
  const spis = spisOf(world)
  for (const hop of [3, 2, 1]) {
    const before = ikeKeysOf(world.client)
    world.client.input({ kind: 'rekey', ticket: 7, circuit, hop, ike: true })
    const done = outcomes(world.client).length + 1
    assert.ok(world.runUntil(() => outcomes(world.client).length === done, PATIENCE))
    assert.deepEqual(outcomes(world.client).at(-1), { kind: 'rekeyed', ticket: 7 })
    assert.equal(ikeKeysOf(world.client), before + 1, 'keys of one new IKE SA')
    carries(world)
  }
  assert.deepEqual(spisOf(world), spis)
})

test('two who ask for the same are both told, by one rekey', () => {
  const world = open()
  const { id: circuit } = telescope(world)
  const installs = () => world.client.planeOperations.filter(({ kind }) => kind === 'sa.install').length
  const before = installs()
  world.client.input({ kind: 'rekey', ticket: 1, circuit, hop: 2, ike: false })
  world.client.input({ kind: 'rekey', ticket: 2, circuit, hop: 2, ike: false })
  assert.ok(world.runUntil(() => outcomes(world.client).length === 2, PATIENCE))
  assert.equal(installs(), before + 2)
})

test('an overlay tunnel gets new keys from either side, by name and by node id', () => {
  const world = open()
  const [alder, birch] = [world.routers.get('alder')!, world.routers.get('birch')!]
  const alderId = world.consensus.nodes.find(({ name }) => name === 'alder')!.nodeId
  for (const [host, peer] of [
    [alder, 'birch'],
    [birch, alderId],
  ] as const) {
    for (const ike of [false, true]) {
      const [operations, keys] = [host.planeOperations.length, ikeKeysOf(host)]
      host.input({ kind: 'rekey', ticket: 1, peer, ike })
      const done = outcomes(host).length + 1
      assert.ok(world.runUntil(() => outcomes(host).length === done, PATIENCE))
      assert.deepEqual(outcomes(host).at(-1), { kind: 'rekeyed', ticket: 1 })
      const installed = host.planeOperations
        .slice(operations)
        .filter(({ kind }) => kind === 'sa.install').length
      assert.deepEqual([installed, ikeKeysOf(host) - keys], ike ? [0, 1] : [2, 0])
      carries(world)
    }
  }
})

test('what is not there cannot be rekeyed, and who dies meanwhile is told of', () => {
  const world = open()
  const { id: circuit } = telescope(world)
  for (const wish of [
    { circuit: 99 as CircuitId, hop: 1 },
    { circuit, hop: 0 },
    { circuit, hop: 4 },
  ]) {
    world.client.input({ kind: 'rekey', ticket: 5, ike: false, ...wish })
    const told = outcomes(world.client).at(-1) as { code?: string } | undefined
    assert.equal(told?.code, 'IPP_CIRCUIT_UNKNOWN')
  }
  const alder = world.routers.get('alder')!
  alder.input({ kind: 'rekey', ticket: 5, peer: 'nobody', ike: false })
  assert.deepEqual(outcomes(alder), [
    { kind: 'rekey.failed', ticket: 5, code: 'IPP_OVERLAY_DOWN', detail: 'nobody' },
  ])

  world.routers.get('cedar')!.alive = false
  for (const [ticket, ike] of [
    [6, false],
    [7, true],
  ] as const)
    world.client.input({ kind: 'rekey', ticket, circuit, hop: 3, ike })
  assert.ok(world.runUntil(() => outcomes(world.client).length === 5, 300_000))
  for (const told of outcomes(world.client).slice(3) as { kind: string; code?: string }[])
    assert.deepEqual([told.kind, told.code], ['rekey.failed', 'IPP_IKE_TIMEOUT'])
})
