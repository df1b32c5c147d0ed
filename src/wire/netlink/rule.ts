/** Rules of the routing policy database (linux/fib_rules.h), IPv4: which packets ask which table. */
import { type Ip, ipToBytes, type Prefix } from '#base/ip'
import {
  type Attribute,
  attribute,
  attributeU32,
  decodeAttributes,
  encodePayload,
  readU32,
} from '#wire/netlink/attributes'
import { LITTLE_ENDIAN, viewOf } from '#wire/netlink/message'

export interface Rule {
  readonly priority: number
  readonly table: number
  /** Who made it, in the numbers of routes; Linux 4.17. */
  readonly protocol: number
  /** User id of the socket a packet comes from. */
  readonly user?: number
  readonly mark?: number
  readonly destination?: Prefix
  /** Routes with a prefix of this length or a shorter one are not taken. */
  readonly suppressPrefix?: number
}

const AF_INET = 2
const FRA = {
  destination: 1,
  priority: 6,
  mark: 10,
  suppressPrefix: 14,
  table: 15,
  markMask: 16,
  uidRange: 20,
  protocol: 21,
} as const
/** FR_ACT_TO_TBL */
const TO_TABLE = 1
const RULE_LENGTH = 12

/** Payload of NEWRULE and DELRULE. */
export function encodeRule(rule: Rule): Uint8Array {
  const { destination, user, mark, suppressPrefix } = rule
  const attributes: Attribute[] = [
    attributeU32(FRA.priority, rule.priority),
    attributeU32(FRA.table, rule.table),
    attribute(FRA.protocol, Uint8Array.of(rule.protocol)),
  ]
  if (destination !== undefined && destination.length > 0)
    attributes.push(attribute(FRA.destination, ipToBytes(destination.address as Ip)))
  if (mark !== undefined) attributes.push(attributeU32(FRA.mark, mark), attributeU32(FRA.markMask, ALL_BITS))
  if (user !== undefined) attributes.push(attribute(FRA.uidRange, uidRange(user)))
  if (suppressPrefix !== undefined) attributes.push(attributeU32(FRA.suppressPrefix, suppressPrefix))
  return encodePayload(header(destination?.length ?? 0, rule.table < 256 ? rule.table : 0), attributes)
}

/** Payload of GETRULE with DUMP: every IPv4 rule. */
export const encodeRuleDump = (): Uint8Array => header(0, 0)

/** What tells ours apart. Undefined when malformed, or not IPv4. */
export function decodeRule(payload: Uint8Array): Pick<Rule, 'priority' | 'table' | 'protocol'> | undefined {
  if (payload.length < RULE_LENGTH || payload[0] !== AF_INET) return undefined
  const attributes = decodeAttributes(payload, RULE_LENGTH)
  if (attributes === undefined) return undefined
  return {
    priority: readU32(attributes.get(FRA.priority)) ?? 0,
    table: readU32(attributes.get(FRA.table)) ?? payload[4]!,
    protocol: attributes.get(FRA.protocol)?.[0] ?? 0,
  }
}

const ALL_BITS = 0xffff_ffff

/** `fib_rule_hdr`: family, dst len, src len, tos, table, two of nothing, action: all u8; flags u32. */
function header(destinationLength: number, table: number): Uint8Array {
  const fixed = new Uint8Array(RULE_LENGTH)
  fixed.set([AF_INET, destinationLength, 0, 0, table, 0, 0, TO_TABLE])
  return fixed
}

/** `fib_rule_uid_range`: first and last. */
function uidRange(user: number): Uint8Array {
  const range = new Uint8Array(8)
  const view = viewOf(range)
  view.setUint32(0, user, LITTLE_ENDIAN)
  view.setUint32(4, user, LITTLE_ENDIAN)
  return range
}
