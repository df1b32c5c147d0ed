/** What the measurements of vs-tor come to: tables, targets and plots, from samples alone. */
import type { Plot, Report, Table, Target } from '../bench.ts'
import { figure, median } from '../stats.ts'

export const SYSTEMS = ['direct', 'ippriv', 'tor'] as const
/** On the cable that loses packets also one hop of a tunnel over UDP, and one over TCP. */
export const LOSSY_SYSTEMS = [...SYSTEMS, 'openvpn-udp', 'openvpn-tcp'] as const
export type System = (typeof LOSSY_SYSTEMS)[number]
/** What of the open part moves octets. */
const BULK = ['1 down', '5 down', '1 up', '5 up'] as const
/** Where tor is at its best: every stream has a circuit, and with it processors, of its own. */
export const TOR_BEST = '5 down, 5 circuits'

/** One measurement: everything a reader may want to compute again is kept. */
export interface Sample {
  readonly system: System
  readonly part: 'open' | 'loss' | 'capacity'
  readonly what: string
  readonly round: number
  /** Of the cable: packets lost, in percent, and capacity, in Mbit/s. */
  readonly loss?: number
  readonly mbps?: number
  /** Goodput, both ways together, in Mbit/s. */
  readonly goodput?: number
  /** Of an application, in ms: median and 95th percentile. */
  readonly rtt?: number
  readonly rtt95?: number
  /** Of a page, or of a circuit that is built. */
  readonly ms?: number
  /** Processor seconds of the whole machine, above what it uses when idle, per gigabyte of goodput. */
  readonly cost?: number
}

export class Comparison {
  readonly #rounds: number
  readonly #samples: readonly Sample[]

  constructor(rounds: number, samples: readonly Sample[]) {
    this.#rounds = rounds
    this.#samples = samples
  }

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

  report(): Report {
    const has = (part: Sample['part']) => this.#samples.some((sample) => sample.part === part)
    return {
      title: `Three hops beside direct and tor, medians of ${this.#rounds} alternating rounds`,
      tables: [
        ...(has('open') ? this.#openTables() : []),
        ...(has('loss') ? [this.#narrowTable('loss', 'loss')] : []),
        ...(has('capacity') ? [this.#narrowTable('capacity', 'mbps')] : []),
      ],
      // Of what `--only` left out there is nothing to say.
      targets: [
        ...(has('open') ? this.#openTargets() : []),
        ...(has('loss') ? this.#lossTargets() : []),
      ].filter(({ measured }) => !Number.isNaN(measured)),
      plots: [
        ...(has('open') ? [openPlot(this.#samples.filter(({ part }) => part === 'open'))] : []),
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
    const bulk = [...BULK, TOR_BEST]
    const row = (what: string, field: 'goodput' | 'rtt' | 'ms' | 'cost') => [
      what,
      ...SYSTEMS.map((system) => this.#median(what, system, field)),
    ]
    const columns = ['streams', ...SYSTEMS]
    return [
      {
        title: 'goodput, Mbit/s',
        columns,
        rows: bulk.map((what) => row(what, 'goodput')),
      },
      { title: 'cost, processor seconds per gigabyte', columns, rows: bulk.map((what) => row(what, 'cost')) },
      {
        title: 'round trip of an application, ms',
        columns,
        rows: ['idle', ...bulk].map((what) => row(what, 'rtt')),
      },
      { title: 'other times, ms', columns, rows: [row('page', 'ms'), row('build', 'ms')] },
      {
        title: 'IPpriv, times tor: median of the rounds, least and greatest',
        columns: ['', 'goodput', 'cost', 'round trip'],
        rows: [...BULK.map((what) => [what, what] as const), ['5 down', TOR_BEST] as const].map(
          ([own, theirs]) => [
            own === theirs ? own : '5 down, tor with five circuits',
            ...(['goodput', 'cost', 'rtt'] as const).map((field) => this.#spread(own, theirs, field)),
          ],
        ),
      },
    ]
  }

  /** Ours over tor's in the same round: a machine that slows down slows both. */
  #ratios(own: string, theirs: string, field: 'goodput' | 'rtt' | 'cost'): number[] {
    const of = (what: string, system: System) =>
      new Map(
        this.#samples.flatMap((s) =>
          s.part === 'open' && s.what === what && s.system === system && s[field] !== undefined
            ? [[s.round, s[field]] as const]
            : [],
        ),
      )
    const tor = of(theirs, 'tor')
    return [...of(own, 'ippriv')].flatMap(([round, value]) => {
      const other = tor.get(round)
      return other === undefined ? [] : [value / other]
    })
  }

  #spread(own: string, theirs: string, field: 'goodput' | 'rtt' | 'cost'): string {
    const ratios = this.#ratios(own, theirs, field)
    if (ratios.length === 0) return '-'
    return `${figure(median(ratios))} (${figure(Math.min(...ratios))} to ${figure(Math.max(...ratios))})`
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
    const five = goodput('5 down', 'ippriv') / Math.max(goodput('5 down', 'tor'), goodput(TOR_BEST, 'tor'))
    const cheapest = Math.min(this.#median('5 down', 'tor', 'cost'), this.#median(TOR_BEST, 'tor', 'cost'))
    const ratio = (what: string, field: 'rtt' | 'ms' | 'cost') =>
      this.#median(what, 'ippriv', field) / this.#median(what, 'tor', field)
    return [
      { what: 'one stream, times tor’s', measured: one, bound: 2.5, sense: 'least' },
      { what: 'five streams, times tor’s best arrangement', measured: five, bound: 1.2, sense: 'least' },
      {
        what: 'processor seconds per gigabyte, one stream, times tor’s',
        measured: ratio('1 down', 'cost'),
        bound: 0.7,
        sense: 'most',
      },
      {
        what: 'processor seconds per gigabyte, five streams, times tor’s cheapest arrangement',
        measured: this.#median('5 down', 'ippriv', 'cost') / cheapest,
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

/** Goodput, cost and delay of every load, a point for each system: the medians of the rounds. */
function openPlot(samples: readonly Sample[]): Plot {
  const panel = (field: string, title: string) => ({
    transform: [{ filter: `isValid(datum.${field})` }],
    width: { step: 14 },
    height: 240,
    // A point, not a bar: a logarithmic scale has no zero for one to stand on.
    mark: { type: 'point', filled: true, size: 60 },
    encoding: {
      x: { field: 'what', type: 'nominal', sort: null, title: null },
      xOffset: { field: 'system', sort: [...SYSTEMS] },
      y: { field, aggregate: 'median', type: 'quantitative', title, scale: { type: 'log' } },
      color: { field: 'system', type: 'nominal', title: null, sort: [...SYSTEMS] },
    },
  })
  return {
    name: 'vs-tor-open',
    values: samples,
    spec: {
      hconcat: [
        panel('goodput', 'goodput, Mbit/s'),
        panel('cost', 'processor seconds per gigabyte'),
        panel('rtt', 'round trip, ms'),
        panel('ms', 'page and circuit, ms'),
      ],
    },
  }
}
