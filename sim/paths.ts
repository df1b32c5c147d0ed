/**
 * What the choice of paths is worth: how even it is, whether any position is short of bandwidth, and how often an
 * adversary with some of the bandwidth sees both ends of a circuit, with guards and without. Circuits are chosen by
 * `choosePath` and `EntryGuards`, as clients do.
 */
import { instant } from '#base/time'
import type { ConsensusNode } from '#directory/documents'
import { EntryGuards, PATIENCE } from '#overlay/entry-guards'
import { choosePath } from '#overlay/path'
import { carriedBy, MASKS, PLACES, type Place, shareBandwidth } from '#overlay/position-weights'
import { Roster } from '#overlay/roster'
import type { Bench, BenchContext, Report, Table } from '../bench/bench.ts'
import { quantile } from '../bench/stats.ts'
import { adversaryNodes, consensusOf, honestNodes } from './network.ts'
import { seededRng } from './random.ts'

/** Shares of bandwidth an adversary may have. */
const SHARES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
/** A node is down on this share of days: then the next guard stands in. */
const DOWN = 0.02

export const bench: Bench = {
  name: 'paths',
  summary: 'entropy and load of the choice of paths; chance that an adversary sees both ends',
  rounds: 1,
  options: [
    ['--nodes <n>', 'honest nodes', '1000'],
    ['--clients <n>', 'clients for each share of the adversary', '300'],
    ['--days <n>', 'how long each is watched', '30'],
    ['--circuits <n>', 'circuits of a client in a day', '24'],
    ['--seed <n>', 'another network', '1'],
  ],
  async run(context) {
    const wanted = readOptions(context)
    const honest = honestNodes(wanted.nodes, wanted.seed)
    const roster = new Roster(consensusOf(honest, 0))
    context.say(`${wanted.nodes} nodes: entropy and load`)
    const watched: Watched[] = []
    for (const share of SHARES)
      for (const guards of [true, false]) {
        context.signal.throwIfAborted()
        context.say(`an adversary with ${share * 100} %, ${guards ? 'with' : 'without'} guards`)
        watched.push({ share, guards, ...watch(honest, share, guards, wanted) })
      }
    return report(wanted, roster, watched)
  },
}

interface Wanted {
  readonly nodes: number
  readonly clients: number
  readonly days: number
  readonly circuits: number
  readonly seed: number
}

interface Watched {
  readonly share: number
  readonly guards: boolean
  /** Share of clients of whom both ends were seen at least once, by the end of each day. */
  readonly seen: readonly number[]
  /** Chance of one circuit alone, with an entry that is drawn for it. */
  readonly once: number
}

function readOptions({ options }: BenchContext): Wanted {
  const positive = (name: string): number => {
    const value = Number(options[name])
    if (!Number.isInteger(value) || value < 1) throw new Error(`--${name}: expected a positive integer`)
    return value
  }
  return {
    nodes: positive('nodes'),
    clients: positive('clients'),
    days: positive('days'),
    circuits: positive('circuits'),
    seed: positive('seed'),
  }
}

/** Each client chooses its guards, builds its circuits day by day, and is lost with the first that both ends are bad of. */
function watch(
  honest: readonly ConsensusNode[],
  share: number,
  guards: boolean,
  wanted: Wanted,
): Pick<Watched, 'seen' | 'once'> {
  const bad = adversaryNodes(honest, share)
  const isBad = new Set(bad.map(({ nodeId }) => nodeId))
  const nodes = [...honest, ...bad]
  const rosters = Array.from({ length: wanted.days }, (_, day) => new Roster(consensusOf(nodes, day)))
  const seen: number[] = new Array(wanted.days).fill(0)
  for (let client = 0; client < wanted.clients; client++) {
    const rng = seededRng(wanted.seed * 1_000_003 + client)
    const chosen = new EntryGuards([], rng)
    const lost = rosters.findIndex((roster, day) => {
      const entry = guards ? guardOf(chosen, roster, day, () => rng.fraction() < DOWN) : undefined
      for (let circuit = 0; circuit < wanted.circuits; circuit++) {
        const path = choosePath(roster, entry === undefined ? {} : { entry }, rng)
        if (!path.ok) throw new Error(path.where)
        if (isBad.has(path.value[0]!.nodeId) && isBad.has(path.value.at(-1)!.nodeId)) return true
      }
      return false
    })
    if (lost >= 0) for (let day = lost; day < wanted.days; day++) seen[day] = seen[day]! + 1 / wanted.clients
  }
  const [first] = rosters
  const chanceAt = (place: Place): number => {
    let [all, theirs] = [0, 0]
    for (const [i, { nodeId }] of first!.nodes.entries()) {
      all += first!.weight(i, place)
      if (isBad.has(nodeId)) theirs += first!.weight(i, place)
    }
    return theirs / all
  }
  return { seen, once: chanceAt('entry') * chanceAt('exit') }
}

/** Of the sample, the first that is not down on that day; a first hop that stands confirms it. */
function guardOf(guards: EntryGuards, roster: Roster, day: number, isDown: () => boolean) {
  const now = instant(day * 86_400_000)
  const [primary, second] = guards.candidates(roster, now)
  if (primary !== undefined && second !== undefined && isDown()) {
    for (let i = 0; i < PATIENCE; i++) guards.failed(primary, now)
    guards.succeeded(second)
    return second
  }
  if (primary !== undefined) guards.succeeded(primary)
  return primary
}

