/** The nodes that one authority knows of, listed or not: from their own words, its measurer, and the documents. Pure. */
import type { NodeId } from '#base/ids'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { type AdmissionTerms, judgeDescriptor, outlivedNodes, STALE_PERIODS } from '#directory/admission'
import type { AuthorityRecord, HeldDocument } from '#directory/authority-events'
import { formatMoment, type ListedNode } from '#directory/consensus'
import { decodeDescriptor } from '#directory/descriptor'
import { CLOCK_TOLERANCE } from '#directory/documents'
import { decodeMeasurement } from '#directory/measurement'
import type { KnownDescriptors, VoteTerms } from '#directory/vote'
import { listedWords } from '#directory/words'

export interface CensusOptions {
  readonly terms: VoteTerms
  readonly crypto: CryptoProvider
  /** Ed25519 keys of those who measure for the authority. */
  readonly measurers?: readonly Uint8Array[]
}

export class Census {
  readonly #options: CensusOptions
  readonly #records: Map<NodeId, AuthorityRecord>
  /** When the last report of a measurer was made. */
  #measured = 0

  /** @param kept what a predecessor knew */
  constructor(options: CensusOptions, kept: Iterable<readonly [NodeId, AuthorityRecord]> = []) {
    this.#options = options
    this.#records = new Map(kept)
  }

  get records(): ReadonlyMap<NodeId, AuthorityRecord> {
    return this.#records
  }

  /**
   * Takes a descriptor that was sent from `source`; undefined: wherever. Without a record it was known already. `minimum`: the
   * oldest version that the network takes.
   * Errors: those of `decodeDescriptor` and `judgeDescriptor`.
   */
  upload(
    document: Uint8Array,
    now: UnixTime,
    { source, minimum }: Pick<AdmissionTerms, 'source' | 'minimum'> = {},
  ): Result<{ readonly nodeId: NodeId; readonly record?: AuthorityRecord }> {
    const { crypto, terms } = this.#options
    const decoded = decodeDescriptor(document, crypto)
    if (!decoded.ok) return decoded
    const descriptor = decoded.value
    const text = new TextDecoder().decode(document)
    const judged = judgeDescriptor({ descriptor, text }, this.#records, {
      now,
      period: terms.length,
      plan: terms.plan,
      ...(source === undefined ? {} : { source }),
      ...(minimum === undefined ? {} : { minimum }),
    })
    if (!judged.ok) return judged
    const { nodeId } = descriptor
    if (judged.value.known) return success({ nodeId })
    const previous = this.#records.get(nodeId)
    const record = { ...previous, descriptor, text, pool: previous?.pool, since: previous?.since ?? now }
    this.#records.set(nodeId, record)
    return success({ nodeId, record })
  }

  /**
   * Takes the report of our measurer; nodes we do not know do not matter. Returns what changed. Errors: those of
   * `decodeMeasurement`, IPP_DIR_EXPIRED, IPP_DIR_REPLAYED.
   */
  measure(document: Uint8Array, now: UnixTime): Result<AuthorityRecord[]> {
    const { measurers = [], crypto, terms } = this.#options
    const decoded = decodeMeasurement(document, measurers, crypto)
    if (!decoded.ok) return decoded
    const { published, figures } = decoded.value
    if (published > now + CLOCK_TOLERANCE || published < now - STALE_PERIODS * terms.length)
      return failure('IPP_DIR_EXPIRED', `measurement: made ${formatMoment(published)}, which is not now`)
    if (published <= this.#measured)
      return failure('IPP_DIR_REPLAYED', 'measurement: a later one came before it')
    this.#measured = published
    const changed: AuthorityRecord[] = []
    for (const [nodeId, bandwidth] of figures) {
      const record = this.#records.get(nodeId)
      if (record === undefined || (record.figure?.at ?? 0) > published) continue
      changed.push({ ...record, figure: { bandwidth, at: published } })
    }
    this.put(changed)
    return success(changed)
  }

  put(changed: readonly AuthorityRecord[]): void {
    for (const record of changed) this.#records.set(record.descriptor.nodeId, record)
  }

  /** Forgets whom nobody needs any more, but for those that the document lists: their pools are in use. */
  forget(now: UnixTime, listed: ReadonlyMap<NodeId, ListedNode>): NodeId[] {
    const forgotten = outlivedNodes(this.#records, now, this.#options.terms.length).filter(
      (id) => !listed.has(id),
    )
    for (const id of forgotten) this.#records.delete(id)
    return forgotten
  }

  /** Pools are what the last document says, and nodes that never came to us are known from it. Returns what changed. */
  follow({ consensus, text }: HeldDocument): AuthorityRecord[] {
    const changed: AuthorityRecord[] = []
    const lent = new Map(consensus.nodes.map(({ nodeId, pool }) => [pool.address, nodeId] as const))
    for (const record of this.#records.values()) {
      const { descriptor, pool } = record
      const owner = pool && lent.get(pool.address)
      if (owner === undefined || owner === descriptor.nodeId) continue
      // It was lent anew: to vote for both would be to vote for nothing.
      const without = { ...record, pool: undefined }
      this.#records.set(descriptor.nodeId, without)
      changed.push(without)
    }
    for (const said of listedWords(text, consensus).values()) {
      const { descriptor, pool } = said
      const known = this.#records.get(descriptor.nodeId)
      const newer = known !== undefined && known.descriptor.published >= descriptor.published
      if (newer && known.pool?.address === pool.address) continue
      const latest = newer ? known : said
      const since = known?.since ?? consensus.validAfter
      const record = { ...known, descriptor: latest.descriptor, text: latest.text, pool, since }
      this.#records.set(descriptor.nodeId, record)
      changed.push(record)
    }
    return changed
  }

  /** Descriptors that need not be verified again, by their texts. */
  known(listed: ReadonlyMap<NodeId, ListedNode>): KnownDescriptors {
    return new Map(
      [...this.#records.values(), ...listed.values()].map(({ text, descriptor }) => [text, descriptor]),
    )
  }
}
