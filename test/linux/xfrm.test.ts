/** What of the kernel data plane can be tried where the kernel has XFRM netlink but perhaps no ESP. */
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import type { Spi } from '#base/ids'
import { host, ip, prefix, uint32ToIp } from '#base/ip'
import type { NetlinkRequest } from '#linux/netlink'
import { isErrno, Netlink, NetlinkError } from '#linux/netlink'
import {
  policyInstallRequest,
  policyRemoveRequest,
  policySpecOf,
  saInstallRequest,
} from '#linux/xfrm-messages'
import { XfrmPlane } from '#linux/xfrm-plane'
import { probeKernelEsp } from '#linux/xfrm-probe'
import type { PolicySpec, SaSpec } from '#telescope/plane'
import { PRIORITY, reqId, SA_LIFE } from '#telescope/plane'
import { decodeSpdInfo, encodeInfoRequest, NO_LIMITS, XFRM_MSG } from '#wire/netlink/xfrm'
import { decodePolicy, encodePolicyDump } from '#wire/netlink/xfrm-policy'
import { decodeSa } from '#wire/netlink/xfrm-sa'
import { enterFreshNamespace, ipCommand } from './namespace.ts'

const skip = enterFreshNamespace() ?? false

const SA: SaSpec = {
  source: ip('198.18.1.1'),
  destination: ip('198.18.1.2'),
  spi: 0x1000 as Spi,
  flow: 'outbound',
  reqid: reqId(1),
  cipher: 'aes-256-gcm-16',
  key: new Uint8Array(36),
  esn: true,
  replayWindow: 1024,
}

const TELESCOPE: PolicySpec = {
  direction: 'out',
  selector: { source: host(ip('10.64.32.5')), destination: prefix('0.0.0.0/0') },
  action: 'protect',
  priority: PRIORITY.circuit,
  templates: [
    { source: ip('10.64.16.5'), destination: ip('198.18.1.4'), reqid: reqId(3) },
    { source: ip('10.64.0.5'), destination: ip('198.18.1.3'), reqid: reqId(2) },
    { source: ip('198.18.1.1'), destination: ip('198.18.1.2'), reqid: reqId(1) },
  ],
}

const POLICIES: readonly PolicySpec[] = [
  TELESCOPE,
  {
    direction: 'in',
    selector: {
      source: host(ip('198.18.1.2')),
      destination: host(ip('198.18.1.1')),
      protocol: 17,
      sourcePort: 500,
      destinationPort: 4500,
    },
    action: 'bypass',
    priority: PRIORITY.ikeBypass,
    templates: [],
  },
  {
    direction: 'in',
    selector: {
      source: prefix('0.0.0.0/0'),
      destination: host(ip('198.18.1.1')),
      protocol: 1,
      icmp: { type: 3, code: 4 },
    },
    action: 'bypass',
    priority: PRIORITY.ikeBypass,
    templates: [],
  },
  {
    direction: 'fwd',
    selector: { source: prefix('10.64.0.0/20'), destination: prefix('10.64.0.0/20') },
    action: 'block',
    priority: PRIORITY.isolation,
    templates: [],
  },
]

