/** What an authority says in its vote, from what it knows. Pure. */
import type { NodeId } from '#base/ids'
import type { Prefix } from '#base/ip'
import type { UnixTime } from '#base/time'
import { listedNodes } from '#directory/admission'
import type { AuthorityRecord } from '#directory/authority-events'
import type { SignedDescriptor } from '#directory/descriptor'
import type { Consensus, NetworkParameters } from '#directory/documents'
import { steadyFigure } from '#directory/measurement'
import { flagsOf, isRunning } from '#directory/standing'
import { startOf, type VoteDraft, type VotedNode } from '#directory/vote'
import { steadyWords } from '#directory/words'

export interface BallotTerms {
  readonly now: UnixTime
  readonly period: number
  /** Seconds. */
  readonly length: number
  /** The last one. */
  readonly document: Consensus | undefined
  /** What it says of each node. */
  readonly words: ReadonlyMap<NodeId, SignedDescriptor>
  readonly parameters: NetworkParameters
}

/** Seconds for which a figure of our measurer is voted for: nodes are not measured every hour. */
export const MEASURED_FOR = 3 * 86_400

/** `changed`: nodes that were found running for the first time, or for the first time not. */
export function draftVote(
  records: ReadonlyMap<NodeId, AuthorityRecord>,
  { now, period, length, document, words, parameters }: BallotTerms,
): { readonly draft: VoteDraft; readonly changed: readonly AuthorityRecord[] } {
  const alive = new Set(
    listedNodes(records, startOf(period, length), length).map(({ descriptor }) => descriptor.nodeId),
  )
  const changed: AuthorityRecord[] = []
  const candidates: AuthorityRecord[] = []
  const reserved: Prefix[] = []
  for (const [nodeId, before] of records) {
    const runs = alive.has(nodeId) && isRunning(before, { now, period: length })
    const record = runs === (before.up !== undefined) ? before : withUptime(before, runs ? now : undefined)
    if (record !== before) changed.push(record)
    if (alive.has(nodeId)) candidates.push(record)
    else if (record.pool !== undefined) reserved.push(record.pool)
  }
  const speeds = new Map(document?.nodes.map(({ nodeId, bandwidth }) => [nodeId, bandwidth] as const))
  const bandwidthOf = (node: NodeId): number | undefined => speeds.get(node)
  const flags = flagsOf(candidates, { now, period: length, bandwidthOf })
  const nodes = steadyWords(candidates, words, now).map(
    ({ descriptor, text, since, pool, figure }): VotedNode => {
      const fresh = figure !== undefined && figure.at > now - MEASURED_FOR
      return {
        descriptor,
        text,
        since,
        pool,
        flags: flags.get(descriptor.nodeId)!,
        ...(fresh ? { measured: steadyFigure(figure.bandwidth, bandwidthOf(descriptor.nodeId)) } : {}),
      }
    },
  )
  return { draft: { period, published: now, parameters, nodes, reserved }, changed }
}

function withUptime({ up: _, ...record }: AuthorityRecord, since: UnixTime | undefined): AuthorityRecord {
  return since === undefined ? record : { ...record, up: since }
}
