import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { ip } from '#base/ip'
import { serveMetrics } from '#daemon/metrics'

const LOOPBACK = ip('127.0.0.1')

test('Prometheus is told, and nothing else is served', async () => {
  let asked = 0
  const server = await serveMetrics({ address: LOOPBACK, port: 0 }, async () => {
    if (++asked === 2) throw new Error('the plane is gone')
    return { role: 'node', circuits: 3 }
  })
  try {
    const { port } = server.address() as AddressInfo
    const ask = (path: string, method = 'GET') => fetch(`http://127.0.0.1:${port}${path}`, { method })
    const first = await ask('/metrics')
    assert.deepEqual(
      [first.status, first.headers.get('content-type')],
      [200, 'text/plain; version=0.0.4; charset=utf-8'],
    )
    assert.match(await first.text(), /^ippriv_circuits\{role="node"\} 3$/m)
    assert.equal((await ask('/metrics')).status, 503)
    assert.equal((await ask('/')).status, 404)
    assert.equal((await ask('/metrics', 'POST')).status, 405)
    assert.equal(asked, 2)
    await assert.rejects(
      serveMetrics({ address: LOOPBACK, port }, async () => ({ role: 'node' })),
      { code: 'IPP_HOST_PORT_IN_USE' },
    )
  } finally {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
})
