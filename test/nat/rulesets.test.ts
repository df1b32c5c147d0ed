/** The rule sets as a packet sees them, by an evaluator of rules that is slow and obvious. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { contains, ip, prefix } from '#base/ip'
import { DEFAULT_EXIT_POLICY } from '#nat/exit-policy'
import { type Chain, DAEMON_MARK, type FilterContext, type Match, type RuleSet } from '#nat/rules'
import { clientRules, nodeRules } from '#nat/rulesets'

interface Packet {
  readonly from?: string
  readonly to?: string
  readonly protocol?: 'tcp' | 'udp' | 'icmp' | 'esp'
  readonly sport?: number
  readonly dport?: number
  readonly icmp?: readonly [type: number, code: number]
  readonly mark?: number
  readonly state?: 'new' | 'established' | 'related' | 'invalid'
  readonly out?: boolean
  readonly into?: boolean
  readonly lo?: boolean
  readonly six?: boolean
}

const S = '198.18.1.1'
const A = '198.18.10.1'
const B = '198.18.20.1'
const D = '198.18.40.1'
const DIRECTORY = '198.18.50.1'
const context: FilterContext = { plane: 'xfrm', device: 'ipp0', address: ip(A) }

/** What becomes of a packet at a hook: the verdict of the first rule that matches, or the chain's policy. */
function decide(rules: RuleSet, hook: Chain['hook'], packet: Packet): string {
  const chain = rules.chains.find((candidate) => candidate.hook === hook)
  if (chain === undefined) return 'accept'
  const rule = chain.rules.find((candidate) => candidate.matches.every((match) => holds(match, packet)))
  return rule?.verdict.kind ?? chain.policy
}

function holds(match: Match, packet: Packet): boolean {
  switch (match.kind) {
    case 'source':
    case 'destination': {
      const address = match.kind === 'source' ? packet.from : packet.to
      if (packet.six || address === undefined) return false
      return match.prefixes.some((p) => contains(p, ip(address))) !== (match.negate ?? false)
    }
    case 'protocol':
      return packet.protocol === match.protocol
    case 'source-port':
    case 'destination-port': {
      const port = match.kind === 'source-port' ? packet.sport : packet.dport
      if (packet.protocol !== match.protocol || port === undefined) return false
      const named = match.ports.some((p) =>
        typeof p === 'number' ? p === port : p[0] <= port && port <= p[1],
      )
      return named !== (match.negate ?? false)
    }
    case 'icmp-type':
      return packet.icmp?.[0] === match.type && (match.code === undefined || packet.icmp[1] === match.code)
    case 'mark':
      return packet.mark === match.mark
    case 'state':
      return match.states.includes(packet.state ?? 'new') !== (match.negate ?? false)
    case 'from-telescope':
      return (packet.out ?? false) !== (match.negate ?? false)
    case 'into-telescope':
      return (packet.into ?? false) !== (match.negate ?? false)
    case 'ipv6':
      return packet.six ?? false
    case 'loopback':
      return packet.lo ?? false
    case 'input-device':
    case 'output-device':
      return assert.fail('the rule sets name no device')
  }
}

const ike = { protocol: 'udp', sport: 500, dport: 500 } as const

