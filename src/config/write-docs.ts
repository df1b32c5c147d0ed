/** Writes docs/config.md and docs/errors.md. Run it after a change of schema.ts, errors.ts or a sample configuration. */
import { readFile, writeFile } from 'node:fs/promises'
import { explainConfig, explainErrors } from '#config/explain'

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
await writeFile(new URL('docs/errors.md', root), explainErrors())
