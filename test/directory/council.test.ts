import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'
import { utf8 } from '#base/bytes'
import type { MessageKind } from '#directory/authority-events'
import { countSignatures, openDocument } from '#directory/canonical'
import { verifyConsensus } from '#directory/consensus'
import { signRequest } from '#directory/http-signature'
import { Messenger, messagePath } from '#directory/messenger'
import { encodeRoll } from '#directory/roll'
import { AUTHORITIES, NEXT, PINNED, vote, voted } from './authorities.ts'
import { Councils, NAMES } from './councils.ts'
import { at, crypto, describe, keyPair, PERIOD, refused, START, value } from './network.ts'

/** The documents that are served, by authority; undefined: none. */
const served = async ({ alive }: Councils): Promise<(string | undefined)[]> =>
  Promise.all(
    alive.map(async ({ url }) => {
      const reply = await request(`${url}/v1/consensus`)
      const text = await reply.body.text()
      return reply.statusCode === 200 ? text : undefined
    }),
  )

const trustAt = (seconds: number) => ({ authorities: PINNED, threshold: 3, now: at(seconds) })

const post = async (
  url: string,
  kind: MessageKind,
  text: string | Uint8Array,
  headers: Record<string, string>,
) => {
  const body = typeof text === 'string' ? utf8(text) : text
  const path = messagePath(kind)
  const reply = await request(`${url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'text/plain', ...headers },
    body,
  })
  const answer = await reply.body.text()
  const code = answer === '' ? undefined : (JSON.parse(answer) as { error: { code: string } }).error.code
  return { status: reply.statusCode, code }
}

const signed = (kind: MessageKind, body: Uint8Array, who = 4) =>
  signRequest({ method: 'POST', path: messagePath(kind) }, body, AUTHORITIES[who]!, crypto)

test('five authorities over HTTP make one document, and say who voted and signed', () =>
  Councils.run(async (councils) => {
    assert.deepEqual(await served(councils), Array(5).fill(undefined))
    const health = await request(`${councils.seat(0).url}/v1/health`)
    assert.equal(health.statusCode, 503)
    assert.match(((await health.body.json()) as { problem: string }).problem, /IPP_DIR_NO_DOCUMENT/)
    for (const name of ['alder', 'birch', 'cedar']) await councils.uploadToAll(describe(name).text)
    await councils.runUntil(START + PERIOD + 60)
    const documents = await served(councils)
    const bodies = new Set(documents.map((text) => text?.split('\n')[0]))
    assert.equal(bodies.size, 1)
    const consensus = value(verifyConsensus(utf8(documents[0]!), trustAt(PERIOD + 60), crypto))
    assert.equal(consensus.serial, NEXT)
    assert.deepEqual(consensus.nodes.map(({ name }) => name).sort(), ['alder', 'birch', 'cedar'])
    const envelope = value(openDocument('consensus', utf8(documents[0]!)))
    assert.equal(countSignatures(envelope, PINNED, crypto), 5)
    const report = councils.seat(1).council.report()
    assert.equal(report.self, 'bay')
    assert.equal(report.period, NEXT)
    assert.deepEqual(
      report.authorities.map(({ name, voted, called, signed }) => [name, voted, called, signed]),
      NAMES.map((name) => [name, true, true, true]),
    )
    assert.deepEqual(report.document?.signers.toSorted(), [...NAMES])
    assert.deepEqual(report.alarms, [])
    // A second period keeps the pools.
    for (const name of ['alder', 'birch', 'cedar'])
      await councils.uploadToAll(describe(name, { published: at(PERIOD + 60) }).text)
    await councils.runUntil(START + 2 * PERIOD + 60)
    const next = value(verifyConsensus(utf8((await served(councils))[4]!), trustAt(2 * PERIOD + 60), crypto))
    assert.equal(next.serial, NEXT + 1)
    assert.deepEqual(
      next.nodes.map(({ pool }) => pool),
      consensus.nodes.map(({ pool }) => pool),
    )
  }))

test('two of five are killed: the others go on, and say since when; one comes back and has the document', () =>
  Councils.run(async (councils) => {
    await councils.uploadToAll(describe('alder').text)
    await councils.runUntil(START + PERIOD + 60)
    await councils.kill(1)
    await councils.kill(3)
    const killedAt = councils.clock.seconds
    await councils.uploadToAll(describe('birch').text)
    await councils.runUntil(START + 2 * PERIOD + 360)
    const text = (await served(councils))[0]!
    const consensus = value(verifyConsensus(utf8(text), trustAt(2 * PERIOD + 360), crypto))
    assert.deepEqual(consensus.nodes.map(({ name }) => name).sort(), ['alder', 'birch'])
    const { council } = councils.seat(0)
    const report = council.report()
    assert.deepEqual(report.document?.signers.toSorted(), ['ash', 'cob', 'elk'])
    const standing = report.alarms.map(({ name, authority }) => `${name} ${authority}`).toSorted()
    assert.deepEqual(standing, [
      'signature-missing bay',
      'signature-missing dew',
      'vote-missing bay',
      'vote-missing dew',
    ])
    for (const { since, count } of report.alarms) assert.ok(since > killedAt && count === 1)
    for (const { name, silentSince, lastVote } of report.authorities) {
      assert.equal(silentSince !== undefined, name === 'bay' || name === 'dew')
      assert.equal(lastVote, name === 'bay' || name === 'dew' ? NEXT : NEXT + 1)
    }
    assert.equal(council.counters.get('alarm.vote-missing'), 2)
    assert.ok(council.counters.get('messages.failed.IPP_DIR_UNREACHABLE') > 0)
    await councils.start(1)
    await councils.runUntil(councils.clock.seconds + 120)
    assert.equal((await served(councils))[1]?.split('\n')[0], text.split('\n')[0])
  }))

test('three of five are killed: nothing is signed, and the last document stays until it expires', () =>
  Councils.run(async (councils) => {
    await councils.uploadToAll(describe('alder').text)
    await councils.runUntil(START + PERIOD + 60)
    const [before] = await served(councils)
    for (const who of [0, 1, 2]) await councils.kill(who)
    await councils.runUntil(START + 4 * PERIOD - 60, 120)
    assert.equal((await served(councils))[0]?.split('\n')[0], before?.split('\n')[0])
    assert.equal((await request(`${councils.seat(4).url}/v1/health`)).statusCode, 200)
    assert.ok(councils.seat(4).council.counters.get('alarm.votes-too-few') > 0)
    await councils.runUntil(START + 4 * PERIOD + 60, 120)
    const health = await request(`${councils.seat(4).url}/v1/health`)
    assert.equal(health.statusCode, 503)
    refused(verifyConsensus(utf8(before!), trustAt(4 * PERIOD), crypto), 'IPP_DIR_EXPIRED')
  }))

test('strangers and broken messages are refused by name, counted, and change nothing', () =>
  Councils.run(async (councils) => {
    await councils.runUntil(START + PERIOD - 1190)
    const { url, council } = councils.seat(0)
    const before = council.report()
    const good = vote(4, [voted(describe('alder'))])
    const bytes = utf8(good.text)
    const stranger = keyPair('stranger')
    const foreign = signRequest({ method: 'POST', path: messagePath('vote') }, bytes, stranger, crypto)
    const forged = value(encodeRoll({ period: NEXT, votes: [] }, stranger, crypto)).text
    const spoilt = good.text.replace('"reserved":[]', '"reserved":[ ]')
    const cases: [string, string, number, () => ReturnType<typeof post>][] = [
      ['unsigned', 'IPP_DIR_BAD_SIGNATURE', 403, () => post(url, 'vote', bytes, {})],
      ['of a stranger', 'IPP_DIR_BAD_SIGNATURE', 403, () => post(url, 'vote', bytes, foreign)],
      [
        'for another path',
        'IPP_DIR_BAD_SIGNATURE',
        403,
        () => post(url, 'vote', bytes, signed('roll', bytes)),
      ],
      [
        'another body than announced',
        'IPP_DIR_BAD_SIGNATURE',
        403,
        () =>
          post(
            url,
            'vote',
            bytes.map((octet, i) => (i === 9 ? octet ^ 1 : octet)),
            signed('vote', bytes),
          ),
      ],
      [
        'another length than announced',
        'IPP_DIR_BAD_SIGNATURE',
        403,
        () => post(url, 'vote', bytes.slice(1), signed('vote', bytes)),
      ],
      [
        'a message that a stranger signed',
        'IPP_DIR_BAD_SIGNATURE',
        403,
        () => post(url, 'roll', forged, signed('roll', utf8(forged))),
      ],
      [
        'a body that was changed',
        'IPP_DIR_BAD_SIGNATURE',
        403,
        () => post(url, 'vote', spoilt, signed('vote', utf8(spoilt))),
      ],
      [
        'NUL',
        'IPP_DIR_MALFORMED',
        400,
        () => post(url, 'roll', '{"a":"\0"}\n', signed('roll', utf8('{"a":"\0"}\n'))),
      ],
      [
        'too long for its kind',
        'IPP_DIR_OVERSIZED',
        413,
        () => post(url, 'roll', new Uint8Array(9000), signed('roll', new Uint8Array(9000))),
      ],
      [
        'a consensus that is told',
        'IPP_DIR_NO_RESOURCE',
        404,
        () => post(url, 'consensus', 'x', signed('consensus', utf8('x'))),
      ],
    ]
    const counted = new Map<string, number>()
    for (const [what, code, status, attempt] of cases) {
      const outcome = await attempt()
      assert.deepEqual([outcome.status, outcome.code], [status, code], what)
      counted.set(code, (counted.get(code) ?? 0) + 1)
    }
    for (const [code, count] of counted) assert.equal(council.counters.get(`refused.${code}`), count, code)
    assert.deepEqual(council.report().authorities, before.authorities)
    // The same vote as it should be, and again.
    assert.equal((await post(url, 'vote', bytes, signed('vote', bytes))).status, 204)
    assert.equal((await post(url, 'vote', bytes, signed('vote', bytes))).status, 204)
    assert.equal(council.report().authorities[4]?.lastVote, NEXT)
    // Another one of the same author is proof of a lie.
    const other = vote(4, [voted(describe('birch'))])
    assert.equal((await post(url, 'vote', other.text, signed('vote', utf8(other.text)))).status, 204)
    assert.equal(council.counters.get('alarm.equivocation'), 1)
  }))

test('a question is answered to authorities only', () =>
  Councils.run(async (councils) => {
    await councils.runUntil(START + PERIOD - 1190)
    const { url } = councils.seat(0)
    const path = `${messagePath('vote')}/${NEXT}`
    const anonymous = await request(`${url}${path}`)
    assert.equal(anonymous.statusCode, 403)
    await anonymous.body.dump()
    const messenger = new Messenger({ key: AUTHORITIES[3]!, crypto })
    const [ash] = councils.members
    assert.ok(ash)
    const own = value(await messenger.ask(ash, { kind: 'vote', period: NEXT }))
    assert.match(Buffer.from(own!).toString(), /^\{"version":1,"period":/)
    assert.equal(value(await messenger.ask(ash, { kind: 'vote', period: NEXT + 1 })), undefined)
    assert.equal(value(await messenger.ask(ash, { kind: 'consensus', period: 1 })), undefined)
    await councils.kill(0)
    refused(await messenger.ask(ash, { kind: 'vote', period: NEXT }), 'IPP_DIR_UNREACHABLE')
    await messenger.close()
  }))

test('ten megabytes of a stranger are not read, those of an authority are not kept', () =>
  Councils.run(
    async (councils) => {
      const { url, council } = councils.seat(0)
      const ten = new Uint8Array(10 * 2 ** 20).fill(0x41)
      const heap = process.memoryUsage().arrayBuffers
      const stranger = await rawPost(url, '/v1/authority/vote', ten.length)
      assert.match(stranger.answer, /^HTTP\/1\.1 403 /)
      assert.ok(stranger.taken < 4 * 2 ** 20, `${stranger.taken} octets were taken`)
      const upload = await rawPost(url, '/v1/descriptor', ten.length)
      assert.match(upload.answer, /^HTTP\/1\.1 413 /)
      assert.ok(upload.taken < 4 * 2 ** 20, `${upload.taken} octets were taken`)
      const outcome = await post(url, 'vote', ten, signed('vote', ten, 2))
      assert.deepEqual([outcome.status, outcome.code], [400, 'IPP_DIR_MALFORMED'])
      assert.ok(process.memoryUsage().arrayBuffers - heap < 64 * 2 ** 20)
      assert.equal(council.size, 0)
    },
    { count: 3, threshold: 2 },
  ))

test('a disk that fails: nothing is acknowledged or said that is not kept, and it recovers by itself', () =>
  Councils.run(async (councils) => {
    const seat = councils.seat(2)
    await councils.uploadToAll(describe('alder').text)
    seat.breakDisk(true)
    const upload = (name: string) =>
      seat.app.inject({
        method: 'POST',
        url: '/v1/descriptor',
        headers: { 'content-type': 'text/plain' },
        payload: describe(name).text,
      })
    assert.equal((await upload('birch')).statusCode, 503)
    // Not "known" either.
    assert.equal((await upload('birch')).statusCode, 503)
    await councils.runUntil(START + PERIOD + 60)
    const report = councils.seat(0).council.report()
    assert.deepEqual(report.document?.signers.toSorted(), ['ash', 'bay', 'dew', 'elk'])
    assert.match(seat.council.problem?.line ?? '', /No space left/)
    seat.breakDisk(false)
    await councils.runUntil(START + PERIOD + 180)
    assert.equal(seat.council.problem, undefined)
    assert.equal((await upload('birch')).statusCode, 201)
    assert.equal(seat.council.publication?.consensus.serial, NEXT)
  }))

/** Announces so many octets and pours them out until the other side has heard enough. */
async function rawPost(
  url: string,
  path: string,
  length: number,
): Promise<{ readonly taken: number; readonly answer: string }> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  let answer = ''
  socket.on('data', (part) => {
    answer += part.toString('latin1')
  })
  // It may be closed under our hands: that is the point.
  socket.on('error', () => socket.destroy())
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: ${length}\r\n\r\n`,
  )
  const chunk = Buffer.alloc(65_536, 0x41)
  let taken = 0
  for (; taken < length && !socket.destroyed && answer === ''; taken += chunk.length) {
    if (!socket.write(chunk)) await Promise.race([new Promise((r) => socket.once('drain', r)), sleep(50)])
  }
  for (let i = 0; i < 100 && answer === ''; i++) await sleep(20)
  socket.destroy()
  return { taken, answer }
}

