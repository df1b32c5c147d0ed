/**
 * Learns when the network changed its authorities: asks the directories for the chain of bootstrap documents, at the start,
 * then a few times a day, and keeps a newer one. When nobody has a document that is believed, this may be why: then it asks at
 * once, and every few minutes until all is well. What does not follow from the document at hand changes nothing.
 */
import { open, rename } from 'node:fs/promises'
import type { Dispatcher } from 'undici'
import { errorLine } from '#base/errors'
import { type Result, success } from '#base/result'
import { jittered, type Rng } from '#base/rng'
import { type Duration, HOUR, MINUTE, SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { type Trust, trustOf } from '#daemon/trust'
import { type Bootstrap, followChain, readChain } from '#directory/bootstrap'
import { exchange } from '#directory/exchange'

export interface BootstrapSyncOptions {
  readonly bootstrap: Bootstrap
  readonly crypto: CryptoProvider
  readonly rng: Rng
  /** By which way an authority is reached. */
  readonly wayTo?: (url: string) => Dispatcher
  /** Where the newest chain is kept. */
  readonly file: string
  onTrust(trust: Trust): void
  /** One line: why a chain was refused or could not be kept. */
  onTrouble(line: string): void
}

const PACE: Duration = 6 * HOUR
const PACE_TROUBLED: Duration = 10 * MINUTE
const TIMEOUT: Duration = 20 * SECOND

export class BootstrapSync {
  readonly #options: BootstrapSyncOptions
  #held: Bootstrap
  #timer: NodeJS.Timeout | undefined
  #troubled = false
  #ended = false

  constructor(options: BootstrapSyncOptions) {
    this.#options = options
    this.#held = options.bootstrap
  }

  get held(): Bootstrap {
    return this.#held
  }

  start(): void {
    void this.#turn()
  }

  /** Are there documents that are believed, or is something wrong with those who make them? */
  told(troubled: boolean): void {
    const isNews = troubled && !this.#troubled
    this.#troubled = troubled
    if (!isNews) return
    clearTimeout(this.#timer)
    void this.#turn()
  }

  end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }

  /** Asks one authority after the other until one has a chain that leads further or ends at ours. */
  async ask(): Promise<void> {
    for (const { url } of this.#held.authorities) {
      const taken = await this.#askOne(url)
      if (this.#ended || (taken.ok && taken.value)) return
      if (!taken.ok && taken.code !== 'IPP_DIR_UNREACHABLE')
        this.#options.onTrouble(`${url}: ${taken.where} [${taken.code}]`)
    }
  }

  /** False: it has none. */
  async #askOne(base: string): Promise<Result<boolean>> {
    const { crypto, wayTo, file, onTrust } = this.#options
    const reply = await exchange({
      base,
      path: '/v1/bootstrap',
      headers: {},
      timeout: TIMEOUT,
      ...(wayTo === undefined ? {} : { dispatcher: wayTo(base) }),
    })
    if (!reply.ok) return reply
    if (reply.value.status !== 200) return success(false)
    const chain = readChain(reply.value.body, crypto)
    if (!chain.ok) return chain
    const followed = followChain(this.#held, chain.value, crypto)
    if (!followed.ok) return followed
    if (followed.value.serial === this.#held.serial || this.#ended) return success(true)
    this.#held = followed.value
    onTrust(trustOf(followed.value))
    await this.#keep(file, reply.value.body)
    return success(true)
  }

  /** Whole or not at all. */
  async #keep(file: string, chain: Uint8Array): Promise<void> {
    try {
      await using draft = await open(`${file}.new`, 'w', 0o600)
      await draft.writeFile(chain)
      await draft.sync()
      await rename(`${file}.new`, file)
    } catch (error) {
      this.#options.onTrouble(errorLine(error))
    }
  }

  async #turn(): Promise<void> {
    await this.ask()
    if (this.#ended) return
    const pace = this.#troubled ? PACE_TROUBLED : PACE
    // Another turn may have ended meanwhile: there is one timer.
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#turn(), jittered(this.#options.rng, pace, pace / 5))
  }
}
