/**
 *   namespace s                                   namespace x
 *   ippriv0: 10.64.{0,16,32}.5                    lo: 198.18.2.2 198.18.3.2 (further hops), 192.0.2.53 (server)
 *   s0: 198.18.1.1/24 ------------ link ---------- x0: 198.18.1.2/24
 */
import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Spi } from '#base/ids'
import type { Ip } from '#base/ip'
import { ip as address, host, prefix } from '#base/ip'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS, keyingLength } from '#crypto/suites'
import type { PlaneOperation, PolicySpec, SaSpec, Template } from '#telescope/plane'
import { PRIORITY, REPLAY_WINDOW, reqId } from '#telescope/plane'
import { captured, ip, PlaneProcess, ping } from './lab.ts'

const S = address('198.18.1.1')
const X = address('198.18.1.2')
const LENT = address('10.64.0.5')
const SERVER = '192.0.2.53'

const sa = (source: Ip, destination: Ip, spi: number, id: number, more: Partial<SaSpec> = {}): SaSpec => {
  const cipher = more.cipher ?? 'aes-256-gcm-16'
  return {
    source,
    destination,
    spi: spi as Spi,
    flow: 'inbound',
    reqid: reqId(id),
    cipher,
    key: new Uint8Array(keyingLength(cipher)).fill(spi & 255),
    esn: true,
    replayWindow: REPLAY_WINDOW,
    ...more,
  }
}
const ends = (source: Ip, destination: Ip) => ({ source, destination })
const install = (spec: SaSpec): PlaneOperation => ({ kind: 'sa.install', sa: spec })
const removeSa = ({ source, destination, spi }: SaSpec): PlaneOperation => ({
  kind: 'sa.remove',
  sa: { source, destination, spi },
})
const policy = (
  direction: PolicySpec['direction'],
  lent: Ip,
  templates: readonly Template[],
): PlaneOperation => ({
  kind: 'policy.install',
  policy: {
    direction,
    selector: selectorOf(direction, lent),
    action: 'protect',
    priority: PRIORITY.circuit,
    templates,
  },
})
/** `out` is from the lent address where that is ours (client), and to it elsewhere: told by the templates. */
const selectorOf = (direction: PolicySpec['direction'], lent: Ip): PolicySpec['selector'] =>
  direction === 'out'
    ? { source: host(lent), destination: prefix('0.0.0.0/0') }
    : { source: prefix('0.0.0.0/0'), destination: host(lent) }
const guard = (direction: PolicySpec['direction']): PlaneOperation => ({
  kind: 'policy.install',
  policy: {
    direction,
    selector: { source: prefix('0.0.0.0/0'), destination: prefix('0.0.0.0/0') },
    action: 'block',
    priority: PRIORITY.guard,
    templates: [],
  },
})
const template = (source: Ip, destination: Ip, id: number): Template => ({
  source,
  destination,
  reqid: reqId(id),
})

/** Both ends of one layer between `s` and `x`: the operations of each. */
function layer(lent: Ip, more: Partial<SaSpec> = {}): { s: PlaneOperation[]; x: PlaneOperation[] } {
  const there = sa(S, X, 0x1001, 1, more)
  const back = sa(X, S, 0x1002, 1, more)
  const [out, into] = [[template(S, X, 1)], [template(X, S, 1)]]
  return {
    s: [
      install(back),
      install({ ...there, flow: 'outbound' }),
      policy('out', lent, out),
      policy('in', lent, into),
    ],
    x: [install(there), install({ ...back, flow: 'outbound' }), ...mirrored(lent, out, into)],
  }
}
/** The server side: in from the lent address, out to it. */
const mirrored = (lent: Ip, there: readonly Template[], back: readonly Template[]): PlaneOperation[] => [
  {
    kind: 'policy.install',
    policy: { ...circuit('in', there), selector: { source: host(lent), destination: prefix('0.0.0.0/0') } },
  },
  {
    kind: 'policy.install',
    policy: { ...circuit('out', back), selector: { source: prefix('0.0.0.0/0'), destination: host(lent) } },
  },
]
const circuit = (
  direction: PolicySpec['direction'],
  templates: readonly Template[],
): Omit<PolicySpec, 'selector'> => ({
  direction,
  action: 'protect',
  priority: PRIORITY.circuit,
  templates,
})

