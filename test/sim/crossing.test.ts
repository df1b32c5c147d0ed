/** Two nodes that begin their tunnel at once, in every order of what is on the way: they end with the same one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type SimNodeHost as Node, SimOverlay } from './overlay.ts'

const JITTER = { loss: 0, duplication: 0, latency: 5, jitter: 60 }
/** The node with the higher id begins about then, if the other has not. */
const TAKE_OVER = 4000

test('tunnels begun at once by both nodes: both use the same one', () => {
  let crossings = 0
  for (let seed = 1; seed <= 60; seed++) {
    const world = new SimOverlay(['alder', 'birch'], { seed, weather: JITTER, taps: { keyLog: true } })
    const [low, high] = world.consensus.nodes.map(({ name }) => world.routers.get(name)!) as [Node, Node]
    const start = (host: Node): void => {
      host.input({ kind: 'start' })
      host.input({ kind: 'consensus', consensus: world.consensus })
    }
    start(high)
    world.run(TAKE_OVER - 300 + 10 * seed)
    start(low)
    world.run(20_000)
    // Two IKE SAs, each with keys before and after its additional key exchange.
    if (low.events.filter(({ kind }) => kind === 'keys').length >= 4) crossings++
    assert.equal(world.linksUp, 2, `seed ${seed}: the tunnel is up`)
    assert.deepEqual(sasOf(low), sasOf(high), `seed ${seed}: both have the same SAs`)
    assert.equal(sasOf(low).length, 2)
  }
  assert.ok(crossings >= 10, `only ${crossings} of the pairs began at once`)
})

const sasOf = (host: Node): string[] =>
  host
    .inventory()
    .sas.map(({ source, destination, spi }) => `${source} ${destination} ${spi}`)
    .sort()
