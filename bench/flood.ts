import { setTimeout as sleep } from 'node:timers/promises'
import { Commands } from '#demo/command'
import type { Bench, BenchContext, Report } from './bench.ts'
import { FloodScene, type Phase } from './flood/scene.ts'
import { median } from './stats.ts'

/** What spoofed IKE_SA_INIT at the entry do to the circuits there, to a newcomer, and to its memory. */
export const bench: Bench = {
  name: 'flood',
  summary:
    'a download, renewals and a new circuit while the entry is flooded with spoofed IKE_SA_INIT (needs root)',
  options: [
    ['--rate <n>', 'spoofed requests per second', '2000'],
    ['--seconds <n>', 'length of the flood, and of the calm before and after', '20'],
  ],
  rounds: 3,
  run,
}

const PHASES = ['before', 'during', 'after'] as const
type When = (typeof PHASES)[number]
type Sample = Phase & { readonly when: When; readonly round: number }
/** Half-open IKE SAs are given up by then. */
const SETTLED = 45_000
const MIB = 2 ** 20

interface Ends {
  readonly resident: number
  readonly halfOpen: number
}

async function run({ rounds, options, signal, say }: BenchContext): Promise<Report> {
  const commands = new Commands(signal)
  const scene = new FloodScene(commands, `ippb${process.pid}`)
  const rate = Number(options.rate)
  const milliseconds = 1000 * Number(options.seconds)
  const samples: Sample[] = []
  try {
    await scene.raise()
    say('the circuit is open')
    for (let round = 1; round <= rounds; round++)
      for (const when of PHASES) {
        const phase = await scene.phase(milliseconds, when === 'during' ? { rate } : undefined)
        samples.push({ ...phase, when, round })
        say(`round ${round}, ${when}: ${phase.mbps.toFixed(1)} Mbit/s, ${phase.cookies} cookies`)
      }
    await sleep(SETTLED, undefined, { signal })
    const { 'sas.half-open': halfOpen = 0 } = await scene.counters()
    return report(samples, { resident: scene.resident(), halfOpen }, rate)
  } finally {
    await scene.fell()
  }
}

function report(samples: readonly Sample[], end: Ends, rate: number): Report {
  const of = (when: When) => samples.filter((sample) => sample.when === when)
  const each = (when: When, what: (sample: Sample) => number) => of(when).map(what)
  const renewals = (when: When) => of(when).flatMap((sample) => sample.renewals)
  const during = of('during')
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
  const shares = during.map(({ mbps, round }) => {
    const calm = samples.find((sample) => sample.round === round && sample.when === 'before')!
    return mbps / calm.mbps
  })
  const resident = (when: When) => Math.max(...each(when, (sample) => sample.resident)) / MIB
  const repeated = renewals('during').filter(({ transmissions }) => transmissions > 1).length
  return {
    title: `${rate} spoofed IKE_SA_INIT per second at the entry`,
    tables: [
      {
        title: 'what the others notice (medians)',
        columns: ['', 'Mbit/s', 'renewals', 'ms each', 'most ms', 'repeated', 'rekey ms', 'new circuit ms'],
        rows: PHASES.map((when) => {
          const times = renewals(when).map(({ milliseconds }) => milliseconds)
          return [
            when,
            median(each(when, ({ mbps }) => mbps)),
            times.length,
            median(times),
            Math.max(...times),
            renewals(when).filter(({ transmissions }) => transmissions > 1).length,
            median(each(when, ({ rekeyMs }) => rekeyMs)),
            median(each(when, ({ buildMs }) => buildMs ?? Number.NaN).filter((ms) => !Number.isNaN(ms))),
          ]
        }),
      },
      {
        title: 'what the entry notices (the most)',
        columns: ['', 'resident MiB', 'half-open', 'sent', 'cookies'],
        rows: [
          ...PHASES.map((when) => [
            when,
            resident(when),
            Math.max(...each(when, ({ halfOpen }) => halfOpen)),
            sum(each(when, ({ sent }) => sent ?? 0)),
            sum(each(when, ({ cookies }) => cookies)),
          ]),
          [`${SETTLED / 1000} s later`, end.resident / MIB, end.halfOpen, '', ''],
        ],
      },
    ],
    targets: [
      { what: 'goodput, of that before', measured: median(shares), bound: 0.8, sense: 'least', unit: 'x' },
      { what: 'renewals that had to be repeated', measured: repeated, bound: 0, sense: 'most' },
      {
        what: 'new circuits that opened under the flood',
        measured: during.filter(({ buildMs }) => buildMs !== undefined).length / during.length,
        bound: 1,
        sense: 'least',
        unit: 'x',
      },
      {
        what: 'half-open IKE SAs once it is over',
        measured: end.halfOpen,
        bound: 0,
        sense: 'most',
      },
      {
        what: 'resident memory of the entry once it is over, of the most before',
        measured: end.resident / MIB / resident('before'),
        bound: 1.25,
        sense: 'most',
        unit: 'x',
      },
    ],
    notes: [
      'The attacker, both clients, all nodes and the server share the processors of this machine: the goodput lost to the attacker itself counts, too.',
      'Renewals are those of an IKE SA whose keys an honest client replaces every 500 ms, mostly the Child SA. Rekey is that of the slowest layer of the circuit in use.',
    ],
    samples: { samples, end },
  }
}
