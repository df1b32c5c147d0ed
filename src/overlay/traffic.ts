/** Octets of each IKE SA, over all its ESP SAs, from what the data plane counts for each of these. */
import type { IkeSaId } from '#base/ids'
import type { SaCounters, SaKey } from '#telescope/plane'

export class TrafficMeter {
  /** As read last, by ESP SA. */
  #readings = new Map<string, number>()
  readonly #octets = new Map<IkeSaId, number>()

  /** `owners` are the ESP SAs of today; what others carry is nobody's. */
  read(counters: readonly SaCounters[], owners: Iterable<readonly [SaKey, IkeSaId]>): void {
    const ownerOf = new Map<string, IkeSaId>()
    for (const [key, sa] of owners) ownerOf.set(nameOf(key), sa)
    const readings = new Map<string, number>()
    for (const counter of counters) {
      const name = nameOf(counter)
      readings.set(name, counter.bytes)
      const owner = ownerOf.get(name)
      if (owner === undefined) continue
      const fresh = counter.bytes - (this.#readings.get(name) ?? 0)
      this.#octets.set(owner, this.octetsOf(owner) + Math.max(0, fresh))
    }
    this.#readings = readings
  }

  octetsOf(sa: IkeSaId): number {
    return this.#octets.get(sa) ?? 0
  }

  forget(sa: IkeSaId): void {
    this.#octets.delete(sa)
  }
}

const nameOf = ({ destination, spi }: SaKey): string => `${destination} ${spi}`
