/**
 * What a killed predecessor left in the kernel, and still carries packets. Its IKE SAs are lost with it: nothing of
 * this can be renewed or deleted by its peers any more, so it goes on as it is, and ends by itself.
 *
 *   circuits   the address that is lent, its policies and SA pair, until nothing came for `UNHEARD`: their client found
 *              out meanwhile, or is gone. Its own signs of life pass here, so that a quiet one is kept, too
 *   tunnels    the SAs of an overlay tunnel, until a little after the new one stands. It has the same reqid, so the
 *              policies of circuits lead into it from its first packet on
 *
 * Whatever serves neither is removed at once.
 */
import type { ReqId } from '#base/ids'
import { contains, formatPrefix, type Ip, type Prefix } from '#base/ip'
import { after, type Duration, HOUR, type Instant, MINUTE, TimerTable } from '#base/time'
import type { AddressPool } from '#nat/pool'
import { TUNNEL_GRACE, UNHEARD } from '#overlay/router-times'
import { harden, type OverlayLink, overlayPolicies } from '#telescope/plan'
import {
  type Direction,
  type Inventory,
  type PlaneOperation,
  type PolicySpec,
  PRIORITY,
  type SaCounters,
  type SaKey,
  type Selector,
} from '#telescope/plane'
import type { ReqIdAllocator } from '#telescope/reqids'

/** No longer than an SA is used without new keys. */
export const LIFETIME: Duration = 2 * HOUR
/** What was found waits no longer for the consensus that says what is still of use. */
const CONSENSUS_PATIENCE: Duration = 2 * MINUTE
const CONSENSUS = 'consensus'

/** Where what was found is of use. */
export interface Surroundings {
  readonly self: Ip
  readonly pool: AddressPool
  readonly links: readonly OverlayLink[]
  readonly isExit: boolean
}

export interface EstatePorts {
  readonly reqids: ReqIdAllocator
  readonly perform: (operations: readonly PlaneOperation[]) => void
}

export class Estate {
  readonly #found: Inventory
  readonly #ports: EstatePorts
  readonly #remnants = new Set<Remnant>()
  readonly #timers = new TimerTable<Remnant | typeof CONSENSUS>()
  #pool: AddressPool | undefined
  #last = 0 as Instant
  /** What was found may still go on. */
  #isOpen: boolean

