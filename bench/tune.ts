/**
 * What each setting of `ippriv tune` contributes to a download over three hops of the userspace plane: one at a time is
 * turned away from how the kernel comes, then all of them to what is wanted, and all of them away from it. Rounds
 * alternate between settings. Knobs of namespaces go with them; those of the machine are noted first, and put back.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { Commands, until } from '#demo/command'
import { readKnob } from '#tune/knobs'
import { apply, type Finding, revert } from '#tune/tune'
import type { Bench, BenchContext, Plot, Report, Table } from './bench.ts'
import {
  ADDRESS,
  CHAIN_NODES,
  type Chain,
  type ChainHost,
  devicesOf,
  fellChain,
  type Impairment,
  impairChain,
  onHost,
  raiseChain,
  realSegments,
} from './chain.ts'
import { samplesFromGuest } from './guest.ts'
import type { KernelSample } from './kernel-guest.ts'
import type { LoadPlan, LoadResult } from './load.ts'
import { OverlayNetwork } from './overlay.ts'
import { median } from './stats.ts'
import {
  catalogue,
  contribution,
  deviation,
  isTrial,
  plan,
  type Trial,
  turningLine,
  type Unmeasured,
  type Where,
} from './tune/trial.ts'

/** `open`: nothing on the cables; `narrow`: a router's queue and random loss between the first and the second node. */
const CONDITIONS = { open: {}, narrow: { mbps: 50, loss: 0.5 } } as const satisfies Record<string, Impairment>
type Condition = keyof typeof CONDITIONS
/** Beside names of settings. */
const [FOUND, ALL, NOTHING] = ['as found', 'all as wanted', 'all without']

interface TuneSample {
  readonly condition: Condition
  readonly round: number
  /** What deviates from how the kernel comes. */
  readonly state: string
  readonly mbps: number
}

const HOSTS: Readonly<Record<Exclude<Where, 'machine'>, readonly ChainHost[]>> = {
  ends: ['client', 'server'],
  nodes: CHAIN_NODES,
  hosts: ['client', ...CHAIN_NODES, 'server'],
}
const LOAD_PORT = 8080
/** As it comes is measured again after so many others. */
const BETWEEN = 5
/** To boot, and for each round. */
const [BOOT_MS, GUEST_ROUND_MS] = [120_000, 900_000]

export const bench: Bench = {
  name: 'tune',
  summary: 'what each setting of `ippriv tune` contributes to a download over three hops',
  rounds: 5,
  options: [
    ['--part <part>', 'open, narrow, xfrm (User-Mode Linux), or all', 'all'],
    ['--only <names>', 'settings whose names have one of these words in them, with commas'],
    ['--seconds <n>', 'length of one measurement', '2'],
    ['--circuits <n>', 'of the part xfrm', '10000'],
  ],
  run: async (context) => {
    const { part } = context.options
    const { plans, samples } = part === 'xfrm' ? { plans: [], samples: [] } : await new Tuning(context).run()
    const kernel = part === 'xfrm' || part === 'all' ? await thresholdSamples(context) : []
    return report(context.rounds, plans, samples, kernel)
  },
}

/** Look-ups of policies hashed, as the daemon has them, and not, as the kernel comes. */
async function thresholdSamples(context: BenchContext): Promise<KernelSample[]> {
  const sizes = [1, Number(context.options.circuits)]
  const { rounds } = context
  context.say(`booting; ${rounds} rounds`)
  const limit = BOOT_MS + rounds * GUEST_ROUND_MS
  return await samplesFromGuest('kernel-guest.ts', [sizes, rounds, [true, false]], limit, context)
}

class Tuning {
  readonly #context: BenchContext
  readonly #commands: Commands
  readonly #chain: Chain = { id: `ippt${process.pid}` }
  readonly #milliseconds: number
  readonly #samples: TuneSample[] = []
  /** Where the machine's own values are kept while they are turned. */
  readonly #note: string

  constructor(context: BenchContext) {
    this.#context = context
    this.#commands = new Commands(context.signal)
    this.#milliseconds = 1000 * Number(context.options.seconds)
    this.#note = join(context.out, 'tune-note.json')
  }

