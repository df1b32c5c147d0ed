/**
 * The entry guards of a client between its runs: one file in the state directory, replaced as a whole. It names nodes
 * and the days when they expire, which were drawn: who reads it learns where this client enters, and not when it did.
 */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { isNodeId } from '#base/ids'
import { MAX_SAMPLE, type SampledGuard } from '#overlay/entry-guards'

const NAME = 'guards.json'

export class GuardFile {
  readonly #path: string
  readonly #onError: (error: IpprivError) => void
  /** The writes so far, one after the other. */
  #written: Promise<void> = Promise.resolve()

  /** @param onError what cannot be read or kept is said there: a client without its guards works, but chooses anew */
  constructor(stateDir: string, onError: (error: IpprivError) => void) {
    this.#path = join(stateDir, NAME)
    this.#onError = onError
  }

  /** None when nothing, or nothing sound, was kept. */
  async read(): Promise<readonly SampledGuard[]> {
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#onError(this.#unusable(error))
      return []
    }
    const guards = parseGuards(text)
    if (guards === undefined) this.#onError(this.#unusable(new Error('not a list of entry guards')))
    return guards ?? []
  }

  keep(sampled: readonly SampledGuard[]): void {
    this.#written = this.#written.then(() => this.#write(`${JSON.stringify({ sampled })}\n`))
  }

  /** Resolves when all that was to be kept is. */
  done(): Promise<void> {
    return this.#written
  }

  async #write(text: string): Promise<void> {
    const partial = `${this.#path}.new`
    try {
      await writeFile(partial, text, { mode: 0o600, flush: true })
      await rename(partial, this.#path)
    } catch (error) {
      this.#onError(this.#unusable(error))
    }
  }

  #unusable(cause: unknown): IpprivError {
    return new IpprivError('IPP_STATE_UNUSABLE', `${this.#path}: ${(cause as Error).message}`, { cause })
  }
}

function parseGuards(text: string): readonly SampledGuard[] | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const sampled = (value as { sampled?: unknown } | null)?.sampled
  if (!Array.isArray(sampled) || sampled.length > MAX_SAMPLE || !sampled.every(isGuard)) return undefined
  const guards = sampled.map(({ nodeId, confirmed, expires, unlisted }) => ({
    nodeId,
    confirmed,
    expires,
    ...(unlisted === undefined ? {} : { unlisted }),
  }))
  return new Set(guards.map(({ nodeId }) => nodeId)).size === guards.length ? guards : undefined
}

function isGuard(value: unknown): value is SampledGuard {
  if (typeof value !== 'object' || value === null) return false
  const { nodeId, confirmed, expires, unlisted } = value as Partial<Record<keyof SampledGuard, unknown>>
  return (
    typeof nodeId === 'string' &&
    isNodeId(nodeId) &&
    typeof confirmed === 'boolean' &&
    isMoment(expires) &&
    (unlisted === undefined || isMoment(unlisted))
  )
}

const isMoment = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0
