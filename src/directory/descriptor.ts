/**
 * A node's own words about itself, signed by its identity key. The only reader and writer of descriptors.
 *
 *     {"version":1,"identityKey":"<hex>","ikeKey":"<hex>","name":"alder","address":"198.51.100.7","port":500,
 *      "roles":["entry","middle","exit"],"exitPolicy":["reject 10.0.0.0/8","accept 0.0.0.0/0 tcp 80-443"],
 *      "published":1767225600,"software":"ippriv 0.1.0"}
 *
 * A stock router cannot sign one: its operator does, with an identity key of the router's own, and says how anonymous
 * peers authenticate to it: `"ike":{"method":"psk","key":"<published>"}` behind `ikeKey`. A node with a second key for
 * stock peers without EdDSA has `"ecdsaKey":"<hex>"` there. At the end may stand `"declared":<kbit/s>`, and
 * `"family":{"key":"<hex>","proof":"<hex>"}`.
 */
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { equalBytes, fromHex, toHex, utf8 } from '#base/bytes'
import { type NodeId, nodeIdFromBytes } from '#base/ids'
import { contains, parseIp, prefix } from '#base/ip'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import { readPublicKey } from '#crypto/public-key'
import { countSignatures, openDocument, parseBody, sealDocument } from '#directory/canonical'
import {
  type NodeDescriptor,
  type NodeRole,
  PUBLISHED_KEY_PATTERN,
  SOFTWARE_PATTERN,
} from '#directory/documents'
import { isMember } from '#directory/family'
import { MAX_BANDWIDTH } from '#directory/measurement'
import { Ipv4Text, KeyText, Moment, PinnedKeyText, schemaProblem } from '#directory/schemas'
import { formatExitPolicy, MAX_EXIT_RULES, parseExitPolicy } from '#nat/exit-policy'

/** In this order in every document. */
export const NODE_ROLES: readonly NodeRole[] = ['entry', 'middle', 'exit']

/** What a node says beside its identity. */
export type DescriptorFields = Omit<NodeDescriptor, 'nodeId' | 'identityKey'>

/** A descriptor together with the exact text that was signed. */
export interface SignedDescriptor {
  readonly descriptor: NodeDescriptor
  readonly text: string
}

/**
 * Signs. What comes out was read back, so a node cannot publish what others refuse.
 * Errors: those of `decodeDescriptor`.
 */
export function encodeDescriptor(
  fields: DescriptorFields,
  identity: KeyPair,
  crypto: CryptoProvider,
): Result<SignedDescriptor> {
  const body: Body = {
    version: 1,
    identityKey: toHex(identity.publicKey),
    ikeKey: toHex(fields.ikeKey),
    ...(fields.ecdsaKey === undefined ? {} : { ecdsaKey: toHex(fields.ecdsaKey) }),
    ...(fields.ike === undefined ? {} : { ike: { method: fields.ike.method, key: fields.ike.key } }),
    name: fields.name,
    address: fields.address,
    port: fields.port,
    roles: NODE_ROLES.filter((role) => fields.roles.includes(role)),
    exitPolicy: [...formatExitPolicy(fields.exitPolicy)],
    published: fields.published,
    software: fields.software,
    ...(fields.declared === undefined ? {} : { declared: fields.declared }),
    ...(fields.family === undefined
      ? {}
      : { family: { key: toHex(fields.family.key), proof: toHex(fields.family.proof) } }),
  }
  const sealed = sealDocument('descriptor', body, [identity], crypto)
  if (!sealed.ok) return sealed
  const decoded = decodeDescriptor(utf8(sealed.value), crypto)
  return decoded.ok ? success({ descriptor: decoded.value, text: sealed.value }) : decoded
}

/**
 * Verifies and reads. Whether `published` is acceptable now is for the caller to say.
 * Errors: IPP_DIR_OVERSIZED, IPP_DIR_MALFORMED, IPP_DIR_BAD_SIGNATURE, IPP_DIR_IDENTITY.
 */
