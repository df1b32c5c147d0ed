/**
 * The paper's Figure 11: one download over three hops while the host of the middle node has other work. The userspace
 * plane and tor share a chain of hosts and take turns within every round, each with the load and without; the kernel
 * plane runs in User-Mode Linux and is compared with itself.
 */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Background, Commands, lastLine, sleep, until } from '#demo/command'
import type { Bench, BenchContext, Plot, Report, Table } from './bench.ts'
import { ADDRESS, type Chain, type ChainHost, fellChain, namespaceOf, onHost, raiseChain } from './chain.ts'
import { samplesFromGuest } from './guest.ts'
import type { LoadPlan, LoadResult } from './load.ts'
import { OverlayNetwork } from './overlay.ts'
import { median, quantile } from './stats.ts'
import { CpuGroup } from './stress/cpu-group.ts'
import { type Load, loadCommand, readLoads } from './stress/load.ts'
import {
  type Division,
  divideThisMachine,
  pinNamespace,
  processesIn,
  reniceNamespace,
} from './stress/processors.ts'
import { SOCKS_PORT, TorNetwork } from './tor.ts'

const SYSTEMS = ['ippriv', 'tor'] as const
type System = (typeof SYSTEMS)[number]
/**
 * How the middle node's program stands to the load: one among equals; with nice -20, as the paper tried it for tor; or
 * with the load in a group of its own that counts as one, as sessions (autogroup) and services (systemd) have it.
 */
const STANDINGS = ['equal', 'nice -20', 'apart'] as const
type Standing = (typeof STANDINGS)[number]

export interface StressSample {
  readonly system: System | 'kernel plane'
  readonly standing: Standing
  readonly load: Load
  readonly round: number
  readonly mbps: number
  /** Application round trip of 1,024 octets beside the download, ms: median and 95th percentile. */
  readonly rtt?: number
  readonly rtt95?: number
}

const MIDDLE: ChainHost = 'birch'
const HOSTS: readonly ChainHost[] = ['client', 'plain', 'alder', 'birch', 'cedar', 'server']
const LOAD_PORT = 8080
const GUEST_MS = 900_000

export const bench: Bench = {
  name: 'stress',
  summary:
    'a download while the middle node’s host has other work, beside tor; the kernel plane beside itself',
  rounds: 5,
  options: [
    ['--part <part>', 'userspace, kernel, or all', 'all'],
    ['--loads <list>', 'cpu, io, memory, disk', 'cpu,io,memory,disk'],
    ['--standings <list>', 'how the program stands to the load: equal, nice -20, apart', 'equal'],
    ['--seconds <n>', 'length of one measurement', '4'],
  ],
  run: async (context) => {
    const { part, loads, seconds } = context.options
    const wanted = readLoads(String(loads))
    const samples = [
      ...(part === 'kernel' ? [] : await new Stress(context, wanted).run()),
      ...(part === 'userspace' ? [] : await kernelSamples(context, wanted, Number(seconds))),
    ]
    return report(context.rounds, wanted, samples)
  },
}

async function kernelSamples(
  context: BenchContext,
  loads: readonly Load[],
  seconds: number,
): Promise<StressSample[]> {
  context.say('booting')
  return await samplesFromGuest('stress/guest.ts', [context.rounds, loads, seconds], GUEST_MS, context)
}

class Stress {
  readonly #context: BenchContext
  readonly #commands: Commands
  readonly #chain: Chain = { id: `ipps${process.pid}` }
  readonly #division: Division = divideThisMachine()
  readonly #loads: readonly Load[]
  readonly #milliseconds: number
  readonly #standings: readonly Standing[]
  readonly #groups: CpuGroup[] = []
  readonly #samples: StressSample[] = []

  constructor(context: BenchContext, loads: readonly Load[]) {
    this.#context = context
    this.#commands = new Commands(context.signal)
    this.#loads = loads
    this.#standings = readStandings(String(context.options.standings))
    this.#milliseconds = 1000 * Number(context.options.seconds)
  }

