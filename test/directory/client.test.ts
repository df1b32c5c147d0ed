import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { brotliCompressSync } from 'node:zlib'
import { Agent } from 'undici'
import { toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { DirectoryClient, type DirectoryClientOptions } from '#directory/client'
import { signConsensus } from '#directory/consensus'
import { type RunningDirectory, startDirectory } from '#directory/daemon'
import {
  AUTHORITY,
  at,
  crypto,
  describe,
  draft,
  keyPair,
  listed,
  ManualClock,
  PERIOD,
  PLAN,
  refused,
  SILENT,
  START,
  value,
} from './network.ts'

const LOOPBACK = '127.0.0.1'
const GENEROUS = { burst: 10_000, perSecond: 1 }

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-directory-'))
  try {
    await body(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const directoryIn = (folder: string, clock = new ManualClock(), port = 0): Promise<RunningDirectory> =>
  startDirectory({
    listen: { address: LOOPBACK, port },
    key: AUTHORITY,
    stateDir: join(folder, 'deep', 'state'),
    plan: PLAN,
    period: PERIOD,
    crypto,
    log: SILENT,
    clock: { unixTime: () => clock.unixTime(), monotonic: () => performance.now() as never },
    limits: { uploads: GENEROUS, reads: GENEROUS },
    uploads: 'anywhere',
  })

function clientOf(port: number, changes: Partial<DirectoryClientOptions> = {}): DirectoryClient {
  return new DirectoryClient({
    urls: [`http://${LOOPBACK}:${port}`],
    authorities: [AUTHORITY.publicKey],
    crypto,
    unixTime: () => at(10),
    timeout: 3000,
    ...changes,
  })
}

/** An HTTP server that may lie. */
async function withServer(handler: RequestListener, body: (port: number) => Promise<void>): Promise<void> {
  const server = createServer(handler)
  await new Promise<void>((ready) => server.listen(0, LOOPBACK, ready))
  try {
    await body((server.address() as AddressInfo).port)
  } finally {
    server.closeAllConnections()
    await new Promise((done) => server.close(done))
  }
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return
    await new Promise((wake) => setTimeout(wake, 50))
  }
  assert.fail(`this never came true: ${what}`)
}

test('over a real port: publish, fetch, nothing new, then something new', () =>
  inFolder(async (folder) => {
    const directory = await directoryIn(folder)
    const dispatcher = new Agent()
    try {
      const client = clientOf(directory.port, { dispatcher })
      assert.deepEqual([client.current], [undefined])
      assert.deepEqual(await client.publish(describe('alder').text), { ok: true, value: { known: false } })
      assert.deepEqual(await client.publish(describe('alder').text), { ok: true, value: { known: true } })
      await until(
        'alder is listed',
        async () => value(await client.fetchConsensus()).consensus.nodes.length === 1,
      )
      assert.equal(value(await client.fetchConsensus()).kind, 'unchanged')
      assert.equal(directory.status().counters['consensus.unchanged']! >= 1, true)
      assert.deepEqual(await client.publish(describe('birch').text), { ok: true, value: { known: false } })
      await until(
        'birch is listed',
        async () => value(await client.fetchConsensus()).consensus.nodes.length === 2,
      )
      assert.equal(client.current?.nodes.length, 2)
      const { pid, counters, now, alarms, document, ...status } = directory.status()
      assert.deepEqual([alarms, document?.signatures], [[], 1])
      assert.ok(now >= START)
      assert.equal(pid, process.pid)
      assert.equal(counters['descriptor.accepted'], 2)
      assert.deepEqual(status, {
        role: 'directory',
        nodes: 2,
        serial: client.current?.serial,
        validUntil: client.current?.validUntil,
        publicKey: toHex(AUTHORITY.publicKey),
        certificates: [],
      })
      refused(
        await client.publish(describe('alder', { published: at(-1) }).text),
        'IPP_DIR_REPLAYED',
        /answered/,
      )
      refused(await client.publish('x'.repeat(10_000)), 'IPP_DIR_OVERSIZED')
    } finally {
      await directory.close()
      await dispatcher.close()
    }
  }))

test('the client survives the directory until its document ends, also through a restart of its own', () =>
  inFolder(async (folder) => {
    const cacheFile = join(folder, 'consensus')
    const directory = await directoryIn(folder)
    const first = clientOf(directory.port, { cacheFile })
    assert.deepEqual(await first.restore(), { ok: true, value: undefined })
    const { consensus } = value(await first.fetchConsensus())
    assert.equal((await stat(cacheFile)).mode & 0o777, 0o600)
    await directory.close()
    refused(
      await first.fetchConsensus(),
      'IPP_DIR_UNREACHABLE',
      /ECONNREFUSED.*usable until 2026-01-01T03:00:00Z$/,
    )
    assert.deepEqual(first.current, consensus)

    let now = at(3 * PERIOD - 1)
    const second = clientOf(directory.port, { cacheFile, unixTime: () => now })
    assert.deepEqual(await second.restore(), { ok: true, value: consensus })
    now = at(3 * PERIOD)
    assert.equal(second.current, undefined)
    refused(await second.fetchConsensus(), 'IPP_DIR_UNREACHABLE', /no valid document$/)
    refused(await clientOf(1, { cacheFile, unixTime: () => now }).restore(), 'IPP_DIR_EXPIRED')
    refused(
      await clientOf(1, { cacheFile, authorities: [keyPair('x').publicKey] }).restore(),
      'IPP_DIR_BAD_SIGNATURE',
    )
    await writeFile(cacheFile, (await readFile(cacheFile)).subarray(0, 40))
    refused(await clientOf(1, { cacheFile }).restore(), 'IPP_DIR_MALFORMED')
    refused(await clientOf(1, { cacheFile: folder }).restore(), 'IPP_STATE_UNUSABLE')
  }))

test('a document that cannot be kept is used all the same, and the fact is told', () =>
  inFolder(async (folder) => {
    const directory = await directoryIn(folder)
    try {
      const client = clientOf(directory.port, { cacheFile: join(folder, 'missing', 'consensus') })
      const fetched = value(await client.fetchConsensus())
      assert.equal(fetched.unkept?.code, 'IPP_STATE_UNUSABLE')
      assert.deepEqual(client.current, fetched.consensus)
    } finally {
      await directory.close()
    }
  }))

const document = (serial: number, names: readonly string[] = ['alder'], signer = AUTHORITY) =>
  value(signConsensus(draft(listed(names), { serial }), [signer], crypto)).text

test('a directory that lies is refused by name, and the last good document stays', async () => {
  let answer: { status?: number; headers?: Record<string, string>; body: string | Buffer } = { body: '' }
  const handler: RequestListener = (_request, response) => {
    response.writeHead(answer.status ?? 200, answer.headers)
    response.end(answer.body)
  }
  await withServer(handler, async (port) => {
    const client = clientOf(port)
    const says = (body: string | Buffer, headers: Record<string, string> = {}, status = 200) => {
      answer = { status, headers, body }
      return client.fetchConsensus()
    }
    refused(await says('', {}, 304), 'IPP_DIR_EXPIRED')
    const good = document(7)
    assert.equal(value(await says(good)).kind, 'new')
    assert.equal(value(await says(good)).kind, 'unchanged')
    refused(await says(document(6)), 'IPP_DIR_REPLAYED', /serial 6/)
    refused(await says(document(7, ['birch'])), 'IPP_DIR_REPLAYED', /two documents with serial 7/)
    refused(await says(document(9, ['alder'], keyPair('mallory'))), 'IPP_DIR_BAD_SIGNATURE', /usable until/)
    refused(await says(good.replace('"serial":7', '"serial":9')), 'IPP_DIR_BAD_SIGNATURE')
    refused(await says('<html>\nlogin here</html>\n'), 'IPP_DIR_MALFORMED')
    refused(await says('{}\n'), 'IPP_DIR_BAD_SIGNATURE', /no signature/)
    refused(await says(''), 'IPP_DIR_MALFORMED')
    refused(await says('moved', { location: 'http://192.0.2.1/' }, 302), 'IPP_DIR_UNREACHABLE', /status 302/)
    refused(
      await says('{"error":{"code":"IPP_NO","message":"x"}}', {}, 500),
      'IPP_DIR_UNREACHABLE',
      /status 500/,
    )
    refused(await says('{"error":7}', {}, 500), 'IPP_DIR_UNREACHABLE')
    refused(
      await says(JSON.stringify({ error: { code: 'IPP_DIR_POOL', message: 'a\nb\u001b[31m' } }), {}, 503),
      'IPP_DIR_POOL',
      /a\?b\?\[31m/,
    )
    refused(await says('not brotli', { 'content-encoding': 'br' }), 'IPP_DIR_UNREACHABLE')
    refused(await says(good, { 'content-encoding': 'rot13' }), 'IPP_DIR_UNREACHABLE', /coding/)
    // 20 MB in a few octets, and 17 MiB in full.
    const bomb = brotliCompressSync(Buffer.alloc(20_000_000))
    assert.ok(bomb.length < 1000)
    refused(await says(bomb, { 'content-encoding': 'br' }), 'IPP_DIR_OVERSIZED')
    refused(await says(Buffer.alloc(17 * 1024 * 1024)), 'IPP_DIR_OVERSIZED')
    assert.equal(client.current?.serial, 7)
    assert.equal(value(await says(document(8))).kind, 'new')
  })
})

test('a directory that lost its memory may count from one when the last document has expired', async () => {
  let body = document(50)
  let now = at(10)
  await withServer(
    (_request, response) => response.end(body),
    async (port) => {
      const client = clientOf(port, { unixTime: () => now })
      value(await client.fetchConsensus())
      now = at(3 * PERIOD + 10)
      body = value(
        signConsensus(draft([], { serial: 1, validAfter: at(3 * PERIOD) }), [AUTHORITY], crypto),
      ).text
      assert.equal(value(await client.fetchConsensus()).consensus.serial, 1)
    },
  )
})

test('a directory cannot mark a client: the tag sent is a function of the document', async () => {
  const tags: unknown[] = []
  const paths: unknown[] = []
  const headers: string[][] = []
  const text = document(7)
  const handler: RequestListener = (request, response) => {
    tags.push(request.headers['if-none-match'])
    paths.push(request.url)
    headers.push(Object.keys(request.headers).sort())
    response.writeHead(200, { etag: '"client-number-17"', 'set-cookie': 'id=17' })
    response.end(text)
  }
  await withServer(handler, async (port) => {
    const client = clientOf(port)
    value(await client.fetchConsensus())
    value(await client.fetchConsensus())
  })
  const name = toHex(crypto.hash('sha256', Buffer.from(text.slice(0, text.indexOf('\n')))))
  // What came for the diff was none, so the whole was asked for.
  assert.deepEqual(tags, [undefined, `W/"${name}"`, `W/"${name}"`])
  assert.deepEqual(paths, ['/v1/consensus', `/v1/consensus/diff/${name}`, '/v1/consensus'])
  assert.deepEqual(headers[0], ['accept-encoding', 'connection', 'host'])
})

test('calls at the same time share one request; silence ends in time', async () => {
  let requests = 0
  const silent: RequestListener = () => {
    requests++
  }
  await withServer(silent, async (port) => {
    const client = clientOf(port, { timeout: 300 })
    const answers = await Promise.all([client.fetchConsensus(), client.fetchConsensus()])
    for (const answer of answers) refused(answer, 'IPP_DIR_UNREACHABLE', /no answer within 0.3 s/)
    assert.equal(requests, 1)
  })
})

test('daemon: port in use, foreign address, state in use: one named error, nothing left open', () =>
  inFolder(async (folder) => {
    const directory = await directoryIn(folder)
    const fails = (code: string, start: () => Promise<unknown>) =>
      assert.rejects(start, (error) => error instanceof IpprivError && error.code === code)
    try {
      await inFolder(async (other) => {
        await fails('IPP_HOST_PORT_IN_USE', () => directoryIn(other, new ManualClock(), directory.port))
        // The store was closed again.
        await (await directoryIn(other)).close()
      })
      await fails('IPP_STATE_UNUSABLE', () => directoryIn(folder))
      const file = join(folder, 'file')
      await writeFile(file, '')
      await fails('IPP_STATE_UNUSABLE', () => directoryIn(file))
      await fails('IPP_HOST_ADDRESS', () =>
        startDirectory({
          listen: { address: '192.0.2.1', port: 0 },
          key: AUTHORITY,
          stateDir: join(folder, 'second'),
          plan: PLAN,
          period: PERIOD,
          crypto,
          log: SILENT,
        }),
      )
    } finally {
      await directory.close()
      await directory.close()
    }
  }))

test('daemon: closing does not wait for idle or half-sent requests', () =>
  inFolder(async (folder) => {
    const directory = await directoryIn(folder)
    const socket = connect(directory.port, LOOPBACK)
    const gone = new Promise((done) => socket.once('close', done))
    socket.on('error', () => undefined)
    await new Promise<void>((up) => socket.once('connect', up))
    socket.write(
      'POST /v1/descriptor HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n{',
    )
    await new Promise((wake) => setTimeout(wake, 50))
    const began = performance.now()
    await directory.close()
    await gone
    assert.ok(performance.now() - began < 2000)
  }))

test('daemon: a 10 MB body over the wire is refused while it comes', () =>
  inFolder(async (folder) => {
    const directory = await directoryIn(folder)
    try {
      const socket = connect(directory.port, LOOPBACK)
      socket.on('error', () => undefined)
      let answer = ''
      socket.on('data', (part) => {
        answer += part.toString('latin1')
      })
      const closed = new Promise((done) => socket.once('close', done))
      socket.write(
        'POST /v1/descriptor HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n',
      )
      const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
      for (let i = 0; i < 160 && !socket.destroyed; i++) {
        if (!socket.write(chunk)) await new Promise((drained) => setTimeout(drained, 5))
        if (answer !== '') break
      }
      socket.end()
      await closed
      // Our writes after the refusal may provoke a reset that overtakes the answer: then it is only counted.
      if (answer !== '') assert.match(answer, /^HTTP\/1.1 413 .*IPP_DIR_OVERSIZED/s)
      value(await clientOf(directory.port).fetchConsensus())
      assert.equal(directory.status().counters['refused.IPP_DIR_OVERSIZED'], 1)
    } finally {
      await directory.close()
    }
  }))

test('several servers: the next is asked when one is dead, lies, or lags; other signatures are no other document', async () => {
  const keys = ['p', 'q', 'r'].map((seed) => keyPair(seed))
  const [p, q, r] = keys as [(typeof keys)[0], (typeof keys)[0], (typeof keys)[0]]
  const serial = at(0) / PERIOD
  const sign = (...who: typeof keys) =>
    value(signConsensus(draft(listed(['alder']), { serial }), who, crypto)).text
  const [pq, qr, one] = [sign(p, q), sign(q, r), sign(p)]
  let served = pq
  const good: RequestListener = (_request, reply) => void reply.end(served)
  const bad: RequestListener = (_request, reply) => void reply.end(one)
  await withServer(good, (goodPort) =>
    withServer(bad, async (badPort) => {
      const url = (port: number) => `http://${LOOPBACK}:${port}`
      const trust = { authorities: keys.map((k) => k.publicKey), threshold: 2 }
      const client = clientOf(goodPort, { ...trust, urls: [url(1), url(badPort), url(goodPort)] })
      assert.equal(value(await client.fetchConsensus()).kind, 'new')
      served = qr
      assert.equal(value(await client.fetchConsensus()).kind, 'unchanged')
      // Too few signatures over what it has: nothing new. Over anything else: nothing.
      served = one
      assert.equal(value(await client.fetchConsensus()).kind, 'unchanged')
      served = value(
        signConsensus(draft([], { serial: serial + 1, validAfter: at(PERIOD) }), [p], crypto),
      ).text
      const later = { ...trust, urls: [url(goodPort)] as [string], unixTime: () => at(PERIOD) }
      const eager = clientOf(goodPort, later)
      refused(await eager.fetchConsensus(), 'IPP_DIR_BAD_SIGNATURE', /1 valid signatures.*no valid document/)
      assert.equal(eager.counters.get('refused.IPP_DIR_BAD_SIGNATURE'), 1)
      const hopeless = clientOf(goodPort, { ...trust, urls: [url(badPort), url(1)] })
      refused(await hopeless.fetchConsensus(), 'IPP_DIR_BAD_SIGNATURE', /no valid document/)
      // A descriptor has to be taken by as many as have to sign.
      refused(await hopeless.publish(describe('alder').text), 'IPP_DIR_UNREACHABLE')
    }),
  )
})

test('authorities that moved are asked where they are now', () =>
  withServer(
    (_request, reply) =>
      void reply.end(value(signConsensus(draft(listed(['alder'])), [AUTHORITY], crypto)).text),
    async (port) => {
      const client = clientOf(1)
      refused(await client.fetchConsensus(), 'IPP_DIR_UNREACHABLE')
      const servers = [{ url: `http://${LOOPBACK}:${port}` }]
      client.believe({ authorities: [AUTHORITY.publicKey], threshold: 1, servers })
      assert.equal(value(await client.fetchConsensus()).kind, 'new')
      // What those of before signed is of no use to those who do not believe them any more.
      client.believe({ authorities: [keyPair('x').publicKey], threshold: 1, servers })
      assert.equal(client.current, undefined)
    },
  ))
