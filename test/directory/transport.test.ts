/** How documents travel: whole, as diffs, from mirrors; and what becomes of those that lie. */
import assert from 'node:assert/strict'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { brotliCompressSync } from 'node:zlib'
import { DirectoryClient, type DirectoryClientOptions } from '#directory/client'
import { signConsensus } from '#directory/consensus'
import { preparePublication } from '#directory/publication'
import { MAX_BASES, Shelf } from '#directory/shelf'
import { AUTHORITY, at, crypto, describe, draft, listed, PERIOD, refused, value } from './network.ts'

const LOOPBACK = '127.0.0.1'
const NAMES = Array.from({ length: 20 }, (_, i) => `node-${i}`)
const NODES = listed(NAMES)

/** The document of a period after START; in each another node has another port. */
const document = (period: number) => {
  const nodes = NODES.map((node, i) =>
    i === period % NODES.length ? { ...node, ...describe(NAMES[i]!, { port: 1000 + period }) } : node,
  )
  const changes = { serial: 7 + period, validAfter: at(period * PERIOD) }
  return value(signConsensus(draft(nodes, changes), [AUTHORITY], crypto))
}

const publication = async (period: number) => {
  const { text, consensus } = document(period)
  return await preparePublication(text, consensus, crypto)
}

type Answer = { status?: number; headers?: Record<string, string>; body?: string | Uint8Array }

/** A server whose answers the test makes, and what it was asked. */
class Server implements AsyncDisposable {
  readonly asked: string[] = []
  answer: (request: IncomingMessage) => Answer | Promise<Answer> = () => ({ status: 404 })
  readonly #server = createServer((request, reply) => void this.#reply(request, reply))

  static async open(): Promise<Server> {
    const server = new Server()
    await new Promise<void>((ready) => server.#server.listen(0, LOOPBACK, ready))
    return server
  }

  get url(): string {
    return `http://${LOOPBACK}:${(this.#server.address() as AddressInfo).port}`
  }

  /** Serves what is on a shelf, as dumb as a mirror may be: no conditions. */
  serve(shelf: Shelf): void {
    this.answer = async ({ url = '' }) => {
      const base = /^\/v1\/consensus\/diff\/(.*)$/.exec(url)?.[1]
      const packed = base === undefined ? shelf.current?.packed : await shelf.diffFrom(base)
      return packed === undefined
        ? { status: 404 }
        : { headers: { 'content-encoding': 'br' }, body: packed.br }
    }
  }

  async #reply(request: IncomingMessage, reply: Parameters<RequestListener>[1]): Promise<void> {
    this.asked.push((request.url ?? '').replace(/[0-9a-f]{64}/, 'NAME'))
    const { status = 200, headers = {}, body = '' } = await this.answer(request)
    reply.writeHead(status, headers).end(body)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((done) => this.#server.close(done))
  }
}

const DIFF = '/v1/consensus/diff/NAME'
const WHOLE = '/v1/consensus'

class Reader {
  now = at(10)
  readonly client: DirectoryClient

  constructor(server: Server, changes: Partial<DirectoryClientOptions> = {}) {
    this.client = new DirectoryClient({
      urls: [server.url],
      authorities: [AUTHORITY.publicKey],
      crypto,
      unixTime: () => this.now,
      timeout: 3000,
      ...changes,
    })
  }

