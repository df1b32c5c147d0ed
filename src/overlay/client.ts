/**
 * The client of the overlay: fail-closed guard first, then circuits, each a telescope of IKE negotiations run
 * through the layers already built.
 *
 *   start      guard (packet filter, block policies, default route into the plane's device); nothing before it stands
 *   consensus  choose a path, pin its entry, negotiate hop 1, 2, ... ; the newest private address carries the next
 *   open       applications use the innermost address; a lost default circuit is rebuilt on another path
 *   stop       hops are deleted from the inside outwards; the guard is the last thing to go
 *
 * Every circuit of a client uses the same entry, one of a few it keeps (`entry-guards.ts`), so only one foreign
 * address ever needs a way outside the telescope.
 *
 * Some circuits stand ready (`reserve.ts`). One of them is the default circuit within the same step in which that is
 * lost, or when its time is over; what began on the old one may end there, for its address stays. Who wants a circuit
 * of his own asks for it, and uses the address that its exit lent.
 */
import type { ErrorCode } from '#base/errors'
import type { CircuitId, NodeId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { Machine } from '#base/machine'
import { after, earliest, type Instant, TimerTable } from '#base/time'
import type { Consensus, ConsensusNode } from '#directory/documents'
import { IkeEngine } from '#ikev2/engine'
import type { IkeEvent } from '#ikev2/events'
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'
import { type Circuit, Circuits, type CircuitUse, ticketOf } from '#overlay/circuits'
import type { ClientEvent, ClientInput, ClientOptions, ClientState } from '#overlay/client-events'
import * as times from '#overlay/client-times'
import { EffectQueue } from '#overlay/effects'
import type { SampledGuard } from '#overlay/entry-guards'
import { Guard } from '#overlay/guard'
import { Hops, type HopsWatcher, type Owner } from '#overlay/hops'
import { type Destination, rolesAt } from '#overlay/path'
import { type AvoidedNode, PathFinder } from '#overlay/path-finder'
import { sameLink } from '#overlay/peers'
import type { Effect } from '#overlay/ports'
import { notRekeyed, Rekeys } from '#overlay/rekeys'
import { MAX_RETIRED, Reserve } from '#overlay/reserve'
import { Wallet } from '#overlay/wallet'
import { ReqIdAllocator } from '#telescope/reqids'
import { Telescope } from '#telescope/telescope'

export type { ClientEvent, ClientInput, ClientOptions, ClientState } from '#overlay/client-events'

interface Wish {
  readonly use: CircuitUse
  readonly ticket?: number
  readonly path?: readonly string[]
  readonly hops?: number
  readonly destination?: Destination
}

export class OverlayClient implements Machine<ClientInput, Effect<ClientEvent>> {
  readonly #options: ClientOptions
  readonly #ike: IkeEngine
  readonly #guard: Guard
  readonly #paths: PathFinder
  readonly #effects = new EffectQueue<ClientEvent, Owner>()
  readonly #circuits = new Circuits()
  readonly #hops: Hops
  readonly #reserve: Reserve
  readonly #reqids = new ReqIdAllocator()
  readonly #rekeys = new Rekeys()
  readonly #timers = new TimerTable<'guard' | 'proceed' | 'rebuild' | 'spare' | 'rotate' | 'stop'>()
  /** When spares are replaced, and circuits that were rotated away are closed. */
  readonly #ends = new TimerTable<CircuitId>()
  /** Circuits that go on when the effects so far are performed. */
  readonly #next = new Set<Circuit>()
  readonly #wallet = new Wallet()
  #toldGuards: readonly SampledGuard[]
  #state: ClientState = 'unguarded'
  #guardIs: 'down' | 'rising' | 'failed' | 'up' = 'down'
  #guardBackoff = times.GUARD_FIRST
  #consensus: Consensus | undefined
  #nextCircuit = 1
  #backoff = times.REBUILD_FIRST
  #now = 0 as Instant

  constructor(options: ClientOptions) {
    this.#options = options
    this.#guard = new Guard(options)
    this.#paths = new PathFinder(options)
    // One who insists on a path has no second one.
    const { reserve, path, onDemand, rng } = options
    const none = { spares: 0, rotation: 0 }
    this.#reserve = new Reserve(path === undefined && !onDemand ? (reserve ?? none) : none, rng)
    this.#toldGuards = this.#paths.sampled
    this.#ike = new IkeEngine({ crypto: options.crypto, ...(options.keyLog ? { keyLog: true } : {}) })
    this.#hops = new Hops({
      ike: this.#ike,
      circuits: this.#circuits,
      effects: this.#effects,
      wallet: this.#wallet,
      guard: this.#guard,
      options,
      watcher: this.#watcher(),
    })
  }

  get state(): ClientState {
    return this.#state
  }

  get consensus(): Consensus | undefined {
    return this.#consensus
  }

  get circuits(): readonly (Pick<Circuit, 'telescope' | 'use'> & { readonly isDefault: boolean })[] {
    return this.#circuits
      .all()
      .map(({ telescope, use }) => ({ telescope, use, isDefault: use === 'default' }))
  }

  /** Nodes that failed lately, and are not used while others are left. */
  get avoided(): readonly AvoidedNode[] {
    return this.#paths.avoided(this.#now)
  }

  counters(): Record<string, number> {
    return this.#ike.counters()
  }

  handle(input: ClientInput, now: Instant): void {
    this.#now = now
    switch (input.kind) {
      case 'start':
        this.#raise()
        break
      case 'datagram':
        this.#ike.handle({ kind: 'datagram', path: input.path, bytes: input.bytes }, now)
        break
      case 'consensus':
        this.#consensus = input.consensus
        this.#revoke(input.consensus)
        // One that failed may have lacked the very nodes that are listed now.
        this.#ensureDefault()
        break
      case 'consensus.expired':
        this.#consensus = undefined
        break
      case 'build':
        this.#build({ ...input, use: 'asked' })
        break
      case 'close': {
        const circuit = this.#circuits.get(input.circuit)
        if (circuit !== undefined) this.#close(circuit)
        break
      }
      case 'rekey':
        this.#rekey(input)
        break
      case 'heard':
        this.#hops.heard(input.sa, now)
        break
      case 'traffic':
        this.#hops.observe(input.counters, now)
        break
      case 'moved':
        this.#move(input.self)
        break
      case 'stop':
        this.#stop()
        break
      case 'effect.failed':
        this.#effectFailed(input.effect, input.code, input.detail)
        break
    }
    this.#drain()
  }

  tick(now: Instant): void {
    this.#now = now
    this.#ike.tick(now)
    for (const timer of this.#timers.expired(now)) {
      if (timer === 'guard') this.#guardSettled()
      else if (timer === 'proceed') this.#proceed()
      else if (timer === 'rebuild') this.#ensureDefault()
      else if (timer === 'spare') this.#ensureSpares()
      else if (timer === 'rotate') this.#rotate()
      else for (const circuit of this.#circuits.all()) this.#hops.abandon(circuit)
    }
    for (const id of this.#ends.expired(now)) this.#over(id)
    for (const circuit of this.#hops.drained(now))
      this.#fail(circuit, 'IPP_IKE_TIMEOUT', 'nothing is heard on it any more')
    this.#drain()
  }

  poll(): Effect<ClientEvent> | undefined {
    return this.#effects.poll()
  }

  nextTimeout(): Instant | undefined {
    const ends = earliest(this.#ends.next(), this.#hops.nextTimeout())
    return earliest(earliest(this.#ike.nextTimeout(), this.#timers.next()), ends)
  }

  // -------------------------------------------------------------------------------------------- guard

  #raise(): void {
    this.#guardIs = 'rising'
    this.#effects.add('guard', ...this.#guard.raise())
    this.#timers.set('guard', this.#now)
  }

  /** Every effect of `#raise` was performed, or one was not; or it is time to try again. */
  #guardSettled(): void {
    if (this.#isStopping) return
    if (this.#guardIs === 'failed') return this.#raise()
    this.#guardIs = 'up'
    this.#guardBackoff = times.GUARD_FIRST
    if (this.#circuits.default === undefined) this.#ensureDefault()
    else this.#state = this.#stateOfDefault
  }

  #guardFailed(code: ErrorCode, detail: string): void {
    if (this.#isStopping) return
    this.#state = 'unguarded'
    if (this.#guardIs === 'failed') return
    this.#guardIs = 'failed'
    this.#timers.set('guard', after(this.#now, this.#guardBackoff))
    this.#guardBackoff = Math.min(2 * this.#guardBackoff, times.GUARD_MAX)
    this.#effects.event({ kind: 'guard.failed', code, detail })
  }

  // -------------------------------------------------------------------------------------------- circuits

  #ensureDefault(): void {
    if (this.#isStopping || this.#guardIs !== 'up') return
    if (this.#circuits.default !== undefined) return this.#ensureSpares()
    this.#timers.clear('rebuild')
    if (this.#consensus === undefined) {
      this.#state = 'waiting-for-consensus'
      return
    }
    if (this.#options.onDemand) {
      this.#state = 'ready'
      return
    }
    this.#state = 'building'
    this.#build({ use: 'default', ...(this.#options.path ? { path: this.#options.path } : {}) })
  }

  /** Spares come after what is needed now, and one after the other. */
  #ensureSpares(): void {
    const spares = this.#circuits.living('spare')
    if (this.#state !== 'ready' || this.#consensus === undefined) return
    if (spares.some(({ telescope }) => telescope.state === 'building')) return
    if (spares.length < this.#reserve.wanted(this.#now) && this.#timers.get('spare') === undefined)
      this.#build({ use: 'spare' })
  }

  #build(wish: Wish): void {
    const { use } = wish
    const fail = (code: ErrorCode, detail: string): void => {
      if (use === 'spare') return this.#timers.set('spare', this.#reserve.retryAt(this.#now))
      this.#effects.event({ kind: 'circuit.failed', code, detail, ...ticketOf(wish) })
      if (use === 'default') this.#rebuildLater()
    }
    if (this.#isStopping) return fail('IPP_CIRCUIT_UNKNOWN', 'the client is stopping')
    if (this.#guardIs !== 'up') return fail('IPP_GUARD_DOWN', 'see the log')
    if (this.#consensus === undefined) return fail('IPP_PATH_NONE', 'no consensus that is valid')
    const hops = wish.path?.length ?? wish.hops ?? this.#options.hops
    const { entry } = this.#circuits
    const path = this.#paths.choose(
      this.#consensus,
      {
        hops,
        path: wish.path,
        destination: wish.destination,
        entry: entry?.nodeId as NodeId | undefined,
        apart: use === 'spare' ? this.#circuits.default?.nodes.slice(1).map(({ nodeId }) => nodeId) : [],
      },
      this.#now,
    )
    if (!path.ok) return fail(path.code, path.where)
    const first = path.value[0]!
    if (entry !== undefined && first.nodeId !== entry.nodeId)
      return fail('IPP_PATH_NONE', `circuits of one client share the entry ${entry.name}`)
    const id = this.#nextCircuit++ as CircuitId
    const telescope = new Telescope(id, path.value, this.#guard.self, this.#reqids, this.#now)
    const circuit: Circuit = { telescope, nodes: path.value, use, returns: false, ...ticketOf(wish) }
    this.#circuits.add(circuit)
    this.#effects.add({ circuit, pins: true }, ...this.#guard.pin(first.address))
    this.#proceedLater(circuit)
  }

  /** A hop that is listed no longer, or otherwise, is used no longer. */
  #revoke(consensus: Consensus): void {
    const listed = new Map<string, ConsensusNode>(consensus.nodes.map((node) => [node.nodeId, node]))
    for (const circuit of this.#circuits.all()) {
      const gone = circuit.nodes.find((node, position) => {
        const now = listed.get(node.nodeId)
        if (now === undefined || !sameLink(now, node)) return true
        return rolesAt(position, circuit.nodes.length).some((role) => !now.roles.includes(role))
      })
      if (gone !== undefined)
        this.#fail(circuit, 'IPP_PATH_UNKNOWN_NODE', `${gone.name} is not listed any more, or otherwise`)
    }
  }

  /**
   * The next hop, or the end of building, as soon as the effects so far are performed: routes and filters can take a
   * while, and the retransmission timer must not run meanwhile; and what fails is no open circuit.
   */
  #proceedLater(circuit: Circuit): void {
    this.#next.add(circuit)
    this.#timers.set('proceed', this.#now)
  }

  #proceed(): void {
    const circuits = [...this.#next]
    this.#next.clear()
    for (const circuit of circuits) {
      if (circuit.telescope.state !== 'building') continue
      if (circuit.telescope.isComplete) this.#opened(circuit)
      else this.#hops.initiate(circuit, this.#now)
    }
  }

  #opened(circuit: Circuit): void {
    const { telescope, use } = circuit
    telescope.state = 'open'
    telescope.opened = this.#now
    this.#paths.opened(telescope)
    this.#effects.event({ kind: 'circuit.open', circuit: telescope, ...ticketOf(circuit) })
    if (use === 'default') this.#inUse()
    else if (use === 'spare') {
      this.#reserve.built()
      this.#ends.set(telescope.id, this.#reserve.replacementAt(this.#now))
    }
    this.#ensureSpares()
  }

  /** Applications have a circuit. */
  #inUse(): void {
    if (this.#guardIs === 'up') this.#state = 'ready'
    this.#backoff = times.REBUILD_FIRST
    const until = this.#reserve.rotationAt(this.#now)
    if (until !== undefined) this.#timers.set('rotate', until)
  }

  /** Applications use a spare from here on, if one is ready, or nothing. */
  #replace(old: Circuit, use: CircuitUse): void {
    const { ready } = this.#circuits
    if (ready === undefined) return this.#effects.add('guard', this.#guard.route())
    old.use = use
    ready.use = 'default'
    this.#ends.clear(ready.telescope.id)
    this.#effects.add({ circuit: ready }, this.#guard.route(ready.telescope.privateAddresses.at(-1)!))
    this.#effects.event({ kind: 'circuit.default', circuit: ready.telescope })
    this.#inUse()
  }

  /** A hop answers no more, and still carries packets: another circuit comes first, then this one goes. */
  #leave(circuit: Circuit, hop: number): void {
    const { telescope, use } = circuit
    this.#paths.lost(telescope, hop, 'IPP_IKE_TIMEOUT', this.#now)
    telescope.state = 'draining'
    this.#effects.event({ kind: 'circuit.draining', circuit: telescope })
    if (use !== 'default') return this.#ensureSpares()
    this.#reserve.lost(this.#now)
    if (this.#circuits.ready !== undefined) return this.#replace(circuit, 'retired')
    circuit.use = 'retired'
    this.#ensureDefault()
  }

  /** The default circuit has been used for long enough: what is new goes elsewhere, what is old may end there. */
  #rotate(): void {
    const old = this.#circuits.default
    if (this.#isStopping || old === undefined) return
    if (this.#circuits.ready === undefined) {
      this.#timers.set('rotate', this.#reserve.retryAt(this.#now))
      return this.#ensureSpares()
    }
    this.#replace(old, 'retired')
    // The entry takes a session that is resumed for over, and this one goes on.
    this.#wallet.wipe()
    this.#ends.set(old.telescope.id, this.#reserve.retirementAt(this.#now))
    const retired = this.#circuits.living('retired')
    for (const circuit of retired.slice(0, Math.max(0, retired.length - MAX_RETIRED))) this.#shutDown(circuit)
    this.#ensureSpares()
  }

  /** The time of a spare, or of a circuit that was rotated away. */
  #over(id: CircuitId): void {
    const circuit = this.#circuits.get(id)
    if (circuit !== undefined) this.#shutDown(circuit)
    this.#ensureSpares()
  }

  #rekey(wish: ClientInput & { kind: 'rekey' }): void {
    const telescope = this.#circuits.get(wish.circuit)?.telescope
    const [sa, layer] = [telescope?.sas[wish.hop - 1], telescope?.layers[wish.hop - 1]]
    if (telescope?.state === 'open' && sa !== undefined && layer !== undefined)
      return this.#rekeys.begin(this.#ike, wish, sa, layer.child, this.#now)
    const detail = `no hop ${wish.hop} of an open circuit ${wish.circuit}`
    this.#effects.event(notRekeyed(wish, 'IPP_CIRCUIT_UNKNOWN', detail))
  }

  /** Something broke: give the circuit up, and rebuild if it was the default one. */
  #fail(circuit: Circuit, code: ErrorCode, detail: string): void {
    const { telescope } = circuit
    if (telescope.state === 'closing' || telescope.state === 'closed') return
    if (circuit.use === 'spare') this.#timers.set('spare', this.#reserve.retryAt(this.#now))
    this.#effects.event({ kind: 'circuit.failed', circuit: telescope, code, detail, ...ticketOf(circuit) })
    circuit.returns = circuit.use === 'default' && this.#circuits.ready === undefined
    this.#shutDown(circuit)
  }

  /** On request. Who waits for a circuit that never opened is told. */
  #close(circuit: Circuit): void {
    if (circuit.use === 'default') this.#wallet.wipe()
    if (circuit.telescope.state === 'building' && circuit.ticket !== undefined)
      return this.#fail(circuit, 'IPP_CIRCUIT_CLOSED', `circuit ${circuit.telescope.id} was not open yet`)
    this.#shutDown(circuit)
  }

  #shutDown(circuit: Circuit): void {
    const { telescope } = circuit
    if (telescope.state === 'closing' || telescope.state === 'closed') return
    if (circuit.use === 'default') this.#withdraw(circuit)
    else if (this.#guard.leadsInto(telescope.privateAddresses))
      this.#effects.add('guard', this.#guard.route())
    this.#ends.clear(telescope.id)
    this.#hops.close(circuit, this.#now)
  }

  /** Applications must not use it any more. */
  #withdraw(circuit: Circuit): void {
    if (this.#isStopping) this.#effects.add('guard', this.#guard.route())
    else this.#replace(circuit, 'retired')
  }

  #watcher(): HopsWatcher {
    return {
      extended: (circuit) => {
        const { telescope, use } = circuit
        if (telescope.layers.length === 1) this.#paths.entered(telescope)
        if (telescope.isComplete && use === 'default')
          this.#effects.add({ circuit }, this.#guard.route(telescope.privateAddresses.at(-1)!))
        this.#proceedLater(circuit)
      },
      silent: (circuit, hop) => this.#leave(circuit, hop),
      broken: (circuit, hop, code) => {
        if (circuit.use === 'default') {
          if (circuit.telescope.state === 'open') this.#reserve.lost(this.#now)
          this.#withdraw(circuit)
        }
        this.#paths.lost(circuit.telescope, hop, code, this.#now)
      },
      unsound: (circuit, code, detail) => this.#fail(circuit, code, detail),
      ticket: (circuit, ticket) => this.#keep(circuit, ticket),
      ended: (circuit) => {
        if (this.#isStopping) {
          if (this.#circuits.size === 0 && this.#state !== 'stopped') this.#end()
        } else if (circuit.use === 'default') this.#rebuildLater()
        else this.#ensureSpares()
      },
    }
  }

  #move(self: Ip): void {
    if (this.#isStopping) return
    const isElsewhere = self !== this.#guard.self
    this.#effects.add('guard', ...this.#guard.move(self))
    if (isElsewhere) this.#hops.move(self, this.#now)
  }

  #rebuildLater(): void {
    if (this.#guardIs === 'up') this.#state = 'failed'
    this.#timers.set('rebuild', after(this.#now, this.#backoff))
    this.#backoff = Math.min(2 * this.#backoff, times.REBUILD_MAX)
  }

  #end(): void {
    this.#state = 'stopped'
    this.#wallet.wipe()
    this.#effects.add('guard', ...this.#guard.lower())
    this.#effects.event({ kind: 'stopped' })
  }

  #stop(): void {
    if (this.#isStopping) return
    this.#state = 'stopping'
    for (const timer of ['rebuild', 'spare', 'rotate'] as const) this.#timers.clear(timer)
    if (this.#circuits.size === 0) return this.#end()
    this.#timers.set('stop', after(this.#now, times.STOP_PATIENCE))
    for (const circuit of this.#circuits.all()) {
      circuit.returns = false
      this.#close(circuit)
    }
  }

  // -------------------------------------------------------------------------------------------- IKE

  #drain(): void {
    for (let output = this.#ike.poll(); output !== undefined; output = this.#ike.poll()) {
      if (output.kind === 'transmit' || output.kind === 'compute') this.#effects.pass(output)
      else this.#ikeEvent(output)
    }
    const { sampled } = this.#paths
    if (sampled !== this.#toldGuards) this.#effects.event({ kind: 'guards.changed', sampled })
    this.#toldGuards = sampled
  }

  #ikeEvent(event: IkeEvent): void {
    switch (event.kind) {
      case 'keys':
        return this.#effects.event({ kind: 'keys', keys: event })
      case 'refused':
        return this.#effects.event(event)
      default: {
        const circuit = this.#circuits.ofSa(event.sa)
        if (circuit !== undefined) this.#hops.handle(circuit, event, this.#now)
        this.#effects.event(...this.#rekeys.settle(event))
      }
    }
  }

  /** What could not be installed must not stay half: who asked for it gives it up, in whatever state. */
  #effectFailed(effect: Effect<ClientEvent>, code: ErrorCode, detail: string): void {
    const owner = this.#effects.ownerOf(effect)
    if (owner === undefined) return
    if (owner === 'guard') return this.#guardFailed(code, detail)
    if (owner.pins) this.#guard.pinFailed()
    this.#fail(owner.circuit, code, detail)
  }

  // -------------------------------------------------------------------------------------------- pieces

  #keep({ telescope, use, returns }: Circuit, ticket: ResumptionTicket): void {
    const isWanted = use === 'default' && (returns || telescope.state !== 'closing') && !this.#isStopping
    if (!isWanted) return wipeTicket(ticket)
    // One entry at a time.
    this.#wallet.wipe()
    this.#wallet.keep(telescope.hops[0]!.nodeId as NodeId, ticket)
  }

  get #isStopping(): boolean {
    return this.#state === 'stopping' || this.#state === 'stopped'
  }

  get #stateOfDefault(): ClientState {
    const state = this.#circuits.default?.telescope.state
    return state === 'open' ? 'ready' : state === 'building' ? 'building' : 'failed'
  }
}
