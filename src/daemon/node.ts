/** `ippriv node`: an overlay router on a real host. */
import { ERRORS, errorLine, IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { unwrap } from '#base/result'
import { instant, unixTime } from '#base/time'
import { ecdsaSpki, type NodeKeys, readNodeKeys, readToken } from '#config/keys'
import { loadConfig, type NodeConfig } from '#config/load'
import { nodeCrypto } from '#crypto/node'
import { type Claims, claimsOf } from '#daemon/claims'
import { Pending } from '#daemon/pending'
import { IKE_PORT, Runtime, SOFTWARE } from '#daemon/runtime'
import { speakFor } from '#daemon/stock'
import { CACHE_PORT } from '#daemon/subscription'
import { resolveTrust } from '#daemon/trust'
import { DocumentCache } from '#directory/cache'
import { encodeDescriptor } from '#directory/descriptor'
import { requireLocalAddress } from '#linux/interfaces'
import { FORWARDING, nodeSysctls } from '#linux/sysctl'
import { UserPlane } from '#linux/user-plane'
import { trafficOfNode } from '#observe/traffic'
import { nodeCredential } from '#overlay/identity'
import { OverlayRouter, type RouterEvent, type RouterInput } from '#overlay/router'

/** Milliseconds between two looks at what tunnels carried. */
const TRAFFIC_INTERVAL = 10_000

export async function runNode(options: { config: string; check?: boolean }): Promise<void> {
  const config = await loadConfig('node', options.config)
  if (config.stock !== undefined) return await speakFor(config, config.stock, options.check ?? false)
  const keys = await readNodeKeys(config.keys)
  const claims = await claimsOf(config, keys.identity.publicKey, nodeCrypto)
  const token = config.token === undefined ? undefined : await readToken(config.token)
  if (options.check) return
  const runtime = new Runtime('node', config)
  await runtime.run(async () => {
    const trust = await resolveTrust(config.directory, config.state, runtime.crypto)
    await requireLocalAddress(config.address)
    runtime.listenIke(config.address)
    const { plane, context, inventory } = await runtime.openPlane(
      config.plane,
      config.userspace,
      config.address,
    )
    const sysctls = await runtime.openSysctls()
    const ikeKey = {
      privateKey: keys.ike.seed,
      publicKey: keys.ike.publicKey,
      ...(keys.ecdsa === undefined ? {} : { ecdsa: keys.ecdsa }),
    }
    const router = new OverlayRouter({
      nodeId: keys.nodeId,
      self: config.address,
      port: IKE_PORT,
      roles: config.roles,
      exitPolicy: config.exitPolicy,
      ...(config.resumption === undefined ? {} : { resumption: config.resumption }),
      ikeKey,
      ciphers: ['aes-256-gcm-16', 'chacha20-poly1305', 'aes-128-gcm-16'],
      context,
      isRouter: (await sysctls.original(FORWARDING)) === '1',
      crypto: runtime.crypto,
      rng: runtime.rng,
      keyLog: config.keylog !== undefined,
      ...(inventory === undefined ? {} : { inventory }),
      ...(config.cache === 'off'
        ? {}
        : { cache: { port: CACHE_PORT, everywhere: config.cache === 'everywhere' } }),
      offload: true,
      ...(plane instanceof UserPlane ? { spread: plane.spread } : {}),
    })
    const rekeying = new Pending<void>()
    const onEvent = (event: RouterEvent): void => {
      report(runtime, event)
      if (event.kind === 'rekeyed') rekeying.done(event.ticket)
      if (event.kind === 'rekey.failed')
        rekeying.failed(event.ticket, new IpprivError(event.code, event.detail))
    }
    const workers = runtime.handshakeWorkers(nodeCredential(keys.nodeId, ikeKey))
    const driver = runtime.drive<RouterInput, RouterEvent>(router, onEvent, workers)
    if (config.resumption?.kind === 'data' || inventory !== undefined) {
      const look = async (): Promise<void> => {
        if (config.resumption?.kind !== 'data' && router.adoptedCount === 0) return
        try {
          driver.input({ kind: 'traffic', counters: await plane.counters() })
        } catch (error) {
          runtime.log.warn(errorLine(error))
        }
      }
      const timer = setInterval(look, TRAFFIC_INTERVAL)
      runtime.onClose(() => clearInterval(timer))
    }
    driver.input({ kind: 'start' })
    await driver.idle()
    const cache = config.cache === 'off' ? undefined : await openCache(runtime, config.address)
    // Not before the filter stands: this host may have been no router until now.
    await sysctls.set(nodeSysctls(plane.device))
    let trouble: string | null = null
    let advice: string | null = null
    await runtime.followDirectory(trust, {
      descriptor: () => descriptorOf(runtime, config, keys, claims),
      ...(token === undefined ? {} : { token }),
      onConsensus: (consensus) => driver.input({ kind: 'consensus', consensus }),
      onDocument: (document) => {
        cache?.put(document).catch((error: unknown) => runtime.log.warn(errorLine(error)))
      },
      onExpired: () => driver.input({ kind: 'consensus.expired' }),
      onTrouble: (line) => {
        trouble = line
      },
      onAdvice: (line) => {
        advice = line
      },
    })
    const status = async () => {
      const sas = await plane.counters()
      return {
        role: 'node',
        pid: process.pid,
        name: config.name,
        nodeId: keys.nodeId,
        plane: plane.kind,
        pool: router.pool === undefined ? null : `${router.pool.address}/${router.pool.length}`,
        listed: router.pool !== undefined,
        lastError: trouble,
        advice,
        cache: cache?.counters.toJSON() ?? null,
        leases: router.leases(),
        circuits: router.circuitCount,
        adopted: router.adoptedCount,
        ...trafficOfNode(sas, router.overlay(), config.address),
        counters: { ...router.counters(), ...runtime.directoryCounters(), ...(await plane.drops()) },
        sas,
      }
    }
    const handlers = {
      status,
      'overlay.rekey': async (params: Record<string, unknown>) => {
        const { peer, ike } = rekeyParameters(params)
        const began = performance.now()
        await rekeying.ask((ticket) => driver.input({ kind: 'rekey', ticket, peer, ike }))
        const ms = Math.round(performance.now() - began)
        return { peer, what: ike ? 'ike' : 'child', ms }
      },
    }
    await runtime.serve(handlers, config.metrics)
    return driver
  })
}

/** Another program may have the port: a node without a cache is a node all the same. */
async function openCache(runtime: Runtime, address: Ip): Promise<DocumentCache | undefined> {
  try {
    const listen = { address, port: CACHE_PORT }
    const cache = await DocumentCache.start({
      listen,
      crypto: runtime.crypto,
      monotonic: () => instant(performance.now()),
    })
    runtime.onClose(() => cache.close())
    return cache
  } catch (error) {
    runtime.log.warn(`documents are not handed on: ${errorLine(error)}`)
    return undefined
  }
}

function rekeyParameters({ peer, ike = false }: Record<string, unknown>): { peer: string; ike: boolean } {
  if (typeof peer !== 'string')
    throw new IpprivError('IPP_CONFIG_INVALID', 'peer: expected a name or node id')
  if (typeof ike !== 'boolean') throw new IpprivError('IPP_CONFIG_INVALID', 'ike: expected true or false')
  return { peer, ike }
}

function descriptorOf(runtime: Runtime, config: NodeConfig, keys: NodeKeys, claims: Claims): string {
  const identity = { privateKey: keys.identity.seed, publicKey: keys.identity.publicKey }
  const fields = {
    ikeKey: keys.ike.publicKey,
    ...(keys.ecdsa === undefined ? {} : { ecdsaKey: ecdsaSpki(keys.ecdsa) }),
    name: config.name,
    address: config.address,
    port: IKE_PORT,
    roles: config.roles,
    exitPolicy: config.exitPolicy,
    published: unixTime(Date.now() / 1000),
    software: SOFTWARE,
    ...claims,
  }
  return unwrap(encodeDescriptor(fields, identity, runtime.crypto)).text
}

/** Levels are promises: nothing here at info or above says who a client is or where it goes. */
function report(runtime: Runtime, event: RouterEvent): void {
  const { log } = runtime
  switch (event.kind) {
    case 'listed':
      if (event.pool === undefined) log.warn('the consensus does not list this node')
      else log.info({ pool: `${event.pool.address}/${event.pool.length}` }, 'listed in the consensus')
      return
    case 'overlay.up':
      return log.info({ peer: event.peer.name }, 'overlay tunnel is up')
    case 'overlay.down':
      return log.info({ peer: event.peer.name, detail: event.detail }, 'overlay tunnel is down')
    case 'circuit.bound':
    case 'circuit.released':
      return log.debug(event.kind)
    case 'pool.exhausted':
      return log.warn(new IpprivError('IPP_NAT_POOL_EXHAUSTED', 'a client was turned away').line)
    case 'refused':
      return log.debug({ counter: event.counter }, 'refused')
    case 'rekeyed':
      return log.debug('rekeyed on request')
    case 'rekey.failed':
      return log.debug({ code: event.code, detail: event.detail }, 'not rekeyed')
    case 'guard.failed':
      return log.error({ code: event.code, detail: event.detail }, ERRORS.IPP_GUARD_DOWN[0])
    case 'keys':
      return runtime.logIkeKeys(event.keys)
    case 'stopped':
      return runtime.stopped()
  }
}
