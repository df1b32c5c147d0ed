/** SPIs: random, and where workers share a node's traffic by them, those of its tunnels even. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toHex } from '#base/bytes'
import { SPI_MIN, type Spi } from '#base/ids'
import { InboundSpis } from '#ikev2/spis'
import { SimNetwork } from '../sim/network.ts'
import { seededCrypto, seededRng } from '../sim/random.ts'
import { addHost, anonymousRequest, CLIENT, find, type Host, NODE, nodeKey, openPolicy } from './pair.ts'

/** How many belong to each worker. */
function tally(spis: Iterable<number>, spread: number): number[] {
  const counts = new Array<number>(spread).fill(0)
  for (const spi of spis) counts[spi % spread]!++
  return counts
}

const gap = (counts: readonly number[]): number => Math.max(...counts) - Math.min(...counts)

/** Of 10,000 trials of one in `of`: within five standard deviations. */
function assertFair(count: number, trials: number, of: number): void {
  const deviation = Math.sqrt((trials * (of - 1)) / of ** 2)
  assert.ok(Math.abs(count - trials / of) < 5 * deviation, `${count} of ${trials}, one in ${of}`)
}

test('what is to be even is even at any time, whatever else is taken and goes', () => {
  for (const spread of [2, 3, 5]) {
    const rng = seededRng(spread)
    const spis = new InboundSpis(rng, spread)
    const even: Spi[] = []
    for (let i = 0; i < 200; i++) {
      even.push(spis.take('evenly'))
      if (i % 3 === 0) spis.take()
      assert.ok(gap(tally(even, spread)) <= 1)
    }
    assert.equal(new Set(even).size, 200)
    // One worker's go, and come back there.
    const gone = even.filter((spi) => spi % spread === 1)
    for (const spi of gone) spis.release(spi)
    for (const _ of gone.slice(1)) assert.equal(spis.take('evenly') % spread, 1)
  }
})

test('each is as random as it can be', () => {
  const trials = 10_000
  for (const wish of [undefined, 'evenly'] as const) {
    const spis = new InboundSpis(seededRng(7), 2)
    const residues = [0, 0]
    const tops = new Array<number>(8).fill(0)
    for (let i = 0; i < trials; i++) {
      const spi = spis.take(wish)
      assert.ok(spi >= SPI_MIN)
      residues[spi % 2]!++
      tops[spi >>> 29]!++
      // Alone, there is nothing that it would have to be.
      spis.release(spi)
    }
    assertFair(residues[0]!, trials, 2)
    for (const count of tops) assertFair(count, trials, 8)
  }
})

test('of others nothing can be told by one that is not to be even', () => {
  const spis = new InboundSpis(seededRng(8), 2)
  for (const spi of Array.from({ length: 20 }, () => spis.take('evenly')))
    if (spi % 2 === 0) spis.release(spi)
  const trials = 4000
  const plain = Array.from({ length: trials }, () => spis.take())
  assertFair(tally(plain, 2)[0]!, trials, 2)
  assertFair(
    tally(
      plain.map((like) => spis.take({ like })),
      2,
    )[0]!,
    trials,
    2,
  )
  assert.equal(spis.take('evenly') % 2, 0, 'nor does it count')
})

test('tunnels of nodes are even on both sides and stay so when they are rekeyed; clients are not asked', () => {
  const network = new SimNetwork({ seed: 3 })
  const [a, b] = [1, 2].map((seed) => nodeKey(seededCrypto(seededRng(seed)))) as [
    ReturnType<typeof nodeKey>,
    ReturnType<typeof nodeKey>,
  ]
  const policy = (own: typeof a, other: typeof a) =>
    openPolicy(own, {
      publicKeyOf: (id) => (toHex(id.data) === toHex(other.id.data) ? other.credential.publicKey : undefined),
    })
  const left = addHost(network, { address: CLIENT, seed: 4, responder: policy(a, b), spread: 2 })
  const right = addHost(network, { address: NODE, seed: 5, responder: policy(b, a), spread: 2 })
  const strangers = new Set<number>()
  for (let i = 0; i < 9; i++) {
    for (const credential of [a.credential, { kind: 'null' } as const]) {
      const request = anonymousRequest(b, { credential, requestAddress: credential.kind === 'null' })
      const sa = left.engine.initiate(request, network.now)
      network.run(1000)
      const { child } = find(right, 'child.established')!
      assert.equal(find(left, 'child.established')!.sa, sa)
      if (credential.kind === 'null') strangers.add(child.inboundSpi)
    }
  }
  const tunnels = (host: Host) => [...host.children.keys()].filter((spi) => !strangers.has(spi))
  const [before] = [tunnels(right)]
  assert.equal(before.length, 9)
  assert.ok(gap(tally(before, 2)) <= 1)
  assert.ok(gap(tally(left.children.keys(), 2)) <= 1, 'whoever begins')
  for (const host of [left, right])
    for (const [sa, child] of [...host.sending]) {
      host.engine.rekeyChild(sa, child.inboundSpi, network.now)
      network.run(200_000)
    }
  for (const host of [left, right]) {
    const rekeyed = host.events.filter((event) => event.kind === 'child.rekeyed')
    assert.equal(rekeyed.length, 36)
    for (const { old, child } of rekeyed) {
      assert.notEqual(child.inboundSpi, old.inboundSpi)
      if (host === right && strangers.has(old.inboundSpi)) strangers.add(child.inboundSpi)
      else assert.equal(child.inboundSpi % 2, old.inboundSpi % 2)
    }
  }
  assert.ok(gap(tally(tunnels(right), 2)) <= 1)
})
