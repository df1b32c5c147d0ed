import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'
import { toHex, utf8 } from '#base/bytes'
import { type ErrorCode, IpprivError } from '#base/errors'
import { formatPrefix, ip, prefix } from '#base/ip'
import { sealDocument } from '#directory/canonical'
import { verifyConsensus } from '#directory/consensus'
import { applyDiff } from '#directory/diff'
import type { PoolPlan } from '#directory/pools'
import { DirectoryRegistry } from '#directory/registry'
import { createDirectoryServer, type RequestLimits } from '#directory/server'
import { type DirectoryStore, openDirectoryStore } from '#directory/store'
import { Toll } from '#directory/toll'
import { WorkSearch } from '#directory/work'
import {
  AUTHORITY,
  at,
  crypto,
  describe,
  keyPair,
  ManualClock,
  PERIOD,
  PLAN,
  SILENT,
  value,
} from './network.ts'

interface Bench {
  readonly app: FastifyInstance
  readonly registry: DirectoryRegistry
  readonly clock: ManualClock
  readonly store: DirectoryStore
  /** Makes the next writes fail as a full disk does. */
  breakDisk(broken: boolean): void
  upload(body: string | Buffer): Promise<{ status: number; code: ErrorCode | undefined; json: unknown }>
  /** Closes and opens again what is on disk. */
  restart(): Promise<Bench>
}

const GENEROUS: Partial<RequestLimits> = {
  uploads: { burst: 1000, perSecond: 1 },
  reads: { burst: 1000, perSecond: 1 },
}

interface Setup {
  plan?: PoolPlan
  limits?: Partial<RequestLimits>
  uploads?: 'own-address'
  toll?: Toll
}

async function bench(body: (bench: Bench) => Promise<void>, setup: Setup = {}): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-directory-'))
  const open: Bench[] = []
  const make = async (clock: ManualClock): Promise<Bench> => {
    const disk = await openDirectoryStore(folder, crypto)
    let broken = false
    const guard = <A extends unknown[]>(write: (...args: A) => Promise<void>) => {
      return async (...args: A): Promise<void> => {
        if (broken) throw new IpprivError('IPP_STATE_UNUSABLE', `${folder}: No space left on device`)
        await write(...args)
      }
    }
    const store: DirectoryStore = {
      ...disk,
      putNode: guard(disk.putNode),
      putDocument: guard(disk.putDocument),
    }
    const plan = setup.plan ?? PLAN
    const base = { crypto, clock, log: SILENT }
    const registry = await DirectoryRegistry.open({ ...base, store, key: AUTHORITY, plan, period: PERIOD })
    const app = createDirectoryServer({
      ...base,
      service: registry,
      limits: setup.limits ?? GENEROUS,
      uploads: setup.uploads ?? 'anywhere',
      ...(setup.toll === undefined ? {} : { toll: setup.toll }),
    })
    const made: Bench = {
      app,
      registry,
      clock,
      store,
      breakDisk: (now) => {
        broken = now
      },
      upload: async (payload) => {
        const reply = await app.inject({
          method: 'POST',
          url: '/v1/descriptor',
          headers: { 'content-type': 'text/plain' },
          payload,
        })
        const json = reply.json() as { error?: { code: ErrorCode; message: string } }
        return { status: reply.statusCode, code: json.error?.code, json }
      },
      restart: async () => {
        await app.close()
        await disk.close()
        open.pop()
        return make(clock)
      },
    }
    open.push(made)
    return made
  }
  try {
    await body(await make(new ManualClock()))
  } finally {
    for (const { app, store } of open) {
      await app.close()
      await store.close()
    }
    await rm(folder, { recursive: true, force: true })
  }
}

const readConsensus = async (app: FastifyInstance, clock: ManualClock) => {
  const reply = await app.inject({ url: '/v1/consensus' })
  const trust = { authorities: [AUTHORITY.publicKey], now: clock.unixTime() }
  return value(verifyConsensus(utf8(reply.body), trust, crypto))
}

