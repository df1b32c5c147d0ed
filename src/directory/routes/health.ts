/** GET /v1/health: is there a valid document, and can a new one be made? For monitors and people. */
import type { FastifyInstance } from 'fastify'
import { IpprivError } from '#base/errors'
import { SCHEMAS } from '#directory/routes/schemas'
import type { DirectoryClock, DirectoryService } from '#directory/service'

/** 200 `{"status":"ok",...}`, or 503 `{"status":"failing","problem":"one line",...}`. */
export function healthRoute(app: FastifyInstance, service: DirectoryService, clock: DirectoryClock): void {
  app.get('/v1/health', { config: SCHEMAS.health }, async (_request, reply) => {
    const now = clock.unixTime()
    const problem = problemOf(service, now)
    const { serial, nodes, validAfter, freshUntil, validUntil } = service.publication?.consensus ?? {}
    return reply
      .code(problem === undefined ? 200 : 503)
      .header('cache-control', 'no-store')
      .send({
        status: problem === undefined ? 'ok' : 'failing',
        ...(problem === undefined ? {} : { problem }),
        ...(serial === undefined
          ? { now }
          : { serial, nodes: nodes?.length, now, validAfter, freshUntil, validUntil }),
      })
  })
}

/** One line, or nothing is wrong. */
export function problemOf({ problem, publication }: DirectoryService, now: number): string | undefined {
  if (problem !== undefined) return problem.line
  if (publication === undefined) return new IpprivError('IPP_DIR_NO_DOCUMENT', 'consensus').line
  return now >= publication.consensus.validUntil ? 'the document has expired' : undefined
}
