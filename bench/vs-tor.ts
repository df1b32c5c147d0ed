/**
 * Direct, IPpriv's userspace plane over three hops, and Debian's tor over three hops, on one chain of hosts in one
 * run. Rounds alternate between the three, so that whatever else the machine does touches all of them.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Commands, until } from '#demo/command'
import type { Bench, BenchContext, Report } from './bench.ts'
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
import {
  Comparison,
  LOSSY_SYSTEMS,
  type Sample,
  SYSTEMS,
  type System,
  TOR_BEST,
} from './vs-tor/comparison.ts'

const LOAD_PORT = 8080
/** Of the narrow cable, Mbit/s: the range of the paper's Figure 6. */
const CAPACITIES = [1, 2, 4, 7, 10] as const

export const bench: Bench = {
  name: 'vs-tor',
  summary: 'goodput, latency and cost of three hops beside direct traffic and Debian’s tor',
  rounds: 5,
  minutesPerRound: 9,
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
          for (const mbps of CAPACITIES) await this.#narrow('capacity', round, { mbps, loss: 3 })
        await realSegments(this.#commands, this.#chain, false)
        await impairChain(this.#commands, this.#chain, {})
        say(`round ${round} of ${this.#context.rounds} is done`)
      }
      return new Comparison(this.#context.rounds, this.#samples).report()
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
      await this.#measure({ system: 'tor', part: 'open', what: TOR_BEST, round }, { down: 5 }, true)
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
}