/** Lets the debounce pass and publishes. */
const publish = async ({ clock, registry }: Bench, seconds = 2) => {
  clock.seconds += seconds
  await registry.publishIfDue()
}

test('a descriptor goes in, the next consensus lists the node', () =>
  bench(async (b) => {
    assert.equal((await readConsensus(b.app, b.clock)).nodes.length, 0)
    const alder = describe('alder')
    const answer = await b.upload(alder.text)
    assert.equal(answer.status, 201)
    assert.deepEqual(answer.json, { nodeId: alder.descriptor.nodeId, result: 'accepted' })
    await publish(b)
    const consensus = await readConsensus(b.app, b.clock)
    assert.equal(consensus.serial, 2)
    assert.deepEqual(consensus.nodes, [{ ...alder.descriptor, pool: prefix('10.64.0.0/20') }])
    // The very same bytes again: yes, and nothing changes.
    const again = await b.upload(alder.text)
    assert.equal(again.status, 200)
    assert.deepEqual(again.json, { nodeId: alder.descriptor.nodeId, result: 'known' })
    await publish(b)
    assert.equal((await readConsensus(b.app, b.clock)).serial, 2)
    assert.equal(b.registry.counters.get('descriptor.accepted'), 1)
    assert.equal(b.registry.counters.get('descriptor.known'), 1)
  }))

test('bad uploads are refused by name, counted, and leave no trace', () =>
  bench(async (b) => {
    const alder = describe('alder', { published: at(-100) })
    assert.equal((await b.upload(alder.text)).status, 201)
    const before = await b.store.load()
    const [line] = alder.text.split('\n') as [string]
    const stranger = value(sealDocument('descriptor', JSON.parse(line), [keyPair('birch')], crypto))
    const rows: [what: string, body: string | Buffer, status: number, code: ErrorCode][] = [
      ['empty', '', 400, 'IPP_DIR_MALFORMED'],
      ['not a document', 'hello', 400, 'IPP_DIR_MALFORMED'],
      ['NUL', alder.text.replace('alder', 'al\u0000er'), 400, 'IPP_DIR_MALFORMED'],
      ['HTML', alder.text.replace('alder', '<b>x'), 403, 'IPP_DIR_BAD_SIGNATURE'],
      ['binary', Buffer.alloc(500, 0xff), 400, 'IPP_DIR_MALFORMED'],
      ['bad signature', alder.text.replace('"port":500', '"port":501'), 403, 'IPP_DIR_BAD_SIGNATURE'],
      ['no signature', `${line}\n`, 403, 'IPP_DIR_BAD_SIGNATURE'],
      ['another identity', stranger, 403, 'IPP_DIR_IDENTITY'],
      ['too large', 'x'.repeat(8193), 413, 'IPP_DIR_OVERSIZED'],
      ['10 MB', Buffer.alloc(10_000_000), 413, 'IPP_DIR_OVERSIZED'],
      ['from the future', describe('birch', { published: at(200) }).text, 422, 'IPP_DIR_EXPIRED'],
      ['too old', describe('birch', { published: at(-3 * PERIOD) }).text, 422, 'IPP_DIR_EXPIRED'],
      ['older', describe('alder', { published: at(-101) }).text, 409, 'IPP_DIR_REPLAYED'],
      [
        'same date, other words',
        describe('alder', { published: at(-100), port: 501 }).text,
        409,
        'IPP_DIR_REPLAYED',
      ],
      [
        'name taken',
        describe('alder', { address: ip('203.0.113.5') }, 'birch').text,
        409,
        'IPP_DIR_CONFLICT',
      ],
      [
        'address taken',
        describe('birch', { address: alder.descriptor.address }).text,
        409,
        'IPP_DIR_CONFLICT',
      ],
      [
        'address in the pool space',
        describe('birch', { address: ip('10.64.1.1') }).text,
        503,
        'IPP_DIR_POOL',
      ],
    ]
    const expected = new Map<string, number>()
    for (const [what, body, status, code] of rows) {
      const answer = await b.upload(body)
      assert.deepEqual([answer.status, answer.code], [status, code], what)
      assert.ok(!/[<>]/.test(JSON.stringify(answer.json)), `${what}: a stranger's words come back`)
      expected.set(code, (expected.get(code) ?? 0) + 1)
    }
    for (const [code, count] of expected)
      assert.equal(b.registry.counters.get(`refused.${code}`), count, code)
    assert.deepEqual(await b.store.load(), before)
    assert.equal(b.registry.size, 1)
  }))

