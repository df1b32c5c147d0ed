/**
 * Writes docs/config.md, docs/errors.md, docs/ikev2.md and docs/openapi.json. Run it after a change of schema.ts, errors.ts, a sample
 * configuration, a table of the IKEv2 engine, or a route of the directory.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { explainConfig, explainErrors } from '#config/explain'
import { explainInterface } from '#directory/interface'
import { explainIke } from '#ikev2/explain'

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
await writeFile(new URL('docs/ikev2.md', root), explainIke())
await writeFile(new URL('docs/openapi.json', root), await explainInterface())
