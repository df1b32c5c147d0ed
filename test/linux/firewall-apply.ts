/** Run inside a network namespace by firewall.test.ts: applies or clears a rule set given as JSON. */
import { type FirewallBackend, iptablesFirewall, nftFirewall } from '#linux/firewall'
import type { FilterContext, RuleSet } from '#nat/rules'

interface Order {
  readonly backend: FirewallBackend['name']
  readonly context: FilterContext
  readonly apply?: RuleSet
  readonly clear?: RuleSet['owner']
}

const order = JSON.parse(process.argv[2] ?? '') as Order
const firewall = order.backend === 'nft' ? nftFirewall(order.context) : iptablesFirewall(order.context)
if (order.apply !== undefined) await firewall.apply(order.apply)
if (order.clear !== undefined) await firewall.clear(order.clear)
