/**
 * Which circuit the traffic of each group has: built when there is none, replaced by a spare within the same step in
 * which it is lost, rotated when its time is over. What began on an old one may end there, for its address stays.
 *
 *     spare > in use (of one group) > retired > closed
 *
 * A circuit never goes from one group to another. The default group comes first, then the others once the entry that
 * all circuits share has proved to be there, then spares, one after the other.
 */
import type { ErrorCode } from '#base/errors'
import type { CircuitId, NodeId } from '#base/ids'
import { failure, type Result } from '#base/result'
import { after, type Duration, earliest, type Instant, TimerTable } from '#base/time'
import type { Consensus } from '#directory/documents'
import type { Builder } from '#overlay/builder'
import { type Circuit, type Circuits, ticketOf } from '#overlay/circuits'
import type { ClientEvent, ClientOptions } from '#overlay/client-events'
import * as times from '#overlay/client-times'
import type { EffectQueue } from '#overlay/effects'
import { DEFAULT_GROUP, type Group, useOf } from '#overlay/groups'
import type { Guard } from '#overlay/guard'
import type { Hops, Owner } from '#overlay/hops'
import type { PathFinder } from '#overlay/path-finder'
import { MAX_RETIRED, Reserve } from '#overlay/reserve'
import type { Wallet } from '#overlay/wallet'

export interface SupplyParts {
  readonly effects: EffectQueue<ClientEvent, Owner>
  readonly circuits: Circuits
  readonly groups: readonly Group[]
  readonly guard: Guard
  readonly paths: PathFinder
  readonly hops: Hops
  readonly builder: Builder
  readonly wallet: Wallet
  readonly options: Pick<ClientOptions, 'path' | 'onDemand' | 'reserve' | 'rng'>
  /** What circuits are built from; or why none may be built now. */
  ground(): Result<Consensus>
}

export class Supply {
  readonly #parts: SupplyParts
  readonly #circuits: Circuits
  readonly #reserve: Reserve
  /** When a group without a circuit is given one. */
  readonly #rebuilds = new TimerTable<Group>()
  readonly #backoffs = new Map<Group, Duration>()
  readonly #rotations = new TimerTable<Group>()
  /** When spares are replaced, and circuits that were rotated away are closed unless they are in use. */
  readonly #ends = new TimerTable<CircuitId>()
  /** Until when those that were rotated away go on at the very most. */
  readonly #limits = new Map<CircuitId, Instant>()
  /** When the next spare is tried. */
  #spareDue: Instant | undefined
  #isOver = false

  constructor(parts: SupplyParts) {
    this.#parts = parts
    this.#circuits = parts.circuits
    // One who insists on a path has no second one.
    const { reserve, path, onDemand, rng } = parts.options
    const none = { spares: 0, rotation: 0 }
    this.#reserve = new Reserve(path === undefined && !onDemand ? (reserve ?? none) : none, rng)
  }

