/**
 * What every daemon shares: log, plane, host, sockets, control socket, signals, and the order in which all that
 * comes up and goes down. Whatever was opened is closed in the opposite order, also when the start fails half-way.
 *
 * A client lowers its guard only when it was asked to stop. One that dies of a defect, or cannot start, leaves the
 * guard as it finds it, its own or a predecessor's: this host is then cut off, and never in the clear.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errorLine, exitCodeOf, IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import type { Machine } from '#base/machine'
import type { Rng } from '#base/rng'
import type {
  ClientConfig,
  DirectoryConfig,
  MetricsConfig,
  NodeConfig,
  PlaneChoice,
  UserspaceConfig,
} from '#config/load'
import { nodeCrypto } from '#crypto/node'
import type { CryptoProvider } from '#crypto/provider'
import { Driver } from '#daemon/driver'
import { HandshakeWorkers } from '#daemon/handshake-workers'
import { serveMetrics } from '#daemon/metrics'
import { type SubscriptionHooks, subscribe } from '#daemon/subscription'
import type { Trust } from '#daemon/trust'
import type { DirectoryClient } from '#directory/client'
import type { SigningCredential } from '#ikev2/computation'
import type { IkeKeys } from '#ikev2/events'
import { requireCapabilities } from '#linux/caps'
import { type ControlHandlers, serveControl } from '#linux/control'
import { NAT_T_PORT } from '#linux/esp-socket'
import { chooseFirewall } from '#linux/firewall'
import { LinuxHost } from '#linux/host'
import { nativeCrypto } from '#linux/native-crypto'
import { notifySupervisor } from '#linux/notify'
import { UdpSockets } from '#linux/sockets'
import { SysctlKeeper } from '#linux/sysctl'
import { UserPlane } from '#linux/user-plane'
import { XfrmPlane } from '#linux/xfrm-plane'
import { probeKernelEsp } from '#linux/xfrm-probe'
import type { FilterContext } from '#nat/rules'
import { KeyLog } from '#observe/keylog'
import { createLog, type Log } from '#observe/log'
import type { StatusOfDaemon } from '#observe/metrics'
import type { Effect } from '#overlay/ports'
import type { DataPlane, Inventory } from '#telescope/plane'
import packageJson from '../../package.json' with { type: 'json' }

type Config = NodeConfig | ClientConfig | DirectoryConfig
/** A driver whose machine can be asked to stop. */
interface Stoppable {
  input(input: { readonly kind: 'stop' }): void
}
type Closer = () => Promise<unknown> | unknown

/** One daemon per network namespace, so one device name is enough. */
export const DEVICE = 'ippriv0'
/** RFC 7296 section 2. */
export const IKE_PORT = 500
/** As descriptors name it. */
export const SOFTWARE = `ippriv ${packageJson.version}`
/** EX_TEMPFAIL: to a supervisor a reason to start the program again. */
const SUCCEEDED = 75
/** A stop that takes longer than this goes on without the peers' answers. */
const STOP_PATIENCE = 5000

export class Runtime {
  readonly log: Log
  readonly crypto: CryptoProvider = nativeCrypto()
  readonly rng: Rng = { bytes: (length) => nodeCrypto.random(length) }
  readonly sockets = new UdpSockets()
  readonly #role: Config['kind']
  readonly #config: Config
  readonly #closers: Closer[] = []
  #plane: DataPlane | undefined
  #host: LinuxHost | undefined
  #keyLog: KeyLog | undefined
  #directory: DirectoryClient | undefined
  /** A predecessor's circuits go on. */
  #adopts = false
  readonly #handlers = Promise.withResolvers<ControlHandlers>()
  #stopped = Promise.withResolvers<void>()
  /** SIGTERM or SIGINT came: what follows is meant. */
  #isAsked = false
  /** The network takes no program like this one. */
  readonly #outdated = Promise.withResolvers<IpprivError>()

  constructor(role: Config['kind'], config: Config) {
    this.#role = role
    this.#config = config
    this.log = createLog(config.log)
  }

