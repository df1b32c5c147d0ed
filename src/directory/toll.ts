/**
 * What an upload costs: nothing for a node that the document lists, when it comes from its address; else a token of
 * the operator, or work. Looked at before a stranger's document is read.
 */
import type { Ip } from '#base/ip'
import { type Failure, failure, type Result, success } from '#base/result'
import type { CryptoProvider } from '#crypto/provider'
import type { Consensus } from '#directory/documents'
import { isProof, type TokenBook } from '#directory/token'
import { workOf } from '#directory/work'

export interface TollOptions {
  /** Zero bits. */
  readonly work: number
  readonly tokens: () => TokenBook
  readonly crypto: CryptoProvider
}

export interface Upload {
  readonly document: Uint8Array
  /** Headers as they came. */
  readonly work: string | undefined
  readonly token: string | undefined
  /** Where it came from; undefined: that proves nothing. */
  readonly source: Ip | undefined
}

/** How it was paid. */
export type Payment = 'listed' | 'token' | 'work'

export class Toll {
  readonly #options: TollOptions
  #listed: { readonly of: Consensus; readonly addresses: ReadonlySet<Ip> } | undefined

  constructor(options: TollOptions) {
    this.#options = options
  }

  /** Zero bits. */
  get work(): number {
    return this.#options.work
  }

  /** Errors: IPP_DIR_WORK. */
  take({ document, work, token, source }: Upload, consensus: Consensus | undefined): Result<Payment> {
    const { work: wanted, tokens, crypto } = this.#options
    if (source !== undefined && consensus !== undefined && this.#addresses(consensus).has(source))
      return success('listed')
    if (token !== undefined && isProof(token, document, tokens(), crypto)) return success('token')
    if (work === undefined)
      return this.#refused(token === undefined ? 'there is none' : 'the token is not known here')
    const bits = workOf(work, document, crypto)
    if (bits === undefined) return this.#refused('expected a nonce of 16 hex digits')
    return bits >= wanted ? success('work') : this.#refused(`it has ${bits}`)
  }

  #refused(why: string): Failure {
    return failure('IPP_DIR_WORK', `descriptor: work of ${this.work} bits is wanted, ${why}`)
  }

  #addresses(consensus: Consensus): ReadonlySet<Ip> {
    if (this.#listed?.of !== consensus)
      this.#listed = { of: consensus, addresses: new Set(consensus.nodes.map(({ address }) => address)) }
    return this.#listed.addresses
  }
}
