/**
 * Whose documents are believed: the file from which nodes, clients and authorities start. The only reader and writer of
 * it; pure.
 *
 *     {"version":1,"serial":2,"published":1767225600,"threshold":3,
 *      "authorities":[{"name":"ash","key":"<64 hex digits>","url":"http://198.18.50.1:9030"},...]}
 *
 * It is signed by t of the authorities it names, and a successor also by t of those its predecessor named: so a
 * network can replace an authority, and nobody else can. A file is a chain of such documents, the oldest first; whoever
 * holds one of them can follow the rest.
 */
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { fromHex, toHex, utf8 } from '#base/bytes'
import { parseIp } from '#base/ip'
import { failure, type Result, success, within } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import {
  countSignatures,
  DOCUMENT_LIMITS,
  type Envelope,
  openDocument,
  parseBody,
  sealDocument,
} from '#directory/canonical'
import type { Member } from '#directory/minutes'
import { KeyText, Moment, schemaProblem } from '#directory/schemas'

export interface Bootstrap {
  /** One more with every document. */
  readonly serial: number
  readonly published: UnixTime
  /** How many authorities must sign: more than half of them. */
  readonly threshold: number
  readonly authorities: readonly Member[]
  /** The signed words. */
  readonly body: string
  /** The document as it was read. */
  readonly text: string
}

export type BootstrapDraft = Pick<Bootstrap, 'serial' | 'published' | 'threshold' | 'authorities'>

/** Documents in a file. Each change of the authorities adds one. */
export const MAX_CHAIN = 64
export const MAX_CHAIN_OCTETS = MAX_CHAIN * DOCUMENT_LIMITS.bootstrap.octets

/** The letters that are signed. Errors: IPP_DIR_MALFORMED. */
export function bootstrapBody(draft: BootstrapDraft): Result<string> {
  const body: Body = {
    version: 1,
    serial: draft.serial,
    published: draft.published,
    threshold: draft.threshold,
    authorities: draft.authorities.map(({ name, key, url }) => ({ name, key: toHex(key), url })),
  }
  const read = readBody(body)
  return read.ok ? success(JSON.stringify(body)) : read
}

/** Signs with all of these keys at once. Errors: IPP_DIR_MALFORMED, IPP_DIR_OVERSIZED. */
export function encodeBootstrap(
  draft: BootstrapDraft,
  signers: readonly KeyPair[],
  crypto: CryptoProvider,
): Result<string> {
  const body = bootstrapBody(draft)
  return body.ok ? sealDocument('bootstrap', JSON.parse(body.value) as object, signers, crypto) : body
}

/**
 * Reads a file, and proves of each document in it that it has enough signatures of its own authorities and of its
 * predecessor's. Whether the first is to be believed is for the caller to say.
 * Errors: IPP_DIR_OVERSIZED, IPP_DIR_MALFORMED, IPP_DIR_BAD_SIGNATURE, IPP_DIR_REPLAYED.
 */
export function readChain(file: Uint8Array, crypto: CryptoProvider): Result<readonly Bootstrap[]> {
  if (file.length > MAX_CHAIN_OCTETS)
    return failure('IPP_DIR_OVERSIZED', `bootstrap: a file of ${file.length} octets`)
  const texts = splitChain(new TextDecoder('latin1').decode(file))
  if (texts.length > MAX_CHAIN) return malformed(`more than ${MAX_CHAIN} documents`)
  const chain: Bootstrap[] = []
  for (const [i, text] of texts.entries()) {
    const next = readOne(
      Uint8Array.from(text, (c) => c.charCodeAt(0)),
      chain.at(-1),
      crypto,
    )
    if (!next.ok) return within(`document ${i + 1}`, next)
    chain.push(next.value)
  }
  return success(chain)
}

/**
 * The newest document to which `chain` leads from the one at hand, which may be that itself.
 * Errors: IPP_DIR_REPLAYED (it ends before, or has another document with this serial), IPP_DIR_BAD_SIGNATURE.
 */
