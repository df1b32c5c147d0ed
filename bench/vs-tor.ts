/**
 * Direct, IPpriv's userspace plane over three hops, and Debian's tor over three hops, on one chain of hosts in one
 * run. Rounds alternate between the three, so that whatever else the machine does touches all of them.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Commands, until } from '#demo/command'
import type { Bench, BenchContext, Plot, Report, Table, Target } from './bench.ts'
import {
  ADDRESS,
  type Chain,
  fellChain,
  type Impairment,
  impairChain,
  onHost,
  raiseChain,
  realSegments,
} from './chain.ts'
import type { LoadPlan, LoadResult } from './load.ts'
import { OpenVpn, TUNNEL } from './openvpn.ts'
import { OverlayNetwork } from './overlay.ts'
import { idleLoad } from './processors.ts'
import { median, quantile } from './stats.ts'
import { SOCKS_PORT, TorNetwork } from './tor.ts'

const SYSTEMS = ['direct', 'ippriv', 'tor'] as const
/** On the cable that loses packets also one hop of a tunnel over UDP, and one over TCP. */
const LOSSY_SYSTEMS = [...SYSTEMS, 'openvpn-udp', 'openvpn-tcp'] as const
type System = (typeof LOSSY_SYSTEMS)[number]
const LOAD_PORT = 8080

/** One measurement: everything a reader may want to compute again is kept. */
interface Sample {
  readonly system: System
  readonly part: 'open' | 'loss' | 'capacity'
  readonly what: string
  readonly round: number
  readonly loss?: number
  readonly mbps?: number
  /** Goodput, both ways together. */
  readonly goodput?: number
  /** Median and 95th percentile. */
  readonly rtt?: number
  readonly rtt95?: number
  readonly ms?: number
  /** Processor seconds of the whole machine, above what it uses when idle, per gigabyte of goodput. */
  readonly cost?: number
}

export const bench: Bench = {
  name: 'vs-tor',
  summary: 'goodput, latency and cost of three hops beside direct traffic and Debian’s tor',
  rounds: 5,
  options: [
    ['--part <part>', 'open, loss, capacity, or all', 'all'],
    ['--only <cases>', 'of the open part, with commas: idle, 1 down, 5 down, 1 up, 5 up, page, build'],
    ['--seconds <n>', 'length of one measurement', '4'],
  ],
  run: (context) => new VersusTor(context).run(),
}

class VersusTor {
  readonly #context: BenchContext
  readonly #commands: Commands
  readonly #chain: Chain = { id: `ippb${process.pid}` }
  readonly #samples: Sample[] = []
  readonly #milliseconds: number
  #overlay: OverlayNetwork | undefined
  #tor: TorNetwork | undefined
  #idle = 0

  constructor(context: BenchContext) {
    this.#context = context
    this.#commands = new Commands(context.signal)
    this.#milliseconds = 1000 * Number(context.options.seconds)
  }

