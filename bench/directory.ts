import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_WORK } from '#directory/work'
import type { Bench, BenchContext, Plot, Report, Table, Target } from './bench.ts'
import { type CouncilSample, sitCouncil } from './directory/council.ts'
import type { Churn } from './directory/network.ts'
import { besiege, type SiegeResult } from './directory/siege.ts'
import { readHours, type WireSample } from './directory/wire.ts'
import { median, quantile } from './stats.ts'

/** What a reader fetches, what a vote costs authorities, and what a crowd at the door does to both. */
export const bench: Bench = {
  name: 'directory',
  summary:
    'octets per reader, a vote of five authorities, uploads, and 10,000 fake nodes at the door (needs root)',
  rounds: 1,
  options: [
    ['--part <part>', 'wire, council, siege, or all', 'all'],
    ['--nodes <n>', 'of the network that is read and besieged', '1000'],
    ['--large <n>', 'nodes that authorities vote on', '10000'],
    ['--hours <n>', 'updates of a reader', '24'],
    ['--fakes <n>', 'descriptors of the crowd', '10000'],
    ['--work <bits>', 'that newcomers must do, and the crowd does not; 0: none', String(DEFAULT_WORK)],
  ],
  run,
}

/** By the hour. Tor's network of some seven thousand relays changes by about one per cent each way. */
const CHURN: Churn = { come: 0.01, go: 0.01, change: 0.01 }
const [AUTHORITIES, THRESHOLD] = [5, 3]
const ADDRESSES = 300

interface Wire {
  readonly samples: readonly WireSample[]
  readonly unchanged: number
  readonly late: WireSample
}

