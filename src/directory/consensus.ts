/**
 * The one document of the network. The only reader and writer of consensuses; pure.
 *
 *     {"version":1,"serial":7,"validAfter":1767225600,"freshUntil":1767229200,"validUntil":1767236400,
 *      "poolSpace":"10.64.0.0/10","parameters":{"mtu":1280,"profile":1,"versions":[]},
 *      "nodes":[{"pool":"10.64.0.0/20","flags":"fgrsv","bandwidth":81920,"descriptor":"<signed text>"},...]}
 *
 * A node stands in it with its own signed words, letter for letter, and the pool the directory assigned: the
 * directory can leave a node out, but it cannot put words into a node's mouth. What the directory found out stands
 * beside them. A directory that decides alone finds out nothing: there are no flags, bandwidth and parameters then.
 */
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { utf8 } from '#base/bytes'
import { contains, formatPrefix, isPrivateNetwork, type Prefix, parsePrefix, rangeOf } from '#base/ip'
import { failure, type Result, success, within } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { countSignatures, DOCUMENT_LIMITS, openDocument, parseBody, sealDocument } from '#directory/canonical'
import type { Signer } from '#directory/certificate'
import { decodeDescriptor, type SignedDescriptor } from '#directory/descriptor'
import {
  CLOCK_TOLERANCE,
  type Consensus,
  type ConsensusNode,
  type NetworkParameters,
  type NodeFlag,
} from '#directory/documents'
import { FLAGS_PATTERN, formatFlags, parseFlags } from '#directory/flags'
import { MAX_BANDWIDTH } from '#directory/measurement'
import { ParametersBody, parametersBody } from '#directory/parameters'
import { Moment, PrefixText, schemaProblem } from '#directory/schemas'

/**
 * Seconds for which a document may be valid: three of the longest periods. Whoever stole a signing key must not be
 * able to freeze the network for ever.
 */
export const MAX_VALIDITY = 21 * 24 * 3600

/** A document is valid this many periods, and should be replaced after one. */
export const VALID_PERIODS = 3

/** A node that will be listed. */
export interface ListedNode extends SignedDescriptor {
  readonly pool: Prefix
  readonly flags?: readonly NodeFlag[]
  /** Kilobits per second. */
  readonly bandwidth?: number
}

export interface ConsensusDraft {
  readonly serial: number
  readonly validAfter: UnixTime
  /** Seconds. */
  readonly period: number
  readonly poolSpace: Prefix
  readonly parameters?: NetworkParameters
  /** In any order. */
  readonly nodes: readonly ListedNode[]
}

/** The unsigned body: the same draft gives the same letters, whatever the order of its nodes. */
export function buildConsensus(draft: ConsensusDraft): Result<{ body: object; consensus: Consensus }> {
  const listed = draft.nodes.toSorted((a, b) => (a.descriptor.nodeId < b.descriptor.nodeId ? -1 : 1))
  const consensus: Consensus = {
    validAfter: draft.validAfter,
    freshUntil: (draft.validAfter + draft.period) as UnixTime,
    validUntil: (draft.validAfter + VALID_PERIODS * draft.period) as UnixTime,
    serial: draft.serial,
    poolSpace: draft.poolSpace,
    ...(draft.parameters === undefined ? {} : { parameters: parametersBody(draft.parameters) }),
    nodes: listed.map(({ descriptor, pool, flags, bandwidth }) => ({
      ...descriptor,
      pool,
      ...(flags === undefined ? {} : { flags }),
      ...(bandwidth === undefined ? {} : { bandwidth }),
    })),
  }
  const sound = checkNodes(consensus)
  if (!sound.ok) return sound
  const body: Body = {
    version: 1,
    serial: consensus.serial,
    validAfter: consensus.validAfter,
    freshUntil: consensus.freshUntil,
    validUntil: consensus.validUntil,
    poolSpace: formatPrefix(consensus.poolSpace),
    ...(draft.parameters === undefined ? {} : { parameters: parametersBody(draft.parameters) }),
    nodes: listed.map(({ pool, flags, bandwidth, text }) => ({
      pool: formatPrefix(pool),
      ...(flags === undefined ? {} : { flags: formatFlags(flags) }),
      ...(bandwidth === undefined ? {} : { bandwidth }),
      descriptor: text,
    })),
  }
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  return success({ body, consensus })
}

