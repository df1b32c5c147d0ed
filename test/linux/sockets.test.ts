import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { describe, test } from 'node:test'
import { Agent, request } from 'undici'
import type { IpprivError } from '#base/errors'
import { ip, type UdpPath } from '#base/ip'
import { markedConnector, markedTcpConnect, UdpSockets } from '#linux/sockets'

const LOOPBACK = ip('127.0.0.1')
const reason = process.getuid?.() === 0 ? false : 'needs CAP_NET_ADMIN for SO_MARK'

function received(sockets: UdpSockets): Promise<{ path: UdpPath; text: string }> {
  return new Promise((resolve) =>
    sockets.onDatagram((path, bytes) => resolve({ path, text: Buffer.from(bytes).toString() })),
  )
}

function failed(sockets: UdpSockets): Promise<IpprivError> {
  return new Promise((resolve) => sockets.onFailure(resolve))
}

/** Ports of this process, below the ephemeral range. */
const PORT = 20000 + (process.pid % 8000)

describe('UDP sockets', { skip: reason }, () => {
  test('a datagram crosses with both ends of its path', async () => {
    const a = new UdpSockets()
    const b = new UdpSockets()
    try {
      const path = {
        local: { address: LOOPBACK, port: PORT },
        remote: { address: ip('127.0.0.2'), port: PORT },
      }
      b.listen(path.remote)
      const atB = received(b)
      const atA = received(a)
      a.send(path, Buffer.from('hello'))
      const first = await atB
      assert.deepEqual(first, { path: { local: path.remote, remote: path.local }, text: 'hello' })
      b.send(first.path, Buffer.from('and back'))
      assert.deepEqual(await atA, { path, text: 'and back' })
    } finally {
      a.close()
      b.close()
    }
  })

  test('a port in use and a foreign address have codes of their own', () => {
    const a = new UdpSockets()
    const b = new UdpSockets()
    try {
      a.listen({ address: LOOPBACK, port: PORT })
      a.listen({ address: LOOPBACK, port: PORT })
      assert.throws(() => b.listen({ address: LOOPBACK, port: PORT }), { code: 'IPP_HOST_PORT_IN_USE' })
      assert.throws(() => b.listen({ address: ip('192.0.2.1'), port: PORT }), { code: 'IPP_HOST_ADDRESS' })
      a.closeLocal(LOOPBACK)
      b.listen({ address: LOOPBACK, port: PORT })
    } finally {
      a.close()
      b.close()
    }
  })

  test('send never throws: what cannot be sent is told', async () => {
    const sockets = new UdpSockets()
    try {
      const lost = failed(sockets)
      sockets.send(
        { local: { address: ip('192.0.2.1'), port: PORT }, remote: { address: LOOPBACK, port: 9 } },
        Buffer.from('x'),
      )
      assert.equal((await lost).code, 'IPP_HOST_ADDRESS')
      sockets.send(
        { local: { address: LOOPBACK, port: PORT }, remote: { address: LOOPBACK, port: 0 } },
        Buffer.from('x'),
      )
    } finally {
      sockets.close()
    }
  })

  test('on the NAT-T port only IKE comes through, ESP and keepalives do not', async () => {
    const a = new UdpSockets()
    const b = new UdpSockets()
    try {
      const remote = { address: ip('127.0.0.3'), port: 4500 }
      const path = { local: { address: LOOPBACK, port: PORT }, remote }
      b.listen(remote)
      const first = received(b)
      a.send(path, Uint8Array.of(0xff))
      a.send(path, Uint8Array.of(0, 0, 16, 1, 0, 0, 0, 1))
      a.send(path, Uint8Array.of(0, 0, 0, 0, 65, 66))
      assert.equal((await first).text, '\0\0\0\0AB')
    } finally {
      a.close()
      b.close()
    }
  })
})

describe('marked TCP', { skip: reason }, () => {
  test('undici fetches through the marked connector', async () => {
    const server = createServer((_, response) => response.end('document'))
    await new Promise<void>((resolve) => server.listen(0, LOOPBACK, resolve))
    const { port } = server.address() as { port: number }
    const agent = new Agent({ connect: markedConnector() })
    try {
      for (let i = 0; i < 3; i++) {
        const answer = await request(`http://127.0.0.1:${port}/consensus`, { dispatcher: agent })
        assert.equal(await answer.body.text(), 'document')
      }
      await assert.rejects(request('http://localhost:1/', { dispatcher: agent }), {
        code: 'IPP_HOST_ADDRESS',
      })
    } finally {
      await agent.close()
      server.close()
    }
  })

  test('a refused connection is told', async () => {
    await assert.rejects(markedTcpConnect(LOOPBACK, 1), { code: 'IPP_DIR_UNREACHABLE' })
  })
})
