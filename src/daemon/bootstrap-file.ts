/**
 * The bootstrap file of an authority, which its operator replaces when the network's authorities have changed. One that does not
 * follow from the document at hand changes nothing.
 */
import { errorLine, IpprivError } from '#base/errors'
import type { CryptoProvider } from '#crypto/provider'
import { type Bootstrap, followChain, readChain } from '#directory/bootstrap'
import { ChangedFile } from '#directory/changed-file'

export interface BootstrapFileOptions {
  readonly file: string
  /** What it said at the start. */
  readonly held: Bootstrap
  readonly crypto: CryptoProvider
  /** The newest document, and the whole file. */
  onChange(newest: Bootstrap, chain: string): void
  /** One line: why a file was refused. */
  onTrouble(line: string): void
}

/** Room for more documents than anybody reads. */
const MOST_OCTETS = 2 ** 20

export class BootstrapFile {
  readonly #options: BootstrapFileOptions
  readonly #changed: ChangedFile
  #held: Bootstrap

  constructor(options: BootstrapFileOptions) {
    this.#options = options
    this.#changed = new ChangedFile(options.file, MOST_OCTETS)
    this.#held = options.held
  }

  /** To be called every few seconds. Never rejects. */
  async look(): Promise<void> {
    const { file, crypto, onChange, onTrouble } = this.#options
    try {
      const octets = await this.#changed.next()
      if (octets === undefined) return
      const chain = readChain(octets, crypto)
      const newest = chain.ok ? followChain(this.#held, chain.value, crypto) : chain
      if (!newest.ok) throw new IpprivError(newest.code, `${file}: ${newest.where}`)
      if (newest.value.serial === this.#held.serial) return
      this.#held = newest.value
      onChange(newest.value, Buffer.from(octets).toString('latin1'))
    } catch (error) {
      onTrouble(errorLine(error))
    }
  }
}
