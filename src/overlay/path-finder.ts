/**
 * Which way the next circuit of a client goes: by one of its entry guards, and around nodes that failed lately.
 * `path.ts` knows what a path must be; here is what experience says.
 */
import type { ErrorCode } from '#base/errors'
import type { NodeId } from '#base/ids'
import { contains, type Prefix } from '#base/ip'
import { failure } from '#base/result'
import type { Rng } from '#base/rng'
import { after, type Duration, type Instant, SECOND } from '#base/time'
import type { Consensus } from '#directory/documents'
import { EntryGuards, type SampledGuard } from '#overlay/entry-guards'
import { choosePath, type Destination, type PathConstraints } from '#overlay/path'
import { Roster } from '#overlay/roster'
import type { Hop, Telescope } from '#telescope/telescope'

/** What the user decided once for all paths. */
export interface PathTaste {
  /** Name or node id of the last hop. */
  readonly exit?: string
  /** Names and node ids of nodes that are never used. Those that are not listed do not matter. */
  readonly exclude?: readonly string[]
  readonly excludeNetworks?: readonly Prefix[]
  /** Allow two nodes of one /16: for test networks only. */
  readonly sameNetwork?: boolean
}

export interface PathFinderOptions extends PathTaste {
  readonly rng: Rng
  readonly guards?: readonly SampledGuard[]
}

export interface PathWish {
  readonly hops: number
  /** What for. */
  readonly destination?: Destination | undefined
  /** Names of all nodes, for one who insists. */
  readonly path?: readonly string[] | undefined
  /** The entry in use, which every circuit shares. */
  readonly entry?: NodeId | undefined
  /** Of another circuit, which this one is to outlive: not these, if others are left. */
  readonly apart?: readonly NodeId[] | undefined
}

export interface AvoidedNode {
  readonly name: string
  readonly reason: ErrorCode
  readonly until: Instant
}

type Chosen = ReturnType<typeof choosePath>

/** A node that failed is not chosen again for this long, if others are left. */
const AVOID: Duration = 120 * SECOND

export class PathFinder {
  readonly #options: PathFinderOptions
  readonly #guards: EntryGuards
  readonly #avoid = new Map<NodeId, AvoidedNode>()
  #roster: Roster | undefined

  constructor(options: PathFinderOptions) {
    this.#options = options
    this.#guards = new EntryGuards(options.guards ?? [], options.rng)
  }

  /** To be kept; another value whenever something changed. */
  get sampled(): readonly SampledGuard[] {
    return this.#guards.sampled
  }

  /**
   * By the entry in use or, if there is none, by the first guard that leaves a path, unless a path is insisted on.
   * Errors: those of `choosePath`.
   */
  choose(consensus: Consensus, wish: PathWish, now: Instant): Chosen {
    const roster = this.#rosterOf(consensus)
    for (const [node, { until }] of this.#avoid) if (until <= now) this.#avoid.delete(node)
    if (wish.path !== undefined || wish.entry !== undefined) return this.#chooseBy(wish.entry, roster, wish)
    const unwanted = new Set(this.#unwanted(roster))
    const { excludeNetworks = [] } = this.#options
    const allowed = (index: number): boolean => {
      const { nodeId, address } = roster.nodes[index]!
      return !unwanted.has(nodeId) && !excludeNetworks.some((network) => contains(network, address))
    }
    for (const guard of this.#guards.candidates(roster, now, allowed)) {
      const chosen = this.#chooseBy(guard, roster, wish)
      if (chosen.ok) return chosen
    }
    const free = this.#chooseBy(undefined, roster, wish)
    if (!free.ok || this.#guards.adopt(free.value[0]!.nodeId)) return free
    return failure('IPP_PATH_NONE', 'no path begins at any of the entry guards')
  }

  /** Made once for every document: later paths cost next to nothing. */
  #rosterOf(consensus: Consensus): Roster {
    if (this.#roster?.consensus !== consensus) this.#roster = new Roster(consensus)
    return this.#roster
  }

  /** Its first hop stands. */
  entered(telescope: Telescope): void {
    this.#guards.succeeded(entryOf(telescope))
  }

  /** It is whole. */
  opened(telescope: Telescope): void {
    this.#guards.fruitful(entryOf(telescope))
  }

  /** A hop (from 1) of it is gone, or never came; the telescope is as it was before. */
  lost(telescope: Telescope, hop: number, reason: ErrorCode, now: Instant): void {
    if (hop === 1) this.#guards.failed(entryOf(telescope), now)
    else if (telescope.state === 'building') this.#guards.fruitless(entryOf(telescope), now)
    for (const { nodeId, name } of blamedFor(reason, telescope, hop))
      this.#avoid.set(nodeId as NodeId, { name, reason, until: after(now, AVOID) })
  }

  /** Who failed lately, and is not used while others are left: hops inside, and guards that rest. */
  avoided(now: Instant): readonly AvoidedNode[] {
    const nodes = [...this.#avoid.values()].filter(({ until }) => until > now)
    for (const { nodeId, until } of this.#guards.resting(now)) {
      const index = this.#roster?.find(nodeId)
      const name = index === undefined ? nodeId : this.#roster!.nodes[index]!.name
      nodes.push({ name, reason: 'IPP_IKE_TIMEOUT', until })
    }
    return nodes
  }

  /** Nodes whose names the user does not want to see. */
  #unwanted(roster: Roster): NodeId[] {
    const { exclude = [] } = this.#options
    return exclude.flatMap((name) => {
      const index = roster.find(name)
      return index === undefined ? [] : [roster.nodes[index]!.nodeId]
    })
  }

  #chooseBy(
    entry: NodeId | undefined,
    roster: Roster,
    { hops, path, destination, apart = [] }: PathWish,
  ): Chosen {
    const { rng, sameNetwork, exit, excludeNetworks } = this.#options
    const unwanted = this.#unwanted(roster)
    const common: PathConstraints = {
      hops,
      exclude: unwanted,
      ...(path ? { path } : exit ? { exit } : {}),
      ...(entry ? { entry } : {}),
      ...(destination ? { destination } : {}),
      ...(excludeNetworks ? { excludeNetworks } : {}),
      ...(sameNetwork ? { sameNetwork } : {}),
    }
    // What a node did further inside another circuit is no reason to enter elsewhere.
    const avoided = [...this.#avoid.keys()].filter((node) => node !== entry)
    // A small network may have nothing left: a node of the other circuit, or that failed once, is then better than none.
    for (const more of [[...avoided, ...apart], avoided]) {
      if (more.length === 0) continue
      const chosen = choosePath(roster, { ...common, exclude: [...unwanted, ...more] }, rng)
      if (chosen.ok) return chosen
    }
    return choosePath(roster, common, rng)
  }
}

/**
 * Whom to avoid when hop `hop` is gone; never the entry, for which `EntryGuards` counts. A hop that broke the protocol,
 * or said that it goes, is to blame itself; for the silence of an open circuit any of the hops up to there may be.
 */
function blamedFor(reason: ErrorCode, { hops, state }: Telescope, hop: number): readonly Hop[] {
  const silent = state === 'open' && reason === 'IPP_IKE_TIMEOUT'
  return hops.slice(silent ? 1 : Math.max(1, hop - 1), hop)
}

const entryOf = ({ hops }: Telescope): NodeId => hops[0]!.nodeId as NodeId
