import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nodeIdFromBytes } from '#base/ids'
import { formatPrefix, ip } from '#base/ip'
import { unixTime } from '#base/time'
import {
  admitDescriptor,
  listedNodes,
  MAX_KEPT_PER_NETWORK,
  MAX_PER_NETWORK,
  type NodeRecord,
  outlivedNodes,
} from '#directory/admission'
import type { SignedDescriptor } from '#directory/descriptor'
import { at, crypto, describe, PERIOD, PLAN, refused, START, value } from './network.ts'

const base = describe('alder')
let made = 0

/** A descriptor of somebody new, as it is after its signature was checked. */
function stranger(address: string, published = START as number): SignedDescriptor {
  const number = ++made
  const nodeId = nodeIdFromBytes(crypto.hash('sha256', Uint8Array.of(number >> 16, number >> 8, number)))
  const name = `fake-${number}`
  return {
    descriptor: { ...base.descriptor, nodeId, name, address: ip(address), published: unixTime(published) },
    text: name,
  }
}

class Book {
  readonly records = new Map<NodeRecord['descriptor']['nodeId'], NodeRecord>()
  now = START as number

  take(candidate: SignedDescriptor, source?: string) {
    const admitted = admitDescriptor(candidate, this.records, {
      now: unixTime(this.now),
      period: PERIOD,
      plan: PLAN,
      ...(source === undefined ? {} : { source: ip(source) }),
    })
    if (admitted.ok) this.records.set(candidate.descriptor.nodeId, admitted.value.record)
    return admitted
  }

  forget(): void {
    for (const id of outlivedNodes(this.records, unixTime(this.now), PERIOD)) this.records.delete(id)
  }

  listed(): string[] {
    return listedNodes(this.records, unixTime(this.now), PERIOD).map(
      ({ descriptor, pool }) => `${descriptor.name} ${descriptor.address} ${formatPrefix(pool)}`,
    )
  }
}

test('a descriptor comes from the address it names', () => {
  const book = new Book()
  refused(book.take(stranger('203.0.113.1'), '203.0.113.2'), 'IPP_DIR_SOURCE')
  value(book.take(stranger('203.0.113.1'), '203.0.113.1'))
  value(book.take(stranger('203.0.113.2')))
})

test('a /24 holds so many nodes; those who are here may stay, and move within it', () => {
  const book = new Book()
  const nodes = Array.from({ length: MAX_PER_NETWORK }, (_, i) => stranger(`203.0.113.${i + 1}`))
  for (const node of nodes) value(book.take(node))
  refused(book.take(stranger('203.0.113.100')), 'IPP_DIR_CROWDED')
  const again = (address: string, published: number): SignedDescriptor => ({
    descriptor: { ...nodes[0]!.descriptor, address: ip(address), published: unixTime(published) },
    text: `again ${published}`,
  })
  value(book.take(again('203.0.113.200', START + 1)))
  const outside = stranger('203.0.114.1')
  value(book.take(outside))
  // Nobody gets in by way of another network.
  const moved = { ...outside.descriptor, address: ip('203.0.113.101'), published: at(1) }
  refused(book.take({ descriptor: moved, text: 'moved' }), 'IPP_DIR_CROWDED')
})

test('10,000 made-up nodes from 300 addresses leave the document as it was', () => {
  const book = new Book()
  // Real nodes, all over the Internet.
  for (let i = 0; i < 40; i++) value(book.take(stranger(`100.${i}.7.1`), `100.${i}.7.1`))
  const before = book.listed()
  const refusals = new Map<string, number>()
  for (let i = 0; i < 10_000; i++) {
    const source = `203.0.${113 + (i % 2)}.${1 + ((i >> 1) % 150)}`
    // One half names its own address, the other anybody's.
    const address = i % 4 < 2 ? source : `9.${i >> 8}.${i & 255}.1`
    const taken = book.take(stranger(address), source)
    if (!taken.ok) refusals.set(taken.code, (refusals.get(taken.code) ?? 0) + 1)
  }
  const after = book.listed()
  assert.deepEqual(
    before.filter((line) => !after.includes(line)),
    [],
  )
  assert.equal(after.length - before.length, 2 * MAX_PER_NETWORK, 'so many as two networks may have')
  assert.equal(refusals.get('IPP_DIR_SOURCE'), 5000)
  assert.ok(refusals.get('IPP_DIR_CROWDED')! > 4000)
  value(book.take(stranger('198.51.100.1'), '198.51.100.1'))
})

test('new identities each time do not use up the pools of the others', () => {
  const book = new Book()
  value(book.take(stranger('100.1.7.1')))
  for (let round = 0; round < 200; round++) {
    for (let i = 1; i <= 2 * MAX_PER_NETWORK; i++) book.take(stranger(`203.0.113.${i}`, book.now))
    book.forget()
    assert.ok(book.records.size <= 1 + MAX_KEPT_PER_NETWORK)
    book.now += PERIOD
  }
})

test('a record is kept as long as its node was known: a passer-by for a few periods, others for thirty days', () => {
  const book = new Book()
  const passer = stranger('203.0.113.1')
  const regular = stranger('100.1.7.1')
  value(book.take(passer))
  value(book.take(regular))
  const month = 40 * 24 * 3600
  book.now = START + month
  const later = { ...regular.descriptor, published: at(month) }
  value(book.take({ descriptor: later, text: 'later' }))
  book.forget()
  assert.deepEqual([...book.records.keys()], [regular.descriptor.nodeId])
  book.now += 3 * PERIOD + 30 * 24 * 3600 - 1
  book.forget()
  assert.equal(book.records.size, 1)
  book.now += 1
  book.forget()
  assert.equal(book.records.size, 0)
})
