/** GET /v1/bootstrap: the chain of documents that say who the authorities are, for those who hold an older one. */
import type { FastifyInstance } from 'fastify'
import { failure } from '#base/result'
import type { Counters } from '#directory/counters'
import { refuse } from '#directory/refusal'
import { SCHEMAS } from '#directory/routes/schemas'

/** 200 with the file as it is now, 404 when this directory was configured without one. */
export function bootstrapRoute(
  app: FastifyInstance,
  bootstrap: (() => string | undefined) | undefined,
  counters: Counters,
): void {
  app.get('/v1/bootstrap', { config: SCHEMAS.bootstrap }, async (_request, reply) => {
    const chain = bootstrap?.()
    if (chain === undefined) {
      counters.add('refused.IPP_DIR_NO_RESOURCE')
      return refuse(reply, failure('IPP_DIR_NO_RESOURCE', 'there is no bootstrap file'))
    }
    counters.add('bootstrap.served')
    return reply.header('cache-control', 'public, no-cache').type('text/plain; charset=utf-8').send(chain)
  })
}
