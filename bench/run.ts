/**
 * `npm run bench -- NAME`: the measurements behind every number in README and docs. Each is self-contained, compares
 * within one run, and leaves JSON, tables and plots in `bench-out/`. Exit codes: 0 measured (targets met or not),
 * 1 failed, 2 usage.
 */
import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { Bench } from './bench.ts'
import { asJson, keep, print } from './report.ts'

/** Loaded when asked for: one bench must not need what another one imports. */
const BENCHES: Readonly<Record<string, () => Promise<{ readonly bench: Bench }>>> = {
  'vs-tor': () => import('./vs-tor.ts'),
  planes: () => import('./planes.ts'),
  ike: () => import('./ike.ts'),
  flood: () => import('./flood.ts'),
  kernel: () => import('./kernel.ts'),
}

interface CommonOptions {
  readonly rounds?: number
  readonly out: string
  readonly json?: boolean
}

async function main(): Promise<void> {
  const program = new Command('bench')
    .description('Measures IPpriv beside others, in namespaces of this machine.')
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  for (const load of Object.values(BENCHES)) program.addCommand(commandOf((await load()).bench))
  await program.parseAsync()
}

function commandOf(bench: Bench): Command {
  const command = new Command(bench.name)
    .description(bench.summary)
    .option('--rounds <n>', `alternating rounds (default: ${bench.rounds})`, positiveInteger)
    .option('--out <dir>', 'where JSON, tables and plots go', 'bench-out')
    .option('--json', 'print the report as JSON')
  for (const [flags, help, preset] of bench.options ?? []) command.option(flags, help, preset)
  return command.action(async (options: CommonOptions & Record<string, string | boolean>) => {
    const { rounds = bench.rounds, json = false } = options
    const out = resolve(options.out)
    await mkdir(out, { recursive: true })
    const controller = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => controller.abort(new Error(signal)))
    const began = performance.now()
    const say = (line: string) =>
      process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}\n`)
    const report = await bench.run({ rounds, out, options, signal: controller.signal, say })
    const files = await keep(bench.name, report, out)
    process.stdout.write(`${json ? JSON.stringify(asJson(report)) : print(report)}\n`)
    for (const file of files) say(`wrote ${file}`)
  })
}

function positiveInteger(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer')
  return value
}

try {
  await main()
} catch (error) {
  process.stderr.write(`bench: ${(error as Error).message}\n`)
  process.exitCode = 1
}
