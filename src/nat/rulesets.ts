/**
 * Which packet-filter rules a role needs. Pure: the same values are rendered to nftables and to iptables.
 *
 * They stand *beside* the Security Policy Database, not instead of it. A block policy alone does not stop a
 * packet that was transformed once (it is not looked up again), and a telescope whose policy is gone would let
 * its packets follow the routing table in clear: so everything that may leave is named here.
 *
 * With XFRM one application packet passes these hooks several times: first as itself with an IPsec policy
 * still to come ("into-telescope"), then once per layer as ESP, the last time with none. In the userspace
 * plane the layers are put on inside the worker and the hooks see the packet at the TUN, then the outermost ESP.
 */
import type { Ip, Prefix } from '#base/ip'
import { host } from '#base/ip'
import { INNER_MTU, TCP_HEADERS } from '#base/mtu'
import type { ExitPolicy, ExitRule, FilterContext, Match, Rule, RuleSet, Verdict } from '#nat/rules'
import { DAEMON_MARK } from '#nat/rules'

export interface ClientRulesRequest {
  /** Public addresses of the entries that may be spoken to; empty: none yet. */
  readonly entries: readonly Ip[]
  readonly directories: readonly { readonly address: Ip; readonly port: number }[]
  readonly context: FilterContext
}

/**
 * The client's guard. Fail-closed: everything is dropped but loopback, what goes into or came out of the
 * telescope, ESP and the daemon's IKE with an entry, and the daemon's own requests to the directories.
 */
export function clientRules({ entries, directories, context }: ClientRulesRequest): RuleSet {
  const toEntry = toward(entries)
  const fromEntry = from(entries)
  const output = [
    rule([{ kind: 'loopback' }], ACCEPT),
    rule([{ kind: 'ipv6' }], DROP, 'telescopes carry IPv4 only'),
    rule([INTO_TELESCOPE], ACCEPT),
  ]
  const input = [
    rule([{ kind: 'loopback' }], ACCEPT),
    rule([{ kind: 'ipv6' }], DROP),
    rule([FROM_TELESCOPE, state('established', 'related')], ACCEPT),
    // The inner layers of XFRM, and exchanges a node begins (delete, rekey) after conntrack forgot ours.
    rule([FROM_TELESCOPE, ESP], ACCEPT),
    rule([FROM_TELESCOPE, ...IKE], ACCEPT),
    rule([FROM_TELESCOPE], DROP, 'nobody opens a connection to a client'),
  ]
  if (entries.length > 0) {
    // ESP in UDP (RFC 3948) that the kernel builds carries the mark of the packet inside, not ours: there our address
    // tells it, whose port 4500 is the daemon's.
    const who = context.plane === 'xfrm' ? by(host(context.address)) : DAEMON
    output.push(
      rule([ESP, toEntry], ACCEPT),
      rule([...IKE, DAEMON, toEntry], ACCEPT),
      rule([...NAT_T, who, toEntry], ACCEPT),
    )
    input.push(
      rule([ESP, fromEntry], ACCEPT),
      rule([...IKE, fromEntry], ACCEPT),
      rule([...NAT_T, fromEntry], ACCEPT),
    )
  }
  for (const { address, port } of directories) {
    const of = [host(address)]
    output.push(
      rule(
        [
          { kind: 'destination-port', protocol: 'tcp', ports: [port] },
          DAEMON,
          { kind: 'destination', prefixes: of },
        ],
        ACCEPT,
      ),
    )
    input.push(
      rule(
        [
          { kind: 'source-port', protocol: 'tcp', ports: [port] },
          state('established'),
          { kind: 'source', prefixes: of },
        ],
        ACCEPT,
      ),
    )
  }
  // Fragmentation needed (RFC 792 type 3 code 4) for the outermost ESP: path MTU discovery.
  input.push(rule([{ kind: 'icmp-type', type: 3, code: 4 }], ACCEPT, 'path MTU'))
  return {
    owner: 'ippriv_client',
    chains: [
      { hook: 'output', policy: 'drop', rules: output },
      { hook: 'input', policy: 'drop', rules: input },
      { hook: 'forward', policy: 'drop', rules: [] },
    ],
  }
}

