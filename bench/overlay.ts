/** Our own programs on the chain, with the files an operator would write for them. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { type Background, type Commands, GaveUp, lastLine, until } from '#demo/command'
import { type ClientStatus, DIRECTORY_PORT, defaultCircuit, PROGRAM } from '#demo/daemons'
import { controlRequest } from '#linux/control'
import { ADDRESS, CHAIN_NODES, type Chain, type ChainHost, onHost } from './chain.ts'

export interface OverlayOptions {
  readonly cipher?: string
  /** Merged into every traffic daemon's configuration. */
  readonly traffic?: object
}

export interface CircuitOptions {
  /** Whose. Default: the one on `client`. */
  readonly client?: ClientHost
  /** Of all its layers; tunnels between nodes have the one that nodes like best. Default: the overlay's. */
  readonly cipher?: string
}

/** Of a node, in hex. */
export interface PublicKeys {
  readonly nodeId: string
  readonly ikeKey: string
}

/** Hosts where a client may run. */
export const CLIENTS = ['client', 'second', 'third'] as const
export type ClientHost = (typeof CLIENTS)[number]
type Name = 'directory' | ClientHost | (typeof CHAIN_NODES)[number]

export class OverlayNetwork {
  readonly #commands: Commands
  readonly #chain: Chain
  readonly #home: string
  readonly #options: OverlayOptions
  readonly #daemons = new Map<Name, Background>()
  readonly #keys = new Map<Name, PublicKeys>()
  #traffic: object = {}

  constructor(commands: Commands, chain: Chain, home: string, options: OverlayOptions = {}) {
    this.#commands = commands
    this.#chain = chain
    this.#home = home
    this.#options = options
  }

  /** Resolves when the default circuit is open. */
  async start(): Promise<void> {
    const keys = (name: Name) => join(this.#home, name, 'keys')
    for (const name of ['directory', ...CLIENTS, ...CHAIN_NODES] as const)
      await mkdir(keys(name), { recursive: true, mode: 0o700 })
    const keygen = (role: string, name: Name) =>
      this.#commands.run([PROGRAM, 'keygen', role, '--dir', keys(name), '--json'])
    const authority = JSON.parse((await keygen('directory', 'directory')).stdout) as { publicKey: string }
    for (const node of CHAIN_NODES) {
      this.#keys.set(node, JSON.parse((await keygen('node', node)).stdout) as PublicKeys)
    }
    const directory = { url: `http://${ADDRESS.directory}:${DIRECTORY_PORT}`, key: authority.publicKey }
    await this.#launch('directory', 'server', 'directory', {
      listen: { address: ADDRESS.directory, port: DIRECTORY_PORT },
      keys: keys('directory'),
    })
    await this.#answers('directory', () => undefined)
    const traffic = { plane: 'userspace', directory, ...this.#options.traffic }
    for (const node of CHAIN_NODES)
      await this.#launch(node, node, 'node', {
        name: node,
        address: ADDRESS[node],
        roles: ['entry', 'middle', 'exit'],
        keys: keys(node),
        ...traffic,
      })
    for (const node of CHAIN_NODES)
      await this.#answers(node, (status) => {
        const tunnels = status.overlay as { state: string }[]
        return tunnels.filter(({ state }) => state === 'up').length === 2
          ? undefined
          : 'not all tunnels are up'
      })
    this.#traffic = { ...traffic }
    await this.openCircuit(CHAIN_NODES)
  }

  /** Starts a client, once more if it was there, with a circuit over these nodes. Resolves when it is open. */
  async openCircuit(
    path: readonly (typeof CHAIN_NODES)[number][],
    { client = 'client', cipher = this.#options.cipher ?? 'aes-256-gcm-16' }: CircuitOptions = {},
  ): Promise<void> {
    await this.#daemons.get(client)?.stop(10_000)
    await this.#launch(client, client, 'client', {
      ...this.#traffic,
      circuit: { hops: path.length, cipher, sameNetwork: true, path: [...path] },
    })
    await this.#answers(client, (status) =>
      status.state === 'ready' ? undefined : `${status.state}: ${status.lastError}`,
    )
  }

  /** Ends that client, if it runs. */
  async stopClient(client: ClientHost): Promise<void> {
    await this.#daemons.get(client)?.stop(10_000)
    this.#daemons.delete(client)
  }

  /** One more circuit, closed again. Returns milliseconds from the decision to the open circuit. */
  async buildCircuit(): Promise<number> {
    const socket = this.#socket('client')
    const built = (await controlRequest(socket, 'circuits.build', { path: [...CHAIN_NODES] }, 30_000)) as {
      id: number
      buildMs: number
    }
    await controlRequest(socket, 'circuits.close', { id: built.id }, 30_000)
    return built.buildMs
  }

  /** New keys for every layer of the circuit in use. Returns the milliseconds of the layer that took longest. */
  async rekeyCircuit(): Promise<number> {
    const socket = this.#socket('client')
    const circuit = defaultCircuit((await controlRequest(socket, 'status', {}, 30_000)) as ClientStatus)
    if (circuit === undefined) throw new Error('the circuit is not open')
    const { rekeyed } = (await controlRequest(socket, 'circuits.rekey', { id: circuit.id }, 30_000)) as {
      rekeyed: { ms: number }[]
    }
    return Math.max(...rekeyed.map(({ ms }) => ms))
  }

  pidOf(name: Name): number {
    return this.#daemons.get(name)!.pid!
  }

  keysOf(node: (typeof CHAIN_NODES)[number]): PublicKeys {
    return this.#keys.get(node)!
  }

  /** Of a node: what it refused, by name, and how many SAs there are. */
  async countersOf(name: Name): Promise<Readonly<Record<string, number>>> {
    const status = await controlRequest(this.#socket(name), 'status', {}, 30_000)
    return (status as { counters: Record<string, number> }).counters
  }

  #socket(name: Name): string {
    return join(this.#home, `${name}.sock`)
  }

  async #launch(name: Name, host: ChainHost, role: string, config: object): Promise<void> {
    const file = join(this.#home, `${name}.yaml`)
    const state = join(this.#home, name, 'state')
    await writeFile(file, stringify({ ...config, state, control: this.#socket(name) }))
    const argv = onHost(this.#chain, host, PROGRAM, role, '--config', file)
    this.#daemons.set(name, this.#commands.start(argv, join(this.#home, `${name}.log`)))
  }

  async #answers(
    name: Name,
    missing: (status: Record<string, unknown>) => string | undefined,
  ): Promise<void> {
    const daemon = this.#daemons.get(name)!
    await until(`waiting for ${name}`, 60_000, async () => {
      if (!daemon.running) throw new GaveUp(new Error(`${name} ended, see ${lastLine(daemon.log)}`))
      const status = (await controlRequest(this.#socket(name), 'status', {}, 30_000)) as Record<
        string,
        unknown
      >
      const what = missing(status)
      if (what !== undefined) throw new Error(what)
      return true
    })
  }
}