/** One plane per namespace, opened anew for each test: starting Node is what takes long in a guest. */
const planes: PlaneProcess[] = []
const successors: PlaneProcess[] = []
const succeed = (namespace: string, ...options: string[]): PlaneProcess => {
  const plane = new PlaneProcess(namespace, ...options)
  successors.push(plane)
  return plane
}
const lend = (...addresses: readonly string[]): void => {
  for (const each of addresses) ip('-n', 's', 'addr', 'add', `${each}/32`, 'dev', 'ippriv0')
}
const states = (namespace: string): string => ip('-n', namespace, 'xfrm', 'state')
const policies = (namespace: string): string => ip('-n', namespace, 'xfrm', 'policy')
const hasDevice = (namespace: string): boolean => ip('-n', namespace, '-br', 'link').includes('ippriv0')

before(() => {
  for (const name of ['s', 'x']) {
    ip('netns', 'add', name)
    ip('-n', name, 'link', 'set', 'lo', 'up')
  }
  ip('link', 'add', 's0', 'netns', 's', 'type', 'veth', 'peer', 'name', 'x0', 'netns', 'x')
  ip('-n', 's', 'addr', 'add', `${S}/24`, 'dev', 's0')
  ip('-n', 'x', 'addr', 'add', `${X}/24`, 'dev', 'x0')
  for (const each of ['198.18.2.2', '198.18.3.2', SERVER])
    ip('-n', 'x', 'addr', 'add', `${each}/32`, 'dev', 'lo')
  ip('-n', 's', 'link', 'set', 's0', 'up')
  ip('-n', 'x', 'link', 'set', 'x0', 'up')
  ip('-n', 's', 'route', 'add', 'default', 'via', X)
  ip('-n', 'x', 'route', 'add', '10.64.0.0/10', 'via', S)
})

beforeEach(async () => {
  for (const [i, namespace] of ['s', 'x'].entries())
    if (!planes[i]?.alive) planes[i] = new PlaneProcess(namespace)
  await Promise.all(planes.map((plane) => plane.open()))
})

afterEach(async () => {
  for (const plane of successors.splice(0)) await plane.kill()
  for (const plane of planes) {
    plane.failures.length = 0
    plane.heard.length = 0
    if (plane.alive) await plane.close()
  }
  for (const namespace of ['s', 'x']) {
    ip('-n', namespace, 'xfrm', 'policy', 'flush')
    ip('-n', namespace, 'xfrm', 'state', 'flush')
  }
})

after(async () => {
  for (const plane of planes) await plane.kill()
  for (const name of ['s', 'x']) ip('netns', 'del', name)
})

for (const cipher of Object.keys(ESP_CIPHERS) as EspCipher[]) {
  for (const esn of [true, false]) {
    test(`one layer carries pings: ${cipher}, ${esn ? '64' : '32'}-bit sequence numbers`, async () => {
      const [s, x] = planes as [PlaneProcess, PlaneProcess]
      const operations = layer(LENT, { cipher, esn })
      await x.apply(...operations.x)
      await s.apply(...operations.s)
      lend(LENT)
      assert.equal(await ping('s', LENT, SERVER, 5), 5)
      const bySpi = new Map((await x.counters()).map((row) => [row.spi, row]))
      assert.deepEqual([...bySpi.keys()].sort(), [0x1001, 0x1002])
      assert.deepEqual([bySpi.get(0x1001 as Spi)?.packets, bySpi.get(0x1002 as Spi)?.packets], [5, 5])
      assert.equal(bySpi.get(0x1001 as Spi)?.source, S)
      assert.deepEqual([bySpi.get(0x1001 as Spi)?.replayed, bySpi.get(0x1001 as Spi)?.corrupted], [0, 0])
    })
  }
}

