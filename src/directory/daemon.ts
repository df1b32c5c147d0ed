/** A running directory: store, registry or council, HTTP, and the one timer that drives them. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { equalBytes, toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type Duration, instant, SECOND, type UnixTime, unixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { ALARM_TEXTS, type Alarm } from '#directory/alarms'
import { openAuthorityStore } from '#directory/authority-store'
import { type StoreKind, writeBackup } from '#directory/backup'
import { identityOf, type Signer } from '#directory/certificate'
import { Council, type MeasurerOptions } from '#directory/council'
import type { NetworkParameters } from '#directory/documents'
import type { CouncilReport, Member } from '#directory/minutes'
import type { Outlook } from '#directory/page/outlook'
import type { PoolPlan } from '#directory/pools'
import { DirectoryRegistry } from '#directory/registry'
import type { UploadSource } from '#directory/routes/descriptor'
import { createDirectoryServer, type RequestLimits } from '#directory/server'
import type { DirectoryClock, DirectoryLog, DirectoryService } from '#directory/service'
import { openDirectoryStore } from '#directory/store'
import type { TokenBook } from '#directory/token'
import { TokenFile } from '#directory/token-file'
import { Toll } from '#directory/toll'
import { type CertificateReport, DirectoryWatch } from '#directory/watch'

export interface DirectoryOptions {
  /** Port 0: any free one. */
  readonly listen: { readonly address: string; readonly port: number }
  /** The key that signs documents; clients and nodes pin its public half. */
  readonly key: Signer
  /** Absent: this directory decides alone. */
  readonly authorities?: Authorities
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
  /** Bits of work that a newcomer's upload must show; 0, and absent: none. */
  readonly work?: number
  /** File of the tokens that free from work. */
  readonly tokens?: string
  /** Of one of several authorities. */
  readonly measurer?: MeasurerOptions
  /** The same: what it proposes to the others. */
  readonly parameters?: NetworkParameters
}

/** All of them, and how many must sign. */
export interface Authorities {
  /** This one included. */
  readonly members: readonly Member[]
  /** More than half of them. */
  readonly threshold: number
  /** The file that says so, where there is one: it is served. */
  readonly bootstrap?: string
}

export interface DirectoryStatus {
  readonly role: 'directory'
  readonly pid: number
  /** Of the document that is served; 0: there is none. */
  readonly nodes: number
  readonly serial: number
  readonly validUntil: number
  readonly publicKey: string
  readonly counters: Record<string, number>
  /** Of the document that is served; null: there is none. */
  readonly document: DocumentStatus | null
  /** What is wrong and since when, the eldest first. */
  readonly alarms: readonly ExplainedAlarm[]
  /** Of signing keys of authorities, as far as they have any. */
  readonly certificates: readonly CertificateReport[]
  readonly now: UnixTime
  /** Of one of several authorities. */
  readonly council?: CouncilReport
}

export interface ExplainedAlarm extends Alarm {
  readonly meaning: string
}

export interface DocumentStatus {
  readonly validAfter: UnixTime
  readonly freshUntil: UnixTime
  readonly validUntil: UnixTime
  /** Nodes of it that were measured. */
  readonly measured: number
  readonly signatures: number
  readonly threshold: number
  readonly authorities: number
}

export interface RunningDirectory {
  readonly address: string
  readonly port: number
  /** The memory as one file. Returns how many entries it has. @throws IpprivError IPP_STATE_UNUSABLE */
  backup(file: string): Promise<number>
  /**
   * The network has other authorities: the file that says so is served at once, and they take their seats with the next
   * period. False: we are none of them; those of before stay, and the others do not listen to us any more.
   */
  reseat(authorities: Authorities): boolean
  /** Finishes what was begun, then closes socket and store. Idempotent. */
  close(): Promise<void>
  status(): DirectoryStatus
}

/** How soon a file that was changed is looked at. */
const REREAD: Duration = 5 * SECOND

const NO_TOKENS: TokenBook = new Map()

export const SYSTEM_CLOCK: DirectoryClock = {
  unixTime: () => unixTime(Date.now() / 1000),
  monotonic: () => instant(performance.now()),
}

