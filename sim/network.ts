/** Made-up networks with the habits of real ones, and adversaries in them. The same seed gives the same network. */
import type { NodeId } from '#base/ids'
import { prefix, uint32ToIp } from '#base/ip'
import { unixTime } from '#base/time'
import type { Consensus, ConsensusNode, NodeFlag, NodeRole } from '#directory/documents'
import { DEFAULT_EXIT_POLICY } from '#nat/exit-policy'
import { seededRng } from './random.ts'

/**
 * Bandwidth is heavy-tailed (a tenth of the nodes has most of it), hosters share networks, a fifth of the nodes are
 * exits, half of them guards, a tenth is of some family.
 */
export function honestNodes(count: number, seed: number): ConsensusNode[] {
  const rng = seededRng(seed)
  const pick = (bound: number) => Math.floor(rng.fraction() * bound)
  return Array.from({ length: count }, (_, i) => {
    const bandwidth = Math.min(1_000_000, Math.round(4000 * (1 - rng.fraction()) ** -0.7))
    const exit = rng.fraction() < 0.2
    const guard = bandwidth > 4000 && rng.fraction() < 0.75
    const operator = rng.fraction() < 0.1 ? 1 + pick(Math.max(1, count / 40)) : 0
    // Square: few networks have many nodes.
    const network = Math.floor(rng.fraction() ** 2 * count * 0.6)
    return listed(i, network, bandwidth, { guard, exit, operator })
  })
}

/**
 * Nodes of one adversary that do not admit to be a family, with this share of all bandwidth: half of it as guards, half
 * as exits, where it is of most use, and each in a network of its own.
 */
export function adversaryNodes(honest: readonly ConsensusNode[], share: number, count = 20): ConsensusNode[] {
  if (share === 0) return []
  const total = honest.reduce((sum, { bandwidth = 0 }) => sum + bandwidth, 0)
  const each = Math.round((total * share) / (1 - share) / count)
  return Array.from({ length: count }, (_, i) =>
    listed(honest.length + i, 40_000 + i, each, { guard: i % 2 === 0, exit: i % 2 === 1, operator: 0 }),
  )
}

/** Day 0 is not 1970: guards are kept for months before it, too. */
export const consensusOf = (nodes: readonly ConsensusNode[], day: number): Consensus => ({
  validAfter: unixTime((1000 + day) * 86_400),
  freshUntil: unixTime((1000 + day) * 86_400 + 3600),
  validUntil: unixTime((1000 + day) * 86_400 + 3 * 3600),
  serial: 1 + day,
  poolSpace: prefix('10.0.0.0/8'),
  nodes,
})

function listed(
  index: number,
  network: number,
  bandwidth: number,
  { guard, exit, operator }: { guard: boolean; exit: boolean; operator: number },
): ConsensusNode {
  const flags: NodeFlag[] = ['running', 'valid', 'fast', 'stable']
  if (guard) flags.push('guard')
  if (exit) flags.push('exit')
  const roles: NodeRole[] = exit ? ['entry', 'middle', 'exit'] : ['entry', 'middle']
  return {
    nodeId: index.toString(16).padStart(64, '0') as NodeId,
    identityKey: NONE,
    ikeKey: NONE,
    name: `n${index}`,
    address: uint32ToIp((0x0100_0000 + (network << 16) + 1 + index) >>> 0),
    port: 500,
    roles,
    exitPolicy: exit ? DEFAULT_EXIT_POLICY : [],
    published: unixTime(0),
    software: 'simulated',
    pool: { address: uint32ToIp(0x0a00_0000 + index * 256), length: 24 },
    flags,
    bandwidth,
    ...(operator === 0
      ? {}
      : { family: { key: new Uint8Array([operator & 255, operator >> 8]), proof: NONE } }),
  }
}

const NONE = new Uint8Array(32)
