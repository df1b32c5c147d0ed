/** The pages as HTML, without a browser. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { brotliDecompressSync } from 'node:zlib'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Ip } from '#base/ip'
import { spanText } from '#base/span'
import { unixTime } from '#base/time'
import type { ConsensusNode } from '#directory/documents'
import { factsOf } from '#directory/page/facts'
import type { Outlook } from '#directory/page/outlook'
import { find, readWish, wishPath } from '#directory/page/table'
import { agoText, countText, rateText } from '#directory/page/wording'
import { pageRoutes } from '#directory/routes/page'
import { PERIOD, START } from '../network.ts'
import { NOW, outlookOf } from './population.ts'

async function serve(outlook: () => Outlook | undefined, body: (app: FastifyInstance) => Promise<void>) {
  const app = Fastify()
  pageRoutes(app, outlook)
  try {
    await body(app)
  } finally {
    await app.close()
  }
}

const textOf = async (app: FastifyInstance, url: string, status = 200): Promise<string> => {
  const reply = await app.inject({ url })
  assert.equal(reply.statusCode, status, url)
  assert.match(String(reply.headers['content-type']), /^text\/html/)
  assert.match(String(reply.headers['content-security-policy']), /^default-src 'none'; style-src 'sha256-/)
  assertSound(reply.body, url)
  return reply.body
}

/** No script, nothing from elsewhere, every tag closed in its order, ids once, headings and landmarks where they belong. */
function assertSound(page: string, url: string): void {
  assert.doesNotMatch(
    page,
    /<script|javascript:|\son[a-z]+=|style="|https?:\/\/(?!www\.w3\.org\/2000\/svg)/i,
    url,
  )
  const open: string[] = []
  for (const [, close, name = '', rest = ''] of page
    .replace(/<style>[\s\S]*?<\/style>/, '')
    .matchAll(/<(\/?)([a-z0-9]+)((?:"[^"]*"|[^">])*)>/gi)) {
    if (VOID.has(name) || rest.endsWith('/')) continue
    if (close === '') open.push(name)
    else assert.equal(open.pop(), name, `${url}: </${name}>`)
  }
  assert.deepEqual(open, [], url)
  const ids = [...page.matchAll(/\sid="([^"]*)"/g)].map(([, id]) => id!)
  assert.equal(new Set(ids).size, ids.length, url)
  for (const [, id = ''] of page.matchAll(/aria-labelledby="([^"]*)"/g)) assert.ok(ids.includes(id), id)
  assert.equal([...page.matchAll(/<h1[ >]/g)].length, 1, url)
  for (const landmark of ['header', 'nav', 'main', 'footer'])
    assert.ok(page.includes(`<${landmark}`), landmark)
  for (const [head = ''] of page.matchAll(/<th(?:\s[^>]*)?>/g)) assert.match(head, /scope="(col|row)"/, url)
}

const VOID = new Set(['meta', 'link', 'input', 'br', 'path', 'circle', 'rect'])

test('a thousand nodes: every page is sound, and there for everybody', () => {
  const outlook = outlookOf()
  return serve(
    () => outlook,
    async (app) => {
      const page = await textOf(app, '/')
      assert.match(page, /<dt>Nodes<\/dt><dd>1,000</)
      assert.match(page, /All is well/)
      assert.match(page, /5 of 5 authorities signed it, 3 are needed/)
      assert.equal([...page.matchAll(/<a href="\/nodes\/[0-9a-f]{64}"><title>/g)].length, 1000)
      await textOf(app, '/nodes?page=10')
      await textOf(app, '/health')
      const { node } = factsOf(outlook.consensus.nodes.find(({ roles }) => roles.includes('exit'))!)
      const own = await textOf(app, `/nodes/${node.nodeId}`)
      assert.match(
        own,
        node.bandwidth === undefined ? /no history yet/ : /aria-label="Bandwidth of [a-z0-9-]+: /,
      )
      for (const said of [node.name, node.address, node.nodeId, 'reject 10.0.0.0/8'])
        assert.ok(own.includes(said), said)
      assert.equal(await textOf(app, `/nodes/${node.name}`), own)
      await textOf(app, `/nodes/${'0'.repeat(64)}`, 404)
      const odd = await textOf(app, '/nodes/%3Cb%3E%00', 404)
      assert.ok(!odd.includes('<b>') && !odd.includes('\0'))
      const icon = await app.inject({ url: '/icon.svg' })
      assert.equal(icon.headers['content-type'], 'image/svg+xml')
    },
  )
})

test('compressed it is small, and made once for all who look at the same', () => {
  let asked = 0
  const outlook = outlookOf()
  return serve(
    () => {
      asked++
      return outlook
    },
    async (app) => {
      const get = (url: string) => app.inject({ url, headers: { 'accept-encoding': 'br' } })
      const first = await get('/')
      assert.ok(first.rawPayload.length < 120_000, String(first.rawPayload.length))
      assert.equal(brotliDecompressSync(first.rawPayload).toString(), await textOf(app, '/'))
      assert.equal(asked, 2)
      const begin = performance.now()
      for (let i = 0; i < 50; i++) await get('/')
      assert.ok(performance.now() - begin < 2500, 'fifty pages that are ready')
      // What nobody asked for before must not push out everything.
      for (let i = 0; i < 200; i++) await get(`/nodes?q=${i}`)
    },
  )
})

