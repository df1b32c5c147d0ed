import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import { unixTime } from '#base/time'
import { verifyConsensus } from '#directory/consensus'
import { encodeRoll } from '#directory/roll'
import { scheduleOf } from '#directory/schedule'
import { AUTHORITIES, NEXT, PINNED, vote, voted } from '../directory/authorities.ts'
import { at, crypto, describe, PERIOD, refused, START, value } from '../directory/network.ts'
import { AuthorityNetwork } from './authorities.ts'
import { seededRng } from './random.ts'

const NAMES = ['alder', 'birch', 'cedar']
const ALL = [0, 1, 2, 3, 4]
/** A descriptor that was made a while ago, with the period it is for. */
const fresh = (name: string, seconds = 0) => describe(name, { published: at(seconds) }).text

function network(seed: number): AuthorityNetwork {
  const made = new AuthorityNetwork(seed)
  for (const name of NAMES) made.uploadToAll(fresh(name))
  return made
}

/** Everybody who lives has the same valid document of the period, and nobody ever published another one for it. */
function agree(net: AuthorityNetwork, who: readonly number[], period: number, names = NAMES): void {
  for (const i of who) {
    const { document } = net.machines[i]!
    assert.equal(document?.consensus.serial, period, `authority ${i}`)
    assert.deepEqual(net.names(i), names, `authority ${i}`)
    value(
      verifyConsensus(
        utf8(document.text),
        { authorities: PINNED, threshold: 3, now: at((period - START / PERIOD) * PERIOD) },
        crypto,
      ),
    )
  }
  oneDocumentEach(net)
}

function oneDocumentEach(net: AuthorityNetwork): void {
  const bodies = new Map<number, string>()
  for (const { text, consensus } of net.published.flat()) {
    const [body] = text.split('\n') as [string]
    assert.equal(bodies.get(consensus.serial) ?? body, body, `two documents for period ${consensus.serial}`)
    bodies.set(consensus.serial, body)
  }
}

const signaturesOf = (text: string): number => text.trim().split('\n').length - 1

test('five authorities: a document each period, signed by all, without an alarm', () => {
  const net = network(1)
  net.runUntil(at(PERIOD + 10))
  agree(net, ALL, NEXT)
  assert.equal(signaturesOf(net.machines[0]!.document!.text), 5)
  const pools = net.machines[0]!.document!.consensus.nodes.map(({ pool }) => pool)
  net.uploadToAll(fresh('dogwood', PERIOD))
  net.runUntil(at(2 * PERIOD + 10))
  agree(net, ALL, NEXT + 1, [...NAMES, 'dogwood'])
  const later = net.machines[0]!.document!.consensus.nodes
  for (const pool of pools) assert.ok(later.some((node) => node.pool.address === pool.address))
  net.runUntil(at(3 * PERIOD + 10))
  // Silent for three periods, they fall out.
  agree(net, ALL, NEXT + 2, ['dogwood'])
  assert.deepEqual(net.alarms, [])
  assert.ok(new Set(net.published.flat().map(({ text }) => text)).size === 3, 'the same bytes for everybody')
})

test('nodes that say nothing new stand in every document with the same words', () => {
  const net = network(14)
  for (let period = 1; period <= 8; period++) {
    net.runUntil(at(period * PERIOD - 1800))
    for (const name of NAMES) net.uploadToAll(fresh(name, period * PERIOD - 1800))
  }
  net.runUntil(at(8 * PERIOD + 10))
  const moved = describe('alder', { published: at(8 * PERIOD), port: 501 }).text
  net.uploadToAll(moved)
  net.runUntil(at(9 * PERIOD + 10))
  agree(net, ALL, NEXT + 8)
  const words = (i: number) =>
    JSON.parse(net.published[0]![i]!.text.split('\n')[0]!).nodes.map(
      ({ descriptor }: { descriptor: string }) => descriptor,
    )
  assert.equal(net.published[0]!.length, 9)
  for (const i of [1, 4, 7]) assert.deepEqual(words(i), words(0))
  assert.deepEqual(
    words(8).filter((text: string) => !words(0).includes(text)),
    [moved],
  )
  assert.deepEqual(net.alarms, [])
})

test('any two dead: the others go on, and say who is missing', () => {
  for (const [a, b] of [
    [0, 1],
    [2, 4],
    [3, 4],
  ] as const) {
    const net = network(2)
    net.dead.add(a).add(b)
    net.runUntil(at(PERIOD + 400))
    const alive = ALL.filter((i) => i !== a && i !== b)
    agree(net, alive, NEXT)
    assert.equal(signaturesOf(net.machines[alive[0]!]!.document!.text), 3)
    assert.deepEqual(
      net.alarmsOf('vote-missing').toSorted(),
      alive.flatMap((i) => [`${i}:${a}`, `${i}:${b}`]).toSorted(),
    )
    assert.equal(net.alarmsOf('signature-missing').length, 6)
    // They come back, take what they missed from the others, and vote again.
    net.dead.clear()
    net.runUntil(at(2 * PERIOD + 10))
    agree(net, ALL, NEXT + 1)
    assert.equal(signaturesOf(net.machines[a]!.document!.text), 5)
  }
})

