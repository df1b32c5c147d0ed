import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { utf8 } from '#base/bytes'
import { formatPrefix, ip, overlaps, prefix } from '#base/ip'
import { sealDocument } from '#directory/canonical'
import { type ConsensusTrust, MAX_VALIDITY, signConsensus, verifyConsensus } from '#directory/consensus'
import { CLOCK_TOLERANCE } from '#directory/documents'
import { fitsPlan, freePool, slotCount } from '#directory/pools'
import {
  AUTHORITY,
  at,
  crypto,
  describe,
  draft,
  keyPair,
  listed,
  PERIOD,
  PLAN,
  refused,
  SPACE,
  START,
  value,
} from './network.ts'

const trust: ConsensusTrust = { authorities: [AUTHORITY.publicKey], now: at(10) }
const nodes = listed(['alder', 'birch', 'cedar'])
const signed = value(signConsensus(draft(nodes), [AUTHORITY], crypto))
const verify = (text: string, changes: Partial<ConsensusTrust> = {}) =>
  verifyConsensus(utf8(text), { ...trust, ...changes }, crypto)
interface Entry {
  pool: string
  descriptor: string
}
const body = () => JSON.parse(signed.text.split('\n')[0]!) as Record<string, unknown> & { nodes: Entry[] }
/** Any body, signed by the authority: what a directory that lies could publish. */
const forge = (content: object) => value(sealDocument('consensus', content, [AUTHORITY], crypto))

test('a consensus reads back as it was written, nodes in the order of their ids', () => {
  const consensus = value(verify(signed.text))
  assert.deepEqual(consensus, signed.consensus)
  assert.equal(consensus.serial, 7)
  assert.equal(consensus.freshUntil, at(PERIOD))
  assert.equal(consensus.validUntil, at(3 * PERIOD))
  const ids = consensus.nodes.map((n) => n.nodeId)
  assert.deepEqual(ids, ids.toSorted())
  assert.deepEqual(consensus.nodes.map((n) => n.name).toSorted(), ['alder', 'birch', 'cedar'])
  for (const { name, pool } of consensus.nodes)
    assert.deepEqual(pool, nodes.find((n) => n.descriptor.name === name)?.pool)
})

test('the document is a function of the set of nodes, not of their order', () => {
  fc.assert(
    fc.property(fc.shuffledSubarray(nodes, { minLength: 3 }), (order) => {
      assert.equal(value(signConsensus(draft(order), [AUTHORITY], crypto)).text, signed.text)
    }),
    { numRuns: 10 },
  )
})

test('no nodes at all is a document too', () => {
  assert.deepEqual(value(verify(value(signConsensus(draft([]), [AUTHORITY], crypto)).text)).nodes, [])
})

test('validity: the clock may be a little behind, never late', () => {
  value(verify(signed.text, { now: at(-CLOCK_TOLERANCE) }))
  refused(
    verify(signed.text, { now: at(-CLOCK_TOLERANCE - 1) }),
    'IPP_DIR_EXPIRED',
    /valid only after 2026-01-01T00:00:00Z/,
  )
  value(verify(signed.text, { now: at(3 * PERIOD - 1) }))
  refused(
    verify(signed.text, { now: at(3 * PERIOD) }),
    'IPP_DIR_EXPIRED',
    /valid only until 2026-01-01T03:00:00Z/,
  )
})

test('an older serial is a replay, the same one is not', () => {
  value(verify(signed.text, { lastSerial: 7 }))
  refused(verify(signed.text, { lastSerial: 8 }), 'IPP_DIR_REPLAYED', /serial 7, but 8/)
})

