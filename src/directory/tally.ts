/**
 * The consensus as a function of the votes of a period: the same set gives the same letters, in whatever order it
 * came. Pure; it looks at no clock and at no earlier document.
 *
 * - Counted are the votes of pinned authors, of whom exactly one vote exists. Two different votes of one author
 *   cancel each other, or two halves of the authorities could be shown two truths.
 * - A node is listed when more than half of all authorities, dead ones included, vote for it as running and valid. It has
 *   every other flag that as many give it.
 * - Its bandwidth is the median of what at least three measurers found (`measurement.ts`), and never what it says itself.
 * - Parameters are the median of the votes, or what more than half of them name. The least version is what more than half of all
 *   authorities demand, and older nodes are not listed.
 * - Its descriptor is the newest of which more than half of them have that or a newer one: no single authority can
 *   hold a node back at old words, or rush ahead with new ones.
 * - It keeps the pool that more than half of those who vote for it say it has. Newcomers, by order of their ids, get the lowest slots
 *   that nobody has and that are not reserved by most of the counted votes. So no two nodes can have one pool.
 * - Of two with one name or address, the one that most authorities have known for longer stays.
 */
import { toHex } from '#base/bytes'
import type { NodeId } from '#base/ids'
import { contains, type Prefix } from '#base/ip'
import type { ConsensusDraft, ListedNode } from '#directory/consensus'
import { NODE_FLAGS } from '#directory/flags'
import { agreedBandwidth } from '#directory/measurement'
import { agreeOn } from '#directory/parameters'
import { freePools } from '#directory/pools'
import { isOutdated } from '#directory/version'
import { startOf, type Vote, type VotedNode, type VoteTerms } from '#directory/vote'

/** Why a vote is not counted. */
export type VoteAlarm = 'equivocation' | 'other-period'

export interface Ballot {
  /** One per author, in the order of their keys. */
  readonly counted: readonly Vote[]
  /** By author, in hex. */
  readonly alarms: ReadonlyMap<string, VoteAlarm>
}

/** Sorts out what does not count. `votes` were decoded, and came in time. */
export function sortVotes(votes: Iterable<Vote>, period: number): Ballot {
  const byAuthor = new Map<string, Vote>()
  const alarms = new Map<string, VoteAlarm>()
  for (const vote of votes) {
    const author = toHex(vote.author)
    const other = byAuthor.get(author)
    if (vote.period !== period) {
      if (!alarms.has(author)) alarms.set(author, 'other-period')
    } else if (other === undefined) byAuthor.set(author, vote)
    else if (other.digest !== vote.digest) alarms.set(author, 'equivocation')
  }
  const counted = [...byAuthor]
    .filter(([author]) => alarms.get(author) !== 'equivocation')
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, vote]) => vote)
  return { counted, alarms }
}

/** `counted`: of `sortVotes`. `authorities`: how many there are, whether they voted or not. */
export function tallyVotes(
  counted: readonly Vote[],
  authorities: number,
  period: number,
  { length, plan }: VoteTerms,
): ConsensusDraft {
  const majority = Math.floor(authorities / 2) + 1
  const parameters = agreeOn(
    counted.map((vote) => vote.parameters),
    majority,
  )
  const elected: ElectedNode[] = []
  for (const votes of votesByNode(counted).values()) {
    if (votes.length < majority) continue
    const node = electNode(votes, majority)
    if (isOutdated(node.descriptor.software, parameters?.minimum)) continue
    if (node.flags.includes('running') && node.flags.includes('valid')) elected.push(node)
  }
  const chosen = uncontested(elected).filter(({ descriptor }) => !contains(plan.space, descriptor.address))

  const taken = new Map<string, Prefix>()
  for (const pool of reservedPools(counted)) taken.set(pool.address, pool)
  for (const { pool } of chosen) if (pool !== undefined) taken.set(pool.address, pool)
  const newcomers = chosen.filter(({ pool }) => pool === undefined).sort(byId)
  // Where the space is used up, the last in the line have to wait.
  const free = freePools(plan, taken.values(), newcomers.length)
  const nodes: ListedNode[] = []
  for (const node of chosen) if (node.pool !== undefined) nodes.push(listed(node, node.pool))
  for (const [i, node] of newcomers.entries()) {
    const pool = free[i]
    if (pool !== undefined) nodes.push(listed(node, pool))
  }
  return {
    serial: period,
    validAfter: startOf(period, length),
    period: length,
    poolSpace: plan.space,
    ...(parameters === undefined ? {} : { parameters }),
    nodes,
  }
}