  async run(): Promise<StressSample[]> {
    const { say, rounds } = this.#context
    const home = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
    try {
      await this.#start(home)
      for (let round = 1; round <= rounds; round++) {
        for (const standing of this.#standings) {
          const nice = standing === 'nice -20' ? -20 : 0
          await reniceNamespace(this.#commands, namespaceOf(this.#chain, MIDDLE), nice)
          for (const load of this.#loads)
            for (const system of SYSTEMS) await this.#measure({ system, standing, load, round }, home)
        }
        say(`round ${round} of ${rounds} is done`)
      }
      return this.#samples
    } finally {
      await this.#commands.killAll(2000)
      await fellChain(this.#commands, this.#chain)
      for (const group of this.#groups) await group.remove()
      await rm(home, { recursive: true, force: true })
    }
  }

  async #start(home: string): Promise<void> {
    const { say, out } = this.#context
    await raiseChain(this.#commands, this.#chain)
    await mkdir(join(home, 'scratch'))
    const log = join(out, 'stress-server.log')
    const server = join(import.meta.dirname, 'load-server.ts')
    const argv = [process.execPath, server, '0.0.0.0', String(LOAD_PORT)]
    this.#commands.start(onHost(this.#chain, 'server', ...argv), log)
    await until('the load server', 20_000, async () =>
      (await readFile(log, 'utf8')).endsWith('ready\n') ? true : undefined,
    )
    await new OverlayNetwork(this.#commands, this.#chain, join(home, 'ippriv')).start()
    say('IPpriv: the circuit is open')
    await new TorNetwork(this.#commands, this.#chain, join(home, 'tor')).start()
    say('tor: a circuit is built')
    const { loaded, others } = this.#division
    for (const host of HOSTS)
      await pinNamespace(
        this.#commands,
        namespaceOf(this.#chain, host),
        host === MIDDLE ? `${loaded}` : others,
      )
    for (const name of ['host', 'apart'])
      this.#groups.push(await CpuGroup.create(`${this.#chain.id}-${name}`))
    for (const pid of await processesIn(this.#commands, namespaceOf(this.#chain, MIDDLE)))
      await this.#groups[0]!.take(pid)
  }

  async #measure(
    labels: Pick<StressSample, 'standing' | 'load' | 'round'> & { readonly system: System },
    home: string,
  ): Promise<void> {
    const { system, standing, load } = labels
    const plan: LoadPlan = {
      server: ADDRESS.server,
      port: LOAD_PORT,
      measure: 'round-trips',
      down: 1,
      warmupMs: this.#milliseconds / 2,
      durationMs: this.#milliseconds,
      ...(system === 'tor' ? { proxy: { address: ADDRESS.plain, port: SOCKS_PORT, isolate: false } } : {}),
    }
    const program = [process.execPath, join(import.meta.dirname, 'load.ts'), JSON.stringify(plan)]
    const onOthers = ['taskset', '--cpu-list', this.#division.others, ...program]
    const argv = onHost(this.#chain, system === 'ippriv' ? 'client' : 'plain', ...onOthers)
    const stress = this.#startLoad(load, standing, home)
    try {
      const timeoutMs = PATIENCE_MS + 20 * this.#milliseconds
      const { stdout } = await this.#commands.run(argv, { timeoutMs })
      if (stress?.running === false)
        throw new Error(`there was no load: ${lastLine(await readFile(stress.log, 'utf8'))}`)
      const { downMbps: mbps, roundTripsMs } = JSON.parse(stdout) as LoadResult
      const sample = { ...labels, mbps, rtt: median(roundTripsMs), rtt95: quantile(roundTripsMs, 0.95) }
      this.#samples.push(sample)
      const name = `${load}, ${standing}`
      this.#context.say(
        `${name.padEnd(18)} ${system.padEnd(6)} ${mbps.toFixed(1)} Mbit/s, ${sample.rtt.toFixed(1)} ms`,
      )
    } finally {
      await stress?.stop(2000)
      // What it left to be written is written now, not during the next measurement.
      if (load === 'disk' || load === 'io') await sleep(SETTLE_MS)
    }
  }

  #startLoad(load: Load, standing: Standing, home: string): Background | undefined {
    const seconds = (PATIENCE_MS + 20 * this.#milliseconds) / 1000
    const command = loadCommand(load, join(home, 'scratch'), seconds)
    if (command === undefined) return undefined
    const group = this.#groups[standing === 'apart' ? 1 : 0]!
    const pinned = ['taskset', '--cpu-list', `${this.#division.loaded}`, ...command]
    // The group first: a namespace has another /sys.
    return this.#commands.start(
      group.command(onHost(this.#chain, MIDDLE, ...pinned)),
      join(home, 'stress.log'),
    )
  }
}

export function readStandings(text: string): Standing[] {
  const words = text.split(',').map((word) => word.trim())
  const unknown = words.find((word) => !(STANDINGS as readonly string[]).includes(word))
  if (unknown !== undefined) throw new Error(`--standings: ${unknown} is none of ${STANDINGS.join(', ')}`)
  return STANDINGS.filter((standing) => words.includes(standing))
}

const PATIENCE_MS = 60_000
const SETTLE_MS = 300

// ---------------------------------------------------------------------------------------------- the report

type Column = Pick<StressSample, 'system' | 'standing'>
const nameOf = ({ system, standing }: Column): string =>
  standing === 'equal' ? system : `${system}, ${standing}`

export function report(rounds: number, loads: readonly Load[], samples: readonly StressSample[]): Report {
  const columns = distinct(samples)
  const of = ({ system, standing }: Column, load: Load) =>
    samples.filter((s) => s.system === system && s.standing === standing && s.load === load)
  const goodput = (column: Column, load: Load) => median(of(column, load).map(({ mbps }) => mbps))
  const table = (title: string, value: (column: Column, load: Load) => number | string): Table => ({
    title,
    columns: ['load', ...columns.map(nameOf)],
    rows: loads.map((load) => [load, ...columns.map((column) => value(column, load))]),
  })
  return {
    title: `A download while the middle node’s host has other work, medians of ${rounds} rounds`,
    tables: [
      table('goodput, Mbit/s', goodput),
      table('share of the rate without load, percent', (column, load) =>
        Math.round((100 * goodput(column, load)) / goodput(column, 'none')),
      ),
      table('round trip beside it, ms', (column, load) =>
        median(of(column, load).flatMap(({ rtt }) => rtt ?? [])),
      ),
      table('19 of 20 round trips are below, ms', (column, load) =>
        median(of(column, load).flatMap(({ rtt95 }) => rtt95 ?? [])),
      ),
    ],
    targets: [],
    samples,
    plots: [plot(samples)],
    notes: [
      'A load is 20 processes of stress-ng, as in the paper; memory is 20 x 16 MiB and files 20 x 16 MiB, so nothing is swapped.',
      'The middle node’s programs (ours and tor’s) have the machine’s last processor, together with the load, and each thread its share of it (one control group; `apart`: the load in another one, which counts as one); all other hosts and both ends of the transfer share the others. Sides take turns within every round.',
      'The kernel plane: one processor in User-Mode Linux for all hosts and the load. Both ends of the transfer have nice -20 there, as if they were other machines; nothing of the nodes has.',
    ],
  }
}

const distinct = (samples: readonly StressSample[]): Column[] => [
  ...new Map(samples.map((sample) => [nameOf(sample), sample])).values(),
]

const plot = (samples: readonly StressSample[]): Plot => ({
  name: 'stress',
  values: samples.map((sample) => ({ ...sample, system: nameOf(sample) })),
  spec: {
    facet: { column: { field: 'system', type: 'nominal', title: null, sort: null } },
    resolve: { scale: { y: 'independent' } },
    spec: {
      width: 160,
      height: 220,
      layer: [
        {
          mark: 'bar',
          encoding: { y: { field: 'mbps', aggregate: 'median', type: 'quantitative', title: 'Mbit/s' } },
        },
        {
          mark: { type: 'point', color: 'black', size: 12 },
          encoding: { y: { field: 'mbps', type: 'quantitative' } },
        },
      ],
      encoding: {
        x: { field: 'load', type: 'nominal', sort: null, title: 'load on the middle node’s host' },
      },
    },
  },
})
