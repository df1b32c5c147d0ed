import { SPI_MIN, type Spi } from '#base/ids'
import { type Rng, uniform } from '#base/rng'

/**
 * The ESP SPIs on which an engine's packets arrive: random, from the full range (a narrower one would be a fingerprint of
 * this implementation), and unique until they are released.
 *
 * Where a data plane spreads SAs over `spread` workers by their SPI modulo that, SAs that share out a node's traffic
 * are drawn evenly: first the worker that has the fewest of them, at random among equals, then any SPI of that
 * worker. What is asked for without a wish has nothing to do with the others, so it tells nobody about them.
 */
export class InboundSpis {
  readonly #rng: Rng
  readonly #spread: number
  /** Whether it is one of those drawn evenly. */
  readonly #taken = new Map<Spi, boolean>()
  /** Of those, by worker. */
  readonly #counts: number[]

  constructor(rng: Rng, spread = 1) {
    this.#rng = rng
    this.#spread = spread
    this.#counts = new Array<number>(spread).fill(0)
  }

  get size(): number {
    return this.#taken.size
  }

  take(wish?: SpiWish): Spi {
    const worker = this.#spread === 1 ? undefined : this.#workerFor(wish)
    for (;;) {
      const spi = (SPI_MIN + uniform(this.#rng, 2 ** 32 - SPI_MIN)) as Spi
      if (this.#taken.has(spi) || (worker !== undefined && spi % this.#spread !== worker)) continue
      this.#taken.set(spi, worker !== undefined)
      if (worker !== undefined) this.#counts[worker]!++
      return spi
    }
  }

  /** Harmless when it is not taken. */
  release(spi: Spi): void {
    if (this.#taken.get(spi)) this.#counts[spi % this.#spread]!--
    this.#taken.delete(spi)
  }

  #workerFor(wish: SpiWish | undefined): number | undefined {
    if (wish === undefined) return undefined
    if (wish !== 'evenly') return this.#taken.get(wish.like) ? wish.like % this.#spread : undefined
    const fewest = Math.min(...this.#counts)
    const free = this.#counts.flatMap((count, worker) => (count === fewest ? worker : []))
    return free[uniform(this.#rng, free.length)]
  }
}

/** Among all that wish it, or for the worker of another one, if that wished it. */
export type SpiWish = 'evenly' | { readonly like: Spi }
