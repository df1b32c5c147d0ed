/**
 * GET /v1/consensus: the one signed document, the same bytes for everybody, compressed once.
 * GET /v1/consensus/diff/<name>: how to get there from the document of that name (`diff.ts`).
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { failure } from '#base/result'
import type { Counters } from '#directory/counters'
import { chooseCoding, type Packed, type Publication, tagMatches } from '#directory/publication'
import { refuse } from '#directory/refusal'
import { SCHEMAS } from '#directory/routes/schemas'
import type { Shelf } from '#directory/shelf'

/** 200, 304 when If-None-Match names the current document, 503 when there was none ever. Caches must ask again: it may change any second. */
export function consensusRoute(app: FastifyInstance, shelf: Shelf, counters: Counters): void {
  app.get('/v1/consensus', { config: SCHEMAS.consensus }, async (request, reply) => {
    const { current } = shelf
    if (current === undefined) return refused(reply, counters, 'IPP_DIR_NO_DOCUMENT')
    if (isUnchanged(request, reply, current)) return unchanged(reply, counters)
    counters.add('consensus.served')
    return send(request, reply, current.packed)
  })
  const config = SCHEMAS.diff
  app.get<{ Params: { base: string } }>('/v1/consensus/diff/:base', { config }, async (request, reply) => {
    const { current } = shelf
    if (current === undefined) return refused(reply, counters, 'IPP_DIR_NO_DOCUMENT')
    if (isUnchanged(request, reply, current)) return unchanged(reply, counters)
    const diff = await shelf.diffFrom(request.params.base)
    if (diff === undefined) return refused(reply, counters, 'IPP_DIR_NO_RESOURCE')
    counters.add('consensus.diff')
    return send(request, reply, diff)
  })
}

/** Sets the headers that both answers have. */
function isUnchanged(
  request: FastifyRequest,
  reply: FastifyReply,
  { etag, consensus }: Publication,
): boolean {
  reply
    .header('etag', etag)
    .header('cache-control', 'public, no-cache')
    .header('vary', 'accept-encoding')
    .header('last-modified', new Date(consensus.validAfter * 1000).toUTCString())
  return tagMatches(request.headers['if-none-match'], etag)
}

function unchanged(reply: FastifyReply, counters: Counters): FastifyReply {
  counters.add('consensus.unchanged')
  return reply.code(304).send()
}

function refused(
  reply: FastifyReply,
  counters: Counters,
  code: 'IPP_DIR_NO_DOCUMENT' | 'IPP_DIR_NO_RESOURCE',
): FastifyReply {
  counters.add(`refused.${code}`)
  for (const name of ['etag', 'last-modified']) reply.removeHeader(name)
  return refuse(reply, failure(code, code === 'IPP_DIR_NO_DOCUMENT' ? 'consensus' : 'a diff from there'))
}

function send(request: FastifyRequest, reply: FastifyReply, packed: Packed): FastifyReply {
  const accepted = request.headers['accept-encoding']
  const coding = chooseCoding(typeof accepted === 'string' ? accepted : undefined)
  if (coding !== 'identity') reply.header('content-encoding', coding)
  return reply.type('text/plain; charset=utf-8').send(packed[coding])
}