export interface NodeRulesRequest {
  /** All pools of the network are inside it; undefined before the first consensus. */
  readonly poolSpace: Prefix | undefined
  /** This node's own pool; absent while the directory does not list it. */
  readonly pool?: Prefix | undefined
  readonly exitPolicy: ExitPolicy
  readonly roles: readonly ('entry' | 'middle' | 'exit')[]
  /** Public addresses of the other nodes; when given, clients are forwarded to these only. */
  readonly neighbours?: readonly Ip[]
  readonly context: FilterContext
  /** Octets of packets inside circuits. Default: `INNER_MTU`. */
  readonly mtu?: number
  /** Packets that have nothing to do with telescopes are forwarded as before. Default: none is. */
  readonly isRouter?: boolean
  /** Nodes hand documents on at this TCP port; with `everywhere`, this one does so outside of telescopes, too. */
  readonly cache?: { readonly port: number; readonly everywhere: boolean }
}

/**
 * A node's rules. The node's own traffic is not touched: every rule is about pool addresses, or about packets
 * that came out of a tunnel. Of those, it forwards ESP and IKE between its clients and other nodes, and as an
 * exit what its policy accepts, behind its own address; the rest is dropped.
 */
export function nodeRules(request: NodeRulesRequest): RuleSet {
  const { poolSpace, pool, mtu = INNER_MTU } = request
  const isExit = request.roles.includes('exit') && pool !== undefined
  const chains: RuleSet['chains'][number][] = [
    {
      hook: 'input',
      policy: 'accept',
      rules: [...cacheInput(request), ...(poolSpace === undefined ? [] : nodeInput(poolSpace))],
    },
    {
      hook: 'forward',
      policy: 'accept',
      rules: [
        ...(poolSpace === undefined ? [] : nodeForward(request, poolSpace, isExit)),
        rule([FROM_TELESCOPE], DROP, 'what came out of a tunnel goes nowhere else'),
        ...(request.isRouter ? [] : [rule([], DROP, 'a router of telescopes only')]),
      ],
    },
  ]
  if (poolSpace !== undefined)
    chains.push({
      hook: 'output',
      policy: 'accept',
      rules: [rule([to(poolSpace), NOT_INTO_TELESCOPE], DROP, 'never to a private address in clear')],
    })
  if (isExit) {
    chains.push(
      {
        hook: 'postrouting',
        policy: 'accept',
        rules: [rule([by(pool), NOT_INTO_TELESCOPE], { kind: 'masquerade' })],
      },
      {
        hook: 'mss',
        policy: 'accept',
        rules: [by(pool), to(pool)].map((side) =>
          rule([TCP, side], { kind: 'clamp-mss', mss: mtu - TCP_HEADERS }),
        ),
      },
    )
  }
  return { owner: 'ippriv_node', chains }
}

/** Clients of other nodes reach this one for IKE and ESP only: it is not a destination of its own exit. */
function nodeInput(poolSpace: Prefix): Rule[] {
  return [
    rule([by(poolSpace), NOT_FROM_TELESCOPE], DROP, 'forged private source'),
    rule([by(poolSpace), ESP], ACCEPT),
    rule([by(poolSpace), ...IKE], ACCEPT),
    rule([by(poolSpace)], DROP),
  ]
}

/** Documents for clients that come out of a tunnel from another node. */
function cacheInput({ cache, poolSpace, context }: NodeRulesRequest): Rule[] {
  if (cache === undefined) return []
  const asked: Match = { kind: 'destination-port', protocol: 'tcp', ports: [cache.port] }
  const rules: Rule[] = []
  if (poolSpace !== undefined) rules.push(rule([FROM_TELESCOPE, by(poolSpace), asked], ACCEPT, 'documents'))
  if (!cache.everywhere) rules.push(rule([asked, to(host(context.address)), NOT_FROM_TELESCOPE], DROP))
  return rules
}

