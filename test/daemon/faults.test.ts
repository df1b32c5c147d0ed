/**
 * What goes wrong while the daemons run: nodes that are silent, that have another key or no address left, a server
 * that is down, a directory that is gone or signs with another key. Each is named, the rest works on, and the
 * client's guard lets nothing out.
 *
 * The tests share one network and follow each other. Pools have five addresses and an address rests for minutes, so
 * alder and birch are used up by the first tests; the later ones enter at dogwood.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { sleep } from '#demo/command'
import type { CircuitStatus, ClientStatus } from '#demo/daemons'
import { assertRefused, isError, Lab, unavailable } from './lab.ts'

const missing = unavailable()
const lab = new Lab(['alder', 'birch', 'cedar', 'dogwood'])
/** Addresses of a /29 that can be lent. */
const POOL = 5

interface Trouble {
  readonly lastError: string | null
}

before(async () => {
  if (missing) return
  await lab.raise(2)
  lab.configure('directory', { poolLength: 29 })
  lab.configure('client', { 'circuit.path': ['alder', 'birch'] })
  await Promise.all([lab.startServer(), lab.startNetwork()])
  lab.start('client')
  await lab.clientReady()
})

after(() => lab.down())

const curl = (limit: number) => [
  'curl',
  '-sS',
  '-o',
  '/dev/null',
  '-w',
  '%{time_total}',
  '--max-time',
  String(limit),
  `http://${lab.host('server').address}/`,
]

const reachesServer = async () => assert.equal((await lab.run('client', ...curl(10))).code, 0)

test('a web server that is down: connection refused at once, nothing in clear', async (t) => {
  if (missing) return t.skip(missing)
  await reachesServer()
  await lab.stopServer()
  const leaked = await lab.leaksWhile(async () => {
    const { code, stderr, stdout } = await lab.run('client', ...curl(10))
    // curl's exit code 7: could not connect.
    assert.equal(code, 7, stderr)
    assert.ok(Number(stdout) < 3, `${stdout} s`)
  })
  assert.deepEqual(leaked, [])
  await lab.startServer()
  await reachesServer()
})

test('circuits that do not exist, and paths that cannot be', async (t) => {
  if (missing) return t.skip(missing)
  const unknown = { code: 'IPP_CIRCUIT_UNKNOWN', exit: 1, where: /99/ } as const
  assertRefused(await lab.circuits('close', '99'), unknown)
  const word = await lab.circuits('close', 'x')
  assert.equal(word.code, 2)
  assert.match(word.stderr, /^error: .*'x' is invalid for argument 'id'. expected a number/)
  const build = (...path: string[]) => lab.circuits('build', '--json', '--path', path.join(','))
  const stranger = { code: 'IPP_PATH_UNKNOWN_NODE', exit: 1, where: /"yew"/ } as const
  assertRefused(await build('alder', 'yew'), stranger)
  const entry = { code: 'IPP_PATH_NONE', exit: 1, where: /birch and alder are both wanted at hop 1/ } as const
  assertRefused(await build('birch', 'cedar'), entry)
  const twice = { code: 'IPP_PATH_NONE', exit: 1, where: /alder stands twice/ } as const
  assertRefused(await build('alder', 'alder'), twice)
  await reachesServer()
})

test('a node that does not answer: its circuit fails by name, other paths work', async (t) => {
  if (missing) return t.skip(missing)
  const { process } = lab.daemon('dogwood')
  process.kill('SIGSTOP')
  try {
    const silent = lab.circuits('build', '--json', '--path', 'alder,dogwood')
    const other = await lab.circuits('build', '--json', '--path', 'alder,cedar')
    assert.equal(other.code, 0, other.stderr)
    const circuit = JSON.parse(other.stdout) as CircuitStatus
    assert.equal(circuit.state, 'open')
    assertRefused(await silent, { code: 'IPP_IKE_TIMEOUT', exit: 1, where: /hop 2 \(dogwood\): no answer/ })
    await reachesServer()
    assert.equal((await lab.circuits('close', String(circuit.id))).code, 0)
  } finally {
    process.kill('SIGCONT')
  }
})

test('a pool without addresses: the circuit is refused by name, the others keep working', async (t) => {
  if (missing) return t.skip(missing)
  let refusal: Awaited<ReturnType<typeof lab.circuits>> | undefined
  let built = 0
  for (let i = 0; i <= POOL && refusal === undefined; i++) {
    const result = await lab.circuits('build', '--json', '--path', 'alder,birch')
    if (result.code === 0) built++
    else refusal = result
  }
  assert.ok(refusal !== undefined, `${built} circuits from a pool of ${POOL}`)
  // Each of the earlier tests took addresses of alder, which rest now.
  const where = /hop 1 \(alder\): the peer answered INTERNAL_ADDRESS_FAILURE/
  assertRefused(refusal, { code: 'IPP_IKE_ADDRESS_REFUSED', exit: 1, where })
  const status = await lab.clientReady()
  assert.equal(status.circuits.filter(({ state }) => state === 'open').length, 1 + built)
  const { leases } = await lab.status<{ leases: Record<string, number> }>('alder', () => undefined)
  assert.equal(leases.inUse, 1 + built)
  assert.ok(leases.free! <= leases.inUse!, 'one network has at most as many as are left')
  await reachesServer()
  assert.equal(await lab.stop('client'), 0)
})

