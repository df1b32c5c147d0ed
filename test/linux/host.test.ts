/**
 *   this namespace:  up0 198.18.1.1/24 ----- peer0 (no address)
 *                    default via 198.18.1.254
 *                    overlay0 (a TUN device: it stands for the one of the data plane)
 */
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { ip, prefix } from '#base/ip'
import type { FirewallBackend } from '#linux/host'
import { LinuxHost } from '#linux/host'
import { requireLocalAddress } from '#linux/interfaces'
import { NetlinkError } from '#linux/netlink'
import type { RuleSet } from '#nat/rules'
import type { HostOperation, RouteSpec, RuleSpec } from '#overlay/ports'
import { enterFreshNamespace, ipCommand } from './namespace.ts'

const skip = enterFreshNamespace() ?? false
const DEVICE = 'overlay0'
/** What the host keeps on the device while it uses it. */
const ANCHOR = '192.0.0.8/32'

class RecordingFirewall implements FirewallBackend {
  readonly calls: string[] = []
  async apply(rules: RuleSet): Promise<void> {
    this.calls.push(`apply ${rules.owner}`)
  }
  async clear(owner: RuleSet['owner']): Promise<void> {
    this.calls.push(`clear ${owner}`)
  }
}

const overlay = (destination: string, more: Partial<RouteSpec> = {}): HostOperation => ({
  kind: 'route.add',
  route: { destination: prefix(destination), via: 'overlay', ...more },
})
const uplink = (destination: string): HostOperation => ({
  kind: 'route.add',
  route: { destination: prefix(destination), via: 'uplink' },
})
const remove = (operation: HostOperation): HostOperation => {
  assert.equal(operation.kind, 'route.add')
  return { ...operation, kind: 'route.remove' } as HostOperation
}
const address = (kind: 'address.add' | 'address.remove', text: string): HostOperation => ({
  kind,
  address: ip(text),
})
const ourRules = (): string[] => lines(ipCommand('rule', 'show')).filter((line) => line.includes('proto 73'))
const ourRoutes = (): string[] => lines(ipCommand('route', 'show', 'proto', '73'))
const overlayAddresses = (): string[] =>
  lines(ipCommand('-o', '-4', 'addr', 'show', 'dev', DEVICE))
    .map((line) => line.split(/\s+/)[3]!)
    .filter((entry) => entry !== ANCHOR)
const lines = (text: string): string[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)

