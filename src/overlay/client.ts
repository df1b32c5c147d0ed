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
import type { Machine } from '#base/machine'
import { type Result, success } from '#base/result'
import { after, earliest, type Instant } from '#base/time'
import type { Consensus, ConsensusNode } from '#directory/documents'
import { IkeEngine } from '#ikev2/engine'
import type { IkeEvent } from '#ikev2/events'
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'
import { Builder } from '#overlay/builder'
import { type Circuit, Circuits } from '#overlay/circuits'
import type { ClientEvent, ClientInput, ClientOptions, ClientState } from '#overlay/client-events'
import * as times from '#overlay/client-times'
import { EffectQueue } from '#overlay/effects'
import type { SampledGuard } from '#overlay/entry-guards'
import { type Group, groupsOf } from '#overlay/groups'
import { Guard } from '#overlay/guard'
import { GuardKeeper } from '#overlay/guard-keeper'
import { Hops, type HopsWatcher, type Owner } from '#overlay/hops'
import { mtuOf } from '#overlay/parameters'
import { rolesAt } from '#overlay/path'
import { type AvoidedNode, PathFinder } from '#overlay/path-finder'
import { sameLink } from '#overlay/peers'
import type { Effect } from '#overlay/ports'
import { notRekeyed, Rekeys } from '#overlay/rekeys'
import { noGround, Supply } from '#overlay/supply'
import { Wallet } from '#overlay/wallet'

export type { ClientEvent, ClientInput, ClientOptions, ClientState } from '#overlay/client-events'

export class OverlayClient implements Machine<ClientInput, Effect<ClientEvent>> {
  readonly #options: ClientOptions
  readonly #ike: IkeEngine
  readonly #guard: Guard
  readonly #keeper: GuardKeeper
  readonly #groups: readonly Group[]
  readonly #paths: PathFinder
  readonly #effects = new EffectQueue<ClientEvent, Owner>()
  readonly #circuits = new Circuits()
  readonly #hops: Hops
  readonly #builder: Builder
  readonly #supply: Supply
  readonly #rekeys = new Rekeys()
  readonly #wallet = new Wallet()
  #toldGuards: readonly SampledGuard[]
  #life: 'running' | 'stopping' | 'stopped' = 'running'
  /** When those who did not confirm deletion are waited for no longer. */
  #patience: Instant | undefined
  #consensus: Consensus | undefined
  #now = 0 as Instant

