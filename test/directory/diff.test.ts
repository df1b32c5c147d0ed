import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { utf8 } from '#base/bytes'
import { signConsensus } from '#directory/consensus'
import { applyDiff, MAX_DIFF, makeDiff } from '#directory/diff'
import { AUTHORITY, at, crypto, describe, draft, keyPair, listed, PERIOD, refused, value } from './network.ts'

const LIMIT = 1_000_000
const apply = (diff: Uint8Array, base: Uint8Array, limit = LIMIT) => applyDiff(diff, base, limit, crypto)
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** Comma-separated words of few letters: many are alike, some stand alone. */
const document = fc
  .array(fc.string({ unit: fc.constantFrom('a', 'b', '"', '1'), maxLength: 5 }), { maxLength: 60 })
  .map((words) => utf8(words.join(',')))

const word = fc.string({ unit: fc.constantFrom(...'0123456789abcdef') })

/** A document and what became of it: words replaced, taken out, put in, moved. */
const changed = fc
  .tuple(
    fc.uniqueArray(word, { minLength: 1, maxLength: 200 }),
    fc.array(fc.tuple(fc.nat(), fc.nat(3), word), { maxLength: 20 }),
  )
  .map(([words, changes]) => {
    const after = [...words]
    for (const [where, what, other] of changes) {
      const i = where % (after.length + 1)
      if (what === 0) after.splice(i, 1)
      else if (what === 1) after.splice(i, 0, other)
      else if (what === 2) after.splice(i, 1, other)
      else after.push(...after.splice(i, 3))
    }
    return [utf8(words.join(',')), utf8(after.join(','))] as const
  })

test('property: what a diff leads to is the target, for documents alike and unlike', () => {
  const holds = (base: Uint8Array, target: Uint8Array): void =>
    assert.deepEqual(value(apply(makeDiff(base, target, crypto), base)), target)
  fc.assert(fc.property(document, document, holds), { numRuns: 500 })
  fc.assert(
    fc.property(changed, ([base, target]) => holds(base, target)),
    { numRuns: 500 },
  )
  fc.assert(
    fc.property(document, (same) => holds(same, same)),
    { numRuns: 100 },
  )
})

test('property: a diff that was touched leads to its target or to a named error, and allocates no more than it may', () => {
  const damaged = fc.tuple(changed, fc.nat(), fc.uint8Array({ maxLength: 4 }), fc.nat(3))
  fc.assert(
    fc.property(damaged, ([[base, target], where, letters, gone]) => {
      const diff = makeDiff(base, target, crypto)
      const i = where % (diff.length + 1)
      const touched = Uint8Array.from([...diff.subarray(0, i), ...letters, ...diff.subarray(i + gone)])
      const outcome = apply(touched, base, target.length)
      if (outcome.ok) assert.deepEqual(outcome.value, target)
      else assert.match(outcome.code, /^IPP_DIR_(MALFORMED|DIFF|OVERSIZED)$/)
    }),
    { numRuns: 2000 },
  )
})

test('property: one spelling for one list of edits', () => {
  fc.assert(
    fc.property(changed, ([base, target]) => {
      const diff = makeDiff(base, target, crypto)
      // Every edit but the last does something, and none but the first begins with nothing.
      const edits = editsOf(diff)
      for (const [i, [copy, skip, insert]] of edits.entries()) {
        assert.ok(i === 0 || copy > 0)
        assert.ok(i === edits.length - 1 || skip + insert > 0)
      }
    }),
  )
})

function editsOf(diff: Uint8Array): [number, number, number][] {
  const edits: [number, number, number][] = []
  for (let at = diff.indexOf(0x0a) + 1; at < diff.length; ) {
    const end = diff.indexOf(0x0a, at)
    const [copy, skip, insert] = textOf(diff.subarray(at, end)).split(' ').map(Number)
    edits.push([copy!, skip!, insert!])
    at = end + 1 + insert!
  }
  return edits
}

