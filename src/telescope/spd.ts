import { ipToUint32, maskOf, type Prefix } from '#base/ip'
import type { Direction, PolicySpec, Selector } from '#telescope/plane'
import { MAX_TEMPLATES } from '#telescope/plane'
import type { Bundle, Sad } from '#telescope/sad'
import {
  destination,
  IPV4_HEADER,
  isLaterFragment,
  PROTOCOL,
  protocol,
  readUint16,
  source,
  totalLength,
} from '#wire/ipv4'

/**
 * Security Policy Database (RFC 4301 section 4.4.1) of the userspace plane, one table per direction.
 *
 * Look-up is tuple space search: policies are grouped by the pair of their prefix lengths, each group is a hash
 * map on the masked addresses. A node has a handful of such pairs (/32 from any, any to /32, pool to /32, ...)
 * however many circuits and overlay peers it has, so the cost of a look-up does not grow with them.
 */
export interface Policy {
  readonly spec: PolicySpec
  readonly bundles: readonly Bundle[]
  /** Ties of priority go to the older. */
  readonly order: number
}

/** The part of a packet selectors look at. Filled anew for every packet; see `NO_PORT`. */
export interface Flow {
  /** int32. */
  source: number
  destination: number
  protocol: number
  /** ICMP type and code when the protocol is ICMP. */
  sourcePort: number
  destinationPort: number
}

/** Port of a packet that has none (later fragments, other protocols): matches no port selector. */
export const NO_PORT = -1

/** Fills `flow` from the IPv4 packet at `offset`, whose header was checked. */
export function readFlow(flow: Flow, bytes: Uint8Array, offset: number): void {
  flow.source = source(bytes, offset)
  flow.destination = destination(bytes, offset)
  flow.protocol = protocol(bytes, offset)
  flow.sourcePort = NO_PORT
  flow.destinationPort = NO_PORT
  const upper = offset + IPV4_HEADER
  if (isLaterFragment(bytes, offset) || totalLength(bytes, offset) < IPV4_HEADER + 4) return
  if (flow.protocol === PROTOCOL.udp || flow.protocol === PROTOCOL.tcp) {
    flow.sourcePort = readUint16(bytes, upper)
    flow.destinationPort = readUint16(bytes, upper + 2)
  } else if (flow.protocol === PROTOCOL.icmp) {
    flow.sourcePort = bytes[upper]!
    flow.destinationPort = bytes[upper + 1]!
  }
}

interface Group {
  readonly sourceMask: number
  readonly destinationMask: number
  readonly bySource: Map<number, Map<number, Policy[]>>
  /** Of all policies in the group: a better one already found ends the search. */
  best: number
  count: number
}

export class PolicyTable {
  readonly #groups: Group[] = []
  readonly #bySelector = new Map<string, Policy>()
  #orders = 0

  get size(): number {
    return this.#bySelector.size
  }

  /** Installs, or replaces the policy of the same selector. @returns the replaced one. */
  install(spec: PolicySpec, bundles: readonly Bundle[]): Policy | undefined {
    const name = selectorText(spec.selector)
    const replaced = this.#bySelector.get(name)
    if (replaced !== undefined) this.#unlink(replaced)
    const policy: Policy = { spec, bundles, order: replaced?.order ?? this.#orders++ }
    this.#bySelector.set(name, policy)
    this.#link(policy)
    return replaced
  }

  remove(selector: Selector): Policy | undefined {
    const name = selectorText(selector)
    const policy = this.#bySelector.get(name)
    if (policy === undefined) return undefined
    this.#bySelector.delete(name)
    this.#unlink(policy)
    return policy
  }

  policies(): IterableIterator<Policy> {
    return this.#bySelector.values()
  }

  /** The policy with the lowest priority number that matches, or undefined. */
  lookup(flow: Flow): Policy | undefined {
    let found: Policy | undefined
    for (const group of this.#groups) {
      if (found !== undefined && found.spec.priority < group.best) break
      const list = group.bySource
        .get(flow.source & group.sourceMask)
        ?.get(flow.destination & group.destinationMask)
      if (list === undefined) continue
      for (const policy of list) {
        if (found !== undefined && precedes(found, policy)) break
        if (matchesUpper(policy.spec.selector, flow)) {
          found = policy
          break
        }
      }
    }
    return found
  }

  #link(policy: Policy): void {
    const { source, destination } = policy.spec.selector
    const group = this.#group(maskOf(source.length), maskOf(destination.length))
    const byDestination = getOrAdd(group.bySource, bits(source), () => new Map<number, Policy[]>())
    const list = getOrAdd(byDestination, bits(destination), () => [] as Policy[])
    const at = list.findIndex((other) => precedes(policy, other))
    list.splice(at < 0 ? list.length : at, 0, policy)
    group.count++
    if (policy.spec.priority < group.best) {
      group.best = policy.spec.priority
      this.#groups.sort((a, b) => a.best - b.best)
    }
  }

