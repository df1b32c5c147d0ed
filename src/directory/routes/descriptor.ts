/** POST /v1/descriptor: a node publishes its signed descriptor (text/plain, at most 8 KiB). */
import type { FastifyInstance } from 'fastify'
import { failure } from '#base/result'
import { refuse } from '#directory/refusal'
import type { DirectoryRegistry } from '#directory/registry'

/**
 * 201 `{nodeId, result: "accepted"}` when it is on disk, 200 `{nodeId, result: "known"}` for the very same bytes
 * again; else the named error, and nothing was stored.
 */
export function descriptorRoute(app: FastifyInstance, registry: DirectoryRegistry): void {
  app.post('/v1/descriptor', async (request, reply) => {
    const { body } = request
    const document = Buffer.isBuffer(body) ? body : Buffer.alloc(0)
    if (document.length === 0) {
      registry.counters.add('refused.IPP_DIR_MALFORMED')
      return refuse(reply, failure('IPP_DIR_MALFORMED', 'descriptor: the body is empty'))
    }
    const outcome = await registry.accept(document)
    if (!outcome.ok) return refuse(reply, outcome)
    const { nodeId, known } = outcome.value
    return reply.code(known ? 200 : 201).send({ nodeId, result: known ? 'known' : 'accepted' })
  })
}