test('new authorities take their seats between two periods, without a restart and without an alarm', () =>
  Councils.run(async (councils) => {
    await councils.uploadToAll(describe('alder').text)
    await councils.runUntil(START + PERIOD + 60)
    const before = value(verifyConsensus(utf8((await served(councils))[0]!), trustAt(PERIOD + 60), crypto))
    await councils.uploadToAll(describe('alder', { published: at(PERIOD + 60) }).text)
    // The last one leaves. In the midst of a vote nothing changes.
    const members = councils.members.slice(0, 4)
    await councils.runUntil(START + 2 * PERIOD - 1100)
    for (const { council } of councils.alive.slice(0, 4)) council.elect({ members, threshold: 3 })
    await councils.runUntil(START + 2 * PERIOD + 200)
    assert.equal(councils.seat(0).council.seats.members.length, 5)
    const five = value(openDocument('consensus', utf8((await served(councils))[0]!)))
    assert.equal(countSignatures(five, PINNED, crypto), 5)
    // When everybody has the document, and before the next vote.
    await councils.runUntil(START + 2 * PERIOD + 400)
    assert.deepEqual(
      councils
        .seat(0)
        .council.report()
        .authorities.map(({ name }) => name),
      NAMES.slice(0, 4),
    )
    await councils.runUntil(START + 3 * PERIOD + 60)
    const texts = (await served(councils)).slice(0, 4)
    const trust = { authorities: PINNED.slice(0, 4), threshold: 3, now: at(3 * PERIOD + 60) }
    for (const text of texts) {
      const after = value(verifyConsensus(utf8(text!), trust, crypto))
      assert.equal(after.serial, NEXT + 2)
      assert.deepEqual(
        after.nodes.map(({ name, pool }) => [name, pool]),
        before.nodes.map(({ name, pool }) => [name, pool]),
      )
    }
    const four = value(openDocument('consensus', utf8(texts[0]!)))
    assert.deepEqual([countSignatures(four, PINNED, crypto), four.signatures.length], [4, 4])
    for (const { council } of councils.alive.slice(0, 4)) {
      assert.deepEqual(council.report().alarms, [])
      assert.equal(council.counters.get('authorities.changed'), 1)
    }
    // Who left is a stranger.
    const body = utf8(vote(4, [], { period: NEXT + 3 }).text)
    const answer = await post(councils.seat(0).url, 'vote', body, signed('vote', body))
    assert.deepEqual([answer.status, answer.code], [403, 'IPP_DIR_BAD_SIGNATURE'])
  }))