test('what is not a request of ours gets a named error', () =>
  bench(async ({ app }) => {
    const ask = async (options: object) => {
      const reply = await app.inject(options)
      return [reply.statusCode, (reply.json() as { error: { code: string } }).error.code]
    }
    assert.deepEqual(await ask({ url: '/' }), [404, 'IPP_DIR_NO_RESOURCE'])
    assert.deepEqual(await ask({ method: 'DELETE', url: '/v1/consensus' }), [404, 'IPP_DIR_NO_RESOURCE'])
    assert.deepEqual(await ask({ url: '/%ff' }), [400, 'IPP_DIR_MALFORMED'])
    assert.deepEqual(await ask({ method: 'POST', url: '/v1/descriptor', payload: { a: 1 } }), [
      415,
      'IPP_DIR_MALFORMED',
    ])
    const reply = await app.inject({ url: '/<script>' })
    assert.equal(reply.headers['x-content-type-options'], 'nosniff')
    assert.ok(!reply.body.includes('<'))
  }))

test('one document for everybody: tags, 304, compression', () =>
  bench(async (b) => {
    for (const name of ['alder', 'birch', 'cedar']) await b.upload(describe(name).text)
    await publish(b)
    const get = (headers: Record<string, string>) => b.app.inject({ url: '/v1/consensus', headers })
    const plain = await get({})
    assert.equal(plain.statusCode, 200)
    assert.equal(plain.headers['content-type'], 'text/plain; charset=utf-8')
    assert.equal(plain.headers['cache-control'], 'public, no-cache')
    assert.equal(plain.headers['content-encoding'], undefined)
    assert.equal(plain.headers.vary, 'accept-encoding')
    const etag = String(plain.headers.etag)
    const body = plain.rawPayload.subarray(0, plain.rawPayload.indexOf('\n'))
    assert.equal(etag, `W/"${toHex(crypto.hash('sha256', body))}"`)
    const br = await get({ 'accept-encoding': 'gzip, deflate, br;q=0.9' })
    assert.equal(br.headers['content-encoding'], 'br')
    assert.equal(br.headers.etag, etag)
    assert.deepEqual(brotliDecompressSync(br.rawPayload), plain.rawPayload)
    const gz = await get({ 'accept-encoding': 'GZIP, br;q=0' })
    assert.equal(gz.headers['content-encoding'], 'gzip')
    assert.deepEqual(gunzipSync(gz.rawPayload), plain.rawPayload)
    assert.ok(br.rawPayload.length < plain.rawPayload.length)
    for (const tag of [etag, etag.slice(2), `"x", ${etag}`, '*']) {
      const same = await get({ 'if-none-match': tag })
      assert.deepEqual([same.statusCode, same.body, same.headers.etag], [304, '', etag], tag)
    }
    assert.equal((await get({ 'if-none-match': '"x"' })).statusCode, 200)
    assert.equal((await b.app.inject({ method: 'HEAD', url: '/v1/consensus' })).statusCode, 200)
  }))