function report(wanted: Wanted, roster: Roster, watched: readonly Watched[]): Report {
  const percent = (value: number): number => Math.round(value * 1000) / 10
  const last = ({ seen }: Watched): number => seen.at(-1)!
  const chance: Table = {
    title: `an adversary sees both ends of a circuit at least once in ${wanted.days} days, % of clients`,
    columns: ['bandwidth, %', 'with guards', 'without', 'one circuit, %'],
    rows: SHARES.map((share) => {
      const of = (guards: boolean) => watched.find((each) => each.share === share && each.guards === guards)!
      return [percent(share), percent(last(of(true))), percent(last(of(false))), 100 * of(true).once]
    }),
  }
  return {
    title: `paths: ${wanted.nodes} nodes, ${wanted.clients} clients of ${wanted.circuits} circuits a day`,
    tables: [entropyTable(roster), loadTable(roster), chance],
    targets: [],
    samples: { wanted, watched },
    plots: [
      {
        name: 'paths-both-ends',
        values: watched.map((each) => ({
          share: each.share,
          seen: last(each),
          entry: each.guards ? 'guards' : 'no guards',
        })),
        spec: {
          width: 480,
          height: 300,
          title: `Both ends seen at least once in ${wanted.days} days`,
          mark: { type: 'line', point: true },
          encoding: {
            x: {
              field: 'share',
              type: 'quantitative',
              axis: { format: '%', title: 'bandwidth of the adversary' },
            },
            y: {
              field: 'seen',
              type: 'quantitative',
              scale: { domain: [0, 1] },
              axis: { format: '%', title: 'clients' },
            },
            color: { field: 'entry', type: 'nominal', title: null },
          },
        },
      },
      {
        name: 'paths-over-time',
        values: watched.flatMap(({ share, guards, seen }) =>
          seen.map((value, day) => ({
            day: day + 1,
            seen: value,
            share: `${percent(share)} %`,
            entry: guards ? 'guards' : 'no guards',
          })),
        ),
        spec: {
          width: 480,
          height: 300,
          title: 'Clients of whom both ends were seen, day by day',
          mark: 'line',
          encoding: {
            x: { field: 'day', type: 'quantitative', title: 'day' },
            y: {
              field: 'seen',
              type: 'quantitative',
              scale: { domain: [0, 1] },
              axis: { format: '%', title: 'clients' },
            },
            color: { field: 'share', type: 'nominal', title: 'bandwidth', sort: null },
            strokeDash: { field: 'entry', type: 'nominal', title: null },
          },
        },
      },
    ],
    notes: [
      'One circuit: an entry and an exit drawn anew. The adversary has guards and exits and no other nodes, so its share there is higher.',
      `A guard is down on ${percent(DOWN)} % of days. Anybody with a guard of the adversary is lost within days; the others are safe while they keep theirs.`,
      'Seeing both ends is taken for success. How well traffic is correlated is not part of this.',
    ],
  }
}

/** Bits, and what a choice of equals with as many bits would be among. */
function entropyTable(roster: Roster): Table {
  const rows = PLACES.map((place) => {
    const weights = roster.nodes.map((_, index) => roster.weight(index, place))
    const total = weights.reduce((sum, each) => sum + each, 0)
    const chances = weights.map((each) => each / total).filter((each) => each > 0)
    const entropy = -chances.reduce((sum, each) => sum + each * Math.log2(each), 0)
    const most = Math.max(...chances)
    return [place, chances.length, entropy, 2 ** entropy, -Math.log2(most), 100 * most]
  })
  return {
    title: 'anonymity sets: who could have stood there',
    columns: ['position', 'nodes', 'entropy, bits', 'like equals', 'min-entropy, bits', 'likeliest, %'],
    rows,
  }
}

/** Traffic of a node by its bandwidth, as it is to be expected of very many circuits; a uniform choice is beside it. */
function loadTable(roster: Roster): Table {
  const { nodes } = roster
  const bandwidth: number[] = new Array(MASKS).fill(0)
  for (const [i, node] of nodes.entries())
    bandwidth[roster.places[i]!] = bandwidth[roster.places[i]!]! + node.bandwidth!
  const carried = carriedBy(shareBandwidth(bandwidth), bandwidth)
  const total = nodes.reduce((sum, { bandwidth = 0 }) => sum + bandwidth, 0)
  const loads = (weight: (index: number, place: Place) => number): number[] => {
    const visits: number[] = new Array(nodes.length).fill(0)
    for (const place of PLACES) {
      const weights = nodes.map((_, i) => weight(i, place))
      const sum = weights.reduce((all, each) => all + each, 0)
      for (const [i, each] of weights.entries()) visits[i] = visits[i]! + each / sum
    }
    return visits.map((each, i) => (each / 3) * (total / nodes[i]!.bandwidth!))
  }
  const spread = (name: string, values: readonly number[]) =>
    [
      name,
      quantile(values, 0.01),
      quantile(values, 0.5),
      quantile(values, 0.99),
      Math.max(...values),
    ] as const
  return {
    title: 'load: traffic by bandwidth of a node, 1 is the mean of the network',
    columns: ['choice', '1 %', 'median', '99 %', 'most'],
    rows: [
      spread(
        'by weight',
        loads((i, place) => roster.weight(i, place)),
      ),
      spread(
        'all alike',
        loads((i, place) => (roster.weight(i, place) > 0 ? 1 : 0)),
      ),
      ...PLACES.map(
        (place) =>
          [`${place}: share of all bandwidth, %`, (100 * carried[place]) / total, '', '', ''] as const,
      ),
    ],
  }
}
