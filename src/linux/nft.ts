/**
 * nftables backend: a rule set becomes one table `inet <owner>`, applied as libnftables JSON by `nft -j -f -`.
 * The whole replacement is one netlink transaction: there is no moment with half of the rules, and a table
 * that a killed predecessor left is replaced, never opened first. `inet` filters IPv6 too.
 */
import type { Prefix } from '#base/ip'
import { runTool } from '#linux/tool'
import type { Chain, FilterContext, Match, Rule, RuleSet, Verdict } from '#nat/rules'

/** Applies a rule set atomically. @throws IpprivError IPP_HOST_TOOL with what nft printed. */
export async function applyNft(rules: RuleSet, context: FilterContext): Promise<void> {
  await runNft('nft -j -f -', renderNft(rules, context))
}

/** Removes the owner's table; harmless when there is none. */
export async function clearNft(owner: RuleSet['owner']): Promise<void> {
  await runNft('nft -j -f -', { nftables: removeTable(owner) })
}

/** Asks the kernel whether it would take these rules, without changing anything. */
export async function checkNft(rules: RuleSet, context: FilterContext): Promise<void> {
  await runNft('nft -j -c -f -', renderNft(rules, context))
}

/** nft opens /dev/stdin by name, which fails for the socket that Node.js gives a child; a pipe works. */
async function runNft(
  command: string,
  commands: { readonly nftables: readonly Expression[] },
): Promise<void> {
  await runTool('sh', ['-c', `cat | ${command}`], JSON.stringify(commands))
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }
type Expression = { readonly [key: string]: Json }

/** The JSON of libnftables-json(5): remove the table if it is there, then add it whole. */
export function renderNft(
  rules: RuleSet,
  context: FilterContext,
): { readonly nftables: readonly Expression[] } {
  const table = rules.owner
  return {
    nftables: [
      ...removeTable(table),
      { add: { table: { family: 'inet', name: table } } },
      ...rules.chains.flatMap((chain) => [
        { add: { chain: chainOf(chain, table) } },
        ...chain.rules.map((rule) => ({ add: { rule: ruleOf(rule, chain, table, context) } })),
      ]),
    ],
  }
}

/** `delete` fails when there is no such table; `add` of an existing one does nothing: so add, then delete. */
function removeTable(name: string): Expression[] {
  const table = { family: 'inet', name }
  return [{ add: { table } }, { delete: { table } }]
}

/** Priorities as nft(8) names them: filter 0, mangle -150, srcnat 100. */
const HOOKS: Readonly<Record<Chain['hook'], Expression>> = {
  input: { type: 'filter', hook: 'input', prio: 0 },
  forward: { type: 'filter', hook: 'forward', prio: 0 },
  output: { type: 'filter', hook: 'output', prio: 0 },
  postrouting: { type: 'nat', hook: 'postrouting', prio: 100 },
  mss: { type: 'filter', hook: 'forward', prio: -150 },
}

function chainOf(chain: Chain, table: string): Expression {
  return { family: 'inet', table, name: chain.hook, ...HOOKS[chain.hook], policy: chain.policy }
}

function ruleOf(rule: Rule, chain: Chain, table: string, context: FilterContext): Expression {
  const matches = rule.matches.flatMap((match) => matchOf(match, chain, context))
  const expr = [...matches, ...verdictOf(rule.verdict)]
  return {
    family: 'inet',
    table,
    chain: chain.hook,
    expr,
    ...(rule.comment === undefined ? {} : { comment: rule.comment }),
  }
}

function matchOf(match: Match, chain: Chain, context: FilterContext): Expression[] {
  switch (match.kind) {
    case 'source':
    case 'destination': {
      const field = match.kind === 'source' ? 'saddr' : 'daddr'
      const left = { payload: { protocol: 'ip', field } }
      if (match.negate !== true && match.prefixes.some((prefix) => prefix.length === 0))
        return [compare('==', { meta: { key: 'nfproto' } }, 'ipv4')]
      return [compare(match.negate ? '!=' : '==', left, oneOrSet(match.prefixes.map(prefixOf)))]
    }
    case 'protocol':
      return [compare('==', { meta: { key: 'l4proto' } }, match.protocol)]
    case 'source-port':
    case 'destination-port': {
      const field = match.kind === 'source-port' ? 'sport' : 'dport'
      const ports = match.ports.map((port) => (typeof port === 'number' ? port : { range: [...port] }))
      return [
        compare(
          match.negate ? '!=' : '==',
          { payload: { protocol: match.protocol, field } },
          oneOrSet(ports),
        ),
      ]
    }
    case 'icmp-type': {
      const type = compare('==', { payload: { protocol: 'icmp', field: 'type' } }, match.type)
      if (match.code === undefined) return [type]
      return [type, compare('==', { payload: { protocol: 'icmp', field: 'code' } }, match.code)]
    }
    case 'input-device':
    case 'output-device':
      return [device(match.kind === 'input-device' ? 'iifname' : 'oifname', match.device, match.negate)]
    case 'mark':
      return [compare('==', { meta: { key: 'mark' } }, match.mark)]
    case 'state':
      return [compare(match.negate ? '!=' : 'in', { ct: { key: 'state' } }, oneOrSet(match.states))]
    case 'from-telescope':
      return context.plane === 'xfrm'
        ? [compare('==', { meta: { key: 'ipsec' } }, match.negate !== true)]
        : [device('iifname', context.device, match.negate)]
    case 'into-telescope':
      return context.plane === 'xfrm'
        ? [compare('==', { rt: { key: 'ipsec' } }, match.negate !== true)]
        : [device('oifname', context.device, match.negate)]
    case 'ipv6':
      return [compare('==', { meta: { key: 'nfproto' } }, 'ipv6')]
    case 'loopback':
      return [device(chain.hook === 'input' ? 'iifname' : 'oifname', 'lo', false)]
  }
}

function verdictOf(verdict: Verdict): Expression[] {
  switch (verdict.kind) {
    case 'accept':
      return [{ accept: null }]
    case 'drop':
      return [{ drop: null }]
    case 'reject':
      return [{ reject: { type: 'icmpx', expr: verdict.with } }]
    case 'masquerade':
      return [{ masquerade: { flags: 'fully-random' } }]
    case 'clamp-mss':
      // The kernel only ever lowers the option (nft_exthdr.c).
      return [
        compare('in', { payload: { protocol: 'tcp', field: 'flags' } }, 'syn'),
        {
          mangle: { key: { 'tcp option': { name: 'maxseg', field: 'size' } }, value: verdict.mss },
        },
      ]
  }
}

const compare = (op: string, left: Json, right: Json): Expression => ({ match: { op, left, right } })

const device = (key: 'iifname' | 'oifname', name: string, negate: boolean | undefined): Expression =>
  compare(negate ? '!=' : '==', { meta: { key } }, name)

const oneOrSet = (items: readonly Json[]): Json => (items.length === 1 ? items[0]! : { set: items })

const prefixOf = (prefix: Prefix): Json =>
  prefix.length === 32 ? prefix.address : { prefix: { addr: prefix.address, len: prefix.length } }