test('three layers nest, innermost first, and all stand in the header of none', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const hops = [
    { from: S, to: X, id: 1 },
    { from: address('10.64.0.5'), to: address('198.18.2.2'), id: 2 },
    { from: address('10.64.16.5'), to: address('198.18.3.2'), id: 3 },
  ] as const
  const lent = address('10.64.32.5')
  const there = hops.toReversed().map(({ from, to, id }) => template(from, to, id))
  const back = hops.toReversed().map(({ from, to, id }) => template(to, from, id))
  const out = hops.map(({ from, to, id }) => sa(from, to, 0x2000 + id, id))
  const into = hops.map(({ from, to, id }) => sa(to, from, 0x3000 + id, id))
  const outbound = (spec: SaSpec): PlaneOperation => install({ ...spec, flow: 'outbound' })
  await x.apply(...out.map(install), ...into.map(outbound), ...mirrored(lent, there, back))
  await s.apply(
    ...into.map(install),
    ...out.map(outbound),
    policy('out', lent, there),
    policy('in', lent, back),
  )
  lend('10.64.0.5', '10.64.16.5', lent)
  // ECN, DSCP, another TTL, and DF (ping -M do): none of it may show outside.
  const send = async (): Promise<void> => {
    assert.equal(await ping('s', lent, SERVER, 3), 3)
    ip('netns', 'exec', 's', 'ping', '-n', '-c1', '-W1', '-Q', '0xb9', '-t', '9', '-I', lent, SERVER)
  }
  const espHeaders = (text: string): string[] =>
    text.split('\n').filter((line) => line.includes('IP (tos') && line.includes('proto ESP'))
  const constant = /tos 0x0, ttl 64,.*flags \[none\], proto ESP/
  const seen = await captured('s', 's0', send)
  assert.equal(espHeaders(seen).length, 4, seen)
  for (const header of espHeaders(seen)) assert.match(header, constant)
  assert.ok(!seen.includes('10.64.'), seen)
  // Where they arrive, every layer that is taken off shows the next.
  const arriving = await captured('x', 'x0', send, 'ip', 'in')
  assert.equal(espHeaders(arriving).length, 3 * 4, arriving)
  for (const header of espHeaders(arriving)) assert.match(header, constant)
  assert.match(arriving, /tos 0xb9,ECT\(1\), ttl 9,/, 'what is inside is as it was')
})

test('UDP encapsulation stands in the SA as asked', async () => {
  const [s] = planes as [PlaneProcess]
  const encapsulation = { sourcePort: 4500, destinationPort: 40500 }
  await s.apply(install(sa(S, X, 0x1001, 1, { flow: 'outbound', encapsulation })))
  assert.match(states('s'), /encap type espinudp sport 4500 dport 40500/)
})

test('ESP in UDP, and SAs that move out of it and back: not a sequence number is used twice', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const [elsewhere, ports] = [address('198.18.1.9'), { sourcePort: 4500, destinationPort: 4500 }]
  await s.listen(S)
  await x.listen(X)
  const operations = layer(LENT, { encapsulation: ports })
  await x.apply(...operations.x)
  await s.apply(...operations.s)
  lend(LENT)
  const carried = async (): Promise<string> =>
    await captured('s', 's0', async () => assert.equal(await ping('s', LENT, SERVER, 3), 3))
  assert.equal((await carried()).match(/UDP-encap: ESP/g)?.length, 3)
  const move = (from: Ip, to: Ip, encapsulation?: typeof ports): PlaneOperation[] => {
    const ends = { ...(encapsulation && { encapsulation }) }
    const key = (source: Ip, destination: Ip, spi: number) => ({ source, destination, spi: spi as Spi })
    return [
      { kind: 'sa.move', sa: key(X, from, 0x1002), to: { source: X, destination: to, ...ends } },
      { kind: 'sa.move', sa: key(from, X, 0x1001), to: { source: to, destination: X, ...ends } },
      // Harmless: there is none.
      { kind: 'sa.move', sa: key(from, X, 0x7777), to: { source: to, destination: X, ...ends } },
    ]
  }
  const relocate = async (from: Ip, to: Ip, encapsulation?: typeof ports): Promise<void> => {
    const [out, into] = [[template(to, X, 1)], [template(X, to, 1)]]
    await x.apply(...move(from, to, encapsulation), ...mirrored(LENT, out, into))
    await s.apply(...move(from, to, encapsulation), policy('out', LENT, out), policy('in', LENT, into))
  }
  const sent = (): number =>
    Number(
      /oseq (0x[0-9a-f]+)/.exec(
        states('s')
          .split('src ')
          .find((each) => each.includes('0x00001001')) ?? '',
      )?.[1],
    )
  ip('-n', 's', 'addr', 'add', `${elsewhere}/24`, 'dev', 's0')
  try {
    const before = sent()
    await relocate(S, elsewhere)
    assert.doesNotMatch(states('s') + states('x'), /encap/)
    const bare = await carried()
    assert.equal(bare.match(new RegExp(`${elsewhere} > ${X}: ESP`, 'g'))?.length, 3, bare)
    const between = sent()
    assert.ok(between > before, `${before} ${between}`)
    await s.listen(elsewhere)
    await relocate(elsewhere, elsewhere, ports)
    assert.equal((await carried()).match(/UDP-encap: ESP/g)?.length, 3)
    assert.ok(sent() > between)
    const rows = await x.counters()
    assert.deepEqual(
      rows.map(({ replayed, corrupted }) => [replayed, corrupted]),
      [
        [0, 0],
        [0, 0],
      ],
    )
  } finally {
    ip('-n', 's', 'addr', 'del', `${elsewhere}/24`, 'dev', 's0')
  }
})