test('from a former document to the current one: a diff, the same for everybody, made once', () =>
  bench(async (b) => {
    const names = Array.from({ length: 12 }, (_, i) => `node-${i}`)
    for (const name of names) await b.upload(describe(name).text)
    await publish(b)
    const { name, body } = b.registry.shelf.current!
    await b.upload(describe('newcomer').text)
    await publish(b)
    const get = (base: string, headers: Record<string, string> = {}) =>
      b.app.inject({ url: `/v1/consensus/diff/${base}`, headers })
    const plain = await get(name)
    assert.equal(plain.statusCode, 200)
    assert.equal(plain.headers.etag, b.registry.shelf.current!.etag)
    const whole = await b.app.inject({ url: '/v1/consensus' })
    assert.deepEqual(Buffer.from(value(applyDiff(plain.rawPayload, body, 1e6, crypto))), whole.rawPayload)
    assert.ok(plain.rawPayload.length < whole.rawPayload.length / 4)
    const br = await get(name, { 'accept-encoding': 'br' })
    assert.deepEqual(brotliDecompressSync(br.rawPayload), plain.rawPayload)
    assert.equal(await b.registry.shelf.diffFrom(name), await b.registry.shelf.diffFrom(name))
    const etag = String(whole.headers.etag)
    assert.equal((await get(name, { 'if-none-match': etag })).statusCode, 304)
    for (const unknown of ['0'.repeat(64), 'x', '..%2f..%2fconsensus', etag.slice(3, -1).toUpperCase()]) {
      const refusal = await get(unknown)
      assert.deepEqual(
        [refusal.statusCode, refusal.json().error.code, refusal.headers.etag],
        [404, 'IPP_DIR_NO_RESOURCE', undefined],
        unknown,
      )
    }
    assert.equal(b.registry.counters.get('consensus.diff'), 2)
    assert.equal(b.registry.counters.get('refused.IPP_DIR_NO_RESOURCE'), 4)
  }))

test('documents: at once, then at most one per second; a new date alone waits for half a period', () =>
  bench(async (b) => {
    const serial = () => b.registry.publication.consensus.serial
    await publish(b, 0)
    assert.equal(serial(), 1)
    await b.upload(describe('alder').text)
    assert.equal(await b.registry.publishIfDue(), 1000)
    await publish(b, 1)
    assert.equal(serial(), 2)
    await b.upload(describe('birch').text)
    await b.upload(describe('cedar').text)
    await publish(b, 0)
    assert.equal(serial(), 2)
    await publish(b, 1)
    assert.equal(serial(), 3)
    await b.upload(describe('alder', { published: at(100) }).text)
    await publish(b, 60)
    assert.equal(serial(), 3)
    await b.upload(describe('alder', { published: at(101), port: 501 }).text)
    await publish(b, 0)
    assert.equal(serial(), 4)
    // One who changes all the time waits longer, and somebody new does not.
    await b.upload(describe('alder', { published: at(102), port: 502 }).text)
    await publish(b, 8)
    assert.equal(serial(), 4)
    await b.upload(describe('dogwood').text)
    await publish(b, 1)
    assert.equal(serial(), 5)
    await b.upload(describe('alder', { published: at(103), port: 503 }).text)
    await publish(b, 9)
    assert.equal(serial(), 5)
    await publish(b, 2)
    assert.equal(serial(), 6)
    await publish(b, PERIOD / 2 - 1)
    assert.equal(serial(), 6)
    await publish(b, 1)
    assert.equal(serial(), 7)
    assert.equal(b.registry.publication.consensus.validAfter, b.clock.unixTime())
  }))

test('a node not heard from falls out, keeps its pool for long, and comes back to it', () =>
  bench(async (b) => {
    await b.upload(describe('alder').text)
    await b.upload(describe('birch').text)
    await publish(b)
    const poolOf = (name: string) => b.registry.publication.consensus.nodes.find((n) => n.name === name)?.pool
    assert.equal(formatPrefix(poolOf('alder')!), '10.64.0.0/20')
    b.clock.seconds = at(2 * PERIOD)
    await b.upload(describe('birch', { published: at(2 * PERIOD) }).text)
    await publish(b, PERIOD - 1)
    assert.ok(poolOf('alder'))
    await publish(b, 1)
    assert.equal(poolOf('alder'), undefined)
    assert.equal(formatPrefix(poolOf('birch')!), '10.64.16.0/20')
    // Its name is free for others now, its pool is not.
    const other = describe('alder', { published: at(3 * PERIOD), address: ip('203.0.113.5') }, 'other')
    assert.equal((await b.upload(other.text)).status, 201)
    await publish(b)
    assert.equal(formatPrefix(poolOf('alder')!), '10.64.32.0/20')
    const back = { published: at(3 * PERIOD + 2), name: 'alder-2' }
    assert.equal((await b.upload(describe('alder', back).text)).status, 201)
    await publish(b)
    assert.equal(formatPrefix(poolOf('alder-2')!), '10.64.0.0/20')
    // Thirty days without a word, and it is forgotten.
    b.clock.seconds = at(40 * 24 * 3600)
    const late = { published: b.clock.unixTime() }
    assert.equal((await b.upload(describe('birch', late).text)).status, 201)
    await publish(b)
    assert.equal(b.registry.size, 1)
    assert.equal((await b.upload(describe('dogwood', late).text)).status, 201)
    await publish(b)
    assert.equal(formatPrefix(poolOf('dogwood')!), '10.64.0.0/20')
    assert.equal((await b.store.load()).records.size, 2)
  }))

