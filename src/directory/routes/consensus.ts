/** GET /v1/consensus: the one signed document, the same bytes for everybody, compressed once. */
import type { FastifyInstance } from 'fastify'
import { failure } from '#base/result'
import { chooseCoding, tagMatches } from '#directory/publication'
import { refuse } from '#directory/refusal'
import type { DirectoryService } from '#directory/service'

/** 200 with the document, 304 when If-None-Match names it, 503 when there was none ever. Caches must ask again: it may change any second. */
export function consensusRoute(app: FastifyInstance, service: DirectoryService): void {
  app.get('/v1/consensus', async (request, reply) => {
    const { publication, counters } = service
    if (publication === undefined) {
      counters.add('refused.IPP_DIR_NO_DOCUMENT')
      return refuse(reply, failure('IPP_DIR_NO_DOCUMENT', 'consensus'))
    }
    reply
      .header('etag', publication.etag)
      .header('cache-control', 'public, no-cache')
      .header('vary', 'accept-encoding')
      .header('last-modified', new Date(publication.consensus.validAfter * 1000).toUTCString())
    if (tagMatches(request.headers['if-none-match'], publication.etag)) {
      counters.add('consensus.unchanged')
      return reply.code(304).send()
    }
    counters.add('consensus.served')
    const accepted = request.headers['accept-encoding']
    const coding = chooseCoding(typeof accepted === 'string' ? accepted : undefined)
    if (coding !== 'identity') reply.header('content-encoding', coding)
    return reply.type('text/plain; charset=utf-8').send(publication.bodies[coding])
  })
}