test('client: what may leave', () => {
  const own: FilterContext = { ...context, address: ip(S) }
  const rules = clientRules({
    entries: [ip(A)],
    directories: [{ address: ip(DIRECTORY), port: 9030 }],
    context: own,
  })
  const out = (packet: Packet) => decide(rules, 'output', { from: S, ...packet })
  assert.equal(out({ to: D, protocol: 'tcp', dport: 80 }), 'drop', 'clear text')
  assert.equal(out({ to: D, protocol: 'tcp', dport: 80, into: true }), 'accept', 'the same with a policy')
  assert.equal(out({ to: B, protocol: 'esp', from: '10.64.0.5' }), 'drop', 'naked inner ESP')
  assert.equal(
    out({ to: B, protocol: 'esp', from: '10.64.0.5', into: true }),
    'accept',
    'inner ESP on its way',
  )
  assert.equal(out({ to: A, protocol: 'esp' }), 'accept')
  assert.equal(out({ to: B, protocol: 'esp' }), 'drop', 'ESP to a node that is no entry of ours')
  assert.equal(out({ to: A, ...ike, mark: DAEMON_MARK }), 'accept')
  assert.equal(out({ to: A, ...ike }), 'drop', 'IKE that is not ours')
  assert.equal(out({ to: B, ...ike, mark: DAEMON_MARK }), 'drop', 'IKE to hop 2 outside the telescope')
  const inUdp = { to: A, protocol: 'udp', sport: 4500, dport: 4500 } as const
  assert.equal(out(inUdp), 'accept', 'ESP in UDP, made by the kernel')
  assert.equal(out({ ...inUdp, from: '10.64.0.5' }), 'drop', 'anybody can bind 4500 of a lent address')
  const directories = [{ address: ip(DIRECTORY), port: 9030 }]
  const userspace = clientRules({ entries: [ip(A)], directories, context: { ...own, plane: 'userspace' } })
  assert.equal(decide(userspace, 'output', { from: S, ...inUdp }), 'drop')
  assert.equal(decide(userspace, 'output', { from: S, ...inUdp, mark: DAEMON_MARK }), 'accept')
  assert.equal(out({ to: A, protocol: 'udp', sport: 40000, dport: 500, mark: DAEMON_MARK }), 'drop')
  assert.equal(out({ to: A, protocol: 'udp', dport: 53, mark: DAEMON_MARK }), 'drop')
  assert.equal(out({ to: DIRECTORY, protocol: 'tcp', dport: 9030, mark: DAEMON_MARK }), 'accept')
  assert.equal(out({ to: DIRECTORY, protocol: 'tcp', dport: 9030 }), 'drop')
  assert.equal(out({ to: '127.0.0.1', protocol: 'udp', dport: 53, lo: true }), 'accept')
  assert.equal(out({ six: true, protocol: 'tcp', into: true }), 'drop', 'IPv6')
  assert.equal(decide(rules, 'forward', { from: '172.17.0.2', to: D }), 'drop', 'containers')
})

test('client: what may come in', () => {
  const rules = clientRules({
    entries: [ip(A)],
    directories: [{ address: ip(DIRECTORY), port: 9030 }],
    context,
  })
  const into = (packet: Packet) => decide(rules, 'input', { to: S, ...packet })
  assert.equal(into({ from: D, protocol: 'tcp', out: true, state: 'established' }), 'accept')
  assert.equal(into({ from: D, protocol: 'tcp', dport: 22, out: true }), 'drop', 'a probe by the exit')
  assert.equal(
    into({ from: D, protocol: 'tcp', state: 'established' }),
    'drop',
    'an answer beside the telescope',
  )
  assert.equal(into({ from: A, protocol: 'esp' }), 'accept')
  assert.equal(into({ from: B, protocol: 'esp', out: true }), 'accept', 'an inner layer')
  assert.equal(into({ from: B, protocol: 'esp' }), 'drop')
  assert.equal(into({ from: A, ...ike }), 'accept')
  assert.equal(into({ from: B, ...ike, out: true }), 'accept', 'a delete of hop 2 after an idle hour')
  assert.equal(into({ from: D, ...ike }), 'drop')
  for (const sport of [500, 4500])
    for (const out of [true, false])
      assert.equal(
        into({ from: A, protocol: 'udp', sport, dport: 53, out }),
        'drop',
        'a hop probes a service',
      )
  assert.equal(into({ from: DIRECTORY, protocol: 'tcp', sport: 9030, state: 'established' }), 'accept')
  assert.equal(into({ from: DIRECTORY, protocol: 'tcp', sport: 9030 }), 'drop')
  assert.equal(into({ from: D, protocol: 'icmp', icmp: [3, 4] }), 'accept', 'path MTU')
  assert.equal(into({ from: D, protocol: 'icmp', icmp: [8, 0] }), 'drop')
  assert.equal(into({ from: D, protocol: 'icmp', icmp: [8, 0], out: true }), 'drop')
})

