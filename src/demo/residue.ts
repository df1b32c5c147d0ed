import type { Commands } from '#demo/command'
import { type Host, inNamespace } from '#demo/topology'

/**
 * What a host holds that a daemon could leave behind: SAs, policies, devices, addresses, routes, rules,
 * packet-filter rules (nftables and iptables), the kernel's network settings, one line each. Taken before the
 * daemons and after.
 */
export async function inventory(commands: Commands, host: Host): Promise<ReadonlySet<string>> {
  const { stdout } = await commands.run(inNamespace(host.namespace, 'sh', '-s'), { input: SCRIPT })
  return new Set(
    stdout
      .split('\n')
      .map(normalised)
      .filter((line) => line !== ''),
  )
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
 * One ip(8) for as much as it takes at once (`-o`: one object per line), because starting programs is what costs
 * in User-Mode Linux; its lists of SAs and policies end a batch. A front end that this kernel does not have says so on stderr, and there is nothing of it.
 */
const SCRIPT = `exec 2>/dev/null
ip -o xfrm state
ip -o xfrm policy
ip -o -force -batch - <<END
link show
addr show
route show table all
rule show
END
nft list ruleset
iptables-legacy-save
ip6tables-legacy-save
cd /proc/sys/net/ipv4 && grep -r . ip_forward conf/all conf/default conf/eth0
exit 0
`

/** Empty for lines that say nothing: comments, built-in chains. Without what changes by itself: counters, link state. */
function normalised(line: string): string {
  if (/^(#|\*|COMMIT|:[A-Z]+ (ACCEPT|DROP))/.test(line)) return ''
  return line
    .replace(/\[\d+:\d+\]/, '')
    .replace(/packets \d+ bytes \d+/, '')
    .replace(/^\d+: (\S+: )<[^>]*> (mtu \d+) .*/, 'device $1$2')
    .replace(/^\d+: /, '')
    .slice(0, 160)
    .trim()
}