test('too few nodes for a path: IPP_PATH_NONE in the status, nothing leaves', async (t) => {
  if (missing) return t.skip(missing)
  lab.startClientAnew({ 'circuit.hops': 5, 'circuit.path': undefined })
  const leaked = await lab.leaksWhile(async () => {
    const { state, lastError } = await lab.status<ClientStatus>('client', (now) =>
      now.state === 'failed' ? undefined : now.state,
    )
    assert.equal(state, 'failed')
    assert.ok(isError(lastError, 'IPP_PATH_NONE'), String(lastError))
    assert.match(lastError!, /path of 5 hops \(4 nodes listed/)
    await lab.tryEverything()
  })
  assert.deepEqual(leaked, [])
  assert.equal(await lab.stop('client'), 0)
})

test('a directory that signs with another key: IPP_DIR_BAD_SIGNATURE, nothing leaves', async (t) => {
  if (missing) return t.skip(missing)
  const pinned = lab.setting('client', 'directory.key')
  lab.startClientAnew({ 'directory.key': randomBytes(32).toString('hex'), 'circuit.hops': 2 })
  const leaked = await lab.leaksWhile(async () => {
    const { state, lastError } = await lab.status<ClientStatus>('client', (now) =>
      now.lastError === null ? 'no error' : undefined,
    )
    assert.equal(state, 'waiting-for-consensus')
    assert.ok(isError(lastError, 'IPP_DIR_BAD_SIGNATURE'), String(lastError))
    await lab.tryEverything()
  })
  assert.deepEqual(leaked, [])
  assert.equal(await lab.stop('client'), 0)
  lab.configure('client', { 'directory.key': pinned })
})

test('a directory that is gone: daemons stay up and say it once, nothing leaves', async (t) => {
  if (missing) return t.skip(missing)
  assert.equal(await lab.stop('directory'), 0)
  lab.startClientAnew({ 'circuit.hops': 2, 'circuit.path': ['dogwood', 'cedar'] })
  const leaked = await lab.leaksWhile(async () => {
    const { state, lastError } = await lab.status<ClientStatus>('client', unreachable)
    assert.equal(state, 'waiting-for-consensus')
    assert.match(
      lastError!,
      /198\.18\.50\.1:9030: 198\.18\.50\.1 port 9030: ECONNREFUSED; there is no valid document/,
    )
    await lab.tryEverything()
    // Some attempts more.
    await sleep(2_500)
  })
  assert.deepEqual(leaked, [])
  assert.equal(lab.logged('client', 'IPP_DIR_UNREACHABLE').length, 1)
  assert.ok(lab.daemon('client').process.running)
  lab.start('directory')
  const { lastError } = await lab.clientReady()
  assert.equal(lastError, null)
  assert.equal(lab.logged('client', 'the directory answers again').length, 1)
  await reachesServer()
})

test('a node restarts without the directory: it serves by the consensus it kept', async (t) => {
  if (missing) return t.skip(missing)
  assert.equal(await lab.stop('client'), 0)
  assert.equal(await lab.stop('directory'), 0)
  assert.equal(await lab.stop('dogwood'), 0)
  lab.start('dogwood')
  await lab.nodeReady('dogwood')
  const { lastError } = await lab.status<Trouble>('dogwood', unreachable)
  assert.match(lastError!, /the last document is usable until/)
  await sleep(2_500)
  assert.equal(lab.logged('dogwood', 'IPP_DIR_UNREACHABLE').length, 1)
  // The client kept the document, too.
  lab.start('client')
  await lab.clientReady()
  await reachesServer()
  assert.equal(await lab.stop('client'), 0)
})

test('a node that answers with another key: IPP_IKE_AUTH_FAILED, nothing leaves', async (t) => {
  if (missing) return t.skip(missing)
  assert.equal(await lab.stop('dogwood'), 0)
  const other = join(mkdtempSync(join(lab.out, 'keys-')), 'node')
  assert.equal((await lab.ippriv('dogwood', 'keygen', 'node', '--dir', other)).code, 0)
  copyFileSync(join(other, 'ike.pem'), join(lab.keysOf('dogwood'), 'ike.pem'))
  lab.start('dogwood')
  await lab.status<Trouble>('dogwood', unreachable)
  lab.start('client')
  const leaked = await lab.leaksWhile(async () => {
    const { lastError } = await lab.status<ClientStatus>('client', (now) =>
      isError(now.lastError, 'IPP_IKE_AUTH_FAILED') ? undefined : String(now.lastError),
    )
    assert.match(lastError!, /hop 1 \(dogwood\): \S/)
    await lab.tryEverything()
  })
  assert.deepEqual(leaked, [])
  // Nor do the other nodes take it for dogwood.
  const { overlay } = await lab.status<{ overlay: { peer: string; state: string }[] }>(
    'cedar',
    ({ overlay }) =>
      overlay.some(({ peer, state }) => peer === 'dogwood' && state === 'up')
        ? 'still has the tunnel'
        : undefined,
  )
  assert.equal(overlay.find(({ peer }) => peer === 'alder')?.state, 'up')
})

const unreachable = ({ lastError }: Trouble): string | undefined =>
  isError(lastError, 'IPP_DIR_UNREACHABLE') ? undefined : String(lastError)
