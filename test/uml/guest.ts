/** Runs inside the guest: the `*.guest.ts` that are named, one JSON line on standard output per finished test. */
import { join } from 'node:path'
import { run } from 'node:test'
import { inspect } from 'node:util'

export interface GuestResult {
  readonly file: string
  readonly name: string
  readonly passed: boolean
  readonly skipped: boolean
  readonly milliseconds: number
  /** Its diagnostics. */
  readonly said: readonly string[]
  readonly failure?: string
}

const files = process.argv.slice(2).map((name) => join(import.meta.dirname, `${name}.guest.ts`))
/** What a test says comes after its end. */
let last: GuestResult | undefined

// A process per file: hooks at the top of a file are for its own tests. One at a time: the guest has one CPU.
for await (const event of run({ files, isolation: 'process', concurrency: 1 })) {
  if (event.type === 'test:diagnostic' && last !== undefined && event.data.nesting === 0)
    last = { ...last, said: [...last.said, event.data.message] }
  if (event.type !== 'test:pass' && event.type !== 'test:fail') continue
  const { name, details, skip, file } = event.data
  if (details.type === 'suite') continue
  tell()
  last = {
    file: file?.split('/').at(-1) ?? '',
    name,
    passed: event.type === 'test:pass',
    skipped: skip !== undefined && skip !== false,
    milliseconds: Math.round(details.duration_ms),
    said: [],
    ...(event.type === 'test:fail' && {
      failure: inspect(event.data.details.error.cause ?? event.data.details.error, {
        maxStringLength: 20_000,
      }),
    }),
  }
}
tell()

function tell(): void {
  if (last !== undefined) process.stdout.write(`${JSON.stringify(last)}\n`)
}