  async run(): Promise<{ plans: (Trial | Unmeasured)[]; samples: TuneSample[] }> {
    const { say, rounds, options } = this.#context
    const home = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
    // A run before this one may have been killed.
    await putBack(this.#note)
    try {
      await this.#start(home)
      const plans = await this.#tried(await this.#plans())
      const trials = plans.filter(isTrial)
      for (let round = 1; round <= rounds; round++)
        for (const condition of ['open', 'narrow'] as const) {
          if (options.part !== 'all' && options.part !== condition) continue
          await realSegments(this.#commands, this.#chain, condition === 'narrow')
          await impairChain(this.#commands, this.#chain, CONDITIONS[condition])
          await this.#round(condition, round, trials)
          say(`round ${round} of ${rounds}, ${condition}`)
        }
      return { plans, samples: this.#samples }
    } finally {
      await putBack(this.#note)
      await this.#commands.killAll(2000)
      await fellChain(this.#commands, this.#chain)
      await rm(home, { recursive: true, force: true })
    }
  }

  async #start(home: string): Promise<void> {
    await raiseChain(this.#commands, this.#chain)
    const log = join(home, 'server.log')
    const argv = [process.execPath, join(import.meta.dirname, 'load-server.ts'), '0.0.0.0', `${LOAD_PORT}`]
    this.#commands.start(onHost(this.#chain, 'server', ...argv), log)
    await until('the load server', 20_000, async () =>
      (await readFile(log, 'utf8')).endsWith('ready\n') ? true : undefined,
    )
    await new OverlayNetwork(this.#commands, this.#chain, join(home, 'ippriv')).start()
    this.#context.say('the circuit is open')
  }

  async #plans(): Promise<(Trial | Unmeasured)[]> {
    const { only } = this.#context.options
    const words = typeof only === 'string' ? only.split(',') : ['']
    const wanted = catalogue(availableParallelism()).filter(({ setting }) =>
      words.some((word) => setting.name.includes(word)),
    )
    return await Promise.all(
      wanted.map(async ({ role, setting }) => {
        const inMachine = setting.name.startsWith('net.core.netdev')
        const found = inMachine
          ? await readKnob(setting.knob)
          : await this.#read(role === 'client' ? 'client' : 'birch', setting)
        return plan(setting, found)
      }),
    )
  }

  /** What `ippriv tune` finds on a host. */
  async #read(
    host: ChainHost,
    { name, knob }: { name: string; knob: Trial['knob'] },
  ): Promise<string | undefined> {
    const [device] = devicesOf(host)
    const onDevice = 'device' in knob ? { ...knob, device: device! } : knob
    const program = `import('#tune/knobs').then(async (k) => console.log(JSON.stringify(await k.readKnob(${JSON.stringify(onDevice)}) ?? null)))`
    const argv = onHost(this.#chain, host, process.execPath, '--input-type=module', '--eval', program)
    const { stdout } = await this.#commands.run(argv)
    const value = JSON.parse(stdout) as string | null
    if (value === null) this.#context.say(`${name}: not here`)
    return value ?? undefined
  }

  /** A kernel may know a knob and not the value: a congestion control that was not built in, say. */
  async #tried(plans: readonly (Trial | Unmeasured)[]): Promise<(Trial | Unmeasured)[]> {
    const tried: (Trial | Unmeasured)[] = []
    for (const one of plans) {
      if (!isTrial(one)) tried.push(one)
      else {
        const isTaken = await this.#turn([[one, deviation(one)]]).then(
          () => true,
          (error) => {
            if (!(error instanceof IpprivError)) throw error
            return false
          },
        )
        await this.#restore([one])
        tried.push(
          isTaken
            ? one
            : { name: one.name, why: `this machine does not take ${deviation(one)} for ${one.found}` },
        )
      }
    }
    return tried
  }

  async #restore(trials: readonly Trial[]): Promise<void> {
    await putBack(this.#note)
    await this.#turn(trials.filter(({ where }) => where !== 'machine').map((trial) => [trial, trial.found]))
  }

  async #round(condition: Condition, round: number, trials: readonly Trial[]): Promise<void> {
    const measure = async (state: string) => {
      const mbps = await this.#download()
      this.#samples.push({ condition, round, state, mbps })
      this.#context.say(`${condition.padEnd(6)} ${mbps.toFixed(1).padStart(7)} Mbit/s  ${state}`)
    }
    const among = async (state: string, turned: readonly (readonly [Trial, string])[]) => {
      try {
        await this.#turn(turned)
        await measure(state)
      } finally {
        await this.#restore(turned.map(([trial]) => trial))
      }
    }
    // The first download after another condition finds queues and windows of the one before.
    await this.#download()
    for (const [i, trial] of trials.entries()) {
      if (i % BETWEEN === 0) await measure(FOUND)
      await among(trial.name, [[trial, deviation(trial)]])
    }
    await measure(FOUND)
    await among(
      ALL,
      trials.map((trial) => [trial, trial.wanted]),
    )
    await among(
      NOTHING,
      trials.map((trial) => [trial, trial.without]),
    )
  }

  async #turn(turned: readonly (readonly [Trial, string])[]): Promise<void> {
    const machine = turned.filter(([{ where }]) => where === 'machine')
    const findings = machine.map(
      ([trial, correction]): Finding => ({
        ...{ name: trial.name, knob: trial.knob, current: trial.found, correction },
        ...{ wanted: trial.wanted, state: 'change', why: '' },
      }),
    )
    const { refused } = await apply(findings, this.#note)
    if (refused.length > 0) throw refused[0]!.error
    for (const host of HOSTS.hosts) {
      const lines = turned.flatMap(([{ knob, where }, value]) => {
        if (where === 'machine' || !HOSTS[where].includes(host)) return []
        const devices = 'device' in knob ? devicesOf(host) : ['']
        return devices.map((device) => turningLine(knob, value, device))
      })
      // What fits is learnt per route, and forgotten with it.
      if (lines.length > 0)
        await this.#commands.run(onHost(this.#chain, host, 'sh', '-es'), {
          input: `${lines.join('\n')}\nip route flush cache\n`,
        })
    }
  }

  async #download(): Promise<number> {
    const whole: LoadPlan = {
      server: ADDRESS.server,
      port: LOAD_PORT,
      measure: 'bulk',
      down: 1,
      warmupMs: this.#milliseconds / 2,
      durationMs: this.#milliseconds,
    }
    const program = [process.execPath, join(import.meta.dirname, 'load.ts'), JSON.stringify(whole)]
    const { stdout } = await this.#commands.run(onHost(this.#chain, 'client', ...program), {
      timeoutMs: 60_000 + 20 * this.#milliseconds,
    })
    return (JSON.parse(stdout) as LoadResult).downMbps
  }
}