/** What comes out of the votes for one node. */
interface ElectedNode extends VotedNode {
  readonly bandwidth: number | undefined
}

const listed = ({ descriptor, text, flags, bandwidth }: ElectedNode, pool: Prefix): ListedNode => ({
  descriptor,
  text,
  pool,
  flags,
  ...(bandwidth === undefined ? {} : { bandwidth }),
})

function votesByNode(counted: readonly Vote[]): Map<NodeId, VotedNode[]> {
  const byNode = new Map<NodeId, VotedNode[]>()
  for (const { nodes } of counted)
    for (const node of nodes) {
      const { nodeId } = node.descriptor
      const votes = byNode.get(nodeId)
      if (votes === undefined) byNode.set(nodeId, [node])
      else votes.push(node)
    }
  return byNode
}

/** At least `majority` votes for one node. */
function electNode(votes: readonly VotedNode[], majority: number): ElectedNode {
  const newestFirst = votes.toSorted(
    (a, b) =>
      b.descriptor.published - a.descriptor.published || (a.text < b.text ? -1 : a.text > b.text ? 1 : 0),
  )
  const { descriptor, text } = newestFirst[majority - 1]!
  // Known for at least so long to a majority.
  const since = votes.map((vote) => vote.since).sort((a, b) => a - b)[majority - 1]!
  const claims = new Map<string, { pool: Prefix; count: number }>()
  for (const { pool } of votes) {
    if (pool === undefined) continue
    const claim = claims.get(pool.address) ?? { pool, count: 0 }
    claims.set(pool.address, { pool, count: claim.count + 1 })
  }
  const pool = [...claims.values()].find(({ count }) => count > votes.length / 2)?.pool
  const flags = NODE_FLAGS.filter(
    (flag) => votes.filter((vote) => vote.flags.includes(flag)).length >= majority,
  )
  const figures = votes.map(({ measured }) => measured).filter((figure) => figure !== undefined)
  return { descriptor, text, since, pool, flags, bandwidth: agreedBandwidth(figures, descriptor) }
}

/**
 * The elder keeps a contested name or address; of two of one age, the one with the lower id. It keeps a contested
 * pool too: then the other is a newcomer again.
 */
function uncontested(elected: readonly ElectedNode[]): ElectedNode[] {
  const held = new Set<string>()
  const lent = new Set<string>()
  const chosen: ElectedNode[] = []
  for (const node of elected.toSorted((a, b) => a.since - b.since || byId(a, b))) {
    const { name, address } = node.descriptor
    if (held.has(name) || held.has(address)) continue
    held.add(name).add(address)
    const contested = node.pool !== undefined && lent.has(node.pool.address)
    if (node.pool !== undefined) lent.add(node.pool.address)
    chosen.push(contested ? { ...node, pool: undefined } : node)
  }
  return chosen
}

/** Of more than half of the counted votes: one author alone cannot take all slots away from newcomers. */
function reservedPools(counted: readonly Vote[]): Prefix[] {
  const claims = new Map<string, { pool: Prefix; count: number }>()
  for (const { nodes, reserved } of counted)
    for (const pool of [...nodes.map((node) => node.pool), ...reserved]) {
      if (pool === undefined) continue
      const claim = claims.get(pool.address)
      if (claim === undefined) claims.set(pool.address, { pool, count: 1 })
      else claim.count++
    }
  return [...claims.values()].filter(({ count }) => count > counted.length / 2).map(({ pool }) => pool)
}

const byId = (a: VotedNode, b: VotedNode): number => (a.descriptor.nodeId < b.descriptor.nodeId ? -1 : 1)