async function run(context: BenchContext): Promise<Report> {
  const { options, signal, say } = context
  const wanted = (part: string) => options.part === 'all' || options.part === part
  const [nodes, large, hours] = [Number(options.nodes), Number(options.large), Number(options.hours)]
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
  try {
    let wire: Wire | undefined
    if (wanted('wire')) {
      wire = await readHours(nodes, hours, CHURN, THRESHOLD, signal)
      say(`${hours} hours of a reader`)
    }
    let council: CouncilSample[] | undefined
    if (wanted('council')) {
      council = await sitCouncil(large, AUTHORITIES, THRESHOLD, folder, signal)
      say(`${AUTHORITIES} authorities voted on ${large} nodes`)
    }
    let siege: SiegeResult | undefined
    if (wanted('siege')) {
      const [fakes, work] = [Number(options.fakes), Number(options.work)]
      siege = await besiege({ nodes, fakes, addresses: ADDRESSES, work }, folder, signal)
      say('the crowd is gone')
    }
    return report({ nodes, large, wire, council, siege })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const KB = 1000
const MB = 1e6

interface Measured {
  readonly nodes: number
  readonly large: number
  readonly wire: Wire | undefined
  readonly council: readonly CouncilSample[] | undefined
  readonly siege: SiegeResult | undefined
}

function report({ nodes, large, wire, council, siege }: Measured): Report {
  const parts = [
    ...(wire === undefined ? [] : [wirePart(nodes, wire)]),
    ...(council === undefined ? [] : [councilPart(large, council)]),
    ...(siege === undefined ? [] : [siegePart(nodes, siege)]),
  ]
  return {
    title: 'The directory',
    tables: parts.map(({ table }) => table),
    targets: parts.flatMap(({ targets }) => targets),
    plots: wire === undefined ? [] : [wirePlot(nodes, wire)],
    notes: parts.flatMap(({ notes }) => notes),
    samples: { wire, council, siege },
  }
}

interface Part {
  readonly table: Table
  readonly targets: readonly Target[]
  readonly notes: readonly string[]
}

function wirePart(nodes: number, { samples, unchanged, late }: Wire): Part {
  const [first, ...updates] = samples as [WireSample, ...WireSample[]]
  const octets = updates.map((sample) => sample.wire)
  const row = (what: string, wire: number, zstd: number, ms: number) => [what, wire / KB, zstd / KB, ms]
  return {
    table: {
      title: `what a reader's connection carries, ${nodes} nodes, documents of ${Math.round(first.document / KB)} kB`,
      columns: ['', 'kB', 'zstd kB', 'ms'],
      rows: [
        row('first start', first.wire, first.zstd, first.ms),
        row(
          'hourly update, median',
          median(octets),
          median(updates.map((s) => s.zstd)),
          median(updates.map((s) => s.ms)),
        ),
        row(
          'hourly update, largest',
          Math.max(...octets),
          Math.max(...updates.map((s) => s.zstd)),
          Math.max(...updates.map((s) => s.ms)),
        ),
        row(`after ${late.hour} hours asleep`, late.wire, Number.NaN, late.ms),
        row('nothing new', unchanged, Number.NaN, Number.NaN),
      ],
    },
    targets: [
      {
        what: `first start, ${nodes} nodes`,
        measured: first.wire / KB,
        bound: 300,
        sense: 'most',
        unit: ' kB',
      },
      {
        what: `hourly update, ${nodes} nodes, the largest`,
        measured: Math.max(...octets) / KB,
        bound: 5,
        sense: 'most',
        unit: ' kB',
      },
    ],
    notes: [
      `Each hour ${100 * CHURN.come} % of the nodes are new, ${100 * CHURN.go} % are gone, ${100 * CHURN.change} % say something else; all sign themselves anew, and a third of the figures is measured again, a tenth up or down.`,
      'Octets are those of TCP both ways: question, answer, headers. zstd is what stock zstd -19 makes of the document with the old one as dictionary (RFC 9842), without HTTP.',
      `Documents carry ${THRESHOLD} signatures. Updates came as ${[...new Set(updates.map(({ how }) => how))].join(' and ')}; the one after a sleep as ${late.how}.`,
    ],
  }
}

function councilPart(nodes: number, samples: readonly CouncilSample[]): Part {
  const turns = [...new Set(samples.map(({ turn }) => turn))]
  const of = (turn: string) => samples.filter((sample) => sample.turn === turn)
  const whole = [...Array(AUTHORITIES).keys()].map((authority) =>
    samples.filter((s) => s.authority === authority).reduce((sum, { ms }) => sum + ms, 0),
  )
  const listed = Math.min(...of('publish').map((sample) => sample.listed))
  if (listed !== nodes) throw new Error(`only ${listed} nodes were listed`)
  const resident = samples.map((sample) => sample.resident / MB)
  return {
    table: {
      title: `a vote of ${AUTHORITIES} authorities on ${nodes} nodes, each in its own process`,
      columns: ['turn', 'ms, median', 'ms, longest', 'kB said', 'resident MB'],
      rows: turns.map((turn) => [
        turn,
        median(of(turn).map(({ ms }) => ms)),
        Math.max(...of(turn).map(({ ms }) => ms)),
        Math.max(...of(turn).map(({ octets }) => octets)) / KB,
        Math.max(...of(turn).map((sample) => sample.resident)) / MB,
      ]),
    },
    targets: [
      {
        what: `vote, ${nodes} nodes, from the first turn to the document, the slowest`,
        measured: Math.max(...whole) / 1000,
        bound: 5,
        sense: 'most',
        unit: ' s',
      },
      {
        what: `memory of an authority, ${nodes} nodes, the largest`,
        measured: Math.max(...resident),
        bound: 512,
        sense: 'most',
        unit: ' MB',
      },
    ],
    notes: [
      'Turns are the work of one authority without the network between them; nobody else works meanwhile. Memory is the most the process ever had.',
    ],
  }
}

function siegePart(nodes: number, siege: SiegeResult): Part {
  const { calm, besieged, before, stayed, fakes, statuses, seconds } = siege
  const row = (what: string, ms: readonly number[]) => [
    what,
    ms.length,
    quantile(ms, 0.5),
    quantile(ms, 0.99),
  ]
  const sent = Object.values(statuses).reduce((sum, count) => sum + count, 0)
  return {
    table: {
      title: `how long a reader waits for the document of ${nodes} nodes, ms`,
      columns: ['', 'answers', 'p50', 'p99'],
      rows: [row('nobody else', calm), row(`${sent} fake descriptors from ${ADDRESSES} addresses`, besieged)],
    },
    targets: [
      {
        what: 'uploads taken, each on disk',
        measured: siege.uploadsPerSecond,
        bound: 100,
        sense: 'least',
        unit: ' per s',
      },
      {
        what: 'answer besides the crowd, p50',
        measured: quantile(besieged, 0.5),
        bound: 50,
        sense: 'most',
        unit: ' ms',
      },
      {
        what: 'answer besides the crowd, p99',
        measured: quantile(besieged, 0.99),
        bound: 250,
        sense: 'most',
        unit: ' ms',
      },
      { what: 'questions of readers that failed', measured: siege.failed, bound: 0, sense: 'most' },
      {
        what: 'nodes that were listed and are not any more',
        measured: before - stayed,
        bound: 0,
        sense: 'most',
      },
      { what: 'fake nodes in the document', measured: fakes, bound: 16, sense: 'most' },
    ],
    notes: [
      `The crowd was answered in ${Math.round(seconds)} s: ${Object.entries(statuses)
        .map(([status, count]) => `${count} x ${status}`)
        .join(', ')}. Its addresses are of two networks of 256.`,
      'Readers, crowd and directory share two cores.',
    ],
  }
}

const wirePlot = (nodes: number, { samples }: Wire): Plot => ({
  name: 'directory-updates',
  values: samples
    .filter(({ hour }) => hour > 0)
    .flatMap(({ hour, wire, zstd }) => [
      { hour, kB: wire / KB, what: 'on the wire' },
      { hour, kB: zstd / KB, what: 'zstd with dictionary, body alone' },
    ]),
  spec: {
    title: `hourly updates of ${nodes} nodes`,
    width: 420,
    height: 240,
    layer: [
      {
        mark: { type: 'line', point: true },
        encoding: {
          x: { field: 'hour', type: 'quantitative' },
          y: { field: 'kB', type: 'quantitative' },
          color: { field: 'what', type: 'nominal', title: null },
        },
      },
      { mark: { type: 'rule', strokeDash: [4, 4] }, encoding: { y: { datum: 5 } } },
    ],
  },
})
