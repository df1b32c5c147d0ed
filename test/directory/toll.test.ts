/** What newcomers pay: work over the very document, or a token; and what those get who bring neither. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { request } from 'undici'
import { toHex, utf8 } from '#base/bytes'
import { nobleCrypto } from '#crypto/noble'
import { DirectoryClient } from '#directory/client'
import { type RunningDirectory, startDirectory } from '#directory/daemon'
import { isProof, readTokens, tokenKey, tokenProof } from '#directory/token'
import { MOST_WORK, WorkSearch, workOf } from '#directory/work'
import {
  AUTHORITY,
  at,
  crypto,
  describe,
  ManualClock,
  PERIOD,
  PLAN,
  refused,
  SILENT,
  value,
} from './network.ts'

const BITS = 8
const TOKEN = crypto.hash('sha256', utf8('a token'))

test('a nonce has the bits it was looked for, by other hands, and with no other document', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 0, max: 9 }), (document, bits) => {
      const search = new WorkSearch(document, nobleCrypto)
      let nonce: string | undefined
      for (let turn = 0; nonce === undefined && turn < 1000; turn++) nonce = search.look(bits, 16)
      assert.ok(nonce !== undefined)
      const found = workOf(nonce, document, crypto)!
      assert.ok(found >= bits)
      // The formula, written down a second time.
      const hash = createHash('sha256')
        .update('ippriv work 1\n')
        .update(createHash('sha256').update(document).digest())
        .update(Buffer.from(nonce, 'hex'))
        .digest('hex')
      const binary = BigInt(`0x${hash}`).toString(2).padStart(256, '0')
      assert.equal(binary.indexOf('1'), found)
    }),
    { numRuns: 50 },
  )
})

test('a search goes on where it ended, and what it has is enough for less', () => {
  const search = new WorkSearch(utf8('document'), crypto)
  assert.equal(search.look(12, 1), undefined)
  const hard = search.look(12, 1e6)
  assert.equal(search.look(3, 0), hard)
  assert.equal(search.look(40, 10), undefined)
})

test('what is no nonce is none', () => {
  for (const header of [
    '',
    '0',
    '0'.repeat(15),
    '0'.repeat(17),
    '0'.repeat(8000),
    'g'.repeat(16),
    'A'.repeat(16),
  ])
    assert.equal(workOf(header, utf8('x'), crypto), undefined, header.slice(0, 20))
})

test('a token frees the document it was shown for, and none else', () => {
  const [one, other] = [utf8('one'), utf8('other')]
  const line = `${toHex(tokenKey(TOKEN, crypto))} for the nodes of Alice\n`
  const book = value(readTokens(`# tokens\n\n${line}`, crypto))
  const header = tokenProof(TOKEN, one, crypto)
  assert.ok(!header.includes(toHex(TOKEN)), 'the token itself does not travel')
  assert.ok(isProof(header, one, book, crypto))
  assert.ok(isProof(tokenProof(TOKEN, one, nobleCrypto), one, book, nobleCrypto))
  const stranger = tokenProof(crypto.hash('sha256', utf8('another token')), one, crypto)
  const cut = header.slice(0, -1)
  for (const wrong of [stranger, cut, `${header}0`, header.toUpperCase(), '', ':', 'x'.repeat(8000)])
    assert.ok(!isProof(wrong, one, book, crypto), wrong.slice(0, 90))
  assert.ok(!isProof(header, other, book, crypto))
  assert.ok(!isProof(header, one, new Map(), crypto))
  for (const bad of ['x', '00', `${'0'.repeat(65)}`, `${line}nonsense`])
    refused(readTokens(bad, crypto), 'IPP_CONFIG_INVALID')
  const many = Array.from({ length: 1001 }, (_, i) => i.toString(16).padStart(64, '0')).join('\n')
  refused(readTokens(many, crypto), 'IPP_CONFIG_INVALID', /more than 1000/)
})

interface Answer {
  readonly status: number
  readonly error?: { readonly code: string; readonly message: string; readonly work?: number }
}

async function withDirectory(
  options: { uploads?: 'anywhere'; tokens?: string },
  body: (tools: {
    directory: RunningDirectory
    clock: ManualClock
    post: (text: string, headers?: Record<string, string>) => Promise<Answer>
    clientOf: (token?: Uint8Array) => DirectoryClient
  }) => Promise<void>,
): Promise<void> {
  const stateDir = await mkdtemp(join(tmpdir(), 'ippriv-toll-'))
  const clock = new ManualClock()
  let tokens: { tokens?: string } = {}
  if (options.tokens !== undefined) {
    tokens = { tokens: join(stateDir, 'tokens') }
    await writeFile(join(stateDir, 'tokens'), options.tokens)
  }
  const directory = await startDirectory({
    listen: { address: '127.0.0.1', port: 0 },
    key: AUTHORITY,
    stateDir,
    plan: PLAN,
    period: PERIOD,
    crypto,
    log: SILENT,
    clock,
    work: BITS,
    uploads: options.uploads ?? 'own-address',
    limits: { uploads: { burst: 1000, perSecond: 1 } },
    ...tokens,
  })
  const url = `http://127.0.0.1:${directory.port}`
  try {
    await body({
      directory,
      clock,
      post: async (text, headers = {}) => {
        const reply = await request(`${url}/v1/descriptor`, {
          method: 'POST',
          headers: { 'content-type': 'text/plain', ...headers },
          body: text,
        })
        return { status: reply.statusCode, ...((await reply.body.json()) as object) }
      },
      clientOf: (token) =>
        new DirectoryClient({
          urls: [url],
          authorities: [AUTHORITY.publicKey],
          crypto,
          unixTime: () => clock.unixTime(),
          ...(token === undefined ? {} : { token }),
        }),
    })
  } finally {
    await directory.close()
    await rm(stateDir, { recursive: true, force: true })
  }
}

const nonceOf = (text: string, bits = BITS): string => new WorkSearch(utf8(text), crypto).look(bits, 1e6)!

test('uploads of newcomers without work are refused before they are read, by name and with the bits', () =>
  withDirectory({ uploads: 'anywhere' }, async ({ directory, post }) => {
    const alder = describe('alder').text
    const poor = [...'0123456789abcdef']
      .map((digit) => digit.repeat(16))
      .find((nonce) => workOf(nonce, utf8(alder), crypto)! < BITS)!
    const rows: [what: string, headers: Record<string, string>, why: RegExp][] = [
      ['none', {}, /there is none/],
      ['too long', { 'ippriv-work': '0'.repeat(100) }, /16 hex digits/],
      ['no hex', { 'ippriv-work': '<script>alert(1)' }, /16 hex digits/],
      ['too little', { 'ippriv-work': poor }, /it has [0-7]$/],
      ["another document's", { 'ippriv-work': anothers(alder) }, /it has [0-7]$/],
      ['a strange token', { 'ippriv-token': tokenProof(TOKEN, utf8(alder), crypto) }, /token is not known/],
    ]
    for (const [what, headers, why] of rows) {
      const { status, error } = await post(alder, headers)
      assert.deepEqual([status, error?.code, error?.work], [403, 'IPP_DIR_WORK', BITS], what)
      assert.match(error!.message, why, what)
      assert.doesNotMatch(error!.message, /[<>]/)
    }
    // What is no document at all costs no more: nobody looks into it.
    assert.equal((await post('hello')).error?.code, 'IPP_DIR_WORK')
    const { counters } = directory.status()
    assert.equal(counters['refused.IPP_DIR_WORK'], rows.length + 1)
    assert.equal(counters['refused.IPP_DIR_MALFORMED'], undefined)
    const paid = await post(alder, { 'ippriv-work': nonceOf(alder) })
    assert.equal(paid.status, 201)
    // Work does not make a bad document good.
    const forged = alder.replace('"port":500', '"port":501')
    assert.equal(
      (await post(forged, { 'ippriv-work': nonceOf(forged) })).error?.code,
      'IPP_DIR_BAD_SIGNATURE',
    )
    assert.equal(directory.status().counters['toll.work'], 2)
  }))

/** Good work, for another document, which is poor for this one. */
function anothers(text: string): string {
  for (let i = 0; i < 100; i++) {
    const nonce = nonceOf(describe('birch', { published: at(-i) }).text)
    if (workOf(nonce, utf8(text), crypto)! < BITS) return nonce
  }
  return assert.fail('all work is good for everything')
}

