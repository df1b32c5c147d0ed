/**
 * The HTTP face of the directory: a Fastify factory that does not listen. Transport needs no secrecy or
 * integrity of its own, because every document is signed; it needs limits, because strangers speak to it.
 */
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify'
import { failure } from '#base/result'
import { DOCUMENT_LIMITS } from '#directory/canonical'
import { messagePath } from '#directory/messenger'
import type { Outlook } from '#directory/page/outlook'
import { type RateLimit, RateLimiter } from '#directory/rate-limit'
import { refuse, translate } from '#directory/refusal'
import { authorityRoutes, type Seat } from '#directory/routes/authority'
import { bootstrapRoute } from '#directory/routes/bootstrap'
import { consensusRoute } from '#directory/routes/consensus'
import { descriptorRoute, type UploadSource } from '#directory/routes/descriptor'
import { healthRoute } from '#directory/routes/health'
import { openApiRoute } from '#directory/routes/openapi'
import { pageRoutes } from '#directory/routes/page'
import type { DirectoryClock, DirectoryLog, DirectoryService } from '#directory/service'
import type { Toll } from '#directory/toll'

export interface DirectoryServerOptions {
  readonly service: DirectoryService
  /** The same, when it is one of several authorities. */
  readonly council?: Seat
  readonly clock: DirectoryClock
  readonly log: DirectoryLog
  readonly limits?: Partial<RequestLimits>
  /** The bootstrap file of the network, as it is now. */
  readonly bootstrap?: () => string | undefined
  /** `own-address` unless said otherwise. */
  readonly uploads?: UploadSource
  /** Of newcomers; absent: uploads cost nothing. */
  readonly toll?: Toll
  /** What the page shows; absent: there is no page. */
  readonly outlook?: () => Outlook | undefined
}

/** Per source address. */
export interface RequestLimits {
  readonly uploads: RateLimit
  readonly reads: RateLimit
  /** Between authorities. */
  readonly messages: RateLimit
}

/** A node uploads a few times in a period; a client reads once in one. Many may sit behind one NAT. */
export const REQUEST_LIMITS: RequestLimits = {
  uploads: { burst: 20, perSecond: 1 },
  reads: { burst: 100, perSecond: 10 },
  messages: { burst: 400, perSecond: 40 },
}

export function createDirectoryServer(options: DirectoryServerOptions): FastifyInstance {
  const { service, council, clock, log } = options
  const answerError = (error: FastifyError, reply: FastifyReply): FastifyReply => {
    const [status, failed] = translate(error)
    service.counters.add(`refused.${failed.code}`)
    if (failed.code === 'IPP_INTERNAL')
      log.error({ error: error.message, stack: error.stack }, 'a request failed')
    return refuse(reply, failed, status)
  }
  const app = Fastify({
    bodyLimit: DOCUMENT_LIMITS.descriptor.octets,
    // A connection that dawdles is closed: the whole request within this time.
    requestTimeout: 15_000,
    connectionTimeout: 30_000,
    keepAliveTimeout: 10_000,
    maxRequestsPerSocket: 1000,
    forceCloseConnections: true,
    trustProxy: false,
    routerOptions: { maxParamLength: 100 },
    // URLs that the router cannot read.
    frameworkErrors: (error, _request, reply) => void answerError(error, reply),
    http: { maxHeaderSize: 8 * 1024 },
  })
  app.server.maxConnections = 1024
  // Only what a route names is parsed, and documents are never parsed by the framework.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('text/plain', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))

  const limits = { ...REQUEST_LIMITS, ...options.limits }
  const uploads = new RateLimiter(limits.uploads)
  const reads = new RateLimiter(limits.reads)
  const messages = new RateLimiter(limits.messages)
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-content-type-options', 'nosniff')
    const isMessage = council !== undefined && request.url.startsWith(messagePath(''))
    const limiter = isMessage ? messages : request.method === 'POST' ? uploads : reads
    if (limiter.admit(request.ip, clock.monotonic())) return
    service.counters.add('refused.IPP_DIR_RATE_LIMITED')
    reply.header('retry-after', '10')
    return refuse(reply, failure('IPP_DIR_RATE_LIMITED', `${request.method} requests`))
  })
  app.setNotFoundHandler((_request, reply) => {
    service.counters.add('refused.IPP_DIR_NO_RESOURCE')
    return refuse(reply, failure('IPP_DIR_NO_RESOURCE', 'the path or method is unknown'))
  })
  app.setErrorHandler((error: FastifyError, _request, reply) => answerError(error, reply))

  openApiRoute(app)
  descriptorRoute(app, service, options.uploads ?? 'own-address', options.toll)
  consensusRoute(app, service.shelf, service.counters)
  healthRoute(app, service, clock)
  bootstrapRoute(app, options.bootstrap, service.counters)
  if (options.outlook !== undefined) pageRoutes(app, options.outlook)
  if (council !== undefined) authorityRoutes(app, council)
  return app
}