test('three dead: no document, an alarm, and the old one stays', () => {
  const net = network(3)
  net.runUntil(at(PERIOD + 10))
  net.dead.add(0).add(1).add(2)
  net.runUntil(at(2 * PERIOD + 400))
  for (const i of [3, 4]) assert.equal(net.machines[i]!.document!.consensus.serial, NEXT)
  assert.deepEqual(net.alarmsOf('votes-too-few').toSorted(), ['3:-1', '4:-1'])
  assert.deepEqual(net.alarmsOf('document-missing').toSorted(), ['3:-1', '4:-1'])
  oneDocumentEach(net)
})

test('bad weather: loss, delay and repetition; what is lost is asked for', () => {
  for (const seed of [11, 12, 13]) {
    const net = network(seed)
    net.weather = { loss: 0.4, duplicate: 0.3, delay: 60 }
    net.runUntil(at(4 * PERIOD))
    oneDocumentEach(net)
    const periods = new Set(net.published.flat().map(({ consensus }) => consensus.serial))
    assert.ok(periods.size >= 3, `seed ${seed}: ${periods.size} documents`)
    net.weather = { loss: 0, duplicate: 0, delay: 0 }
    for (const name of NAMES) net.uploadToAll(fresh(name, 4 * PERIOD))
    net.runUntil(at(5 * PERIOD + 10))
    agree(net, ALL, NEXT + 4)
  }
})

test('one votes twice: neither counts, everybody raises the alarm, and all have one document', () => {
  for (const seed of [21, 22, 23, 24]) {
    const net = network(seed)
    net.weather = { loss: 0.1, duplicate: 0.1, delay: 20 }
    const lies = [
      vote(
        2,
        NAMES.map((name) => voted(describe(name))),
      ),
      vote(2, []),
    ] as const
    // One half of the others is told this, the other half that; asked, it tells at random.
    net.meddler = (from, to, kind, text) =>
      from === 2 && kind === 'vote' ? lies[(to + (seed % 2)) % 2]!.text : text
    net.runUntil(at(PERIOD + 10))
    agree(net, [0, 1, 3, 4], NEXT)
    assert.deepEqual(
      net
        .alarmsOf('equivocation')
        .filter((a) => a.endsWith(':2') && !a.startsWith('2'))
        .map((a) => a[0])
        .toSorted(),
      ['0', '1', '3', '4'],
    )
  }
})

test('one tells only some, at the last moment: all count the same', () => {
  for (const toldAt of ['in time', 'after the roll']) {
    const net = network(31)
    net.dead.add(2)
    const { roll } = scheduleOf(NEXT, PERIOD)
    const late = vote(2, [])
    net.runUntil(toldAt === 'in time' ? roll - 10 : roll + 10)
    net.hear(0, 'vote', late.text)
    net.runUntil(at(PERIOD + 400))
    agree(net, [0, 1, 3, 4], NEXT)
    assert.equal(signaturesOf(net.machines[0]!.document!.text), 4)
    // In time at one is in time for all; too late at one is too late for all.
    assert.deepEqual(net.alarmsOf('vote-late'), toldAt === 'in time' ? [] : ['0:2'])
    assert.equal(net.alarmsOf('vote-missing').length, toldAt === 'in time' ? 0 : 3)
  }
})

test('a clock off by minutes is survived; off by more, it harms only its owner', () => {
  for (const skew of [-240, 240]) {
    const net = new AuthorityNetwork(41)
    net.skew[1] = skew
    for (const name of NAMES) net.uploadToAll(describe(name, { published: at(-300) }).text)
    net.runUntil(at(PERIOD + 400))
    agree(net, ALL, NEXT)
    // The others see the time in its votes.
    assert.deepEqual(net.alarmsOf('clock').length > 0, true, `skew ${skew}`)
  }
  const net = new AuthorityNetwork(42)
  net.skew[1] = -900
  for (const name of NAMES) net.uploadToAll(describe(name, { published: at(-1000) }).text)
  net.runUntil(at(PERIOD + 1500))
  agree(net, [0, 2, 3, 4], NEXT)
  assert.equal(net.alarmsOf('vote-missing').filter((a) => a.endsWith(':1')).length, 4)
  assert.equal(net.machines[1]!.document?.consensus.serial, NEXT, 'it takes the document of the others')
})