test('an exhausted pool space refuses newcomers and leaves the others alone', () =>
  bench(
    async (b) => {
      assert.equal((await b.upload(describe('alder').text)).status, 201)
      assert.equal((await b.upload(describe('birch').text)).status, 201)
      const answer = await b.upload(describe('cedar').text)
      assert.deepEqual([answer.status, answer.code], [503, 'IPP_DIR_POOL'])
      assert.equal((await b.upload(describe('alder', { published: at(1) }).text)).status, 201)
      await publish(b)
      assert.equal((await readConsensus(b.app, b.clock)).nodes.length, 2)
    },
    { plan: { space: prefix('10.64.0.0/19'), length: 20 } },
  ))

test('a restart serves the same document while it is fresh, and never an older serial', () =>
  bench(async (first) => {
    await first.upload(describe('alder').text)
    await publish(first)
    const text = (await first.app.inject({ url: '/v1/consensus' })).body
    const second = await first.restart()
    assert.equal((await second.app.inject({ url: '/v1/consensus' })).body, text)
    // An upload that was acknowledged, but not published before the end.
    await second.upload(describe('birch').text)
    const third = await second.restart()
    assert.equal((await readConsensus(third.app, third.clock)).nodes.length, 2)
    assert.equal(third.registry.publication.consensus.serial, 3)
    assert.equal((await third.upload(describe('alder', { published: at(-1) }).text)).code, 'IPP_DIR_REPLAYED')
    third.clock.seconds += PERIOD
    const fourth = await third.restart()
    assert.equal(fourth.registry.publication.consensus.serial, 4)
  }))

test('a full disk: uploads are refused, the last document stays, health says so, and it recovers', () =>
  bench(async (b) => {
    await b.upload(describe('alder').text)
    await publish(b)
    b.breakDisk(true)
    const answer = await b.upload(describe('birch').text)
    assert.deepEqual([answer.status, answer.code], [503, 'IPP_STATE_UNUSABLE'])
    assert.equal(b.registry.size, 1)
    await publish(b, PERIOD / 2)
    assert.equal((await readConsensus(b.app, b.clock)).serial, 2)
    const health = await b.app.inject({ url: '/v1/health' })
    assert.equal(health.statusCode, 503)
    assert.match(health.body, /"status":"failing","problem":".*No space left.*\[IPP_STATE_UNUSABLE\]"/)
    b.breakDisk(false)
    assert.equal(await b.registry.publishIfDue(), 5000)
    await publish(b, 5)
    assert.equal((await readConsensus(b.app, b.clock)).serial, 3)
    assert.deepEqual((await b.app.inject({ url: '/v1/health' })).json(), {
      status: 'ok',
      serial: 3,
      nodes: 1,
      now: b.clock.seconds,
      validAfter: b.clock.seconds,
      freshUntil: b.clock.seconds + PERIOD,
      validUntil: b.clock.seconds + 3 * PERIOD,
    })
  }))

