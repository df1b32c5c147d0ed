/**
 * The demo's internet, its ordinary programs and its captures, with no daemon at all:
 *
 *     client 198.18.1.1 --- router --- server 198.18.40.1
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { addressesIn, analyse, flowText } from '#demo/analysis'
import { startCaptures, stopCaptures, totalsOf } from '#demo/capture'
import { Commands, until } from '#demo/command'
import { contentDigest, MEBIBYTE, PAGE_MARK, WEB_NAME, WHOAMI_NAME } from '#demo/content'
import { KeyRing } from '#demo/keys'
import { leakCapture } from '#demo/observation'
import { readPcap } from '#demo/pcap'
import { inventory, processesIn, residue } from '#demo/residue'
import {
  fell,
  hostOf,
  impair,
  inNamespace,
  planTopology,
  raise,
  runDirectory,
  staleRuns,
} from '#demo/topology'
import { parsePing, Traffic } from '#demo/traffic'
import { echoRequest, espKey, ipv4, PROTOCOL, pcap, sealed, tcp } from './packets.ts'

const missing = process.getuid?.() !== 0 ? 'needs root: it creates network namespaces' : missingTool()
const topology = planTopology(`ippd${process.pid}`)
const commands = new Commands(new AbortController().signal)
const traffic = new Traffic(commands, topology, 1)
const client = hostOf(topology, 'client')
const server = hostOf(topology, 'server')
const out = mkdtempSync(join(tmpdir(), 'ippriv-demo-test-'))

before(async () => {
  if (missing) return
  await raise(commands, topology)
  execFileSync('mkdir', ['-p', runDirectory(topology.id)])
  const origin = join(import.meta.dirname, '../../src/demo/origin.ts')
  const log = join(out, 'origin.log')
  commands.start(inNamespace(server.namespace, process.execPath, origin, server.address), log)
  await until('the server', 10_000, () => (readFileSync(log, 'utf8').includes('ready') ? true : undefined))
})

after(async () => {
  if (!missing) {
    await commands.killAll(2_000)
    await fell(commands, topology.id)
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`${topology.id}-`)),
      [],
    )
  }
  rmSync(out, { recursive: true })
})

test('ordinary programs reach the server, which sees who they are', async (t) => {
  if (missing) return t.skip(missing)
  assert.ok((await traffic.page(client, '/')).includes(PAGE_MARK))
  assert.equal((await traffic.page(client, '/whoami')).trim(), client.address)
  const dns = { kind: 'dns' as const, server: server.address, port: 53, attempts: 2 }
  const [echo, web, whoami, refused] = await traffic.probe(client, [
    traffic.echo(3),
    { ...dns, name: WEB_NAME, type: 'A' },
    { ...dns, name: WHOAMI_NAME, type: 'TXT', from: client.address },
    { kind: 'connect', to: server.address, port: 81, timeoutMs: 1000 },
  ])
  assert.deepEqual([echo?.sent, echo?.received], [3, 3])
  assert.deepEqual([web?.answers, whoami?.answers], [[server.address], [client.address]])
  assert.match(refused?.errors[0] ?? '', /ECONNREFUSED/)
  const done = await traffic.download(client, 2 * MEBIBYTE + 5)
  assert.deepEqual([done.octets, done.sha256], [2 * MEBIBYTE + 5, contentDigest(2 * MEBIBYTE + 5)])
})

test('captures hold the packets a cable would carry', async (t) => {
  if (missing) return t.skip(missing)
  const spec = { name: 'cable', namespace: topology.router, device: client.cable }
  const captures = await startCaptures(commands, out, [spec], 10_000)
  await traffic.download(client, 256 * 1024)
  const totals = await stopCaptures(captures)
  assert.equal(totals.get('cable')?.dropped, 0)
  const file = readFileSync(join(out, 'cable.pcap'))
  const sizes = [...readPcap(file)].map((frame) => frame.wireLength)
  assert.ok(
    sizes.length > 180 && Math.max(...sizes) <= 1500,
    `${sizes.length} packets, largest ${Math.max(...sizes)}`,
  )
  const view = analyse([file], new KeyRing([]))
  assert.deepEqual(view.flows.map(flowText).sort(), [
    `${client.address}>${server.address} tcp 80`,
    `${server.address}>${client.address} tcp 80`,
  ])
  assert.equal(addressesIn(view.flows).length, 2)
})

test('the router knows no private address', async (t) => {
  if (missing) return t.skip(missing)
  const { stdout } = await commands.run(inNamespace(topology.router, 'ip', 'route', 'show', 'table', 'all'))
  assert.doesNotMatch(stdout, /(^| )(10\.|default)/m)
})

test('loss makes some packets disappear', async (t) => {
  if (missing) return t.skip(missing)
  await impair(commands, topology, 20)
  const pings = await traffic.ping(client, 60)
  await commands.run(
    inNamespace(topology.router, 'sh', '-c', 'nft delete table ip loss || iptables-legacy -F'),
  )
  assert.ok(pings.received > 5 && pings.received < 59, `${pings.received} of 60`)
})

test('an inventory shows what was left behind', async (t) => {
  if (missing) return t.skip(missing)
  const host = hostOf(topology, 'plain')
  const earlier = await inventory(commands, host)
  assert.deepEqual(residue(earlier, await inventory(commands, host)), [])
  const batch =
    'link add left0 type veth peer name left1\naddr add 10.64.0.9/32 dev left0\nlink set left0 up\n'
  await commands.run(['ip', '-n', host.namespace, '-batch', '-'], { input: batch })
  const sleeper = commands.start(inNamespace(host.namespace, 'sleep', '30'), join(out, 'sleep.log'))
  const found = residue(earlier, await inventory(commands, host)).join('\n')
  assert.match(found, /device left0/)
  assert.match(found, /left0 .*10\.64\.0\.9/)
  assert.match(found, /local 10\.64\.0\.9/)
  assert.deepEqual(
    (await processesIn(commands, host)).map((line) => line.trim()),
    ['sleep 30'],
  )
  await sleeper.stop(1000)
})

test('a run whose process is gone is found, one that lives is not', async (t) => {
  if (missing) return t.skip(missing)
  // The pid of a program that has ended.
  const gone = `ippd${spawnSync('true').pid}`
  await commands.run(['ip', 'netns', 'add', `${gone}-alder`])
  try {
    assert.ok((await staleRuns()).includes(gone))
  } finally {
    await fell(commands, gone)
  }
  assert.ok(!(await staleRuns()).includes(gone))
})

test('the leak watch keeps everything but ARP, the directory and the bulk of ESP', (t) => {
  if (missing) return t.skip(missing)
  const node = hostOf(topology, 'alder').address
  const key = espKey(client.address, node)
  const packets = [1, 2, 255, 256, 257, 258].map((sequence) => sealed(key, new Uint8Array(20), sequence))
  packets.push(
    sealed(espKey(client.address, server.address), new Uint8Array(20), 7),
    ipv4(client.address, server.address, PROTOCOL.icmp, echoRequest()),
    ipv4(client.address, hostOf(topology, 'directory').address, PROTOCOL.tcp, tcp(40000, 9030)),
    ipv4(client.address, server.address, PROTOCOL.tcp, tcp(40000, 9030)),
  )
  const [all, kept] = [join(out, 'all.pcap'), join(out, 'kept.pcap')]
  writeFileSync(all, pcap(packets))
  execFileSync('tcpdump', ['-r', all, '-w', kept, leakCapture(topology, 'x').filter!], { stdio: 'ignore' })
  const view = analyse([readFileSync(kept)], new KeyRing([key]))
  assert.deepEqual(
    view.flows.filter((flow) => flow.depth === 0).map((flow) => [flow.destination, flow.kind, flow.packets]),
    [
      [node, 'esp', 2],
      [server.address, 'esp', 1],
      [server.address, 'icmp', 1],
      [server.address, 'tcp', 1],
    ],
  )
})

test('reads what tcpdump and ping say at their end', () => {
  assert.deepEqual(
    totalsOf('12 packets captured\n13 packets received by filter\n1 packet dropped by kernel\n'),
    {
      captured: 12,
      dropped: 1,
    },
  )
  assert.deepEqual(
    parsePing(
      '3 packets transmitted, 2 received, 33% packet loss\nrtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms',
    ),
    {
      sent: 3,
      received: 2,
      rttMs: { min: 0.1, average: 0.2, max: 0.3 },
    },
  )
  assert.equal(parsePing('3 packets transmitted, 0 received, 100% packet loss').rttMs, null)
})

function missingTool(): string | undefined {
  for (const tool of ['ip', 'tcpdump', 'curl', 'ping'])
    if (spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0) return `needs ${tool}`
  return undefined
}
