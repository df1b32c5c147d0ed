/** The text format that Prometheus scrapes (text/plain; version=0.0.4), written a family of samples at a time. */

export type Labels = Readonly<Record<string, string>>
export type Sample = readonly [labels: Labels, value: number]

export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export class Exposition {
  readonly #labels: Labels
  readonly #lines: string[] = []

  /** `labels`: those of every sample. */
  constructor(labels: Labels) {
    this.#labels = labels
  }

  /** Nothing is written of a family without samples. */
  family(name: string, type: 'counter' | 'gauge', help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`)
    for (const [labels, value] of samples)
      this.#lines.push(`${name}${labelText({ ...this.#labels, ...labels })} ${value}`)
  }

  /** Every line ends in a line feed. */
  toString(): string {
    return this.#lines.map((line) => `${line}\n`).join('')
  }
}

const labelText = (labels: Labels): string =>
  `{${Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (c) => (c === '\n' ? '\\n' : `\\${c}`))}"`)
    .join(',')}}`
