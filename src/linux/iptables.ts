/**
 * iptables-legacy backend, for kernels without the nftables inet family (User-Mode Linux among them).
 * A rule set becomes chains of our own, `IPPRIV-C-*` for the client and `IPPRIV-N-*` for a node, entered by
 * one jump at the head of the built-in chain. `iptables-legacy-restore --noflush` commits each table at once
 * and declaring a chain flushes it in the same commit: a predecessor's chains are replaced, never opened.
 */
import { access } from 'node:fs/promises'
import { formatPrefix } from '#base/ip'
import { runTool } from '#linux/tool'
import type { Chain, FilterContext, Match, Rule, RuleSet, Verdict } from '#nat/rules'

const TABLES = ['filter', 'nat', 'mangle'] as const
type Table = (typeof TABLES)[number]
type Family = 'ipv4' | 'ipv6'

/** Where a chain lives: its table and the built-in chain that jumps to it. */
const HOOKS: Readonly<Record<Chain['hook'], { table: Table; builtin: string; suffix: string }>> = {
  input: { table: 'filter', builtin: 'INPUT', suffix: 'IN' },
  forward: { table: 'filter', builtin: 'FORWARD', suffix: 'FWD' },
  output: { table: 'filter', builtin: 'OUTPUT', suffix: 'OUT' },
  postrouting: { table: 'nat', builtin: 'POSTROUTING', suffix: 'POST' },
  mss: { table: 'mangle', builtin: 'FORWARD', suffix: 'MSS' },
}

const TOOL: Readonly<Record<Family, string>> = { ipv4: 'iptables-legacy', ipv6: 'ip6tables-legacy' }

/** Seconds to wait for another program that holds the lock of the tables. */
const WAIT = '5'

/** @throws IpprivError IPP_HOST_TOOL with what iptables printed. */
export async function applyIptables(rules: RuleSet, context: FilterContext): Promise<void> {
  // IPv6 first: should it fail, nothing was opened yet.
  if (await kernelHasIpv6()) await restore('ipv6', rules, context)
  await restore('ipv4', rules, context)
}

/** Removes the owner's chains and the jumps to them; harmless when there are none. */
export async function clearIptables(owner: RuleSet['owner']): Promise<void> {
  for (const family of ['ipv4', 'ipv6'] as const) {
    if (family === 'ipv6' && !(await kernelHasIpv6())) continue
    const text = renderRemoval(owner, await runTool(`${TOOL[family]}-save`, []))
    if (text !== '') await runTool(`${TOOL[family]}-restore`, ['--noflush', '-w', WAIT], text)
  }
}

/** Asks whether the kernel and the tool take these rules, without changing anything. */
export async function checkIptables(rules: RuleSet, context: FilterContext): Promise<void> {
  await runTool(
    'iptables-legacy-restore',
    ['--test', '--noflush'],
    renderIptables(rules, context, 'ipv4', new Set()),
  )
}

async function restore(family: Family, rules: RuleSet, context: FilterContext): Promise<void> {
  const jumping = jumpsOf(rules, await runTool(`${TOOL[family]}-save`, []))
  const text = renderIptables(rules, context, family, jumping)
  await runTool(`${TOOL[family]}-restore`, ['--noflush', '-w', WAIT], text)
}

/** The hooks whose built-in chain jumps to ours already, from what `iptables-save` printed. */
function jumpsOf(rules: RuleSet, saved: string): ReadonlySet<string> {
  const lines = new Set(saved.split('\n'))
  const hooks = rules.chains.map((chain) => chain.hook)
  return new Set(
    hooks.filter((hook) => lines.has(`-A ${HOOKS[hook].builtin} -j ${chainName(rules.owner, hook)}`)),
  )
}

/**
 * Text for iptables-restore. `jumping` names the hooks whose built-in chain already jumps to ours: that jump is
 * taken out and put in again at the head, in the same commit. Only the IPv4 rules are written for `ipv4`; for
 * `ipv6`, those that name no IPv4 address.
 */
export function renderIptables(
  rules: RuleSet,
  context: FilterContext,
  family: Family,
  jumping: ReadonlySet<string>,
): string {
  const sections: string[] = []
  for (const table of TABLES) {
    const chains = rules.chains.filter(
      (chain) => HOOKS[chain.hook].table === table && (family === 'ipv4' || table === 'filter'),
    )
    if (chains.length === 0) continue
    const lines = [`*${table}`]
    for (const chain of chains) lines.push(`:${chainName(rules.owner, chain.hook)} - [0:0]`)
    for (const chain of chains) {
      const name = chainName(rules.owner, chain.hook)
      for (const rule of chain.rules) lines.push(...renderRule(name, rule, chain, context, family))
      lines.push(`-A ${name} -j ${chain.policy === 'drop' ? 'DROP' : 'RETURN'}`)
      const { builtin } = HOOKS[chain.hook]
      if (jumping.has(chain.hook)) lines.push(`-D ${builtin} -j ${name}`)
      lines.push(`-I ${builtin} 1 -j ${name}`)
    }
    lines.push('COMMIT')
    sections.push(lines.join('\n'))
  }
  return `${sections.join('\n')}\n`
}

/** What removes an owner's chains from the tables that `iptables-save` printed; empty when none is there. */
export function renderRemoval(owner: RuleSet['owner'], saved: string): string {
  const prefix = chainPrefix(owner)
  const sections = saved.split(/^COMMIT$/m).map((section) => {
    const lines = section.split('\n')
    const table = lines.find((line) => line.startsWith('*'))
    const chains = lines.flatMap((line) => {
      const name = /^:(\S+) /.exec(line)?.[1]
      return name?.startsWith(prefix) ? [name] : []
    })
    if (table === undefined || chains.length === 0) return ''
    const jumps = lines.filter((line) => / -j (\S+)$/.exec(line)?.[1]?.startsWith(prefix))
    return `${[
      table,
      ...jumps.map((line) => line.replace(/^-A/, '-D')),
      ...chains.map((name) => `-F ${name}`),
      ...chains.map((name) => `-X ${name}`),
      'COMMIT',
    ].join('\n')}\n`
  })
  return sections.join('')
}