test('a signature over something else, or none at all, is an alarm and nothing more', () => {
  const net = network(51)
  net.meddler = (from, _to, kind, text) =>
    from !== 4 || kind !== 'signature' ? text : text.replace(/"digest":"../, '"digest":"00')
  net.runUntil(at(PERIOD + 400))
  agree(net, [0, 1, 2, 3], NEXT)
  assert.equal(signaturesOf(net.machines[0]!.document!.text), 4)
  assert.equal(net.machines[0]!.counters.get('refused.IPP_DIR_BAD_SIGNATURE') > 0, true)
  assert.equal(net.alarmsOf('signature-missing').filter((a) => a.endsWith(':4')).length, 4)
})

test('a crash at any moment: no second vote and no second signature', () => {
  const { vote: votes, roll, sign, start } = scheduleOf(NEXT, PERIOD)
  for (const moment of [votes - 5, votes, votes + 5, roll + 5, sign, sign + 5, start, start + 5]) {
    const net = network(61)
    const said = new Map<string, Set<string>>()
    net.meddler = (_from, _to, kind, text) => {
      if (kind !== 'consensus') {
        // By its author, not by who passes it on.
        const author = /"key":"(\w{8})/.exec(text.trim().split('\n').at(-1)!)?.[1]
        const key = `${author} ${kind} ${/"period":(\d+)/.exec(text)?.[1]}`
        said.set(key, (said.get(key) ?? new Set()).add(text))
      }
      return text
    }
    net.runUntil(moment)
    net.restart(3)
    net.runUntil(at(PERIOD + 400))
    agree(net, ALL, NEXT)
    for (const [key, texts] of said) assert.equal(texts.size, 1, `${key}, crash at ${moment - start}`)
    assert.deepEqual(net.alarmsOf('equivocation'), [])
    net.runUntil(at(2 * PERIOD + 10))
    agree(net, ALL, NEXT + 1)
    assert.equal(signaturesOf(net.machines[0]!.document!.text), 5)
  }
})

/** How many signatures of the honest there are for each body of a period. */
function honestSignatures(said: ReadonlyMap<string, string>): number[] {
  const counts = new Map<string, number>()
  for (const digest of said.values()) counts.set(digest, (counts.get(digest) ?? 0) + 1)
  return [...counts.values()].sort((a, b) => b - a)
}

/** Notes what every honest authority signs in the next period. */
function watchSignatures(
  net: AuthorityNetwork,
  then: AuthorityNetwork['meddler'] = (_f, _t, _k, text) => text,
) {
  const said = new Map<string, string>()
  net.meddler = (from, to, kind, text) => {
    const digest = /"digest":"(\w+)"/.exec(text)?.[1]
    if (kind === 'signature' && digest !== undefined && text.includes(`"period":${NEXT},`))
      said.set(String(from), digest)
    return then(from, to, kind, text)
  }
  return said
}

test('one of five that lies to everybody in its own way, at any time, cannot make two documents', () => {
  const { vote: begin, sign } = scheduleOf(NEXT, PERIOD)
  const lists = [NAMES, [], ['alder'], ['birch', 'dogwood']]
  const votes = lists.map((names, i) =>
    vote(
      2,
      names.map((name) => voted(describe(name))),
      { published: begin + i },
    ),
  )
  for (let seed = 100; seed < 130; seed++) {
    const rng = seededRng(seed)
    const pick = (below: number) => Math.floor(rng.fraction() * below)
    const net = network(seed)
    // One more node, which only two of the honest know: the liar's vote decides.
    for (const who of [0, 1]) net.upload(who, fresh('dogwood'))
    net.weather = { loss: 0, duplicate: 0.2, delay: 30 }
    net.dead.add(2)
    const said = watchSignatures(net)
    const lies = Array.from({ length: 8 }, () => begin + pick(sign - begin + 60)).sort((a, b) => a - b)
    for (const moment of lies) {
      net.runUntil(moment)
      const to = [0, 1, 3, 4][pick(4)]!
      const some = votes.filter(() => rng.fraction() < 0.5)
      const roll = encodeRoll({ period: NEXT, votes: some.map((v) => v.digest) }, AUTHORITIES[2]!, crypto)
      if (rng.fraction() < 0.7) net.hear(to, 'vote', votes[pick(votes.length)]!.text)
      else net.hear(to, 'roll', value(roll).text)
    }
    net.runUntil(at(PERIOD + 10))
    // With its own signature the liar needs two of the others for each.
    const [first = 0, second = 0] = honestSignatures(said)
    assert.ok(first >= 3, `seed ${seed}: no document`)
    assert.ok(second < 2, `seed ${seed}: ${first} and ${second} honest signatures`)
    oneDocumentEach(net)
  }
})

test('cut in two, with a liar in the middle: 3 of 5 can be made to sign two documents, 4 of 5 cannot', () => {
  const cut = (threshold: number) => {
    const net = new AuthorityNetwork(81, 5, threshold)
    for (const name of NAMES) net.uploadToAll(fresh(name))
    net.dead.add(2)
    const half = (who: number) => (who < 2 ? 0 : 1)
    const said = watchSignatures(net, (from, to, _kind, text) => (half(from) === half(to) ? text : undefined))
    net.runUntil(scheduleOf(NEXT, PERIOD).vote + 10)
    for (const to of [0, 1])
      net.hear(
        to,
        'vote',
        vote(
          2,
          NAMES.map((name) => voted(describe(name))),
        ).text,
      )
    for (const to of [3, 4]) net.hear(to, 'vote', vote(2, [], { published: unixTime(START + 2401) }).text)
    net.runUntil(at(PERIOD + 10))
    return honestSignatures(said)
  }
  // Two and the liar's, twice: the bound of the documentation is sharp.
  assert.deepEqual(cut(3), [2, 2])
  // Nobody has votes enough to sign anything.
  assert.deepEqual(cut(4), [])
})

test('noise, strangers and old messages are refused by name and change nothing', () => {
  const net = network(71)
  net.runUntil(at(PERIOD - 1100))
  for (const kind of ['vote', 'roll', 'signature', 'consensus'] as const) {
    for (const text of ['', 'x', '{}\n', `${'9'.repeat(2000)}\n`, '\u0000', '{"version":1}\n{"key":"x"}\n'])
      assert.ok(!net.hear(0, kind, text).ok)
  }
  const before = net.machines[0]!.counters.get('alarm.other-period')
  net.hear(0, 'vote', vote(1, [], { period: NEXT + 7 }).text)
  net.hear(0, 'vote', vote(1, [], { period: NEXT - 1 }).text)
  assert.equal(net.machines[0]!.counters.get('alarm.other-period'), before + 1)
  net.runUntil(at(PERIOD + 10))
  agree(net, ALL, NEXT)
})

test('measurers: the median is in the document, a liar moves nothing, who is down is not listed and keeps its pool', () => {
  const net = network(40)
  const of = (name: string) => describe(name).descriptor.nodeId
  const report = (who: number, alder: number, birch: number, published = net.now) =>
    net.measure(
      who,
      unixTime(published),
      new Map([
        [of('alder'), alder],
        [of('birch'), birch],
        [describe('stranger').descriptor.nodeId, 5],
      ]),
    )
  const said = () =>
    Object.fromEntries(
      net.machines[0]!.document!.consensus.nodes.map(({ name, bandwidth }) => [name, bandwidth]),
    )
  for (const [who, figure] of [8000, 10_000, 9000].entries()) value(report(who, figure, 4096))
  refused(report(0, 1, 1, net.now), 'IPP_DIR_REPLAYED')
  refused(report(4, 1, 1, net.now + 3600), 'IPP_DIR_EXPIRED')
  refused(report(4, 1, 1, net.now - 4 * PERIOD), 'IPP_DIR_EXPIRED')
  net.runUntil(at(PERIOD + 10))
  agree(net, ALL, NEXT)
  assert.deepEqual(said(), { alder: 8192, birch: 4096, cedar: undefined })
  const poolOf = (name: string) =>
    net.machines[0]!.document!.consensus.nodes.find((n) => n.name === name)?.pool
  const pool = poolOf('birch')

  // One says ten times as much, and that birch is down; then three say that birch is down.
  value(report(3, 90_000, 0))
  net.runUntil(at(2 * PERIOD + 10))
  assert.deepEqual(said(), { alder: 8192, birch: 4096, cedar: undefined })
  for (const who of [0, 1, 2]) value(report(who, 9000, 0))
  for (const name of NAMES) net.uploadToAll(fresh(name, 2 * PERIOD))
  net.uploadToAll(fresh('dogwood', 2 * PERIOD))
  net.restart(1)
  net.runUntil(at(3 * PERIOD + 10))
  assert.deepEqual(said(), { alder: 8192, cedar: undefined, dogwood: undefined })
  for (const who of [0, 1, 2]) value(report(who, 9000, 4096))
  net.runUntil(at(4 * PERIOD + 10))
  assert.deepEqual(said(), { alder: 8192, birch: 4096, cedar: undefined, dogwood: undefined })
  assert.deepEqual(poolOf('birch'), pool)
  const flagsOf = (name: string) =>
    net.machines[0]!.document!.consensus.nodes.find((n) => n.name === name)?.flags?.join()
  assert.equal(flagsOf('alder'), 'exit,fast,guard,running,stable,valid')
  assert.equal(flagsOf('dogwood'), 'running,valid', 'a stay of proof')
  assert.ok(!flagsOf('birch')!.includes('stable'), 'it was down')
  oneDocumentEach(net)
})
