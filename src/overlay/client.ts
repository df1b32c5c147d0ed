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
 */
import type { ErrorCode } from '#base/errors'
import type { CircuitId, IkeSaId, NodeId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { Machine } from '#base/machine'
import { after, earliest, type Instant, TimerTable } from '#base/time'
import type { Consensus, ConsensusNode } from '#directory/documents'
import { IkeEngine } from '#ikev2/engine'
import { ANY_SELECTOR, type ChildEstablished, type IkeEvent, type IkeMoved } from '#ikev2/events'
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'
import type { ClientEvent, ClientInput, ClientOptions, ClientState } from '#overlay/client-events'
import * as times from '#overlay/client-times'
import { Drains } from '#overlay/drains'
import { EffectQueue } from '#overlay/effects'
import type { SampledGuard } from '#overlay/entry-guards'
import { Guard } from '#overlay/guard'
import { anonymousCredential, nodeIdentity } from '#overlay/identity'
import { rolesAt } from '#overlay/path'
import { PathFinder } from '#overlay/path-finder'
import { sameLink } from '#overlay/peers'
import type { Effect } from '#overlay/ports'
import { notRekeyed, Rekeys } from '#overlay/rekeys'
import { Wallet } from '#overlay/wallet'
import type { SaKey } from '#telescope/plane'
import { ReqIdAllocator } from '#telescope/reqids'
import { type Hop, Telescope } from '#telescope/telescope'

export type { ClientEvent, ClientInput, ClientOptions, ClientState } from '#overlay/client-events'

interface Circuit {
  readonly telescope: Telescope
  /** The hops, as the consensus listed them when they were chosen. */
  readonly nodes: readonly ConsensusNode[]
  readonly ticket?: number
  isDefault: boolean
  /** It is given up against our will, and comes back: its entry may see that it is the same client. */
  returns: boolean
}

/** Who hears of an effect that could not be performed: a circuit, on behalf of the guard perhaps, or the guard itself. */
type Owner = { readonly circuit: Circuit; readonly pins?: true } | 'guard'

export class OverlayClient implements Machine<ClientInput, Effect<ClientEvent>> {
  readonly #options: ClientOptions
  readonly #ike: IkeEngine
  readonly #guard: Guard
  readonly #paths: PathFinder
  readonly #effects = new EffectQueue<ClientEvent, Owner>()
  readonly #circuits = new Map<CircuitId, Circuit>()
  readonly #circuitOf = new Map<IkeSaId, Circuit>()
  readonly #reqids = new ReqIdAllocator()
  readonly #rekeys = new Rekeys()
  readonly #drains = new Drains<Circuit>()
  readonly #timers = new TimerTable<'guard' | 'proceed' | 'rebuild' | 'stop'>()
  /** Circuits that go on when the effects so far are performed. */
  readonly #next = new Set<Circuit>()
  /** Of entries: inner hops neither give tickets nor are asked for any. */
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
    this.#toldGuards = this.#paths.sampled
    this.#ike = new IkeEngine({ crypto: options.crypto, ...(options.keyLog ? { keyLog: true } : {}) })
  }

  get state(): ClientState {
    return this.#state
  }

  get consensus(): Consensus | undefined {
    return this.#consensus
  }

  get circuits(): readonly { readonly telescope: Telescope; readonly isDefault: boolean }[] {
    return [...this.#circuits.values()]
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
        this.#build({
          ticket: input.ticket,
          ...(input.path ? { path: input.path } : {}),
          ...(input.hops ? { hops: input.hops } : {}),
        })
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
        this.#heard(input.sa)
        break
      case 'traffic':
        this.#drains.observe(this.#circuits.values(), input.counters, now)
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
      else this.#abandonAll()
    }
    for (const circuit of this.#drains.expired(now))
      this.#fail(circuit, 'IPP_IKE_TIMEOUT', 'nothing is heard on it any more')
    this.#drain()
  }

  poll(): Effect<ClientEvent> | undefined {
    return this.#effects.poll()
  }

  nextTimeout(): Instant | undefined {
    return earliest(earliest(this.#ike.nextTimeout(), this.#timers.next()), this.#drains.nextTimeout())
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
    if (this.#default === undefined) this.#ensureDefault()
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
    if (this.#default !== undefined) return
    this.#timers.clear('rebuild')
    if (this.#consensus === undefined) {
      this.#state = 'waiting-for-consensus'
      return
    }
    this.#state = 'building'
    this.#build(this.#options.path ? { path: this.#options.path } : {})
  }

  #build(wish: { ticket?: number; path?: readonly string[]; hops?: number }): void {
    const ticket = wish.ticket === undefined ? {} : { ticket: wish.ticket }
    const fail = (code: ErrorCode, detail: string): void => {
      this.#effects.event({ kind: 'circuit.failed', code, detail, ...ticket })
      if (wish.ticket === undefined) this.#rebuildLater()
    }
    if (this.#isStopping) return fail('IPP_CIRCUIT_UNKNOWN', 'the client is stopping')
    if (this.#guardIs !== 'up') return fail('IPP_GUARD_DOWN', 'see the log')
    if (this.#consensus === undefined) return fail('IPP_PATH_NONE', 'no consensus that is valid')
    const hops = wish.path?.length ?? wish.hops ?? this.#options.hops
    const wanted = { hops, path: wish.path, entry: this.#entry?.nodeId as NodeId | undefined }
    const path = this.#paths.choose(this.#consensus, wanted, this.#now)
    if (!path.ok) return fail(path.code, path.where)
    const first = path.value[0]!
    const entry = this.#entry
    if (entry !== undefined && first.nodeId !== entry.nodeId)
      return fail('IPP_PATH_NONE', `circuits of one client share the entry ${entry.name}`)
    const id = this.#nextCircuit++ as CircuitId
    const telescope = new Telescope(id, path.value, this.#guard.self, this.#reqids, this.#now)
    const circuit: Circuit = {
      telescope,
      nodes: path.value,
      isDefault: wish.ticket === undefined,
      returns: false,
      ...ticket,
    }
    this.#circuits.set(id, circuit)
    this.#effects.add({ circuit, pins: true }, ...this.#guard.pin(first.address))
    this.#proceedLater(circuit)
  }

  /** A hop that is listed no longer, or otherwise, is used no longer. */
  #revoke(consensus: Consensus): void {
    const listed = new Map<string, ConsensusNode>(consensus.nodes.map((node) => [node.nodeId, node]))
    for (const circuit of [...this.#circuits.values()]) {
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
      else this.#initiate(circuit)
    }
  }

  /** Negotiates the next hop through the layers that exist. */
  #initiate(circuit: Circuit): void {
    const { path } = circuit.telescope.next()!
    const node = circuit.nodes[circuit.telescope.layers.length]!
    const isFirst = circuit.telescope.layers.length === 0
    const innermost = circuit.telescope.layers.length + 1 === circuit.telescope.hops.length
    const sa = this.#ike.initiate(
      {
        path,
        credential: anonymousCredential(node.ike),
        peer: { id: nodeIdentity(node.nodeId), publicKey: node.ikeKey },
        requestAddress: true,
        ...(isFirst ? { mobile: true } : {}),
        localSelectors: [ANY_SELECTOR],
        remoteSelectors: [ANY_SELECTOR],
        espCiphers: this.#options.ciphers,
        patience: times.HOP_PATIENCE,
        lifetimes: this.#options.lifetimes ?? times.LIFETIMES,
        ...(innermost ? { liveness: times.LIVENESS } : {}),
        ...(isFirst && node.ike === undefined
          ? { resume: this.#mayResume(circuit) ? this.#wallet.spend(node.nodeId) : {} }
          : {}),
      },
      this.#now,
    )
    circuit.telescope.negotiating(sa)
    this.#circuitOf.set(sa, circuit)
  }

  /** The entry takes a session that is resumed for over: a circuit that is draining there would be gone. */
  #mayResume({ isDefault }: Circuit): boolean {
    return isDefault && this.#drains.isEmpty
  }

  #extended(circuit: Circuit, event: ChildEstablished): void {
    const { telescope } = circuit
    const { leased } = event
    if (telescope.state !== 'building') return
    if (leased === undefined || !telescope.accepts(leased) || this.#isUsed(leased)) {
      return this.#fail(
        circuit,
        'IPP_HOP_ADDRESS_CONFLICT',
        `${telescope.next()?.hop.name} lent ${leased ?? 'nothing'}`,
      )
    }
    if (telescope.layers.length === 0) this.#paths.entered(telescope)
    this.#effects.plane({ circuit }, telescope.extend({ ...event, leased }))
    this.#effects.host({ circuit }, [{ kind: 'address.add', address: leased }])
    if (telescope.isComplete && circuit.isDefault) this.#effects.add({ circuit }, this.#guard.route(leased))
    this.#proceedLater(circuit)
  }

  #opened(circuit: Circuit): void {
    const { telescope } = circuit
    telescope.state = 'open'
    telescope.opened = this.#now
    this.#paths.opened(telescope)
    if (circuit.isDefault) {
      if (this.#guardIs === 'up') this.#state = 'ready'
      this.#backoff = times.REBUILD_FIRST
    }
    this.#effects.event({ kind: 'circuit.open', circuit: telescope, ...ticketOf(circuit) })
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
    circuit.returns = circuit.isDefault
    this.#effects.event({ kind: 'circuit.failed', circuit: telescope, code, detail, ...ticketOf(circuit) })
    this.#shutDown(circuit)
  }

  /** On request. Who waits for a circuit that never opened is told. */
  #close(circuit: Circuit): void {
    if (circuit.isDefault) this.#wallet.wipe()
    if (circuit.telescope.state === 'building' && circuit.ticket !== undefined)
      return this.#fail(circuit, 'IPP_CIRCUIT_CLOSED', `circuit ${circuit.telescope.id} was not open yet`)
    this.#shutDown(circuit)
  }

  /** Deletes hop after hop from the inside: the layers below still carry each DELETE and its answer. */
  #shutDown(circuit: Circuit): void {
    const { telescope } = circuit
    if (telescope.state === 'closing' || telescope.state === 'closed') return
    if (circuit.isDefault || this.#guard.leadsInto(telescope.privateAddresses))
      this.#effects.add('guard', this.#guard.route())
    const silent = this.#drains.end(circuit)
    if (silent !== undefined) this.#cut(circuit, silent)
    telescope.state = 'closing'
    this.#closeInnermost(circuit)
  }

  #closeInnermost(circuit: Circuit): void {
    const innermost = circuit.telescope.sas.at(-1)
    const toReturn = circuit.returns && circuit.telescope.sas.length === 1 && !this.#isStopping
    if (innermost !== undefined) return this.#ike.close(innermost, this.#now, { toReturn })
    circuit.telescope.state = 'closed'
    this.#circuits.delete(circuit.telescope.id)
    this.#effects.event({ kind: 'circuit.closed', circuit: circuit.telescope })
    if (this.#isStopping) {
      if (this.#circuits.size === 0 && this.#state !== 'stopped') this.#end()
      return
    }
    if (circuit.isDefault) this.#rebuildLater()
  }

  /** Every circuit begins at the entry they share; one that is not that far is given up. */
  #move(self: Ip): void {
    if (this.#isStopping) return
    const isElsewhere = self !== this.#guard.self
    this.#effects.add('guard', ...this.#guard.move(self))
    if (!isElsewhere) return
    for (const { telescope } of [...this.#circuits.values()]) {
      const [first] = telescope.sas
      if (first !== undefined) this.#ike.move(first, self, this.#now)
    }
  }

  #moved(circuit: Circuit, event: IkeMoved): void {
    this.#effects.plane({ circuit }, circuit.telescope.move(event))
    this.#effects.event({ kind: 'circuit.moved', circuit: circuit.telescope })
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
    this.#timers.clear('rebuild')
    if (this.#circuits.size === 0) return this.#end()
    this.#timers.set('stop', after(this.#now, times.STOP_PATIENCE))
    for (const circuit of [...this.#circuits.values()]) this.#close(circuit)
  }

  /** Nobody answered in time: forget what is left without another word. */
  #abandonAll(): void {
    for (const { telescope } of [...this.#circuits.values()]) {
      for (const sa of telescope.sas.toReversed()) this.#ike.abandon(sa)
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
        const circuit = this.#circuitOf.get(event.sa)
        if (circuit !== undefined) this.#hopEvent(circuit, event)
        this.#effects.event(...this.#rekeys.settle(event))
      }
    }
  }

  #hopEvent(circuit: Circuit, event: Exclude<IkeEvent, { kind: 'keys' | 'refused' }>): void {
    switch (event.kind) {
      case 'ike.established':
        circuit.telescope.suite ||= event.suite
        return
      case 'child.established':
        return this.#extended(circuit, event)
      case 'child.rekeyed':
      case 'child.switched':
      case 'child.closed': {
        const operations = circuit.telescope.renew(event)
        // A telescope layer has exactly one Child SA; without it the hop is useless.
        if (operations === undefined) return this.#ike.close(event.sa, this.#now)
        return this.#effects.plane({ circuit }, operations)
      }
      case 'ike.rekeyed':
        return
      case 'ticket':
        return this.#keep(circuit, event.ticket)
      case 'ike.moved':
        return this.#moved(circuit, event)
      case 'exchange':
        return circuit.telescope.measured(event)
      case 'ike.closed':
        return this.#hopClosed(circuit, event.sa, event.reason, event.detail)
    }
  }

  #heard(sa: SaKey): void {
    for (const { telescope } of this.#circuits.values()) {
      const hop = telescope.heirHeard(sa)
      if (hop !== undefined) return this.#ike.heardOn(hop, sa.spi, this.#now)
    }
  }

  /** A hop is gone, and with it everything inside it, whose DELETEs could no longer be carried. */
  #hopClosed(circuit: Circuit, sa: IkeSaId, reason: ErrorCode, detail: string): void {
    const { telescope } = circuit
    const hop = telescope.hopOf(sa)
    this.#circuitOf.delete(sa)
    if (hop === undefined) return
    const { state } = telescope
    const mayDrain = reason === 'IPP_IKE_TIMEOUT' && (state === 'open' || state === 'draining')
    if (mayDrain && this.#drains.begin(circuit, hop, this.#now)) return this.#leave(circuit, hop)
    const unexpected = state === 'building' || state === 'open' || state === 'draining'
    if (unexpected && circuit.isDefault) this.#effects.add('guard', this.#guard.route())
    this.#cut(circuit, Math.min(hop, this.#drains.end(circuit) ?? hop))
    if (unexpected) {
      this.#paths.lost(telescope, hop, reason, this.#now)
      this.#fail(circuit, reason, `hop ${hop} (${telescope.hops[hop - 1]!.name}): ${detail}`)
    } else this.#closeInnermost(circuit)
  }

  /** A hop answers no more, and still carries packets: another circuit comes first, then this one goes. */
  #leave(circuit: Circuit, hop: number): void {
    const { telescope } = circuit
    if (telescope.state === 'draining') return
    this.#paths.lost(telescope, hop, 'IPP_IKE_TIMEOUT', this.#now)
    telescope.state = 'draining'
    this.#effects.event({ kind: 'circuit.draining', circuit: telescope })
    if (!circuit.isDefault) return
    circuit.isDefault = false
    this.#ensureDefault()
  }

  /** Takes away hop `hop` and all inside it. */
  #cut(circuit: Circuit, hop: number): void {
    const { telescope } = circuit
    for (const dead of telescope.sas.slice(hop - 1)) {
      this.#circuitOf.delete(dead)
      this.#ike.abandon(dead)
    }
    const { operations, addresses } = telescope.truncate(hop - 1)
    this.#effects.plane({ circuit }, operations)
    this.#effects.host(
      { circuit },
      addresses.map((address) => ({ kind: 'address.remove', address })),
    )
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

  get #default(): Circuit | undefined {
    for (const circuit of this.#circuits.values()) if (circuit.isDefault) return circuit
    return undefined
  }

  /** The guard node all circuits share while there is one. */
  get #entry(): Hop | undefined {
    for (const { telescope } of this.#circuits.values()) return telescope.hops[0]
    return undefined
  }

  #keep({ telescope, isDefault, returns }: Circuit, ticket: ResumptionTicket): void {
    const isWanted = isDefault && (returns || telescope.state !== 'closing') && !this.#isStopping
    if (!isWanted) return wipeTicket(ticket)
    // One entry at a time.
    this.#wallet.wipe()
    this.#wallet.keep(telescope.hops[0]!.nodeId as NodeId, ticket)
  }

  get #isStopping(): boolean {
    return this.#state === 'stopping' || this.#state === 'stopped'
  }

  #isUsed(address: Ip): boolean {
    for (const { telescope } of this.#circuits.values())
      if (telescope.privateAddresses.includes(address)) return true
    return false
  }

  get #stateOfDefault(): ClientState {
    const state = this.#default?.telescope.state
    return state === 'open' ? 'ready' : state === 'building' ? 'building' : 'failed'
  }
}

const ticketOf = (circuit: Circuit): { ticket?: number } =>
  circuit.ticket === undefined ? {} : { ticket: circuit.ticket }
