/**
 * `npm run interop`: our programs with stock strongSwan, over the real ESP of a User-Mode Linux and over userspace ESP on
 * this host. Prints a table of cells, and ends with 1 if one of them failed. `--out DIRECTORY` keeps logs and
 * configuration files there, `--only PART` plays one of the parts of guest.ts, or `host`.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { runInUml, umlProblem } from '#linux/uml'
import type { Cell } from './guest.ts'

const TIME_LIMIT = 15 * 60_000

const { values } = parseArgs({ options: { out: { type: 'string' } } })
const problem = await umlProblem()
if (problem !== undefined) {
  process.stderr.write(`interop: ${problem}\n`)
  process.exit(2)
}
const out = values.out === undefined ? await mkdtemp(join(tmpdir(), 'ippriv-interop-')) : resolve(values.out)
await mkdir(out, { recursive: true })
const cells: Cell[] = []
let partial = ''
try {
  const { exitCode, stderr } = await runInUml({
    command: [process.execPath, join(import.meta.dirname, 'guest.ts'), out],
    cwd: join(import.meta.dirname, '../..'),
    writable: [out],
    memoryMiB: 1536,
    timeoutMs: TIME_LIMIT,
    onStdout(chunk) {
      const lines = `${partial}${Buffer.from(chunk).toString()}`.split('\n')
      partial = lines.pop()!
      for (const line of lines) show(JSON.parse(line) as Cell)
    },
  })
  if (exitCode !== 0)
    process.stderr.write(`interop: the guest ended with ${exitCode}\n${stderr.slice(-2000)}\n`)
  const failed = cells.filter(({ passed }) => !passed)
  process.stdout.write(`\n${cells.length - failed.length} of ${cells.length} cells passed\n`)
  process.exitCode = exitCode === 0 && failed.length === 0 && cells.length > 0 ? 0 : 1
} finally {
  if (values.out === undefined) await rm(out, { recursive: true, force: true })
}

function show(cell: Cell): void {
  cells.push(cell)
  const { part, name, passed, milliseconds, detail } = cell
  const seconds = (milliseconds / 1000).toFixed(1).padStart(6)
  process.stdout.write(
    `${passed ? 'passed' : 'FAILED'} ${seconds} s  ${part.padEnd(14)}${name.padEnd(66)} ${detail}\n`,
  )
}
