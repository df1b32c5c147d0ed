/**
 * A small Internet with the real daemons in it, for the tests of this folder: the demo's topology with fewer nodes,
 * and what a test does to it. Everything a test may leave behind goes away with `down`.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Document, parseDocument } from 'yaml'
import { ERRORS, type ErrorCode } from '#base/errors'
import { startCaptures, stopCaptures } from '#demo/capture'
import { type Background, type CommandResult, Commands, until } from '#demo/command'
import {
  type ClientStatus,
  clientReady,
  configOf,
  type Daemon,
  DIRECTORY_PORT,
  nodeReady,
  PROGRAM,
  prepareDaemons,
  ready,
  socketOf,
  startDaemon,
} from '#demo/daemons'
import { readPcap } from '#demo/pcap'
import { inventory, processesIn, residue } from '#demo/residue'
import {
  fell,
  type Host,
  hostOf,
  inNamespace,
  nodesOf,
  planTopology,
  raise,
  runDirectory,
  type Topology,
} from '#demo/topology'
import { Traffic } from '#demo/traffic'

/** Why the tests of this folder cannot run here, or undefined. */
export function unavailable(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root: it creates network namespaces'
  for (const tool of ['ip', 'nft', 'tcpdump', 'curl', 'ping', 'setpriv'])
    if (spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0) return `needs the program ${tool}`
  if (!existsSync('/dev/net/tun') && !/^\s*\d+ tun$/m.test(readFileSync('/proc/misc', 'utf8')))
    return 'needs a kernel with TUN devices'
  return undefined
}

/** Another prefix than the demo's, which cleans up after itself by that prefix. */
const PREFIX = 'ippt'
/** On a loaded machine of two cores a daemon takes several seconds to start. */
const PATIENCE = 30_000

export class Lab {
  readonly topology: Topology
  readonly commands = new Commands(new AbortController().signal)
  /** Configuration files, logs and captures. */
  readonly out = mkdtempSync(join(tmpdir(), 'ippriv-daemons-'))
  readonly traffic: Traffic
  /** What every host held before any daemon ran. */
  readonly #before = new Map<string, ReadonlySet<string>>()
  readonly #daemons = new Map<string, Daemon>()
  #origin: Background | undefined
  #captures = 0

  constructor(nodes: readonly string[]) {
    const whole = planTopology(`${PREFIX}${process.pid}`)
    const wanted = new Set([...nodes, 'client', 'directory', 'server'])
    this.topology = { ...whole, hosts: whole.hosts.filter((host) => wanted.has(host.name)) }
    this.traffic = new Traffic(this.commands, this.topology, 1)
  }

  /** Namespaces, keys and configuration files; no daemon yet. `hops` is what the client's circuit has. */
  async raise(hops: number): Promise<void> {
    // The same program starts over and over: this halves the time until it runs. Kept from run to run.
    process.env.NODE_COMPILE_CACHE = join(import.meta.dirname, '../../node_modules/.cache/compiled')
    await this.#fellDead()
    await raise(this.commands, this.topology)
    const options = { out: this.out, plane: 'userspace', hops, cipher: 'aes-256-gcm-16' } as const
    await prepareDaemons(this.commands, this.topology, options)
    for (const host of this.topology.hosts) this.#before.set(host.name, await inventory(this.commands, host))
  }

