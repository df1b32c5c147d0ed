/** GET /v1/health: is there a valid document, and can a new one be made? For monitors and people. */
import type { FastifyInstance } from 'fastify'
import type { DirectoryClock, DirectoryRegistry } from '#directory/registry'

/** 200 `{"status":"ok",...}`, or 503 `{"status":"failing","problem":"one line",...}`. */
export function healthRoute(app: FastifyInstance, registry: DirectoryRegistry, clock: DirectoryClock): void {
  app.get('/v1/health', async (_request, reply) => {
    const { serial, nodes, validAfter, freshUntil, validUntil } = registry.publication.consensus
    const now = clock.unixTime()
    const problem = registry.problem?.line ?? (now >= validUntil ? 'the document has expired' : undefined)
    return reply
      .code(problem === undefined ? 200 : 503)
      .header('cache-control', 'no-store')
      .send({
        status: problem === undefined ? 'ok' : 'failing',
        ...(problem === undefined ? {} : { problem }),
        serial,
        nodes: nodes.length,
        now,
        validAfter,
        freshUntil,
        validUntil,
      })
  })
}