/**
 * @throws IpprivError IPP_STATE_UNUSABLE, IPP_HOST_PORT_IN_USE, IPP_HOST_ADDRESS, IPP_HOST_PRIVILEGE, IPP_CONFIG_*
 * (the file of tokens); nothing is left open then.
 */
export async function startDirectory(options: DirectoryOptions): Promise<RunningDirectory> {
  const { key, crypto, log, period, clock = SYSTEM_CLOCK, work = 0 } = options
  const tokens = options.tokens === undefined ? undefined : new TokenFile(options.tokens, crypto)
  await tokens?.read()
  const { service, council, entries, run, close: closeService } = await openService(options, clock)
  const kind: StoreKind = council === undefined ? 'directory' : 'authority'
  try {
    const alone = { authorities: [{ name: 'directory', key: identityOf(key) }], threshold: 1 }
    const watch = new DirectoryWatch({
      crypto,
      clock,
      log,
      trust: () =>
        council === undefined
          ? alone
          : { authorities: council.seats.members, threshold: council.seats.threshold },
      self: identityOf(key),
      ...(key.certificate === undefined ? {} : { certificate: key.certificate }),
      period,
      historyFile: join(options.stateDir, 'history.json'),
      ratesFile: join(options.stateDir, 'rates.json'),
    })
    await watch.restore()
    const status = (): DirectoryStatus => {
      const report = council?.report()
      const outlook = watch.outlook(service, report)
      const consensus = outlook?.consensus
      return {
        role: 'directory',
        pid: process.pid,
        nodes: consensus?.nodes.length ?? 0,
        serial: consensus?.serial ?? 0,
        validUntil: consensus?.validUntil ?? 0,
        publicKey: toHex(identityOf(key)),
        counters: service.counters.toJSON(),
        document: outlook === undefined ? null : documentStatus(outlook),
        alarms: watch.alarms(service, report).map(explained),
        certificates: watch.certificates(),
        now: clock.unixTime(),
        ...(report === undefined ? {} : { council: report }),
      }
    }
    let bootstrap = options.authorities?.bootstrap
    const app = createDirectoryServer({
      service,
      outlook: () => watch.outlook(service, council?.report()),
      clock,
      log,
      ...(council === undefined ? {} : { council }),
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      bootstrap: () => bootstrap,
      ...(options.uploads === undefined ? {} : { uploads: options.uploads }),
      ...(work === 0 ? {} : { toll: new Toll({ work, tokens: () => tokens?.book ?? NO_TOKENS, crypto }) }),
    })
    const port = await listen(app, options.listen)
    const stop = run(() => watch.look(service))
    const reading = setInterval(() => void tokens?.refresh(log), REREAD)
    log.info({ port, nodes: service.publication?.consensus.nodes.length ?? 0 }, 'directory is up')

    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      stop()
      clearInterval(reading)
      await app.close()
      await closeService()
      await watch.idle()
    }
    return {
      address: options.listen.address,
      port,
      backup: (file) => writeBackup(entries(), kind, file, clock.unixTime()),
      reseat: (authorities) => {
        bootstrap = authorities.bootstrap
        if (!authorities.members.some((member) => equalBytes(member.key, identityOf(key)))) return false
        council?.elect(authorities)
        return true
      },
      close: () => {
        closing ??= close()
        return closing
      },
      status,
    }
  } catch (error) {
    await closeService()
    throw error
  }
}

const documentStatus = ({ consensus, authorities, threshold }: Outlook): DocumentStatus => ({
  validAfter: consensus.validAfter,
  freshUntil: consensus.freshUntil,
  validUntil: consensus.validUntil,
  measured: consensus.nodes.filter(({ bandwidth }) => bandwidth !== undefined).length,
  signatures: authorities.filter(({ signed }) => signed).length,
  threshold,
  authorities: authorities.length,
})

const explained = (alarm: Alarm): ExplainedAlarm => ({ ...alarm, meaning: ALARM_TEXTS[alarm.name] ?? '' })

interface OpenService {
  readonly entries: () => AsyncIterable<[string, string]>
  readonly service: DirectoryService
  readonly council?: Council
  /** Starts its timer, and returns what stops it. `done` is called after each turn. */
  readonly run: (done: () => void) => () => void
  readonly close: () => Promise<void>
}

