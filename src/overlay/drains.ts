/**
 * Circuits that a hop controls no longer and that still carry packets: the program of a node was replaced, its kernel
 * went on, and the IKE SAs died with the predecessor. Nothing of such a circuit can be renewed. It is nobody's choice
 * for anything new, but what was begun on it goes on until nothing is heard on it any more.
 *
 *     open       the data plane counts, and we know when packets came last
 *     silent     a hop does not answer IKE: with packets in all that time the circuit drains, without it is lost
 *     draining   until nothing came for `UNHEARD`
 */
import { after, type Duration, HOUR, type Instant, SECOND, TimerTable } from '#base/time'
import { UNHEARD } from '#overlay/router-times'
import type { SaCounters } from '#telescope/plane'
import type { Telescope } from '#telescope/telescope'

/** Less than a hop has for its answer: packets that came later than that came without it. */
const RECENTLY: Duration = 8 * SECOND
/** No longer than keys are used otherwise. */
const LIFETIME: Duration = HOUR
const NEVER = Number.NEGATIVE_INFINITY as Instant

interface Heard {
  /** Packets from the last hop. */
  readonly packets: number
  readonly at: Instant
}

interface Drain {
  /** The outermost hop that is silent. */
  readonly hop: number
  readonly ends: Instant
}

export class Drains<Circuit extends { readonly telescope: Telescope }> {
  #heard = new Map<Circuit, Heard>()
  readonly #drains = new Map<Circuit, Drain>()
  readonly #timers = new TimerTable<Circuit>()

  /** What the data plane counted, for all circuits there are. */
  observe(circuits: Iterable<Circuit>, counters: readonly SaCounters[], now: Instant): void {
    const heard = new Map<Circuit, Heard>()
    for (const circuit of circuits) {
      const packets = packetsFrom(circuit.telescope, counters)
      const before = this.#heard.get(circuit)
      const isMore = packets > (before?.packets ?? packets)
      heard.set(circuit, {
        packets,
        at: isMore ? now : (before?.at ?? NEVER),
      })
      if (isMore) this.#prolong(circuit, now)
    }
    this.#heard = heard
  }

  /** When packets came last on a circuit, as far as the data plane was asked. */
  heardAt(circuit: Circuit): Instant | undefined {
    const at = this.#heard.get(circuit)?.at
    return at === NEVER ? undefined : at
  }

  /** Hop `hop` is silent. @returns whether the circuit is draining from now on */
  begin(circuit: Circuit, hop: number, now: Instant): boolean {
    const drain = this.#drains.get(circuit)
    const at = this.#heard.get(circuit)?.at
    if (drain !== undefined) this.#drains.set(circuit, { ...drain, hop: Math.min(drain.hop, hop) })
    else if (at === undefined || now - at > RECENTLY) return false
    else {
      this.#drains.set(circuit, { hop, ends: after(now, LIFETIME) })
      this.#prolong(circuit, now)
    }
    return true
  }

  /** Forgets one. @returns its outermost silent hop; undefined: it is not draining */
  end(circuit: Circuit): number | undefined {
    const hop = this.#drains.get(circuit)?.hop
    this.#drains.delete(circuit)
    this.#timers.clear(circuit)
    return hop
  }

  get isEmpty(): boolean {
    return this.#drains.size === 0
  }

  nextTimeout(): Instant | undefined {
    return this.#timers.next()
  }

  /** Those on which nothing is heard any more. */
  expired(now: Instant): readonly Circuit[] {
    return this.#timers.expired(now)
  }

  #prolong(circuit: Circuit, now: Instant): void {
    const ends = this.#drains.get(circuit)?.ends
    if (ends !== undefined) this.#timers.set(circuit, Math.min(after(now, UNHEARD), ends) as Instant)
  }
}

/** What came through all layers. A rekey begins a new count, which is then less than before. */
function packetsFrom({ layers }: Telescope, counters: readonly SaCounters[]): number {
  const innermost = layers.at(-1)
  if (innermost === undefined) return 0
  const { hop, outerSource, child, beside = [] } = innermost
  const spis = new Set([child, ...beside].map(({ inboundSpi }) => inboundSpi))
  return counters
    .filter(({ source, destination, spi }) => source === hop && destination === outerSource && spis.has(spi))
    .reduce((sum, { packets }) => sum + packets, 0)
}
