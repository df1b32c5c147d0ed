/**
 * Which nodes a circuit goes through. Pure: the nodes (`roster.ts`), the constraints and the randomness are arguments.
 *
 * The exit is chosen first, because the destination constrains it most, then the entry, then the middles, each by
 * bandwidth weight among the nodes that leave the rest of the path possible. A draw that bars the way is taken back
 * and drawn again among the others, which is the same chance as if it had not been there.
 *
 * Two nodes of one /16 never share a path, because one operator or one wiretap often holds all of it, nor do two of
 * one family. (Tor keeps IPv6 networks of one /32 apart as well; nodes here have IPv4 addresses only.) `sameNetwork`
 * lifts the first for laboratories.
 *
 * What users may leave out are networks and nodes. There are no countries: the consensus carries none, and a database
 * of one's own would make one's choice unlike everybody else's.
 */
import type { NodeId } from '#base/ids'
import { type Ip, ipToUint32, maskOf, type Prefix, parseIp } from '#base/ip'
import { type Failure, failure, type Result, success } from '#base/result'
import type { Rng } from '#base/rng'
import type { ConsensusNode, NodeRole } from '#directory/documents'
import { exitAllows } from '#nat/exit-policy'
import { BIT, MASKS, type Place } from '#overlay/position-weights'
import type { Roster } from '#overlay/roster'

export interface PathConstraints {
  /** 1..5. With `path` it may be left out; else 3. */
  readonly hops?: number
  /** The whole path, entry first: names or node ids. Roles and neighbours are checked all the same. */
  readonly path?: readonly string[]
  /** Name or node id. */
  readonly entry?: string
  readonly exit?: string
  /** Never these. */
  readonly exclude?: readonly NodeId[]
  /** Nor any node in one of these. */
  readonly excludeNetworks?: readonly Prefix[]
  /** What the circuit is for: the exit's policy must allow it. Absent: any exit will do. */
  readonly destination?: Destination
  /** Allow several nodes of one /16: for networks that are too small to be choosy, such as a laboratory. */
  readonly sameNetwork?: boolean
}

export interface Destination {
  readonly address: Ip
  readonly protocol: 'tcp' | 'udp' | 'icmp'
  readonly port?: number
}

/** `tcp:192.0.2.1:443`, `udp:192.0.2.1:53` or `icmp:192.0.2.1`; undefined: something else. */
export function parseDestination(text: string): Destination | undefined {
  const match = /^(tcp|udp|icmp):([0-9.]+)(?::([1-9]\d{0,4}))?$/.exec(text)
  const address = match === null ? undefined : parseIp(match[2]!)
  if (match === null || address === undefined) return undefined
  const protocol = match[1] as Destination['protocol']
  const port = match[3] === undefined ? undefined : Number(match[3])
  if ((protocol === 'icmp') !== (port === undefined) || (port ?? 0) > 65535) return undefined
  return { address, protocol, ...(port === undefined ? {} : { port }) }
}

export const MAX_HOPS = 5
export const DEFAULT_HOPS = 3

/** Draws that may be taken back. Only a knot of families and networks needs more, and who ties one gets no path. */
const PATIENCE = 256

/**
 * A path from entry to exit. With one hop the node is entry and exit at once.
 * Errors: IPP_PATH_UNKNOWN_NODE (a pinned node is not listed), IPP_PATH_NONE (with the reason).
 */
export function choosePath(roster: Roster, constraints: PathConstraints, rng: Rng): Result<ConsensusNode[]> {
  const hops = constraints.hops ?? constraints.path?.length ?? DEFAULT_HOPS
  if (!Number.isInteger(hops) || hops < 1 || hops > MAX_HOPS)
    return none(`a path has 1 to ${MAX_HOPS} hops, not ${hops}`)
  const pins = resolvePins(roster, constraints, hops)
  if (!pins.ok) return pins
  const search = new Search(roster, constraints, hops, rng)
  // Pinned nodes take their places first, so that no free choice stands in their way.
  for (const [position, node] of pins.value) {
    const refusal = search.refusalOf(node, position)
    if (refusal !== undefined) return none(refusal)
    search.take(node, position)
  }
  const open = choiceOrder(hops).filter((position) => !pins.value.has(position))
  return search.fill(open) ? success(search.path) : none(search.shortage(pins.value.size))
}

/** What a node must be to stand there. */
export function rolesAt(position: number, hops: number): readonly NodeRole[] {
  const roles: NodeRole[] = []
  if (position === 0) roles.push('entry')
  if (position === hops - 1) roles.push('exit')
  return roles.length > 0 ? roles : ['middle']
}

