import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { toHex, utf8 } from '#base/bytes'
import { formatPrefix, ip, overlaps, type Prefix, prefix } from '#base/ip'
import { sealDocument } from '#directory/canonical'
import { buildConsensus, signConsensus } from '#directory/consensus'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { sortVotes, tallyVotes } from '#directory/tally'
import { decodeVote, encodeVote, type Vote, type VotedNode } from '#directory/vote'
import { AUTHORITIES, NEXT, PINNED, TERMS, vote, voted } from './authorities.ts'
import { at, crypto, describe, PERIOD, refused, value } from './network.ts'

const NAMES = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir']
const nodes = new Map(NAMES.map((name) => [name, describe(name)]))
const node = (name: string, pool?: string): VotedNode =>
  voted(nodes.get(name)!, pool === undefined ? undefined : prefix(pool))
const tally = (votes: readonly Vote[]) => tallyVotes(sortVotes(votes, NEXT).counted, 5, NEXT, TERMS)
const names = (votes: readonly Vote[]) =>
  tally(votes)
    .nodes.map((n) => n.descriptor.name)
    .toSorted()
const poolsOf = (votes: readonly Vote[]) =>
  Object.fromEntries(tally(votes).nodes.map((n) => [n.descriptor.name, formatPrefix(n.pool)]))
const letters = (votes: readonly Vote[]): string =>
  value(signConsensus(tally(votes), [AUTHORITIES[0]!], crypto)).text
const everybody = (list: readonly VotedNode[]) => AUTHORITIES.map((_, i) => vote(i, list))

test('a vote reads back as it was written, and only as its author wrote it', () => {
  const written = vote(1, [node('birch', '10.64.16.0/20'), node('alder')], {
    reserved: [prefix('10.64.0.0/20')],
  })
  const read = (text: string) => decodeVote(utf8(text), PINNED, TERMS, crypto)
  assert.deepEqual(value(read(written.text)), written)
  refused(read(written.text.replace('"length":3600', '"length":3601')), 'IPP_DIR_BAD_SIGNATURE')
  refused(decodeVote(utf8(written.text), [PINNED[0]!], TERMS, crypto), 'IPP_DIR_BAD_SIGNATURE')
  refused(
    decodeVote(utf8(written.text), PINNED, { ...TERMS, length: 60 }, crypto),
    'IPP_DIR_CONFLICT',
    /another period/,
  )
  // A consensus body that an authority signed is no vote of it, nor the other way round.
  const consensus = value(signConsensus(tally([]), [AUTHORITIES[0]!], crypto)).text
  refused(read(consensus), 'IPP_DIR_BAD_SIGNATURE')
})

test('signed nonsense in a vote is refused by name', () => {
  const written = vote(0, [node('alder', '10.64.0.0/20'), node('birch', '10.64.16.0/20')])
  const body = JSON.parse(written.text.split('\n')[0]!) as Record<string, unknown> & { nodes: object[] }
  const forge = (change: object) =>
    decodeVote(
      utf8(value(sealDocument('vote', { ...body, ...change }, [AUTHORITIES[0]!], crypto))),
      PINNED,
      TERMS,
      crypto,
    )
  value(forge({}))
  const [first, second] = body.nodes as [object, object]
  refused(forge({ period: 0 }), 'IPP_DIR_MALFORMED', /period/)
  refused(forge({ period: 2 ** 53 }), 'IPP_DIR_MALFORMED', /period/)
  refused(forge({ nodes: [second, first] }), 'IPP_DIR_MALFORMED', /order/)
  refused(forge({ nodes: [first, first] }), 'IPP_DIR_MALFORMED', /twice/)
  refused(forge({ nodes: [{ ...first, pool: '8.0.0.0/20' }] }), 'IPP_DIR_POOL', /pool space/)
  refused(forge({ nodes: [{ ...first, pool: '10.64.0.0/16' }] }), 'IPP_DIR_POOL')
  refused(forge({ nodes: [{ ...first, descriptor: 'x' }] }), 'IPP_DIR_MALFORMED', /nodes\[0\]/)
  refused(forge({ reserved: ['10.64.0.0/20'] }), 'IPP_DIR_POOL', /twice/)
  refused(forge({ reserved: ['x.x.x.x/20'] }), 'IPP_DIR_MALFORMED', /reserved/)
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(body)), fc.jsonValue({ maxDepth: 4 }), (place, nonsense) => {
      const outcome = forge({ [place]: nonsense })
      if (outcome.ok) assert.ok(outcome.value.nodes.length <= 2)
    }),
    { numRuns: 100 },
  )
})

