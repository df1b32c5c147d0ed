import { Commands } from '#demo/command'
import { fell } from '#demo/topology'
import type { Bench, BenchContext, Report, Target } from './bench.ts'
import { type BulkOptions, bulk, processSeconds, roundTrip, softirqSeconds } from './bulk.ts'
import { clearStale, type Network, raiseNetwork } from './network.ts'
import { runRecipe } from './recipe.ts'
import { median } from './stats.ts'
import { runTestbed } from './testbed.ts'

/**
 * The userspace plane over a circuit, beside the same path without one; with `--against`, beside another version
 * of itself. Sides take turns within every round, so a machine that slows down slows all of them.
 */
export const bench: Bench = {
  name: 'planes',
  summary: 'goodput, round trip and processor time of a plane over a circuit',
  rounds: 5,
  minutesPerRound: 1.5,
  options: [
    ['--hops <n>', 'hops of the circuit', '3'],
    ['--seconds <n>', 'length of every transfer', '5'],
    ['--against <program>', "another version's bin/ippriv, measured in turns with this one"],
    [
      '--kernel',
      'the kernel plane, beside the same telescope made by hand and the userspace plane (User-Mode Linux)',
    ],
    ['--hosts <file>', 'on real machines reached by ssh, which the file names (docs/testbed.md)'],
  ],
  run: (context) => {
    if (typeof context.options.hosts === 'string') return runTestbed(context)
    return context.options.kernel === true ? runRecipe(context) : run(context)
  },
}

export interface Sample {
  readonly side: string
  readonly streams: number
  readonly direction: 'up' | 'down'
  readonly mbps: number
  /** Seconds of processor time per gigabyte (10^9): daemons of the path, iperf3, soft interrupts of the machine. */
  readonly secondsPerGigabyte: number
  /** The daemons' share of it, client first. */
  readonly daemons: readonly number[]
  readonly retransmissions: number
}

export interface Trip {
  readonly side: string
  readonly beside: string
  readonly ms: number
}

interface Side {
  readonly name: string
  readonly network: Network
  readonly isDirect: boolean
}

const LOADS = [
  [1, 'down'],
  [1, 'up'],
  [5, 'down'],
  [5, 'up'],
] as const
const PINGS = 100
const BESIDE = ['idle', '5 down', '5 up'] as const

async function run(context: BenchContext): Promise<Report> {
  const { options, signal, out, say } = context
  const [hops, seconds] = [whole('hops', options.hops), whole('seconds', options.seconds)]
  const programs = [undefined, ...(typeof options.against === 'string' ? [options.against] : [])]
  const commands = new Commands(signal)
  await clearStale(commands)
  const ids = programs.map((_, i) => `ippd${process.pid}${i}`)
  try {
    const networks: Network[] = []
    for (const [i, program] of programs.entries()) {
      say(`a network of five nodes and a circuit of ${hops} hops${program ? ` by ${program}` : ''}`)
      networks.push(await raiseNetwork(commands, { id: ids[i]!, out, hops, ...(program && { program }) }))
    }
    const sides: Side[] = [
      { name: 'direct', network: networks[0]!, isDirect: true },
      { name: 'userspace', network: networks[0]!, isDirect: false },
      ...networks.slice(1).map((network) => ({ name: 'against', network, isDirect: false })),
    ]
    const samples: Sample[] = []
    const trips: Trip[] = []
    for (let round = 1; round <= context.rounds; round++) {
      say(`round ${round} of ${context.rounds}`)
      for (const side of sides)
        trips.push({ side: side.name, beside: 'idle', ms: await trip(commands, side) })
      for (const [streams, direction] of LOADS)
        for (const side of sides) samples.push(await sample(commands, side, { seconds, streams, direction }))
      for (const direction of ['down', 'up'] as const)
        for (const side of sides) {
          const transfer = sample(commands, side, { seconds, streams: 5, direction })
          const ms = await trip(commands, side).finally(() => transfer)
          trips.push({ side: side.name, beside: `5 ${direction}`, ms })
        }
    }
    return planesReport(
      hops,
      sides.map((side) => side.name),
      samples,
      trips,
    )
  } finally {
    await commands.killAll(5_000)
    for (const id of ids) await fell(commands, id)
  }
}

