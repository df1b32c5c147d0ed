/** Runs inside the guest: every `*.guest.ts` here, one JSON line on standard output per finished test. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { run } from 'node:test'
import { inspect } from 'node:util'

export interface GuestResult {
  readonly file: string
  readonly name: string
  readonly passed: boolean
  readonly skipped: boolean
  readonly milliseconds: number
  readonly failure?: string
}

const wanted = process.argv[2] ?? ''
const names = readdirSync(import.meta.dirname).filter(
  (name) => name.endsWith('.guest.ts') && name.includes(wanted),
)
const files = names.sort().map((name) => join(import.meta.dirname, name))

// A process per file: hooks at the top of a file are for its own tests. One at a time: the guest has one CPU.
for await (const event of run({ files, isolation: 'process', concurrency: 1 })) {
  if (event.type !== 'test:pass' && event.type !== 'test:fail') continue
  const { name, details, skip, file } = event.data
  if (details.type === 'suite') continue
  const result: GuestResult = {
    file: file?.split('/').at(-1) ?? '',
    name,
    passed: event.type === 'test:pass',
    skipped: skip !== undefined && skip !== false,
    milliseconds: Math.round(details.duration_ms),
    ...(event.type === 'test:fail' && {
      failure: inspect(event.data.details.error.cause ?? event.data.details.error),
    }),
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
}