test('a client is asked, works and comes again; with a token it is not asked', async () => {
  const line = `${toHex(tokenKey(TOKEN, crypto))} alice\n`
  await withDirectory({ uploads: 'anywhere', tokens: line }, async ({ directory, clientOf }) => {
    assert.deepEqual(value(await clientOf().publish(describe('alder').text)), { known: false })
    let { counters } = directory.status()
    assert.deepEqual([counters['refused.IPP_DIR_WORK'], counters['toll.work']], [1, 1])
    assert.deepEqual(value(await clientOf(TOKEN).publish(describe('birch').text)), { known: false })
    ;({ counters } = directory.status())
    assert.deepEqual([counters['refused.IPP_DIR_WORK'], counters['toll.token']], [1, 1])
    // A token that the directory does not know is no harm.
    const stranger = clientOf(crypto.hash('sha256', utf8('x')))
    assert.deepEqual(value(await stranger.publish(describe('cedar').text)), { known: false })
    assert.equal(directory.status().counters['toll.work'], 2)
  })
})

test('tokens that are not there, or malformed, keep a directory from starting', async () => {
  await assert.rejects(
    withDirectory({ tokens: 'nonsense' }, async () => undefined),
    { code: 'IPP_CONFIG_INVALID', message: /tokens: line 1/ },
  )
})

test('what a directory may ask of a client is bounded, and work can be ended', async () => {
  let work: unknown
  let uploads = 0
  const answer: RequestListener = (incoming, reply) => {
    uploads++
    incoming.resume()
    reply.statusCode = 403
    reply.end(JSON.stringify({ error: { code: 'IPP_DIR_WORK', message: 'work', work } }))
  }
  const server = createServer(answer)
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const { port } = server.address() as AddressInfo
  const client = new DirectoryClient({
    urls: [`http://127.0.0.1:${port}`],
    authorities: [AUTHORITY.publicKey],
    crypto,
    unixTime: () => at(0),
  })
  try {
    for (work of [MOST_WORK + 1, 1e9, -1, 0.5, '8', null, undefined]) {
      uploads = 0
      refused(await client.publish(describe('alder').text), 'IPP_DIR_WORK')
      assert.equal(uploads, 1, `${work}`)
    }
    // It comes again once, and only once.
    work = BITS
    uploads = 0
    refused(await client.publish(describe('alder').text), 'IPP_DIR_WORK')
    assert.equal(uploads, 2)
    // The most there may be takes long: meanwhile timers fire, and one of them ends it.
    work = MOST_WORK
    uploads = 0
    const ending = new AbortController()
    let turns = 0
    const timer = setInterval(() => {
      if (++turns === 5) ending.abort()
    }, 1)
    refused(await client.publish(describe('birch').text, ending.signal), 'IPP_DIR_WORK')
    clearInterval(timer)
    assert.equal(uploads, 1)
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
