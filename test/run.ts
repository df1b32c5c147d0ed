/**
 * Runs the whole suite, or the files named as arguments. Files that build networks (root, namespaces, User-Mode
 * Linux) run one after the other, the rest two at a time. Skipped tests are listed with their reasons, and the
 * summary comes last.
 */
import { globSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { run } from 'node:test'
import { spec, type TestEvent } from 'node:test/reporters'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** Folders whose tests use the whole machine. */
const SERIAL = /^test\/(linux|netns|uml|demo|interop|daemon)\//
/** Per file; a hung test must not hang the suite. */
const TIMEOUT = 22 * 60_000
/** The lines of a summary, as node:test names them. */
const COUNTED = ['tests', 'suites', 'pass', 'fail', 'cancelled', 'skipped', 'todo'] as const

const named = process.argv.slice(2)
const files = (named.length > 0 ? named : globSync('test/**/*.test.ts', { cwd: ROOT }))
  .map((file) => relative(ROOT, resolve(ROOT, file)))
  .sort()
const counts = new Map<string, number>(COUNTED.map((name) => [name, 0]))
const skipped: string[] = []
const start = performance.now()

await new Promise<void>((done, failed) => {
  const reporter = new spec()
  reporter.on('end', done).on('error', failed)
  Readable.from(events()).pipe(reporter).pipe(process.stdout, { end: false })
})

if (skipped.length > 0) console.log(['\nskipped:', ...skipped.map((line) => `  ${line}`)].join('\n'))
console.log(`\n${COUNTED.map((name) => `ℹ ${name} ${counts.get(name)}`).join('\n')}`)
console.log(`ℹ duration_ms ${(performance.now() - start).toFixed(0)}`)
const broken = counts.get('fail')! + counts.get('cancelled')! > 0
process.exitCode = broken || counts.get('tests') === 0 ? 1 : 0

/** Everything the two runs tell, but their summaries: those are added up. */
async function* events(): AsyncGenerator<TestEvent> {
  const parallel = files.filter((file) => !SERIAL.test(file))
  const serial = files.filter((file) => SERIAL.test(file))
  for (const [group, concurrency] of [
    [parallel, 2],
    [serial, 1],
  ] as const) {
    if (group.length === 0) continue
    const execArgv = ['--disable-warning=ExperimentalWarning']
    for await (const event of run({ files: group, cwd: ROOT, concurrency, timeout: TIMEOUT, execArgv })) {
      const told = event as TestEvent
      if (told.type === 'test:pass' && typeof told.data.skip !== 'undefined' && told.data.skip !== false)
        skipped.push(`${told.data.name} (${relative(ROOT, told.data.file ?? '')}): ${told.data.skip}`)
      if (!isSummary(told)) yield told
    }
  }
}

function isSummary(event: TestEvent): boolean {
  if (event.type === 'test:summary') return true
  if (event.type !== 'test:diagnostic') return false
  const [name = '', value] = event.data.message.split(' ')
  if (name !== 'duration_ms' && !counts.has(name)) return false
  if (name !== 'duration_ms') counts.set(name, counts.get(name)! + Number(value))
  return true
}