test('when an SA is gone its packets are dropped, not sent in clear', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const operations = layer(LENT)
  await x.apply(...operations.x)
  await s.apply(...operations.s)
  lend(LENT)
  assert.equal(await ping('s', LENT, SERVER), 3)
  const before = await s.drops()
  await s.apply(removeSa(sa(S, X, 0x1001, 1)), removeSa(sa(S, X, 0x1001, 1)))
  const seen = await captured('s', 's0', async () => assert.equal(await ping('s', LENT, SERVER), 0))
  assert.ok(!seen.includes('proto'), seen)
  const drops = await s.drops()
  assert.ok(drops.XfrmOutNoStates! > before.XfrmOutNoStates!, JSON.stringify(drops))
})

test('a rekey by the same reqid changes no policy and loses nothing', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const operations = layer(LENT)
  await x.apply(...operations.x)
  await s.apply(...operations.s)
  lend(LENT)
  const flow = ping('s', LENT, SERVER, 40)
  const fresh = sa(S, X, 0x1fff, 1)
  await x.apply(install(fresh))
  await s.apply(install({ ...fresh, flow: 'outbound' }))
  await s.apply(removeSa(sa(S, X, 0x1001, 1)))
  await x.apply(removeSa(sa(S, X, 0x1001, 1)))
  assert.equal(await flow, 40)
})

test('an SA that is to announce its packets does, once; what was never authentic is no packet', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const operations = layer(LENT)
  await x.apply(...operations.x)
  await s.apply(...operations.s)
  lend(LENT)
  const fresh = sa(S, X, 0x1fff, 1, { announce: true })
  await x.apply(install(fresh))
  assert.equal(await ping('s', LENT, SERVER), 3)
  assert.deepEqual(x.heard, [], 'the old SA says nothing')
  // Under another key: packets arrive on the SPI, and none of them is authentic.
  const wrong = { ...fresh, flow: 'outbound' as const, key: fresh.key.with(0, fresh.key[0]! ^ 1) }
  await s.apply(install(wrong))
  await s.apply(removeSa(sa(S, X, 0x1001, 1)))
  assert.equal(await ping('s', LENT, SERVER), 0)
  await x.counters()
  assert.deepEqual(x.heard, [])
  await s.apply(removeSa(wrong), install({ ...fresh, flow: 'outbound' }))
  assert.equal(await ping('s', LENT, SERVER), 3)
  await x.counters()
  assert.deepEqual(x.heard, [0x1fff])
})

