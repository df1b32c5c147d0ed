/** POST /v1/descriptor: a node publishes its signed descriptor (text/plain, at most 8 KiB). */
import type { FastifyInstance } from 'fastify'
import { parseIp } from '#base/ip'
import { failure } from '#base/result'
import { refuse } from '#directory/refusal'
import { SCHEMAS } from '#directory/routes/schemas'
import type { DirectoryService } from '#directory/service'
import { TOKEN_HEADER } from '#directory/token'
import type { Toll } from '#directory/toll'
import { WORK_HEADER } from '#directory/work'

/** Must a node upload its descriptor itself, from the address it names? */
export type UploadSource = 'own-address' | 'anywhere'

/**
 * 201 `{nodeId, result: "accepted"}` when it is on disk, 200 `{nodeId, result: "known"}` for the very same bytes
 * again; else the named error, and nothing was stored.
 */
export function descriptorRoute(
  app: FastifyInstance,
  service: DirectoryService,
  uploads: UploadSource,
  toll: Toll | undefined,
): void {
  const header = (value: string | string[] | undefined): string | undefined =>
    typeof value === 'string' ? value : undefined
  app.post('/v1/descriptor', { config: SCHEMAS.descriptor }, async (request, reply) => {
    const { body } = request
    const document = Buffer.isBuffer(body) ? body : Buffer.alloc(0)
    if (document.length === 0) {
      service.counters.add('refused.IPP_DIR_MALFORMED')
      return refuse(reply, failure('IPP_DIR_MALFORMED', 'descriptor: the body is empty'))
    }
    const address = parseIp(request.ip)
    if (uploads === 'own-address' && address === undefined) {
      service.counters.add('refused.IPP_DIR_SOURCE')
      return refuse(reply, failure('IPP_DIR_SOURCE', 'descriptor: it did not come over IPv4'))
    }
    const source = uploads === 'own-address' ? address : undefined
    const { [WORK_HEADER]: work, [TOKEN_HEADER]: token } = request.headers
    const upload = { document, source, work: header(work), token: header(token) }
    const paid = toll?.take(upload, service.publication?.consensus)
    if (paid?.ok === false) {
      service.counters.add(`refused.${paid.code}`)
      return refuse(reply, paid, undefined, { work: toll!.work })
    }
    if (paid !== undefined) service.counters.add(`toll.${paid.value}`)
    const outcome = await service.accept(document, source)
    if (!outcome.ok) return refuse(reply, outcome)
    const { nodeId, known } = outcome.value
    return reply.code(known ? 200 : 201).send({ nodeId, result: known ? 'known' : 'accepted' })
  })
}
