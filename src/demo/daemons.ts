import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { IpprivError } from '#base/errors'
import type { EspCipher } from '#crypto/suites'
import { type Background, type Commands, GaveUp, until } from '#demo/command'
import {
  directoriesOf,
  type Host,
  hostOf,
  inNamespace,
  nodesOf,
  runDirectory,
  type Topology,
} from '#demo/topology'
import type { CouncilReport } from '#directory/minutes'
import { controlRequest } from '#linux/control'
import type { PlaneKind } from '#telescope/plane'

/** The production programs in their namespaces, with the files an operator would write for them. */
export interface Daemon {
  readonly name: string
  readonly host: Host
  readonly process: Background
  readonly socket: string
}

export interface NetworkOptions {
  readonly out: string
  readonly plane: PlaneKind
  readonly hops: number
  readonly cipher: EspCipher
  /** Seconds; absent: an hour. */
  readonly period?: number
}

export const PROGRAM = resolve(import.meta.dirname, '../../bin/ippriv')
export const DIRECTORY_PORT = 9030
/** Of work: enough that every node does some, too little to wait for. */
const FEW_BITS = 10

/** More than half of them. */
export const thresholdOf = (authorities: number): number => Math.floor(authorities / 2) + 1

export const socketOf = (topology: Topology, name: string): string =>
  join(runDirectory(topology.id), `${name}.sock`)

/** Where the daemon `name` writes its keys for Wireshark. */
export const keyLogOf = (out: string, name: string): string => join(out, 'keys', name)

export const configOf = (out: string, name: string): string => join(out, 'config', `${name}.yaml`)

/** Makes keys with `ippriv keygen` and writes a configuration file for every daemon. */
export async function prepareDaemons(
  commands: Commands,
  topology: Topology,
  options: NetworkOptions,
): Promise<void> {
  const home = (name: string) => join(runDirectory(topology.id), name)
  const directories = directoriesOf(topology)
  const daemons = [...nodesOf(topology), ...directories, hostOf(topology, 'client')]
  await mkdir(join(options.out, 'config'), { recursive: true })
  // 0700: private keys are in it.
  await mkdir(runDirectory(topology.id), { recursive: true, mode: 0o700 })
  await Promise.all(
    daemons.map(({ name }) => mkdir(join(home(name), 'keys'), { recursive: true, mode: 0o700 })),
  )
  const keygen = (role: 'node' | 'directory', name: string) =>
    commands.run([PROGRAM, 'keygen', role, '--dir', join(home(name), 'keys'), '--json'])
  const [authorities] = await Promise.all([
    Promise.all(
      directories.map(async ({ name, address }) => {
        const { stdout } = await keygen('directory', name)
        const { publicKey: key } = JSON.parse(stdout) as { publicKey: string }
        return { name, key, url: `http://${address}:${DIRECTORY_PORT}` }
      }),
    ),
    ...nodesOf(topology).map((node) => keygen('node', node.name)),
  ])
  const several = authorities.length > 1
  const threshold = thresholdOf(authorities.length)
  const [{ url, key }] = authorities as [(typeof authorities)[0], ...typeof authorities]
  const pinned = several
    ? { urls: authorities.map((one) => one.url), keys: authorities.map((one) => one.key), threshold }
    : { url, key }
  const common = (name: string) => ({
    state: join(home(name), 'state'),
    control: socketOf(topology, name),
    log: { level: 'info', format: 'json' },
  })
  const traffic = (name: string) => ({
    ...common(name),
    plane: options.plane,
    directory: pinned,
    debug: { keylog: keyLogOf(options.out, name) },
  })
  const files: [string, object][] = nodesOf(topology).map((node) => [
    node.name,
    {
      name: node.name,
      address: node.address,
      roles: ['entry', 'middle', 'exit'],
      keys: join(home(node.name), 'keys'),
      ...traffic(node.name),
    },
  ])
  for (const { name, address } of directories)
    files.push([
      name,
      {
        listen: { address, port: DIRECTORY_PORT },
        keys: join(home(name), 'keys'),
        ...common(name),
        work: FEW_BITS,
        ...(several ? { authorities, threshold } : {}),
        ...(options.period === undefined ? {} : { period: options.period }),
      },
    ])
  files.push([
    'client',
    {
      ...traffic('client'),
      circuit: { hops: options.hops, cipher: options.cipher, sameNetwork: true, spares: 0 },
    },
  ])
  await Promise.all(files.map(([name, config]) => writeFile(configOf(options.out, name), stringify(config))))
  await Promise.all(
    [...nodesOf(topology), hostOf(topology, 'client')].map(({ name }) =>
      mkdir(keyLogOf(options.out, name), { recursive: true, mode: 0o700 }),
    ),
  )
}

