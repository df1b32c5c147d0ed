/**
 * What one authority would list in a period, signed by it. The only reader and writer of votes; pure.
 *
 *     {"version":1,"period":490896,"length":3600,"poolSpace":"10.64.0.0/10","poolLength":20,"published":1767224700,
 *      "parameters":{"mtu":1280,"profile":1,"versions":[]},
 *      "nodes":[{"since":1767000000,"pool":"10.64.0.0/20","flags":"fgrsv","measured":81920,
 *                "descriptor":"<signed text>"},...],
 *      "reserved":["10.64.16.0/20",...]}
 *
 * A period is numbered by the calendar, and the number is the serial of its document: whoever stole keys cannot jump
 * ahead of time. `pool` is what the author knows the last document to have said, and is absent for a newcomer;
 * `reserved` are pools of nodes that fell silent. So the next document follows from votes alone. `measured` is what the
 * author's measurer found, in kilobits per second, and is absent where it found nothing lately.
 */
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { toHex, utf8 } from '#base/bytes'
import { formatPrefix, type Prefix, parsePrefix } from '#base/ip'
import { failure, type Result, success, within } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { DOCUMENT_LIMITS, openSigned, sealDocument } from '#directory/canonical'
import { identityOf, type Signer } from '#directory/certificate'
import { decodeDescriptor, type SignedDescriptor } from '#directory/descriptor'
import type { NetworkParameters, NodeDescriptor, NodeFlag } from '#directory/documents'
import { FLAGS_PATTERN, formatFlags, parseFlags } from '#directory/flags'
import { MAX_BANDWIDTH } from '#directory/measurement'
import { ParametersBody, parametersBody } from '#directory/parameters'
import { fitsPlan, type PoolPlan } from '#directory/pools'
import { Moment, PrefixText, schemaProblem } from '#directory/schemas'

/** What all authorities of a network have configured alike. */
export interface VoteTerms {
  /** Seconds of a period. */
  readonly length: number
  readonly plan: PoolPlan
}

export interface VotedNode extends SignedDescriptor {
  /** Since when the author knows the node: the elder of two keeps a contested name. */
  readonly since: UnixTime
  /** Undefined: it has none yet. */
  readonly pool: Prefix | undefined
  readonly flags: readonly NodeFlag[]
  readonly measured?: number
}

export interface VoteDraft {
  readonly period: number
  readonly published: UnixTime
  readonly parameters: NetworkParameters
  /** In any order. */
  readonly nodes: readonly VotedNode[]
  readonly reserved: readonly Prefix[]
}

export interface Vote extends VoteDraft {
  /** Ed25519 key of the authority. */
  readonly author: Uint8Array
  readonly text: string
  /** SHA-256 of the text, in hex. */
  readonly digest: string
}

/** Descriptors that were verified before, by text: five votes name the same thousand, and one check of each is enough. */
export type KnownDescriptors = Map<string, NodeDescriptor>

/** The period a moment is in. */
export const periodOf = (t: UnixTime, length: number): number => Math.floor(t / length)

/** When the document of a period becomes valid. */
export const startOf = (period: number, length: number): UnixTime => (period * length) as UnixTime

/** Signs. Errors: IPP_DIR_MALFORMED, IPP_DIR_OVERSIZED. */
export function encodeVote(
  draft: VoteDraft,
  { length, plan }: VoteTerms,
  author: Signer,
  crypto: CryptoProvider,
): Result<Vote> {
  const nodes = draft.nodes.toSorted((a, b) => (a.descriptor.nodeId < b.descriptor.nodeId ? -1 : 1))
  const reserved = draft.reserved.map(formatPrefix).toSorted()
  const body: Body = {
    version: 1,
    period: draft.period,
    length,
    poolSpace: formatPrefix(plan.space),
    poolLength: plan.length,
    published: draft.published,
    parameters: parametersBody(draft.parameters),
    nodes: nodes.map(({ since, pool, flags, measured, text }) => ({
      since,
      ...(pool === undefined ? {} : { pool: formatPrefix(pool) }),
      flags: formatFlags(flags),
      ...(measured === undefined ? {} : { measured }),
      descriptor: text,
    })),
    reserved,
  }
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  const sealed = sealDocument('vote', body, [author], crypto)
  if (!sealed.ok) return sealed
  const vote: Vote = {
    ...draft,
    nodes,
    author: identityOf(author),
    text: sealed.value,
    digest: digestOf(sealed.value, crypto),
  }
  const sound = checkPools(vote, plan)
  return sound.ok ? success(vote) : sound
}

/**
 * Verifies and reads. Whether it came in time, and alone, is for the caller to say.
 * Errors: those of `openSigned` and `decodeDescriptor`, IPP_DIR_CONFLICT (other terms than ours), IPP_DIR_POOL.
 */
