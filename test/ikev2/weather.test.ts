/** Many seeds of bad weather: it always ends, either established on both sides or failed cleanly, and leaves nothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LinkProfile } from '../sim/network.ts'
import { connect, find, isEmpty, ofKind, pair } from './pair.ts'

const WEATHER: Record<string, LinkProfile> = {
  'no loss': { loss: 0, duplication: 0, latency: [10, 10] },
  'five percent loss': { loss: 0.05, duplication: 0.02, latency: [10, 60] },
  'thirty percent loss': { loss: 0.3, duplication: 0.1, latency: [10, 200] },
  'everything twice, in any order': { loss: 0, duplication: 1, latency: [1, 3000] },
  'no delivery': { loss: 1, duplication: 0, latency: [1, 1] },
}
const SEEDS = 60

for (const [name, link] of Object.entries(WEATHER)) {
  test(`${name}: ${SEEDS} seeds`, () => {
    let established = 0
    for (let seed = 1; seed <= SEEDS; seed++) {
      const cookies = seed % 3 === 0 ? { limits: { cookieAt: 0 } } : {}
      const stage = pair({ seed, link, policy: { liveness: 10_000 }, ...cookies })
      const { client, node, network } = stage
      const id = connect(stage)
      const opened = ofKind(client, 'child.established', id)
      assert.notEqual(opened, ofKind(client, 'ike.closed', id), `seed ${seed}: undecided`)
      if (opened) {
        established++
        const ours = find(client, 'child.established')!.child
        const theirs = [...node.children.values()].find(({ inboundSpi }) => inboundSpi === ours.outboundSpi)
        assert.ok(theirs !== undefined, `seed ${seed}: established on one side only`)
        assert.deepEqual(theirs.inboundKey, ours.outboundKey)
        client.engine.close(id, network.now)
      }
      assert.equal(network.run(1_000_000), false)
      for (const host of [client, node])
        assert.ok(isEmpty(host), `seed ${seed}: ${JSON.stringify(host.engine.counters())}`)
      const closed = client.events.filter(({ kind }) => kind === 'ike.closed')
      assert.equal(closed.length, 1, `seed ${seed}: exactly one end`)
    }
    if (link.loss === 0) assert.equal(established, SEEDS)
    if (link.loss > 0 && link.loss <= 0.3) assert.ok(established > SEEDS * 0.8, `${established} of ${SEEDS}`)
    if (link.loss === 1) assert.equal(established, 0)
  })
}

/** Both sides renew at the same average pace, so that they keep getting in each other's way. */
const LIFETIMES = { child: 20_000, ike: 50_000 }
const HOUR = 3_600_000

for (const [name, link] of Object.entries(WEATHER)) {
  if (link.loss === 1) continue
  test(`${name}: an hour of rekeys by both sides, 3 seeds`, () => {
    for (let seed = 1; seed <= 3; seed++) {
      const stage = pair({ seed, link, policy: { lifetimes: LIFETIMES, liveness: 30_000 } })
      const { client, node, network } = stage
      const id = connect(stage, { lifetimes: LIFETIMES })
      if (!client.sending.has(id)) continue
      const calm = new Map([client, node].map((host) => [host, network.now]))
      let most = 0
      while (network.now < HOUR && client.sending.has(id)) {
        network.run(1000)
        for (const host of [client, node]) {
          most = Math.max(most, host.children.size, host.engine.counters()['sas.all']!)
          if (host.children.size <= 1) calm.set(host, network.now)
          assert.ok(network.now - calm.get(host)! < 300_000, `seed ${seed}: old Child SAs stay`)
        }
      }
      assert.ok(most <= 8, `seed ${seed}: ${most} at once`)
      assert.ok(link.loss > 0.1 || network.now >= HOUR, `seed ${seed}: the session ended`)
      const rekeys = client.events.filter(({ kind }) => kind === 'child.switched').length
      // A session that ends early may have had bad luck with one or two of them.
      assert.ok(rekeys + 3 > network.now / 60_000, `seed ${seed}: ${rekeys} rekeys in ${network.now} ms`)
      client.engine.close(id, network.now)
      network.run(1_000_000)
      for (const host of [client, node])
        assert.ok(isEmpty(host), `seed ${seed}: ${JSON.stringify(host.engine.counters())}`)
    }
  })
}