test('a node is listed when more than half of all authorities vote for it', () => {
  const three = [vote(0, [node('alder')]), vote(1, [node('alder'), node('birch')]), vote(4, [node('alder')])]
  assert.deepEqual(names(three), ['alder'])
  assert.deepEqual(names(three.slice(1)), [])
  assert.deepEqual(names([]), [])
  assert.equal(tally(three).serial, NEXT)
  assert.equal(tally(three).validAfter, at(PERIOD))
})

/** Votes of five who mostly agree. */
const arbitraryVotes = fc
  .array(fc.array(fc.tuple(fc.constantFrom(...NAMES), fc.nat(7)), { maxLength: 8 }), {
    minLength: 5,
    maxLength: 5,
  })
  .map((ballots) =>
    ballots.map((ballot, author) => {
      const lent = new Set<number>()
      const list = new Map<string, VotedNode>()
      for (const [name, slot] of ballot) {
        const pool = slot === 7 || lent.has(slot) ? undefined : `10.64.${slot * 16}.0/20`
        if (list.has(name)) continue
        if (pool !== undefined) lent.add(slot)
        list.set(name, node(name, pool))
      }
      return vote(author, [...list.values()])
    }),
  )

test('the order of votes does not matter, and pools are disjoint whatever the votes say', () => {
  fc.assert(
    fc.property(arbitraryVotes, fc.infiniteStream(fc.nat()), (votes, dice) => {
      const expected = letters(votes)
      const shuffled = votes.map((v) => [dice.next().value, v] as const).sort(([a], [b]) => a - b)
      assert.equal(letters(shuffled.map(([, v]) => v)), expected)
      // The same vote twice is one vote.
      assert.equal(letters([...votes, ...votes]), expected)
      const pools: Prefix[] = tally(votes).nodes.map(({ pool }) => pool)
      for (const [i, a] of pools.entries())
        for (const b of pools.slice(i + 1)) assert.ok(!overlaps(a, b), `${a.address} ${b.address}`)
      value(buildConsensus(tally(votes)))
    }),
    { numRuns: 60 },
  )
})

test('without any two votes the document is the same, when the authorities agree', () => {
  const list = NAMES.map((name, i) => node(name, `10.64.${16 * i}.0/20`))
  const votes = everybody(list)
  const expected = letters(votes)
  for (let i = 0; i < 5; i++)
    for (let j = i + 1; j < 5; j++)
      assert.equal(letters(votes.filter((_, k) => k !== i && k !== j)), expected)
})

test('two votes of one author cancel each other; a vote for another period is not counted', () => {
  const honest = [0, 1].map((i) => vote(i, [node('alder')]))
  const twice = [vote(2, [node('alder')]), vote(2, [node('alder'), node('birch')])]
  const other = vote(3, [node('alder')], { period: NEXT + 1 })
  const { counted, alarms } = sortVotes([...honest, ...twice, other], NEXT)
  assert.equal(counted.length, 2)
  assert.deepEqual(
    alarms,
    new Map([
      [toHex(PINNED[2]!), 'equivocation'],
      [toHex(PINNED[3]!), 'other-period'],
    ]),
  )
  assert.deepEqual(names([...honest, ...twice, other]), [])
  assert.deepEqual(names([...honest, twice[0]!]), ['alder'])
  // A third does not make it better, nor an old vote an honest author worse.
  assert.equal(sortVotes([...twice, vote(2, [])], NEXT).counted.length, 0)
  assert.equal(sortVotes([...honest, vote(0, [], { period: NEXT - 1 })], NEXT).counted.length, 2)
})