export function decodeVote(
  document: Uint8Array,
  authors: readonly Uint8Array[],
  { length, plan }: VoteTerms,
  crypto: CryptoProvider,
  known: KnownDescriptors = new Map(),
  now?: UnixTime,
): Result<Vote> {
  const opened = openSigned('vote', document, authors, crypto, now)
  if (!opened.ok) return opened
  const { author, body } = opened.value
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  if (
    body.length !== length ||
    body.poolSpace !== formatPrefix(plan.space) ||
    body.poolLength !== plan.length
  )
    return failure('IPP_DIR_CONFLICT', 'vote: its author has another period or pool space configured')
  const nodes = readNodes(body.nodes, crypto, known)
  if (!nodes.ok) return nodes
  const reserved: Prefix[] = []
  for (const [i, text] of body.reserved.entries()) {
    const pool = parsePrefix(text)
    if (pool === undefined) return malformed(`reserved[${i}]: expected a prefix`)
    reserved.push(pool)
  }
  const text = new TextDecoder().decode(document)
  const vote: Vote = {
    author,
    period: body.period,
    published: body.published as UnixTime,
    parameters: body.parameters,
    nodes: nodes.value,
    reserved,
    text,
    digest: digestOf(text, crypto),
  }
  const sound = checkPools(vote, plan)
  return sound.ok ? success(vote) : sound
}

/** SHA-256 of a text, in hex: how documents are named among authorities. */
export const digestOf = (text: string, crypto: CryptoProvider): string =>
  toHex(crypto.hash('sha256', utf8(text)))

function readNodes(
  entries: Body['nodes'],
  crypto: CryptoProvider,
  known: KnownDescriptors,
): Result<VotedNode[]> {
  const nodes: VotedNode[] = []
  let previous = ''
  for (const [i, entry] of entries.entries()) {
    const pool = entry.pool === undefined ? undefined : parsePrefix(entry.pool)
    if (entry.pool !== undefined && pool === undefined)
      return malformed(`nodes[${i}]: pool: expected a prefix`)
    let descriptor = known.get(entry.descriptor)
    if (descriptor === undefined) {
      const decoded = decodeDescriptor(utf8(entry.descriptor), crypto)
      if (!decoded.ok) return within(`vote: nodes[${i}]`, decoded)
      descriptor = decoded.value
      known.set(entry.descriptor, descriptor)
    }
    if (descriptor.nodeId <= previous)
      return malformed(`nodes[${i}]: not in ascending order of node ids, or listed twice`)
    previous = descriptor.nodeId
    nodes.push({
      descriptor,
      text: entry.descriptor,
      since: entry.since as UnixTime,
      pool,
      flags: parseFlags(entry.flags),
      ...(entry.measured === undefined ? {} : { measured: entry.measured }),
    })
  }
  return success(nodes)
}

/** An author that lends one pool twice, even in its own vote, is not followed in anything. */
function checkPools({ nodes, reserved }: VoteDraft, plan: PoolPlan): Result<undefined> {
  const lent = new Set<string>()
  const pools = [...nodes.map(({ pool }) => pool), ...reserved]
  for (const pool of pools) {
    if (pool === undefined) continue
    if (!fitsPlan(plan, pool)) return failure('IPP_DIR_POOL', 'vote: a pool is not of the pool space')
    if (lent.has(pool.address)) return failure('IPP_DIR_POOL', 'vote: a pool is lent twice')
    lent.add(pool.address)
  }
  return success(undefined)
}

const Body = Type.Object(
  {
    version: Type.Literal(1),
    period: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    length: Type.Integer({ minimum: 1, maximum: 604_800 }),
    poolSpace: PrefixText,
    poolLength: Type.Integer({ minimum: 1, maximum: 32 }),
    published: Moment,
    parameters: ParametersBody,
    nodes: Type.Array(
      Type.Object(
        {
          since: Moment,
          pool: Type.Optional(PrefixText),
          flags: Type.String({ pattern: FLAGS_PATTERN }),
          measured: Type.Optional(Type.Integer({ minimum: 0, maximum: MAX_BANDWIDTH })),
          descriptor: Type.String({ minLength: 1, maxLength: DOCUMENT_LIMITS.descriptor.octets }),
        },
        { additionalProperties: false },
      ),
      { maxItems: 16_384 },
    ),
    reserved: Type.Array(PrefixText, { maxItems: 16_384 }),
  },
  { additionalProperties: false },
)
type Body = Static<typeof Body>
const validator = Compile(Body)

const malformed = (where: string) => failure('IPP_DIR_MALFORMED', `vote: ${where}`)
