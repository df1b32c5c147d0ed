/**
 * `npm run interop`: our programs with stock strongSwan, over userspace ESP on this host and then over the real ESP of
 * a User-Mode Linux. Prints a table of cells, and ends with 1 if one of them failed. `--out DIRECTORY` keeps logs and
 * configuration files there; `--only PART` plays one part of guest.ts, or `host`.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { runInUml, umlProblem } from '#linux/uml'
import { type Cell, makeCells } from './cell.ts'
import { playHost } from './host.ts'

const TIME_LIMIT = 30 * 60_000

const { values } = parseArgs({ options: { out: { type: 'string' }, only: { type: 'string' } } })
const problem = await umlProblem()
if (problem !== undefined) {
  process.stderr.write(`interop: ${problem}\n`)
  process.exit(2)
}
const out = values.out === undefined ? await mkdtemp(join(tmpdir(), 'ippriv-interop-')) : resolve(values.out)
await mkdir(out, { recursive: true })
const seen: Cell[] = []
try {
  if (values.only === undefined || values.only === 'host') await playHost(makeCells(show), join(out, 'host'))
  if (values.only !== 'host') await playGuest(values.only)
  const count = (state: Cell['state']): number => seen.filter((cell) => cell.state === state).length
  const absent = count('absent') === 0 ? '' : `, ${count('absent')} absent`
  process.stdout.write(`\n${count('passed')} of ${seen.length} cells passed${absent}\n`)
  if (count('failed') > 0 || count('passed') === 0) process.exitCode = 1
} finally {
  if (values.out === undefined) await rm(out, { recursive: true, force: true })
}

async function playGuest(part: string | undefined): Promise<void> {
  let partial = ''
  const { exitCode, stderr } = await runInUml({
    command: [process.execPath, join(import.meta.dirname, 'guest.ts'), out, ...(part ? [part] : [])],
    cwd: join(import.meta.dirname, '../..'),
    writable: [out],
    timeoutMs: TIME_LIMIT,
    onStdout(chunk) {
      const lines = `${partial}${Buffer.from(chunk).toString()}`.split('\n')
      partial = lines.pop()!
      for (const line of lines) show(JSON.parse(line) as Cell)
    },
  })
  if (exitCode === 0) return
  process.stderr.write(`interop: the guest ended with ${exitCode}\n${stderr.slice(-2000)}\n`)
  process.exitCode = 1
}

function show(cell: Cell): void {
  seen.push(cell)
  const { part, name, state, milliseconds, detail } = cell
  const seconds = (milliseconds / 1000).toFixed(1).padStart(6)
  const verdict = state === 'failed' ? 'FAILED' : state
  process.stdout.write(`${verdict} ${seconds} s  ${part.padEnd(14)}${name.padEnd(68)} ${detail}\n`)
}
