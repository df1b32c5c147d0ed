/**
 * A proof of work over one document: whoever wants ten thousand nodes listed pays ten thousand times, who wants one
 * waits a second. It is cheap to look at, so it is looked at before anything else of a stranger's document.
 *
 *     ippriv-work: <16 hex digits>                                                    (the nonce)
 *     SHA-256( "ippriv work 1" LF | SHA-256(document) | nonce ) begins with so many zero bits
 *
 * The document is inside, so work cannot be moved to another one. No authority is: one nonce serves them all.
 */
import { concat, fromHex, toHex, utf8 } from '#base/bytes'
import type { CryptoProvider } from '#crypto/provider'

export const WORK_HEADER = 'ippriv-work'

/** A million hashes: about a second of one core. */
export const DEFAULT_WORK = 20

/** No directory may want more, and nobody does more: at most some twenty seconds of one core. */
export const MOST_WORK = 24

/** Zero bits that a nonce makes with this document. Undefined: it is none. */
export function workOf(header: string, document: Uint8Array, crypto: CryptoProvider): number | undefined {
  if (!NONCE.test(header)) return undefined
  const puzzle = puzzleOf(document, crypto)
  puzzle.set(fromHex(header), puzzle.length - NONCE_LENGTH)
  return zeroBits(crypto.hash('sha256', puzzle))
}

/** Looks for nonces, a little at a time; a later search goes on where the one before ended. */
export class WorkSearch {
  readonly #puzzle: Uint8Array
  readonly #view: DataView
  readonly #crypto: CryptoProvider
  #next = 0n
  #best: { readonly bits: number; readonly nonce: string } | undefined

  constructor(document: Uint8Array, crypto: CryptoProvider) {
    this.#puzzle = puzzleOf(document, crypto)
    this.#view = new DataView(this.#puzzle.buffer, this.#puzzle.byteOffset)
    this.#crypto = crypto
  }

  /** Tries so many nonces at most. Returns one of at least `bits`, as the header has it, or undefined: none yet. */
  look(bits: number, tries: number): string | undefined {
    for (let left = tries; left > 0 && (this.#best?.bits ?? -1) < bits; left--) {
      this.#view.setBigUint64(this.#puzzle.length - NONCE_LENGTH, this.#next)
      this.#next++
      const found = zeroBits(this.#crypto.hash('sha256', this.#puzzle))
      if (found < bits) continue
      this.#best = { bits: found, nonce: toHex(this.#puzzle.subarray(-NONCE_LENGTH)) }
    }
    return this.#best !== undefined && this.#best.bits >= bits ? this.#best.nonce : undefined
  }
}

const DOMAIN = utf8('ippriv work 1\n')
const NONCE_LENGTH = 8
const NONCE = /^[0-9a-f]{16}$/

const puzzleOf = (document: Uint8Array, crypto: CryptoProvider): Uint8Array =>
  concat(DOMAIN, crypto.hash('sha256', document), new Uint8Array(NONCE_LENGTH))

function zeroBits(hash: Uint8Array): number {
  const octets = hash.findIndex((octet) => octet !== 0)
  return octets < 0 ? 8 * hash.length : 8 * octets + Math.clz32(hash[octets]!) - 24
}