test('the newest descriptor that a majority has: one author cannot hold back, nor rush ahead', () => {
  const versions = [0, 10, 20].map((seconds) =>
    voted(describe('alder', { published: at(seconds), port: 500 + seconds })),
  ) as [VotedNode, VotedNode, VotedNode]
  const portOf = (...which: (0 | 1 | 2)[]) =>
    tally(which.map((v, author) => vote(author, [versions[v]]))).nodes[0]?.descriptor.port
  assert.equal(portOf(1, 1, 1, 1, 0), 510)
  assert.equal(portOf(1, 1, 1, 1, 2), 510)
  assert.equal(portOf(0, 0, 1, 1, 2), 510)
  assert.equal(portOf(0, 0, 0, 2, 2), 500)
  assert.equal(portOf(2, 0, 1), 500)
  assert.equal(portOf(2, 2, 2), 520)
})

test('pools stay; newcomers get free ones that are not reserved by most', () => {
  const list = [node('alder', '10.64.16.0/20'), node('birch')]
  assert.deepEqual(poolsOf(everybody(list)), { alder: '10.64.16.0/20', birch: '10.64.0.0/20' })
  const reserving = (who: number[], pools: string[]) =>
    AUTHORITIES.map((_, i) => vote(i, list, { reserved: who.includes(i) ? pools.map((p) => prefix(p)) : [] }))
  assert.equal(poolsOf(reserving([0, 1], ['10.64.0.0/20'])).birch, '10.64.0.0/20')
  assert.equal(poolsOf(reserving([0, 1, 2], ['10.64.0.0/20'])).birch, '10.64.32.0/20')
  // One who forgot, or lies, moves nobody.
  const [forgetful, liar] = [vote(3, [node('alder')]), vote(4, [node('alder', '10.64.0.0/20')])]
  const rest = [0, 1, 2].map((i) => vote(i, [node('alder', '10.64.16.0/20')]))
  assert.equal(poolsOf([...rest, forgetful, liar]).alder, '10.64.16.0/20')
  assert.equal(poolsOf([rest[0]!, rest[1]!, forgetful]).alder, '10.64.16.0/20')
})

test('a full pool space leaves newcomers out, and nobody else', () => {
  const plan = { space: prefix('10.64.0.0/19'), length: 20 }
  const terms = { ...TERMS, plan }
  const votes = AUTHORITIES.map((author) =>
    value(
      encodeVote(
        {
          period: NEXT,
          published: at(0),
          nodes: [node('cedar', '10.64.0.0/20'), node('alder'), node('birch')],
          reserved: [],
          parameters: DEFAULT_PARAMETERS,
        },
        terms,
        author,
        crypto,
      ),
    ),
  )
  const { nodes: listed } = tallyVotes(sortVotes(votes, NEXT).counted, 5, NEXT, terms)
  assert.equal(listed.length, 2)
  assert.ok(listed.some(({ descriptor }) => descriptor.name === 'cedar'))
})

test('of two with one name or address the elder stays, as most authorities remember it', () => {
  const old = voted(nodes.get('alder')!, undefined, at(-500))
  const young = voted(describe('alder', { address: ip('203.0.113.5') }, 'pretender'), undefined, at(-100))
  const inside = voted(describe('elm', { address: ip('10.64.3.3') }))
  const forgetful = voted(nodes.get('alder')!, undefined, at(0))
  const votes = AUTHORITIES.map((_, i) => vote(i, [i < 2 ? forgetful : old, young, inside]))
  assert.deepEqual(
    tally(votes).nodes.map((n) => n.descriptor.nodeId),
    [old.descriptor.nodeId],
  )
  value(buildConsensus(tally(votes)))
})

test('what five authorities vote for is verified once, not five times', () => {
  const list = NAMES.map((name) => node(name))
  const known = new Map()
  let checks = 0
  const counting = {
    ...crypto,
    ed25519Verify: (...args: Parameters<typeof crypto.ed25519Verify>) => {
      checks++
      return crypto.ed25519Verify(...args)
    },
  }
  for (const { text } of everybody(list)) value(decodeVote(utf8(text), PINNED, TERMS, counting, known))
  assert.equal(checks, 5 + NAMES.length)
})
