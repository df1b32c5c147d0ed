/** Who wants too much (RFC 7296 section 2.6, RFC 8019): puzzles, fair shares of what room there is, other versions. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, toHex } from '#base/bytes'
import { type Ip, ip } from '#base/ip'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { Allowance } from '#ikev2/allowance'
import type { IkeLimits } from '#ikev2/engine'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY, PAYLOAD } from '#ikev2/numbers'
import { MOST_DIFFICULT, PuzzleSolver, puzzleFor, readPuzzle, solvesPuzzle } from '#ikev2/puzzle'
import { Shares } from '#ikev2/shares'
import { anonymousRequest, connect, find, NODE, openPolicy, pair, pathBetween } from './pair.ts'
import { type Alter, KEY, notifyTypes, RogueClient, RogueNode, replace, Subject } from './rogue.ts'

const { number: N } = NOTIFY
const NOTHING_SPI = new Uint8Array(8)

const under = (limits: Partial<IkeLimits>, overrides: Parameters<typeof openPolicy>[1] = {}): Subject =>
  new Subject({ responder: openPolicy(KEY, overrides), limits })
const dataOf = (payloads: readonly Payload[] | undefined, type: number): Uint8Array =>
  (payloads ?? []).find(
    (payload): payload is NotifyPayload => payload.kind === 'Notify' && payload.type === type,
  )!.data

// ---------------------------------------------------------------------------------------------- puzzles

const cookie = new Uint8Array(34).fill(3)
function solve(difficulty: number, over: Uint8Array = cookie): Uint8Array {
  const solution = new PuzzleSolver(nodeCrypto, { hash: 'sha256', difficulty }, over).step(1_000_000)
  assert.ok(solution instanceof Uint8Array)
  return solution
}
const isSolved = (data: Uint8Array, difficulty: number, over: Uint8Array = cookie): boolean =>
  solvesPuzzle(nodeCrypto, [{ kind: 'PS', data }], { hash: 'sha256', difficulty }, over)

test('puzzle: a solution holds for its cookie and its difficulty, and no other', () => {
  const solution = solve(9)
  assert.equal(solution.length, 32)
  assert.ok(isSolved(solution, 9))
  assert.ok(isSolved(solution, 1), 'harder than asked')
  assert.ok(!isSolved(solution, 30))
  assert.ok(!isSolved(solution, 9, cookie.with(0, 4)))
})

test('puzzle: what is no solution', () => {
  const solution = solve(9)
  const [first] = [solution.subarray(0, 8)]
  for (const wrong of [
    new Uint8Array(0),
    solution.subarray(1),
    solution.subarray(0, 24),
    solution.with(0, solution[0]! ^ 1),
    concat(first, first, first, first),
    new Uint8Array(65_000),
  ])
    assert.ok(!isSolved(wrong, 9), `${wrong.length} octets`)
  assert.ok(!solvesPuzzle(nodeCrypto, [], { hash: 'sha256', difficulty: 1 }, cookie))
})

test('puzzle: solving goes in steps, and ends', () => {
  const solver = new PuzzleSolver(nodeCrypto, { hash: 'sha256', difficulty: 12 }, cookie)
  let [steps, solution]: [number, ReturnType<PuzzleSolver['step']>] = [0, 'pending']
  for (; solution === 'pending'; steps++) solution = solver.step(100)
  assert.ok(steps > 1 && solution !== undefined && isSolved(solution, 12))
  const hopeless = new PuzzleSolver(
    { ...nodeCrypto, hmac: () => Uint8Array.of(1) },
    { hash: 'sha256', difficulty: 4 },
    cookie,
  )
  assert.equal(hopeless.step(10_000), undefined)
})

test('puzzle: on the wire, and the ones that are not solved', () => {
  const offered = new RogueClient(under({})).offer.proposals
  const puzzle = puzzleFor(offered, 11)!
  assert.equal(toHex(puzzle.data), '00050b')
  assert.deepEqual(readPuzzle([puzzle]), { hash: 'sha256', difficulty: 11 })
  const read = (...octets: number[]): unknown => readPuzzle([notify(N.PUZZLE, Uint8Array.from(octets))])
  assert.equal(read(0, 5, MOST_DIFFICULT + 1), 'too hard')
  assert.equal(read(0, 5, 255), 'too hard')
  assert.equal(read(0, 2, 1), 'too hard', 'a PRF that is not ours')
  assert.deepEqual(read(0, 5, 0), { hash: 'sha256', difficulty: 8 }, 'the initiator may choose')
  assert.equal(readPuzzle([]), undefined)
  for (const octets of [[], [0, 5], [0, 5, 1, 1]]) assert.throws(() => read(...octets), /a puzzle of/)
  assert.equal(puzzleFor([], 5), undefined)
})

test('puzzle: a responder under attack asks for one, and lets in who solved it, once', () => {
  const subject = under({ cookieAt: 0, puzzleAt: 0 })
  const client = new RogueClient(subject)
  const answer = client.init()
  assert.deepEqual(notifyTypes(answer), [N.COOKIE, N.PUZZLE])
  assert.equal(subject.count('cookie-demanded'), 1)
  const baked = dataOf(answer, N.COOKIE)
  const { difficulty } = readPuzzle(answer!) as { difficulty: number }
  assert.equal(difficulty, 8)
  const solved =
    (found: Uint8Array, more: Alter = (all) => all): Alter =>
    (payloads) => [notify(N.COOKIE, baked), { kind: 'PS', data: found }, ...more(payloads)]
  const solution = solve(difficulty, baked)
  assert.ok(client.init(solved(solution))?.some(({ kind }) => kind === 'SA'))
  client.spiResponder = NOTHING_SPI
  const again = client.init(
    solved(
      solution,
      replace('KE', ({ group }) => ({ kind: 'KE', group, data: nodeCrypto.x25519Generate().publicKey })),
    ),
  )
  assert.equal(again, undefined)
  assert.equal(subject.count('puzzle-reused'), 1)
})

test('puzzle: without a solution one in so many is let in, and the others are asked again', () => {
  const subject = under({ cookieAt: 0, puzzleAt: 0 })
  let admitted = 0
  for (let i = 0; i < 400; i++) {
    const client = new RogueClient(subject)
    const baked = dataOf(client.init(), N.COOKIE)
    const answer = client.init((payloads) => [notify(N.COOKIE, baked), ...payloads])
    if (answer?.some(({ kind }) => kind === 'SA')) admitted++
    else assert.deepEqual(notifyTypes(answer), [N.COOKIE, N.PUZZLE])
  }
  assert.ok(admitted > 15 && admitted < 110, `${admitted} of 400`)
  assert.equal(subject.count('puzzle-unsolved'), 400 - admitted)
})

test('puzzle: a cookie of quieter times does not stand for one; a forged difficulty makes it no cookie', () => {
  const subject = under({ cookieAt: 0, puzzleAt: 1 })
  const client = new RogueClient(subject)
  const answer = client.init()
  assert.deepEqual(notifyTypes(answer), [N.COOKIE])
  const baked = dataOf(answer, N.COOKIE)
  const other = new RogueClient(subject)
  const theirs = dataOf(other.init(), N.COOKIE)
  assert.ok(
    other.init((payloads) => [notify(N.COOKIE, theirs), ...payloads])?.some(({ kind }) => kind === 'SA'),
  )
  const late = client.init((payloads) => [notify(N.COOKIE, baked), ...payloads])
  assert.deepEqual(notifyTypes(late), [N.COOKIE, N.PUZZLE])
  assert.equal(subject.count('puzzle-demanded'), 1)
  client.init((payloads) => [notify(N.COOKIE, baked.with(1, 1)), ...payloads])
  assert.equal(subject.count('cookie-demanded'), 3)
})

test('puzzle: our client solves the one of our node, without standing still', () => {
  const stage = pair({ limits: { cookieAt: 0, puzzleAt: 0 } })
  connect(stage)
  assert.ok(find(stage.client, 'ike.established'))
  const inits = stage.network.sent
    .filter(({ bytes }) => decodeHeader(bytes).exchange === EXCHANGE.number.IKE_SA_INIT)
    .map(({ bytes }) =>
      decodePayloads(decodeHeader(bytes).firstPayload, bytes.subarray(HEADER_LENGTH), 'init'),
    )
    .map((payloads) =>
      payloads.slice(0, 2).map((each) => (each.kind === 'Notify' ? NOTIFY.nameOf(each.type) : each.kind)),
    )
  assert.deepEqual(inits, [
    ['SA', 'KE'],
    ['COOKIE', 'PUZZLE'],
    ['COOKIE', 'PS'],
    ['SA', 'KE'],
  ])
})

test('puzzle: one that is too hard is left, and the cookie returned alone', () => {
  const node = new RogueNode()
  const puzzle = notify(N.PUZZLE, Uint8Array.of(0, 5, MOST_DIFFICULT + 1))
  const [retry] = node.clear([notify(N.COOKIE, cookie), puzzle], NOTHING_SPI)
  const payloads = decodePayloads(decodeHeader(retry!).firstPayload, retry!.subarray(HEADER_LENGTH), 'retry')
  assert.deepEqual(notifyTypes(payloads).slice(0, 1), [N.COOKIE])
  assert.ok(payloads.every(({ kind }) => kind !== 'PS'))
  assert.equal(node.subject.count('puzzle-too-hard'), 1)
})

test('puzzle: who answers with puzzles for ever costs bounded work', () => {
  const node = new RogueNode()
  for (let i = 0; i < 50; i++) {
    const puzzle = notify(N.PUZZLE, Uint8Array.of(0, 5, 10))
    node.clear([notify(N.COOKIE, cookie.with(0, i)), puzzle], NOTHING_SPI)
    node.subject.sleep(200)
  }
  assert.ok(node.subject.count('init-loop') > 10)
  node.subject.sleep(60_000)
  assert.ok(node.subject.last('ike.closed'))
  assert.ok(node.subject.isEmpty)
})

test('puzzle: an answer that comes while it is being solved is taken', () => {
  const node = new RogueNode()
  node.clear([notify(N.COOKIE, cookie), notify(N.PUZZLE, Uint8Array.of(0, 5, 16))], NOTHING_SPI)
  node.init()
  node.authenticate()
  assert.ok(node.subject.last('ike.established'))
})

// ---------------------------------------------------------------------------------------------- shares

test('shares: who has most makes room for who has less', () => {
  const shares = new Shares<string>()
  for (const member of ['a1', 'a2', 'a3']) shares.add('a', member)
  shares.add('b', 'b1')
  assert.deepEqual(
    [shares.size, shares.victimFor('c'), shares.victimFor('b'), shares.victimFor('a')],
    [4, 'a1', 'a1', undefined],
  )
  shares.delete('a', 'a1')
  assert.deepEqual([shares.victimFor('b'), shares.victimFor('c')], [undefined, 'a2'])
  assert.ok(shares.hasMost('a') && !shares.hasMost('b') && !shares.hasMost('c'))
  for (const member of ['a2', 'a3', 'a3']) shares.delete('a', member)
  assert.deepEqual([shares.size, shares.victimFor('c')], [1, undefined])
})

/** Half-open IKE SAs from these addresses; how many were answered with one. */
function knock(subject: Subject, addresses: readonly Ip[]): number {
  return addresses.filter((address) => {
    const datagram = new RogueClient(subject).initDatagram()
    const [answer] = subject.hear(datagram, pathBetween(NODE, address))
    return answer !== undefined && decodeHeader(answer).firstPayload === PAYLOAD.number.SA
  }).length
}
const inNetwork = (network: string, count: number): Ip[] =>
  Array.from({ length: count }, (_, i) => ip(`${network}.${i + 1}`))