test('an SA whose life is over is gone, whether its daemon lives or not: packets are dropped, not sent in clear', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const operations = layer(LENT)
  await x.apply(...operations.x)
  await s.apply(...operations.s)
  lend(LENT)
  assert.equal(await ping('s', LENT, SERVER), 3)
  const heir = sa(S, X, 0x1fff, 1, { life: 2000 })
  const [there, back] = [removeSa(sa(S, X, 0x1001, 1)), removeSa(sa(X, S, 0x1002, 1))]
  await x.apply(
    install(heir),
    there,
    back,
    install({ ...heir, ...ends(X, S), spi: 0x1ffe as Spi, flow: 'outbound' }),
  )
  await x.kill()
  await s.apply(install({ ...heir, flow: 'outbound' }), there)
  const isThere = (namespace: string): boolean => /spi 0x00001ff/.test(states(namespace))
  for (let i = 0; i < 200 && (isThere('s') || isThere('x')); i++) await sleep(100)
  assert.deepEqual([isThere('s'), isThere('x')], [false, false])
  assert.equal(policies('x').match(/tmpl/g)?.length, 2, 'policies stay, and block')
  const before = await s.drops()
  const sent = await captured('s', 's0', async () => assert.equal(await ping('s', LENT, SERVER), 0))
  assert.ok(!sent.includes('proto'), sent)
  assert.ok((await s.drops()).XfrmOutNoStates! > before.XfrmOutNoStates!)
  const answers = await captured('x', 'x0', () => ping('x', SERVER, LENT))
  assert.ok(!answers.includes('proto'), answers)
  // To the daemon it is no loss: what came in on the other SA is still counted.
  assert.deepEqual(
    (await s.counters()).map(({ spi }) => spi),
    [0x1002],
  )
  assert.deepEqual([s.failures, s.heard], [[], []])
})

test('a refused operation is named, later ones are not done, earlier ones stay', async () => {
  const [s] = planes as [PlaneProcess]
  // Another program has this SPI towards the same destination.
  ip(
    '-n',
    's',
    'xfrm',
    'state',
    'add',
    'src',
    S,
    'dst',
    X,
    'proto',
    'esp',
    'spi',
    '0x1002',
    'reqid',
    '9',
    'mode',
    'tunnel',
    'aead',
    'rfc4106(gcm(aes))',
    `0x${'00'.repeat(36)}`,
    '128',
  )
  const outbound = (spi: number): PlaneOperation => install(sa(S, X, spi, 1, { flow: 'outbound' }))
  const late = policy('out', LENT, [template(S, X, 1)])
  await assert.rejects(s.apply(outbound(0x1001), outbound(0x1002), outbound(0x1003), late, guard('out')), {
    code: 'IPP_PLANE_OPERATION',
    message: /NEWSA 198\.18\.1\.1 -> 198\.18\.1\.2 spi 0x00001002: EEXIST/,
  })
  assert.deepEqual(
    (await s.counters()).map(({ spi }) => spi),
    [0x1001],
  )
  assert.equal(policies('s'), '')
  // Nothing of it is remembered either: the same can be asked for again.
  await s.apply(outbound(0x1003), late)
  assert.equal((await s.counters()).length, 2)
})

test('a policy that is replaced keeps what it was when a later operation is refused', async () => {
  const [s] = planes as [PlaneProcess]
  const two = [template(LENT, address('198.18.2.2'), 2), template(S, X, 1)]
  await s.apply(policy('out', LENT, [template(S, X, 1)]))
  const spoiled = install({ ...sa(S, X, 0x1001, 1), replayWindow: 100_000 })
  await assert.rejects(s.apply(spoiled, policy('out', LENT, two)), { code: 'IPP_PLANE_OPERATION' })
  assert.equal(policies('s').match(/tmpl/g)?.length, 1)
  await s.apply(policy('out', LENT, two))
  assert.equal(policies('s').match(/tmpl/g)?.length, 2)
})

test('SAs that another program flushed are a failure of the plane', async () => {
  const [s] = planes as [PlaneProcess]
  await s.apply(install(sa(X, S, 0x1002, 1)))
  assert.equal((await s.counters()).length, 1)
  ip('-n', 's', 'xfrm', 'state', 'flush')
  assert.deepEqual(await s.counters(), [])
  assert.equal(s.failures.length, 1)
  assert.match(s.failures[0]!, /another program removed/)
})