describe('the host network in a namespace of its own', { skip }, () => {
  let firewall: RecordingFirewall
  let host: LinuxHost
  const fresh = (): LinuxHost => new LinuxHost({ firewall: { backend: firewall, owner: 'ippriv_client' } })

  before(() => {
    ipCommand('link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'peer0')
    ipCommand('addr', 'add', '198.18.1.1/24', 'dev', 'up0')
    ipCommand('link', 'set', 'up0', 'up')
    ipCommand('link', 'set', 'peer0', 'up')
    ipCommand('route', 'add', 'default', 'via', '198.18.1.254')
    ipCommand('tuntap', 'add', DEVICE, 'mode', 'tun')
    ipCommand('link', 'set', DEVICE, 'up')
  })

  beforeEach(async () => {
    await host?.close()
    firewall = new RecordingFirewall()
    host = fresh()
    await host.open(DEVICE)
  })

  after(async () => {
    await host?.close()
  })

  test('private addresses come and go, twice without harm', async () => {
    await host.apply([address('address.add', '10.64.0.5'), address('address.add', '10.64.0.5')])
    assert.deepEqual(overlayAddresses(), ['10.64.0.5/32'])
    await host.apply([address('address.remove', '10.64.0.5'), address('address.remove', '10.64.0.5')])
    assert.deepEqual(overlayAddresses(), [])
  })

  test('overlay routes carry source, MTU and MSS, and are replaced in place', async () => {
    await host.apply([overlay('0.0.0.0/1'), overlay('128.0.0.0/1', { mtu: 1280, advmss: 1240 })])
    await host.apply([
      address('address.add', '10.64.0.5'),
      overlay('0.0.0.0/1', { source: ip('10.64.0.5'), mtu: 1280, advmss: 1240 }),
    ])
    assert.deepEqual(ourRoutes(), [
      `0.0.0.0/1 dev ${DEVICE} scope link src 10.64.0.5 linkdown mtu 1280 advmss 1240`,
      `128.0.0.0/1 dev ${DEVICE} scope link linkdown mtu 1280 advmss 1240`,
    ])
    assert.equal(ipCommand('route', 'show', 'default'), 'default via 198.18.1.254 dev up0')
  })

  test('rules lead the traffic of a group into its own table, and hosts of ours elsewhere as before', async () => {
    const table = 0x495001
    const rule = (priority: number, more: Partial<RuleSpec>): HostOperation => ({
      kind: 'rule.add',
      rule: { priority, table, user: 1001, ...more },
    })
    const rules = [
      rule(18768, { longerThan: 1 }),
      rule(18769, { longerThan: 1, table: 'main' }),
      rule(18770, {}),
      rule(18771, { mark: 7, destination: prefix('203.0.113.0/24') }),
    ]
    const halves = (more: Partial<RouteSpec>) => [overlay('0.0.0.0/1', more), overlay('128.0.0.0/1', more)]
    await host.apply([address('address.add', '10.64.0.5'), ...halves({}), ...halves({ table }), ...rules])
    await host.apply([...halves({ table, source: ip('10.64.0.5') }), ...rules])
    const way = (destination: string, ...more: string[]) =>
      /dev (\S+) .*?src (\S+)/.exec(ipCommand('route', 'get', destination, ...more))!.slice(1, 3)
    assert.deepEqual(way('203.0.113.9'), [DEVICE, '192.0.0.8'], 'no address of a circuit by chance')
    assert.deepEqual(way('203.0.113.9', 'uid', '1002'), [DEVICE, '192.0.0.8'])
    assert.deepEqual(way('203.0.113.9', 'uid', '1001'), [DEVICE, '10.64.0.5'])
    assert.deepEqual(way('198.18.1.77', 'uid', '1001'), ['up0', '198.18.1.1'], 'its own network')
    assert.equal(ourRules().length, rules.length, 'each once')
    await host.apply(rules.slice(0, 3).map((each) => ({ ...each, kind: 'rule.remove' }) as HostOperation))
    assert.deepEqual(way('203.0.113.9', 'uid', '1001'), [DEVICE, '192.0.0.8'])
    assert.equal(ourRules().length, 1)
    const successor = fresh()
    await successor.open(DEVICE)
    assert.deepEqual(ourRules(), [], 'swept')
    assert.equal(ipCommand('route', 'show', 'table', 'all', 'proto', '73'), '')
    await successor.close()
  })

  test('removing an address leaves the routes that preferred it: nothing falls back to the uplink', async () => {
    await host.apply([
      address('address.add', '10.64.0.5'),
      overlay('0.0.0.0/1', { source: ip('10.64.0.5') }),
      address('address.remove', '10.64.0.5'),
    ])
    assert.deepEqual(ourRoutes(), [`0.0.0.0/1 dev ${DEVICE} scope link linkdown`])
  })

  test('a pinned route takes the way from before the overlay, whenever it is asked for', async () => {
    await host.apply([uplink('203.0.113.7/32'), overlay('0.0.0.0/1'), overlay('128.0.0.0/1')])
    await host.apply([uplink('203.0.113.8/32'), uplink('203.0.113.7/32'), uplink('198.18.1.9/32')])
    assert.deepEqual(
      ourRoutes().filter((line) => line.includes('up0')),
      [
        '198.18.1.9 dev up0 scope link src 198.18.1.1',
        '203.0.113.7 via 198.18.1.254 dev up0 onlink',
        '203.0.113.8 via 198.18.1.254 dev up0 onlink',
      ],
    )
  })

  test('a pinned route keeps the source that the way before the overlay prescribed', async () => {
    ipCommand('addr', 'add', '198.18.9.9/32', 'dev', 'lo')
    ipCommand('route', 'add', '203.0.113.0/24', 'via', '198.18.1.254', 'src', '198.18.9.9')
    await host.apply([uplink('203.0.113.7/32'), uplink('198.51.100.1/32')])
    assert.deepEqual(ourRoutes().sort(), [
      '198.51.100.1 via 198.18.1.254 dev up0 onlink',
      '203.0.113.7 via 198.18.1.254 dev up0 src 198.18.9.9 onlink',
    ])
    ipCommand('route', 'del', '203.0.113.0/24')
    ipCommand('addr', 'del', '198.18.9.9/32', 'dev', 'lo')
  })

  test('a pinned route to this host itself is nothing', async () => {
    await host.apply([uplink('198.18.1.1/32')])
    assert.deepEqual(ourRoutes(), [])
  })

  test('without a way the error says so', async () => {
    ipCommand('route', 'del', 'default')
    try {
      await host.apply([overlay('0.0.0.0/1'), overlay('128.0.0.0/1')])
      await assert.rejects(host.apply([uplink('203.0.113.7/32')]), {
        code: 'IPP_HOST_ROUTE',
        where: '203.0.113.7',
      })
    } finally {
      ipCommand('route', 'add', 'default', 'via', '198.18.1.254')
    }
  })

  test('routes are removed, twice without harm', async () => {
    const operations = [overlay('10.64.0.0/10'), uplink('203.0.113.7/32')]
    await host.apply([...operations, ...operations.map(remove), ...operations.map(remove)])
    assert.deepEqual(ourRoutes(), [])
  })

  test("somebody else's route is neither replaced nor removed", async () => {
    ipCommand('route', 'add', '10.64.0.0/10', 'via', '198.18.1.77')
    try {
      await assert.rejects(host.apply([overlay('10.64.0.0/10')]), (error) => {
        assert.ok(error instanceof NetlinkError)
        assert.equal(error.code, 'IPP_HOST_NETLINK')
        assert.equal(error.errno, 'EEXIST')
        return true
      })
      await host.apply([remove(overlay('10.64.0.0/10'))])
      assert.match(ipCommand('route', 'show', '10.64.0.0/10'), /198\.18\.1\.77/)
    } finally {
      ipCommand('route', 'del', '10.64.0.0/10')
    }
  })

  test('the firewall is handed through', async () => {
    await host.apply([
      { kind: 'firewall.set', rules: { owner: 'ippriv_client', chains: [] } },
      { kind: 'firewall.clear', owner: 'ippriv_client' },
    ])
    assert.deepEqual(firewall.calls, ['clear ippriv_client', 'apply ippriv_client', 'clear ippriv_client'])
  })

  test('close removes everything, and may be called twice', async () => {
    await host.apply([address('address.add', '10.64.0.5'), overlay('0.0.0.0/1'), uplink('203.0.113.7/32')])
    await host.close()
    await host.close()
    assert.deepEqual([ourRoutes(), overlayAddresses()], [[], []])
    assert.equal(ipCommand('-o', '-4', 'addr', 'show', 'dev', DEVICE), '')
    assert.deepEqual(firewall.calls, ['clear ippriv_client', 'clear ippriv_client'])
  })

  test('what a killed predecessor left is removed by open', async () => {
    await host.apply([
      address('address.add', '10.64.0.5'),
      address('address.add', '10.64.16.5'),
      overlay('0.0.0.0/1', { source: ip('10.64.0.5') }),
      overlay('10.64.0.0/10'),
      uplink('203.0.113.7/32'),
    ])
    // The predecessor is not closed: its process would simply be gone.
    const successor = fresh()
    await successor.open(DEVICE)
    try {
      assert.deepEqual([ourRoutes(), overlayAddresses()], [[], []])
      assert.match(ipCommand('route', 'show', 'default'), /198\.18\.1\.254/)
    } finally {
      await successor.close()
    }
  })

  test('one that adopts keeps the routes of a predecessor, and takes them away as its own', async () => {
    await host.apply([overlay('10.64.0.0/10'), uplink('203.0.113.7/32')])
    const before = ourRoutes()
    const adopting = {
      firewall: { backend: firewall, owner: 'ippriv_node', keepUntilSet: true },
      adopt: true,
    } as const
    const successor = new LinuxHost(adopting)
    await successor.open(DEVICE)
    assert.deepEqual(ourRoutes(), before)
    await successor.apply([overlay('10.64.0.0/10')])
    assert.deepEqual(ourRoutes(), before)
    await successor.apply([remove(overlay('10.64.0.0/10'))])
    assert.equal(ourRoutes().length, before.length - 1)
    await successor.close()
    assert.deepEqual(ourRoutes(), [])
  })

  test('with keepUntilSet the rules of a predecessor stay until they are replaced', async () => {
    const successor = new LinuxHost({
      firewall: { backend: firewall, owner: 'ippriv_client', keepUntilSet: true },
    })
    await successor.open(DEVICE)
    assert.deepEqual(firewall.calls, ['clear ippriv_client'])
    await successor.close()
    assert.deepEqual(firewall.calls, ['clear ippriv_client', 'clear ippriv_client'])
  })

  test('a device that is gone takes nothing down with it', async () => {
    await host.apply([address('address.add', '10.64.0.5'), overlay('0.0.0.0/1')])
    ipCommand('link', 'del', DEVICE)
    try {
      await host.apply([address('address.remove', '10.64.0.5'), remove(overlay('0.0.0.0/1'))])
      await assert.rejects(host.apply([overlay('0.0.0.0/1')]), { code: 'IPP_HOST_NETLINK' })
      await host.close()
    } finally {
      ipCommand('tuntap', 'add', DEVICE, 'mode', 'tun')
      ipCommand('link', 'set', DEVICE, 'up')
    }
  })

  test('a public address must be configured here', async () => {
    assert.equal((await requireLocalAddress(ip('198.18.1.1'))).name, 'up0')
    await assert.rejects(requireLocalAddress(ip('198.18.1.2')), {
      code: 'IPP_HOST_ADDRESS',
      where: '198.18.1.2',
    })
  })
})