  /**
   * Brings the daemon up by `compose`, keeps it up until SIGTERM or SIGINT, takes it down.
   * @throws IpprivError when it cannot come up, or may not go on (IPP_DIR_OUTDATED); nothing is left behind then, but by a client that had begun to
   * touch this host: that one ends the process.
   */
  async run(compose: () => Promise<Stoppable | undefined>): Promise<void> {
    const signalled = Promise.withResolvers<string>()
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.on(signal, () => {
        this.#isAsked = true
        signalled.resolve(signal)
      })
    process.on('uncaughtException', (error) => this.#die(error))
    try {
      if (this.#role !== 'directory') await requireCapabilities('CAP_NET_ADMIN', 'CAP_NET_RAW')
      await this.#claim()
      const driver = await compose()
      this.log.info({ role: this.#role }, 'up')
      await notifySupervisor('READY=1')
      const reason = await Promise.race([signalled.promise, this.#outdated.promise])
      const isOutdated = reason instanceof IpprivError
      if (isOutdated && this.#keepsGuard) throw reason
      this.log.info({ signal: isOutdated ? reason.code : reason }, 'stopping')
      await notifySupervisor('STOPPING=1')
      if (driver !== undefined) await this.#stop(driver)
      if (isOutdated) throw reason
    } catch (error) {
      if (this.#keepsGuard) this.#die(error)
      throw error
    } finally {
      await this.#close()
    }
    this.log.info({ role: this.#role }, 'down')
  }

  onClose(closer: Closer): void {
    this.#closers.push(closer)
  }

  /** Called on the machine's `stopped` event. */
  stopped(): void {
    this.#stopped.resolve()
  }

  /** Chooses and opens the data plane and the packet filter. @throws IpprivError IPP_PLANE_*, IPP_HOST_* */
  async openPlane(
    choice: PlaneChoice,
    userspace: UserspaceConfig,
    address: Ip,
  ): Promise<{ plane: DataPlane; context: FilterContext; inventory?: Inventory }> {
    const isClient = this.#role === 'client'
    const kind = choice === 'auto' ? await this.#askKernel() : choice
    const plane =
      kind === 'xfrm'
        ? new XfrmPlane({ device: DEVICE, keepGuard: isClient, adopt: this.#role === 'node' })
        : new UserPlane({ device: DEVICE, ...userspace })
    const context: FilterContext = { plane: plane.kind, device: plane.device, address }
    const backend = await chooseFirewall(context)
    if (kind === 'userspace') await XfrmPlane.clear(DEVICE)
    await plane.open()
    if (kind === 'xfrm') this.sockets.takeEspInUdp()
    this.onClose(() => plane.close())
    plane.onFailure((error) => this.#die(error))
    const inventory = plane instanceof XfrmPlane ? plane.inventory : undefined
    this.#adopts = inventory !== undefined && inventory.policies.length > 0
    const owner = isClient ? 'ippriv_client' : 'ippriv_node'
    const keepUntilSet = isClient || this.#adopts
    const host = new LinuxHost({ firewall: { backend, owner, keepUntilSet }, adopt: this.#adopts })
    await host.open(plane.device)
    this.onClose(() => host.close())
    this.#plane = plane
    this.#host = host
    this.#openKeyLog()
    if (plane.kind === 'xfrm' && this.#role === 'node') process.on('SIGHUP', () => this.#makeWay())
    this.log.info({ plane: plane.kind, firewall: backend.name, adopted: this.#adopts }, 'data plane is up')
    return { plane, context, ...(this.#adopts && inventory ? { inventory } : {}) }
  }

  /**
   * The IKE ports of an address. Taken before anything else on this host, so that a daemon beside another one finds
   * out while there is nothing it could have taken from it. @throws IpprivError IPP_HOST_*
   */
  listenIke(address: Ip): void {
    this.sockets.listen({ address, port: IKE_PORT })
    this.sockets.listen({ address, port: NAT_T_PORT })
  }

  /** Kernel settings, as they were before a predecessor that was killed; put back at the end. */
  async openSysctls(): Promise<SysctlKeeper> {
    const keeper = new SysctlKeeper(this.#config.state)
    await keeper.open({ adopt: this.#adopts })
    this.onClose(() => keeper.close())
    return keeper
  }

  /** Connects a machine with the plane, the host and the sockets. Needs `openPlane`. */
  drive<Input extends { readonly kind: string }, Event>(
    machine: Machine<Input, Effect<Event>>,
    onEvent: (event: Event) => void,
    workers?: HandshakeWorkers,
  ): Driver<Input, Event> {
    const driver = new Driver<Input, Event>(machine as never, {
      plane: this.#plane!,
      host: this.#host!,
      sockets: this.sockets,
      ...(workers === undefined ? {} : { compute: (job, answer) => workers.compute(job, answer) }),
      onEvent,
      onSa: (sa) => this.#keyLog?.esp(sa),
      onError: (line) => this.log.error(line),
    })
    this.sockets.onDatagram((path, bytes) => driver.input({ kind: 'datagram', path, bytes } as never))
    this.#plane!.onHeard((sa) => driver.input({ kind: 'heard', sa } as never))
    this.sockets.onFailure((error) => this.log.debug({ code: error.code }, 'datagram not sent'))
    this.onClose(() => driver.end())
    return driver
  }

  /** Threads for the handshakes of a responder. */
  handshakeWorkers(credential: SigningCredential): HandshakeWorkers {
    const workers = new HandshakeWorkers({ credential, onFailure: (error) => this.log.error(error.line) })
    this.onClose(() => workers.close())
    return workers
  }

  /** What directories said, and what of it was not believed: `directory.refused.<code>` and others. */
  directoryCounters(): Record<string, number> {
    const counted = Object.entries(this.#directory?.counters.toJSON() ?? {})
    return Object.fromEntries(counted.map(([name, count]) => [`directory.${name}`, count]))
  }

  /** What the network agrees on, from now until the end. */
  async followDirectory(trust: Trust, hooks: SubscriptionHooks): Promise<void> {
    const { log, crypto, rng } = this
    this.#directory = await subscribe(trust, hooks, {
      ...{ log, crypto, rng, software: SOFTWARE, state: this.#config.state },
      onClose: (closer) => this.onClose(closer),
      onOutdated: (error) => this.#outdated.resolve(error),
    })
  }

  /** Requests that came during the start are answered from now on, and those of Prometheus if it is to be told. */
  async serve<Status extends StatusOfDaemon>(
    handlers: ControlHandlers & { readonly status: () => Promise<Status> },
    metrics?: MetricsConfig,
  ): Promise<void> {
    this.#handlers.resolve(handlers)
    if (metrics === undefined) return
    const server = await serveMetrics(metrics, handlers.status)
    this.onClose(() => {
      server.closeAllConnections()
      server.close()
    })
  }

  logIkeKeys(keys: IkeKeys): void {
    this.#keyLog?.ike(keys)
  }

  async #askKernel(): Promise<'xfrm' | 'userspace'> {
    const { ciphers } = await probeKernelEsp()
    return ciphers.includes('aes-256-gcm-16') ? 'xfrm' : 'userspace'
  }

  /**
   * State directory and control socket. The socket is taken first of all and given back last of all: it is what
   * keeps a second daemon of this configuration from taking over, and then taking down, what the first one holds.
   */
  async #claim(): Promise<void> {
    const { state, control } = this.#config
    try {
      await mkdir(state, { recursive: true, mode: 0o700 })
      // A full or read-only disk is found here, before anything of this host is touched.
      const probe = join(state, '.writable')
      await writeFile(probe, '.')
      await rm(probe)
    } catch (cause) {
      throw new IpprivError('IPP_STATE_UNUSABLE', (cause as Error).message, { cause })
    }
    const server = await serveControl(control, this.#handlers.promise)
    this.onClose(() => server.close())
    this.onClose(() => this.sockets.close())
  }

  #openKeyLog(): void {
    const directory = 'keylog' in this.#config ? this.#config.keylog : undefined
    if (directory === undefined) return
    this.log.warn('writing session keys to a key log: whoever reads it reads all traffic')
    this.#keyLog = new KeyLog(directory)
  }

  async #stop(driver: Stoppable): Promise<void> {
    driver.input({ kind: 'stop' })
    const patience = Promise.withResolvers<void>()
    const timer = setTimeout(patience.resolve, STOP_PATIENCE)
    await Promise.race([this.#stopped.promise, patience.promise])
    clearTimeout(timer)
  }

  async #close(): Promise<void> {
    for (const closer of this.#closers.splice(0).reverse()) {
      try {
        await closer()
      } catch (error) {
        this.log.error(`while stopping: ${errorLine(error)}`)
      }
    }
  }

  /** From here on, lowering the guard would be the user's decision, and it is not made. */
  get #keepsGuard(): boolean {
    return this.#role === 'client' && this.#plane !== undefined && !this.#isAsked
  }

  /** To be replaced without a stop: what stands in the kernel stays in force, and a successor adopts it. */
  #makeWay(): never {
    this.log.info('making way for a successor, which is to start at once')
    process.exit(SUCCEEDED)
  }

  #die(error: unknown): never {
    this.log.fatal(errorLine(error))
    if (this.#keepsGuard)
      this.log.fatal('the guard stays: start the client again, or run `ippriv guard down`')
    process.exit(exitCodeOf(error))
  }
}
