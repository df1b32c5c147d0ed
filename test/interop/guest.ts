/** Runs as root in a kernel with ESP: all cells that need one. One JSON line on standard output per cell. */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeCells } from './cell.ts'
import { playClients } from './clients.ts'
import { playFragments } from './fragments.ts'
import { playHybrid } from './hybrid.ts'
import { Relay } from './relay.ts'
import { Stage } from './stage.ts'
import { playSignatures, playTelescopes } from './telescopes.ts'

const HOSTS = ['client', 'plain', 'server', 'directory', 'alder', 'birch', 'cedar']

const out = process.argv[2] ?? (await mkdtemp(join(tmpdir(), 'ippriv-interop-')))
/** For whoever works on one of them. */
const only = process.argv[3]
const stage = new Stage(out, 'xfrm', HOSTS)
const relay = new Relay(stage)
const cells = makeCells((cell) => process.stdout.write(`${JSON.stringify(cell)}\n`))
const parts = {
  telescopes: () => playTelescopes(cells, stage, relay),
  fragments: () => playFragments(cells, stage, relay),
  hybrid: () => playHybrid(cells, stage, relay),
  signatures: () => playSignatures(cells, stage, relay),
  clients: () => playClients(cells, stage),
}

try {
  await cells.essential('setup', 'our nodes and directory; the stock router is listed', () => relay.bringUp())
  for (const [name, play] of Object.entries(parts)) if (only === undefined || only === name) await play()
} finally {
  await stage.clear()
}
