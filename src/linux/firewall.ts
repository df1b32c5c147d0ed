/** Chooses the packet-filter front end of this host, and applies rule sets through it. */
import { errorLine, IpprivError } from '#base/errors'
import { ip, prefix } from '#base/ip'
import { applyIptables, checkIptables, clearIptables } from '#linux/iptables'
import { applyNft, checkNft, clearNft } from '#linux/nft'
import { DEFAULT_EXIT_POLICY } from '#nat/exit-policy'
import type { FilterContext, RuleSet } from '#nat/rules'
import { clientRules, nodeRules } from '#nat/rulesets'

/** One transaction per call; an owner's rules are replaced whole. */
export interface FirewallBackend {
  readonly name: 'nft' | 'iptables-legacy'
  /** @throws IpprivError IPP_HOST_TOOL; the rules that were there before stay in force. */
  apply(rules: RuleSet): Promise<void>
  /** Removes the owner's rules. Idempotent. @throws IpprivError IPP_HOST_TOOL */
  clear(owner: RuleSet['owner']): Promise<void>
}

export function nftFirewall(context: FilterContext): FirewallBackend {
  return { name: 'nft', apply: (rules) => applyNft(rules, context), clear: clearNft }
}

export function iptablesFirewall(context: FilterContext): FirewallBackend {
  return { name: 'iptables-legacy', apply: (rules) => applyIptables(rules, context), clear: clearIptables }
}

export interface FirewallProbe {
  readonly nft: ProbeResult
  readonly iptables: ProbeResult
}
export type ProbeResult = { readonly works: true } | { readonly works: false; readonly why: string }

/**
 * The first front end that takes our rules: nftables, or iptables-legacy where the kernel has no inet family.
 * @throws IpprivError IPP_HOST_TOOL saying why neither works.
 */
export async function chooseFirewall(context: FilterContext): Promise<FirewallBackend> {
  const nft = await probe(checkNft, context)
  if (nft.works) return nftFirewall(context)
  const iptables = await probe(checkIptables, context)
  if (iptables.works) return iptablesFirewall(context)
  throw new IpprivError(
    'IPP_HOST_TOOL',
    `neither nft nor iptables-legacy takes our rules: ${nft.why} | ${iptables.why}`,
  )
}

/** Asks both front ends, changing nothing. Needs CAP_NET_ADMIN. */
export async function probeFirewalls(plane: FilterContext['plane'] = 'userspace'): Promise<FirewallProbe> {
  const context: FilterContext = { plane, device: 'lo', address: ip('127.0.0.1') }
  return { nft: await probe(checkNft, context), iptables: await probe(checkIptables, context) }
}

async function probe(
  check: (rules: RuleSet, context: FilterContext) => Promise<void>,
  context: FilterContext,
): Promise<ProbeResult> {
  try {
    for (const rules of sample(context)) await check(rules, context)
    return { works: true }
  } catch (error) {
    return { works: false, why: error instanceof IpprivError ? error.where : errorLine(error) }
  }
}

/** Rule sets with every kind of match and verdict that the daemons will ask for. */
function sample(context: FilterContext): readonly RuleSet[] {
  const poolSpace = prefix('10.64.0.0/10')
  return [
    clientRules({
      entries: [ip('192.0.2.1')],
      directories: [{ address: ip('192.0.2.2'), port: 9030 }],
      context,
    }),
    nodeRules({
      poolSpace,
      pool: prefix('10.64.0.0/20'),
      exitPolicy: DEFAULT_EXIT_POLICY,
      roles: ['entry', 'middle', 'exit'],
      context,
    }),
  ]
}
