/**
 * How daemons live and end: over lossy cables, after SIGKILL, after SIGTERM, on another plane than before. The tests
 * share one network and follow each other; the last one takes it down.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { until } from '#demo/command'
import { contentDigest, MEBIBYTE } from '#demo/content'
import { impair, inNamespace } from '#demo/topology'
import { PRIORITY } from '#telescope/plane'
import { Lab, unavailable } from './lab.ts'

const missing = unavailable()
const lab = new Lab(['alder', 'birch', 'cedar'])
/** What the client sends; its entry may still send to one that was killed. */
const sent = (): string => `ip and not dst host ${lab.host('client').address}`
const NODES = ['alder', 'birch', 'cedar'] as const

before(async () => {
  if (missing) return
  await lab.raise(3)
  lab.configure('client', { 'circuit.path': [...NODES] })
  await Promise.all([lab.startServer(), lab.startNetwork()])
})

after(() => lab.down())

/** Proves that the circuit carries data unharmed, and nothing beside it. */
async function downloads(octets: number): Promise<void> {
  const done = await lab.traffic.download(lab.host('client'), octets)
  assert.deepEqual([done.octets, done.sha256], [octets, contentDigest(octets)])
}

test('two percent loss on every link: the circuit is built and carries a download', async (t) => {
  if (missing) return t.skip(missing)
  await impair(lab.commands, lab.topology, 2)
  lab.start('client')
  const { circuits } = await lab.clientReady()
  assert.deepEqual(circuits[0]?.path, NODES)
  await downloads(3 * MEBIBYTE)
  const { stdout } = await lab.commands.run(
    inNamespace(lab.topology.router, 'nft', '-a', 'list', 'table', 'ip', 'loss'),
  )
  assert.match(stdout, /numgen random mod 1000 < 20 drop/)
  await lab.commands.run(inNamespace(lab.topology.router, 'nft', 'delete', 'table', 'ip', 'loss'))
  await downloads(MEBIBYTE)
})

test('a client killed with SIGKILL: its guard stays closed until the next one has taken over', async (t) => {
  if (missing) return t.skip(missing)
  const leaked = await lab.leaksWhile(async () => {
    // Somebody who tries without pause: before, during and after the change of guard.
    const pings = lab.commands.start(
      inNamespace(
        lab.host('client').namespace,
        'ping',
        '-q',
        '-i',
        '0.02',
        '-I',
        lab.host('client').address,
        lab.host('server').address,
      ),
      `${lab.out}/pings.log`,
    )
    await lab.kill('client')
    assert.deepEqual(
      await lab.seenOnCable(sent(), () => lab.tryEverything()),
      [],
      'a dead client sends nothing at all',
    )
    lab.start('client')
    await lab.clientReady()
    await pings.stop(1000)
  })
  assert.deepEqual(leaked, [])
  await downloads(MEBIBYTE)
})

test('a client that was killed, and whose successor cannot start: the guard stays until it is told to go', async (t) => {
  if (missing) return t.skip(missing)
  const guard = (verb: 'up' | 'down') =>
    lab.ippriv('client', 'guard', verb, '--config', lab.configFile('client'))
  assert.match((await guard('down')).stderr, /IPP_CONTROL_BUSY/, 'not under a client that runs')
  await lab.kill('client')
  // The note of the settings cannot be written: the start fails after the plane and the host were opened.
  const obstacle = join(lab.stateOf('client'), 'sysctl.json.new')
  mkdirSync(obstacle)
  assert.equal(await lab.start('client').process.ended, 1)
  assert.equal(lab.logged('client', 'the guard stays').length, 1)
  assert.deepEqual(await lab.seenOnCable(sent(), () => lab.tryEverything()), [])
  rmdirSync(obstacle)
  const { address } = lab.host('server')
  const reaches = async () => (await lab.run('client', 'ping', '-c', '1', '-W', '2', address)).code === 0
  assert.equal((await guard('down')).code, 0)
  assert.deepEqual(await lab.leftovers('client'), [])
  assert.ok(await reaches(), 'in clear, as it was asked for')
  assert.equal((await guard('up')).code, 0)
  assert.deepEqual(await lab.seenOnCable(sent(), () => lab.tryEverything()), [])
  lab.start('client')
  await lab.clientReady()
  await downloads(MEBIBYTE)
})