test('client: every directory can be reached, each at its own port', () => {
  const directories = [
    { address: ip(DIRECTORY), port: 9030 },
    { address: ip('198.18.50.2'), port: 9031 },
  ]
  const rules = clientRules({ entries: [], directories, context })
  const reaches = (to: string, dport: number, mark?: number) =>
    decide(rules, 'output', { to, protocol: 'tcp', dport, ...(mark === undefined ? {} : { mark }) })
  assert.equal(reaches(DIRECTORY, 9030, DAEMON_MARK), 'accept')
  assert.equal(reaches('198.18.50.2', 9031, DAEMON_MARK), 'accept')
  assert.equal(reaches('198.18.50.2', 9030, DAEMON_MARK), 'drop')
  assert.equal(reaches('198.18.50.2', 9031), 'drop')
  assert.equal(reaches('198.18.50.3', 9031, DAEMON_MARK), 'drop')
})

test('client without an entry: nobody but the directory', () => {
  const rules = clientRules({ entries: [], directories: [{ address: ip(DIRECTORY), port: 9030 }], context })
  assert.equal(decide(rules, 'output', { to: A, ...ike, mark: DAEMON_MARK }), 'drop')
  assert.equal(decide(rules, 'output', { to: A, protocol: 'esp' }), 'drop')
  assert.equal(
    decide(rules, 'output', { to: DIRECTORY, protocol: 'tcp', dport: 9030, mark: DAEMON_MARK }),
    'accept',
  )
  for (const chain of rules.chains)
    for (const rule of chain.rules)
      for (const match of rule.matches) if ('prefixes' in match) assert.ok(match.prefixes.length > 0)
})

const poolSpace = prefix('10.64.0.0/10')
const pool = prefix('10.64.16.0/20')
const mine = '10.64.16.5'
const foreign = '10.64.32.9'

const isRouter = true

const node = (roles: readonly ('entry' | 'middle' | 'exit')[], neighbours?: readonly string[]) =>
  nodeRules({
    poolSpace,
    pool,
    exitPolicy: DEFAULT_EXIT_POLICY,
    roles,
    context,
    isRouter,
    ...(neighbours === undefined ? {} : { neighbours: neighbours.map(ip) }),
  })

test('node: forwards ESP and IKE of its clients from tunnel into tunnel, nothing else', () => {
  const rules = node(['entry', 'middle'])
  const through = (packet: Packet) => decide(rules, 'forward', { out: true, into: true, ...packet })
  assert.equal(through({ from: mine, to: B, protocol: 'esp' }), 'accept')
  assert.equal(through({ from: mine, to: B, ...ike }), 'accept')
  assert.equal(through({ from: B, to: mine, protocol: 'esp' }), 'accept')
  assert.equal(through({ from: B, to: mine, ...ike }), 'accept')
  assert.equal(through({ from: B, to: mine, protocol: 'icmp', icmp: [3, 4], state: 'related' }), 'accept')
  assert.equal(
    through({ from: mine, to: B, protocol: 'tcp', dport: 22 }),
    'drop',
    'no other service of a node',
  )
  assert.equal(through({ from: mine, to: B, protocol: 'udp', sport: 53, dport: 500 }), 'drop')
  assert.equal(
    through({ from: B, to: mine, protocol: 'udp', sport: 500, dport: 53 }),
    'drop',
    'a node probes a client',
  )
  assert.equal(through({ from: mine, to: foreign, protocol: 'esp' }), 'drop', 'client to client')
  assert.equal(through({ from: foreign, to: B, protocol: 'esp' }), 'drop', 'a source of another pool')
  assert.equal(through({ from: mine, to: B, protocol: 'esp', into: false }), 'drop', 'naked on the link')
  assert.equal(through({ from: mine, to: B, protocol: 'esp', out: false }), 'drop', 'forged')
  assert.equal(through({ from: mine, to: D, protocol: 'tcp', dport: 80, into: false }), 'drop', 'not an exit')
  assert.equal(through({ from: D, to: mine, protocol: 'tcp', out: false }), 'drop', 'injected')
  assert.equal(through({ from: A, to: D, protocol: 'tcp', into: false }), 'drop', 'a neighbour is no client')
  assert.equal(
    decide(rules, 'forward', { from: '203.0.113.1', to: D, protocol: 'tcp' }),
    'accept',
    'not ours',
  )
  assert.equal(decide(rules, 'postrouting', { from: mine, to: D }), 'accept', 'no address translation')
})