function whole(name: string, text: unknown): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name}: expected a positive integer`)
  return value
}

const from = ({ network, isDirect }: Side) => (isDirect ? network.plain : network.client)

const trip = (commands: Commands, side: Side): Promise<number> =>
  roundTrip(commands, from(side), side.network.server, PINGS)

async function sample(commands: Commands, side: Side, load: BulkOptions): Promise<Sample> {
  const { path, server } = side.network
  const pids = path.map((daemon) => daemon.process.pid)
  const before = pids.map(processSeconds)
  const softirq = softirqSeconds()
  const { mbps, octets, retransmissions, cpuSeconds } = await bulk(commands, from(side), server, load)
  const gigabytes = octets / 1e9
  const daemons = pids.map((pid, i) => (processSeconds(pid) - before[i]!) / gigabytes)
  const ours = side.isDirect ? 0 : daemons.reduce((sum, value) => sum + value, 0)
  const others = (softirqSeconds() - softirq + cpuSeconds) / gigabytes
  const { streams, direction } = load
  const secondsPerGigabyte = ours + others
  return { side: side.name, streams, direction, mbps, secondsPerGigabyte, daemons, retransmissions }
}

export function planesReport(
  hops: number,
  names: readonly string[],
  samples: readonly Sample[],
  trips: readonly Trip[],
): Report {
  const of = (side: string, streams: number, direction: string, value: (sample: Sample) => number) =>
    median(
      samples.filter((s) => s.side === side && s.streams === streams && s.direction === direction).map(value),
    )
  const table = (title: string, value: (sample: Sample) => number) => ({
    title,
    columns: ['load', ...names],
    rows: LOADS.map(([streams, direction]) => [
      `${streams} ${streams === 1 ? 'stream' : 'streams'} ${direction}`,
      ...names.map((name) => of(name, streams, direction, value)),
    ]),
  })
  const tripOf = (side: string, beside: string) =>
    median(trips.filter((t) => t.side === side && t.beside === beside).map((t) => t.ms))
  return {
    title: `Userspace plane, ${hops} hops, all daemons on one machine`,
    tables: [
      table('goodput, Mbit/s', (s) => s.mbps),
      table('processor time, s/GB', (s) => s.secondsPerGigabyte),
      table('daemons alone, s/GB', (s) =>
        s.side === 'direct' ? 0 : s.daemons.reduce((sum, value) => sum + value, 0),
      ),
      {
        title: 'round trip of 1,024 octets, ms',
        columns: ['beside', ...names],
        rows: BESIDE.map((beside) => [beside, ...names.map((n) => tripOf(n, beside))]),
      },
      {
        title: 'added to the direct round trip by each hop, ms',
        columns: ['beside', ...names.slice(1)],
        rows: BESIDE.map((beside) => [
          beside,
          ...names.slice(1).map((n) => (tripOf(n, beside) - tripOf('direct', beside)) / hops),
        ]),
      },
    ],
    targets: targets(samples),
    samples: { bulk: samples, roundTrips: trips },
    notes: [
      'Medians; sides take turns within every round.',
      'Processor time: daemons of the path, both ends of iperf3, and the soft interrupts of the whole machine, which counts what else runs on it.',
      'What a hop adds beside five streams is negative where the direct streams fill a longer queue than a circuit lets them.',
      'The router and all hosts are namespaces of one kernel: every hop shares the processors.',
    ],
    plots: [
      {
        name: 'planes-goodput',
        values: samples.map(({ side, streams, direction, mbps }) => ({
          side,
          load: `${streams} ${direction}`,
          mbps,
        })),
        spec: {
          mark: { type: 'boxplot', extent: 'min-max' },
          encoding: {
            x: { field: 'load', type: 'nominal', title: 'streams' },
            xOffset: { field: 'side' },
            y: { field: 'mbps', type: 'quantitative', scale: { type: 'log' }, title: 'Mbit/s' },
            color: { field: 'side', type: 'nominal' },
          },
        },
      },
      {
        name: 'planes-round-trip',
        values: trips,
        spec: {
          mark: { type: 'point', filled: true, size: 40 },
          encoding: {
            x: { field: 'beside', type: 'nominal', sort: null, title: 'beside streams' },
            xOffset: { field: 'side' },
            y: { field: 'ms', type: 'quantitative', scale: { type: 'log' }, title: 'round trip, ms' },
            color: { field: 'side', type: 'nominal' },
          },
        },
      },
    ],
  }
}

/** Beside another version of itself; tor is beside it in `vs-tor`, in one run. */
function targets(samples: readonly Sample[]): Target[] {
  return LOADS.flatMap(([streams, direction]): Target[] => {
    const of = (side: string) =>
      samples.filter((s) => s.side === side && s.streams === streams && s.direction === direction)
    const against = of('against')
    if (against.length === 0) return []
    // Of the same round, so that a machine that slows down slows both.
    const ratios = of('userspace').map(({ mbps }, round) => mbps / against[round]!.mbps)
    const what = `${streams} ${direction}, ratio to the other`
    return [{ what, measured: median(ratios), bound: 1, sense: 'least' }]
  })
}