  /** What circuits are built from has changed: whoever has none is given one, even if that failed a moment ago. */
  ensure(now: Instant): void {
    for (const group of this.#parts.groups) this.#ensureOne(group, now)
    this.#ensureSpares(now)
  }

  tick(now: Instant): void {
    for (const group of this.#rebuilds.expired(now)) this.#ensureOne(group, now)
    for (const group of this.#rotations.expired(now)) this.#rotate(group, now)
    for (const id of this.#ends.expired(now)) this.#over(id, now)
    if (this.#spareDue !== undefined && this.#spareDue <= now) {
      this.#spareDue = undefined
      this.#ensureSpares(now)
    }
  }

  nextTimeout(): Instant | undefined {
    const groups = earliest(this.#rebuilds.next(), this.#rotations.next())
    return earliest(groups, earliest(this.#ends.next(), this.#spareDue))
  }

  /** Nothing is built any more. */
  end(): void {
    this.#isOver = true
    this.#spareDue = undefined
    for (const group of this.#parts.groups) {
      this.#rebuilds.clear(group)
      this.#rotations.clear(group)
    }
  }

  // -------------------------------------------------------------------------------------------- what is told

  /** A hop stands as soon as the effects so far are performed. */
  extended(circuit: Circuit, now: Instant): void {
    const { telescope } = circuit
    const group = this.#inUseBy(circuit)
    if (telescope.isComplete && group !== undefined) this.#lead(circuit, group)
    if (telescope.layers.length === 1) this.#ensureOthers(now)
  }

  opened(circuit: Circuit, now: Instant): void {
    const group = this.#inUseBy(circuit)
    if (group !== undefined) this.#inUse(group, now)
    else if (circuit.use === 'spare') {
      this.#reserve.built()
      this.#ends.set(circuit.telescope.id, this.#reserve.replacementAt(now))
    }
    this.#ensureOthers(now)
    this.#ensureSpares(now)
  }

  /** A hop answers no more, and still carries packets: another circuit comes first, then this one goes. */
  silent(circuit: Circuit, hop: number, now: Instant): void {
    const { telescope } = circuit
    const group = this.#inUseBy(circuit)
    this.#parts.paths.lost(telescope, hop, 'IPP_IKE_TIMEOUT', now)
    telescope.state = 'draining'
    this.#parts.effects.event({ kind: 'circuit.draining', circuit: telescope })
    if (group === undefined) return this.#ensureSpares(now)
    this.#reserve.lost(now)
    if (this.#circuits.ready !== undefined) return this.#replace(circuit, group, now)
    circuit.use = 'retired'
    this.#ensureOne(group, now)
  }

  /** A circuit lost this hop and all inside it. */
  broken(circuit: Circuit, hop: number, code: ErrorCode, now: Instant): void {
    const group = this.#inUseBy(circuit)
    if (group !== undefined) {
      if (circuit.telescope.state === 'open') this.#reserve.lost(now)
      this.#withdraw(circuit, group, now)
    }
    this.#parts.paths.lost(circuit.telescope, hop, code, now)
  }

  /** Something broke: the circuit is given up, and rebuilt if a group had it. */
  fail(circuit: Circuit, code: ErrorCode, detail: string, now: Instant): void {
    const { telescope, use } = circuit
    if (telescope.state === 'closing' || telescope.state === 'closed') return
    if (use === 'spare') this.#spareDue = this.#reserve.retryAt(now)
    this.#parts.effects.event({
      kind: 'circuit.failed',
      circuit: telescope,
      code,
      detail,
      ...ticketOf(circuit),
    })
    circuit.returns = use === 'default' && this.#circuits.ready === undefined
    this.#shutDown(circuit, now)
  }

  /** On request. Who waits for a circuit that never opened is told. */
  close(circuit: Circuit, now: Instant): void {
    const { use, telescope, ticket } = circuit
    if (use === 'default') this.#parts.wallet.wipe()
    if (telescope.state === 'building' && ticket !== undefined)
      return this.fail(circuit, 'IPP_CIRCUIT_CLOSED', `circuit ${telescope.id} was not open yet`, now)
    this.#shutDown(circuit, now)
  }

  /** The last hop of a circuit is gone. */
  ended(circuit: Circuit, now: Instant): void {
    const group = this.#inUseBy(circuit)
    if (group !== undefined) this.#rebuildLater(group, now)
    else this.#ensureSpares(now)
  }

  // -------------------------------------------------------------------------------------------- groups

  /** The group that has it now. */
  #inUseBy({ use, group }: Circuit): Group | undefined {
    return use === 'default' || use === 'group' ? group : undefined
  }

  #ensureOne(group: Group, now: Instant): void {
    if (this.#isOver || this.#circuits.of(group) !== undefined) return
    const { options, effects, builder } = this.#parts
    const ground = this.#parts.ground()
    if (!ground.ok || options.onDemand) return this.#rebuilds.clear(group)
    if (group !== DEFAULT_GROUP && !this.#circuits.hasEntered) return
    this.#rebuilds.clear(group)
    const { ready } = this.#circuits
    if (ready !== undefined) return this.#give(ready, group, now)
    const { path } = options
    const apart = this.#nodesInUse
    const wish = { use: useOf(group), group, apart, ...(path ? { path } : {}) }
    const built = builder.build(ground.value, wish, now)
    if (built.ok) return
    effects.event({ kind: 'circuit.failed', code: built.code, detail: built.where })
    this.#rebuildLater(group, now)
  }

  /** Groups that have not been tried yet, or wait for nothing but the entry. */
  #ensureOthers(now: Instant): void {
    for (const group of this.#parts.groups)
      if (this.#rebuilds.get(group) === undefined) this.#ensureOne(group, now)
  }

  #rebuildLater(group: Group, now: Instant): void {
    if (this.#isOver) return
    const backoff = this.#backoffs.get(group) ?? times.REBUILD_FIRST
    this.#rebuilds.set(group, after(now, backoff))
    this.#backoffs.set(group, Math.min(2 * backoff, times.REBUILD_MAX))
  }

  /** The traffic of the group has a circuit. */
  #inUse(group: Group, now: Instant): void {
    this.#backoffs.delete(group)
    const until = this.#reserve.rotationAt(now)
    if (until !== undefined) this.#rotations.set(group, until)
  }

  /** The group uses a spare from here on, if one is ready, or nothing. */
  #replace(old: Circuit, group: Group, now: Instant): void {
    const { ready } = this.#circuits
    if (ready === undefined) return this.#parts.effects.add('guard', this.#parts.guard.route(group))
    old.use = 'retired'
    this.#give(ready, group, now)
  }

  #give(spare: Circuit, group: Group, now: Instant): void {
    spare.use = useOf(group)
    spare.group = group
    this.#ends.clear(spare.telescope.id)
    this.#lead(spare, group)
    this.#parts.effects.event({ kind: 'circuit.default', circuit: spare.telescope, group: group.name })
    this.#inUse(group, now)
  }

  #lead(circuit: Circuit, group: Group): void {
    const source = circuit.telescope.privateAddresses.at(-1)!
    this.#parts.effects.add({ circuit }, this.#parts.guard.route(group, source))
  }

  /** The circuit in use has been used for long enough: what is new goes elsewhere, what is old may end there. */
  #rotate(group: Group, now: Instant): void {
    const old = this.#circuits.of(group)
    if (this.#isOver || old === undefined) return
    if (this.#circuits.ready === undefined) {
      this.#rotations.set(group, this.#reserve.retryAt(now))
      return this.#ensureSpares(now)
    }
    this.#replace(old, group, now)
    // The entry takes a session that is resumed for over, and this one goes on.
    this.#parts.wallet.wipe()
    const { look, end } = this.#reserve.retirementAt(now)
    this.#ends.set(old.telescope.id, look)
    this.#limits.set(old.telescope.id, end)
    this.#thinOut(now)
    this.#ensureSpares(now)
  }

  /** Of circuits that were rotated away so many go on: those on which something was heard last. */
  #thinOut(now: Instant): void {
    const { hops } = this.#parts
    const heardAt = (circuit: Circuit): number => hops.heardAt(circuit) ?? Number.NEGATIVE_INFINITY
    const retired = this.#circuits.living('retired')
    if (retired.length <= MAX_RETIRED) return
    // The elder first, where neither was heard.
    const quietest = retired.toSorted((a, b) =>
      heardAt(a) < heardAt(b) ? -1 : heardAt(a) > heardAt(b) ? 1 : 0,
    )
    for (const circuit of quietest.slice(0, retired.length - MAX_RETIRED)) this.#shutDown(circuit, now)
  }

  /** Its traffic must not use it any more. */
  #withdraw(circuit: Circuit, group: Group, now: Instant): void {
    if (this.#isOver) this.#parts.effects.add('guard', this.#parts.guard.route(group))
    else this.#replace(circuit, group, now)
  }

  // -------------------------------------------------------------------------------------------- spares

  /** Spares come after what is needed now, and one after the other. */
  #ensureSpares(now: Instant): void {
    const ground = this.#parts.ground()
    if (this.#isOver || !ground.ok || this.#circuits.default?.telescope.state !== 'open') return
    if (this.#parts.groups.some((group) => this.#circuits.of(group)?.telescope.state === 'building')) return
    const spares = this.#circuits.living('spare')
    if (spares.some(({ telescope }) => telescope.state === 'building')) return
    if (spares.length >= this.#reserve.wanted(now) || this.#spareDue !== undefined) return
    const built = this.#parts.builder.build(ground.value, { use: 'spare', apart: this.#nodesInUse }, now)
    if (!built.ok) this.#spareDue = this.#reserve.retryAt(now)
  }

  /** Behind the entry, of circuits that groups have. */
  get #nodesInUse(): readonly NodeId[] {
    return this.#parts.groups.flatMap(
      (group) =>
        this.#circuits
          .of(group)
          ?.nodes.slice(1)
          .map(({ nodeId }) => nodeId) ?? [],
    )
  }

  /** The time of a spare, or of a circuit that was rotated away: what was begun on that goes on while it is heard of. */
  #over(id: CircuitId, now: Instant): void {
    const circuit = this.#circuits.get(id)
    const limit = this.#limits.get(id)
    if (circuit !== undefined && limit !== undefined) {
      const until = this.#reserve.prolongedTo(this.#parts.hops.heardAt(circuit), limit, now)
      if (until !== undefined) return this.#ends.set(id, until)
    }
    if (circuit !== undefined) this.#shutDown(circuit, now)
    this.#ensureSpares(now)
  }

  #shutDown(circuit: Circuit, now: Instant): void {
    const { telescope } = circuit
    if (telescope.state === 'closing' || telescope.state === 'closed') return
    const group = this.#inUseBy(circuit)
    if (group !== undefined) this.#withdraw(circuit, group, now)
    else {
      const { guard, effects } = this.#parts
      for (const led of guard.ledInto(telescope.privateAddresses)) effects.add('guard', guard.route(led))
    }
    this.#ends.clear(telescope.id)
    this.#limits.delete(telescope.id)
    this.#parts.hops.close(circuit, now)
  }
}

/** Why nothing may be built. */
export const noGround = {
  stopping: failure('IPP_CIRCUIT_UNKNOWN', 'the client is stopping'),
  unguarded: failure('IPP_GUARD_DOWN', 'see the log'),
  ignorant: failure('IPP_PATH_NONE', 'no consensus that is valid'),
}