test('a /24 that takes all the room makes place for the others, and no more than an even share', () => {
  const subject = under({ halfOpen: 40, cookieAt: 1_000, puzzleAt: 1_000 })
  assert.equal(knock(subject, inNetwork('203.0.113', 60)), 40)
  assert.equal(subject.count('limit'), 20)
  assert.equal(knock(subject, inNetwork('192.0.2', 60)), 20)
  assert.equal(subject.count('half-open-displaced'), 20)
  assert.equal(knock(subject, inNetwork('198.51.100', 1)), 1)
  assert.equal(subject.count('sas.half-open'), 40)
  subject.sleep(60_000)
  assert.ok(subject.isEmpty)
})

test('clients of one relay share one place, whatever prefix it lends from', () => {
  const neighbourOf = ({ remote }: { remote: { address: Ip } }): string | undefined =>
    remote.address.startsWith('10.64.') ? 'relay' : undefined
  const subject = under({ halfOpen: 30, cookieAt: 1_000, puzzleAt: 1_000 }, { neighbourOf })
  const many = Array.from({ length: 30 }, (_, i) => ip(`10.64.${i}.1`))
  assert.equal(knock(subject, many), 30)
  assert.equal(knock(subject, many), 0, 'it has the most already')
  assert.equal(knock(subject, inNetwork('192.0.2', 30)), 15)
})