test('every way to be malformed has a name, and nothing comes of it', () => {
  const base = utf8('one,two,three,four')
  const target = utf8('one,2,three,four')
  const diff = makeDiff(base, target, crypto)
  const [head = '', ...rest] = textOf(diff).split('\n')
  assert.equal(rest.join('\n'), '4 4 2\n2,10 0 0\n')
  const edited = (edits: string): Uint8Array => utf8(`${head}\n${edits}`)
  const cases: readonly (readonly [string, RegExp])[] = [
    ['', /end too early/],
    ['4 4 2\n2,', /end too early/],
    ['4 4 2\n2,10 0 0', /edit 2 is not in the right form/],
    ['04 4 2\n2,10 0 0\n', /edit 1 is not/],
    ['4 4 +2\n2,10 0 0\n', /edit 1 is not/],
    ['4 4 2\n2,-1 0 0\n', /edit 2 is not/],
    ['4  4 2\n2,10 0 0\n', /edit 1 is not/],
    ['4 4 9999999999\n2,10 0 0\n', /edit 1 is not/],
    ['4 4 2\r\n2,10 0 0\n', /edit 1 is not/],
    [`${'1'.repeat(5000)} 0 0\n`, /edit 1 is not/],
    ['19 0 0\n', /edit 1 leaves the base/],
    ['4 15 0\n', /edit 1 leaves the base/],
    ['18 0 0\n', /edit 1 leaves the target/],
    ['0 0 17\n2,three,four,five', /edit 1 leaves the target/],
    ['4 4 2\n2', /edit 1 is cut off/],
    ['4 4 2\n2,10 0 0\n0 0 0\n', /edit 3 is part/],
    ['0 0 0\n4 4 2\n2,10 0 0\n', /edit 1 is part/],
    ['4 2 1\n2' + '0 2 1\n,10 0 0\n', /edit 2 is part/],
    ['4 4 2\n2,5 0 0\n5 0 0\n', /edit 3 is part/],
  ]
  for (const [edits, where] of cases) refused(apply(edited(edits), base), 'IPP_DIR_MALFORMED', where)
  for (const bad of ['', 'x', '\n', head, head.replace(' 16', ' 016'), head.replace('diff 1', 'diff 2')])
    refused(apply(utf8(bad === head ? bad : `${bad}\n`), base), 'IPP_DIR_MALFORMED', /first line/)
  refused(apply(edited('4 4 2\n3,10 0 0\n'), base), 'IPP_DIR_DIFF', /lead to the document/)
  refused(apply(diff, target), 'IPP_DIR_DIFF', /another base/)
  refused(apply(diff, base, 15), 'IPP_DIR_OVERSIZED', /16 octets, at most 15/)
  refused(apply(utf8(`${head.slice(0, -2)}999999999\n`), base), 'IPP_DIR_OVERSIZED', /999999999/)
  refused(apply(new Uint8Array(MAX_DIFF + 1), base), 'IPP_DIR_OVERSIZED')
  assert.deepEqual(value(apply(diff, base, 16)), target)
})

test('of a consensus, what did not change is not said again', () => {
  const names = Array.from({ length: 60 }, (_, i) => `node-${i}`)
  const sign = (nodes: ReturnType<typeof listed>, serial: number) =>
    utf8(
      value(
        signConsensus(draft(nodes, { serial, validAfter: at((serial - 7) * PERIOD) }), [AUTHORITY], crypto),
      ).text,
    )
  const before = listed(names)
  // One comes, one goes, one has another address and port.
  const after = [...before.slice(1), ...listed([...names, 'newcomer']).slice(-1)]
  const moved = { ...after[10]!, ...describe('node-11', { address: '198.51.100.77' as never, port: 501 }) }
  after.splice(10, 1, moved)
  const [base, target] = [sign(before, 7), sign(after, 8)]
  const diff = makeDiff(base, target, crypto)
  assert.deepEqual(value(apply(diff, base)), target)
  assert.deepEqual(diff, makeDiff(base, target, crypto))
  const own = after.at(-1)!.text.length
  assert.ok(diff.length < 1.2 * own + 1000, `${diff.length} octets for a node of ${own}`)
  assert.ok(diff.length < target.length / 15)
})

test('ten thousand nodes and half of the words changed: a matter of moments', () => {
  const line = (i: number, salt: string) =>
    `{"id":"${keyOf(i)}","name":"n${i}","a":1,"b":2,"c":"${i % 2 === 0 ? salt : ''}"}`
  const make = (salt: string) => utf8(Array.from({ length: 10_000 }, (_, i) => line(i, salt)).join(','))
  const [base, target] = [make('x'), make('y')]
  const began = performance.now()
  const diff = makeDiff(base, target, crypto)
  assert.deepEqual(value(apply(diff, base, target.length)), target)
  assert.ok(performance.now() - began < 10_000)
  assert.ok(diff.length < target.length / 2)
})

const keyOf = (i: number): string =>
  Buffer.from(crypto.hash('sha256', keyPair(String(i % 7)).publicKey))
    .toString('hex')
    .slice(0, 30) + i