/** Builds and signs. Errors: IPP_DIR_POOL, IPP_DIR_CONFLICT, IPP_DIR_MALFORMED, IPP_DIR_OVERSIZED. */
export function signConsensus(
  draft: ConsensusDraft,
  authorities: readonly Signer[],
  crypto: CryptoProvider,
): Result<{ text: string; consensus: Consensus }> {
  const built = buildConsensus(draft)
  if (!built.ok) return built
  const sealed = sealDocument('consensus', built.value.body, authorities, crypto)
  return sealed.ok ? success({ text: sealed.value, consensus: built.value.consensus }) : sealed
}

export interface ConsensusTrust {
  /** Pinned Ed25519 keys. Where there are several, the serial must be the number of the period in the calendar. */
  readonly authorities: readonly Uint8Array[]
  /** How many of them must have signed; 1 unless said otherwise. */
  readonly threshold?: number
  readonly now: UnixTime
  /** The highest serial seen so far: an older document is a replay. */
  readonly lastSerial?: number
}

/**
 * Verifies everything a client or node relies on, and reads. The signature is checked before a single brace is
 * parsed. Errors: IPP_DIR_OVERSIZED, IPP_DIR_MALFORMED, IPP_DIR_BAD_SIGNATURE, IPP_DIR_EXPIRED,
 * IPP_DIR_REPLAYED, IPP_DIR_IDENTITY, IPP_DIR_CONFLICT, IPP_DIR_POOL.
 */
export function verifyConsensus(
  document: Uint8Array,
  trust: ConsensusTrust,
  crypto: CryptoProvider,
): Result<Consensus> {
  const envelope = openDocument('consensus', document)
  if (!envelope.ok) return envelope
  const threshold = trust.threshold ?? 1
  const signed = countSignatures(envelope.value, trust.authorities, crypto, trust.now)
  if (signed < threshold)
    return failure(
      'IPP_DIR_BAD_SIGNATURE',
      `consensus: ${signed} valid signatures of pinned keys, ${threshold} needed`,
    )
  const parsed = parseBody(envelope.value)
  if (!parsed.ok) return parsed
  const body = parsed.value
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  const dated = checkDates(body, trust)
  if (!dated.ok) return dated
  const poolSpace = parsePrefix(body.poolSpace)
  if (poolSpace === undefined) return malformed('poolSpace: expected a prefix')
  const nodes = readNodes(body.nodes, crypto)
  if (!nodes.ok) return nodes
  const consensus: Consensus = {
    validAfter: body.validAfter as UnixTime,
    freshUntil: body.freshUntil as UnixTime,
    validUntil: body.validUntil as UnixTime,
    serial: body.serial,
    poolSpace,
    ...(body.parameters === undefined ? {} : { parameters: body.parameters }),
    nodes: nodes.value,
  }
  const sound = checkNodes(consensus)
  return sound.ok ? success(consensus) : sound
}

/** The signed texts of the nodes of a document that was verified, in its order. */
export function listedTexts(document: string): string[] {
  const { nodes } = JSON.parse(bodyOf(document)) as Body
  return nodes.map(({ descriptor }) => descriptor)
}

/** The body of a document that was verified: documents that differ in their signatures alone say the same. */
export const bodyOf = (document: string): string => document.slice(0, document.indexOf('\n'))

/** Moments in texts for people. */
export const formatMoment = (t: number): string => new Date(t * 1000).toISOString().replace('.000Z', 'Z')

function checkDates(body: Body, { now, lastSerial, authorities }: ConsensusTrust): Result<undefined> {
  const { validAfter, freshUntil, validUntil, serial } = body
  if (!(validAfter < freshUntil && freshUntil <= validUntil))
    return malformed('validAfter, freshUntil and validUntil are not in order')
  if (validUntil - validAfter > MAX_VALIDITY)
    return malformed(`valid for ${validUntil - validAfter} seconds, ${MAX_VALIDITY} are the most`)
  // Or whoever has enough keys once could make every later document look like a replay.
  if (authorities.length > 1 && serial * (freshUntil - validAfter) !== validAfter)
    return malformed('the serial is not the number of the period')
  if (now + CLOCK_TOLERANCE < validAfter)
    return failure('IPP_DIR_EXPIRED', `consensus: valid only after ${formatMoment(validAfter)}`)
  if (now >= validUntil)
    return failure('IPP_DIR_EXPIRED', `consensus: valid only until ${formatMoment(validUntil)}`)
  if (lastSerial !== undefined && serial < lastSerial)
    return failure('IPP_DIR_REPLAYED', `consensus: serial ${serial}, but ${lastSerial} was seen before`)
  return success(undefined)
}

