import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { IpprivError } from '#base/errors'
import { type ControlHandlers, controlRequest, serveControl } from '#linux/control'

let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ippriv-control-'))
})
after(() => rm(directory, { recursive: true }))

const handlers: ControlHandlers = {
  status: () => ({ role: 'test' }),
  slow: async ({ ms }) => {
    await new Promise((resolve) => setTimeout(resolve, Number(ms)))
    return { waited: ms }
  },
  nothing: () => undefined,
  refuse: () => {
    throw new IpprivError('IPP_CIRCUIT_UNKNOWN', '7')
  },
  defect: () => {
    throw new TypeError('x is not a function')
  },
}

const code = (expected: string, where: RegExp) => (error: IpprivError) => {
  assert.equal(error.code, expected)
  assert.match(error.where, where)
  return true
}

/** Sends raw octets, gives everything that came back until the other side closed or two lines were there. */
async function raw(path: string, text: string, lines = 1): Promise<string[]> {
  const socket = createConnection(path)
  socket.setEncoding('utf8')
  socket.write(text)
  let got = ''
  for await (const chunk of socket) {
    got += chunk
    if (got.split('\n').length > lines) break
  }
  return got.split('\n').filter((line) => line !== '')
}

test('requests and answers', async () => {
  const path = join(directory, 'new', 'a.sock')
  const server = await serveControl(path, handlers)
  try {
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.deepEqual(await controlRequest(path, 'status'), { role: 'test' })
    assert.deepEqual(await controlRequest(path, 'slow', { ms: 20 }), { waited: 20 })
    assert.deepEqual(await controlRequest(path, 'nothing'), {})
    await assert.rejects(controlRequest(path, 'refuse'), code('IPP_CIRCUIT_UNKNOWN', /^7$/))
    await assert.rejects(controlRequest(path, 'defect'), code('IPP_INTERNAL', /x is not a function/))
    await assert.rejects(
      controlRequest(path, 'toString'),
      code('IPP_CONFIG_INVALID', /expected one of status, slow/),
    )
    await assert.rejects(
      controlRequest(path, 'slow', { ms: 500 }, 50),
      code('IPP_CONTROL_UNREACHABLE', /within 0\.05 s/),
    )
  } finally {
    await server.close()
  }
  await assert.rejects(stat(path), /ENOENT/)
  await assert.rejects(controlRequest(path, 'status'), code('IPP_CONTROL_UNREACHABLE', /ENOENT/))
})

test('several requests on one connection are answered in order', async () => {
  const path = join(directory, 'b.sock')
  const server = await serveControl(path, handlers)
  try {
    const text = '{"method":"slow","params":{"ms":30}}\n\n{"method":"status"}\n'
    assert.deepEqual(await raw(path, text, 2), [
      '{"ok":true,"result":{"waited":30}}',
      '{"ok":true,"result":{"role":"test"}}',
    ])
  } finally {
    await server.close()
  }
})

test('rubbish gets an error, a line without end is cut off', async () => {
  const path = join(directory, 'c.sock')
  const server = await serveControl(path, handlers)
  try {
    for (const line of ['rubbish', '[]', 'null', '{"method":1}', '{"method":"status","params":[]}'])
      assert.match((await raw(path, `${line}\n`))[0]!, /"code":"IPP_CONFIG_INVALID"/, line)
    assert.match((await raw(path, 'x'.repeat(70_000)))[0]!, /the request is too long/)
    assert.match(
      (await raw(path, '{"method":"slow","params":{"ms":50}}\n'.repeat(40), 40)).at(-1)!,
      /too long/,
    )
    assert.deepEqual(await controlRequest(path, 'status'), { role: 'test' }, 'others are served')
  } finally {
    await server.close()
  }
})

test('the socket of a killed daemon is replaced, that of a living one is not', async () => {
  const path = join(directory, 'd.sock')
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`
  const daemon = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(daemon.stdout, 'data')
  await assert.rejects(serveControl(path, handlers), code('IPP_CONTROL_BUSY', /d\.sock/))
  daemon.kill('SIGKILL')
  await once(daemon, 'exit')
  assert.ok((await stat(path)).isSocket(), 'it left its socket')
  await assert.rejects(controlRequest(path, 'status'), code('IPP_CONTROL_UNREACHABLE', /ECONNREFUSED/))
  const server = await serveControl(path, handlers)
  assert.deepEqual(await controlRequest(path, 'status'), { role: 'test' })
  await server.close()
})

test('a file that is no socket is not removed', async () => {
  const path = join(directory, 'file')
  await writeFile(path, 'precious')
  await assert.rejects(serveControl(path, handlers), code('IPP_CONTROL_BUSY', /file/))
  assert.ok((await stat(path)).isFile())
  await assert.rejects(serveControl(join(path, 'x.sock'), handlers), code('IPP_STATE_UNUSABLE', /x\.sock/))
})

test('a daemon that goes away without an answer, and one that talks nonsense', async () => {
  for (const [answer, expected] of [
    ['', 'IPP_CONTROL_UNREACHABLE'],
    ['nonsense\n', 'IPP_INTERNAL'],
    ['{"ok":false,"error":{"code":"IPP_OF_THE_FUTURE","message":"news"}}\n', 'IPP_INTERNAL'],
  ] as const) {
    const path = join(directory, 'e.sock')
    const server = createServer((socket) => socket.on('data', () => socket.end(answer))).listen(path)
    await once(server, 'listening')
    await assert.rejects(controlRequest(path, 'status'), (error: IpprivError) => error.code === expected)
    await new Promise((resolve) => server.close(resolve))
  }
  const closed = join(directory, 'f.sock')
  const server = await serveControl(closed, handlers)
  await chmod(closed, 0o600)
  await server.close()
})
