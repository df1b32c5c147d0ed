/** `ippriv circuits rekey` and `ippriv overlay rekey` before a daemon that only says what it was asked. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { IpprivError } from '#base/errors'
import { EXIT } from '#cli/output'
import { type ControlServer, serveControl } from '#linux/control'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const asked: object[] = []
let home: string
let socket: string
let server: ControlServer

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'ippriv-rekey-'))
  socket = join(home, 'control.sock')
  server = await serveControl(socket, {
    'circuits.rekey': (params) => {
      asked.push(params)
      if (params.id !== 1) throw new IpprivError('IPP_CIRCUIT_UNKNOWN', String(params.id))
      const rekeyed = [
        { hop: 2, node: 'birch', ms: 12.5 },
        { hop: 1, node: 'alder', ms: 4 },
      ]
      return { circuit: 1, what: params.ike ? 'ike' : 'child', rekeyed }
    },
    'overlay.rekey': (params) => {
      asked.push(params)
      if (params.peer !== 'birch') throw new IpprivError('IPP_OVERLAY_DOWN', String(params.peer))
      return { peer: 'birch', what: params.ike ? 'ike' : 'child', ms: 9 }
    },
  })
})

after(async () => {
  await server.close()
  await rm(home, { recursive: true })
})

/** Not spawnSync: the daemon is this process. */
const ippriv = (...args: readonly string[]) =>
  new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    const argv = ['--disable-warning=ExperimentalWarning', MAIN, ...args]
    const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined }
    const child = execFile(process.execPath, argv, { env }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode!, stdout, stderr }),
    )
  })

test('circuits rekey: every hop or one, packets or IKE, text or JSON', async () => {
  const text = await ippriv('circuits', 'rekey', '1', '--socket', socket)
  assert.equal(text.code, EXIT.ok, text.stderr)
  assert.equal(
    text.stdout,
    'hop  node   new keys of  took\n2    birch  packets      12.5 ms\n1    alder  packets      4 ms\n',
  )
  const json = await ippriv('circuits', 'rekey', '1', '--hop', '2', '--ike', '--json', '--socket', socket)
  assert.equal((JSON.parse(json.stdout) as { what: string }).what, 'ike')
  assert.deepEqual(asked.splice(0), [{ id: 1 }, { id: 1, hop: 2, ike: true }])
})

test('overlay rekey: a peer, packets or IKE, text or JSON', async () => {
  const text = await ippriv('overlay', 'rekey', 'birch', '--ike', '--socket', socket)
  assert.deepEqual([text.code, text.stdout], [EXIT.ok, 'birch: new keys of IKE, took 9 ms\n'])
  const json = await ippriv('overlay', 'rekey', 'birch', '--json', '--socket', socket)
  assert.deepEqual(JSON.parse(json.stdout), { peer: 'birch', what: 'child', ms: 9 })
  assert.deepEqual(asked.splice(0), [{ peer: 'birch', ike: true }, { peer: 'birch' }])
})

test('rekeys that cannot be: exit code 1 for what is not there, 2 for what is no number', async () => {
  const unknown = await ippriv('circuits', 'rekey', '9', '--socket', socket)
  assert.equal(unknown.code, EXIT.failed)
  assert.match(unknown.stderr, /^ippriv: there is no such circuit: 9 .*\[IPP_CIRCUIT_UNKNOWN\]\n$/)
  const down = await ippriv('overlay', 'rekey', 'elder', '--socket', socket)
  assert.equal(down.code, EXIT.failed)
  assert.match(down.stderr, /\[IPP_OVERLAY_DOWN\]\n$/)
  assert.deepEqual(asked.splice(0), [{ id: 9 }, { peer: 'elder' }])
  for (const args of [
    ['circuits', 'rekey', 'first'],
    ['circuits', 'rekey', '1', '--hop', '6'],
    ['circuits', 'rekey'],
    ['overlay', 'rekey'],
  ])
    assert.equal((await ippriv(...args, '--socket', socket)).code, EXIT.usage, args.join(' '))
  assert.deepEqual(asked, [])
})

test('help names what it takes', async () => {
  const circuits = await ippriv('circuits', 'rekey', '--help')
  assert.equal(circuits.code, EXIT.ok)
  for (const option of ['--hop', '--ike', '--json', '--socket'])
    assert.match(circuits.stdout, new RegExp(option))
  assert.match((await ippriv('overlay', 'rekey', '--help')).stdout, /--ike/)
})