  constructor(options: ClientOptions) {
    this.#options = options
    const groups = groupsOf(options.isolation)
    this.#groups = groups
    const [effects, circuits, wallet] = [this.#effects, this.#circuits, this.#wallet]
    const guard = new Guard(options, groups)
    const paths = new PathFinder(options)
    this.#guard = guard
    this.#keeper = new GuardKeeper(guard, effects)
    this.#paths = paths
    this.#toldGuards = paths.sampled
    this.#ike = new IkeEngine({ crypto: options.crypto, ...(options.keyLog ? { keyLog: true } : {}) })
    const hops = new Hops({
      ike: this.#ike,
      circuits,
      effects,
      wallet,
      guard,
      options,
      watcher: this.#watcher(),
    })
    const builder = new Builder({ effects, circuits, guard, paths, hops, length: options.hops })
    const ground = () => this.#ground()
    this.#hops = hops
    this.#builder = builder
    this.#supply = new Supply({
      effects,
      circuits,
      groups,
      guard,
      paths,
      hops,
      builder,
      wallet,
      options,
      ground,
    })
  }

  get state(): ClientState {
    if (this.#life !== 'running') return this.#life
    if (!this.#keeper.stands) return 'unguarded'
    const state = this.#circuits.default?.telescope.state
    if (state !== undefined) return state === 'open' ? 'ready' : state === 'building' ? 'building' : 'failed'
    if (this.#consensus === undefined) return 'waiting-for-consensus'
    return this.#options.onDemand ? 'ready' : 'failed'
  }

  get consensus(): Consensus | undefined {
    return this.#consensus
  }

  get circuits(): readonly (Pick<Circuit, 'telescope' | 'use' | 'group'> & {
    readonly isDefault: boolean
  })[] {
    return this.#circuits
      .all()
      .map(({ telescope, use, group }) => ({ telescope, use, group, isDefault: use === 'default' }))
  }

  /** What the traffic of each group has now, the default one first; no circuit: its packets are dropped. */
  get groups(): readonly { readonly name: string; readonly circuit?: CircuitId; readonly state: string }[] {
    return this.#groups.map((group) => {
      const telescope = this.#circuits.of(group)?.telescope
      return telescope === undefined
        ? { name: group.name, state: 'waiting' }
        : { name: group.name, circuit: telescope.id, state: telescope.state }
    })
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
        this.#keeper.raise(now)
        break
      case 'datagram':
        this.#ike.handle({ kind: 'datagram', path: input.path, bytes: input.bytes }, now)
        break
      case 'consensus':
        this.#consensus = input.consensus
        if (this.#life === 'running') this.#keeper.resize(mtuOf(input.consensus))
        this.#revoke(input.consensus)
        // One that failed may have lacked the very nodes that are listed now.
        this.#supply.ensure(now)
        break
      case 'consensus.expired':
        this.#consensus = undefined
        break
      case 'build':
        this.#build(input)
        break
      case 'close': {
        const circuit = this.#circuits.get(input.circuit)
        if (circuit !== undefined) this.#supply.close(circuit, now)
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
        if (this.#life === 'running' && this.#keeper.move(input.self)) this.#hops.move(input.self, now)
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
    // First of all: what begins in this very tick goes on when its effects are performed.
    for (const circuit of this.#builder.tick(now)) this.#supply.opened(circuit, now)
    if (this.#life === 'running' && this.#keeper.tick(now)) this.#supply.ensure(now)
    this.#supply.tick(now)
    if (this.#patience !== undefined && this.#patience <= now) {
      this.#patience = undefined
      for (const circuit of this.#circuits.all()) this.#hops.abandon(circuit)
    }
    for (const circuit of this.#hops.drained(now))
      this.#supply.fail(circuit, 'IPP_IKE_TIMEOUT', 'nothing is heard on it any more', now)
    this.#drain()
  }

  poll(): Effect<ClientEvent> | undefined {
    return this.#effects.poll()
  }

  nextTimeout(): Instant | undefined {
    const parts = [this.#ike, this.#builder, this.#keeper, this.#supply, this.#hops]
    return parts.map((part) => part.nextTimeout()).reduce(earliest, this.#patience)
  }

  /** What circuits are built from, and the guard in which that may be done. */
  #ground(): Result<Consensus> {
    if (this.#life !== 'running') return noGround.stopping
    if (!this.#keeper.stands) return noGround.unguarded
    return this.#consensus === undefined ? noGround.ignorant : success(this.#consensus)
  }

  /** Somebody wants one of his own. */
  #build({ ticket, path, hops, destination }: ClientInput & { kind: 'build' }): void {
    const ground = this.#ground()
    const wish = {
      use: 'asked' as const,
      ticket,
      ...(path ? { path } : {}),
      ...(hops ? { hops } : {}),
      ...(destination ? { destination } : {}),
    }
    const built = ground.ok ? this.#builder.build(ground.value, wish, this.#now) : ground
    if (!built.ok)
      this.#effects.event({ kind: 'circuit.failed', code: built.code, detail: built.where, ticket })
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
      if (gone === undefined) continue
      const detail = `${gone.name} is not listed any more, or otherwise`
      this.#supply.fail(circuit, 'IPP_PATH_UNKNOWN_NODE', detail, this.#now)
    }
  }

  #rekey(wish: ClientInput & { kind: 'rekey' }): void {
    const telescope = this.#circuits.get(wish.circuit)?.telescope
    const [sa, layer] = [telescope?.sas[wish.hop - 1], telescope?.layers[wish.hop - 1]]
    if (telescope?.state === 'open' && sa !== undefined && layer !== undefined)
      return this.#rekeys.begin(this.#ike, wish, sa, layer.child, this.#now)
    const detail = `no hop ${wish.hop} of an open circuit ${wish.circuit}`
    this.#effects.event(notRekeyed(wish, 'IPP_CIRCUIT_UNKNOWN', detail))
  }

  #watcher(): HopsWatcher {
    return {
      extended: (circuit) => {
        if (circuit.telescope.layers.length === 1) this.#paths.entered(circuit.telescope)
        this.#supply.extended(circuit, this.#now)
        this.#builder.proceedLater(circuit, this.#now)
      },
      silent: (circuit, hop) => this.#supply.silent(circuit, hop, this.#now),
      broken: (circuit, hop, code) => this.#supply.broken(circuit, hop, code, this.#now),
      unsound: (circuit, code, detail) => this.#supply.fail(circuit, code, detail, this.#now),
      ticket: (circuit, ticket) => this.#keep(circuit, ticket),
      ended: (circuit) => {
        if (this.#life === 'running') this.#supply.ended(circuit, this.#now)
        else if (this.#circuits.size === 0 && this.#life !== 'stopped') this.#end()
      },
    }
  }

  #end(): void {
    this.#life = 'stopped'
    this.#wallet.wipe()
    this.#keeper.lower()
    this.#effects.event({ kind: 'stopped' })
  }

  #stop(): void {
    if (this.#life !== 'running') return
    this.#life = 'stopping'
    this.#supply.end()
    if (this.#circuits.size === 0) return this.#end()
    this.#patience = after(this.#now, times.STOP_PATIENCE)
    for (const circuit of this.#circuits.all()) {
      circuit.returns = false
      this.#supply.close(circuit, this.#now)
    }
  }

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
    if (owner === 'guard') {
      if (this.#life === 'running') this.#keeper.failed(code, detail, this.#now)
      return
    }
    if (owner.pins) this.#guard.pinFailed()
    this.#supply.fail(owner.circuit, code, detail, this.#now)
  }

  #keep({ telescope, use, returns }: Circuit, ticket: ResumptionTicket): void {
    const isWanted =
      use === 'default' && (returns || telescope.state !== 'closing') && this.#life === 'running'
    if (!isWanted) return wipeTicket(ticket)
    // One entry at a time.
    this.#wallet.wipe()
    this.#wallet.keep(telescope.hops[0]!.nodeId as NodeId, ticket)
  }
}
