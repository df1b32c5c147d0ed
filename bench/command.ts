/** Runs benches by name as commands: options, progress to stderr, the report to stdout and into a folder. */
import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { Bench } from './bench.ts'
import { asJson, keep, print } from './report.ts'

/** @param benches by name, loaded when asked for: one must not need what another one imports */
export async function runNamed(
  program: string,
  description: string,
  benches: Readonly<Record<string, () => Promise<{ readonly bench: Bench }>>>,
): Promise<void> {
  const command = new Command(program)
    .description(description)
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  try {
    for (const load of Object.values(benches)) command.addCommand(commandOf((await load()).bench))
    await command.parseAsync()
  } catch (error) {
    process.stderr.write(`${program}: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}

interface CommonOptions {
  readonly rounds?: number
  readonly out: string
  readonly json?: boolean
}

function commandOf(bench: Bench): Command {
  const command = new Command(bench.name)
    .description(bench.summary)
    .option('--rounds <n>', roundsHelp(bench), positiveInteger)
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

/** With the time it takes, where it is long. */
export function roundsHelp({ rounds, minutesPerRound }: Pick<Bench, 'rounds' | 'minutesPerRound'>): string {
  if (minutesPerRound === undefined) return `alternating rounds (default: ${rounds})`
  const each = minutesPerRound === 1 ? 'a minute' : `${minutesPerRound} minutes`
  return `alternating rounds, about ${each} each (default: ${rounds}, so ${Math.ceil(rounds * minutesPerRound)} minutes)`
}

function positiveInteger(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer')
  return value
}