test('searched by name, address, pool and id; sorted, filtered, cut into pages by the address alone', () =>
  serve(
    () => outlookOf(),
    async (app) => {
      const { nodes } = outlookOf().consensus
      const some = nodes[11]!
      const rows = (page: string) =>
        [...page.matchAll(/<tr><th scope="row"><a href="\/nodes\/([0-9a-f]+)"/g)].map(([, id]) => id!)
      for (const query of [
        some.name.toUpperCase(),
        some.address,
        some.nodeId.slice(0, 12),
        some.pool.address,
      ]) {
        const found = rows(await textOf(app, `/nodes?q=${encodeURIComponent(query)}`))
        assert.ok(found.includes(some.nodeId), query)
        assert.ok(found.length < 20, query)
      }
      assert.equal(rows(await textOf(app, '/nodes')).length, 100)
      const seen = new Set<string>()
      for (let page = 1; page <= 10; page++)
        for (const id of rows(await textOf(app, `/nodes?page=${page}`))) seen.add(id)
      assert.equal(seen.size, 1000)
      const exits = await textOf(app, '/nodes?flag=exit&sort=bandwidth&order=down')
      const speeds = rows(exits).map(
        (id) => factsOf(nodes.find(({ nodeId }) => nodeId === id)!).bandwidth ?? 0,
      )
      assert.deepEqual(
        speeds,
        speeds.toSorted((a, b) => b - a),
      )
      assert.match(exits, /aria-sort="descending"/)
      assert.match(
        await textOf(app, '/nodes?q=%3Cscript%3E%00'),
        /No node of the document has a name with “&#60;script&#62;�”/,
      )
      // Nonsense is not an error.
      for (const odd of [
        'page=0',
        'page=99999',
        'page=-1',
        'sort=constructor',
        'q=a&q=b',
        'flag=__proto__',
        `q=${'a'.repeat(3000)}`,
      ])
        await textOf(app, `/nodes?${odd}`)
    },
  ))

test('NUL and HTML in what a node says never come out unescaped', () => {
  const evil = `</title><script>alert(1)</script>\u0000\u202e"'&`
  const honest = outlookOf({ nodes: 3 })
  const [first, ...others] = honest.consensus.nodes
  // No decoder lets such a node in; the page does not rely on it.
  const bad = {
    ...first!,
    name: evil,
    software: evil,
    address: `1.2.3.4${evil}` as Ip,
    exitPolicy: [],
  } satisfies ConsensusNode
  const outlook: Outlook = {
    ...honest,
    consensus: { ...honest.consensus, nodes: [bad, ...others] },
    authorities: [{ name: evil, key: evil, signed: true, self: false }],
    alarms: [{ name: evil, authority: evil, since: START, last: START, detail: evil }],
  }
  return serve(
    () => outlook,
    async (app) => {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      const raw = /<script|alert\(1\)<|\u0000|\u202e/
      for (const url of [
        '/',
        '/nodes',
        '/health',
        `/nodes/${bad.nodeId}`,
        `/nodes?q=${encodeURIComponent(evil)}`,
      ])
        assert.doesNotMatch(await textOf(app, url), raw, url)
      assert.match(await textOf(app, '/'), /&#60;script&#62;/)
    },
  )
})

test('what is wrong is said, with since when', () => {
  const alarms = [
    { name: 'vote-missing', authority: 'elm', since: unixTime(NOW - 7300), last: unixTime(NOW) },
  ]
  return serve(
    () => outlookOf({ nodes: 5, alarms, unsigned: [4] }),
    async (app) => {
      assert.match(await textOf(app, '/'), /not all is well.*4 of 5 authorities signed it.*One alarm stands/s)
      const page = await textOf(app, '/health')
      assert.match(page, /vote-missing<\/th><td>elm<\/td>.*for 2 h 1 min/)
      assert.match(page, /<th scope="row">elm<\/th>.*<span class="ill">missing/)
    },
  )
})

test('a document that is stale, expired, unsigned, empty, or not there yet', async () => {
  const says = (outlook: Outlook | undefined, words: RegExp, status = 200) =>
    serve(
      () => outlook,
      async (app) => assert.match(await textOf(app, '/', status), words),
    )
  await says(outlookOf({ nodes: 0, now: START + PERIOD + 60 }), /stale: a new one was due 1 min ago/)
  await says(
    outlookOf({ nodes: 0, now: START + 3 * PERIOD + 60 }),
    /It does not work\..*The document expired 1 min ago/s,
  )
  await says(outlookOf({ nodes: 1, unsigned: [0, 1, 2] }), /It does not work/)
  await says(undefined, /No document yet/, 503)
})

test('one node, and ten thousand', async () => {
  for (const nodes of [1, 2, 10_000]) {
    const outlook = outlookOf({ nodes })
    await serve(
      () => outlook,
      async (app) => {
        const page = await textOf(app, '/')
        assert.doesNotMatch(page, /NaN|undefined|Infinity/)
        assert.ok(page.length < 1_200_000, String(page.length))
      },
    )
  }
})

test('wishes have one address each', () => {
  assert.equal(wishPath(readWish({ q: ' Alder ', page: '2', sort: 'nonsense' })), '/nodes?q=alder&page=2')
  assert.equal(wishPath(readWish({})), '/nodes')
  const facts = outlookOf({ nodes: 3 }).consensus.nodes.map(factsOf)
  assert.equal(find(facts, readWish({ page: '50' })).page, 1)
})

test('words', () => {
  assert.equal(spanText(0), '0 s')
  assert.equal(spanText(3600), '1 h')
  assert.equal(spanText(90_061), '1 d 1 h')
  assert.equal(agoText(START, unixTime(START + 7265)), '2 h ago')
  assert.equal(rateText(999_500), '1000 kbit/s')
  assert.equal(rateText(71_000_000), '71.0 Mbit/s')
  assert.equal(countText(1_234_567), '1,234,567')
})
