import type { Commands } from '#demo/command'
import { type Host, inNamespace } from '#demo/topology'

/**
 * What a host holds that a daemon could leave behind: SAs, policies, devices, addresses, routes, rules,
 * packet-filter rules (nftables and iptables), the kernel settings of forwarding, one line each. Taken before the daemons and after.
 */
export async function inventory(commands: Commands, host: Host): Promise<ReadonlySet<string>> {
  const { stdout } = await commands.run(inNamespace(host.namespace, 'sh', '-s'), { input: SCRIPT })
  return new Set(stdout.split('\n').filter((line) => line.trim() !== ''))
}

/** What is there now and was not before, and what was there and is gone (marked with a minus). */
export function residue(before: ReadonlySet<string>, now: ReadonlySet<string>): string[] {
  const added = [...now].filter((line) => !before.has(line))
  const lost = [...before].filter((line) => !now.has(line)).map((line) => `-${line}`)
  return [...added, ...lost]
}

/** Processes still running in the namespace, as command lines. */
export async function processesIn(commands: Commands, host: Host): Promise<string[]> {
  const script = 'for p in $(ip netns pids "$0"); do tr "\\0" " " </proc/$p/cmdline; echo; done'
  const { stdout } = await commands.run(['sh', '-c', script, host.namespace], { check: false })
  return stdout.split('\n').filter((line) => line.trim() !== '')
}

/**
 * `-o` prints one object per line. Counters are cut off: only what is there matters. A front end that this
 * kernel does not have says so on stderr, and then there is nothing of it.
 */
const SCRIPT = `exec 2>/dev/null
ip -o xfrm state | cut -c -120 | sed 's/^/SA: /'
ip -o xfrm policy | cut -c -160 | sed 's/^/policy: /'
ip -o link | sed 's/^[0-9]*: /device: /; s/: <[^>]*>//; s/ qdisc .*//'
ip -o addr | sed 's/^[0-9]*: /address: /'
ip route show table all | sed 's/^/route: /'
ip rule | sed 's/^/rule: /'
nft list ruleset | sed '/^[[:space:]]*$/d; s/packets [0-9]* bytes [0-9]*//; s/^/nft: /'
iptables-legacy-save | grep -E '^-A|^:[^ ]+ -' | sed 's/^/iptables: /'
ip6tables-legacy-save | grep -E '^-A|^:[^ ]+ -' | sed 's/^/ip6tables: /'
grep -rH . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf | sed 's/^/sysctl: /'
exit 0
`
