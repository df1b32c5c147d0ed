import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ip, prefix, uint32ToIp } from '#base/ip'
import {
  DEFAULT_EXIT_POLICY,
  exitAllows,
  exitAllowsAnything,
  exitPolicyOf,
  formatExitPolicy,
  formatExitRule,
  MAX_EXIT_RULES,
  parseExitPolicy,
  parseExitRule,
} from '#nat/exit-policy'
import type { ExitRule } from '#nat/rules'

const rule = (text: string): ExitRule => {
  const parsed = parseExitRule(text)
  assert.ok(parsed.ok, text)
  return parsed.value
}

test('rules: text and value, both directions', () => {
  const rows: [string, ExitRule][] = [
    [
      'accept 0.0.0.0/0 tcp 80-443',
      { action: 'accept', destination: prefix('0.0.0.0/0'), protocol: 'tcp', ports: [80, 443] },
    ],
    ['reject 10.0.0.0/8', { action: 'reject', destination: prefix('10.0.0.0/8') }],
    [
      'accept 192.0.2.1/32 udp 53',
      { action: 'accept', destination: prefix('192.0.2.1'), protocol: 'udp', ports: [53, 53] },
    ],
    ['reject 192.0.2.0/24 icmp', { action: 'reject', destination: prefix('192.0.2.0/24'), protocol: 'icmp' }],
  ]
  for (const [text, value] of rows) {
    assert.deepEqual(rule(text), value)
    assert.equal(formatExitRule(value), text)
  }
  assert.equal(formatExitRule(rule('  accept\t192.0.2.1   tcp 22-22 ')), 'accept 192.0.2.1/32 tcp 22')
})

test('rules: a malformed text says what was expected and what was found', () => {
  const rows: [string, RegExp][] = [
    ['', /expected "accept" or "reject", found ""/],
    ['allow 10.0.0.0/8', /expected "accept" or "reject", found "allow"/],
    ['accept', /expected an IPv4 prefix .* found nothing/],
    ['accept 10.0.0.1/8', /expected an IPv4 prefix .* found "10\.0\.0\.1\/8"/],
    ['accept 2001:db8::/32', /expected an IPv4 prefix/],
    ['accept 10.0.0.0/8 sctp', /expected "tcp", "udp" or "icmp", found "sctp"/],
    ['accept 10.0.0.0/8 tcp 443-80', /expected a port or a range/],
    ['accept 10.0.0.0/8 tcp 65536', /expected a port or a range/],
    ['accept 10.0.0.0/8 tcp 080', /expected a port or a range/],
    ['accept 10.0.0.0/8 icmp 8', /icmp has no ports/],
    ['accept 10.0.0.0/8 tcp 80 443', /expected the end of the rule, found "443"/],
  ]
  for (const [text, where] of rows) {
    const parsed = parseExitRule(text)
    assert.ok(!parsed.ok, text)
    assert.match(parsed.where, where)
  }
})

test('policies: the bad line is numbered and their length is bounded', () => {
  const bad = parseExitPolicy(['accept 0.0.0.0/0', 'reject nowhere'])
  assert.ok(!bad.ok)
  assert.match(bad.where, /^rule 2: /)
  const long = parseExitPolicy(Array.from({ length: MAX_EXIT_RULES + 1 }, () => 'accept 0.0.0.0/0'))
  assert.ok(!long.ok)
  assert.match(long.where, /at most 64 rules, found 65/)
})

test('the default refuses what is not the Internet, and port 25', () => {
  const allows = (destination: string, port = 443) =>
    exitAllows(DEFAULT_EXIT_POLICY, { destination: ip(destination), protocol: 'tcp', port })
  for (const inside of [
    '0.1.2.3',
    '10.64.0.1',
    '100.64.0.1',
    '127.0.0.1',
    '169.254.169.254',
    '172.31.255.255',
    '192.168.1.1',
    '224.0.0.251',
    '255.255.255.255',
  ])
    assert.equal(allows(inside), false, inside)
  for (const outside of ['198.18.60.2', '192.0.2.1', '11.0.0.1', '172.32.0.1', '100.128.0.1'])
    assert.equal(allows(outside), true, outside)
  assert.equal(allows('192.0.2.1', 25), false)
  assert.equal(exitAllows(DEFAULT_EXIT_POLICY, { destination: ip('192.0.2.1'), protocol: 'icmp' }), true)
})

test("an operator's rules stand behind the protections and end in refusal", () => {
  const policy = exitPolicyOf([rule('accept 0.0.0.0/0 tcp 80-443')])
  const allows = (destination: string, port: number, protocol: 'tcp' | 'udp' = 'tcp') =>
    exitAllows(policy, { destination: ip(destination), protocol, port })
  assert.equal(allows('192.0.2.1', 80), true)
  assert.equal(allows('192.0.2.1', 22), false)
  assert.equal(allows('192.0.2.1', 80, 'udp'), false)
  assert.equal(allows('10.0.0.1', 80), false, 'accept 0.0.0.0/0 must not open the private network')
  const open = exitPolicyOf([rule('accept 10.0.0.0/8')], false)
  assert.equal(exitAllows(open, { destination: ip('10.0.0.1'), protocol: 'tcp', port: 80 }), true)
})

test('a policy that lets nothing through is recognised', () => {
  assert.equal(exitAllowsAnything(DEFAULT_EXIT_POLICY), true)
  assert.equal(exitAllowsAnything([]), false)
  assert.equal(exitAllowsAnything([rule('reject 0.0.0.0/0')]), false)
  assert.equal(exitAllowsAnything([rule('reject 0.0.0.0/0'), rule('accept 192.0.2.0/24')]), false)
})

test('property: every policy survives its text', () => {
  const ports = fc
    .tuple(fc.nat(65535), fc.nat(65535))
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
  const destination = fc
    .tuple(fc.nat(0xffff_ffff), fc.nat(32))
    .map(([value, length]) =>
      prefix(`${uint32ToIp(length === 0 ? 0 : (value & (-1 << (32 - length))) >>> 0)}/${length}`),
    )
  const action = fc.constantFrom('accept' as const, 'reject' as const)
  const anyRule: fc.Arbitrary<ExitRule> = fc.oneof(
    fc.record({ action, destination }, { noNullPrototype: true }),
    fc.record(
      {
        action,
        destination,
        protocol: fc.constantFrom('tcp' as const, 'udp' as const, 'icmp' as const),
      },
      { noNullPrototype: true },
    ),
    fc.record(
      { action, destination, protocol: fc.constantFrom('tcp' as const, 'udp' as const), ports },
      { noNullPrototype: true },
    ),
  )
  fc.assert(
    fc.property(fc.array(anyRule, { maxLength: MAX_EXIT_RULES }), (policy) => {
      assert.deepEqual(parseExitPolicy(formatExitPolicy(policy)), { ok: true, value: policy })
    }),
  )
})