  constructor(found: Inventory | undefined, ports: EstatePorts) {
    this.#found = found ?? { policies: [], sas: [] }
    this.#ports = ports
    this.#isOpen = found !== undefined
    for (const reqid of this.#reqids) ports.reqids.reserve(reqid)
  }

  /** How many circuits go on. */
  get circuitCount(): number {
    return [...this.#remnants].filter(({ leased }) => leased !== undefined).length
  }

  /** Waits for a consensus, which says what goes on. @returns false when there is nothing to wait for */
  begin(now: Instant): boolean {
    if (this.#isOpen) this.#timers.set(CONSENSUS, after(now, CONSENSUS_PATIENCE))
    return this.#isOpen
  }

  /**
   * The reqid of a tunnel between these two, for the one that is made now: the policies of circuits lead into it from
   * its first packet on.
   */
  reqidOf(self: Ip, peer: Ip): ReqId | undefined {
    if (!this.#isOpen) return undefined
    return this.#found.policies
      .filter(({ direction, priority }) => direction === 'out' && priority === PRIORITY.overlayNodeToNode)
      .flatMap(({ templates }) => templates)
      .find(({ source, destination }) => source === self && destination === peer)?.reqid
  }

  /** Decides, once, what goes on, and removes everything else. */
  settle({ self, pool, links, isExit }: Surroundings, now: Instant): void {
    if (!this.#isOpen) return
    this.#close()
    this.#pool = pool
    this.#last = after(now, LIFETIME)
    const tunnels = new Set(links.map(({ reqid }) => reqid))
    for (const circuit of circuitsOf(this.#found.policies, pool.prefix, tunnels))
      this.#keep(circuit, self, now)
    for (const reqid of tunnels) this.#keep({ reqid, policies: [] }, self, now)
    const policies = [...this.#remnants].flatMap((remnant) => remnant.policies)
    // In place of those the router installs, which are the same.
    for (const each of [...harden(pool.prefix, isExit), ...links.flatMap(overlayPolicies)])
      if (each.kind === 'policy.install') policies.push(each.policy)
    const serving = new Set(policies.map(nameOf))
    const inUse = new Set([...tunnels, ...[...this.#remnants].map(({ reqid }) => reqid)])
    this.#ports.perform([
      ...this.#found.policies.filter((policy) => !serving.has(nameOf(policy))).map(removePolicy),
      ...this.#found.sas.filter(({ reqid }) => !inUse.has(reqid)).map(removeSa),
    ])
    for (const reqid of this.#reqids) if (!inUse.has(reqid)) this.#ports.reqids.release(reqid)
  }

  /** Nothing of it is of use: all of it is removed. @returns false when that is decided already */
  renounce(): boolean {
    if (!this.#isOpen) return false
    this.#close()
    const { policies, sas } = this.#found
    this.#ports.perform([...policies.map(removePolicy), ...sas.map(removeSa)])
    for (const reqid of this.#reqids) this.#ports.reqids.release(reqid)
    return true
  }

  /** Is there a tunnel of this reqid that goes on? */
  hasTunnel(reqid: ReqId): boolean {
    return [...this.#remnants].some((each) => each.reqid === reqid && each.leased === undefined)
  }

  /**
   * The tunnel of this reqid is made anew, and the data plane sends on its SA, which is newer. What the peer sent on the
   * old one is on its way; and the peer, too, hears that still, should it not keep the new one (links.ts).
   */
  superseded(reqid: ReqId, now: Instant): void {
    for (const remnant of this.#remnants) {
      if (remnant.reqid !== reqid || remnant.leased !== undefined) continue
      remnant.isSuperseded = true
      this.#timers.set(remnant, after(now, TUNNEL_GRACE))
    }
  }

  /** The tunnel of this reqid is no more, and with it whatever came through it. */
  bereave(reqid: ReqId, now: Instant): void {
    for (const each of [...this.#remnants])
      if (each.reqid === reqid || each.via === reqid) this.#end(each, now)
  }

  /** The pool is another one: nothing goes on. */
  end(now: Instant): void {
    for (const each of [...this.#remnants]) this.#end(each, now)
  }

  /** What the data plane counted: who is heard of, goes on. */
  observe(counters: readonly SaCounters[], now: Instant): void {
    const packets = new Map(counters.map((row) => [saName(row), row.packets]))
    for (const remnant of this.#remnants) {
      const heard = remnant.inbound.reduce((sum, sa) => sum + (packets.get(saName(sa)) ?? 0), 0)
      if (heard > remnant.heard && !remnant.isSuperseded)
        this.#timers.set(remnant, Math.min(after(now, UNHEARD), this.#last) as Instant)
      remnant.heard = heard
    }
  }

  nextTimeout(): Instant | undefined {
    return this.#timers.next()
  }

  /** @returns true when all was renounced, since no consensus came */
  tick(now: Instant): boolean {
    let renounced = false
    for (const due of this.#timers.expired(now)) {
      if (due === CONSENSUS) renounced = this.renounce()
      else this.#end(due, now)
    }
    return renounced
  }

  #keep(part: Part, self: Ip, now: Instant): void {
    const { reqid, policies, leased } = part
    const sas = this.#found.sas.filter((sa) => sa.reqid === reqid)
    if (sas.length === 0 && policies.length === 0) return
    const remnant: Remnant = {
      ...part,
      inbound: sas.filter(({ destination }) => destination === self),
      removal: [...policies.map(removePolicy), ...sas.map(removeSa)],
      heard: 0,
      isSuperseded: false,
    }
    this.#remnants.add(remnant)
    this.#timers.set(remnant, after(now, UNHEARD))
    // Who is still bound to an address must not meet another there.
    if (leased !== undefined) this.#pool?.withhold(leased, Infinity as Instant)
  }

  #end(remnant: Remnant, now: Instant): void {
    const { reqid, leased, removal } = remnant
    this.#remnants.delete(remnant)
    this.#timers.clear(remnant)
    this.#ports.perform(removal)
    if (leased === undefined) return
    this.#ports.reqids.release(reqid)
    this.#pool?.withhold(leased, now)
  }

  #close(): void {
    this.#isOpen = false
    this.#timers.clear(CONSENSUS)
  }

  /** Every number that names SAs of it. */
  get #reqids(): ReadonlySet<ReqId> {
    const { policies, sas } = this.#found
    return new Set([...sas, ...policies.flatMap(({ templates }) => templates)].map(({ reqid }) => reqid))
  }
}

interface Part {
  readonly reqid: ReqId
  readonly policies: readonly PolicySpec[]
  /** Of a circuit: the address its client was lent. */
  readonly leased?: Ip
  /** Of a circuit that comes through an overlay tunnel: the reqid of that. */
  readonly via?: ReqId
}

/** A circuit, or the SAs of a tunnel. */
interface Remnant extends Part {
  readonly inbound: readonly SaKey[]
  readonly removal: readonly PlaneOperation[]
  /** Packets on `inbound`, when they were counted last. */
  heard: number
  isSuperseded: boolean
}

/** The circuits of policies: those of whom an address of the pool was lent, through a tunnel there still is, or none. */
function* circuitsOf(
  policies: readonly PolicySpec[],
  pool: Prefix,
  tunnels: ReadonlySet<ReqId>,
): Generator<Part> {
  const byLease = new Map<Ip, PolicySpec[]>()
  for (const policy of policies) {
    const leased = leaseOf(policy)
    if (leased === undefined || !contains(pool, leased)) continue
    byLease.set(leased, [...(byLease.get(leased) ?? []), policy])
  }
  for (const [leased, pair] of byLease) {
    const [first, second] = pair
    const reqid = first?.templates[0]?.reqid
    const via = first?.templates[1]?.reqid
    // A bind that was half done is none.
    if (second === undefined || reqid === undefined || second.templates[0]?.reqid !== reqid) continue
    if (via !== undefined && !tunnels.has(via)) continue
    yield { reqid, policies: pair, leased, ...(via === undefined ? {} : { via }) }
  }
}

/** Forward from a lent address, or out to it. */
function leaseOf({ direction, priority, action, selector }: PolicySpec): Ip | undefined {
  if (priority !== PRIORITY.circuit || action !== 'protect') return undefined
  const end = direction === 'fwd' ? selector.source : direction === 'out' ? selector.destination : undefined
  return end?.length === 32 ? end.address : undefined
}

const saName = ({ source, destination, spi }: SaKey): string => `${source} ${destination} ${spi}`

function nameOf({
  direction,
  selector,
}: {
  readonly direction: Direction
  readonly selector: Selector
}): string {
  const { source, destination, protocol, sourcePort, destinationPort, icmp } = selector
  const upper = [protocol, sourcePort, destinationPort, icmp?.type, icmp?.code]
  return [direction, formatPrefix(source), formatPrefix(destination), ...upper].join(' ')
}

const removePolicy = ({ direction, selector }: PolicySpec): PlaneOperation => ({
  kind: 'policy.remove',
  direction,
  selector,
})

const removeSa = ({ source, destination, spi }: SaKey): PlaneOperation => ({
  kind: 'sa.remove',
  sa: { source, destination, spi },
})
