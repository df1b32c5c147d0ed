/** Networks for choosing paths in: no keys, only what a choice depends on. */
import type { NodeId } from '#base/ids'
import { prefix, uint32ToIp } from '#base/ip'
import { unixTime } from '#base/time'
import type { Consensus, ConsensusNode, NodeFlag, NodeRole } from '#directory/documents'
import { DEFAULT_EXIT_POLICY, parseExitPolicy } from '#nat/exit-policy'
import { Roster } from '#overlay/roster'
import { seededRng } from '../sim/random.ts'

export const ALL: readonly NodeRole[] = ['entry', 'middle', 'exit']
const NO_KEY = new Uint8Array(32)

export const id = (n: number): NodeId => n.toString(16).padStart(64, '0') as NodeId

/** Each in a /16 of its own, able to be everything. */
export function node(index: number, changes: Partial<ConsensusNode> = {}): ConsensusNode {
  return {
    nodeId: id(index),
    identityKey: NO_KEY,
    ikeKey: NO_KEY,
    name: `n${index}`,
    address: uint32ToIp((0x0100_0001 + (index << 16)) >>> 0),
    port: 500,
    roles: ALL,
    exitPolicy: DEFAULT_EXIT_POLICY,
    published: unixTime(0),
    software: 'ippriv',
    pool: { address: uint32ToIp(0x0a40_0000 + index * 4096), length: 20 },
    ...changes,
  }
}

export const network = (nodes: readonly ConsensusNode[], validAfter = 0): Consensus => ({
  validAfter: unixTime(validAfter),
  freshUntil: unixTime(validAfter + 1),
  validUntil: unixTime(validAfter + 3),
  serial: 1,
  poolSpace: prefix('10.0.0.0/8'),
  nodes,
})

export const roster = (nodes: readonly ConsensusNode[], validAfter = 0): Roster =>
  new Roster(network(nodes, validAfter))

export const family = (digit: number) => ({
  family: { key: new Uint8Array(32).fill(digit + 1), proof: NO_KEY },
})

const WEB = policyOf('accept 0.0.0.0/0 tcp 80', 'accept 0.0.0.0/0 tcp 443')

/**
 * As networks are: many nodes in few networks, most bandwidth in few nodes, exits scarce, families of some.
 * A tenth is flagged as slow, and so on; the same seed gives the same network.
 */
export function generated(
  size: number,
  seed: number,
  { networks = Math.max(4, size / 4), flags = true }: { networks?: number; flags?: boolean } = {},
): ConsensusNode[] {
  const rng = seededRng(seed)
  const pick = (bound: number) => Math.floor(rng.fraction() * bound)
  return Array.from({ length: size }, (_, i) => {
    const bandwidth = Math.round(500 * (1 - rng.fraction()) ** -0.9)
    const roles = ALL.filter((role) => role === 'middle' || rng.fraction() < (role === 'exit' ? 0.3 : 0.6))
    const has: NodeFlag[] = ['running', 'valid']
    if (roles.includes('exit')) has.push('exit')
    if (bandwidth > 600) has.push('fast')
    if (roles.includes('entry') && bandwidth > 1000) has.push('guard')
    return node(i + 1, {
      address: uint32ToIp((0x0100_0000 + (pick(networks) << 16) + 1 + (i % 60_000)) >>> 0),
      roles,
      exitPolicy: roles.includes('exit') ? (rng.fraction() < 0.5 ? WEB : DEFAULT_EXIT_POLICY) : [],
      bandwidth,
      ...(flags ? { flags: has } : {}),
      ...(rng.fraction() < 0.2 ? family(pick(Math.min(250, Math.max(1, size / 10)))) : {}),
    })
  })
}

function policyOf(...lines: string[]) {
  const parsed = parseExitPolicy(lines)
  if (!parsed.ok) throw new Error(parsed.where)
  return parsed.value
}
