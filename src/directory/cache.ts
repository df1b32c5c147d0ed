/**
 * A node hands on the document it has: the same bytes as a directory, to whoever asks. It is signed, so nobody has to
 * trust the node for it; but strangers speak to it, so it has the limits of a directory.
 */
import Fastify from 'fastify'
import { IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { failure } from '#base/result'
import type { Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { HeldDocument } from '#directory/client'
import { Counters } from '#directory/counters'
import { preparePublication } from '#directory/publication'
import { RateLimiter } from '#directory/rate-limit'
import { refuse } from '#directory/refusal'
import { consensusRoute } from '#directory/routes/consensus'
import { Shelf } from '#directory/shelf'

export interface CacheOptions {
  /** Port 0: any free one. */
  readonly listen: { readonly address: Ip; readonly port: number }
  readonly crypto: CryptoProvider
  readonly monotonic: () => Instant
}

/** Per source address. Through a telescope that is one circuit, which may be of anybody. */
const READS = { burst: 30, perSecond: 1 }

export class DocumentCache {
  readonly counters = new Counters()
  readonly #shelf: Shelf
  readonly #crypto: CryptoProvider
  readonly #app

  constructor({ crypto, monotonic }: Omit<CacheOptions, 'listen'>) {
    this.#crypto = crypto
    this.#shelf = new Shelf(crypto)
    this.#app = Fastify({
      bodyLimit: 1,
      requestTimeout: 15_000,
      connectionTimeout: 30_000,
      keepAliveTimeout: 10_000,
      maxRequestsPerSocket: 100,
      forceCloseConnections: true,
      trustProxy: false,
      routerOptions: { maxParamLength: 100 },
      http: { maxHeaderSize: 8 * 1024 },
    })
    this.#app.server.maxConnections = 256
    const reads = new RateLimiter(READS)
    this.#app.addHook('onRequest', async (request, reply) => {
      reply.header('x-content-type-options', 'nosniff')
      if (reads.admit(request.ip, monotonic())) return
      this.counters.add('refused.IPP_DIR_RATE_LIMITED')
      reply.header('retry-after', '10')
      return refuse(reply, failure('IPP_DIR_RATE_LIMITED', 'requests'))
    })
    this.#app.setNotFoundHandler((_request, reply) => {
      this.counters.add('refused.IPP_DIR_NO_RESOURCE')
      return refuse(reply, failure('IPP_DIR_NO_RESOURCE', 'the path or method is unknown'))
    })
    consensusRoute(this.#app, this.#shelf, this.counters)
  }

  /** @throws IpprivError IPP_HOST_PORT_IN_USE, IPP_HOST_ADDRESS; nothing is left open then. */
  static async start({ listen, ...options }: CacheOptions): Promise<DocumentCache> {
    const cache = new DocumentCache(options)
    try {
      await cache.#app.listen({ host: listen.address, port: listen.port })
      return cache
    } catch (cause) {
      await cache.close()
      const inUse = cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE'
      const where = `${listen.address}:${listen.port} (TCP)`
      throw new IpprivError(inUse ? 'IPP_HOST_PORT_IN_USE' : 'IPP_HOST_ADDRESS', where, { cause })
    }
  }

  get port(): number {
    const bound = this.#app.server.address()
    return bound === null || typeof bound === 'string' ? 0 : bound.port
  }

  /** A document that was verified: from now on this one is handed on. */
  async put({ text, consensus }: HeldDocument): Promise<void> {
    this.#shelf.put(await preparePublication(text, consensus, this.#crypto))
  }

  async close(): Promise<void> {
    await this.#app.close()
  }
}
