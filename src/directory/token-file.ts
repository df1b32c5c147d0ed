/** The tokens of a directory's operator, as a file that may change while the directory runs. */
import { errorLine, IpprivError } from '#base/errors'
import type { CryptoProvider } from '#crypto/provider'
import { ChangedFile } from '#directory/changed-file'
import type { DirectoryLog } from '#directory/service'
import { MOST_TOKENS, readTokens, type TokenBook } from '#directory/token'

/** Room for a note behind each. */
const MOST_OCTETS = 256 * MOST_TOKENS

export class TokenFile {
  readonly #path: string
  readonly #file: ChangedFile
  readonly #crypto: CryptoProvider
  #book: TokenBook | undefined

  constructor(path: string, crypto: CryptoProvider) {
    this.#path = path
    this.#file = new ChangedFile(path, MOST_OCTETS)
    this.#crypto = crypto
  }

  get book(): TokenBook {
    return this.#book ?? new Map()
  }

  /** Reads it when it is another one; of one that is malformed nothing is taken. @throws IpprivError IPP_CONFIG_* */
  async read(): Promise<void> {
    let octets: Uint8Array | undefined
    try {
      octets = await this.#file.next()
    } catch (cause) {
      throw new IpprivError('IPP_CONFIG_UNREADABLE', `${this.#path}: ${(cause as Error).message}`, { cause })
    }
    if (octets === undefined && this.#book === undefined)
      throw new IpprivError('IPP_CONFIG_UNREADABLE', `${this.#path}: it is not there, or too long`)
    if (octets === undefined) return
    const book = readTokens(Buffer.from(octets).toString('latin1'), this.#crypto)
    if (!book.ok) throw new IpprivError(book.code, `${this.#path}: ${book.where}`)
    this.#book = book.value
  }

  /** The same, where the daemon goes on with the tokens it has. */
  async refresh(log: DirectoryLog): Promise<void> {
    await this.read().catch((error: unknown) =>
      log.warn({ error: errorLine(error) }, 'the tokens are those of before'),
    )
  }
}
