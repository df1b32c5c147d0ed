/**
 * What a server of documents has at hand, be it an authority, a node or a mirror: the current document, and the way
 * to it from those before. A diff is made when the first reader asks for it, and kept for all others.
 */
import type { CryptoProvider } from '#crypto/provider'
import { makeDiff } from '#directory/diff'
import { type Packed, type Publication, pack } from '#directory/publication'

/** Documents from which there is a diff to the current one: those of a day, at one per hour. */
export const MAX_BASES = 24
/** Octets of them. Of large documents fewer are kept. */
const MAX_BASE_OCTETS = 64 * 1024 * 1024

export class Shelf {
  readonly #crypto: CryptoProvider
  /** Bodies by name, the oldest first; the last one is the current. */
  readonly #bases = new Map<string, Uint8Array>()
  readonly #diffs = new Map<string, Promise<Packed | undefined>>()
  #current: Publication | undefined

  constructor(crypto: CryptoProvider) {
    this.#crypto = crypto
  }

  get current(): Publication | undefined {
    return this.#current
  }

  /** From now on this is the current document. */
  put(publication: Publication): void {
    const { name, body } = publication
    this.#current = publication
    this.#diffs.clear()
    this.#bases.delete(name)
    this.#bases.set(name, body)
    let octets = 0
    let count = 0
    for (const [former, { length }] of [...this.#bases].reverse()) {
      octets += length
      if (++count > 1 && (count > MAX_BASES + 1 || octets > MAX_BASE_OCTETS)) this.#bases.delete(former)
    }
  }

  /** From the document of that name to the current one. Undefined: it is not known here, or a diff would save nothing. */
  async diffFrom(name: string): Promise<Packed | undefined> {
    const base = this.#bases.get(name)
    if (base === undefined || this.#current === undefined) return undefined
    let diff = this.#diffs.get(name)
    if (diff === undefined) {
      diff = this.#makeDiff(base, this.#current.packed.identity)
      this.#diffs.set(name, diff)
    }
    return await diff
  }

  async #makeDiff(base: Uint8Array, target: Uint8Array): Promise<Packed | undefined> {
    const diff = makeDiff(base, target, this.#crypto)
    return diff.length < target.length / 2 ? await pack(diff) : undefined
  }
}
