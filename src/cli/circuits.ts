import { type Command, InvalidArgumentError } from 'commander'
import { columns, paint, print, printJson, progress } from '#cli/output'
import { controlRequest } from '#linux/control'

/** A circuit as the client daemon reports it. */
export interface CircuitReport {
  readonly id: number
  readonly state: string
  readonly default: boolean
  readonly use: string
  readonly group: string | null
  readonly path: readonly string[]
  readonly privateAddresses: readonly string[]
  readonly cipher: string | null
  readonly buildMs: number | null
}

interface RekeyReport {
  readonly circuit: number
  readonly what: 'ike' | 'child'
  readonly rekeyed: readonly { readonly hop: number; readonly node: string; readonly ms: number }[]
}

interface BuildWish {
  readonly path?: string[]
  readonly hops?: number
  readonly to?: string
}

interface Options {
  readonly socket: string
  readonly json?: boolean
}

/** `ippriv circuits [list|build|close|rekey]`: the circuits of a running client. */
export function registerCircuits(program: Command): void {
  const circuits = program.command('circuits').description('the circuits of a running client')
  const common = (command: Command): Command =>
    command
      .requiredOption('-s, --socket <path>', 'control socket of the client')
      .option('--json', 'print JSON')

  common(circuits.command('list', { isDefault: true }).description('list them (default)')).action(
    async ({ socket, json }: Options) => {
      const { circuits: list } = (await controlRequest(socket, 'circuits.list')) as {
        circuits: CircuitReport[]
      }
      if (json) printJson(list)
      else print(...circuitLines(list))
    },
  )

  common(circuits.command('build').description('build one more, and wait until it is open'))
    .option('--path <names>', 'nodes to use, entry first, separated by commas', (text) => text.split(','))
    .option('--hops <n>', 'length, 1 to 5', hopCount)
    .option('--to <destination>', 'what for, such as tcp:192.0.2.1:443: the exit must allow it')
    .action(async ({ socket, json, path, hops, to }: Options & BuildWish) => {
      if (!json) progress('building a circuit')
      const params = { ...(path ? { path } : {}), ...(hops ? { hops } : {}), ...(to ? { to } : {}) }
      const circuit = (await controlRequest(socket, 'circuits.build', params)) as CircuitReport
      if (json) printJson(circuit)
      else print(...circuitLines([circuit]))
    })

  common(
    circuits.command('close').description('close one').argument('<id>', 'number from the list', circuitId),
  ).action(async (id: number, { socket, json }: Options) => {
    await controlRequest(socket, 'circuits.close', { id })
    if (json) printJson({ closed: id })
  })

  common(
    circuits
      .command('rekey')
      .description('new keys for one, now, and wait until they are in use')
      .argument('<id>', 'number from the list', circuitId),
  )
    .option('--hop <n>', 'of this hop alone, 1 to 5; without it of every hop', hopCount)
    .option('--ike', 'the keys of IKE, not those of the packets')
    .action(async (id: number, { socket, json, hop, ike }: Options & { hop?: number; ike?: true }) => {
      const params = { id, ...(hop ? { hop } : {}), ...(ike ? { ike } : {}) }
      const report = (await controlRequest(socket, 'circuits.rekey', params)) as RekeyReport
      if (json) printJson(report)
      else print(...rekeyLines(report))
    })
}

export function circuitLines(circuits: readonly CircuitReport[]): string[] {
  if (circuits.length === 0) return ['no circuits']
  const rows = circuits.map((circuit) => [
    `${circuit.id}${circuit.default ? '*' : ''}`,
    paint(circuit.state === 'open' ? 'green' : 'yellow', circuit.state),
    circuit.group === null || circuit.default ? circuit.use : `${circuit.use} ${circuit.group}`,
    circuit.path.join(' > '),
    circuit.privateAddresses.join(' > ') || '-',
    circuit.cipher ?? '-',
    circuit.buildMs === null ? '-' : `${circuit.buildMs} ms`,
  ])
  return columns(rows, ['id', 'state', 'use', 'path', 'private addresses', 'cipher', 'built in'])
}

function rekeyLines({ what, rekeyed }: RekeyReport): string[] {
  const rows = rekeyed.map(({ hop, node, ms }) => [String(hop), node, KEYS[what], `${ms} ms`])
  return columns(rows, ['hop', 'node', 'new keys of', 'took'])
}

/** What was rekeyed, for people. */
export const KEYS = { ike: 'IKE', child: 'packets' } as const

function circuitId(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('expected a number of `ippriv circuits`')
  return Number(text)
}

function hopCount(text: string): number {
  const hops = Number(text)
  if (!Number.isInteger(hops) || hops < 1 || hops > 5) throw new InvalidArgumentError('expected 1 to 5')
  return hops
}
