/**
 * A daemon's subscription to its directory: the document as it is now, from whoever has it, and what the operator should know
 * about it. It follows changes of the authorities, says when a document may be used no longer, and hands on none that this
 * program must not act on.
 */
import { join } from 'node:path'
import { Agent } from 'undici'
import { IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { toError } from '#base/result'
import { drawSome, type Rng } from '#base/rng'
import { unixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { BootstrapSync } from '#daemon/bootstrap-sync'
import { DirectorySync } from '#daemon/directory-sync'
import { Expiry } from '#daemon/expiry'
import { keptBootstrap, type Trust } from '#daemon/trust'
import { DirectoryClient, type HeldDocument } from '#directory/client'
import type { Consensus } from '#directory/documents'
import { markedConnector } from '#linux/sockets'
import type { Log } from '#observe/log'
import { advice, heed } from '#overlay/parameters'

/** Where nodes hand documents on (TCP): the same everywhere, so that it need not be announced. */
export const CACHE_PORT = 9031
/** Of those that are configured; when so many cannot be reached, authorities are asked. */
const MIRRORS_AT_ONCE = 3

export interface SubscriptionHooks {
  readonly descriptor?: () => string
  /** Of the directory's operator. */
  readonly token?: Uint8Array
  readonly onConsensus: (consensus: Consensus) => void
  /** The same, to be handed on. */
  readonly onDocument?: (document: HeldDocument) => void
  /** Past the telescope nobody but the directories that were known at the start can be reached. */
  readonly isGuarded?: boolean
  /** Nodes that may be asked through a telescope when the document should be replaced. */
  readonly caches?: () => readonly Ip[]
  /** The last one may be used no longer, and there is none instead. */
  readonly onExpired?: () => void
  /** What the network would rather see here; null when it is content. */
  readonly onAdvice?: (line: string | null) => void
  /** What is wrong between us and the directory; null when it is well again. */
  readonly onTrouble?: (line: string | null) => void
}

/** Of the daemon whose subscription it is. */
export interface Subscriber {
  readonly log: Log
  readonly crypto: CryptoProvider
  readonly rng: Rng
  /** As descriptors name this program. */
  readonly software: string
  /** Folder in which documents are kept. */
  readonly state: string
  /** What was begun here is ended by these, in the opposite order. */
  onClose(closer: () => unknown): void
  /** The network takes no program like this one: IPP_DIR_OUTDATED. */
  onOutdated(error: IpprivError): void
}

/** Begins with the document that was kept, and resolves when that was acted on. Never rejects for want of a document. */
export async function subscribe(
  trust: Trust,
  hooks: SubscriptionHooks,
  { log, crypto, rng, software, state, onClose, onOutdated }: Subscriber,
): Promise<DirectoryClient> {
  const dispatcher = new Agent({ connect: markedConnector() as never })
  // Without the mark a connection has no way but the telescope, and it must not outlive the circuit.
  const inside = new Agent({ pipelining: 0 })
  const known = new Set(trust.servers.map(({ url }) => url))
  const wayTo = (url: string): Agent => (hooks.isGuarded && !known.has(url) ? inside : dispatcher)
  const isFresh = (): boolean => {
    const { current } = client
    return current !== undefined && Date.now() / 1000 < current.freshUntil
  }
  const client = new DirectoryClient({
    urls: [trust.servers[0].url, ...trust.servers.slice(1).map(({ url }) => url)],
    authorities: trust.keys,
    threshold: trust.threshold,
    crypto,
    unixTime: () => unixTime(Date.now() / 1000),
    dispatcher,
    mirrors: () => {
      const caches = isFresh() ? [] : (hooks.caches?.() ?? [])
      return [
        ...caches.map((address) => ({ url: `http://${address}:${CACHE_PORT}`, dispatcher: inside })),
        ...drawSome(rng, trust.mirrors, MIRRORS_AT_ONCE).map(({ url }) => ({ url, dispatcher })),
      ]
    },
    cacheFile: join(state, 'consensus'),
    ...(hooks.token === undefined ? {} : { token: hooks.token }),
  })
  let bootstrap: BootstrapSync | undefined
  if (trust.bootstrap !== undefined) {
    bootstrap = new BootstrapSync({
      bootstrap: trust.bootstrap,
      crypto,
      rng,
      wayTo,
      file: keptBootstrap(state),
      onTrust: ({ servers, keys, threshold, bootstrap }) => {
        log.info({ serial: bootstrap?.serial }, 'the network has other authorities')
        const ways = servers.map(({ url }) => ({ url, dispatcher: wayTo(url) }))
        client.believe({ authorities: keys, threshold, servers: ways })
      },
      onTrouble: (line) => log.warn({ line }, 'a bootstrap file was refused'),
    })
    onClose(() => bootstrap?.end())
    bootstrap.start()
  }
  const expiry = new Expiry(
    () => unixTime(Date.now() / 1000),
    () => {
      const line = new IpprivError('IPP_DIR_EXPIRED', 'the consensus in use, and the directory gave no other')
        .line
      log.warn(line)
      hooks.onTrouble?.(line)
      hooks.onExpired?.()
    },
  )
  onClose(() => expiry.end())
  let told: string | undefined
  let isForeign = false
  const adopt = (consensus: Consensus): void => {
    // Others may know what to do with it.
    if (client.document !== undefined) hooks.onDocument?.(client.document)
    const heeded = heed(consensus, software)
    if (isForeign || !heeded.ok) hooks.onTrouble?.(heeded.ok ? null : toError(heeded).line)
    isForeign = !heeded.ok
    if (!heeded.ok) {
      const error = toError(heeded)
      if (error.code === 'IPP_DIR_OUTDATED') onOutdated(error)
      return log.error(error.line)
    }
    const news = advice(consensus, software)
    if (news !== undefined && news !== told) log.warn(news)
    told = news
    hooks.onAdvice?.(news ?? null)
    expiry.watch(consensus)
    hooks.onConsensus(consensus)
  }
  const kept = await client.restore()
  if (!kept.ok) log.info({ code: kept.code }, 'the kept consensus is of no use')
  else if (kept.value !== undefined) adopt(kept.value)
  const sync = new DirectorySync({
    client,
    rng,
    unixTime: () => unixTime(Date.now() / 1000),
    isScheduled: trust.keys.length > 1,
    ...(hooks.descriptor ? { descriptor: hooks.descriptor } : {}),
    onConsensus: (consensus) => {
      log.info({ serial: consensus.serial, nodes: consensus.nodes.length }, 'new consensus')
      adopt(consensus)
    },
    onTrouble: (line) => {
      log.warn(line)
      hooks.onTrouble?.(line)
      bootstrap?.told(true)
    },
    onRecovered: () => {
      log.info('the directory answers again')
      bootstrap?.told(false)
      hooks.onTrouble?.(null)
    },
  })
  onClose(() => {
    sync.end()
    return Promise.all([dispatcher.destroy(), inside.destroy()])
  })
  sync.start()
  return client
}
