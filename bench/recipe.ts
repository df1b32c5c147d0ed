import type { BenchContext, Plot, Report } from './bench.ts'
import { samplesFromGuest } from './guest.ts'
import type { RecipeSample, RecipeSide } from './recipe-guest.ts'
import { median } from './stats.ts'

/** With the one to whose round trip a side's hops add. */
const SIDES: readonly (readonly [RecipeSide, without: RecipeSide])[] = [
  ['plain', 'plain'],
  ['daemons', 'plain'],
  ['by hand', 'plain'],
  ['plain, later', 'plain, later'],
  ['userspace', 'plain, later'],
]
const HOPS = 3
/** For boot, and for each network and circuit and for each round. */
const START_MS = 600_000
const ROUND_MS = 240_000

/**
 * The kernel plane under the daemons beside the same telescope put together with ip(8) and fixed keys, which is what
 * this kernel can do, beside none, and beside the userspace plane on the same kernel: one boot of User-Mode Linux.
 */
export async function runRecipe({ rounds, options, signal, say }: BenchContext): Promise<Report> {
  const seconds = Number(options.seconds)
  say(`booting; ${rounds} rounds`)
  const samples = await samplesFromGuest<RecipeSample>(
    'recipe-guest.ts',
    [rounds, seconds],
    2 * (START_MS + rounds * ROUND_MS),
    { signal, say },
  )
  return recipeReport(rounds, samples)
}

export function recipeReport(rounds: number, samples: readonly RecipeSample[]): Report {
  const by = (side: RecipeSide, value: (sample: RecipeSample) => number): number[] =>
    samples.filter((sample) => sample.side === side).map(value)
  const of = (side: RecipeSide, value: (sample: RecipeSample) => number): number => median(by(side, value))
  /** Of the same pass, so that a machine that slows down slows both. */
  const shares = (value: (sample: RecipeSample) => number): number[] => {
    const recipe = by('by hand', value)
    return by('daemons', value).map((own, pass) => own / recipe[pass]!)
  }
  const kernelOverUserspace = (value: (sample: RecipeSample) => number): number =>
    of('daemons', value) / of('userspace', value)
  return {
    title: `Kernel plane, ${HOPS} hops, in User-Mode Linux`,
    tables: [
      {
        title: `medians of ${rounds} rounds`,
        columns: ['', 'down, Mbit/s', 's/GB', 'up, Mbit/s', 's/GB', 'round trip, ms', 'added per hop, ms'],
        rows: SIDES.map(([side, without]) => [
          side,
          of(side, (s) => s.down),
          of(side, (s) => s.downCost),
          of(side, (s) => s.up),
          of(side, (s) => s.upCost),
          of(side, (s) => s.ms),
          side === without ? '-' : (of(side, (s) => s.ms) - of(without, (s) => s.ms)) / HOPS,
        ]),
      },
      {
        title: 'kernel plane, times the userspace plane',
        columns: ['goodput down', 'goodput up', 'round trip', 's/GB down', 's/GB up'],
        rows: [
          [
            kernelOverUserspace((s) => s.down),
            kernelOverUserspace((s) => s.up),
            kernelOverUserspace((s) => s.ms),
            kernelOverUserspace((s) => s.downCost),
            kernelOverUserspace((s) => s.upCost),
          ],
        ],
      },
    ],
    targets: [
      {
        what: 'goodput down, share of the recipe by hand',
        measured: median(shares((s) => s.down)),
        bound: 0.95,
        sense: 'least',
      },
      {
        what: 'goodput up, share of the recipe by hand',
        measured: median(shares((s) => s.up)),
        bound: 0.95,
        sense: 'least',
      },
    ],
    samples,
    plots: [recipePlot(samples)],
    notes: [
      'Sides take turns, forth and back in every round; a share is the median of the shares of each pass. The userspace plane has its rounds after all of the others, with plain ones of its own: the guest has memory for one set of daemons.',
      'AES-256-GCM: in the kernel in plain C, ten seals and ten openings of every packet; in userspace libcrypto with what the processor has. One processor for all hosts. System calls of this guest cost several times those of a real machine, which the userspace plane pays and the kernel plane does not.',
      'The recipe has no packet filter, no guard and no block policies.',
      'Processor seconds are the guest’s above idle, both ends of iperf3 included.',
    ],
  }
}

function recipePlot(samples: readonly RecipeSample[]): Plot {
  const values = samples.flatMap(({ side, down, up, ms, downCost, upCost }) => [
    { side, direction: 'down', mbps: down, cost: downCost, ms },
    { side, direction: 'up', mbps: up, cost: upCost, ms },
  ])
  const panel = (field: string, title: string) => ({
    width: 220,
    height: 240,
    mark: { type: 'point', filled: true, size: 40 },
    encoding: {
      x: { field: 'side', type: 'nominal', sort: null, title: null },
      xOffset: { field: 'direction' },
      y: { field, type: 'quantitative', title, scale: { type: 'log' } },
      color: { field: 'direction', type: 'nominal', title: null },
    },
  })
  return {
    name: 'planes-kernel',
    values,
    spec: {
      hconcat: [
        panel('mbps', 'goodput, Mbit/s'),
        panel('cost', 'processor seconds per gigabyte'),
        panel('ms', 'round trip, ms'),
      ],
    },
  }
}