export function startDaemon(commands: Commands, topology: Topology, host: Host, out: string): Daemon {
  const role = host.role === 'node' || host.role === 'client' ? host.role : 'directory'
  const argv = inNamespace(host.namespace, PROGRAM, role, '--config', configOf(out, host.name))
  const process = commands.start(argv, join(out, `${host.name}.log`))
  return { name: host.name, host, process, socket: socketOf(topology, host.name) }
}

/**
 * Waits until `accept` is satisfied by the daemon's status. `accept` returns what is still missing, or
 * undefined. @throws IpprivError: with the daemon's last words when it ended, with what was missing when late.
 */
export async function ready<Status>(
  daemon: Daemon,
  timeoutMs: number,
  accept: (status: Status) => string | undefined,
): Promise<Status> {
  return await until(`waiting for ${daemon.name}`, timeoutMs, async () => {
    if (!daemon.process.running) throw new GaveUp(await obituary(daemon))
    const status = await statusOf<Status>(daemon)
    const missing = accept(status)
    if (missing !== undefined) throw new Error(missing)
    return status
  })
}

export const statusOf = async <Status>(daemon: Daemon): Promise<Status> =>
  (await controlRequest(daemon.socket, 'status', {}, CONTROL_TIMEOUT_MS)) as Status

export const clientReady = (status: ClientStatus): string | undefined =>
  status.state === 'ready' && defaultCircuit(status) !== undefined
    ? undefined
    : `it is ${status.state}${status.lastError === null ? '' : `, ${status.lastError}`}`

export const defaultCircuit = (status: ClientStatus): CircuitStatus | undefined =>
  status.circuits.find((circuit) => circuit.default && circuit.state === 'open')

/** A node is ready when the consensus lists it and it has tunnels to all `peers`. */
export const nodeReady =
  (peers: readonly string[]) =>
  (status: NodeStatus): string | undefined => {
    if (!status.listed) return 'the consensus does not list it'
    const up = new Set(status.overlay.filter((tunnel) => tunnel.state === 'up').map((tunnel) => tunnel.peer))
    const missing = peers.filter((peer) => !up.has(peer))
    return missing.length === 0 ? undefined : `no overlay tunnel to ${missing.join(', ')}`
  }

/** The parts of `ippriv status --json` the demo reads. */
export interface ClientStatus {
  readonly consensus: { readonly serial: number; readonly nodes: number; readonly validUntil: number } | null
  readonly state: 'unguarded' | 'waiting-for-consensus' | 'building' | 'ready' | 'failed'
  readonly plane: PlaneKind
  readonly lastError: string | null
  readonly circuits: readonly CircuitStatus[]
  readonly counters: Readonly<Record<string, number>>
  readonly sas: readonly unknown[]
}

export interface CircuitStatus {
  readonly id: number
  readonly state: 'building' | 'open' | 'closed'
  readonly default: boolean
  readonly path: readonly string[]
  readonly privateAddresses: readonly string[]
  readonly cipher: string
  readonly suite: string
  readonly buildMs: number
  readonly exchanges: readonly ExchangeStatus[]
}

export interface ExchangeStatus {
  readonly hop: number
  readonly node: string
  readonly name: string
  readonly ms: number
  readonly transmissions: number
}

export interface NodeStatus {
  readonly listed: boolean
  readonly plane: PlaneKind
  readonly pool: string | null
  readonly overlay: readonly { readonly peer: string; readonly state: 'up' | 'connecting' }[]
  readonly circuits: number
  readonly counters: Readonly<Record<string, number>>
  readonly sas: readonly unknown[]
}

export interface DirectoryStatus {
  readonly nodes: number
  readonly serial: number
  readonly council?: CouncilReport
}

const CONTROL_TIMEOUT_MS = 30_000

/** Why a daemon ended: the last line of its log that is not a log record, or else the last record's text. */
async function obituary(daemon: Daemon): Promise<IpprivError> {
  const lines = (await readFile(daemon.process.log, 'utf8')).trim().split('\n')
  const last = lines.findLast((line) => line !== '' && !line.startsWith('{')) ?? lines.at(-1)
  return new IpprivError(
    'IPP_HOST_TOOL',
    `ippriv ${daemon.host.role} (${daemon.name}) ended: ${last?.slice(0, 400) || 'without a word'}`,
  )
}
