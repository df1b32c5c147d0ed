/** A file that somebody else replaces as a whole: the report of a measurer, the operator's tokens, the bootstrap file. */
import { readFile, stat } from 'node:fs/promises'

/** Yields what is in it once, and again when the file is another one. */
export class ChangedFile {
  readonly #path: string
  readonly #most: number
  #seen = ''

  /** @param most octets; a longer file is not read */
  constructor(path: string, most: number) {
    this.#path = path
    this.#most = most
  }

  /** Undefined: there is no file, or none that is new. Throws what the disk throws, but for a file that is not there. */
  async next(): Promise<Uint8Array | undefined> {
    try {
      const { mtimeMs, size, ino } = await stat(this.#path)
      const seen = `${mtimeMs} ${size} ${ino}`
      if (seen === this.#seen) return undefined
      this.#seen = seen
      return size > this.#most ? undefined : await readFile(this.#path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }
}