test('close leaves nothing behind, and what is not ours untouched', async () => {
  const [s] = planes as [PlaneProcess]
  ip(
    '-n',
    's',
    'xfrm',
    'policy',
    'add',
    'src',
    '203.0.113.1',
    'dst',
    '203.0.113.2',
    'dir',
    'out',
    'action',
    'block',
  )
  await s.apply(...layer(LENT).s, guard('out'), guard('in'))
  assert.match(ip('netns', 'exec', 's', 'ip', 'xfrm', 'policy', 'count'), /SPD IN/)
  await s.close()
  await s.close()
  assert.equal(states('s'), '')
  assert.equal(hasDevice('s'), false)
  assert.deepEqual(policies('s').match(/^src/gm)?.length, 1)
  assert.match(policies('s'), /203\.0\.113\.1/)
})

test('a killed process leaves its blocks and SAs, and the next open removes them', async () => {
  const [s] = planes as [PlaneProcess]
  await s.apply(...layer(LENT).s, guard('out'))
  await s.kill()
  assert.match(policies('s'), /action block/)
  assert.match(states('s'), /spi 0x00001001/)
  assert.equal(hasDevice('s'), true)
  const successor = succeed('s')
  await successor.open()
  assert.deepEqual([states('s'), policies('s')], ['', ''])
  assert.equal(hasDevice('s'), true)
  await successor.apply(...layer(LENT).s)
  assert.equal((await successor.counters()).length, 2)
})

test('with keepGuard the blocks stay until the first operations are done', async () => {
  const [s] = planes as [PlaneProcess]
  await s.apply(...layer(LENT).s, guard('out'), guard('fwd'))
  await s.kill()
  const successor = succeed('s', '--keep-guard')
  await successor.open()
  assert.equal(states('s'), '')
  assert.equal(policies('s').match(/action block/g)?.length, 2)
  assert.equal(policies('s').match(/^src/gm)?.length, 2)
  await successor.apply(guard('out'))
  assert.equal(policies('s').match(/^src/gm)?.length, 1)
  assert.match(policies('s'), /dir out action block/)
  await successor.close()
  assert.equal(policies('s'), '')
})

test('a successor that adopts takes over what stands, and not a packet is lost', async () => {
  const [s, x] = planes as [PlaneProcess, PlaneProcess]
  const operations = layer(LENT)
  await x.apply(...operations.x)
  await s.apply(...operations.s)
  lend(LENT)
  const flow = ping('s', LENT, SERVER, 60)
  await x.kill()
  const successor = succeed('x', '--adopt')
  await successor.open()
  assert.equal(await flow, 60)
  const { policies: found, sas } = await successor.inventory()
  assert.deepEqual(sas.map(({ spi, reqid }) => [spi, reqid]).sort(), [
    [0x1001, reqId(1)],
    [0x1002, reqId(1)],
  ])
  assert.deepEqual(
    found.map((each): PlaneOperation => ({ kind: 'policy.install', policy: each })).sort(byDirection),
    operations.x.filter(({ kind }) => kind === 'policy.install').sort(byDirection),
  )
  // As its own: replaced, counted, and removed when it ends.
  await successor.apply(...operations.x.filter(({ kind }) => kind === 'policy.install'))
  assert.equal(await ping('s', LENT, SERVER), 3)
  assert.deepEqual(
    (await successor.counters()).map(({ packets }) => packets),
    [63, 63],
  )
  await successor.close()
  assert.deepEqual([states('x'), policies('x'), hasDevice('x')], ['', '', false])
})

test('nobody adopts what a client left', async () => {
  const [s] = planes as [PlaneProcess]
  await s.apply(...layer(LENT).s, guard('out'))
  await s.kill()
  const successor = succeed('s', '--adopt')
  await successor.open()
  assert.deepEqual(await successor.inventory(), { policies: [], sas: [] })
  assert.deepEqual([states('s'), policies('s')], ['', ''])
})

const byDirection = (a: PlaneOperation, b: PlaneOperation): number =>
  directionOf(a) < directionOf(b) ? -1 : 1
const directionOf = (each: PlaneOperation): string =>
  each.kind === 'policy.install' ? each.policy.direction : ''
