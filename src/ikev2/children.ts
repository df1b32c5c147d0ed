/** The Child SAs of one IKE SA, by our inbound SPI. Whatever ends one, ends it here: once, and in public. */

import type { Spi } from '#base/ids'
import type { ChildSa } from '#ikev2/events'

export class Children {
  readonly #bySpi = new Map<Spi, ChildSa>()
  readonly #closed: (child: ChildSa) => void

  /** `closed` is told of every Child SA that ends. */
  constructor(closed: (child: ChildSa) => void) {
    this.#closed = closed
  }

  add(child: ChildSa): void {
    this.#bySpi.set(child.inboundSpi, child)
  }

  has(inboundSpi: Spi): boolean {
    return this.#bySpi.has(inboundSpi)
  }

  /** The one the peer means: it names Child SAs by the SPIs of its inbound, our outbound side. */
  byOutbound(spi: Spi): ChildSa | undefined {
    for (const child of this.#bySpi.values()) if (child.outboundSpi === spi) return child
    return undefined
  }

  close(inboundSpi: Spi): void {
    const child = this.#bySpi.get(inboundSpi)
    if (child === undefined) return
    this.#bySpi.delete(inboundSpi)
    this.#closed(child)
  }

  closeAll(): void {
    for (const inboundSpi of [...this.#bySpi.keys()]) this.close(inboundSpi)
  }
}
