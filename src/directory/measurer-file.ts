/** The report of an authority's measurer, in a file that the measurer replaces as a whole. */
import { readFile, stat } from 'node:fs/promises'
import { DOCUMENT_LIMITS } from '#directory/canonical'

export interface MeasurerOptions {
  /** Ed25519 key it signs with. */
  readonly key: Uint8Array
  /** Absolute path. */
  readonly report: string
}

/** Yields a report once, and again when the file is another one. */
export class MeasurerFile {
  readonly #path: string
  #seen = ''

  constructor({ report }: MeasurerOptions) {
    this.#path = report
  }

  /** Undefined: there is no report, or none that is new. Throws what the disk throws, but for a file that is not there. */
  async next(): Promise<Uint8Array | undefined> {
    try {
      const { mtimeMs, size, ino } = await stat(this.#path)
      const seen = `${mtimeMs} ${size} ${ino}`
      if (seen === this.#seen) return undefined
      this.#seen = seen
      return size > DOCUMENT_LIMITS.measurement.octets ? undefined : await readFile(this.#path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }
}