test('signatures count by pinned key, towards a threshold', () => {
  const [a, b, c] = [keyPair('a'), keyPair('b'), keyPair('c')]
  const pinned = [a.publicKey, b.publicKey, c.publicKey]
  const serial = START / PERIOD
  const two = value(signConsensus(draft(nodes, { serial }), [a, c], crypto)).text
  value(verify(two, { authorities: pinned, threshold: 2 }))
  refused(verify(two, { authorities: pinned, threshold: 3 }), 'IPP_DIR_BAD_SIGNATURE', /2 valid.*3 needed/)
  refused(verify(two, { authorities: [b.publicKey] }), 'IPP_DIR_BAD_SIGNATURE')
  refused(verify(two, { authorities: [] }), 'IPP_DIR_BAD_SIGNATURE')
  // A stranger's signature beside them changes nothing; one key twice does not count twice.
  const mixed = value(signConsensus(draft(nodes, { serial }), [keyPair('x'), a], crypto)).text
  value(verify(mixed, { authorities: pinned }))
  const [line, first] = two.split('\n')
  refused(
    verify(`${line}\n${first}\n${first}\n`, { authorities: pinned, threshold: 2 }),
    'IPP_DIR_MALFORMED',
    /twice/,
  )
  const ahead = value(signConsensus(draft(nodes, { serial: serial + 1 }), [a, b, c], crypto)).text
  refused(verify(ahead, { authorities: pinned, threshold: 2 }), 'IPP_DIR_MALFORMED', /serial/)
  const many = Array.from({ length: 17 }, (_, i) => keyPair(`k${i}`))
  refused(verify(value(signConsensus(draft(nodes), many, crypto)).text), 'IPP_DIR_MALFORMED', /17 signatures/)
})

test('a changed document is refused whoever changed it', () => {
  refused(verify(signed.text.replace('"serial":7', '"serial":8')), 'IPP_DIR_BAD_SIGNATURE')
  refused(
    verify(value(signConsensus(draft(nodes), [keyPair('mallory')], crypto)).text),
    'IPP_DIR_BAD_SIGNATURE',
  )
  const rows: [object, RegExp][] = [
    [{ version: 2 }, /version/],
    [{ serial: 0 }, /serial/],
    [{ serial: 2 ** 53 }, /serial/],
    [{ validAfter: at(PERIOD) }, /order/],
    [{ validUntil: at(1) }, /order/],
    [{ validUntil: at(MAX_VALIDITY + 1) }, /seconds/],
    [{ poolSpace: '10.64.0.1/10' }, /poolSpace/],
    [{ nodes: {} }, /nodes/],
    [{ extra: 1 }, /additional/],
    [{ nodes: [{ ...body().nodes[0], more: 1 }] }, /additional/],
    [{ nodes: [{ pool: '10.64.0.0/33', descriptor: 'x' }] }, /pool/],
    [{ nodes: [{ pool: '10.64.0.0/20', descriptor: 'x' }] }, /nodes\[0\]/],
    [{ nodes: body().nodes.toReversed() }, /order/],
    [{ nodes: [body().nodes[0], body().nodes[0]] }, /order/],
  ]
  for (const [change, where] of rows)
    refused(verify(forge({ ...body(), ...change })), 'IPP_DIR_MALFORMED', where)
})

test('pools outside private networks are refused, however well they are signed', () => {
  for (const poolSpace of ['8.0.0.0/8', '0.0.0.0/0', '8.8.8.0/24', '172.0.0.0/8'])
    refused(verify(forge({ ...body(), poolSpace })), 'IPP_DIR_POOL', /not a private network/)
})

test('a directory cannot put words into the mouth of a node', () => {
  const [first, ...rest] = body().nodes as [Entry, ...Entry[]]
  const changed = { ...first, descriptor: first.descriptor.replace('"port":500', '"port":501') }
  refused(verify(forge({ ...body(), nodes: [changed, ...rest] })), 'IPP_DIR_BAD_SIGNATURE', /nodes\[0\]/)
  const [line] = first.descriptor.split('\n')
  const resigned = value(sealDocument('descriptor', JSON.parse(line!), [keyPair('mallory')], crypto))
  refused(
    verify(forge({ ...body(), nodes: [{ ...first, descriptor: resigned }, ...rest] })),
    'IPP_DIR_IDENTITY',
    /nodes\[0\]/,
  )
})

