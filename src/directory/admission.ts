/**
 * Whether a verified descriptor may be stored, and which stored ones are listed. Pure: the records, the
 * candidate and the time are arguments.
 */
import type { NodeId } from '#base/ids'
import { contains, formatPrefix, type Ip, type Prefix } from '#base/ip'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import { formatMoment, VALID_PERIODS } from '#directory/consensus'
import type { SignedDescriptor } from '#directory/descriptor'
import { CLOCK_TOLERANCE, type NodeDescriptor } from '#directory/documents'
import { freePool, type PoolPlan } from '#directory/pools'
import { isOutdated } from '#directory/version'

/** What is known of every node, listed or not. */
export interface KnownNode extends SignedDescriptor {
  /** When the node was first stored: the elder of two keeps a contested name. */
  readonly since: UnixTime
}

/** What a directory that decides alone keeps about a node. */
export interface NodeRecord extends KnownNode {
  /** Sticky: it stays with the node as long as the record lives. */
  readonly pool: Prefix
}

export type NodeRecords = ReadonlyMap<NodeId, NodeRecord>

export interface AdmissionTerms {
  readonly now: UnixTime
  /** Seconds. */
  readonly period: number
  readonly plan: PoolPlan
  /** Where the upload came from. Undefined: it does not matter. */
  readonly source?: Ip
  /** The oldest version that the network takes. Undefined: any. */
  readonly minimum?: string
}

/** A node not heard from for this many periods is not listed any more. */
export const STALE_PERIODS = 3

/**
 * A record outlives its last descriptor by this many seconds at most. Only then is its pool lent to another node: no
 * document that names the old owner is valid by then, nor any circuit that was built with it alive.
 */
export const RECORD_RETENTION = 30 * 24 * 3600

/** Nodes of one /24 that may be alive at a time: whoever rents a network does not get the directory with it. */
export const MAX_PER_NETWORK = 8

/** The same with those that fell silent and whose pools are not free yet, so that new identities do not help either. */
export const MAX_KEPT_PER_NETWORK = 4 * MAX_PER_NETWORK

/**
 * Takes a descriptor in, with a pool for a newcomer. `known`: these very bytes are stored already; nothing is to be
 * done. Errors: those of `judgeDescriptor`, and IPP_DIR_POOL when there is none left.
 */
export function admitDescriptor(
  candidate: SignedDescriptor,
  records: NodeRecords,
  terms: AdmissionTerms,
): Result<{ readonly known: boolean; readonly record: NodeRecord }> {
  const judged = judgeDescriptor(candidate, records, terms)
  if (!judged.ok) return judged
  const { descriptor, text } = candidate
  const previous = records.get(descriptor.nodeId)
  if (previous !== undefined && judged.value.known) return success({ known: true, record: previous })
  const { now, plan } = terms
  const pool = previous?.pool ?? freePool(plan, poolsOf(records))
  if (pool === undefined)
    return failure('IPP_DIR_POOL', `descriptor: ${formatPrefix(plan.space)} has no free pool left`)
  return success({ known: false, record: { descriptor, text, pool, since: previous?.since ?? now } })
}

/**
 * May it be stored? Errors: IPP_DIR_SOURCE (it came from elsewhere), IPP_DIR_OUTDATED (its software), IPP_DIR_EXPIRED
 * (too old, or from the future), IPP_DIR_REPLAYED, IPP_DIR_CONFLICT, IPP_DIR_CROWDED, IPP_DIR_POOL (its address is inside the pool space).
 */