  async run(): Promise<Report> {
    const { say, options } = this.#context
    const home = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
    try {
      await this.#start(home)
      await this.#warmUp()
      const wanted = (part: string) => options.part === 'all' || options.part === part
      for (let round = 1; round <= this.#context.rounds; round++) {
        if (wanted('open')) await this.#openRound(round)
        await realSegments(this.#commands, this.#chain, true)
        if (wanted('loss'))
          for (const loss of [0, 1, 3, 5]) await this.#narrow('loss', round, { mbps: 10, loss })
        if (wanted('capacity'))
          for (const mbps of [1, 2, 4, 7]) await this.#narrow('capacity', round, { mbps, loss: 3 })
        await realSegments(this.#commands, this.#chain, false)
        await impairChain(this.#commands, this.#chain, {})
        say(`round ${round} of ${this.#context.rounds} is done`)
      }
      return this.#report()
    } finally {
      await this.#commands.killAll(2000)
      await fellChain(this.#commands, this.#chain)
      await rm(home, { recursive: true, force: true })
    }
  }

  async #start(home: string): Promise<void> {
    const { say, out } = this.#context
    await fellChain(this.#commands, this.#chain)
    await raiseChain(this.#commands, this.#chain)
    say('a chain of hosts')
    const server = join(import.meta.dirname, 'load-server.ts')
    const log = join(out, 'vs-tor-server.log')
    const argv = [process.execPath, server, '0.0.0.0', String(LOAD_PORT)]
    this.#commands.start(onHost(this.#chain, 'server', ...argv), log)
    await until('the load server', 20_000, async () =>
      (await readFile(log, 'utf8')).endsWith('ready\n') ? true : undefined,
    )
    this.#tor = new TorNetwork(this.#commands, this.#chain, join(home, 'tor'))
    this.#overlay = new OverlayNetwork(this.#commands, this.#chain, join(home, 'ippriv'))
    await this.#overlay.start()
    say('IPpriv: the circuit is open')
    await this.#tor.start()
    say('tor: a circuit is built')
    await new OpenVpn(this.#commands, this.#chain, join(home, 'openvpn')).start()
    say('OpenVPN: both tunnels answer')
  }

  /** V8 compiles what runs often, and TCP remembers a way: nobody is measured in the first second of his life. */
  async #warmUp(): Promise<void> {
    for (const system of ['ippriv', 'tor'] as const)
      for (const plan of [{ down: 5 }, { up: 5 }]) await this.#load(system, plan, 2000)
    this.#context.say('both are warm')
  }

  /** Nothing on the cables but the systems themselves. */
  async #openRound(round: number): Promise<void> {
    this.#idle = await idleLoad()
    const cases: readonly (readonly [string, Partial<LoadPlan>])[] = [
      ['idle', {}],
      ['1 down', { down: 1 }],
      ['5 down', { down: 5 }],
      ['1 up', { up: 1 }],
      ['5 up', { up: 5 }],
      ['page', { measure: 'page' }],
    ]
    const { only } = this.#context.options
    const isWanted = (what: string) => typeof only !== 'string' || only.split(',').includes(what)
    for (const [what, plan] of cases) {
      if (!isWanted(what)) continue
      for (const system of SYSTEMS) await this.#measure({ system, part: 'open', what, round }, plan)
    }
    if (isWanted('5 down'))
      await this.#measure(
        { system: 'tor', part: 'open', what: '5 down, 5 circuits', round },
        { down: 5 },
        true,
      )
    if (!isWanted('build')) return
    for (const [system, network] of [
      ['ippriv', this.#overlay],
      ['tor', this.#tor],
    ] as const)
      for (let i = 0; i < 5; i++)
        this.#samples.push({ system, part: 'open', what: 'build', round, ms: await network!.buildCircuit() })
  }

  /** The conditions of the paper: a narrow cable that loses packets. */
  async #narrow(part: 'loss' | 'capacity', round: number, limits: Required<Impairment>): Promise<void> {
    await impairChain(this.#commands, this.#chain, limits)
    for (const system of part === 'loss' ? LOSSY_SYSTEMS : SYSTEMS)
      await this.#measure({ system, part, what: '1 down', round, ...limits }, { down: 1 }, false, 2)
  }

  async #measure(
    labels: Pick<Sample, 'system' | 'part' | 'what' | 'round' | 'loss' | 'mbps'>,
    plan: Partial<LoadPlan>,
    isolate = false,
    longer = 1,
  ): Promise<void> {
    const { system } = labels
    const result = await this.#load(system, plan, longer * this.#milliseconds, isolate)
    const { downMbps, upMbps, roundTripsMs, pagesMs, seconds, busySeconds } = result
    const goodput = downMbps + upMbps
    const gigabytes = (goodput * seconds) / 8 / 1000
    const sample: Sample = {
      ...labels,
      ...(goodput > 0 ? { goodput, cost: (busySeconds - this.#idle * seconds) / gigabytes } : {}),
      ...(roundTripsMs.length > 0 ? { rtt: median(roundTripsMs), rtt95: quantile(roundTripsMs, 0.95) } : {}),
      ...(pagesMs.length > 0 ? { ms: median(pagesMs) } : {}),
    }
    this.#samples.push(sample)
    const said = Object.entries(sample).filter(
      ([, value]) => typeof value === 'number' && !Number.isInteger(value),
    )
    this.#context.say(
      `${labels.what.padEnd(18)} ${system.padEnd(6)} ${said.map(([name, value]) => `${name} ${(value as number).toFixed(2)}`).join('  ')}`,
    )
  }

  async #load(
    system: System,
    plan: Partial<LoadPlan>,
    durationMs: number,
    isolate = false,
  ): Promise<LoadResult> {
    const whole: LoadPlan = {
      server: system === 'openvpn-udp' || system === 'openvpn-tcp' ? TUNNEL[system] : ADDRESS.server,
      port: LOAD_PORT,
      measure: 'round-trips',
      warmupMs: plan.down || plan.up ? durationMs / 2 : 200,
      durationMs,
      ...plan,
      ...(system === 'tor' ? { proxy: { address: ADDRESS.plain, port: SOCKS_PORT, isolate } } : {}),
    }
    const program = join(import.meta.dirname, 'load.ts')
    const host = system === 'ippriv' ? 'client' : 'plain'
    const argv = onHost(this.#chain, host, process.execPath, program, JSON.stringify(whole))
    const { stdout } = await this.#commands.run(argv, { timeoutMs: 20 * durationMs + 60_000 })
    return JSON.parse(stdout) as LoadResult
  }

  // ---------------------------------------------------------------------------------------------- the report

  #median(
    what: string,
    system: System,
    field: 'goodput' | 'rtt' | 'ms' | 'cost',
    where: Partial<Sample> = {},
  ): number {
    const matching = this.#samples.filter(
      (sample) =>
        sample.what === what &&
        sample.system === system &&
        Object.entries({ part: 'open', ...where }).every(
          ([name, value]) => sample[name as keyof Sample] === value,
        ),
    )
    return median(matching.flatMap((sample) => sample[field] ?? []))
  }

  #report(): Report {
    const has = (part: Sample['part']) => this.#samples.some((sample) => sample.part === part)
    return {
      title: `Three hops beside direct and tor, medians of ${this.#context.rounds} alternating rounds`,
      tables: [
        ...(has('open') ? this.#openTables() : []),
        ...(has('loss') ? [this.#narrowTable('loss', 'loss')] : []),
        ...(has('capacity') ? [this.#narrowTable('capacity', 'mbps')] : []),
      ],
      targets: [...(has('open') ? this.#openTargets() : []), ...(has('loss') ? this.#lossTargets() : [])],
      plots: [
        ...(has('loss') ? [this.#plot('loss', 'loss', 'packet loss, percent (10 Mbit/s)')] : []),
        ...(has('capacity') ? [this.#plot('capacity', 'mbps', 'capacity, Mbit/s (3 % loss)')] : []),
      ],
      samples: this.#samples,
      notes: [
        'Goodput is counted by the receiver; a round trip is 1,024 octets there and back over one TCP connection beside the streams.',
        'Cost is processor time of the whole machine above idle, load generators included, per gigabyte of goodput.',
        'Circuits are built with everything up and cached; IPpriv’s exchange is the hybrid one (X25519 and ML-KEM-768), tor’s is ntor.',
      ],
    }
  }

  #openTables(): Table[] {
    const bulk = ['1 down', '5 down', '1 up', '5 up']
    const row = (what: string, field: 'goodput' | 'rtt' | 'ms' | 'cost') => [
      what,
      ...SYSTEMS.map((system) => this.#median(what, system, field)),
    ]
    const columns = ['streams', ...SYSTEMS]
    return [
      {
        title: 'goodput, Mbit/s',
        columns,
        rows: [...bulk, '5 down, 5 circuits'].map((what) => row(what, 'goodput')),
      },
      { title: 'cost, processor seconds per gigabyte', columns, rows: bulk.map((what) => row(what, 'cost')) },
      {
        title: 'round trip of an application, ms',
        columns,
        rows: ['idle', ...bulk].map((what) => row(what, 'rtt')),
      },
      { title: 'other times, ms', columns, rows: [row('page', 'ms'), row('build', 'ms')] },
    ]
  }

  #narrowTable(part: 'loss' | 'capacity', by: 'loss' | 'mbps'): Table {
    const systems: readonly System[] = part === 'loss' ? LOSSY_SYSTEMS : SYSTEMS
    const steps = [...new Set(this.#samples.filter((s) => s.part === part).map((s) => s[by]!))]
    return {
      title:
        part === 'loss' ? '10 Mbit/s, by packet loss in percent' : '3 % packet loss, by capacity in Mbit/s',
      columns: [by, ...systems.map((s) => `${s} Mbit/s`), ...systems.map((s) => `${s} ms`)],
      rows: steps.map((step) => [
        String(step),
        ...(['goodput', 'rtt'] as const).flatMap((field) =>
          systems.map((system) => this.#median('1 down', system, field, { part, [by]: step })),
        ),
      ]),
    }
  }

  #openTargets(): Target[] {
    const goodput = (what: string, system: System) => this.#median(what, system, 'goodput')
    const one = goodput('1 down', 'ippriv') / goodput('1 down', 'tor')
    const five =
      goodput('5 down', 'ippriv') / Math.max(goodput('5 down', 'tor'), goodput('5 down, 5 circuits', 'tor'))
    const ratio = (what: string, field: 'rtt' | 'ms' | 'cost') =>
      this.#median(what, 'ippriv', field) / this.#median(what, 'tor', field)
    return [
      { what: 'one stream, times tor’s', measured: one, bound: 2.5, sense: 'least' },
      { what: 'five streams, times tor’s best arrangement', measured: five, bound: 1.2, sense: 'least' },
      {
        what: 'processor seconds per gigabyte, times tor’s',
        measured: ratio('1 down', 'cost'),
        bound: 0.7,
        sense: 'most',
      },
      {
        what: 'round trip beside five downloads, times tor’s',
        measured: ratio('5 down', 'rtt'),
        bound: 0.2,
        sense: 'most',
      },
      {
        what: 'round trip beside five uploads, times tor’s',
        measured: ratio('5 up', 'rtt'),
        bound: 0.05,
        sense: 'most',
      },
      { what: 'a web page, times tor’s', measured: ratio('page', 'ms'), bound: 0.5, sense: 'most' },
      {
        what: 'a circuit of three hops',
        measured: this.#median('build', 'ippriv', 'ms'),
        bound: 100,
        sense: 'most',
        unit: ' ms',
      },
    ]
  }

  #lossTargets(): Target[] {
    return [0, 1, 3, 5].flatMap((loss): Target[] => {
      const of = (system: System, field: 'goodput' | 'rtt') =>
        this.#median('1 down', system, field, { part: 'loss', loss })
      const at = `10 Mbit/s, ${loss} % loss:`
      return [
        {
          what: `${at} goodput, times direct`,
          measured: of('ippriv', 'goodput') / of('direct', 'goodput'),
          bound: 0.8,
          sense: 'least',
        },
        {
          what: `${at} round trip, times direct`,
          measured: of('ippriv', 'rtt') / of('direct', 'rtt'),
          bound: 1.5,
          sense: 'most',
        },
        {
          what: `${at} round trip, times tor’s`,
          measured: of('ippriv', 'rtt') / of('tor', 'rtt'),
          bound: 0.15,
          sense: 'most',
        },
      ]
    })
  }

  #plot(part: 'loss' | 'capacity', by: 'loss' | 'mbps', title: string): Plot {
    const values = this.#samples.filter((sample) => sample.part === part)
    const panel = (field: string, name: string, type: 'linear' | 'log') => ({
      width: 320,
      height: 240,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: by, type: 'quantitative', title },
        y: { field, aggregate: 'median', type: 'quantitative', title: name, scale: { type } },
        color: { field: 'system', type: 'nominal', title: null },
      },
    })
    return {
      name: `vs-tor-${part}`,
      values,
      spec: {
        hconcat: [panel('goodput', 'goodput, Mbit/s', 'linear'), panel('rtt', 'round trip, ms', 'log')],
      },
    }
  }
}
