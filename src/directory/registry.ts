/**
 * The directory proper: takes descriptors, decides, remembers, and keeps the current document. It knows no HTTP
 * and owns no timer: its driver calls `publishIfDue` when the registry says it is due.
 *
 * Changes are made one after another, and each one on disk before it is in memory: what was acknowledged
 * survives, and a document is served only after it was stored whole.
 */
import { utf8 } from '#base/bytes'
import { errorLine, IpprivError } from '#base/errors'
import type { NodeId } from '#base/ids'
import type { Ip } from '#base/ip'
import { type Failure, failure, type Result, success, toError } from '#base/result'
import { type Duration, type Instant, instant, SECOND } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { admitDescriptor, listedNodes, type NodeRecord, outlivedNodes, staleAt } from '#directory/admission'
import { identityOf, type Signer } from '#directory/certificate'
import { type ListedNode, signConsensus, verifyConsensus } from '#directory/consensus'
import { Counters } from '#directory/counters'
import { decodeDescriptor, sameSubstance } from '#directory/descriptor'
import { fitsPlan, type PoolPlan } from '#directory/pools'
import { type Publication, preparePublication } from '#directory/publication'
import type { Acceptance, DirectoryClock, DirectoryLog, DirectoryService } from '#directory/service'
import { Shelf } from '#directory/shelf'
import type { DirectoryStore } from '#directory/store'
import { listedWords, steadyWords } from '#directory/words'

export interface RegistryOptions {
  readonly store: DirectoryStore
  readonly key: Signer
  readonly crypto: CryptoProvider
  readonly clock: DirectoryClock
  readonly log: DirectoryLog
  readonly plan: PoolPlan
  /** Seconds. */
  readonly period: number
  /** Called when a document may be due earlier than `publishIfDue` said. */
  readonly onChange?: () => void
}

/** Fewer documents than this under a storm of changes: at most one per second. */
const DEBOUNCE: Duration = SECOND
/** One node may be the reason for an early document this often: once in this share of a period. */
const EARLY_SHARE = 360
/** After a document could not be made or stored. */
const RETRY: Duration = 5 * SECOND
/** Timers follow the monotonic clock; the calendar may jump, so it is looked at this often at least. */
const LONGEST_SLEEP: Duration = 60 * SECOND

export class DirectoryRegistry implements DirectoryService {
  readonly counters = new Counters()
  readonly shelf: Shelf
  readonly #options: RegistryOptions
  readonly #records: Map<NodeId, NodeRecord>
  #serial: number
  #publication: Publication
  /** Texts of the published nodes, by id: what the document says now. */
  #published: ReadonlyMap<NodeId, ListedNode>
  /** From when on there is something to be said that cannot wait for the regular document. */
  #changedAt: Instant | undefined
  /** When a node was last the reason for an early document. */
  readonly #early = new Map<NodeId, Instant>()
  #lastAttempt: Instant
  #failing: IpprivError | undefined
  /** The end of the queue of changes; never rejects. */
  #tail: Promise<unknown> = Promise.resolve()

  /**
   * Loads what the store has and publishes: the stored document where it is still right, else a new one.
   * @throws IpprivError IPP_STATE_UNUSABLE, IPP_DIR_POOL
   */
  static async open(options: RegistryOptions): Promise<DirectoryRegistry> {
    const { store, plan, log, clock, period } = options
    const state = await store.load()
    for (const key of state.damaged) log.warn({ key }, 'ignored a damaged entry of the store')
    const records = new Map(state.records)
    const foreign: NodeId[] = []
    for (const [id, { pool, descriptor }] of records) {
      if (fitsPlan(plan, pool)) continue
      // The operator chose another pool space: the node gets a pool of it with its next descriptor.
      records.delete(id)
      foreign.push(id)
      log.warn({ node: descriptor.name }, 'forgot a node whose pool is not of the configured pool space')
    }
    const now = clock.unixTime()
    const stored = await storedPublication(options, state.document, listedNodes(records, now, period))
    const fresh = stored ?? (await nextPublication(options, records, new Map(), state.serial + 1, foreign))
    const registry = new DirectoryRegistry(options, records, fresh)
    if (stored === undefined) registry.counters.add('consensus.published')
    return registry
  }

