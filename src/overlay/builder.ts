/**
 * Builds circuits: a path, its entry pinned, and hop after hop until the last one stands. What they are for, and what
 * follows when one cannot be built, is decided above (`supply.ts`, `client.ts`).
 */
import type { CircuitId, NodeId } from '#base/ids'
import { failure, type Result, success } from '#base/result'
import type { Instant } from '#base/time'
import type { Consensus } from '#directory/documents'
import { type Circuit, type Circuits, type CircuitUse, ticketOf } from '#overlay/circuits'
import type { ClientEvent } from '#overlay/client-events'
import type { EffectQueue } from '#overlay/effects'
import type { Group } from '#overlay/groups'
import type { Guard } from '#overlay/guard'
import type { Hops, Owner } from '#overlay/hops'
import type { Destination } from '#overlay/path'
import type { PathFinder } from '#overlay/path-finder'
import { ReqIdAllocator } from '#telescope/reqids'
import { Telescope } from '#telescope/telescope'

export interface Wish {
  readonly use: CircuitUse
  readonly group?: Group
  readonly ticket?: number
  readonly path?: readonly string[]
  readonly hops?: number
  readonly destination?: Destination
  /** Nodes of other circuits: not these, if others are left. */
  readonly apart?: readonly NodeId[]
}

export class Builder {
  readonly #effects: EffectQueue<ClientEvent, Owner>
  readonly #circuits: Circuits
  readonly #guard: Guard
  readonly #paths: PathFinder
  readonly #hops: Hops
  /** Layers of a circuit unless somebody wants another number. */
  readonly #length: number
  readonly #reqids = new ReqIdAllocator()
  /** Circuits that go on when the effects so far are performed. */
  readonly #next = new Set<Circuit>()
  #due: Instant | undefined
  #nextCircuit = 1

  constructor(parts: {
    readonly effects: EffectQueue<ClientEvent, Owner>
    readonly circuits: Circuits
    readonly guard: Guard
    readonly paths: PathFinder
    readonly hops: Hops
    readonly length: number
  }) {
    this.#effects = parts.effects
    this.#circuits = parts.circuits
    this.#guard = parts.guard
    this.#paths = parts.paths
    this.#hops = parts.hops
    this.#length = parts.length
  }

  /** Begins one. Errors: those of `choosePath`, and IPP_PATH_NONE for an entry other than the one in use. */
  build(consensus: Consensus, wish: Wish, now: Instant): Result<Circuit> {
    const { use, group, path: names, destination, apart } = wish
    const { entry } = this.#circuits
    const hops = names?.length ?? wish.hops ?? this.#length
    const path = this.#paths.choose(
      consensus,
      { hops, path: names, destination, entry: entry?.nodeId as NodeId | undefined, apart },
      now,
    )
    if (!path.ok) return path
    const first = path.value[0]!
    if (entry !== undefined && first.nodeId !== entry.nodeId)
      return failure('IPP_PATH_NONE', `circuits of one client share the entry ${entry.name}`)
    const id = this.#nextCircuit++ as CircuitId
    const telescope = new Telescope(id, path.value, this.#guard.self, this.#reqids, now)
    const circuit: Circuit = { telescope, nodes: path.value, use, group, returns: false, ...ticketOf(wish) }
    this.#circuits.add(circuit)
    this.#effects.add({ circuit, pins: true }, ...this.#guard.pin(first.address))
    this.proceedLater(circuit, now)
    return success(circuit)
  }

  /**
   * The next hop, or the end of building, as soon as the effects so far are performed: routes and filters can take a
   * while, and the retransmission timer must not run meanwhile; and what fails is no open circuit.
   */
  proceedLater(circuit: Circuit, now: Instant): void {
    this.#next.add(circuit)
    this.#due = now
  }

  nextTimeout(): Instant | undefined {
    return this.#due
  }

  /** @returns those that are open since */
  tick(now: Instant): readonly Circuit[] {
    if (this.#due === undefined || this.#due > now) return []
    this.#due = undefined
    const circuits = [...this.#next].filter(({ telescope }) => telescope.state === 'building')
    this.#next.clear()
    const complete = circuits.filter(({ telescope }) => telescope.isComplete)
    for (const circuit of circuits) if (!circuit.telescope.isComplete) this.#hops.initiate(circuit, now)
    for (const circuit of complete) this.#opened(circuit, now)
    return complete
  }

  #opened(circuit: Circuit, now: Instant): void {
    const { telescope } = circuit
    telescope.state = 'open'
    telescope.opened = now
    this.#paths.opened(telescope)
    this.#effects.event({ kind: 'circuit.open', circuit: telescope, ...ticketOf(circuit) })
  }
}