/** @throws IpprivError of the first that refuses, once all were tried */
async function putBack(note: string): Promise<void> {
  const { refused } = await revert(note)
  if (refused.length > 0) throw refused[0]!.error
}

// ---------------------------------------------------------------------------------------------- the report

function report(
  rounds: number,
  plans: readonly (Trial | Unmeasured)[],
  samples: readonly TuneSample[],
  kernel: readonly KernelSample[],
): Report {
  const trials = plans.filter(isTrial)
  const unmeasured = plans.filter((one): one is Unmeasured => !isTrial(one))
  const conditions = (['open', 'narrow'] as const).filter((c) =>
    samples.some(({ condition }) => condition === c),
  )
  return {
    title: `What each setting contributes to a download over three hops, medians of ${rounds} rounds`,
    tables: [
      ...conditions.map((condition) => conditionTable(condition, trials, samples)),
      ...(unmeasured.length === 0 ? [] : [unmeasuredTable(unmeasured)]),
      ...(kernel.length === 0 ? [] : [thresholdTable(kernel)]),
    ],
    targets: [],
    samples: { trials, downloads: samples, kernel },
    plots: samples.length === 0 ? [] : [plot(trials, samples)],
    notes: [
      'A contribution is what the wanted value has over the other one, in percent of goodput, within a round; the other value is what was found, or, where that is what is wanted already, what people had before. Least and most of the rounds show what is noise.',
      'Settings of TCP are turned at both ends, devices’ on every cable. `narrow` is 50 Mbit/s with 0.5 % loss and a queue of 50 ms between the first and the second node.',
    ],
  }
}