  private constructor(
    options: RegistryOptions,
    records: Map<NodeId, NodeRecord>,
    { publication, nodes }: Published,
  ) {
    this.#options = options
    this.#records = records
    this.shelf = new Shelf(options.crypto)
    this.shelf.put(publication)
    this.#publication = publication
    this.#serial = publication.consensus.serial
    this.#published = nodes
    this.#lastAttempt = options.clock.monotonic()
  }

  /** The document to serve. It may be past its validity when the disk failed for long: see `problem`. */
  get publication(): Publication {
    return this.#publication
  }

  /** Why no new document can be published, while that lasts. */
  get problem(): IpprivError | undefined {
    return this.#failing
  }

  /** Nodes in the store, listed or not. */
  get size(): number {
    return this.#records.size
  }

  /**
   * Takes a descriptor as it came from a stranger at `source`; undefined: wherever. When this says ok, it is on disk.
   * Errors: those of `decodeDescriptor` and `admitDescriptor`, and IPP_STATE_UNUSABLE; nothing was stored then.
   */
  async accept(document: Uint8Array, source?: Ip): Promise<Result<Acceptance>> {
    const decoded = decodeDescriptor(document, this.#options.crypto)
    const outcome = decoded.ok
      ? await this.#serialised(() =>
          this.#admit({ descriptor: decoded.value, text: Buffer.from(document).toString('latin1') }, source),
        )
      : decoded
    this.counters.add(
      outcome.ok ? `descriptor.${outcome.value.known ? 'known' : 'accepted'}` : `refused.${outcome.code}`,
    )
    if (!outcome.ok)
      this.#options.log.debug({ code: outcome.code, where: outcome.where }, 'refused a descriptor')
    return outcome
  }