function readNodes(entries: Body['nodes'], crypto: CryptoProvider): Result<ConsensusNode[]> {
  const nodes: ConsensusNode[] = []
  for (const [i, entry] of entries.entries()) {
    const pool = parsePrefix(entry.pool)
    if (pool === undefined) return malformed(`nodes[${i}]: pool: expected a prefix`)
    const descriptor = decodeDescriptor(utf8(entry.descriptor), crypto)
    if (!descriptor.ok) return within(`consensus: nodes[${i}]`, descriptor)
    nodes.push({
      ...descriptor.value,
      pool,
      ...(entry.flags === undefined ? {} : { flags: parseFlags(entry.flags) }),
      ...(entry.bandwidth === undefined ? {} : { bandwidth: entry.bandwidth }),
    })
  }
  return success(nodes)
}

/**
 * What must hold between the nodes of one document. The author proves it before signing, every reader again:
 * a private address is a backward route, so two nodes that lent the same one would mix up their clients.
 */
function checkNodes({ nodes, poolSpace }: Consensus): Result<undefined> {
  // A directory gone bad must not make every node and client route a part of the Internet into the overlay.
  if (!isPrivateNetwork(poolSpace))
    return failure('IPP_DIR_POOL', `consensus: ${formatPrefix(poolSpace)} is not a private network`)
  const names = new Set<string>()
  const addresses = new Set<string>()
  for (const [i, node] of nodes.entries()) {
    const previous = nodes[i - 1]
    if (previous !== undefined && previous.nodeId >= node.nodeId)
      return malformed(`nodes[${i}]: not in ascending order of node ids, or listed twice`)
    if (names.has(node.name))
      return failure('IPP_DIR_CONFLICT', `consensus: two nodes are named ${node.name}`)
    if (addresses.has(node.address))
      return failure('IPP_DIR_CONFLICT', `consensus: two nodes have the address ${node.address}`)
    names.add(node.name)
    addresses.add(node.address)
    if (node.pool.length < poolSpace.length || !contains(poolSpace, node.pool.address))
      return failure(
        'IPP_DIR_POOL',
        `consensus: the pool of ${node.name} is outside ${formatPrefix(poolSpace)}`,
      )
    if (contains(poolSpace, node.address))
      return failure(
        'IPP_DIR_POOL',
        `consensus: ${node.name} has an address inside ${formatPrefix(poolSpace)}`,
      )
  }
  return checkDisjoint(nodes)
}

/** In order of their first addresses, overlapping pools are neighbours. */
function checkDisjoint(nodes: readonly ConsensusNode[]): Result<undefined> {
  const ranges = nodes
    .map(({ name, pool }) => ({ name, range: rangeOf(pool) }))
    .sort((a, b) => a.range[0] - b.range[0])
  for (const [i, { name, range }] of ranges.entries()) {
    const previous = ranges[i - 1]
    if (previous !== undefined && previous.range[1] >= range[0])
      return failure('IPP_DIR_POOL', `consensus: the pools of ${previous.name} and ${name} overlap`)
  }
  return success(undefined)
}

const Body = Type.Object(
  {
    version: Type.Literal(1),
    serial: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    validAfter: Moment,
    freshUntil: Moment,
    validUntil: Moment,
    poolSpace: PrefixText,
    parameters: Type.Optional(ParametersBody),
    nodes: Type.Array(
      Type.Object(
        {
          pool: PrefixText,
          flags: Type.Optional(Type.String({ pattern: FLAGS_PATTERN })),
          bandwidth: Type.Optional(Type.Integer({ minimum: 0, maximum: MAX_BANDWIDTH })),
          descriptor: Type.String({ minLength: 1, maxLength: DOCUMENT_LIMITS.descriptor.octets }),
        },
        { additionalProperties: false },
      ),
      { maxItems: 16_384 },
    ),
  },
  { additionalProperties: false },
)
type Body = Static<typeof Body>
const validator = Compile(Body)

const malformed = (where: string) => failure('IPP_DIR_MALFORMED', `consensus: ${where}`)
