/** Golden text of both packet-filter front ends. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ip, prefix } from '#base/ip'
import { renderIptables, renderRemoval } from '#linux/iptables'
import { renderNft } from '#linux/nft'
import { exitPolicyOf, parseExitPolicy } from '#nat/exit-policy'
import type { FilterContext, RuleSet } from '#nat/rules'
import { clientRules, nodeRules } from '#nat/rulesets'

const userspace: FilterContext = { plane: 'userspace', device: 'ipp0', address: ip('198.18.1.1') }
const xfrm: FilterContext = { ...userspace, plane: 'xfrm' }
const client = clientRules({
  entries: [ip('198.18.10.1'), ip('198.18.11.1')],
  directories: [{ address: ip('198.18.50.1'), port: 9030 }],
  context: xfrm,
})
const policy = parseExitPolicy(['reject 198.18.40.2 tcp 25', 'accept 0.0.0.0/0 udp 53-100'])
assert.ok(policy.ok)
const exit = nodeRules({
  poolSpace: prefix('10.64.0.0/10'),
  pool: prefix('10.64.16.0/20'),
  exitPolicy: exitPolicyOf(policy.value, false),
  roles: ['exit'],
  context: xfrm,
})

test('iptables: the client guard with XFRM', () => {
  assert.equal(
    renderIptables(client, xfrm, 'ipv4', new Set(['output'])),
    `*filter
:IPPRIV-C-OUT - [0:0]
:IPPRIV-C-IN - [0:0]
:IPPRIV-C-FWD - [0:0]
-A IPPRIV-C-OUT -o lo -j RETURN
-A IPPRIV-C-OUT -m policy --dir out --pol ipsec -j RETURN
-A IPPRIV-C-OUT -p esp -d 198.18.10.1/32 -j RETURN
-A IPPRIV-C-OUT -p esp -d 198.18.11.1/32 -j RETURN
-A IPPRIV-C-OUT -p udp -m multiport --sports 500 -m multiport --dports 500 -m mark --mark 0x4950 -d 198.18.10.1/32 -j RETURN
-A IPPRIV-C-OUT -p udp -m multiport --sports 500 -m multiport --dports 500 -m mark --mark 0x4950 -d 198.18.11.1/32 -j RETURN
-A IPPRIV-C-OUT -p udp -m multiport --sports 4500 -m multiport --dports 4500 -s 198.18.1.1/32 -d 198.18.10.1/32 -j RETURN
-A IPPRIV-C-OUT -p udp -m multiport --sports 4500 -m multiport --dports 4500 -s 198.18.1.1/32 -d 198.18.11.1/32 -j RETURN
-A IPPRIV-C-OUT -p tcp -m multiport --dports 9030 -m mark --mark 0x4950 -d 198.18.50.1/32 -j RETURN
-A IPPRIV-C-OUT -j DROP
-D OUTPUT -j IPPRIV-C-OUT
-I OUTPUT 1 -j IPPRIV-C-OUT
-A IPPRIV-C-IN -i lo -j RETURN
-A IPPRIV-C-IN -m policy --dir in --pol ipsec -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-A IPPRIV-C-IN -p esp -m policy --dir in --pol ipsec -j RETURN
-A IPPRIV-C-IN -p udp -m policy --dir in --pol ipsec -m multiport --sports 500 -m multiport --dports 500 -j RETURN
-A IPPRIV-C-IN -m policy --dir in --pol ipsec -j DROP
-A IPPRIV-C-IN -p esp -s 198.18.10.1/32 -j RETURN
-A IPPRIV-C-IN -p esp -s 198.18.11.1/32 -j RETURN
-A IPPRIV-C-IN -p udp -m multiport --sports 500 -m multiport --dports 500 -s 198.18.10.1/32 -j RETURN
-A IPPRIV-C-IN -p udp -m multiport --sports 500 -m multiport --dports 500 -s 198.18.11.1/32 -j RETURN
-A IPPRIV-C-IN -p udp -m multiport --sports 4500 -m multiport --dports 4500 -s 198.18.10.1/32 -j RETURN
-A IPPRIV-C-IN -p udp -m multiport --sports 4500 -m multiport --dports 4500 -s 198.18.11.1/32 -j RETURN
-A IPPRIV-C-IN -p tcp -m multiport --sports 9030 -m conntrack --ctstate ESTABLISHED -s 198.18.50.1/32 -j RETURN
-A IPPRIV-C-IN -p icmp -m icmp --icmp-type 3/4 -j RETURN
-A IPPRIV-C-IN -j DROP
-I INPUT 1 -j IPPRIV-C-IN
-A IPPRIV-C-FWD -j DROP
-I FORWARD 1 -j IPPRIV-C-FWD
COMMIT
`,
  )
})

test('ip6tables: only the drop, before anything else', () => {
  const lines = renderIptables(client, userspace, 'ipv6', new Set()).split('\n')
  assert.deepEqual(
    lines.filter((line) => line.startsWith('-A IPPRIV-C-OUT')),
    [
      '-A IPPRIV-C-OUT -o lo -j RETURN',
      '-A IPPRIV-C-OUT -j DROP',
      '-A IPPRIV-C-OUT -o ipp0 -j RETURN',
      '-A IPPRIV-C-OUT -j DROP',
    ],
  )
  assert.ok(!lines.some((line) => /\d+\.\d+\.\d+\.\d+/.test(line)))
})

test('iptables: an exit writes three tables', () => {
  const text = renderIptables(exit, xfrm, 'ipv4', new Set())
  assert.deepEqual(
    text.split('\n').filter((line) => line.startsWith('*')),
    ['*filter', '*nat', '*mangle'],
  )
  for (const line of [
    '-A IPPRIV-N-FWD -p tcp -s 10.64.16.0/20 -m policy --dir out --pol none -d 198.18.40.2/32 -m multiport --dports 25 -j REJECT --reject-with icmp-admin-prohibited',
    '-A IPPRIV-N-FWD -p udp -s 10.64.16.0/20 -m policy --dir out --pol none -m multiport --dports 53:100 -j RETURN',
    '-A IPPRIV-N-POST -s 10.64.16.0/20 -m policy --dir out --pol none -j MASQUERADE --random-fully',
    '-A IPPRIV-N-MSS -p tcp -s 10.64.16.0/20 -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1240',
  ])
    assert.ok(text.includes(`${line}\n`), `${line}\nis missing in\n${text}`)
})

test('iptables: removal takes the jumps and the chains, and leaves strangers alone', () => {
  const saved = `*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:IPPRIV-C-OUT - [0:0]
:IPPRIV-N-OUT - [0:0]
:OTHER - [0:0]
-A OUTPUT -j IPPRIV-C-OUT
-A OUTPUT -j IPPRIV-N-OUT
-A OUTPUT -j OTHER
-A IPPRIV-C-OUT -o lo -j RETURN
COMMIT
`
  assert.equal(
    renderRemoval('ippriv_client', saved),
    '*filter\n-D OUTPUT -j IPPRIV-C-OUT\n-F IPPRIV-C-OUT\n-X IPPRIV-C-OUT\nCOMMIT\n',
  )
  assert.equal(renderRemoval('ippriv_client', '# comment\n*nat\nCOMMIT\n'), '')
  assert.equal(renderRemoval('ippriv_client', ''), '')
})

test('nft: one transaction that removes the old table and adds the new one', () => {
  const small: RuleSet = {
    owner: 'ippriv_client',
    chains: [
      {
        hook: 'output',
        policy: 'drop',
        rules: [
          {
            matches: [
              { kind: 'into-telescope', negate: true },
              { kind: 'destination', prefixes: [prefix('10.0.0.0/8'), prefix('192.0.2.1/32')] },
              { kind: 'destination-port', protocol: 'tcp', ports: [80, [100, 200]] },
              { kind: 'state', states: ['new'], negate: true },
            ],
            verdict: { kind: 'reject', with: 'admin-prohibited' },
            comment: 'why',
          },
        ],
      },
    ],
  }
  const table = { family: 'inet', name: 'ippriv_client' }
  const rule = (telescope: unknown) => ({
    family: 'inet',
    table: 'ippriv_client',
    chain: 'output',
    expr: [
      telescope,
      {
        match: {
          op: '==',
          left: { payload: { protocol: 'ip', field: 'daddr' } },
          right: { set: [{ prefix: { addr: '10.0.0.0', len: 8 } }, '192.0.2.1'] },
        },
      },
      {
        match: {
          op: '==',
          left: { payload: { protocol: 'tcp', field: 'dport' } },
          right: { set: [80, { range: [100, 200] }] },
        },
      },
      { match: { op: '!=', left: { ct: { key: 'state' } }, right: 'new' } },
      { reject: { type: 'icmpx', expr: 'admin-prohibited' } },
    ],
    comment: 'why',
  })
  const commands = (telescope: unknown) => ({
    nftables: [
      { add: { table } },
      { delete: { table } },
      { add: { table } },
      {
        add: {
          chain: {
            family: 'inet',
            table: 'ippriv_client',
            name: 'output',
            type: 'filter',
            hook: 'output',
            prio: 0,
            policy: 'drop',
          },
        },
      },
      { add: { rule: rule(telescope) } },
    ],
  })
  assert.deepEqual(
    renderNft(small, xfrm),
    commands({ match: { op: '==', left: { rt: { key: 'ipsec' } }, right: false } }),
  )
  assert.deepEqual(
    renderNft(small, userspace),
    commands({ match: { op: '!=', left: { meta: { key: 'oifname' } }, right: 'ipp0' } }),
  )
})