test('names, addresses and pools are unique: the author and every reader check', () => {
  const [alder, birch] = nodes as [(typeof nodes)[0], (typeof nodes)[0], (typeof nodes)[0]]
  const build = (other: object) => signConsensus(draft([alder, { ...birch, ...other }]), [AUTHORITY], crypto)
  refused(
    build(describe('alder', { address: ip('203.0.113.9') }, 'birch')),
    'IPP_DIR_CONFLICT',
    /named alder/,
  )
  refused(build(describe('birch', { address: alder.descriptor.address })), 'IPP_DIR_CONFLICT', /address/)
  refused(build({ pool: alder.pool }), 'IPP_DIR_POOL', /overlap/)
  refused(build({ pool: prefix('10.64.0.0/16') }), 'IPP_DIR_POOL', /overlap/)
  refused(build({ pool: prefix('10.128.0.0/20') }), 'IPP_DIR_POOL', /outside/)
  refused(build({ pool: prefix('10.0.0.0/8') }), 'IPP_DIR_POOL', /outside/)
  refused(build(describe('birch', { address: ip('10.64.0.9') })), 'IPP_DIR_POOL', /inside/)

  const entries = body().nodes
  const withPools = (...pools: string[]) =>
    forge({ ...body(), nodes: entries.map((entry, i) => ({ ...entry, pool: pools[i]! })) })
  value(verify(withPools('10.64.0.0/20', '10.64.32.0/20', '10.64.16.0/20')))
  refused(verify(withPools('10.64.0.0/20', '10.64.16.0/20', '10.64.16.0/20')), 'IPP_DIR_POOL', /overlap/)
  refused(verify(withPools('10.64.16.0/24', '10.64.0.0/20', '10.64.16.0/20')), 'IPP_DIR_POOL', /overlap/)
  refused(verify(withPools('10.64.0.0/20', '10.64.16.0/20', '10.200.0.0/20')), 'IPP_DIR_POOL', /outside/)
})

test('mutated consensuses never throw; only those with untouched bytes pass', () => {
  const original = utf8(signed.text)
  fc.assert(
    fc.property(fc.nat(original.length - 1), fc.nat(255), (place, octet) => {
      const mutated = original.with(place, octet)
      assert.equal(verifyConsensus(mutated, trust, crypto).ok, octet === original[place])
    }),
    { numRuns: 300 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => {
      assert.ok(!verifyConsensus(noise, trust, crypto).ok)
    }),
  )
})

test('signed nonsense in any place never throws', () => {
  const places = Object.keys(body())
  fc.assert(
    fc.property(fc.constantFrom(...places), fc.jsonValue({ maxDepth: 5 }), (place, nonsense) => {
      const outcome = verify(forge({ ...body(), [place]: nonsense }))
      if (outcome.ok) assert.ok(outcome.value.nodes.length <= 3)
    }),
    { numRuns: 200 },
  )
})

test('a deep document of a lying directory is refused in bounded memory', () => {
  const depth = 100_000
  const line = `${'['.repeat(depth)}${']'.repeat(depth)}`
  const key = Buffer.from(AUTHORITY.publicKey).toString('hex')
  const signature = crypto.ed25519Sign(AUTHORITY.privateKey, utf8(`ippriv consensus 1\n${line}`))
  refused(
    verify(`${line}\n{"key":"${key}","signature":"${Buffer.from(signature).toString('base64')}"}\n`),
    'IPP_DIR_MALFORMED',
  )
  refused(verifyConsensus(new Uint8Array(16 * 1024 * 1024 + 1), trust, crypto), 'IPP_DIR_OVERSIZED')
})

test('pools: whatever is taken and freed, what is lent is disjoint and of the plan', () => {
  const plan = { space: prefix('10.64.0.0/16'), length: 20 }
  assert.equal(slotCount(plan), 16)
  assert.equal(slotCount(PLAN), 1024)
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat(15), { freq: 2, nil: undefined }), { maxLength: 80 }), (steps) => {
      const lent = new Map<string, ReturnType<typeof prefix>>()
      for (const step of steps) {
        if (step === undefined) {
          const pool = freePool(plan, lent.values())
          assert.equal(pool === undefined, lent.size === slotCount(plan))
          if (pool === undefined) continue
          assert.ok(fitsPlan(plan, pool))
          for (const other of lent.values()) assert.ok(!overlaps(pool, other))
          lent.set(formatPrefix(pool), pool)
        } else {
          const key = [...lent.keys()][step]
          if (key !== undefined) lent.delete(key)
        }
      }
    }),
  )
  assert.ok(!fitsPlan(PLAN, prefix('10.64.0.0/21')))
  assert.ok(!fitsPlan(PLAN, prefix('10.128.0.0/20')))
  assert.deepEqual(SPACE, PLAN.space)
})
