/** The oldest version that a network takes: who is older, and what becomes of its descriptor. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import { prefix } from '#base/ip'
import { Authority } from '#directory/authority'
import { signConsensus } from '#directory/consensus'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { sortVotes, tallyVotes } from '#directory/tally'
import { compareVersions, isOutdated } from '#directory/version'
import { AUTHORITIES, NEXT, PINNED, TERMS, vote, voted } from './authorities.ts'
import { at, crypto, describe, draft, PERIOD, refused, value } from './network.ts'

const demand = (minimum?: string) => ({
  ...DEFAULT_PARAMETERS,
  ...(minimum === undefined ? {} : { minimum }),
})

test('versions in the order of their numbers', () => {
  const ascending = ['0.0.9', '0.1.0', '0.1.10', '0.2.0', '0.10.0', '1.0.0', '99999.0.0']
  assert.deepEqual(ascending.toReversed().toSorted(compareVersions), ascending)
  assert.equal(compareVersions('1.2.3', '1.2.3'), 0)
})

test('who is too old: our versions alone are compared, and one that is unknown is none', () => {
  for (const [software, minimum, outdated] of [
    ['ippriv 0.1.0', undefined, false],
    ['ippriv 0.1.0', '0.1.0', false],
    ['ippriv 0.1.0', '0.1.1', true],
    ['ippriv 0.9.9', '0.10.0', true],
    ['ippriv 1.0.0', '0.10.0', false],
    ['ippriv 0.2.0-rc.1', '0.2.0', true],
    ['ippriv 0.2.1-rc.1', '0.2.0', false],
    ['ippriv 0.2.0+build', '0.2.0', false],
    ['ippriv', '0.1.0', true],
    ['ippriv next', '0.1.0', true],
    ['ippriv 0.1', '0.1.0', true],
    ['ipprivate 0.1', '0.2.0', false],
    ['other 0.0.1', '0.2.0', false],
  ] as const)
    assert.equal(isOutdated(software, minimum), outdated, `${software}, ${minimum}`)
})

test('five authorities: an old node is listed until three of them demand more, and its pool stays its own', () => {
  const old = describe('alder', { software: 'ippriv 0.1.9' })
  const other = describe('birch', { software: 'ippriv 0.2.0' })
  const listedWith = (...minimums: (string | undefined)[]) => {
    const votes = minimums.map((minimum, author) =>
      vote(author, [voted(old, prefix('10.64.0.0/20')), voted(other)], {
        parameters: demand(minimum),
      }),
    )
    const { counted } = sortVotes(votes, NEXT)
    return tallyVotes(counted, 5, NEXT, TERMS)
  }
  const names = (tally: ReturnType<typeof listedWith>) =>
    tally.nodes.map(({ descriptor }) => descriptor.name).sort()
  const lenient = listedWith('0.2.0', '0.2.0', undefined, undefined, undefined)
  assert.deepEqual(names(lenient), ['alder', 'birch'])
  assert.equal(lenient.parameters?.minimum, undefined)
  const strict = listedWith('0.2.0', '0.3.0', '0.2.0', undefined, undefined)
  assert.deepEqual(names(strict), ['birch'])
  assert.equal(strict.parameters?.minimum, '0.2.0')
  assert.equal(strict.nodes[0]?.pool.address, '10.64.16.0', 'not that of the node that is left out')
})

test('an authority refuses an old descriptor by name once its document demands more', () => {
  const authority = new Authority({
    key: AUTHORITIES[0]!,
    authorities: PINNED,
    threshold: 3,
    terms: TERMS,
    crypto,
  })
  const upload = (software: string, seconds: number) => {
    const { text } = describe('alder', { software, published: at(seconds) })
    return authority.upload(utf8(text), at(seconds))
  }
  assert.ok(upload('ippriv 0.1.9', 0).ok)
  const document = draft([], { serial: NEXT, validAfter: at(PERIOD), parameters: demand('0.2.0') })
  const { text } = value(signConsensus(document, AUTHORITIES.slice(0, 3), crypto))
  value(authority.hear('consensus', utf8(text), at(PERIOD)))
  refused(upload('ippriv 0.1.9', PERIOD), 'IPP_DIR_OUTDATED', /ippriv 0\.1\.9, and ippriv 0\.2\.0 is needed/)
  assert.equal(authority.counters.toJSON()['refused.IPP_DIR_OUTDATED'], 1)
  assert.ok(upload('ippriv 0.2.0', PERIOD).ok)
})
