/** GET /v1/consensus: the one signed document, the same bytes for everybody, compressed once. */
import type { FastifyInstance } from 'fastify'
import { chooseCoding, tagMatches } from '#directory/publication'
import type { DirectoryRegistry } from '#directory/registry'

/** 200 with the document, or 304 when If-None-Match names it. Caches must ask again: it may change any second. */
export function consensusRoute(app: FastifyInstance, registry: DirectoryRegistry): void {
  app.get('/v1/consensus', async (request, reply) => {
    const { publication, counters } = registry
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