test('rekeys on request: every layer and an overlay tunnel, packets and IKE, and the circuit goes on', async (t) => {
  if (missing) return t.skip(missing)
  const { circuits } = await lab.clientReady()
  const { id } = circuits.find((circuit) => circuit.default)!
  for (const ike of [[], ['--ike']]) {
    const { code, stdout, stderr } = await lab.circuits('rekey', `${id}`, '--json', ...ike)
    assert.equal(code, 0, stderr)
    const { rekeyed } = JSON.parse(stdout) as { rekeyed: { hop: number; node: string }[] }
    assert.deepEqual(
      rekeyed.map(({ hop, node }) => `${hop} ${node}`),
      ['3 cedar', '2 birch', '1 alder'],
    )
    const socket = lab.socketOf('alder')
    const tunnel = await lab.ippriv('alder', 'overlay', 'rekey', 'birch', '--socket', socket, ...ike)
    assert.equal(tunnel.code, 0, tunnel.stderr)
    await downloads(MEBIBYTE)
  }
  const wrong = await lab.circuits('rekey', `${id}`, '--hop', '4')
  assert.deepEqual([wrong.code, /hop: expected 1 to 3, found 4/.test(wrong.stderr)], [2, true])
})

test('a node killed with SIGKILL: the next one cleans up, gets its tunnels back and serves', async (t) => {
  if (missing) return t.skip(missing)
  await lab.kill('birch')
  assert.ok(existsSync(lab.socketOf('birch')), 'the socket of the killed one')
  assert.ok((await lab.leftovers('birch')).includes('ip_forward:1'), 'its settings')
  lab.start('birch')
  await lab.nodeReady('birch')
  const { code, stderr } = await lab.circuits('build', '--path', NODES.join(','))
  assert.equal(code, 0, stderr)
})

test('SIGTERM: every daemon ends with 0 and leaves nothing of its own behind', async (t) => {
  if (missing) return t.skip(missing)
  // Peers that are still there, and at the end peers that are not.
  for (const name of ['client', 'birch', 'alder', 'cedar', 'directory']) {
    assert.equal(await lab.stop(name), 0, name)
    assert.deepEqual(await lab.leftovers(name), [], name)
  }
  // What the other tests count as a leak is counted, where there is no guard.
  const { address } = lab.host('server')
  const seen = await lab.leaksWhile(async () => {
    assert.equal((await lab.run('client', 'ping', '-c', '2', '-i', '0.1', address)).code, 0)
  })
  assert.equal(seen.length, 4)
})

test('SIGTERM during the start: the daemon ends with 0 and leaves nothing behind', async (t) => {
  if (missing) return t.skip(missing)
  for (const name of ['client', 'alder']) {
    lab.start(name)
    // The socket is the first thing a daemon takes of its host.
    await until('the socket', 10_000, () => existsSync(lab.socketOf(name)) || undefined, 1)
    assert.equal(await lab.stop(name), 0, name)
    assert.deepEqual(await lab.leftovers(name), [], name)
  }
})

test('the userspace plane clears what a killed daemon on the kernel plane left', async (t) => {
  if (missing) return t.skip(missing)
  const policy = (priority: number, destination: string) =>
    [
      'ip xfrm policy add dir out',
      `src 10.64.0.0/20 dst ${destination} action block priority ${priority}`,
    ].join(' ')
  const made = await lab.run(
    'alder',
    'sh',
    '-c',
    `${policy(PRIORITY.overlay, '198.18.20.1/32')} && ${policy(77, '198.18.77.1/32')}`,
  )
  if (made.code !== 0) return t.skip(`this kernel takes no XFRM policies: ${made.stderr.trim()}`)
  // Where the kernel has the driver, its device too.
  await lab.run('alder', 'ip', 'link', 'add', 'ippriv0', 'type', 'dummy')
  lab.start('alder')
  await lab.status('alder', () => undefined)
  const { stdout } = await lab.run('alder', 'ip', 'xfrm', 'policy')
  assert.doesNotMatch(stdout, /198\.18\.20\.1/, 'ours is gone')
  assert.match(stdout, /198\.18\.77\.1/, 'that of somebody else is not')
  assert.equal(await lab.stop('alder'), 0)
  await lab.run('alder', 'ip', 'xfrm', 'policy', 'flush')
  assert.deepEqual(await lab.leftovers('alder'), [])
})
