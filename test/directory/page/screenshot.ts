/** `npm run screenshot`: docs/directory-page.png, the page with a thousand made-up nodes. */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import Fastify from 'fastify'
import { pageRoutes } from '#directory/routes/page'
import { Browser } from './browser.ts'
import { outlookOf } from './population.ts'

const FILE = fileURLToPath(new URL('../../../docs/directory-page.png', import.meta.url))

const outlook = outlookOf()
const app = Fastify()
pageRoutes(app, () => outlook)
await app.listen({ host: '127.0.0.1', port: 0 })
const browser = await Browser.launch()
try {
  const tab = await browser.open()
  // Small enough for a repository, and as large as a README shows it.
  await tab.view(1180, 1150, 'light', 0.8)
  const { port } = app.server.address() as { port: number }
  await tab.go(`http://127.0.0.1:${port}/`)
  const png = await tab.picture()
  await writeFile(FILE, png)
  console.log(
    `docs/directory-page.png: ${(png.length / 1000).toFixed(0)} kB, first paint after ${tab.firstPaint?.toFixed(0)} ms`,
  )
} finally {
  await browser.close()
  await app.close()
}