const chainPrefix = (owner: RuleSet['owner']): string =>
  owner === 'ippriv_client' ? 'IPPRIV-C-' : 'IPPRIV-N-'
const chainName = (owner: RuleSet['owner'], hook: Chain['hook']): string =>
  `${chainPrefix(owner)}${HOOKS[hook].suffix}`

/** One rule may become several lines (one per address), all with the same verdict. */
function renderRule(
  name: string,
  rule: Rule,
  chain: Chain,
  context: FilterContext,
  family: Family,
): readonly string[] {
  if (rule.matches.some((match) => familyOf(match) !== undefined && familyOf(match) !== family)) return []
  if (family === 'ipv6' && rule.verdict.kind === 'masquerade') return []
  // `-p` may be said once only and must stand before the options it brings.
  const protocol = rule.matches.map(protocolOf).find((p) => p !== undefined)
  let lines = [protocol === undefined ? `-A ${name}` : `-A ${name} -p ${protocol}`]
  for (const match of rule.matches) {
    const choices = renderMatch(match, chain, context)
    lines = lines.flatMap((line) => choices.map((choice) => (choice === '' ? line : `${line} ${choice}`)))
  }
  const target = renderVerdict(rule.verdict, family)
  return lines.map((line) => `${line} ${target}`)
}

function protocolOf(match: Match): string | undefined {
  switch (match.kind) {
    case 'protocol':
    case 'source-port':
    case 'destination-port':
      return match.protocol
    case 'icmp-type':
      return 'icmp'
    default:
      return undefined
  }
}

/** The ways in which one match can hold: any of them. */
function renderMatch(match: Match, chain: Chain, context: FilterContext): readonly string[] {
  switch (match.kind) {
    case 'source':
    case 'destination': {
      const flag = match.kind === 'source' ? '-s' : '-d'
      if (match.negate) {
        if (match.prefixes.length !== 1) throw new RangeError('iptables negates one prefix only')
        return [`! ${flag} ${formatPrefix(match.prefixes[0]!)}`]
      }
      if (match.prefixes.some((prefix) => prefix.length === 0)) return ['']
      return match.prefixes.map((prefix) => `${flag} ${formatPrefix(prefix)}`)
    }
    case 'protocol':
    case 'ipv6':
      return ['']
    case 'source-port':
    case 'destination-port': {
      // multiport takes 15 numbers, a range counting as two: more than we ever name in one rule.
      const list = match.ports.map(portText)
      const flag = match.kind === 'source-port' ? '--sports' : '--dports'
      return [`-m multiport ${match.negate ? '! ' : ''}${flag} ${list.join(',')}`]
    }
    case 'icmp-type':
      return [`-m icmp --icmp-type ${match.type}${match.code === undefined ? '' : `/${match.code}`}`]
    case 'input-device':
      return [`${match.negate ? '! ' : ''}-i ${match.device}`]
    case 'output-device':
      return [`${match.negate ? '! ' : ''}-o ${match.device}`]
    case 'mark':
      return [`-m mark --mark 0x${match.mark.toString(16)}`]
    case 'state':
      return [
        `-m conntrack ${match.negate ? '! ' : ''}--ctstate ${match.states.map((s) => s.toUpperCase()).join(',')}`,
      ]
    case 'from-telescope':
      return context.plane === 'xfrm'
        ? [`-m policy --dir in --pol ${match.negate ? 'none' : 'ipsec'}`]
        : [`${match.negate ? '! ' : ''}-i ${context.device}`]
    case 'into-telescope':
      return context.plane === 'xfrm'
        ? [`-m policy --dir out --pol ${match.negate ? 'none' : 'ipsec'}`]
        : [`${match.negate ? '! ' : ''}-o ${context.device}`]
    case 'loopback':
      return [chain.hook === 'input' ? '-i lo' : '-o lo']
  }
}

/** A range of one port is "invalid" to multiport. */
const portText = (port: number | readonly [number, number]): string =>
  typeof port === 'number' ? `${port}` : port[0] === port[1] ? `${port[0]}` : `${port[0]}:${port[1]}`

function renderVerdict(verdict: Verdict, family: Family): string {
  switch (verdict.kind) {
    case 'accept':
      // Not ACCEPT: the host's own rules still have their say, as with two nftables tables.
      return '-j RETURN'
    case 'drop':
      return '-j DROP'
    case 'reject':
      return `-j REJECT --reject-with ${family === 'ipv4' ? 'icmp-admin-prohibited' : 'icmp6-adm-prohibited'}`
    case 'masquerade':
      return '-j MASQUERADE --random-fully'
    case 'clamp-mss':
      return `-m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss ${verdict.mss}`
  }
}

/** The family a match confines a rule to; undefined: it holds in both. */
function familyOf(match: Match): Family | undefined {
  switch (match.kind) {
    case 'source':
    case 'destination':
    case 'icmp-type':
      return 'ipv4'
    case 'ipv6':
      return 'ipv6'
    default:
      return undefined
  }
}

/** /proc/net/if_inet6 is there exactly when the kernel speaks IPv6 in this network namespace. */
async function kernelHasIpv6(): Promise<boolean> {
  try {
    await access('/proc/net/if_inet6')
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
