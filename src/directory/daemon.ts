/** A running directory: store, registry, HTTP and the one timer that drives them. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type Duration, instant, unixTime } from '#base/time'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import type { PoolPlan } from '#directory/pools'
import { type DirectoryClock, type DirectoryLog, DirectoryRegistry } from '#directory/registry'
import type { UploadSource } from '#directory/routes/descriptor'
import { createDirectoryServer, type RequestLimits } from '#directory/server'
import { openDirectoryStore } from '#directory/store'

export interface DirectoryOptions {
  /** Port 0: any free one. */
  readonly listen: { readonly address: string; readonly port: number }
  /** The key that signs documents; clients and nodes pin its public half. */
  readonly key: KeyPair
  /** Created when it is missing. */
  readonly stateDir: string
  readonly plan: PoolPlan
  /** Seconds a document is fresh; it is valid three times as long. */
  readonly period: number
  readonly crypto: CryptoProvider
  readonly log: DirectoryLog
  readonly clock?: DirectoryClock
  readonly limits?: Partial<RequestLimits>
  readonly uploads?: UploadSource
}

export interface DirectoryStatus {
  readonly role: 'directory'
  readonly pid: number
  readonly nodes: number
  readonly serial: number
  readonly validUntil: number
  readonly publicKey: string
  readonly counters: Record<string, number>
}

export interface RunningDirectory {
  readonly address: string
  readonly port: number
  /** Finishes what was begun, then closes socket and store. Idempotent. */
  close(): Promise<void>
  status(): DirectoryStatus
}

export const SYSTEM_CLOCK: DirectoryClock = {
  unixTime: () => unixTime(Date.now() / 1000),
  monotonic: () => instant(performance.now()),
}

/**
 * @throws IpprivError IPP_STATE_UNUSABLE, IPP_HOST_PORT_IN_USE, IPP_HOST_ADDRESS, IPP_HOST_PRIVILEGE; nothing
 * is left open then.
 */
export async function startDirectory(options: DirectoryOptions): Promise<RunningDirectory> {
  const { key, crypto, log, plan, period, clock = SYSTEM_CLOCK } = options
  const store = await openStore(options)
  // Set once the registry exists; nothing can change before.
  let wake: () => void = () => undefined
  try {
    const registry = await DirectoryRegistry.open({
      store,
      key,
      crypto,
      clock,
      log,
      plan,
      period,
      onChange: () => wake(),
    })
    const app = createDirectoryServer({
      registry,
      clock,
      log,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      ...(options.uploads === undefined ? {} : { uploads: options.uploads }),
    })
    const port = await listen(app, options.listen)
    const timer = drive(registry)
    wake = timer.wake
    log.info({ port, nodes: registry.publication.consensus.nodes.length }, 'directory is up')

    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      timer.stop()
      await app.close()
      await registry.idle()
      await store.close()
    }
    return {
      address: options.listen.address,
      port,
      close: () => {
        closing ??= close()
        return closing
      },
      status: () => {
        const { serial, nodes, validUntil } = registry.publication.consensus
        return {
          role: 'directory',
          pid: process.pid,
          nodes: nodes.length,
          serial,
          validUntil,
          publicKey: toHex(key.publicKey),
          counters: registry.counters.toJSON(),
        }
      },
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

/** Calls the registry when it is due, and earlier when it says that something changed. */
function drive(registry: DirectoryRegistry): { wake: () => void; stop: () => void } {
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  const arm = (delay: Duration): void => {
    clearTimeout(timer)
    if (!stopped) timer = setTimeout(run, delay)
  }
  const run = (): void => {
    void registry.publishIfDue().then(arm)
  }
  run()
  return {
    wake: run,
    stop: () => {
      stopped = true
      clearTimeout(timer)
    },
  }
}

async function openStore({ stateDir, crypto }: DirectoryOptions) {
  try {
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw new IpprivError('IPP_STATE_UNUSABLE', `${stateDir}: ${messageOf(error)}`, { cause: error })
  }
  return openDirectoryStore(join(stateDir, 'directory.level'), crypto)
}

async function listen(
  app: ReturnType<typeof createDirectoryServer>,
  { address, port }: DirectoryOptions['listen'],
): Promise<number> {
  try {
    await app.listen({ host: address, port })
  } catch (error) {
    await app.close()
    const errno = error instanceof Error && 'code' in error ? String(error.code) : ''
    const where = `${address}:${port} (TCP)`
    if (errno === 'EADDRINUSE') throw new IpprivError('IPP_HOST_PORT_IN_USE', where, { cause: error })
    if (errno === 'EADDRNOTAVAIL') throw new IpprivError('IPP_HOST_ADDRESS', address, { cause: error })
    if (errno === 'EACCES') throw new IpprivError('IPP_HOST_PRIVILEGE', where, { cause: error })
    throw new IpprivError('IPP_HOST_ADDRESS', `${where}: ${messageOf(error)}`, { cause: error })
  }
  const bound = app.server.address()
  return bound === null || typeof bound === 'string' ? port : bound.port
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
