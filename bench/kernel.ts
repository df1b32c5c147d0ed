import type { Bench, BenchContext, Report } from './bench.ts'
import { samplesFromGuest } from './guest.ts'
import type { KernelSample } from './kernel-guest.ts'
import { median } from './stats.ts'

/** The kernel plane of a node under many circuits, inside User-Mode Linux: one processor, cryptography in plain C. */
export const bench: Bench = {
  name: 'kernel',
  summary: 'circuits the kernel plane takes per second, and what one of many still carries (User-Mode Linux)',
  rounds: 5,
  minutesPerRound: 1,
  options: [['--sizes <list>', 'numbers of circuits, the least to compare with', '1,1000,3000,10000']],
  run,
}

const TIME_LIMIT = 1_800_000

async function run({ rounds, options, signal, say }: BenchContext): Promise<Report> {
  const sizes = String(options.sizes).split(',').map(Number)
  if (sizes.some((size) => !Number.isInteger(size) || size < 1)) throw new Error('--sizes: positive integers')
  say(`booting; ${rounds} rounds of ${sizes.join(', ')} circuits`)
  const samples = await samplesFromGuest<KernelSample>('kernel-guest.ts', [sizes, rounds], TIME_LIMIT, {
    signal,
    say,
  })
  const of = (size: number, value: (sample: KernelSample) => number): number =>
    median(samples.filter(({ circuits }) => circuits === size).map(value))
  const [one, most] = [Math.min(...sizes), Math.max(...sizes)]
  const share = of(most, ({ mbps }) => mbps) / of(one, ({ mbps }) => mbps)
  return {
    title: 'kernel plane: many circuits',
    tables: [
      {
        title: 'medians',
        columns: ['circuits', 'installed per second', 'removed per second', 'Mbit/s of one'],
        rows: sizes.map((size) => [
          size,
          Math.round(of(size, ({ installed }) => installed)),
          Math.round(of(size, ({ removed }) => removed)),
          of(size, ({ mbps }) => mbps).toFixed(1),
        ]),
      },
    ],
    targets: [
      {
        what: `${most} circuits installed, per second`,
        measured: of(most, ({ installed }) => installed),
        bound: 500,
        sense: 'least',
      },
      {
        what: `${most} circuits removed, per second`,
        measured: of(most, ({ removed }) => removed),
        bound: 500,
        sense: 'least',
      },
      {
        what: `one of ${most}: share of its rate beside ${one - 1} others`,
        measured: share,
        bound: 0.9,
        sense: 'least',
      },
    ],
    samples,
    notes: [
      'A circuit is 2 SAs and 2 policies, in one batch of netlink messages, one circuit after the other.',
      'One stream of TCP through one layer; client, node and server share the one processor of the guest.',
    ],
  }
}
