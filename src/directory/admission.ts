/**
 * Whether a verified descriptor may be stored, and which stored ones are listed. Pure: the records, the
 * candidate and the time are arguments.
 */
import type { NodeId } from '#base/ids'
import { contains, formatPrefix, type Prefix } from '#base/ip'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import { CLOCK_TOLERANCE, formatMoment, VALID_PERIODS } from '#directory/consensus'
import type { SignedDescriptor } from '#directory/descriptor'
import type { NodeDescriptor } from '#directory/documents'
import { freePool, type PoolPlan } from '#directory/pools'

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
}

/** A node not heard from for this many periods is not listed any more. */
export const STALE_PERIODS = 3

/**
 * A record outlives its last descriptor by this many seconds. Only then is its pool lent to another node: no
 * document that names the old owner is valid by then, nor any circuit that was built with it alive.
 */
export const RECORD_RETENTION = 30 * 24 * 3600

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
 * May it be stored? Errors: IPP_DIR_EXPIRED (too old, or from the future), IPP_DIR_REPLAYED, IPP_DIR_CONFLICT,
 * IPP_DIR_POOL (its address is inside the pool space).
 */
export function judgeDescriptor(
  { descriptor, text }: SignedDescriptor,
  records: ReadonlyMap<NodeId, KnownNode>,
  { now, period, plan }: AdmissionTerms,
): Result<{ readonly known: boolean }> {
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
  for (const other of records.values()) {
    if (other.descriptor.nodeId === descriptor.nodeId || now >= staleAt(other.descriptor, period)) continue
    if (other.descriptor.name === descriptor.name)
      return failure('IPP_DIR_CONFLICT', `descriptor: the name ${descriptor.name} is taken`)
    if (other.descriptor.address === descriptor.address)
      return failure('IPP_DIR_CONFLICT', `descriptor: the address ${descriptor.address} is taken`)
  }
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
    .filter(({ descriptor }) => now >= staleAt(descriptor, period) + retention(period))
    .map(({ descriptor }) => descriptor.nodeId)

/** From this second on the node is not listed, unless it publishes again. */
export const staleAt = (descriptor: NodeDescriptor, period: number): UnixTime =>
  (descriptor.published + STALE_PERIODS * period) as UnixTime

/** Never shorter than the last document that lists the node is valid. */
const retention = (period: number): number => Math.max(RECORD_RETENTION, VALID_PERIODS * period)

const published = (descriptor: NodeDescriptor): string => formatMoment(descriptor.published)

function* poolsOf(records: NodeRecords): Generator<Prefix> {
  for (const { pool } of records.values()) yield pool
}
