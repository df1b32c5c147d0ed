/** What a node asks of the network of its host: the packet filter, and where private addresses lead. */
import { type Prefix, samePrefix } from '#base/ip'
import type { Consensus } from '#directory/documents'
import { nodeRules } from '#nat/rulesets'
import { mtuOf } from '#overlay/parameters'
import type { HostOperation, RouteSpec } from '#overlay/ports'
import type { RouterOptions } from '#overlay/router-events'
import { PATH_MTU } from '#telescope/mtu'

/** Clients are forwarded to the other nodes of the consensus only; without one, to nobody. */
export function nodeFilter(
  { nodeId, exitPolicy, roles, context, isRouter = false, cache }: RouterOptions,
  consensus: Consensus | undefined,
  pool: Prefix | undefined,
): HostOperation {
  const others = (consensus?.nodes ?? []).filter((node) => node.nodeId !== nodeId)
  const neighbours = others.map((node) => node.address)
  const poolSpace = consensus?.poolSpace
  return {
    kind: 'firewall.set',
    rules: nodeRules({
      poolSpace,
      pool,
      neighbours,
      exitPolicy,
      roles,
      context,
      isRouter,
      mtu: mtuOf(consensus),
      ...(cache && { cache }),
    }),
  }
}

/**
 * All private space leads into the plane's device. The kernel asks the route of every layer how much fits: of what is
 * for our own clients the MTU inside, of what carries it to the node before us all that a cable takes.
 */
export function privateRoutes(
  { context }: Pick<RouterOptions, 'context'>,
  consensus: Consensus,
  pool: Prefix,
): RouteSpec[] {
  const { poolSpace } = consensus
  if (context.plane === 'userspace') return [{ destination: poolSpace, via: 'overlay' }]
  return [
    { destination: poolSpace, via: 'overlay', mtu: PATH_MTU },
    ...(samePrefix(pool, poolSpace)
      ? []
      : [{ destination: pool, via: 'overlay', mtu: mtuOf(consensus) } as const]),
  ]
}