/** Exit, entry, then the middles from the entry on. */
const choiceOrder = (hops: number): number[] => {
  const order = [hops - 1]
  for (let position = 0; position < hops - 1; position++) order.push(position)
  return order
}

interface Network {
  readonly address: number
  readonly mask: number
}

class Search {
  readonly #roster: Roster
  readonly #constraints: PathConstraints
  readonly #hops: number
  readonly #rng: Rng
  readonly #sameNetwork: boolean
  readonly #excluded: ReadonlySet<NodeId>
  readonly #excludedNetworks: readonly Network[]
  /** By number of an exit policy: does it let the destination through? */
  readonly #allowing = new Map<number, boolean>()
  /** By position. */
  readonly #taken = new Map<number, number>()
  /** Only looked at when a draw barred the way. */
  #neighbourhoods: Neighbourhoods | undefined
  #patience = PATIENCE
  /** The position that nobody was found for, when the first draw failed. */
  #short: number | undefined

  constructor(roster: Roster, constraints: PathConstraints, hops: number, rng: Rng) {
    this.#roster = roster
    this.#constraints = constraints
    this.#hops = hops
    this.#rng = rng
    this.#sameNetwork = constraints.sameNetwork === true
    this.#excluded = new Set(constraints.exclude)
    this.#excludedNetworks = (constraints.excludeNetworks ?? []).map(({ address, length }) => ({
      address: ipToUint32(address),
      mask: maskOf(length),
    }))
  }

  get path(): ConsensusNode[] {
    return [...this.#taken].sort(([a], [b]) => a - b).map(([, index]) => this.#roster.nodes[index]!)
  }

  take(index: number, position: number): void {
    this.#taken.set(position, index)
  }

  /** Takes nodes for all of these positions, in this order. False: there is no way to. */
  fill(positions: readonly number[]): boolean {
    const [position, ...later] = positions
    if (position === undefined) return true
    const place = this.#placeAt(position)
    const barring = new Set<number>()
    for (; this.#patience > 0; this.#patience--) {
      const index = this.#roster.draw(
        place,
        this.#rng,
        (candidate) =>
          !barring.has(candidate) &&
          this.#fits(candidate, place) &&
          (this.#neighbourhoods?.leaveEnough(
            candidate,
            later.map((p) => BIT[this.#placeAt(p)]),
          ) ??
            true),
      )
      if (index === undefined) break
      this.#taken.set(position, index)
      this.#neighbourhoods?.leave(index)
      if (this.fill(later)) return true
      this.#neighbourhoods?.comeBack(index)
      this.#taken.delete(position)
      barring.add(index)
      this.#neighbourhoods ??= this.#lookAround()
    }
    this.#short ??= position
    return false
  }

  /** Why a pinned node cannot stand there, or undefined. */
  refusalOf(index: number, position: number): string | undefined {
    const node = this.#roster.nodes[index]!
    if (this.#isExcluded(index)) return `${node.name} is excluded`
    const missing = rolesAt(position, this.#hops).find((role) => !node.roles.includes(role))
    if (missing !== undefined) return `${node.name} does not serve as ${missing}`
    if (position === this.#hops - 1 && !this.#allowsDestination(index))
      return `the exit policy of ${node.name} refuses the destination`
    for (const taken of this.#taken.values()) {
      const other = this.#roster.nodes[taken]!
      if (taken === index) return `${node.name} stands twice in the path`
      if (this.#roster.conflict(taken, index, true)) return `${other.name} and ${node.name} are of one family`
      if (this.#roster.conflict(taken, index, this.#sameNetwork))
        return `${other.name} and ${node.name} are in one /16 network`
    }
    return undefined
  }

  /** For people: what was looked for, among how many. */
  shortage(pinned: number): string {
    const { nodes } = this.#roster
    const position = this.#short ?? this.#hops - 1
    const serving = nodes.filter((_, index) => this.#serves(index, this.#placeAt(position))).length
    const role = rolesAt(position, this.#hops).join(' and ')
    const networks = this.#sameNetwork ? '' : ' in different /16 networks'
    return (
      `no ${role} for a path of ${this.#hops} hops${networks}` +
      ` (${nodes.length} nodes listed, ${serving} can be ${role}, ${pinned} pinned)`
    )
  }

  /** With one hop the only place is the exit's, and `#serves` asks for the entry role as well. */
  #placeAt(position: number): Place {
    return position === this.#hops - 1 ? 'exit' : position === 0 ? 'entry' : 'middle'
  }

  #fits(index: number, place: Place): boolean {
    for (const taken of this.#taken.values())
      if (this.#roster.conflict(taken, index, this.#sameNetwork)) return false
    return this.#serves(index, place)
  }

  #serves(index: number, place: Place): boolean {
    const places = this.#roster.places[index]!
    if ((places & BIT[place]) === 0 || this.#isExcluded(index)) return false
    if (place !== 'exit') return true
    return (this.#hops > 1 || (places & BIT.entry) !== 0) && this.#allowsDestination(index)
  }

  #isExcluded(index: number): boolean {
    const { nodeId, address } = this.#roster.nodes[index]!
    if (this.#excluded.size > 0 && this.#excluded.has(nodeId)) return true
    if (this.#excludedNetworks.length === 0) return false
    const value = ipToUint32(address)
    return this.#excludedNetworks.some((network) => ((value ^ network.address) & network.mask) === 0)
  }

  #allowsDestination(index: number): boolean {
    const { destination } = this.#constraints
    if (destination === undefined) return true
    const policy = this.#roster.policyOf[index]!
    const known = this.#allowing.get(policy)
    if (known !== undefined) return known
    const { address, protocol, port } = destination
    const query = { destination: address, protocol, ...(port === undefined ? {} : { port }) }
    const allows = exitAllows(this.#roster.policies[policy]!, query)
    this.#allowing.set(policy, allows)
    return allows
  }

  #lookAround(): Neighbourhoods {
    const { nodes, networks } = this.#roster
    const found = new Neighbourhoods(nodes.length, (index) => (this.#sameNetwork ? index : networks[index]!))
    for (let index = 0; index < nodes.length; index++)
      for (const place of ['entry', 'middle', 'exit'] as const)
        if (this.#serves(index, place)) found.add(index, BIT[place])
    for (const index of this.#taken.values()) found.leave(index)
    return found
  }
}

/**
 * The networks that no member of the path is in yet, by the positions that their nodes could take. It tells without
 * trying whether a path is still possible, as far as networks matter; families are rare enough to be tried.
 */
class Neighbourhoods {
  readonly #networkOf: (index: number) => number
  readonly #masks: Uint8Array
  readonly #counts: number[] = new Array(MASKS).fill(0)

  constructor(nodes: number, networkOf: (index: number) => number) {
    this.#networkOf = networkOf
    this.#masks = new Uint8Array(Math.max(nodes, 1 << 16))
  }

  add(index: number, bit: number): void {
    const network = this.#networkOf(index)
    const before = this.#masks[network]!
    if ((before & bit) !== 0) return
    this.#masks[network] = before | bit
    if (before !== 0) this.#count(before, -1)
    this.#count(before | bit, 1)
  }

  leave(index: number): void {
    this.#count(this.#maskOf(index), -1)
  }

  comeBack(index: number): void {
    this.#count(this.#maskOf(index), 1)
  }

  /**
   * Can places of these bits be filled from distinct networks when the one of `index` is gone? Hall's marriage theorem:
   * yes if and only if every set of kinds of places has at least as many networks that serve one of them as it has
   * places.
   */
  leaveEnough(index: number, bits: readonly number[]): boolean {
    const used = this.#maskOf(index)
    for (let kinds = 1; kinds < MASKS; kinds++) {
      const demand = bits.filter((bit) => (bit & kinds) !== 0).length
      if (demand === 0) continue
      let supply = (used & kinds) !== 0 ? -1 : 0
      for (let mask = 1; mask < MASKS; mask++) if ((mask & kinds) !== 0) supply += this.#counts[mask]!
      if (supply < demand) return false
    }
    return true
  }

  #maskOf(index: number): number {
    return this.#masks[this.#networkOf(index)]!
  }

  #count(mask: number, change: number): void {
    this.#counts[mask] = this.#counts[mask]! + change
  }
}

/** Pinned positions, in order. */
function resolvePins(
  roster: Roster,
  { path, entry, exit }: PathConstraints,
  hops: number,
): Result<Map<number, number>> {
  if (path !== undefined && path.length !== hops)
    return none(`the path names ${path.length} nodes, but ${hops} hops are wanted`)
  const wanted: [number, string][] = [...(path ?? []).entries()]
  if (entry !== undefined) wanted.push([0, entry])
  if (exit !== undefined) wanted.push([hops - 1, exit])
  const pins = new Map<number, number>()
  for (const [position, text] of wanted) {
    const index = roster.find(text)
    if (index === undefined)
      return failure(
        'IPP_PATH_UNKNOWN_NODE',
        `${JSON.stringify(text.slice(0, 64))} is not among the ${roster.nodes.length} nodes of the consensus`,
      )
    const other = pins.get(position)
    if (other !== undefined && other !== index)
      return none(
        `${roster.nodes[other]!.name} and ${roster.nodes[index]!.name} are both wanted at hop ${position + 1}`,
      )
    pins.set(position, index)
  }
  return success(pins)
}

const none = (where: string): Failure => failure('IPP_PATH_NONE', where)