/** Of each round in which the state was measured, in percent. */
export function contributions(
  trials: readonly Trial[],
  samples: readonly TuneSample[],
  condition: Condition,
): ReadonlyMap<string, readonly number[]> {
  const here = samples.filter((sample) => sample.condition === condition)
  const rounds = [...new Set(here.map(({ round }) => round))]
  const rate = (round: number, state: string) =>
    median(here.filter((s) => s.round === round && s.state === state).map(({ mbps }) => mbps))
  const of = (value: (round: number) => number) => rounds.map(value).filter(Number.isFinite)
  return new Map([
    ...trials.map(
      (trial) =>
        [
          trial.name,
          of((round) => contribution(trial, rate(round, FOUND), rate(round, trial.name))),
        ] as const,
    ),
    [ALL, of((round) => 100 * (rate(round, ALL) / rate(round, NOTHING) - 1))] as const,
  ])
}

function conditionTable(
  condition: Condition,
  trials: readonly Trial[],
  samples: readonly TuneSample[],
): Table {
  const of = (state: string) =>
    median(samples.filter((s) => s.condition === condition && s.state === state).map(({ mbps }) => mbps))
  const all = contributions(trials, samples, condition)
  const spread = (name: string) => {
    const values = all.get(name)!
    // Without any: it was compared with nothing that arrived.
    return [median(values), Math.min(...values), Math.max(...values)].map((value) =>
      Number.isFinite(value) ? value.toFixed(1) : '-',
    )
  }
  return {
    title: `${condition}: ${of(FOUND).toFixed(1)} Mbit/s as the kernel comes`,
    columns: ['setting', 'wanted', 'without', 'found', 'Mbit/s with the other', 'gives, %', 'least', 'most'],
    rows: [
      ...trials.map((trial) => [
        ...[trial.name, trial.wanted, trial.without, trial.found === trial.wanted ? 'wanted' : 'without'],
        of(trial.name),
        ...spread(trial.name),
      ]),
      [ALL, '', '', '', of(ALL), ...spread(ALL)],
      [NOTHING, '', '', '', of(NOTHING), '', '', ''],
    ],
  }
}

const unmeasuredTable = (unmeasured: readonly Unmeasured[]): Table => ({
  title: 'not measured here',
  columns: ['setting', 'why'],
  rows: unmeasured.map(({ name, why }) => [name, why]),
})

/** Medians of the rounds, and what hashing has over walking within a round. */
export function thresholdTable(kernel: readonly KernelSample[]): Table {
  const sizes = [...new Set(kernel.map(({ circuits }) => circuits))]
  const all = (size: number, isHashed: boolean, value: (sample: KernelSample) => number) =>
    kernel.filter(({ circuits, hashed }) => circuits === size && hashed === isHashed).map(value)
  const values = [
    ({ installed }: KernelSample) => installed,
    ({ removed }: KernelSample) => removed,
    ({ mbps }: KernelSample) => mbps,
  ]
  return {
    title: 'xfrm/hthresh4, thresholds of policy hashing, a middle node in User-Mode Linux',
    columns: [
      ...['circuits', 'hashed', 'rounds', 'installed per second', 'removed per second', 'Mbit/s of one'],
      ...['gives, %', 'least', 'most'],
    ],
    rows: sizes.flatMap((size) => {
      const walked = all(size, false, ({ mbps }) => mbps)
      const gains = all(size, true, ({ mbps }) => mbps).map((mbps, i) => 100 * (mbps / walked[i]! - 1))
      const spread = [median(gains), Math.min(...gains), Math.max(...gains)]
      return [true, false].map((hashed) => [
        ...[`${size}`, hashed ? 'yes' : 'no', `${all(size, hashed, () => 0).length}`],
        ...values.map((value) => median(all(size, hashed, value))),
        ...(hashed ? spread.map((percent) => percent.toFixed(1)) : ['', '', '']),
      ])
    }),
  }
}

function plot(trials: readonly Trial[], samples: readonly TuneSample[]): Plot {
  const values = (['open', 'narrow'] as const).flatMap((condition) =>
    [...contributions(trials, samples, condition)].flatMap(([setting, all]) =>
      all.map((percent) => ({ condition, setting, percent })),
    ),
  )
  return {
    name: 'tune',
    values,
    spec: {
      width: 320,
      mark: { type: 'boxplot', extent: 'min-max' },
      encoding: {
        y: { field: 'setting', type: 'nominal', sort: null, title: null },
        yOffset: { field: 'condition' },
        x: {
          field: 'percent',
          type: 'quantitative',
          title: 'what the wanted value gives, percent of goodput',
        },
        color: { field: 'condition', type: 'nominal', title: null },
      },
    },
  }
}
