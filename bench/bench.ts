/**
 * What every benchmark is: a name, options of its own, and a run that yields a report. `run.ts` prints the report
 * as a table, and keeps it with its plots in `bench-out/`.
 */
export interface Bench {
  /** As in `npm run bench -- NAME`. */
  readonly name: string
  /** One line for `--help`. */
  readonly summary: string
  /** Beside `--rounds`, `--out` and `--json`, which all have: flags and help texts as commander takes them. */
  readonly options?: readonly (readonly [flags: string, help: string, preset?: string | boolean])[]
  /** Alternating rounds unless `--rounds` says otherwise. */
  readonly rounds: number
  /** What a round of everything takes, about, on a machine of two processors with nothing else to do. */
  readonly minutesPerRound?: number
  run(context: BenchContext): Promise<Report>
}

export interface BenchContext {
  readonly rounds: number
  /** Absolute folder for captures, logs and raw samples; it exists. */
  readonly out: string
  /** Values of the bench's own options, by commander's camelCase names. */
  readonly options: Readonly<Record<string, string | boolean | undefined>>
  /** Aborted by Ctrl-C: clean up and return by throwing. */
  readonly signal: AbortSignal
  /** One line of progress, to stderr. */
  say(line: string): void
}

export interface Report {
  readonly title: string
  readonly tables: readonly Table[]
  /** What was promised. A missed target is a finding, not an error: the exit code stays 0. */
  readonly targets: readonly Target[]
  /** Raw samples, as they go into the JSON file. */
  readonly samples: unknown
  readonly plots?: readonly Plot[]
  /** What a reader must know to judge the numbers, a sentence each. */
  readonly notes?: readonly string[]
}

export interface Table {
  readonly title: string
  readonly columns: readonly string[]
  readonly rows: readonly (readonly (string | number)[])[]
}

export interface Target {
  readonly what: string
  readonly measured: number
  readonly bound: number
  /** `least`: the measured value should not be below the bound. */
  readonly sense: 'least' | 'most'
  readonly unit?: string
}

/** A vega-lite specification without its data. */
export interface Plot {
  readonly name: string
  readonly values: readonly object[]
  readonly spec: object
}

export const isMet = ({ measured, bound, sense }: Target): boolean =>
  sense === 'least' ? measured >= bound : measured <= bound
