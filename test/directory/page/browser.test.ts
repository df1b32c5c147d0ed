/** The page in a real browser: a thousand nodes, no scripts, nothing from elsewhere. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { pageRoutes } from '#directory/routes/page'
import { Browser, type Tab } from './browser.ts'
import { outlookOf } from './population.ts'

const outlook = outlookOf()

async function browse(body: (tab: Tab, origin: string) => Promise<void>): Promise<void> {
  const app = Fastify()
  pageRoutes(app, () => outlook)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const browser = await Browser.launch()
  try {
    await body(await browser.open(), `http://127.0.0.1:${port}`)
  } finally {
    await browser.close()
    await app.close()
  }
}

test('a thousand nodes are painted soon, nothing is asked of others, and nobody complains', () =>
  browse(async (tab, origin) => {
    await tab.view(1240, 1200, 'light')
    const begin = performance.now()
    await tab.go(`${origin}/`)
    const loaded = performance.now() - begin
    for (let i = 0; i < 100 && tab.firstPaint === undefined; i++) await sleep(50)
    assert.ok(tab.firstPaint !== undefined && tab.firstPaint < 10_000, `first paint: ${tab.firstPaint} ms`)
    assert.ok(loaded < 20_000, `loaded: ${loaded} ms`)
    for (const path of ['/health', '/nodes', `/nodes/${outlook.consensus.nodes[0]!.nodeId}`])
      await tab.go(origin + path)
    assert.ok(tab.requests.length >= 4)
    assert.deepEqual(
      tab.requests.filter((url) => !url.startsWith(`${origin}/`)),
      [],
    )
    assert.deepEqual(tab.complaints, [])
  }))

test('without scripts: the search finds by name and by address, a row leads to its node', () =>
  browse(async (tab, origin) => {
    await tab.send('Emulation.setScriptExecutionDisabled', { value: true })
    await tab.go(`${origin}/`)
    const { name, address, nodeId } = outlook.consensus.nodes[42]!
    for (const query of [name, address]) {
      await tab.submit('header input[name=q]', query)
      const found = await tab.html()
      assert.match(found, new RegExp(`<a href="/nodes/${nodeId}">${name}</a>`))
      assert.doesNotMatch(found, new RegExp(`>${outlook.consensus.nodes[43]!.name}<`))
      await tab.go(`${origin}/`)
    }
    await tab.submit('header input[name=q]', '<script>nobody')
    assert.match(await tab.html(), /No node of the document has a name with “&lt;script&gt;nobody”/)
    await tab.go(`${origin}/nodes/${nodeId}`)
    assert.ok((await tab.html()).includes(nodeId))
    assert.deepEqual(tab.complaints, [])
  }))

test('a screen reader finds landmarks, headings and tables with headers', () =>
  browse(async (tab, origin) => {
    await tab.go(`${origin}/nodes`)
    const roles = await tab.roles()
    const count = (role: string): number => roles.filter((node) => node.role === role).length
    for (const landmark of ['banner', 'main', 'contentinfo', 'search'])
      assert.equal(count(landmark), 1, landmark)
    assert.equal(count('columnheader'), 7)
    assert.equal(count('rowheader'), 100)
    assert.ok(roles.some(({ role, name }) => role === 'navigation' && name === 'Pages'))
    assert.deepEqual(
      roles.filter(
        ({ role, name }) => ['link', 'button', 'searchbox', 'combobox'].includes(role) && name.trim() === '',
      ),
      [],
    )
    await tab.go(`${origin}/`)
    const links = (await tab.roles()).filter(({ role, name }) => role === 'link' && /: .*middle/.test(name))
    assert.equal(links.length, 1000)
  }))

test('light and dark differ, and nothing is wider than a telephone', () =>
  browse(async (tab, origin) => {
    await tab.view(1240, 900, 'light')
    await tab.go(`${origin}/`)
    const light = await tab.picture()
    await tab.view(1240, 900, 'dark')
    const dark = await tab.picture()
    assert.ok(light.length > 20_000 && dark.length > 20_000)
    assert.notDeepEqual(light, dark)
    await tab.view(390, 844, 'light')
    for (const path of ['/', '/nodes', '/health', `/nodes/${outlook.consensus.nodes[0]!.nodeId}`]) {
      await tab.go(origin + path)
      const { cssContentSize } = await tab.send('Page.getLayoutMetrics')
      assert.ok(
        (cssContentSize as { width: number }).width <= 390,
        `${path}: ${JSON.stringify(cssContentSize)}`,
      )
    }
  }))