test('node: with neighbours named, only those', () => {
  const rules = node(['middle'], [B])
  const through = (packet: Packet) => decide(rules, 'forward', { out: true, into: true, ...packet })
  assert.equal(through({ from: mine, to: B, protocol: 'esp' }), 'accept')
  assert.equal(through({ from: mine, to: D, protocol: 'esp' }), 'drop')
  assert.equal(through({ from: D, to: mine, protocol: 'esp' }), 'drop')
  assert.equal(
    decide(node(['middle'], []), 'forward', { from: mine, to: B, protocol: 'esp', out: true, into: true }),
    'drop',
  )
})

test('exit: policy on the way out, replies on the way back, one address for all', () => {
  const rules = node(['exit'])
  const leaves = (packet: Packet) => decide(rules, 'forward', { from: mine, out: true, ...packet })
  assert.equal(leaves({ to: D, protocol: 'tcp', dport: 80 }), 'accept')
  assert.equal(leaves({ to: D, protocol: 'icmp', icmp: [8, 0] }), 'accept')
  assert.equal(leaves({ to: D, protocol: 'tcp', dport: 25 }), 'reject')
  assert.equal(leaves({ to: '192.168.1.1', protocol: 'tcp', dport: 80 }), 'reject')
  assert.equal(leaves({ to: '169.254.169.254', protocol: 'tcp', dport: 80 }), 'reject')
  assert.equal(leaves({ to: foreign, protocol: 'tcp', dport: 80 }), 'drop')
  assert.equal(
    leaves({ to: D, protocol: 'tcp', dport: 80, state: 'invalid' }),
    'drop',
    'would not be translated',
  )
  assert.equal(leaves({ to: D, protocol: 'tcp', dport: 80, out: false }), 'drop', 'forged')
  const back = (packet: Packet) => decide(rules, 'forward', { from: D, to: mine, into: true, ...packet })
  assert.equal(back({ protocol: 'tcp', state: 'established' }), 'accept')
  assert.equal(back({ protocol: 'icmp', icmp: [3, 4], state: 'related' }), 'accept')
  assert.equal(back({ protocol: 'tcp', state: 'new' }), 'drop')
  assert.equal(decide(rules, 'postrouting', { from: mine, to: D }), 'masquerade')
  assert.equal(decide(rules, 'postrouting', { from: mine, to: B, into: true }), 'accept', 'telescope packets')
  assert.equal(
    decide(rules, 'postrouting', { from: '198.18.30.1', to: D }),
    'accept',
    "the node's own traffic",
  )
  assert.equal(decide(rules, 'mss', { from: mine, to: D, protocol: 'tcp' }), 'clamp-mss')
  assert.equal(decide(rules, 'mss', { from: D, to: mine, protocol: 'tcp' }), 'clamp-mss')
  assert.equal(decide(rules, 'mss', { from: '198.18.30.1', to: D, protocol: 'tcp' }), 'accept')
})

test('node: the host itself', () => {
  const rules = node(['entry', 'middle', 'exit'])
  const into = (packet: Packet) => decide(rules, 'input', { to: A, ...packet })
  assert.equal(into({ from: foreign, protocol: 'esp', out: true }), 'accept')
  assert.equal(into({ from: foreign, ...ike, out: true }), 'accept')
  assert.equal(into({ from: foreign, protocol: 'esp' }), 'drop', 'a private source that came in clear')
  assert.equal(
    into({ from: mine, protocol: 'tcp', dport: 22, out: true }),
    'drop',
    'the exit is no destination',
  )
  assert.equal(into({ from: '203.0.113.1', protocol: 'tcp', dport: 22 }), 'accept', "the operator's ssh")
  const out = (packet: Packet) => decide(rules, 'output', { from: A, ...packet })
  assert.equal(out({ to: foreign, ...ike, into: true }), 'accept')
  assert.equal(out({ to: foreign, ...ike }), 'drop', 'an IKE reply whose tunnel is gone')
  assert.equal(out({ to: D, protocol: 'tcp', dport: 443 }), 'accept')
})

