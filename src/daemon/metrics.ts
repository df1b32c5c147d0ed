/** Serves the counters of a daemon to Prometheus: `GET /metrics`, and nothing else. */
import { createServer, type Server } from 'node:http'
import type { Ip } from '#base/ip'
import { listenError } from '#directory/daemon'
import { renderMetrics, type StatusOfDaemon } from '#observe/metrics'
import { PROMETHEUS_TYPE } from '#observe/prometheus'

/** Who asks and then says nothing is let go. */
const PATIENCE = 10_000
const MAX_CONNECTIONS = 16

/** @throws IpprivError IPP_HOST_PORT_IN_USE, IPP_HOST_ADDRESS, IPP_HOST_PRIVILEGE */
export async function serveMetrics(
  listen: { readonly address: Ip; readonly port: number },
  status: () => Promise<StatusOfDaemon>,
): Promise<Server> {
  const server = createServer({ requestTimeout: PATIENCE, headersTimeout: PATIENCE }, (request, response) => {
    const path = request.url?.split('?')[0]
    if (path !== '/metrics') return void response.writeHead(404).end()
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return void response.writeHead(405, { allow: 'GET, HEAD' }).end()
    status().then(
      (now) =>
        response
          .writeHead(200, { 'content-type': PROMETHEUS_TYPE, 'cache-control': 'no-store' })
          .end(request.method === 'HEAD' ? '' : renderMetrics(now)),
      () => response.writeHead(503).end(),
    )
  })
  server.maxConnections = MAX_CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, listen)))
    server.listen(listen.port, listen.address, resolve)
  })
  return server
}
