import type { BenchContext, Report } from './bench.ts'
import { samplesFromGuest } from './guest.ts'
import type { RecipeSample, RecipeSide } from './recipe-guest.ts'
import { median } from './stats.ts'

const SIDES: readonly RecipeSide[] = ['plain', 'daemons', 'by hand']
const HOPS = 3
/** For boot, network and circuit, and for each round beside its transfers. */
const START_MS = 600_000
const ROUND_MS = 120_000

/**
 * The kernel plane under the daemons beside the same telescope put together with ip(8) and fixed keys, which is what
 * this kernel can do, and beside none: one boot of User-Mode Linux, in turns.
 */
export async function runRecipe({ rounds, options, signal, say }: BenchContext): Promise<Report> {
  const seconds = Number(options.seconds)
  say(`booting; ${rounds} rounds`)
  const samples = await samplesFromGuest<RecipeSample>(
    'recipe-guest.ts',
    [rounds, seconds],
    START_MS + rounds * ROUND_MS,
    { signal, say },
  )
  const of = (side: RecipeSide, value: (sample: RecipeSample) => number): number =>
    median(samples.filter((sample) => sample.side === side).map(value))
  /** Of the same round, so that a machine that slows down slows both. */
  const share = (value: (sample: RecipeSample) => number): number => {
    const by = (side: RecipeSide) => samples.filter((sample) => sample.side === side).map(value)
    const recipe = by('by hand')
    return median(by('daemons').map((own, round) => own / recipe[round]!))
  }
  const hop = (side: RecipeSide): number => (of(side, (s) => s.ms) - of('plain', (s) => s.ms)) / HOPS
  return {
    title: `Kernel plane, ${HOPS} hops, in User-Mode Linux`,
    tables: [
      {
        title: `medians of ${rounds} rounds`,
        columns: ['', 'down, Mbit/s', 'up, Mbit/s', 'round trip, ms', 'added per hop, ms'],
        rows: SIDES.map((side) => [
          side,
          of(side, (s) => s.down),
          of(side, (s) => s.up),
          of(side, (s) => s.ms),
          hop(side),
        ]),
      },
    ],
    targets: [
      {
        what: 'goodput down, share of the recipe by hand',
        measured: share((s) => s.down),
        bound: 0.95,
        sense: 'least',
      },
      {
        what: 'goodput up, share of the recipe by hand',
        measured: share((s) => s.up),
        bound: 0.95,
        sense: 'least',
      },
    ],
    samples,
    notes: [
      'Sides take turns within every round; a share is the median of the shares of each round.',
      'AES-256-GCM in plain C, one processor for all hosts: ten seals and ten openings of every packet.',
      'The recipe has no packet filter, no guard and no block policies.',
    ],
  }
}