describe('XFRM in a namespace of its own', { skip }, () => {
  const netlink = skip ? undefined : new Netlink('xfrm')
  const xfrm = (): Netlink => netlink!
  const list = async (): Promise<PolicySpec[]> => {
    const request = { name: 'GETPOLICY', type: XFRM_MSG.getPolicy, payload: encodePolicyDump() }
    const specs = (await xfrm().dump(request)).map(({ payload }) => policySpecOf(decodePolicy(payload)!)!)
    return specs.sort((a, b) => a.priority - b.priority || a.direction.localeCompare(b.direction))
  }
  const removal = ({ direction, selector }: PolicySpec): NetlinkRequest =>
    policyRemoveRequest(direction, selector)

  after(() => netlink?.close())

  test('policies are in the kernel exactly as specified, and ip(8) reads them the same', async () => {
    const results = await xfrm().batch(POLICIES.map((policy) => policyInstallRequest(policy, false)))
    assert.deepEqual(results, [undefined, undefined, undefined, undefined])
    const sorted = [...POLICIES].sort(
      (a, b) => a.priority - b.priority || a.direction.localeCompare(b.direction),
    )
    assert.deepEqual(new Set(await list()), new Set(sorted))
    const text = ipCommand('xfrm', 'policy', 'list', 'src', '10.64.32.5')
    assert.match(text, /src 10\.64\.32\.5\/32 dst 0\.0\.0\.0\/0/)
    assert.deepEqual(
      [...text.matchAll(/tmpl src (\S+) dst (\S+)\s+proto esp reqid (\d+) mode tunnel/g)].map(
        ([, source, destination, id]) => [source, destination, Number(id)],
      ),
      TELESCOPE.templates.map(({ source, destination, reqid }) => [source, destination, reqid]),
    )
    const icmp = ipCommand('xfrm', 'policy', 'list', 'proto', 'icmp')
    assert.match(icmp, /proto icmp type 3 code 4/)
  })

  test('a policy is replaced by an update and refused as new', async () => {
    const [error] = await xfrm().batch([policyInstallRequest(TELESCOPE, false)])
    assert.equal(error?.errno, 'EEXIST')
    const shorter = { ...TELESCOPE, templates: TELESCOPE.templates.slice(1) }
    await xfrm().request(policyInstallRequest(shorter, true))
    assert.equal((await list()).find(({ direction }) => direction === 'out')?.templates.length, 2)
  })

  test('in a batch a refused request does not stop the later ones, and each has its own result', async () => {
    const results = await xfrm().batch([
      removal(TELESCOPE),
      removal(TELESCOPE),
      policyInstallRequest(TELESCOPE, false),
      policyInstallRequest(TELESCOPE, false),
      ...POLICIES.map(removal),
    ])
    assert.deepEqual(
      results.map((error) => error?.errno),
      [undefined, 'ENOENT', undefined, 'EEXIST', undefined, undefined, undefined, undefined],
    )
    assert.deepEqual(await list(), [])
  })

  test('a thousand policies go in a few sends and all come back from a dump', async () => {
    const many = Array.from({ length: 1000 }, (_, i): PolicySpec => {
      const client = host(uint32ToIp(0x0a40_0000 + i))
      return { ...TELESCOPE, selector: { source: client, destination: prefix('0.0.0.0/0') } }
    })
    const results = await xfrm().batch(many.map((policy) => policyInstallRequest(policy, false)))
    assert.equal(results.length, 1000)
    assert.ok(results.every((error) => error === undefined))
    const payload = encodeInfoRequest()
    const info = await xfrm().get({ name: 'GETSPDINFO', type: XFRM_MSG.getSpdInfo, payload })
    assert.equal(decodeSpdInfo(info.payload)?.out, 1000)
    assert.equal((await list()).length, 1000)
    const twice = await xfrm().batch([...many, ...many].map(removal))
    assert.equal(twice.filter((error) => error?.errno === 'ENOENT').length, 1000)
    assert.deepEqual(await list(), [])
  })

  test('requests asked for at once each get their own answer', async () => {
    const outcomes = await Promise.allSettled([
      xfrm().request(policyInstallRequest(TELESCOPE, false)),
      xfrm().request(policyInstallRequest(TELESCOPE, false)),
      list(),
      xfrm().request(removal(TELESCOPE)),
      list(),
    ])
    assert.deepEqual(
      outcomes.map((o) => (o.status === 'fulfilled' ? o.value : isErrno(o.reason, 'EEXIST'))),
      [undefined, true, [TELESCOPE], undefined, []],
    )
  })

  test('the plane opens exactly where the kernel does ESP, and else says why', async () => {
    const { ciphers, reason } = await probeKernelEsp()
    const [refused] = await xfrm().batch([saInstallRequest(SA)])
    if (ciphers.includes('aes-256-gcm-16')) {
      assert.equal(refused, undefined)
      return
    }
    assert.equal(refused?.errno, 'ENOSYS')
    assert.equal(refused?.code, 'IPP_HOST_NETLINK')
    assert.match(reason!, /ENOSYS.*CONFIG_INET_ESP/)
    const plane = new XfrmPlane({ device: 'ippriv0' })
    await assert.rejects(plane.open(), { code: 'IPP_PLANE_UNAVAILABLE' })
    await plane.close()
  })

  test('a closed socket refuses, and closing twice is harmless', async () => {
    const closed = new Netlink('xfrm')
    closed.close()
    closed.close()
    await assert.rejects(closed.request(removal(TELESCOPE)), (error) => isErrno(error, 'ENOTCONN'))
  })
})

test('the life of an SA is a hard limit of the kernel in seconds, beside that of one that announces its packets', () => {
  const limits = (more: Partial<SaSpec>) => decodeSa(saInstallRequest({ ...SA, ...more }).payload)?.limits
  assert.deepEqual(limits({}), NO_LIMITS)
  assert.deepEqual(limits({ life: SA_LIFE }), { ...NO_LIMITS, hardAddSeconds: 21_600n })
  // Rounded up: none at all is what 0 means.
  assert.equal(limits({ life: 1 })?.hardAddSeconds, 1n)
  assert.deepEqual(limits({ life: 2000, announce: true }), {
    ...NO_LIMITS,
    softPackets: 1n,
    hardAddSeconds: 2n,
  })
})

describe('specifications that would not be what they say are refused', () => {
  const refused = { code: 'IPP_PLANE_OPERATION' }

  test('a reserved SPI, a key of another length', () => {
    assert.throws(() => saInstallRequest({ ...SA, spi: 255 as Spi }), refused)
    assert.throws(() => saInstallRequest({ ...SA, key: new Uint8Array(32) }), refused)
  })

  test('protect without templates (it would be clear text), and too many of them', () => {
    assert.throws(() => policyInstallRequest({ ...TELESCOPE, templates: [] }, false), refused)
    const template = TELESCOPE.templates[0]!
    const six = Array.from({ length: 6 }, () => template)
    assert.throws(() => policyInstallRequest({ ...TELESCOPE, templates: six }, false), refused)
    assert.throws(() => policyInstallRequest({ ...TELESCOPE, action: 'block' }, false), refused)
  })

  test('a refusal for lack of privilege has the code of that', () => {
    assert.equal(new NetlinkError('NEWSA', 'EPERM').code, 'IPP_HOST_PRIVILEGE')
    assert.equal(new NetlinkError('NEWSA', 'EINVAL').code, 'IPP_HOST_NETLINK')
  })
})
