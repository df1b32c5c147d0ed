import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import type { EspCipher } from '#crypto/suites'
import { type Capture, type CaptureTotals, stopCaptures } from '#demo/capture'
import { Checklist } from '#demo/checklist'
import { type Commands, GaveUp, lastLine, until } from '#demo/command'
import { type CircuitStatus, type Daemon, startDaemon, statusOf } from '#demo/daemons'
import type { Pings, Report } from '#demo/report'
import { type Host, hostOf, inNamespace, type Topology } from '#demo/topology'
import { type Download, Traffic } from '#demo/traffic'
import type { PlaneKind } from '#telescope/plane'

export interface StoryOptions {
  readonly plane: PlaneKind
  readonly hops: number
  readonly cipher: EspCipher
  /** Absolute. */
  readonly out: string
  /** Leave everything up: the daemons are not stopped, so how they stop is not judged. */
  readonly keep: boolean
  readonly lossPercent: number
  readonly mebibytes: number
  /** Inside User-Mode Linux everything takes several times longer. */
  readonly userModeLinux: boolean
  /** One line of progress. */
  readonly say: (text: string) => void
}
/** Where the story plays: the hosts, the daemons that run, and what has been observed so far. */
export class Scene {
  readonly commands: Commands
  readonly topology: Topology
  readonly options: StoryOptions
  readonly traffic: Traffic
  /** Factor on every time limit. */
  readonly patience: number
  readonly checks: Checklist
  /** By host name; the client's is replaced when it is started again. */
  readonly daemons = new Map<string, Daemon>()
  /** What each host held before any daemon ran. */
  readonly before = new Map<string, ReadonlySet<string>>()
  readonly totals = new Map<string, CaptureTotals>()
  /** The first is the client's own choice, the second was asked for over the same nodes. */
  circuits: CircuitStatus[] = []
  /** When the client had ended for good, in seconds since 1970. Its host may then send what it likes. */
  clientEnded = Number.POSITIVE_INFINITY
  pings: Pings = { sent: 0, received: 0, rttMs: null }
  download: Download | undefined
  direct: Download | undefined
  /** For the comparison of the two, in Mbit/s: through the daemons' telescope, and through one made by hand. */
  samples: readonly number[] = []
  handmade: readonly number[] = []
  sas: Report['sas'] = {}

  constructor(commands: Commands, topology: Topology, options: StoryOptions) {
    this.commands = commands
    this.topology = topology
    this.options = options
    this.patience = (options.userModeLinux ? 6 : 1) * (options.lossPercent > 0 ? 4 : 1)
    this.traffic = new Traffic(commands, topology, this.patience)
    this.checks = new Checklist(options.say)
  }

  /** Node names of the circuits, from entry to exit. */
  path(): readonly string[] {
    return this.circuits[0]?.path ?? []
  }

  /** Hosts on which a daemon of ours runs. */
  daemonHosts(): Host[] {
    return this.topology.hosts.filter((host) => ['client', 'node', 'directory'].includes(host.role))
  }

  start(host: Host): Daemon {
    const daemon = startDaemon(this.commands, this.topology, host, this.options.out)
    this.daemons.set(host.name, daemon)
    return daemon
  }

  /** Starts the web server. @throws IpprivError with its own words when it does not come up. */
  async startOrigin(): Promise<void> {
    const server = hostOf(this.topology, 'server')
    const program = join(import.meta.dirname, 'origin.ts')
    const argv = inNamespace(server.namespace, process.execPath, program, server.address)
    const origin = this.commands.start(argv, join(this.options.out, 'origin.log'))
    await until('waiting for the web server', 20_000 * this.patience, () => {
      const log = existsSync(origin.log) ? readFileSync(origin.log, 'utf8') : ''
      if (log.includes('"ready"')) return true
      if (!origin.running)
        throw new GaveUp(new IpprivError('IPP_HOST_TOOL', `the web server ended: ${lastLine(log)}`))
      return undefined
    })
  }

  async endCaptures(captures: readonly Capture[]): Promise<void> {
    for (const [name, totals] of await stopCaptures(captures)) this.totals.set(name, totals)
  }

  /** For observations that no check hangs on: undefined when it fails, and the reason is told. */
  async attempt<T>(what: string, action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action()
    } catch (error) {
      this.options.say(`${what}: ${error instanceof Error ? error.message : String(error)}`)
      return undefined
    }
  }

  /** The counters of every SA of every daemon that has a data plane. */
  async saCounters(): Promise<Report['sas']> {
    const counters: Record<string, readonly unknown[]> = {}
    for (const [name, daemon] of this.daemons) {
      if (daemon.host.role === 'directory') continue
      const status = await this.attempt(name, () => statusOf<{ sas: readonly unknown[] }>(daemon))
      if (status !== undefined) counters[name] = status.sas
    }
    return counters
  }
}
