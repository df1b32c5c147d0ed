/** Routes of the kernel plane: what carries a layer may be larger than what applications send. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ip, ip, prefix } from '#base/ip'
import { DEFAULT_GROUP } from '#overlay/groups'
import { Guard } from '#overlay/guard'
import { privateRoutes } from '#overlay/node-filter'
import type { HostOperation } from '#overlay/ports'
import type { Telescope } from '#telescope/telescope'

const [SELF, ENTRY, MIDDLE, EXIT, DIRECTORY] = [1, 10, 20, 30, 50].map((net) => ip(`198.18.${net}.1`)) as [
  Ip,
  Ip,
  Ip,
  Ip,
  Ip,
]

const guard = (plane: 'xfrm' | 'userspace'): Guard =>
  new Guard({
    self: SELF,
    directories: [{ address: DIRECTORY, port: 9030 }],
    context: { plane, device: 'ippriv0', address: SELF },
    hops: 3,
  })

const circuit = (layers: number, ...hops: readonly Ip[]) => ({
  telescope: {
    hops: hops.map((address) => ({ address })),
    layers: Array(layers).fill({}),
  } as unknown as Telescope,
})

const told = (operations: readonly HostOperation[]): string[] =>
  operations.map((operation) => {
    assert.ok(operation.kind === 'route.add' || operation.kind === 'route.remove')
    const { destination, mtu, via, source } = operation.route
    assert.equal(via, 'overlay')
    return `${operation.kind} ${destination.address}/${destination.length} ${mtu}${source ? ` from ${source}` : ''}`
  })

test('a hop has a route while a circuit reaches it, never one that is spoken to outside', () => {
  const own = guard('xfrm')
  own.pin(ENTRY)
  assert.deepEqual(told(own.reach([circuit(0, ENTRY, MIDDLE, EXIT)])), [])
  assert.deepEqual(told(own.reach([circuit(1, ENTRY, MIDDLE, EXIT)])), [`route.add ${MIDDLE}/32 1500`])
  assert.deepEqual(told(own.reach([circuit(2, ENTRY, MIDDLE, EXIT)])), [`route.add ${EXIT}/32 1500`])
  const two = [circuit(3, ENTRY, MIDDLE, EXIT), circuit(1, ENTRY, EXIT, DIRECTORY)]
  assert.deepEqual(told(own.reach(two)), [])
  const lent = ip('10.64.0.5')
  const [, , ...hops] = (own.route(DEFAULT_GROUP, lent) as { readonly operations: readonly HostOperation[] })
    .operations
  assert.deepEqual(told(hops), [
    `route.add ${MIDDLE}/32 1500 from ${lent}`,
    `route.add ${EXIT}/32 1500 from ${lent}`,
  ])
  assert.deepEqual(told(own.reach([two[1]!])), [`route.remove ${MIDDLE}/32 1500 from ${lent}`])
  assert.deepEqual(told(own.reach([])), [`route.remove ${EXIT}/32 1500 from ${lent}`])
})

test('the userspace plane asks no route how much fits', () => {
  assert.deepEqual(guard('userspace').reach([circuit(3, ENTRY, MIDDLE, EXIT)]), [])
})

test('a node: the MTU inside for its own pool, all of a cable for what carries others', () => {
  const consensus = { poolSpace: prefix('10.64.0.0/10') } as Parameters<typeof privateRoutes>[1]
  const routes = (plane: 'xfrm' | 'userspace') =>
    privateRoutes(
      { context: { plane, device: 'ippriv0', address: EXIT } },
      consensus,
      prefix('10.64.16.0/20'),
    ).map(({ destination, mtu }) => `${destination.address}/${destination.length} ${mtu}`)
  assert.deepEqual(routes('xfrm'), ['10.64.0.0/10 1500', '10.64.16.0/20 1280'])
  assert.deepEqual(routes('userspace'), ['10.64.0.0/10 undefined'])
})