  async down(): Promise<void> {
    try {
      // A stopped process takes no other signal.
      for (const { process } of this.#daemons.values()) process.kill('SIGCONT')
      await this.commands.killAll(8_000)
    } finally {
      await fell(this.commands, this.topology.id)
      rmSync(this.out, { recursive: true })
    }
  }

  host(name: string): Host {
    return hostOf(this.topology, name)
  }

  get nodes(): readonly Host[] {
    return nodesOf(this.topology)
  }

  daemon(name: string): Daemon {
    const daemon = this.#daemons.get(name)
    assert.ok(daemon, `${name} was started`)
    return daemon
  }

  /** Changes the configuration file of a daemon: `{ 'circuit.hops': 2, 'circuit.path': undefined }`. */
  configure(name: string, changes: Readonly<Record<string, unknown>>): void {
    writeFileSync(this.configFile(name), this.#changed(name, changes))
  }

  /** What the configuration file of a daemon says. */
  setting(name: string, path: string): unknown {
    return parseDocument(readFileSync(this.configFile(name), 'utf8')).getIn(path.split('.'))
  }

  /** Another configuration file beside the daemon's own, and its path. */
  variant(name: string, suffix: string, changes: Readonly<Record<string, unknown>>): string {
    const file = join(this.out, 'config', `${name}-${suffix}.yaml`)
    writeFileSync(file, this.#changed(name, changes))
    return file
  }

  configFile(name: string): string {
    return configOf(this.out, name)
  }

  stateOf(name: string): string {
    return join(runDirectory(this.topology.id), name, 'state')
  }

  keysOf(name: string): string {
    return join(runDirectory(this.topology.id), name, 'keys')
  }

  start(name: string): Daemon {
    // Each life of a daemon has a log of its own.
    rmSync(join(this.out, `${name}.log`), { force: true })
    const daemon = startDaemon(this.commands, this.topology, this.host(name), this.out)
    this.#daemons.set(name, daemon)
    return daemon
  }

  /** Directory and all nodes, up to every overlay tunnel. */
  async startNetwork(): Promise<void> {
    const daemons = ['directory', ...this.nodes.map(({ name }) => name)].map((name) => this.start(name))
    await Promise.all(
      daemons.map((daemon) =>
        daemon.name === 'directory'
          ? ready(daemon, PATIENCE, () => undefined)
          : ready(daemon, PATIENCE, nodeReady(this.#peersOf(daemon.name))),
      ),
    )
  }

  /** Waits until a node has a tunnel to every other node that runs. */
  async nodeReady(name: string): Promise<void> {
    await ready(this.daemon(name), PATIENCE, nodeReady(this.#peersOf(name)))
  }

  async clientReady(): Promise<ClientStatus> {
    return await ready(this.daemon('client'), PATIENCE, clientReady)
  }

  /** Waits until the status of a daemon satisfies `accept`, which says what is still missing. */
  async status<Status>(name: string, accept: (status: Status) => string | undefined): Promise<Status> {
    return await ready(this.daemon(name), PATIENCE, accept)
  }

  /** Starts a client afresh: nothing kept from earlier lives but keys. */
  startClientAnew(changes: Readonly<Record<string, unknown>>): Daemon {
    rmSync(this.stateOf('client'), { recursive: true, force: true })
    this.configure('client', changes)
    return this.start('client')
  }

  /** SIGTERM, and the exit code, which is null when it had to be killed. */
  async stop(name: string): Promise<number | null> {
    return await this.daemon(name).process.stop(8_000)
  }

  async kill(name: string): Promise<void> {
    this.daemon(name).process.kill('SIGKILL')
    await this.daemon(name).process.ended
  }

  /** An `ippriv` command in the namespace of a host, to its end. */
  async ippriv(name: string, ...args: readonly string[]): Promise<CommandResult> {
    return await this.run(name, PROGRAM, ...args)
  }

  /** Any program in the namespace of a host, to its end. */
  async run(name: string, ...argv: readonly string[]): Promise<CommandResult> {
    return await this.commands.run(inNamespace(this.host(name).namespace, ...argv), {
      check: false,
      timeoutMs: 20_000,
    })
  }

  circuits(...args: readonly string[]): Promise<CommandResult> {
    return this.ippriv('client', 'circuits', ...args, '--socket', this.socketOf('client'))
  }

  socketOf(name: string): string {
    return socketOf(this.topology, name)
  }

  /** The log records of a daemon's present or last life whose message has `text`. */
  logged(name: string, text: string): readonly { readonly level: string; readonly msg: string }[] {
    return readFileSync(join(this.out, `${name}.log`), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as { level: string; msg: string })
      .filter(({ msg }) => msg.includes(text))
  }

  async startServer(): Promise<void> {
    const { namespace, address } = this.host('server')
    const program = join(import.meta.dirname, '../../src/demo/origin.ts')
    const log = join(this.out, 'origin.log')
    rmSync(log, { force: true })
    this.#origin = this.commands.start(inNamespace(namespace, process.execPath, program, address), log)
    await until('the web server', PATIENCE, () => readFileSync(log, 'utf8').includes('"ready"') || undefined)
  }

  async stopServer(): Promise<void> {
    await this.#origin?.stop(2_000)
  }

  /** What a host holds now and did not hold before any daemon ran, and the processes in it. */
  async leftovers(name: string): Promise<readonly string[]> {
    const host = this.host(name)
    const left = residue(this.#before.get(name)!, await inventory(this.commands, host))
    const socket = existsSync(this.socketOf(name)) ? [`control socket ${this.socketOf(name)}`] : []
    return [...left, ...socket, ...(await processesIn(this.commands, host))]
  }

  /**
   * Lets programs on the client's host try everything while `during` runs. Gives the packets its cable carried that
   * no guard lets pass: all but ARP, the directory, and ESP and IKE with nodes.
   */
  async leaksWhile(during: () => Promise<unknown>): Promise<readonly string[]> {
    const nodes = this.nodes.map((node) => `host ${node.address}`).join(' or ')
    const allowed = [
      'arp',
      `(tcp port ${DIRECTORY_PORT} and host ${this.host('directory').address})`,
      `((ip proto 50 or udp port 500 or udp port 4500) and (${nodes}))`,
    ]
    return await this.seenOnCable(`not (${allowed.join(' or ')})`, during)
  }

  /** The packets of the client's cable that match, as text. */
  async seenOnCable(filter: string, during: () => Promise<unknown>): Promise<readonly string[]> {
    const { cable } = this.host('client')
    const name = `cable-${++this.#captures}`
    const spec = { name, namespace: this.topology.router, device: cable, filter }
    const captures = await startCaptures(this.commands, this.out, [spec], PATIENCE)
    const totals = await during().then(
      () => stopCaptures(captures),
      async (error) => {
        await stopCaptures(captures)
        throw error
      },
    )
    assert.equal(totals.get(name)?.dropped, 0, 'the capture lost nothing')
    const file = readFileSync(captures[0]!.file)
    return [...readPcap(file)].map((frame) => Buffer.from(frame.packet).toString('hex'))
  }

  /** Applications that try to reach the server and the world past the telescope. All of them must fail. */
  async tryEverything(): Promise<void> {
    const server = this.host('server').address
    const own = this.host('client').address
    const curl = ['curl', '-sS', '-o', '/dev/null', '--max-time', '1']
    const attempts = await Promise.all([
      this.run('client', 'ping', '-c', '2', '-i', '0.2', '-W', '1', server),
      this.run('client', 'ping', '-c', '1', '-W', '1', '-I', own, server),
      this.run('client', ...curl, `http://${server}/`),
      this.run('client', ...curl, '--interface', own, `http://${server}/`),
      this.run('client', 'ping', '-c', '1', '-W', '1', this.host('client').gateway),
    ])
    for (const { code, stdout } of attempts) assert.notEqual(code, 0, `something got through: ${stdout}`)
  }

  #changed(name: string, changes: Readonly<Record<string, unknown>>): string {
    const document: Document = parseDocument(readFileSync(this.configFile(name), 'utf8'))
    for (const [path, value] of Object.entries(changes)) {
      const steps = path.split('.')
      if (value === undefined) document.deleteIn(steps)
      else document.setIn(steps, value)
    }
    return document.toString()
  }

  #peersOf(name: string): string[] {
    return this.nodes.map((node) => node.name).filter((other) => other !== name)
  }

  /** What runs of this suite left that were killed. */
  async #fellDead(): Promise<void> {
    const ids = new Set(
      [
        ...readdirSync('/run/netns', { withFileTypes: true }).map((entry) => entry.name.split('-')[0]!),
      ].filter((id) => new RegExp(`^${PREFIX}\\d+$`).test(id)),
    )
    for (const id of ids) if (!existsSync(`/proc/${id.slice(PREFIX.length)}`)) await fell(this.commands, id)
  }
}

/** A command that ended as it must when something is wrong: one line, its parts, the exit code, nothing on stdout. */
export function assertRefused(
  result: CommandResult,
  expected: { readonly code: ErrorCode; readonly exit: 1 | 2; readonly where: RegExp },
): void {
  const { code, exit, where } = expected
  const [what, todo] = ERRORS[code]
  assert.match(result.stderr, /^[^\n]+\n$/, `exactly one line on stderr, not:\n${result.stderr}`)
  const line = result.stderr.trimEnd()
  assert.ok(line.endsWith(`(${todo}) [${code}]`), `what to do and the code ${code}: ${line}`)
  assert.ok(line.startsWith(`ippriv: ${what}: `), `what happened: ${line}`)
  assert.match(line.slice(`ippriv: ${what}: `.length, -`(${todo}) [${code}]`.length), where, 'where')
  assert.equal(result.code, exit, `exit code: ${line}`)
  assert.equal(result.stdout, '')
}

/** `lastError` of a status: the whole line of an error with this code. */
export function isError(line: string | null, code: ErrorCode): boolean {
  return line?.endsWith(`[${code}]`) ?? false
}
