/** What a node asks of the network of its host: the packet filter, and where private addresses lead. */
import type { Prefix } from '#base/ip'
import type { Consensus } from '#directory/documents'
import { nodeRules } from '#nat/rulesets'
import type { HostOperation, RouteSpec } from '#overlay/ports'
import type { RouterOptions } from '#overlay/router-events'

/** Clients are forwarded to the other nodes of the consensus only; without one, to nobody. */
export function nodeFilter(
  { nodeId, exitPolicy, roles, context, isRouter = false }: RouterOptions,
  consensus: Consensus | undefined,
  pool: Prefix | undefined,
): HostOperation {
  const others = (consensus?.nodes ?? []).filter((node) => node.nodeId !== nodeId)
  const neighbours = others.map((node) => node.address)
  const poolSpace = consensus?.poolSpace
  return {
    kind: 'firewall.set',
    rules: nodeRules({ poolSpace, pool, neighbours, exitPolicy, roles, context, isRouter }),
  }
}

export const privateRoute = ({ poolSpace }: Consensus): RouteSpec => ({
  destination: poolSpace,
  via: 'overlay',
})
