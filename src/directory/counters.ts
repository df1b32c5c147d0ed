/** Named counters: what was accepted, served and refused, for `ippriv status` and metrics. */
export class Counters {
  readonly #values = new Map<string, number>()

  /** Names are ours, never a stranger's: `refused.IPP_DIR_REPLAYED`. */
  add(name: string): void {
    this.#values.set(name, (this.#values.get(name) ?? 0) + 1)
  }

  get(name: string): number {
    return this.#values.get(name) ?? 0
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries([...this.#values].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