  async fetch(): Promise<string> {
    const { kind, consensus } = value(await this.client.fetchConsensus())
    return `${kind} ${consensus.serial - 7}`
  }
}

test('whole at first, then a diff; from some hours ago too; from longer ago whole again', async () => {
  await using server = await Server.open()
  const shelf = new Shelf(crypto)
  server.serve(shelf)
  const reader = new Reader(server)
  shelf.put(await publication(0))
  assert.equal(await reader.fetch(), 'new 0')
  shelf.put(await publication(1))
  reader.now = at(PERIOD + 10)
  assert.equal(await reader.fetch(), 'new 1')
  for (const hour of [2, 3]) shelf.put(await publication(hour))
  reader.now = at(3 * PERIOD + 10)
  assert.equal(await reader.fetch(), 'new 3')
  assert.equal(reader.client.document?.text, document(3).text)
  assert.deepEqual(server.asked, [WHOLE, DIFF, DIFF])
  // An expired document is a base as good as any.
  for (let hour = 4; hour < 4 + MAX_BASES; hour++) shelf.put(await publication(hour))
  reader.now = at((3 + MAX_BASES) * PERIOD + 10)
  assert.equal(reader.client.current, undefined)
  assert.equal(await reader.fetch(), `new ${3 + MAX_BASES}`)
  assert.equal(server.asked.at(-1), DIFF)
  const later = 4 + MAX_BASES
  for (let hour = later; hour < later + MAX_BASES + 1; hour++) shelf.put(await publication(hour))
  reader.now = at((later + MAX_BASES) * PERIOD + 10)
  assert.equal(await reader.fetch(), `new ${later + MAX_BASES}`)
  assert.deepEqual(server.asked.slice(-2), [DIFF, WHOLE])
  assert.deepEqual(reader.client.counters.toJSON(), {
    'consensus.diff': 3,
    'consensus.whole': 2,
    'diff.IPP_DIR_UNREACHABLE': 1,
  })
})

test('a diff that lies, leads elsewhere, or is a bomb: counted by name, and the whole document is fetched', async () => {
  await using server = await Server.open()
  const shelf = new Shelf(crypto)
  server.serve(shelf)
  const { answer } = server
  shelf.put(await publication(0))
  const other = new Shelf(crypto)
  other.put(await publication(5))
  const foreign = (await publication(5)).name
  other.put(await publication(1))
  shelf.put(await publication(1))
  const honest = (await shelf.diffFrom((await publication(0)).name))!.identity
  const forOther = (await other.diffFrom(foreign))!.identity
  const bomb = brotliCompressSync(Buffer.alloc(40_000_000, 'a'))
  // Right in form, and of a document that nobody signed.
  const forged = Buffer.from(honest).toString('latin1').replace('"port\\":1001', '"port\\":2002')
  assert.notEqual(forged, Buffer.from(honest).toString('latin1'))
  const cases: readonly (readonly [Answer, string])[] = [
    [{ body: '<html>' }, 'diff.IPP_DIR_MALFORMED'],
    [{ body: honest.subarray(0, -1) }, 'diff.IPP_DIR_MALFORMED'],
    [{ body: forOther }, 'diff.IPP_DIR_DIFF'],
    [{ body: forged }, 'diff.IPP_DIR_DIFF'],
    [{ body: honest.map((octet) => octet ^ 1) }, 'diff.IPP_DIR_MALFORMED'],
    [{ body: 'x', status: 500 }, 'diff.IPP_DIR_UNREACHABLE'],
  ]
  for (const [lie, counter] of cases) {
    const reader = new Reader(server)
    server.answer = () => ({ body: document(0).text })
    assert.equal(await reader.fetch(), 'new 0')
    reader.now = at(PERIOD + 10)
    server.answer = (request) => (request.url === WHOLE ? answer(request) : lie)
    assert.equal(await reader.fetch(), 'new 1')
    assert.deepEqual(reader.client.counters.toJSON(), { 'consensus.whole': 2, [counter]: 1 })
  }
  const reader = new Reader(server)
  server.answer = () => ({ body: document(0).text })
  assert.equal(await reader.fetch(), 'new 0')
  server.answer = () => ({ body: bomb, headers: { 'content-encoding': 'br' } })
  refused(await reader.client.fetchConsensus(), 'IPP_DIR_OVERSIZED', /usable until/)
  // Told to go away, it goes away.
  server.answer = () => ({ status: 429 })
  const before = server.asked.length
  refused(await reader.client.fetchConsensus(), 'IPP_DIR_UNREACHABLE', /429/)
  assert.equal(server.asked.length, before + 1)
  assert.equal(reader.client.current?.serial, 7)
})

test('a diff that leads to a document nobody signed, or to an older one, is refused like the document', async () => {
  await using server = await Server.open()
  const serve = (from: number, text: string) => {
    server.answer = async (request) => {
      if (request.url === WHOLE) return { status: 404 }
      const { consensus } = document(from)
      const shelf = new Shelf(crypto)
      shelf.put(await preparePublication(document(from).text, consensus, crypto))
      shelf.put(await preparePublication(text, consensus, crypto))
      return { body: (await shelf.diffFrom((await publication(from)).name))!.identity }
    }
  }
  const reader = new Reader(server)
  server.answer = () => ({ body: document(1).text })
  reader.now = at(PERIOD + 10)
  assert.equal(await reader.fetch(), 'new 1')
  for (const [text, code] of [
    [document(2).text.replace('"serial":9', '"serial":99'), 'IPP_DIR_BAD_SIGNATURE'],
    [document(0).text, 'IPP_DIR_REPLAYED'],
    [document(9).text, 'IPP_DIR_EXPIRED'],
  ] as const) {
    serve(1, text)
    refused(await reader.client.fetchConsensus(), 'IPP_DIR_UNREACHABLE', /404/)
    assert.equal(reader.client.counters.get(`diff.${code}`), 1)
  }
  assert.equal(reader.client.current?.serial, 8)
})

test('mirrors: asked first; one that is behind the times, dead or lying costs a request and nothing else', async () => {
  await using authority = await Server.open()
  await using mirror = await Server.open()
  const [fresh, old] = [new Shelf(crypto), new Shelf(crypto)]
  authority.serve(fresh)
  mirror.serve(old)
  let mirrors = [{ url: mirror.url }]
  const reader = new Reader(authority, { mirrors: () => mirrors })
  fresh.put(await publication(0))
  old.put(await publication(0))
  assert.equal(await reader.fetch(), 'new 0')
  assert.deepEqual([mirror.asked, authority.asked], [[WHOLE], []])
  // It has the same as before, and that should be over.
  fresh.put(await publication(1))
  reader.now = at(PERIOD + 10)
  assert.equal(await reader.fetch(), 'new 1')
  assert.equal(reader.client.counters.get('consensus.stale'), 1)
  assert.deepEqual(authority.asked, [DIFF])
  // It has an older one than ours.
  assert.equal(await reader.fetch(), 'unchanged 1')
  assert.equal(reader.client.counters.get('refused.IPP_DIR_REPLAYED'), 1)
  // It has a newer one, of which the directory does not know yet.
  old.put(await publication(2))
  reader.now = at(2 * PERIOD + 10)
  const asked = authority.asked.length
  assert.equal(await reader.fetch(), 'new 2')
  assert.equal(authority.asked.length, asked)
  mirror.answer = () => ({ body: 'no consensus\n' })
  fresh.put(await publication(2))
  assert.equal(await reader.fetch(), 'unchanged 2')
  mirrors = [{ url: 'http://127.0.0.1:1' }]
  assert.equal(await reader.fetch(), 'unchanged 2')
  // The failure that is told is that of the directory.
  authority.answer = () => ({ status: 503 })
  refused(await reader.client.fetchConsensus(), 'IPP_DIR_UNREACHABLE', /status 503/)
  // A reader with nothing takes what is valid, though it is not fresh, when there is nothing else.
  mirrors = [{ url: mirror.url }]
  mirror.serve(old)
  const late = new Reader(authority, { mirrors: () => mirrors })
  late.now = at(4 * PERIOD)
  assert.equal(await late.fetch(), 'new 2')
  late.now = at(5 * PERIOD)
  assert.equal(late.client.current, undefined)
  refused(await late.client.fetchConsensus(), 'IPP_DIR_UNREACHABLE', /no valid document/)
})

test('a shelf keeps the last documents only, and offers no diff that saves nothing', async () => {
  const shelf = new Shelf(crypto)
  assert.deepEqual([shelf.current, await shelf.diffFrom('x')], [undefined, undefined])
  const first = await publication(0)
  shelf.put(first)
  for (let period = 1; period <= MAX_BASES; period++) shelf.put(await publication(period))
  assert.ok((await shelf.diffFrom(first.name)) !== undefined)
  shelf.put(await publication(MAX_BASES + 1))
  assert.equal(await shelf.diffFrom(first.name), undefined)
  const strangers = listed(NAMES.map((name) => `other-${name}`))
  const { text, consensus } = value(signConsensus(draft(strangers, { serial: 99 }), [AUTHORITY], crypto))
  shelf.put(await preparePublication(text, consensus, crypto))
  assert.equal(await shelf.diffFrom((await publication(MAX_BASES + 1)).name), undefined)
})
