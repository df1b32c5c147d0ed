import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { utf8 } from '#base/bytes'
import type { NodeId } from '#base/ids'
import { unixTime } from '#base/time'
import { sealDocument } from '#directory/canonical'
import { signConsensus, verifyConsensus } from '#directory/consensus'
import { agreedBandwidth, decodeMeasurement, encodeMeasurement, steadyFigure } from '#directory/measurement'
import { agreeOn, DEFAULT_PARAMETERS } from '#directory/parameters'
import { sortVotes, tallyVotes } from '#directory/tally'
import { Roster } from '#overlay/roster'
import { AUTHORITIES, NEXT, TERMS, vote, voted } from './authorities.ts'
import { at, crypto, describe, keyPair, PERIOD, refused, START, value } from './network.ts'

const MEASURER = keyPair('measurer')
const id = (digit: string) => digit.repeat(64) as NodeId
const report = (figures: readonly (readonly [NodeId, number])[], published = START) =>
  value(encodeMeasurement({ published: unixTime(published), figures: new Map(figures) }, MEASURER, crypto))
const read = (text: string, pinned = [MEASURER.publicKey]) => decodeMeasurement(utf8(text), pinned, crypto)

test('a report reads back as it was written, and only as a pinned measurer wrote it', () => {
  const text = report([
    [id('b'), 0],
    [id('a'), 81_920],
  ])
  assert.deepEqual(value(read(text)), {
    published: START,
    figures: new Map([
      [id('a'), 81_920],
      [id('b'), 0],
    ]),
  })
  refused(read(text.replace('81920', '81921')), 'IPP_DIR_BAD_SIGNATURE')
  refused(read(text, [keyPair('other').publicKey]), 'IPP_DIR_BAD_SIGNATURE')
  const forge = (body: object) => read(value(sealDocument('measurement', body, [MEASURER], crypto)))
  refused(
    forge({
      version: 1,
      published: START,
      nodes: [
        [id('b'), 1],
        [id('a'), 1],
      ],
    }),
    'IPP_DIR_MALFORMED',
    /order/,
  )
  refused(
    forge({
      version: 1,
      published: START,
      nodes: [
        [id('a'), 1],
        [id('a'), 1],
      ],
    }),
    'IPP_DIR_MALFORMED',
    /twice/,
  )
  for (const figure of [-1, 1.5, 2_000_000_000, '1', null])
    refused(forge({ version: 1, published: START, nodes: [[id('a'), figure]] }), 'IPP_DIR_MALFORMED')
  // What one kind of document says cannot be passed off as another.
  const other = value(sealDocument('vote', { version: 1, published: START, nodes: [] }, [MEASURER], crypto))
  refused(read(other), 'IPP_DIR_BAD_SIGNATURE')
})

test('the median of three or more; of five, two who lie move it no further than the honest ones are apart', () => {
  assert.equal(agreedBandwidth([], {}), undefined)
  assert.equal(agreedBandwidth([5000, 5000], {}), undefined)
  assert.equal(agreedBandwidth([1000, 8, 1_000_000], {}), 1024)
  assert.equal(agreedBandwidth([0, 0, 0], {}), 0)
  assert.equal(agreedBandwidth([4096, 4096, 4096], { declared: 1000 }), 1024, 'a node may want less')
  assert.equal(agreedBandwidth([4096, 4096, 4096], { declared: 1_000_000 }), 4096, 'and not more')
  const figure = fc.integer({ min: 0, max: 1_000_000_000 })
  fc.assert(
    fc.property(fc.array(figure, { minLength: 3, maxLength: 3 }), figure, figure, (honest, a, b) => {
      const agreed = agreedBandwidth([a, ...honest, b], {})!
      // Three leading bits: an eighth up or down.
      assert.ok(agreed >= Math.min(...honest) * 0.875 - 1 && agreed <= Math.max(...honest) * 1.125 + 1)
    }),
  )
})

