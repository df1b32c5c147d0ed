/** Writes docs/config.md from the schema. Run it after a change of schema.ts: `node src/config/write-docs.ts`. */
import { readFile, writeFile } from 'node:fs/promises'
import { explainConfig } from '#config/explain'

const root = new URL('../../', import.meta.url)
const sample = (kind: string) => readFile(new URL(`deploy/config/${kind}.yaml`, root), 'utf8')

await writeFile(
  new URL('docs/config.md', root),
  explainConfig({
    node: await sample('node'),
    client: await sample('client'),
    directory: await sample('directory'),
  }),
)