const openService = (options: DirectoryOptions, clock: DirectoryClock): Promise<OpenService> =>
  options.authorities === undefined
    ? openRegistry(options, clock)
    : openCouncil(options, options.authorities, clock)

async function openRegistry(options: DirectoryOptions, clock: DirectoryClock): Promise<OpenService> {
  const { key, crypto, log, plan, period } = options
  const store = await openDirectoryStore(await levelFolder(options, 'directory'), crypto)
  // Set once the registry exists; nothing can change before.
  let wake: () => void = () => undefined
  const onChange = (): void => wake()
  const registry = await orClose(store, () =>
    DirectoryRegistry.open({ store, key, crypto, clock, log, plan, period, onChange }),
  )
  return {
    entries: () => store.entries(),
    service: registry,
    run: (done) => {
      const timer = drive(registry, done)
      wake = timer.wake
      return timer.stop
    },
    close: async () => {
      await registry.idle()
      await store.close()
    },
  }
}

/** Steps are seconds long, two at the least. */
const COUNCIL_PACE: Duration = SECOND / 2

async function openCouncil(
  options: DirectoryOptions,
  { members, threshold }: Authorities,
  clock: DirectoryClock,
): Promise<OpenService> {
  const { key, crypto, log, plan, period, measurer, parameters } = options
  const store = await openAuthorityStore(await levelFolder(options, 'authority'), crypto)
  const terms = { length: period, plan }
  const council = await orClose(store, () =>
    Council.open({
      store,
      key,
      members,
      threshold,
      terms,
      crypto,
      clock,
      log,
      ...(measurer === undefined ? {} : { measurer }),
      ...(parameters === undefined ? {} : { parameters }),
    }),
  )
  return {
    entries: () => store.entries(),
    service: council,
    council,
    run: (done) => {
      let timer: NodeJS.Timeout | undefined
      let stopped = false
      const turn = async (): Promise<void> => {
        await council.tick()
        done()
        if (!stopped) timer = setTimeout(turn, COUNCIL_PACE)
      }
      void turn()
      return () => {
        stopped = true
        clearTimeout(timer)
      }
    },
    close: async () => {
      await council.close()
      await store.close()
    },
  }
}

async function orClose<T>(store: { close(): Promise<void> }, open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (error) {
    await store.close()
    throw error
  }
}

/** Calls the registry when it is due, and earlier when it says that something changed; `done` after each time. */
function drive(registry: DirectoryRegistry, done: () => void): { wake: () => void; stop: () => void } {
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  const arm = (delay: Duration): void => {
    clearTimeout(timer)
    if (!stopped) timer = setTimeout(run, delay)
  }
  const run = (): void => {
    void registry.publishIfDue().then((delay) => {
      done()
      arm(delay)
    })
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

/** @throws IpprivError IPP_STATE_UNUSABLE */
async function levelFolder({ stateDir }: DirectoryOptions, name: string): Promise<string> {
  try {
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw new IpprivError('IPP_STATE_UNUSABLE', `${stateDir}: ${messageOf(error)}`, { cause: error })
  }
  return join(stateDir, `${name}.level`)
}

async function listen(
  app: ReturnType<typeof createDirectoryServer>,
  { address, port }: DirectoryOptions['listen'],
): Promise<number> {
  try {
    await app.listen({ host: address, port })
  } catch (error) {
    await app.close()
    throw listenError(error, { address, port })
  }
  const bound = app.server.address()
  return bound === null || typeof bound === 'string' ? port : bound.port
}

/** Why a TCP server cannot have this port. */
export function listenError(error: unknown, { address, port }: DirectoryOptions['listen']): IpprivError {
  const errno = error instanceof Error && 'code' in error ? String(error.code) : ''
  const where = `${address}:${port} (TCP)`
  if (errno === 'EADDRINUSE') return new IpprivError('IPP_HOST_PORT_IN_USE', where, { cause: error })
  if (errno === 'EADDRNOTAVAIL') return new IpprivError('IPP_HOST_ADDRESS', address, { cause: error })
  if (errno === 'EACCES') return new IpprivError('IPP_HOST_PRIVILEGE', where, { cause: error })
  return new IpprivError('IPP_HOST_ADDRESS', `${where}: ${messageOf(error)}`, { cause: error })
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