test('a node that claims ten times its speed gains nothing', () => {
  const others = ['birch', 'cedar', 'dogwood', 'elm'].map((name) => [describe(name), 40_000] as const)
  const shareWith = (declared: number | undefined): number => {
    const alder = describe('alder', declared === undefined ? {} : { declared })
    const votes = AUTHORITIES.map((_, author) =>
      vote(
        author,
        [[alder, 20_000] as const, ...others].map(([node, measured]) => ({
          ...voted(node),
          flags: ['exit', 'fast', 'guard', 'running', 'stable', 'valid'] as const,
          measured: measured + 100 * author,
        })),
      ),
    )
    const draft = tallyVotes(sortVotes(votes, NEXT).counted, 5, NEXT, TERMS)
    const { consensus } = value(signConsensus(draft, AUTHORITIES.slice(0, 3), crypto))
    const roster = new Roster(consensus)
    const places = ['entry', 'middle', 'exit'] as const
    const sum = (of: readonly number[]) => of.reduce((total, each) => total + each, 0)
    const weightOf = (index: number) => sum(places.map((place) => roster.weight(index, place)))
    return weightOf(roster.find('alder')!) / sum(roster.nodes.map((_, index) => weightOf(index)))
  }
  const honest = shareWith(20_000)
  assert.ok(honest > 0.1 && honest < 0.12, `${honest}`)
  assert.equal(shareWith(200_000), honest)
  assert.equal(shareWith(undefined), honest)
  assert.ok(shareWith(2000) < honest / 5, 'only less than it is')
})

test('flags and figures: what most give, in the document as everybody reads it', () => {
  const [alder, birch] = [describe('alder'), describe('birch')]
  const votes = AUTHORITIES.map((_, author) =>
    vote(author, [
      {
        ...voted(alder),
        flags: author < 3 ? ['fast', 'running', 'valid', 'guard'] : ['running', 'valid', 'exit'],
        ...(author < 3 ? { measured: 1000 * (author + 1) } : {}),
      },
      { ...voted(birch), flags: author < 3 ? ['valid'] : ['running', 'valid'], measured: 5 },
    ]),
  )
  const draft = tallyVotes(sortVotes(votes, NEXT).counted, 5, NEXT, TERMS)
  const { text } = value(signConsensus(draft, AUTHORITIES.slice(0, 3), crypto))
  const trust = { authorities: AUTHORITIES.map(({ publicKey }) => publicKey), threshold: 3, now: at(PERIOD) }
  const consensus = value(verifyConsensus(utf8(text), trust, crypto))
  assert.deepEqual(
    consensus.nodes.map(({ name, flags, bandwidth }) => ({ name, flags, bandwidth })),
    [{ name: 'alder', flags: ['fast', 'guard', 'running', 'valid'], bandwidth: 2048 }],
    'birch runs for two of five',
  )
  assert.deepEqual(consensus.parameters, { mtu: 1280, profile: 1, versions: [] })
  assert.match(text, /"flags":"fgrv","bandwidth":2048/)
  const unmeasured = tallyVotes(sortVotes(votes.slice(1), NEXT).counted, 5, NEXT, TERMS)
  assert.equal(unmeasured.nodes.find(({ descriptor }) => descriptor.name === 'alder')?.bandwidth, undefined)
})

test('parameters: medians, and versions that more than half name', () => {
  const propose = (mtu: number, ...versions: string[]) => ({ mtu, profile: mtu === 1280 ? 1 : 2, versions })
  const agreed = agreeOn(
    [propose(1280, 'a', 'b'), propose(9000, 'b', 'b'), propose(1280, 'c'), propose(1400, 'b')],
    3,
  )
  assert.deepEqual(agreed, { mtu: 1280, profile: 1, versions: ['b'] })
  assert.equal(agreeOn([], 3), undefined)
})

test('a minimum: what more than half of all authorities demand, that or more', () => {
  const agreed = (...minimums: (string | undefined)[]) =>
    agreeOn(
      minimums.map((minimum) => ({ ...DEFAULT_PARAMETERS, ...(minimum === undefined ? {} : { minimum }) })),
      3,
    )?.minimum
  assert.equal(agreed('1.2.0', '1.2.0', '1.2.0', undefined, undefined), '1.2.0')
  assert.equal(agreed('1.10.0', '1.9.0', '99999.0.0', undefined, '1.2.0'), '1.9.0', 'numbers, not letters')
  assert.equal(agreed('1.2.0', '1.2.0', undefined, undefined, undefined), undefined)
  assert.equal(agreed('1.2.0', '1.2.0', undefined), undefined, 'two of five, though two are dead')
})

test('a figure that says nothing new is not voted for: the document stays as it is', () => {
  assert.equal(steadyFigure(900, undefined), 900)
  for (const figure of [750, 999, 1000, 1250]) assert.equal(steadyFigure(figure, 1000), 1000)
  for (const figure of [0, 749, 1251, 10_000]) assert.equal(steadyFigure(figure, 1000), figure)
  assert.equal(steadyFigure(0, 0), 0)
  assert.equal(steadyFigure(1, 0), 1)
  // What a document says is what comes out again.
  for (const figure of [1, 7, 100, 12_345, 999_999_999]) {
    const listed = agreedBandwidth([figure, figure, figure], {})!
    assert.equal(agreedBandwidth([listed, listed, figure], {}), listed)
  }
})
