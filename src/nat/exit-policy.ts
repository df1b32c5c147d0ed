/**
 * Exit policy: which destinations an exit node connects its clients to. First match decides; nothing matched
 * means refused.
 *
 *     rule = action SP prefix [ SP protocol [ SP port [ "-" port ] ] ]
 *     action = "accept" / "reject"      protocol = "tcp" / "udp" / "icmp"      port only with tcp and udp
 *
 * One canonical text per rule: a descriptor is signed, so `formatExitRule(parseExitRule(t))` is `t` for every
 * text `formatExitRule` can produce, and a bare address is written as /32.
 */
import { contains, formatPrefix, type Ip, type Prefix, parsePrefix, prefix } from '#base/ip'
import type { ExitPolicy, ExitRule } from '#nat/rules'

/** `where` says which part of which line was wrong, for people. */
export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly where: string }

/** More rules than this are refused: a policy is rendered into packet-filter rules and into every consensus. */
export const MAX_EXIT_RULES = 64

export function parseExitRule(text: string): Parsed<ExitRule> {
  const words = text.trim().split(/[ \t]+/)
  const [action, destinationText, protocol, portText] = words
  if (action !== 'accept' && action !== 'reject')
    return refused(`expected "accept" or "reject", found ${quote(action)}`)
  const destination = destinationText === undefined ? undefined : parsePrefix(destinationText)
  if (destination === undefined)
    return refused(`expected an IPv4 prefix such as 192.0.2.0/24, found ${quote(destinationText)}`)
  if (protocol === undefined) return accepted({ action, destination })
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'icmp')
    return refused(`expected "tcp", "udp" or "icmp", found ${quote(protocol)}`)
  if (portText === undefined) return accepted({ action, destination, protocol })
  if (protocol === 'icmp')
    return refused(`expected the end of the rule, found ${quote(portText)}: icmp has no ports`)
  const ports = parsePorts(portText)
  if (ports === undefined)
    return refused(`expected a port or a range such as 80-443, found ${quote(portText)}`)
  if (words.length > 4) return refused(`expected the end of the rule, found ${quote(words[4])}`)
  return accepted({ action, destination, protocol, ports })
}

/** Parses the lines of a policy in order; the first bad one is named by its number, counted from 1. */
export function parseExitPolicy(lines: readonly string[]): Parsed<ExitPolicy> {
  if (lines.length > MAX_EXIT_RULES)
    return refused(`expected at most ${MAX_EXIT_RULES} rules, found ${lines.length}`)
  const rules: ExitRule[] = []
  for (const [index, line] of lines.entries()) {
    const rule = parseExitRule(line)
    if (!rule.ok) return refused(`rule ${index + 1}: ${rule.where}`)
    rules.push(rule.value)
  }
  return { ok: true, value: rules }
}

export function formatExitRule(rule: ExitRule): string {
  const head = `${rule.action} ${formatPrefix(rule.destination)}`
  if (rule.protocol === undefined) return head
  if (rule.ports === undefined) return `${head} ${rule.protocol}`
  const [first, last] = rule.ports
  return `${head} ${rule.protocol} ${first === last ? first : `${first}-${last}`}`
}

export const formatExitPolicy = (policy: ExitPolicy): readonly string[] => policy.map(formatExitRule)

/**
 * What no exit may reach unless its operator says so: destinations that are the exit's own network rather
 * than the Internet, and mail submission without a login.
 * 198.18.0.0/15 (benchmarking, RFC 2544) is not refused: test networks live there and nothing else does.
 */
export const PROTECTED_DESTINATIONS: ExitPolicy = [
  ...[
    '0.0.0.0/8', // "this network", RFC 791 section 3.2
    '10.0.0.0/8', // private, RFC 1918; the overlay's own pools too
    '100.64.0.0/10', // carrier-grade NAT, RFC 6598
    '127.0.0.0/8', // loopback, RFC 1122 section 3.2.1.3
    '169.254.0.0/16', // link local, RFC 3927; cloud metadata services
    '172.16.0.0/12', // private, RFC 1918
    '192.168.0.0/16', // private, RFC 1918
    '224.0.0.0/4', // multicast, RFC 5771
    '240.0.0.0/4', // reserved and broadcast, RFC 1112 section 4
  ].map((text): ExitRule => ({ action: 'reject', destination: prefix(text) })),
  { action: 'reject', destination: prefix('0.0.0.0/0'), protocol: 'tcp', ports: [25, 25] },
]

export const DEFAULT_EXIT_POLICY: ExitPolicy = [
  ...PROTECTED_DESTINATIONS,
  { action: 'accept', destination: prefix('0.0.0.0/0') },
]

/**
 * The policy of an exit whose operator wrote `own` rules: the protections stand in front of them (so that
 * `accept 0.0.0.0/0 tcp 80` does not open the operator's own network), unless `protect` is false.
 */
export function exitPolicyOf(own: ExitPolicy | undefined, protect = true): ExitPolicy {
  if (own === undefined) return DEFAULT_EXIT_POLICY
  return protect ? [...PROTECTED_DESTINATIONS, ...own] : own
}

export interface ExitQuery {
  readonly destination: Ip
  readonly protocol: 'tcp' | 'udp' | 'icmp'
  /** Absent for icmp. A rule about ports says nothing about a packet without one. */
  readonly port?: number
}

export function exitAllows(policy: ExitPolicy, query: ExitQuery): boolean {
  for (const rule of policy) if (matches(rule, query)) return rule.action === 'accept'
  return false
}

/** Does the policy let anything at all through? A node with the exit role and none is a configuration error. */
export const exitAllowsAnything = (policy: ExitPolicy): boolean =>
  policy.some(
    (rule, index) => rule.action === 'accept' && !shadowed(policy.slice(0, index), rule.destination),
  )

function matches(rule: ExitRule, query: ExitQuery): boolean {
  if (rule.protocol !== undefined && rule.protocol !== query.protocol) return false
  if (rule.ports !== undefined) {
    if (query.port === undefined || query.port < rule.ports[0] || query.port > rule.ports[1]) return false
  }
  return contains(rule.destination, query.destination)
}

/** Refused whole by one earlier rule. */
const shadowed = (earlier: ExitPolicy, destination: Prefix): boolean =>
  earlier.some(
    (rule) =>
      rule.action === 'reject' &&
      rule.protocol === undefined &&
      rule.destination.length <= destination.length &&
      contains(rule.destination, destination.address),
  )

function parsePorts(text: string): readonly [number, number] | undefined {
  const match = /^(0|[1-9]\d{0,4})(?:-(0|[1-9]\d{0,4}))?$/.exec(text)
  if (match === null) return undefined
  const first = Number(match[1])
  const last = match[2] === undefined ? first : Number(match[2])
  return first <= last && last <= 65535 ? [first, last] : undefined
}

const accepted = <T>(value: T): Parsed<T> => ({ ok: true, value })
const refused = (where: string): { readonly ok: false; readonly where: string } => ({ ok: false, where })
const quote = (text: string | undefined): string =>
  text === undefined ? 'nothing' : JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text)