export function decodeDescriptor(document: Uint8Array, crypto: CryptoProvider): Result<NodeDescriptor> {
  const envelope = openDocument('descriptor', document)
  if (!envelope.ok) return envelope
  const signer = envelope.value.signatures[0]!.key
  if (countSignatures(envelope.value, [signer], crypto) !== 1)
    return failure('IPP_DIR_BAD_SIGNATURE', 'descriptor: the signature does not verify')
  const parsed = parseBody(envelope.value)
  if (!parsed.ok) return parsed
  const body = parsed.value
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  const identityKey = fromHex(body.identityKey)
  if (!equalBytes(identityKey, signer))
    return failure('IPP_DIR_IDENTITY', 'descriptor: it is signed by another key than its identityKey')
  const ikeKey = fromHex(body.ikeKey)
  if (readPublicKey(ikeKey) === undefined)
    return malformed('ikeKey: expected a key of a kind that is verified')
  const ecdsaKey = body.ecdsaKey === undefined ? undefined : fromHex(body.ecdsaKey)
  if (ecdsaKey !== undefined && !isP256(ecdsaKey)) return malformed('ecdsaKey: expected an ECDSA P-256 key')
  const address = parseIp(body.address)
  if (address === undefined || UNUSABLE.some((p) => contains(p, address)))
    return malformed('address: expected the IPv4 address of a host')
  const roles = NODE_ROLES.filter((role) => body.roles.includes(role))
  if (roles.length !== body.roles.length || roles.some((role, i) => role !== body.roles[i]))
    return malformed('roles: expected each at most once, in the order entry, middle, exit')
  const exitPolicy = parseExitPolicy(body.exitPolicy)
  if (!exitPolicy.ok) return malformed(`exitPolicy: ${exitPolicy.where}`)
  const odd = formatExitPolicy(exitPolicy.value).findIndex((rule, i) => rule !== body.exitPolicy[i])
  if (odd >= 0) return malformed(`exitPolicy: rule ${odd + 1} is not in canonical form`)
  const family = body.family && { key: fromHex(body.family.key), proof: fromHex(body.family.proof) }
  if (family !== undefined && !isMember(identityKey, family, crypto))
    return failure('IPP_DIR_IDENTITY', 'descriptor: it is of no family that says so')
  return success({
    nodeId: nodeIdOf(identityKey, crypto),
    identityKey,
    ikeKey,
    ...(ecdsaKey === undefined ? {} : { ecdsaKey }),
    ...(body.ike === undefined ? {} : { ike: body.ike }),
    name: body.name,
    address,
    port: body.port,
    roles,
    exitPolicy: exitPolicy.value,
    published: body.published as UnixTime,
    software: body.software,
    ...(body.declared === undefined ? {} : { declared: body.declared }),
    ...(family === undefined ? {} : { family }),
  })
}

/** A node is the hash of its identity key. */
export const nodeIdOf = (identityKey: Uint8Array, crypto: CryptoProvider): NodeId =>
  nodeIdFromBytes(crypto.hash('sha256', identityKey))

/** Do two descriptors of one node differ in nothing that a path or a tunnel depends on? Date and software do not count. */
export function sameSubstance(a: NodeDescriptor, b: NodeDescriptor): boolean {
  return (
    a.nodeId === b.nodeId &&
    equalBytes(a.ikeKey, b.ikeKey) &&
    equalBytes(a.ecdsaKey ?? NOTHING, b.ecdsaKey ?? NOTHING) &&
    a.ike?.key === b.ike?.key &&
    a.name === b.name &&
    a.address === b.address &&
    a.port === b.port &&
    a.roles.join() === b.roles.join() &&
    a.declared === b.declared &&
    equalBytes(a.family?.key ?? NOTHING, b.family?.key ?? NOTHING) &&
    formatExitPolicy(a.exitPolicy).join() === formatExitPolicy(b.exitPolicy).join()
  )
}

const Body = Type.Object(
  {
    version: Type.Literal(1),
    identityKey: KeyText,
    ikeKey: PinnedKeyText,
    ecdsaKey: Type.Optional(PinnedKeyText),
    ike: Type.Optional(
      Type.Object(
        { method: Type.Literal('psk'), key: Type.String({ pattern: PUBLISHED_KEY_PATTERN }) },
        { additionalProperties: false },
      ),
    ),
    name: Type.String({ pattern: '^[a-z0-9-]{1,19}$' }),
    address: Ipv4Text,
    port: Type.Integer({ minimum: 1, maximum: 65535 }),
    roles: Type.Array(Type.Union([Type.Literal('entry'), Type.Literal('middle'), Type.Literal('exit')]), {
      minItems: 1,
      maxItems: 3,
    }),
    exitPolicy: Type.Array(Type.String({ pattern: '^[a-z0-9./ -]{1,60}$' }), { maxItems: MAX_EXIT_RULES }),
    published: Moment,
    software: Type.String({ pattern: SOFTWARE_PATTERN }),
    declared: Type.Optional(Type.Integer({ minimum: 0, maximum: MAX_BANDWIDTH })),
    family: Type.Optional(
      Type.Object(
        { key: KeyText, proof: Type.String({ pattern: '^[0-9a-f]{128}$' }) },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
)
type Body = Static<typeof Body>
const validator = Compile(Body)

const NOTHING = new Uint8Array(0)

function isP256(spki: Uint8Array): boolean {
  const key = readPublicKey(spki)
  return key?.kind === 'ecdsa' && key.curve === 'p256'
}

/** No node can be reached there. Private networks are allowed: a laboratory may live in one. */
const UNUSABLE = ['0.0.0.0/8', '127.0.0.0/8', '224.0.0.0/3'].map(prefix)

const malformed = (where: string) => failure('IPP_DIR_MALFORMED', `descriptor: ${where}`)