export function judgeDescriptor(
  { descriptor, text }: SignedDescriptor,
  records: ReadonlyMap<NodeId, KnownNode>,
  { now, period, plan, source, minimum }: AdmissionTerms,
): Result<{ readonly known: boolean }> {
  // TCP has shown that the sender can be reached there: addresses cannot be made up.
  if (source !== undefined && source !== descriptor.address)
    return failure('IPP_DIR_SOURCE', 'descriptor: it must be uploaded from the address it names')
  if (isOutdated(descriptor.software, minimum))
    return failure('IPP_DIR_OUTDATED', `descriptor: ${descriptor.software}, and ippriv ${minimum} is needed`)
  if (descriptor.published > now + CLOCK_TOLERANCE)
    return failure('IPP_DIR_EXPIRED', `descriptor: published in the future, ${published(descriptor)}`)
  if (now >= staleAt(descriptor, period))
    return failure('IPP_DIR_EXPIRED', `descriptor: published too long ago, ${published(descriptor)}`)
  const previous = records.get(descriptor.nodeId)
  if (previous?.text === text) return success({ known: true })
  if (previous !== undefined && descriptor.published <= previous.descriptor.published)
    return failure(
      'IPP_DIR_REPLAYED',
      `descriptor: one published ${published(previous.descriptor)} is stored`,
    )
  if (contains(plan.space, descriptor.address))
    return failure('IPP_DIR_POOL', `descriptor: its address is inside ${formatPrefix(plan.space)}`)
  // Who is here may stay, as long as it stays where it is.
  const arrives = previous === undefined || !sameNetwork(previous.descriptor, descriptor)
  let kept = 0
  let alive = 0
  for (const other of records.values()) {
    if (other.descriptor.nodeId === descriptor.nodeId) continue
    const stale = now >= staleAt(other.descriptor, period)
    if (arrives && sameNetwork(other.descriptor, descriptor)) {
      kept++
      if (!stale) alive++
    }
    if (stale) continue
    if (other.descriptor.name === descriptor.name)
      return failure('IPP_DIR_CONFLICT', `descriptor: the name ${descriptor.name} is taken`)
    if (other.descriptor.address === descriptor.address)
      return failure('IPP_DIR_CONFLICT', `descriptor: the address ${descriptor.address} is taken`)
  }
  if (alive >= MAX_PER_NETWORK || kept >= MAX_KEPT_PER_NETWORK)
    return failure('IPP_DIR_CROWDED', 'descriptor: there are enough nodes in its /24')
  return success({ known: false })
}

/** The nodes of the next document: alive, and where two contest a name or address, the elder. */
export function listedNodes<Node extends KnownNode>(
  records: ReadonlyMap<NodeId, Node>,
  now: UnixTime,
  period: number,
): Node[] {
  const elderFirst = [...records.values()]
    .filter(({ descriptor }) => now < staleAt(descriptor, period))
    .sort((a, b) => a.since - b.since || (a.descriptor.nodeId < b.descriptor.nodeId ? -1 : 1))
  const held = new Set<string>()
  return elderFirst.filter(({ descriptor: { name, address } }) => {
    if (held.has(name) || held.has(address)) return false
    held.add(name).add(address)
    return true
  })
}

/** Records that nobody needs any more. */
export const outlivedNodes = (
  records: ReadonlyMap<NodeId, KnownNode>,
  now: UnixTime,
  period: number,
): NodeId[] =>
  [...records.values()]
    .filter((record) => now >= staleAt(record.descriptor, period) + retention(record, period))
    .map(({ descriptor }) => descriptor.nodeId)

/** From this second on the node is not listed, unless it publishes again. */
export const staleAt = (descriptor: NodeDescriptor, period: number): UnixTime =>
  (descriptor.published + STALE_PERIODS * period) as UnixTime

/**
 * As long as the node was known, so that passers-by do not hold pools; never shorter than the last document that lists
 * it is valid.
 */
const retention = ({ descriptor, since }: KnownNode, period: number): number =>
  Math.max(Math.min(RECORD_RETENTION, descriptor.published - since), (VALID_PERIODS + 1) * period)

const sameNetwork = (a: NodeDescriptor, b: NodeDescriptor): boolean => networkOf(a) === networkOf(b)

/** The /24. */
const networkOf = ({ address }: NodeDescriptor): string => address.slice(0, address.lastIndexOf('.'))

const published = (descriptor: NodeDescriptor): string => formatMoment(descriptor.published)

function* poolsOf(records: NodeRecords): Generator<Prefix> {
  for (const { pool } of records.values()) yield pool
}