  #unlink(policy: Policy): void {
    const { source, destination } = policy.spec.selector
    const group = this.#group(maskOf(source.length), maskOf(destination.length))
    const byDestination = group.bySource.get(bits(source))!
    const list = byDestination.get(bits(destination))!
    list.splice(list.indexOf(policy), 1)
    if (list.length === 0) byDestination.delete(bits(destination))
    if (byDestination.size === 0) group.bySource.delete(bits(source))
    // `best` may stay too low when its policy goes: that only costs a look into the group.
    if (--group.count === 0) this.#groups.splice(this.#groups.indexOf(group), 1)
  }

  #group(sourceMask: number, destinationMask: number): Group {
    let group = this.#groups.find((g) => g.sourceMask === sourceMask && g.destinationMask === destinationMask)
    if (group === undefined) {
      group = { sourceMask, destinationMask, bySource: new Map(), best: Number.POSITIVE_INFINITY, count: 0 }
      this.#groups.push(group)
    }
    return group
  }
}

/** The three tables, with templates resolved to bundles of the SAD. */
export class Spd {
  readonly #sad: Sad
  readonly #tables: Readonly<Record<Direction, PolicyTable>> = {
    in: new PolicyTable(),
    out: new PolicyTable(),
    fwd: new PolicyTable(),
  }

  constructor(sad: Sad) {
    this.#sad = sad
  }

  /** @returns the policy it replaced. @throws RangeError when the policy is not well formed. */
  install(spec: PolicySpec): PolicySpec | undefined {
    const count = spec.templates.length
    if (spec.action === 'protect' ? count === 0 || count > MAX_TEMPLATES : count !== 0)
      throw new RangeError(`a ${spec.action} policy with ${count} templates`)
    const bundles = spec.templates.map((template) => this.#sad.bundle(template))
    const replaced = this.#tables[spec.direction].install(spec, bundles)
    for (const bundle of replaced?.bundles ?? []) this.#sad.release(bundle)
    return replaced?.spec
  }

  /** Harmless when there is none. @returns the removed one. */
  remove(direction: Direction, selector: Selector): PolicySpec | undefined {
    const removed = this.#tables[direction].remove(selector)
    for (const bundle of removed?.bundles ?? []) this.#sad.release(bundle)
    return removed?.spec
  }

  lookup(direction: Direction, flow: Flow): Policy | undefined {
    return this.#tables[direction].lookup(flow)
  }

  clear(): void {
    for (const table of Object.values(this.#tables))
      for (const policy of [...table.policies()]) {
        table.remove(policy.spec.selector)
        for (const bundle of policy.bundles) this.#sad.release(bundle)
      }
  }
}

/** Everything of a selector but its addresses. */
function matchesUpper(s: Selector, flow: Flow): boolean {
  if (s.protocol !== undefined && s.protocol !== flow.protocol) return false
  if (s.sourcePort !== undefined && s.sourcePort !== flow.sourcePort) return false
  if (s.destinationPort !== undefined && s.destinationPort !== flow.destinationPort) return false
  if (s.icmp === undefined) return true
  return (
    flow.protocol === PROTOCOL.icmp && s.icmp.type === flow.sourcePort && s.icmp.code === flow.destinationPort
  )
}

function precedes(a: Policy, b: Policy): boolean {
  const difference = a.spec.priority - b.spec.priority
  return difference < 0 || (difference === 0 && a.order < b.order)
}

const bits = (p: Prefix): number => ipToUint32(p.address) | 0

function selectorText(s: Selector): string {
  const icmp = s.icmp === undefined ? '' : `${s.icmp.type}/${s.icmp.code}`
  return `${s.source.address}/${s.source.length} ${s.destination.address}/${s.destination.length} ${s.protocol ?? ''} ${s.sourcePort ?? ''} ${s.destinationPort ?? ''} ${icmp}`
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}
