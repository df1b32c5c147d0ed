/**
 * Which nodes a circuit goes through. Pure: the consensus, the constraints and the randomness are arguments.
 *
 * The exit is chosen first, because the destination constrains it most, then the entry, then the middles, each
 * uniformly among the nodes that leave the rest of the path possible. So no choice is ever taken back, and the
 * time is linear in the number of nodes.
 *
 * Nodes of one *neighbourhood* never share a path: normally all nodes of one /16, because one operator or one
 * wiretap often holds all of it; with `sameNetwork` each node is a neighbourhood of its own.
 */
import type { NodeId } from '#base/ids'
import { type Ip, ipToUint32 } from '#base/ip'
import { type Failure, failure, type Result, success } from '#base/result'
import { type Rng, uniform } from '#base/rng'
import type { Consensus, ConsensusNode, NodeRole } from '#directory/documents'
import { exitAllows } from '#nat/exit-policy'

export interface PathConstraints {
  /** 1..5. With `path` it may be left out; else 3. */
  readonly hops?: number
  /** The whole path, entry first: names or node ids. Roles and neighbourhoods are checked all the same. */
  readonly path?: readonly string[]
  /** Name or node id. */
  readonly entry?: string
  readonly exit?: string
  /** Never these. */
  readonly exclude?: readonly NodeId[]
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

export const MAX_HOPS = 5
export const DEFAULT_HOPS = 3

/**
 * A path from entry to exit. With one hop the node is entry and exit at once.
 * Errors: IPP_PATH_UNKNOWN_NODE (a pinned node is not listed), IPP_PATH_NONE (with the reason).
 */
export function choosePath(
  consensus: Consensus,
  constraints: PathConstraints,
  rng: Rng,
): Result<ConsensusNode[]> {
  const hops = constraints.hops ?? constraints.path?.length ?? DEFAULT_HOPS
  if (!Number.isInteger(hops) || hops < 1 || hops > MAX_HOPS)
    return none(`a path has 1 to ${MAX_HOPS} hops, not ${hops}`)
  const pins = resolvePins(consensus, constraints, hops)
  if (!pins.ok) return pins
  const search = new Search(consensus, constraints, hops)
  const path: (ConsensusNode | undefined)[] = new Array(hops).fill(undefined)
  // Pinned nodes take their places first, so that no free choice stands in their way.
  for (const [position, node] of pins.value) {
    const refusal = search.refusalOf(node, position)
    if (refusal !== undefined) return none(refusal)
    search.take(node)
    path[position] = node
  }
  const open = choiceOrder(hops).filter((position) => path[position] === undefined)
  for (const [i, position] of open.entries()) {
    const node = search.choose(position, open.slice(i + 1), rng)
    if (node === undefined) return none(search.shortage(position, pins.value.size))
    search.take(node)
    path[position] = node
  }
  return success(path.filter((node) => node !== undefined))
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

/** The three kinds of places, as bits: a neighbourhood is described by the places its nodes could take. */
type Place = 'entry' | 'middle' | 'exit'
const BIT: Readonly<Record<Place, number>> = { entry: 1, middle: 2, exit: 4 }
const MASKS = 8

class Search {
  readonly #nodes: readonly ConsensusNode[]
  readonly #hops: number
  readonly #constraints: PathConstraints
  readonly #excluded: ReadonlySet<NodeId>
  /** Neighbourhoods that no path member is in yet, with the places their nodes could take. */
  readonly #neighbourhoods = new Map<string | number, number>()
  readonly #taken = new Map<string | number, ConsensusNode>()

  constructor({ nodes }: Consensus, constraints: PathConstraints, hops: number) {
    this.#nodes = nodes
    this.#hops = hops
    this.#constraints = constraints
    this.#excluded = new Set(constraints.exclude)
    for (const node of nodes) {
      const key = this.#neighbourhoodOf(node)
      this.#neighbourhoods.set(key, (this.#neighbourhoods.get(key) ?? 0) | this.#placesOf(node))
    }
  }

  take(node: ConsensusNode): void {
    const key = this.#neighbourhoodOf(node)
    this.#neighbourhoods.delete(key)
    this.#taken.set(key, node)
  }

  /** Uniform among the nodes that fit and leave enough for the `later` positions. */
  choose(position: number, later: readonly number[], rng: Rng): ConsensusNode | undefined {
    const bit = BIT[this.#placeAt(position)]
    const counts = this.#countMasks()
    const feasible = new Map<number, boolean>()
    const candidates = this.#nodes.filter((node) => {
      const mask = this.#neighbourhoods.get(this.#neighbourhoodOf(node))
      if (mask === undefined || (this.#placesOf(node) & bit) === 0) return false
      let possible = feasible.get(mask)
      if (possible === undefined) {
        possible = this.#enough(counts, mask, later)
        feasible.set(mask, possible)
      }
      return possible
    })
    return candidates.length === 0 ? undefined : candidates[uniform(rng, candidates.length)]
  }

  /** Why a pinned node cannot stand there, or undefined. */
  refusalOf(node: ConsensusNode, position: number): string | undefined {
    if (this.#excluded.has(node.nodeId)) return `${node.name} is excluded`
    const missing = rolesAt(position, this.#hops).find((role) => !node.roles.includes(role))
    if (missing !== undefined) return `${node.name} does not serve as ${missing}`
    if ((this.#placesOf(node) & BIT[this.#placeAt(position)]) === 0)
      return `the exit policy of ${node.name} refuses the destination`
    const other = this.#taken.get(this.#neighbourhoodOf(node))
    if (other === undefined) return undefined
    return other.nodeId === node.nodeId
      ? `${node.name} stands twice in the path`
      : `${other.name} and ${node.name} are in one /16 network`
  }

  /** For people: what was looked for, among how many. */
  shortage(position: number, pinned: number): string {
    const serving = this.#nodes.filter((n) => (this.#placesOf(n) & BIT[this.#placeAt(position)]) !== 0).length
    const role = rolesAt(position, this.#hops).join(' and ')
    const networks = this.#constraints.sameNetwork === true ? '' : ' in different /16 networks'
    return (
      `no ${role} for a path of ${this.#hops} hops${networks}` +
      ` (${this.#nodes.length} nodes listed, ${serving} can be ${role}, ${pinned} pinned)`
    )
  }

  /** With one hop the only place is the exit's, and `#placesOf` asks for the entry role as well. */
  #placeAt(position: number): Place {
    return position === this.#hops - 1 ? 'exit' : position === 0 ? 'entry' : 'middle'
  }

  #placesOf(node: ConsensusNode): number {
    if (this.#excluded.has(node.nodeId)) return 0
    let places = 0
    if (node.roles.includes('entry')) places |= BIT.entry
    if (node.roles.includes('middle')) places |= BIT.middle
    if (this.#servesAsExit(node)) places |= BIT.exit
    return places
  }

  #servesAsExit(node: ConsensusNode): boolean {
    if (!node.roles.includes('exit') || (this.#hops === 1 && !node.roles.includes('entry'))) return false
    const { destination } = this.#constraints
    if (destination === undefined) return true
    const { address, protocol, port } = destination
    return exitAllows(node.exitPolicy, {
      destination: address,
      protocol,
      ...(port === undefined ? {} : { port }),
    })
  }

  #neighbourhoodOf(node: ConsensusNode): string | number {
    return this.#constraints.sameNetwork === true ? node.nodeId : ipToUint32(node.address) >>> 16
  }

  /** How many untaken neighbourhoods there are of each mask. */
  #countMasks(): readonly number[] {
    const counts: number[] = new Array(MASKS).fill(0)
    for (const mask of this.#neighbourhoods.values()) counts[mask] = counts[mask]! + 1
    return counts
  }

  /**
   * Can the `later` positions be filled from distinct neighbourhoods when one of mask `used` is gone? Hall's
   * marriage theorem: yes if and only if every set of kinds of places has at least as many neighbourhoods that
   * serve one of them as it has places.
   */
  #enough(counts: readonly number[], used: number, later: readonly number[]): boolean {
    const places = later.map((position) => BIT[this.#placeAt(position)])
    for (let kinds = 1; kinds < MASKS; kinds++) {
      const demand = places.filter((bit) => (bit & kinds) !== 0).length
      if (demand === 0) continue
      let supply = (used & kinds) !== 0 ? -1 : 0
      for (let mask = 1; mask < MASKS; mask++) if ((mask & kinds) !== 0) supply += counts[mask]!
      if (supply < demand) return false
    }
    return true
  }
}

/** Pinned positions, in order. */
function resolvePins(
  { nodes }: Consensus,
  { path, entry, exit }: PathConstraints,
  hops: number,
): Result<Map<number, ConsensusNode>> {
  if (path !== undefined && path.length !== hops)
    return none(`the path names ${path.length} nodes, but ${hops} hops are wanted`)
  const wanted: [number, string][] = [...(path ?? []).entries()]
  if (entry !== undefined) wanted.push([0, entry])
  if (exit !== undefined) wanted.push([hops - 1, exit])
  const pins = new Map<number, ConsensusNode>()
  for (const [position, text] of wanted) {
    // Node ids are longer than any name.
    const node = nodes.find(({ name, nodeId }) => name === text || nodeId === text)
    if (node === undefined)
      return failure(
        'IPP_PATH_UNKNOWN_NODE',
        `${JSON.stringify(text.slice(0, 64))} is not among the ${nodes.length} nodes of the consensus`,
      )
    const other = pins.get(position)
    if (other !== undefined && other.nodeId !== node.nodeId)
      return none(`${other.name} and ${node.name} are both wanted at hop ${position + 1}`)
    pins.set(position, node)
  }
  return success(pins)
}

const none = (where: string): Failure => failure('IPP_PATH_NONE', where)