test('half of all IKE SAs are for whoever has fewer', () => {
  const subject = under({ sas: 20 })
  const crowd = inNetwork('203.0.113', 20)
  assert.equal(knock(subject, crowd), 10)
  assert.equal(knock(subject, inNetwork('192.0.2', 20)), 10)
  assert.equal(subject.count('limit'), 20)
})

// ---------------------------------------------------------------------------------------------- other versions

const ofVersion = (version: number, datagram: Uint8Array): Uint8Array => datagram.with(17, version)

test('RFC 7296 2.5: a future major version is told ours; IKEv1, and answers, are not', () => {
  const subject = under({})
  const request = new RogueClient(subject).initDatagram()
  for (const version of [0x00, 0x10, 0x1f]) assert.deepEqual(subject.hear(ofVersion(version, request)), [])
  assert.deepEqual(subject.hear(ofVersion(0x30, request).with(19, 0x28)), [], 'an answer')
  for (const version of [0x30, 0xf0]) {
    const [answer] = subject.hear(ofVersion(version, request))
    const header = decodeHeader(answer!)
    assert.equal(answer![17], 0x20)
    assert.deepEqual([header.response, header.fromInitiator, header.messageId], [true, false, 0])
    assert.equal(header.exchange, EXCHANGE.number.IKE_SA_INIT)
    assert.deepEqual(header.spiInitiator, request.subarray(0, 8))
    const payloads = decodePayloads(header.firstPayload, answer!.subarray(HEADER_LENGTH), 'answer')
    assert.deepEqual(notifyTypes(payloads), [N.INVALID_MAJOR_VERSION])
    assert.ok(answer!.length < request.length, 'no amplification')
  }
  assert.equal(subject.count('version'), 6)
  assert.ok(subject.isEmpty)
})

test('RFC 7296 2.5: and only so often', () => {
  const subject = under({})
  const request = ofVersion(0x30, new RogueClient(subject).initDatagram())
  const answered = (): number =>
    Array.from({ length: 50 }, () => subject.hear(request).length).filter(Boolean).length
  assert.equal(answered(), 10)
  subject.sleep(1_000)
  assert.equal(answered(), 10)
  assert.equal(subject.count('version'), 100)
})

test('a host that only initiates says nothing about versions', () => {
  const subject = new Subject()
  const request = ofVersion(0x30, new RogueClient(under({})).initDatagram())
  assert.deepEqual(subject.hear(request), [])
  assert.equal(subject.count('version'), 1)
  subject.engine.initiate(anonymousRequest(KEY), subject.now)
  const [init] = subject.drain()
  assert.deepEqual(subject.hear(ofVersion(0x30, init!).with(19, 0x20)), [])
})

test('an allowance is so many, and then so many in each interval', () => {
  const allowance = new Allowance(2, 100)
  const taken = [0, 1, 2, 99, 100, 150, 199, 300].map((now) => allowance.take(instant(now)))
  assert.deepEqual(taken, [true, true, false, false, true, true, false, true])
})
