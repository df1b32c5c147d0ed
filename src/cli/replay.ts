import type { Command } from 'commander'
import { IpprivError } from '#base/errors'
import { columns, print, printJson } from '#cli/output'
import type { Connection } from '#study/log'
import type { Outcome } from '#study/replay'

interface ReplayOptions {
  readonly generate?: string
  readonly seed: string
  readonly scale: string
  readonly csv?: boolean
  readonly json?: boolean
}

/** `ippriv replay`: how many full IKE exchanges resumption saves on a log of connections. */
export function registerReplay(program: Command): void {
  program
    .command('replay')
    .description('run a log of connections through the lifetimes of session resumption')
    .argument('[log]', 'CSV with the header user,start,end,bytes; times are ISO 8601 or seconds')
    .option('--generate <population>', 'instead of a log: wireless or remote, with the published totals')
    .option('--seed <number>', 'of --generate', '1')
    .option('--scale <share>', 'of the users of --generate, 0.001..1', '1')
    .option('--csv', 'print the log and do nothing else')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nclocked counts time since the last full exchange, established connected time, data octets. A\nconnection is resumed if what was used until it begins is below the limit.\nExit codes: 0 done, 2 the log or an option is not acceptable.',
    )
    .action(async (file: string | undefined, options: ReplayOptions) => {
      const log = await connections(file, options)
      if (options.csv) {
        const { formatLog } = await import('#study/log')
        process.stdout.write(formatLog(log))
        return
      }
      const { published, replay, STRATEGIES_OF_STUDY } = await import('#study/replay')
      const outcomes = replay(log, STRATEGIES_OF_STUDY)
      const users = new Set(log.map(({ user }) => user)).size
      const summary = { connections: log.length, users }
      if (options.json)
        return printJson({
          ...summary,
          outcomes: outcomes.map(({ strategy, ...outcome }) => ({ ...strategy, ...outcome })),
        })
      print(
        `${log.length} connections of ${users} users`,
        '',
        ...columns(
          outcomes.map((outcome) => [...row(outcome), published(outcome.strategy)]),
          ['lifetime', 'limit', 'full', 'resumed', 'full of all', 'saved', 'published'],
        ),
      )
    })
}

async function connections(file: string | undefined, options: ReplayOptions): Promise<Connection[]> {
  const { generate } = options
  if ((file === undefined) === (generate === undefined))
    throw new IpprivError('IPP_CONFIG_INVALID', 'replay: expected a log, or --generate')
  if (generate === undefined) {
    const { readFile } = await import('node:fs/promises')
    const { parseLog } = await import('#study/log')
    return parseLog(await readLog(readFile, file!), file!)
  }
  const { generateLog, POPULATIONS } = await import('#study/population')
  if (!Object.hasOwn(POPULATIONS, generate))
    throw new IpprivError('IPP_CONFIG_INVALID', `--generate: expected wireless or remote, not ${generate}`)
  const seed = Number(options.seed)
  if (!Number.isInteger(seed) || seed < 0)
    throw new IpprivError('IPP_CONFIG_INVALID', `--seed: expected a whole number, not ${options.seed}`)
  const scale = Number(options.scale)
  if (!(scale >= 0.001 && scale <= 1))
    throw new IpprivError('IPP_CONFIG_INVALID', `--scale: expected 0.001..1, not ${options.scale}`)
  return generateLog(POPULATIONS[generate as keyof typeof POPULATIONS], seed, scale)
}

async function readLog(
  read: (file: string, encoding: 'utf8') => Promise<string>,
  file: string,
): Promise<string> {
  try {
    return await read(file, 'utf8')
  } catch (cause) {
    throw new IpprivError('IPP_LOG_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
}

function row({ strategy: { kind, limit }, full, resumed, saved }: Outcome): string[] {
  const limitText = kind === 'data' ? `${limit / 1e6} MB` : `${limit / 3_600_000} h`
  return [kind, limitText, `${full}`, `${resumed}`, percent(1 - saved), percent(saved)]
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