export function followChain(
  held: Bootstrap,
  chain: readonly Bootstrap[],
  crypto: CryptoProvider,
): Result<Bootstrap> {
  const last = chain.at(-1)
  if (last === undefined || last.serial < held.serial)
    return failure('IPP_DIR_REPLAYED', `bootstrap: serial ${last?.serial ?? 0}, but ${held.serial} is known`)
  const same = chain.find(({ serial }) => serial === held.serial)
  if (same !== undefined)
    return same.body === held.body
      ? success(last)
      : failure('IPP_DIR_REPLAYED', `bootstrap: there are two documents with serial ${held.serial}`)
  const [first] = chain
  if (first?.serial !== held.serial + 1)
    return failure('IPP_DIR_REPLAYED', `bootstrap: nothing leads from serial ${held.serial} to the file`)
  const endorsed = endorsedBy(held, first.text, crypto)
  return endorsed.ok ? success(last) : endorsed
}

/** Each document starts with its body; signatures follow. */
function splitChain(text: string): string[] {
  const texts: string[] = []
  for (const line of text.split(/(?<=\n)/)) {
    if (line.startsWith('{"key":') && texts.length > 0) texts.push(`${texts.pop()}${line}`)
    else texts.push(line)
  }
  return texts
}

function readOne(
  document: Uint8Array,
  predecessor: Bootstrap | undefined,
  crypto: CryptoProvider,
): Result<Bootstrap> {
  const envelope = openDocument('bootstrap', document)
  if (!envelope.ok) return envelope
  const parsed = parseBody(envelope.value)
  if (!parsed.ok) return parsed
  const body = readBody(parsed.value)
  if (!body.ok) return body
  const text = new TextDecoder().decode(document)
  const bootstrap: Bootstrap = { ...body.value, body: envelope.value.body, text }
  const own = enough(bootstrap, envelope.value, 'its own', crypto)
  if (!own.ok) return own
  if (predecessor === undefined) return success(bootstrap)
  if (bootstrap.serial !== predecessor.serial + 1)
    return failure('IPP_DIR_REPLAYED', `bootstrap: serial ${bootstrap.serial} behind ${predecessor.serial}`)
  const before = enough(predecessor, envelope.value, "its predecessor's", crypto)
  return before.ok ? success(bootstrap) : before
}

function endorsedBy(held: Bootstrap, text: string, crypto: CryptoProvider): Result<undefined> {
  const envelope = openDocument('bootstrap', utf8(text))
  return envelope.ok ? enough(held, envelope.value, "its predecessor's", crypto) : envelope
}

function enough(
  { authorities, threshold }: Bootstrap,
  envelope: Envelope,
  whose: string,
  crypto: CryptoProvider,
): Result<undefined> {
  const keys = authorities.map(({ key }) => key)
  const signed = countSignatures(envelope, keys, crypto)
  return signed >= threshold
    ? success(undefined)
    : failure(
        'IPP_DIR_BAD_SIGNATURE',
        `bootstrap: ${signed} valid signatures of ${whose} authorities, ${threshold} needed`,
      )
}

function readBody(body: unknown): Result<Omit<Bootstrap, 'body' | 'text'>> {
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  const { serial, published, threshold, authorities } = body
  if (2 * threshold <= authorities.length || threshold > authorities.length)
    return malformed('threshold: expected more than half of the authorities, and no more than all')
  for (const what of ['name', 'key', 'url'] as const)
    if (new Set(authorities.map((one) => one[what])).size < authorities.length)
      return malformed(`authorities: expected every ${what} once`)
  if (authorities.some(({ url }) => !isServer(url)))
    return malformed('authorities: expected URLs of an IPv4 address and a port')
  return success({
    serial,
    published: published as UnixTime,
    threshold,
    authorities: authorities.map(({ name, key, url }) => ({ name, key: fromHex(key), url })),
  })
}

function isServer(url: string): boolean {
  const { host, port } = /^http:\/\/(?<host>[0-9.]+):(?<port>\d+)$/.exec(url)?.groups ?? {}
  return host !== undefined && parseIp(host) !== undefined && Number(port) <= 65_535
}

const Body = Type.Object(
  {
    version: Type.Literal(1),
    serial: Type.Integer({ minimum: 1, maximum: 1_000_000 }),
    published: Moment,
    threshold: Type.Integer({ minimum: 1, maximum: 16 }),
    authorities: Type.Array(
      Type.Object(
        {
          name: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,18}$' }),
          key: KeyText,
          url: Type.String({ pattern: '^http://[0-9.]{7,15}:[1-9][0-9]{0,4}$' }),
        },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: 16 },
    ),
  },
  { additionalProperties: false },
)
type Body = Static<typeof Body>
const validator = Compile(Body)

const malformed = (where: string) => failure('IPP_DIR_MALFORMED', `bootstrap: ${where}`)