test('documents: from another node through a tunnel, and to the public only when it is to be so', () => {
  const PORT = 9031
  const request = { poolSpace, pool, exitPolicy: DEFAULT_EXIT_POLICY, neighbours: [ip(B)], context }
  const ask = { protocol: 'tcp', dport: PORT } as const
  const answer = { protocol: 'tcp', sport: PORT } as const
  for (const everywhere of [false, true]) {
    const cache = { port: PORT, everywhere }
    const exit = nodeRules({ ...request, roles: ['exit'], cache })
    const input = (packet: Packet) => decide(exit, 'input', { to: A, ...ask, ...packet })
    assert.equal(input({ from: foreign, out: true }), 'accept')
    assert.equal(input({ from: foreign }), 'drop', 'forged')
    assert.equal(input({ from: foreign, out: true, dport: 22 }), 'drop')
    assert.equal(input({ from: '203.0.113.1' }), everywhere ? 'accept' : 'drop')
    assert.equal(input({ from: '203.0.113.1', dport: 22 }), 'accept', "the operator's ssh")
    const through = (packet: Packet) => decide(exit, 'forward', { out: true, into: true, ...packet })
    assert.equal(through({ from: mine, to: B, ...ask }), 'accept')
    assert.equal(through({ from: B, to: mine, ...answer, state: 'established' }), 'accept')
    assert.equal(through({ from: B, to: mine, ...answer, state: 'new' }), 'drop', 'a node probes a client')
    assert.equal(through({ from: mine, to: B, protocol: 'tcp', dport: 80 }), 'drop')
    assert.equal(through({ from: mine, to: D, ...ask }), 'drop', 'not a node')
    const middle = nodeRules({ ...request, roles: ['entry', 'middle'], cache })
    assert.equal(decide(middle, 'forward', { from: mine, to: B, ...ask, out: true, into: true }), 'drop')
  }
  const before = nodeRules({
    ...request,
    poolSpace: undefined,
    roles: ['exit'],
    cache: { port: PORT, everywhere: false },
  })
  assert.equal(decide(before, 'input', { from: '203.0.113.1', to: A, ...ask }), 'drop')
})

test('a node on a host that was no router before forwards for nobody else', () => {
  const stranger: Packet = { from: '203.0.113.1', to: D, protocol: 'tcp' }
  for (const space of [poolSpace, undefined]) {
    const request = { poolSpace: space, exitPolicy: DEFAULT_EXIT_POLICY, roles: ['exit'] as const, context }
    assert.equal(decide(nodeRules(request), 'forward', stranger), 'drop')
    assert.equal(decide(nodeRules({ ...request, isRouter }), 'forward', stranger), 'accept')
  }
})

test('node without a consensus or a pool: nothing that came out of a tunnel is forwarded', () => {
  for (const rules of [
    nodeRules({ poolSpace: undefined, exitPolicy: DEFAULT_EXIT_POLICY, roles: ['exit'], context, isRouter }),
    nodeRules({ poolSpace, exitPolicy: DEFAULT_EXIT_POLICY, roles: ['exit'], context, isRouter }),
  ]) {
    assert.equal(
      decide(rules, 'forward', { from: mine, to: D, protocol: 'tcp', dport: 80, out: true }),
      'drop',
    )
    assert.equal(decide(rules, 'forward', { from: '203.0.113.1', to: D, protocol: 'tcp' }), 'accept')
    assert.ok(!rules.chains.some((chain) => chain.hook === 'postrouting'))
  }
})