  /** Publishes when it is due. Returns after how long it wants to be called again. Never rejects. */
  publishIfDue(): Promise<Duration> {
    return this.#serialised(async () => {
      const wait = this.#untilDue()
      if (wait > 0) return wait
      await this.#publish()
      return Math.max(DEBOUNCE, this.#untilDue())
    })
  }

  /** Resolves when every change that was begun is done. */
  async idle(): Promise<void> {
    await this.#tail
  }

  async #admit(candidate: ListedCandidate, source?: Ip): Promise<Result<Acceptance>> {
    const { store, clock, plan, period, log } = this.#options
    const terms = { now: clock.unixTime(), period, plan, ...(source === undefined ? {} : { source }) }
    const admitted = admitDescriptor(candidate, this.#records, terms)
    if (!admitted.ok) return admitted
    const { known, record } = admitted.value
    const { nodeId, name } = record.descriptor
    if (known) return success({ nodeId, known })
    try {
      await store.putNode(record)
    } catch (error) {
      log.error({ error: errorLine(error) }, 'could not store a descriptor')
      return asFailure(error)
    }
    this.#records.set(nodeId, record)
    const published = this.#published.get(nodeId)
    // A new date alone can wait for the next regular document.
    if (published === undefined || !sameSubstance(published.descriptor, record.descriptor)) {
      this.#hurry(nodeId)
      this.#options.onChange?.()
      log.info({ node: name, nodeId }, published === undefined ? 'new node' : 'changed node')
    }
    return success({ nodeId, known })
  }

  /** One who changes all the time waits longer: everybody fetches an early document. */
  #hurry(node: NodeId): void {
    const { clock, period } = this.#options
    const now = clock.monotonic()
    const last = this.#early.get(node)
    const at = last === undefined ? now : instant(Math.max(now, last + (period * SECOND) / EARLY_SHARE))
    this.#early.set(node, at)
    if (this.#changedAt === undefined || at < this.#changedAt) this.#changedAt = at
  }

  #untilDue(): Duration {
    const { clock, period } = this.#options
    const sinceAttempt = clock.monotonic() - this.#lastAttempt
    if (this.#failing !== undefined) return Math.max(0, RETRY - sinceAttempt)
    const early =
      this.#changedAt === undefined
        ? Number.POSITIVE_INFINITY
        : Math.max(0, DEBOUNCE - sinceAttempt, this.#changedAt - clock.monotonic())
    const { validAfter } = this.#publication.consensus
    const now = clock.unixTime()
    // A calendar that was set back must not freeze the document for as long.
    if (now < validAfter) return Math.max(0, DEBOUNCE - sinceAttempt)
    let due: number = validAfter + period / 2
    for (const id of this.#published.keys()) {
      const record = this.#records.get(id)
      if (record !== undefined) due = Math.min(due, staleAt(record.descriptor, period))
    }
    return Math.min(LONGEST_SLEEP, early, Math.max(0, (due - now) * SECOND))
  }

  async #publish(): Promise<void> {
    const { clock, log, period } = this.#options
    this.#lastAttempt = clock.monotonic()
    const changed = this.#changedAt !== undefined
    try {
      const outlived = outlivedNodes(this.#records, clock.unixTime(), period)
      const serial = this.#serial + 1
      const next = await nextPublication(this.#options, this.#records, this.#published, serial, outlived)
      for (const id of outlived) {
        this.#records.delete(id)
        this.#early.delete(id)
      }
      this.#publication = next.publication
      this.shelf.put(next.publication)
      this.#published = next.nodes
      this.#serial = next.publication.consensus.serial
      this.#changedAt = undefined
      this.#failing = undefined
      this.counters.add('consensus.published')
      log.info({ serial: this.#serial, nodes: next.nodes.size, changed }, 'published a document')
    } catch (error) {
      this.#failing =
        error instanceof IpprivError
          ? error
          : new IpprivError('IPP_INTERNAL', 'could not make a document', { cause: error })
      this.counters.add('consensus.failed')
      log.error({ error: this.#failing.line }, 'could not publish a document')
    }
  }

  #serialised<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(change)
    this.#tail = done.catch(() => undefined)
    return done
  }
}

type ListedCandidate = Pick<ListedNode, 'descriptor' | 'text'>

interface Published {
  readonly publication: Publication
  readonly nodes: ReadonlyMap<NodeId, ListedNode>
}

/** Signs the next document, and has it on disk before it returns it. @throws IpprivError */
async function nextPublication(
  options: RegistryOptions,
  records: ReadonlyMap<NodeId, NodeRecord>,
  published: ReadonlyMap<NodeId, ListedNode>,
  serial: number,
  outlived: readonly NodeId[] = [],
): Promise<Published> {
  const { store, key, crypto, clock, plan, period } = options
  const validAfter = clock.unixTime()
  const nodes = steadyWords(listedNodes(records, validAfter, period), published, validAfter)
  const signed = signConsensus({ serial, validAfter, period, poolSpace: plan.space, nodes }, [key], crypto)
  if (!signed.ok) throw toError(signed)
  const publication = await preparePublication(signed.value.text, signed.value.consensus, crypto)
  await store.putDocument(serial, signed.value.text, outlived)
  return { publication, nodes: byId(nodes) }
}

/** The stored document, when it is ours, still fresh and says what a new one would say. */
async function storedPublication(
  { key, crypto, clock, plan, period }: RegistryOptions,
  document: string | undefined,
  nodes: readonly NodeRecord[],
): Promise<Published | undefined> {
  if (document === undefined) return undefined
  const now = clock.unixTime()
  const verified = verifyConsensus(utf8(document), { authorities: [identityOf(key)], now }, crypto)
  if (!verified.ok) return undefined
  const { validAfter, freshUntil, poolSpace, nodes: listed } = verified.value
  const expected = byId(nodes)
  const same =
    freshUntil - validAfter === period &&
    now >= validAfter &&
    now < validAfter + period / 2 &&
    poolSpace.address === plan.space.address &&
    poolSpace.length === plan.space.length &&
    listed.length === nodes.length &&
    listed.every((node) => {
      const record = expected.get(node.nodeId)
      return (
        record !== undefined &&
        record.pool.address === node.pool.address &&
        sameSubstance(record.descriptor, node)
      )
    })
  if (!same) return undefined
  const publication = await preparePublication(document, verified.value, crypto)
  return { publication, nodes: listedWords(document, verified.value) }
}

const byId = <T extends { readonly descriptor: { readonly nodeId: NodeId } }>(nodes: readonly T[]) =>
  new Map(nodes.map((node) => [node.descriptor.nodeId, node] as const))

const asFailure = (error: unknown): Failure =>
  error instanceof IpprivError
    ? failure(error.code, error.where)
    : failure('IPP_INTERNAL', 'the store failed in an unknown way')
