/**
 * A client and nodes that follow several authorities, whose part the test plays: mirrors when nobody else answers, authorities
 * that move, a network that agrees on something else. The client is never restarted, until the network takes its version no longer.
 *
 * Nodes follow the lab's one directory; the client believes the three alone, whose documents list the same nodes. The tests share one
 * network and follow each other.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Background } from '#demo/command'
import { type ClientStatus, clientReady } from '#demo/daemons'
import { Lab, unavailable } from './lab.ts'
import { Press } from './press.ts'

const missing = unavailable()
const PATH = ['alder', 'birch', 'cedar'] as const
const lab = new Lab(PATH)
const press = new Press(lab)
const AUTHORITIES = 9041
const MIRRORS = { liar: 9051, laggard: 9052, mirror: 9053 }
/** Where the authorities are later: past the telescope nothing leads there. */
const NEW_HOST = 'server'
const trustFile = join(lab.out, 'network')
const mirrors: Background[] = []

type Status = ClientStatus & { readonly pid: number; readonly advice: string | null }

before(async () => {
  if (missing) return
  await lab.raise(3)
  await Promise.all([lab.startServer(), lab.startNetwork()])
  await press.start()
  writeFileSync(trustFile, press.bootstrap(1, 'directory', AUTHORITIES))
  for (const [name, port] of Object.entries(MIRRORS)) mirrors.push(await press.serve(name, 'directory', port))
})

after(async () => {
  press.end()
  await lab.down()
})

const reachesServer = async () => {
  const url = `http://${lab.host('server').address}/`
  const { code, stderr } = await lab.run('client', 'curl', '-sS', '-o', '/dev/null', '--max-time', '10', url)
  assert.equal(code, 0, stderr)
}

/** Waits for a document of later periods than `serial`, with a circuit. */
const newerThan = (serial: number) =>
  lab.status<Status>('client', (status) =>
    (status.consensus?.serial ?? 0) > serial ? clientReady(status) : `it has ${status.consensus?.serial}`,
  )

test('no authority answers: a mirror does; one that lies and one that is behind the times are passed over', async (t) => {
  if (missing) return t.skip(missing)
  const old = press.consensus(1)
  press.put('liar', 'consensus', old.replace('"mtu":1280', '"mtu":1180'))
  press.put('laggard', 'consensus', old)
  const { address } = lab.host('directory')
  lab.configure('client', {
    directory: {
      bootstrap: trustFile,
      mirrors: Object.values(MIRRORS).map((port) => `http://${address}:${port}`),
    },
    'circuit.path': [...PATH],
  })
  const { process } = lab.start('client')
  // A document that is not fresh will do until there is a better one.
  const { counters, consensus } = await lab.status<Status>('client', ({ counters, consensus }) =>
    counters['directory.consensus.stale'] &&
    counters['directory.refused.IPP_DIR_BAD_SIGNATURE'] &&
    // Only when all have been asked.
    consensus !== null
      ? undefined
      : JSON.stringify(counters),
  )
  assert.ok(counters['directory.refused.IPP_DIR_UNREACHABLE']! > 0, 'the authorities were asked')
  press.readers.add('mirror')
  const after = await newerThan(consensus!.serial)
  assert.equal(after.pid, process.pid)
  await reachesServer()
})

test('the network agrees on another MTU and recommends other software: a running client acts on it', async (t) => {
  if (missing) return t.skip(missing)
  const before = await newerThan(0)
  const routes = async (mtu: number) =>
    (await lab.run('client', 'ip', 'route', 'show', 'table', 'all')).stdout
      .split('\n')
      .filter((line) => line.includes('dev ippriv0') && line.includes(`mtu ${mtu} `)).length
  const had = await routes(1280)
  assert.ok(had >= 2, 'both halves of the Internet')
  press.parameters = { ...press.parameters, mtu: 1200, versions: ['ippriv 99.0.0'] }
  const after = await lab.status<Status>('client', ({ advice }) =>
    advice === null ? 'no advice' : undefined,
  )
  assert.match(after.advice!, /recommends ippriv 99\.0\.0/)
  assert.equal(after.pid, before.pid)
  assert.deepEqual([await routes(1280), await routes(1200)], [0, had])
  await reachesServer()
})

test('authorities move, and say so in a file signed by enough of them: the client follows through its circuit', async (t) => {
  if (missing) return t.skip(missing)
  const before = await newerThan(0)
  const moved = press.bootstrap(2, NEW_HOST, AUTHORITIES)
  // One of them still answers where it was, and has nothing but the chain.
  const last = await press.serve('old-place', 'directory', AUTHORITIES + 2)
  press.put('old-place', 'bootstrap', readFileSync(trustFile, 'latin1') + moved)
  const seen = await lab.seenOnCable(`host ${lab.host(NEW_HOST).address}`, async () => {
    await press.serve('new-place', NEW_HOST, AUTHORITIES + 1)
    press.readers.add('new-place')
    for (const mirror of mirrors) await mirror.stop(2_000)
    const after = await newerThan(before.consensus!.serial)
    assert.equal(after.pid, before.pid)
    await last.stop(2_000)
    await newerThan(after.consensus!.serial)
  })
  assert.deepEqual(seen, [], 'its guard knows the old places alone')
  assert.equal(lab.logged('client', 'the network has other authorities').length, 1)
})

test('the network takes this version no longer: nodes and clients end by name, and the guard stays', async (t) => {
  if (missing) return t.skip(missing)
  // Its neighbours follow their own directory.
  lab.configure('cedar', {
    directory: { bootstrap: trustFile, mirrors: [`http://${lab.host(NEW_HOST).address}:${AUTHORITIES + 1}`] },
  })
  press.parameters = { ...press.parameters, minimum: '99.0.0' }
  assert.equal(await lab.daemon('client').process.ended, 78)
  const leaked = await lab.leaksWhile(() => lab.tryEverything())
  assert.deepEqual(leaked, [])
  const [fatal] = lab.logged('client', '[IPP_DIR_OUTDATED]').filter(({ level }) => level === 'fatal')
  assert.match(
    fatal!.msg,
    /^the network takes no software that is so old: ippriv 99\.0\.0 is needed; this is ippriv \d/,
  )
  // The document it kept says the same.
  assert.equal(await lab.start('client').process.ended, 78)
  assert.equal(await lab.stop('cedar'), 0)
  assert.equal(await lab.start('cedar').process.ended, 78)
  assert.deepEqual(await lab.leftovers('cedar'), [])
})