function nodeForward(request: NodeRulesRequest, poolSpace: Prefix, isExit: boolean): Rule[] {
  const { pool, neighbours } = request
  const rules = [
    rule([by(poolSpace), NOT_FROM_TELESCOPE], DROP, 'forged private source'),
    rule([by(poolSpace), to(poolSpace)], DROP, 'clients stay apart'),
  ]
  if (pool !== undefined && (neighbours === undefined || neighbours.length > 0)) {
    const outward: Match[] = [FROM_TELESCOPE, INTO_TELESCOPE, by(pool)]
    const inward: Match[] = [FROM_TELESCOPE, INTO_TELESCOPE, to(pool)]
    if (neighbours !== undefined) {
      outward.push(toward(neighbours))
      inward.push(from(neighbours))
    }
    rules.push(
      rule([...outward, ESP], ACCEPT, 'next layer of a telescope'),
      rule([...outward, ...IKE], ACCEPT),
      rule([...inward, ESP], ACCEPT),
      rule([...inward, ...IKE], ACCEPT),
      rule([...inward, state('related')], ACCEPT, 'path MTU'),
    )
    // Only who may speak to the Internet from here has a reason to ask.
    if (isExit && request.cache !== undefined) {
      const ports = [request.cache.port]
      rules.push(
        rule([...outward, { kind: 'destination-port', protocol: 'tcp', ports }], ACCEPT, 'documents'),
        rule(
          [...inward, { kind: 'source-port', protocol: 'tcp', ports }, state('established', 'related')],
          ACCEPT,
        ),
      )
    }
  }
  if (isExit && pool !== undefined) {
    const leaving: Match[] = [by(pool), NOT_INTO_TELESCOPE]
    rules.push(
      // Network address translation skips invalid packets: they would show a private address to the world.
      rule([...leaving, state('invalid')], DROP),
      ...request.exitPolicy.map((exitRule) => exitFilter(leaving, exitRule)),
      rule(leaving, REJECT, 'refused by the exit policy'),
      rule([NOT_FROM_TELESCOPE, to(pool), state('established', 'related')], ACCEPT, 'replies'),
    )
  }
  rules.push(rule([by(poolSpace)], DROP), rule([to(poolSpace)], DROP, 'plaintext towards a client'))
  return rules
}

function exitFilter(leaving: readonly Match[], exitRule: ExitRule): Rule {
  const matches = [...leaving, to(exitRule.destination)]
  const { protocol, ports } = exitRule
  if (protocol !== undefined && protocol !== 'icmp' && ports !== undefined)
    matches.push({ kind: 'destination-port', protocol, ports: [ports] })
  else if (protocol !== undefined) matches.push({ kind: 'protocol', protocol })
  return rule(matches, exitRule.action === 'accept' ? ACCEPT : REJECT)
}

const ACCEPT: Verdict = { kind: 'accept' }
const DROP: Verdict = { kind: 'drop' }
const REJECT: Verdict = { kind: 'reject', with: 'admin-prohibited' }

const ESP: Match = { kind: 'protocol', protocol: 'esp' }
const TCP: Match = { kind: 'protocol', protocol: 'tcp' }
const DAEMON: Match = { kind: 'mark', mark: DAEMON_MARK }
const FROM_TELESCOPE: Match = { kind: 'from-telescope' }
const NOT_FROM_TELESCOPE: Match = { kind: 'from-telescope', negate: true }
const INTO_TELESCOPE: Match = { kind: 'into-telescope' }
const NOT_INTO_TELESCOPE: Match = { kind: 'into-telescope', negate: true }
/**
 * Both ports are named: a sender chooses its own, so that a rule about the other one alone would open every UDP
 * port of a host to whoever sends from 500. Here 500 is the daemon's, and nobody else can bind it beside.
 */
const IKE = bothPorts(500)
/** The same for IKE and ESP with an entry (RFC 3948). */
const NAT_T = bothPorts(4500)

function bothPorts(port: number): readonly Match[] {
  return (['source-port', 'destination-port'] as const).map((kind) => ({
    kind,
    protocol: 'udp',
    ports: [port],
  }))
}

const by = (prefix: Prefix): Match => ({ kind: 'source', prefixes: [prefix] })
const to = (prefix: Prefix): Match => ({ kind: 'destination', prefixes: [prefix] })
const from = (addresses: readonly Ip[]): Match => ({ kind: 'source', prefixes: addresses.map(host) })
const toward = (addresses: readonly Ip[]): Match => ({ kind: 'destination', prefixes: addresses.map(host) })
const state = (...states: readonly ('established' | 'related' | 'new' | 'invalid')[]): Match => ({
  kind: 'state',
  states,
})

const rule = (matches: readonly Match[], verdict: Verdict, comment?: string): Rule =>
  comment === undefined ? { matches, verdict } : { matches, verdict, comment }
