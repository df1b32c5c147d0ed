/** What a host makes of what its network agrees on. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ip, prefix } from '#base/ip'
import { INNER_MTU } from '#base/mtu'
import type { Consensus, NetworkParameters } from '#directory/documents'
import { Guard } from '#overlay/guard'
import { nodeFilter, privateRoutes } from '#overlay/node-filter'
import { advice, heed, mtuOf } from '#overlay/parameters'
import type { HostOperation } from '#overlay/ports'

const agreed = (parameters: Partial<NetworkParameters>) => ({
  parameters: { mtu: 1280, profile: 1, versions: [], ...parameters },
})
const SELF = ip('198.18.1.1')
const context = { plane: 'xfrm', device: 'ippriv0', address: SELF } as const

test('the MTU inside: smaller where the network says so, never larger, never less than hosts must take', () => {
  assert.equal(mtuOf(undefined), INNER_MTU)
  assert.equal(mtuOf({}), INNER_MTU)
  for (const [said, used] of [
    [1280, 1280],
    [1200, 1200],
    [9000, 1280],
    [576, 576],
    [100, 576],
  ] as const)
    assert.equal(mtuOf(agreed({ mtu: said })), used)
})

test('a profile that this program does not know: the document is not acted on', () => {
  assert.ok(heed({}, 'ippriv 0.1.0').ok)
  assert.ok(heed(agreed({}), 'ippriv 0.1.0').ok)
  const foreign = heed(agreed({ profile: 2 }), 'ippriv 0.1.0')
  assert.ok(!foreign.ok && foreign.code === 'IPP_DIR_PROFILE' && /profile 2/.test(foreign.where))
})

test('a version older than what the network takes: the document is not acted on, whatever else it says', () => {
  const demand = agreed({ minimum: '0.2.0', profile: 2 })
  const old = heed(demand, 'ippriv 0.1.9')
  assert.ok(!old.ok && old.code === 'IPP_DIR_OUTDATED')
  assert.equal(old.where, 'ippriv 0.2.0 is needed; this is ippriv 0.1.9')
  assert.ok(heed(agreed({ minimum: '0.2.0' }), 'ippriv 0.2.0').ok)
})

test('software that the network does not recommend hears of it', () => {
  assert.equal(advice({}, 'ippriv 1'), undefined)
  assert.equal(advice(agreed({}), 'ippriv 1'), undefined, 'none is recommended: all are')
  assert.equal(advice(agreed({ versions: ['ippriv 1', 'ippriv 2'] }), 'ippriv 1'), undefined)
  assert.equal(
    advice(agreed({ versions: ['ippriv 2'] }), 'ippriv 1'),
    'the network recommends ippriv 2; this is ippriv 1',
  )
})

test('a client: routes of every group for the size agreed on, and never more than its layers leave', () => {
  const sizes = (operations: readonly HostOperation[]): string[] =>
    operations.flatMap((each) =>
      each.kind === 'route.add' && each.route.via === 'overlay'
        ? [`${each.route.table ?? 'main'} ${each.route.mtu} ${each.route.advmss}`]
        : [],
    )
  const guard = (hops: number) => new Guard({ self: SELF, directories: [], context, hops })
  const told = (own: Guard, mtu: number) =>
    own.resize(mtu).flatMap((effect) => (effect.kind === 'host' ? sizes(effect.operations) : []))
  const own = guard(3)
  assert.deepEqual(told(own, INNER_MTU), [], 'as it was')
  assert.deepEqual(told(own, 1200), ['main 1200 1160', 'main 1200 1160'], 'both halves')
  assert.deepEqual(told(own, 1200), [])
  const [large, larger] = [told(guard(5), 1279), told(guard(5), 1100)]
  assert.deepEqual(larger, ['main 1100 1060', 'main 1100 1060'])
  assert.ok(Number(large[0]!.split(' ')[1]) < 1279)
})

test('an exit: its pool and the MSS it allows are of the size agreed on', () => {
  const consensus = { poolSpace: prefix('10.64.0.0/10'), nodes: [], ...agreed({ mtu: 1200 }) }
  const pool = prefix('10.64.16.0/20')
  const [, own] = privateRoutes({ context }, consensus as unknown as Consensus, pool)
  assert.deepEqual([own?.destination, own?.mtu], [pool, 1200])
  const options = { nodeId: 'x', exitPolicy: [], roles: ['exit'], context } as never
  const filter = nodeFilter(options, consensus as unknown as Consensus, pool)
  assert.ok(filter.kind === 'firewall.set')
  const clamps = filter.rules.chains.flatMap(({ rules }) =>
    rules.flatMap(({ verdict }) => (verdict.kind === 'clamp-mss' ? [verdict.mss] : [])),
  )
  assert.deepEqual(clamps, [1160, 1160])
})