test('a descriptor must come from the address it names, unless the operator says otherwise', () =>
  bench(
    async ({ app, registry }) => {
      const alder = describe('alder')
      const upload = (remoteAddress: string) =>
        app.inject({
          method: 'POST',
          url: '/v1/descriptor',
          headers: { 'content-type': 'text/plain', 'x-forwarded-for': alder.descriptor.address },
          payload: alder.text,
          remoteAddress,
        })
      const elsewhere = await upload('192.0.2.1')
      assert.deepEqual([elsewhere.statusCode, elsewhere.json().error.code], [403, 'IPP_DIR_SOURCE'])
      assert.equal(registry.size, 0)
      assert.equal((await upload(alder.descriptor.address)).statusCode, 201)
    },
    { uploads: 'own-address' },
  ))

test('a node works once: when it is listed, to come from its address is enough', () =>
  bench(
    async (b) => {
      const { address } = describe('alder').descriptor
      const upload = async (text: string, remoteAddress: string, headers: object = {}) => {
        const reply = await b.app.inject({
          method: 'POST',
          url: '/v1/descriptor',
          headers: { 'content-type': 'text/plain', ...headers },
          payload: text,
          remoteAddress,
        })
        return reply.json().error?.code ?? reply.statusCode
      }
      const alder = describe('alder').text
      assert.equal(await upload(alder, address), 'IPP_DIR_WORK')
      const nonce = new WorkSearch(utf8(alder), crypto).look(6, 1e5)
      assert.equal(await upload(alder, address, { 'ippriv-work': nonce }), 201)
      // Not before the document says so.
      const later = describe('alder', { published: at(1) }).text
      assert.equal(await upload(later, address), 'IPP_DIR_WORK')
      await publish(b)
      assert.equal(await upload(later, address), 201)
      assert.equal(b.registry.counters.get('toll.listed'), 1)
      // From elsewhere nobody can say that he is that node; and who comes from there cannot be another one.
      assert.equal(await upload(describe('alder', { published: at(2) }).text, '192.0.2.1'), 'IPP_DIR_WORK')
      assert.equal(await upload(describe('birch', { address }).text, address), 'IPP_DIR_CONFLICT')
      // Who fell out of the document is a newcomer again.
      await publish(b, 4 * PERIOD)
      assert.equal(
        await upload(describe('alder', { published: at(4 * PERIOD) }).text, address),
        'IPP_DIR_WORK',
      )
    },
    { uploads: 'own-address', toll: new Toll({ work: 6, tokens: () => new Map(), crypto }) },
  ))

test('one source cannot ask without end; others are not concerned', () =>
  bench(
    async ({ app, clock, registry }) => {
      const upload = (remoteAddress: string) =>
        app.inject({ method: 'POST', url: '/v1/descriptor', payload: 'x', remoteAddress })
      for (let i = 0; i < 3; i++) assert.equal((await upload('192.0.2.1')).statusCode, 415)
      const refusal = await upload('192.0.2.1')
      assert.equal(refusal.statusCode, 429)
      assert.equal(refusal.json().error.code, 'IPP_DIR_RATE_LIMITED')
      assert.equal(refusal.headers['retry-after'], '10')
      assert.equal((await upload('192.0.2.2')).statusCode, 415)
      assert.equal((await app.inject({ url: '/v1/consensus', remoteAddress: '192.0.2.1' })).statusCode, 200)
      clock.seconds += 1
      assert.equal((await upload('192.0.2.1')).statusCode, 415)
      assert.equal((await upload('192.0.2.1')).statusCode, 429)
      assert.equal(registry.counters.get('refused.IPP_DIR_RATE_LIMITED'), 2)
    },
    { limits: { uploads: { burst: 3, perSecond: 1 } } },
  ))

test('random bodies are refused with a named error and store nothing', () =>
  bench(async (b) => {
    const alder = Buffer.from(describe('alder').text)
    for (let i = 0; i < 200; i++) {
      const noise = Buffer.from(alder)
      const place = crypto.random(4)
      noise[Buffer.from(place).readUInt32BE() % noise.length]! ^= 1 + (place[0]! % 255)
      const { status, code } = await b.upload(i % 2 === 0 ? noise : Buffer.from(crypto.random(i)))
      assert.ok(status >= 400 && status < 500 && code !== undefined, `${status} ${code}`)
    }
    assert.equal(b.registry.size, 0)
  }))
