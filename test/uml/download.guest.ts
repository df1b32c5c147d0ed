/**
 * Downloads over the kernel plane: what shows of them, and what happens to the production daemons meanwhile. Every key
 * is renewed once per second; each node's program is replaced, or killed; the client's is killed.
 *
 *     client ---- alder (entry) ---- birch (middle) ---- cedar (exit) ---- server
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Commands } from '#demo/command'
import { MEBIBYTE } from '#demo/content'
import {
  type CircuitStatus,
  type ClientStatus,
  clientReady,
  DIRECTORY_PORT,
  type DirectoryStatus,
  defaultCircuit,
  type NodeStatus,
  nodeReady,
  prepareDaemons,
  ready,
  statusOf,
} from '#demo/daemons'
import { Scene } from '#demo/scene'
import {
  fell,
  type Host,
  hostOf,
  inNamespace,
  nodesOf,
  planTopology,
  raise,
  type Topology,
} from '#demo/topology'
import { controlRequest } from '#linux/control'
import { type Counters, countersOf, grown } from './counters.ts'
import { amendConfig, captured } from './lab.ts'
import type { Progress, Received } from './steady.ts'

const PATH = ['alder', 'birch', 'cedar'] as const
const PORT = 8000
/** Octets per second: less than half of what a slow guest can carry, so that a program can start meanwhile. */
const RATE = MEBIBYTE
const UNBOUND = 0
const LIMIT = 360_000
/** For a part of a download, or a daemon that starts. */
const PATIENCE = 180_000
/** Milliseconds. A second is what is wanted, and told; a busy machine with a kernel in a process is allowed more. */
const MAX_PAUSE = 5000
/** Milliseconds. From here on the test tells what else happened. */
const WANTED_PAUSE = 1000
/** Milliseconds. A node asks its peer for signs of life within 33 s, and waits 30 s for an answer. */
const GIVEN_UP = 65_000
/** How a node ends that makes way for a successor: EX_TEMPFAIL. */
const MADE_WAY = 75

const scene = makeScene(await mkdtemp(join(tmpdir(), 'ippriv-download-')))
const { commands, topology, daemons } = scene
let circuit: CircuitStatus

before(async () => {
  await Promise.all([raise(commands, topology), prepareDaemons(commands, topology, scene.options)])
  await amendConfig(scene.options.out, 'client', {
    circuit: { path: PATH, sameNetwork: true, cipher: 'chacha20-poly1305', spares: 0 },
  })
  const directory = scene.start(hostOf(topology, 'directory'))
  for (const node of nodesOf(topology)) scene.start(node)
  await ready<DirectoryStatus>(directory, LIMIT, () => undefined)
  for (const node of PATH) await nodeUp(node)
  const client = scene.start(hostOf(topology, 'client'))
  circuit = defaultCircuit(await ready<ClientStatus>(client, LIMIT, clientReady))!
  assert.deepEqual(circuit.path, PATH)
})

after(async () => {
  await commands.killAll(5000)
  await fell(commands, topology.id)
})

test('headers are constant on every cable, whatever is inside', { timeout: LIMIT }, async () => {
  const [client, server] = [hostOf(topology, 'client'), hostOf(topology, 'server').address]
  const ping = (...options: readonly string[]) =>
    commands.run(inNamespace(client.namespace, 'ping', '-n', '-c2', '-W5', '-i0.2', ...options, server))
  const work = async (): Promise<void> => {
    await ping()
    await ping('-Q', '0xb9', '-t', '33', '-M', 'do', '-s', '1000')
    await ping('-M', 'dont', '-s', '1400')
  }
  const text = await captured(topology.router, 'any', work, 'esp')
  const kinds = new Set(
    packets(text).map((packet) => {
      const [, way, tos, ttl, flags] =
        /^\S+ \S+ +(In|Out) +IP \(tos (\S+), ttl (\d+),.* flags \[(.*?)\]/.exec(packet) ?? []
      return `${way} tos ${tos} ttl ${ttl} ${flags?.includes('DF') ? 'DF' : 'may be cut'}`
    }),
  )
  // As they come from a host, and as the router sends them on.
  assert.deepEqual([...kinds].sort(), ['In tos 0x0 ttl 64 may be cut', 'Out tos 0x0 ttl 63 may be cut'])
  // What is larger than the MTU inside and may be cut, the kernel cuts outside: after it was sealed.
  assert.match(text, /flags \[\+\]/)
})

test('TCP is clamped to what fits, larger packets are refused or cut, and a narrow cable carries it all', {
  timeout: LIMIT,
}, async (t) => {
  const [client, server] = [hostOf(topology, 'client'), hostOf(topology, 'server')]
  const syns = await captured(
    server.namespace,
    'eth0',
    () =>
      downloading(UNBOUND, async (download) => {
        await download.reaches(MEBIBYTE)
        const { stdout } = await commands.run(
          inNamespace(client.namespace, 'ss', '-tni', 'dst', server.address),
        )
        // RFC 9293 section 3.7.1: the option counts no TCP options, of which timestamps take 12 octets.
        assert.match(stdout, /\bmss:1228\b.*\bpmtu:1280\b/)
      }),
    'tcp[tcpflags] & tcp-syn != 0',
    'in',
  )
  assert.match(syns, /mss 1240\b/, 'what the server is asked for')
  const ping = async (...options: readonly string[]): Promise<{ code: number | null; text: string }> => {
    const argv = ['ping', '-n', '-c1', '-W10', ...options, server.address]
    const { code, stdout, stderr } = await commands.run(inNamespace(client.namespace, ...argv), {
      check: false,
    })
    return { code, text: stdout + stderr }
  }
  assert.equal((await ping('-M', 'do', '-s', '1252')).code, 0)
  assert.match((await ping('-M', 'do', '-s', '1253')).text, /mtu[ =]1280/)
  assert.equal((await ping('-M', 'dont', '-s', '1400')).code, 0)
  const birch = hostOf(topology, 'birch')
  const mtu = (octets: number) =>
    Promise.all([
      commands.run(['ip', '-n', topology.router, 'link', 'set', birch.cable, 'mtu', `${octets}`]),
      commands.run(['ip', '-n', birch.namespace, 'link', 'set', 'eth0', 'mtu', `${octets}`]),
    ])
  await mtu(1400)
  try {
    await downloading(UNBOUND, async (download) => {
      const began = performance.now()
      await download.reaches(4 * MEBIBYTE)
      t.diagnostic(
        `${download.octets} octets in ${Math.round(performance.now() - began)} ms at an MTU of 1400`,
      )
    })
    assert.equal((await ping('-M', 'do', '-s', '1252')).code, 0)
  } finally {
    await mtu(1500)
  }
})

test('every layer and overlay tunnel gets new keys each second: not a timeout, not a packet in clear', {
  timeout: LIMIT,
}, async (t) => {
  const names = ['TCPTimeouts', 'TCPLossUndo', 'OutRsts'] as const
  const before = await tcpCounters(...names)
  let rounds = 0
  const clear = await packetsInClear(async () => {
    await downloading(UNBOUND, async (download) => {
      const began = performance.now()
      while (download.octets < 64 * MEBIBYTE) {
        const next = sleep(1000)
        await Promise.all(rekeyEverything())
        rounds++
        await next
        await download.look()
      }
      const seconds = (performance.now() - began) / 1000
      const mbps = (8 * download.octets) / seconds / 1e6
      t.diagnostic(`${rounds} rounds in ${seconds.toFixed(1)} s at ${mbps.toFixed(1)} Mbit/s`)
    })
  })
  const now = await tcpCounters(...names)
  for (const end of ['client', 'server']) {
    const more = (name: string): number => now[`${end}: ${name}`]! - before[`${end}: ${name}`]!
    const [timeouts, undone] = [more('TcpExt: TCPTimeouts'), more('TcpExt: TCPLossUndo')]
    if (timeouts > 0) t.diagnostic(`${end}: ${timeouts} timeouts, of which TCP took back ${undone}`)
    // It takes back those after which the first transmission is acknowledged: nothing was lost, but this guest had stood still.
    assert.ok(timeouts <= undone, `${end}: ${timeouts} timeouts, ${undone} of them taken back`)
    assert.equal(more('Tcp: OutRsts'), 0)
  }
  assert.ok(
    clear.some((line) => line.includes(`.${PORT}: Flags [S]`)),
    'the sniffer hears the exit',
  )
  assert.deepEqual(
    clear.filter((line) => !line.includes(hostOf(topology, 'server').address)),
    [],
  )
  assert.ok(rounds >= 8, `${rounds} rounds`)
})

const RESTARTS = [
  ['SIGHUP', 'birch', 0],
  ['SIGHUP', 'alder', 0],
  ['SIGHUP', 'cedar', 0],
  ['SIGKILL', 'birch', GIVEN_UP],
  ['SIGKILL', 'alder', 0],
  ['SIGKILL', 'cedar', 0],
] as const

for (const [how, name, absence] of RESTARTS) {
  const after = absence > 0 ? ` ${absence / 1000} s later` : ''
  test(`${how} to ${name} and a new start${after}: the download goes on`, { timeout: LIMIT }, async (t) => {
    const before = await tcpCounters('OutRsts', 'EstabResets')
    const circumstances = await Circumstances.note()
    const said: string[] = []
    await downloading(RATE, async (download) => {
      await download.reaches(2 * MEBIBYTE)
      said.push(`${download.longest} ms without progress before`)
      const began = performance.now()
      const { process } = daemons.get(name)!
      process.kill(how)
      assert.equal(await process.ended, how === 'SIGHUP' ? MADE_WAY : null)
      await sleep(absence)
      scene.start(hostOf(topology, name))
      const { adopted } = await nodeUp(name)
      said.push(`${name} up after ${Math.round(performance.now() - began)} ms, ${adopted} adopted`)
      await download.reaches(download.octets + 4 * MEBIBYTE)
      assert.ok(adopted >= 1)
      // The exit is asked for signs of life: it knows nothing of the circuit any more, and still carries it.
      if (name === 'cedar') said.push(`another circuit after ${await anotherCircuit(download, began)} ms`)
      await download.reaches(download.octets + MEBIBYTE)
      said.push(`${download.longest} ms without progress, ${download.octets} octets`)
      if (download.longest > WANTED_PAUSE) said.push(...(await circumstances.of(download)))
      for (const line of said) t.diagnostic(line)
      assert.ok(download.longest <= MAX_PAUSE, said.join('\n'))
    })
    assert.deepEqual(await tcpCounters('OutRsts', 'EstabResets'), before)
    const status = await statusOf<ClientStatus>(daemons.get('client')!)
    assert.deepEqual([status.state, defaultCircuit(status)?.id], ['ready', circuit.id])
  })
}

test('SIGKILL to the client and a new start: at no instant a packet in clear', {
  timeout: LIMIT,
}, async (t) => {
  const client = hostOf(topology, 'client')
  const clear = await packetsInClear(async () => {
    // Everything at once, all the time: what has no circuit must go nowhere.
    const argv = ['ping', '-n', '-q', '-i0.02', hostOf(topology, 'server').address]
    const pings = commands.start(inNamespace(client.namespace, ...argv), join(scene.options.out, 'pings.log'))
    const { process } = daemons.get('client')!
    process.kill('SIGKILL')
    await process.ended
    await sleep(2000)
    const began = performance.now()
    circuit = defaultCircuit(await ready<ClientStatus>(scene.start(client), PATIENCE, clientReady))!
    t.diagnostic(`ready after ${Math.round(performance.now() - began)} ms`)
    await sleep(1000)
    pings.kill('SIGINT')
    await pings.ended
  }, 'icmp')
  const own = clear.filter((packet) => packet.includes(` ${client.address}`))
  assert.deepEqual(own, [])
  assert.ok(clear.length > 0, 'the sniffer hears the exit')
})

/** Waits until the client has another circuit, while the download goes on over the one before. */
async function anotherCircuit(download: Download, since: number): Promise<number> {
  for (;;) {
    await download.look()
    const status = await statusOf<ClientStatus>(daemons.get('client')!)
    const now = defaultCircuit(status)
    if (now === undefined || now.id === circuit.id) {
      await sleep(250)
      continue
    }
    assert.equal(status.circuits.find(({ id }) => id === circuit.id)?.state, 'draining')
    circuit = now
    return Math.round(performance.now() - since)
  }
}

/** New keys for the three layers, and for the two overlay tunnels below them. */
function rekeyEverything(): Promise<unknown>[] {
  const ask = (name: string, method: string, parameters: Record<string, unknown>): Promise<unknown> =>
    controlRequest(daemons.get(name)!.socket, method, parameters, LIMIT)
  return [
    ...PATH.map((_, index) => ask('client', 'circuits.rekey', { id: circuit.id, hop: index + 1 })),
    ask('birch', 'overlay.rekey', { peer: 'alder' }),
    ask('cedar', 'overlay.rekey', { peer: 'birch' }),
  ]
}

/** What crosses any cable meanwhile and is neither ESP, IKE nor from the directory; of the server's, only `control`. */
async function packetsInClear(
  work: () => Promise<void>,
  control = 'tcp[tcpflags] & tcp-syn != 0',
): Promise<readonly string[]> {
  const server = hostOf(topology, 'server').address
  const ours = `esp or udp port 500 or udp port 4500 or tcp port ${DIRECTORY_PORT}`
  return packets(
    await captured(
      topology.router,
      'any',
      work,
      `ip and not (${ours}) and (not host ${server} or ${control})`,
    ),
  )
}

/** A line of each packet begins with the time, the others with a blank. */
const packets = (text: string): string[] => text.split(/\n(?! )/).filter((packet) => packet !== '')

async function lastWords(): Promise<string> {
  const logs = [...daemons.values()].map(async ({ name, process }) => {
    const lines = (await readFile(process.log, 'utf8')).trim().split('\n')
    return `${name}:\n${lines.slice(-12).join('\n')}`
  })
  return (await Promise.all(logs)).join('\n')
}

/** A download during `work`, which must come through as it was sent. */
async function downloading(rate: number, work: (download: Download) => Promise<void>): Promise<void> {
  const download = await Download.begin(rate)
  try {
    await work(download)
    const { received, sent } = await download.end()
    assert.deepEqual(received, sent)
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${await lastWords()}`, { cause: error })
  } finally {
    download.kill()
  }
}

/** The demo's hosts that one fixed circuit needs. */
function makeScene(out: string): Scene {
  const whole = planTopology(`ippd${process.pid}`)
  const needed = ['client', 'server', 'directory', ...PATH] as readonly string[]
  const small: Topology = { ...whole, hosts: whole.hosts.filter((host) => needed.includes(host.name)) }
  return new Scene(new Commands(new AbortController().signal), small, {
    plane: 'xfrm',
    hops: PATH.length,
    cipher: 'chacha20-poly1305',
    out,
    keep: false,
    lossPercent: 0,
    mebibytes: 0,
    userModeLinux: true,
    say: (text) => process.stderr.write(`${text}\n`),
  })
}

type Adopter = NodeStatus & { readonly adopted: number }

const nodeUp = (name: string): Promise<Adopter> =>
  ready<Adopter>(daemons.get(name)!, PATIENCE, nodeReady(PATH.filter((peer) => peer !== name)))

/** By `host: counter`, of TCP at both ends of the download. */
async function tcpCounters(...names: readonly string[]): Promise<Record<string, number>> {
  const found: Record<string, number> = {}
  for (const end of ['client', 'server']) {
    const counted = Object.entries(await countersOf(commands, hostOf(topology, end)))
    for (const [name, value] of counted)
      if (/^Tcp/.test(name) && names.includes(name.split(' ')[1]!)) found[`${end}: ${name}`] = value
  }
  assert.equal(Object.keys(found).length, 2 * names.length)
  return found
}

/** What else happened, for a pause that nobody expected. */
class Circumstances {
  readonly #before: ReadonlyMap<Host, Counters>

  static async note(): Promise<Circumstances> {
    return new Circumstances(await countersOfAll())
  }

  private constructor(before: ReadonlyMap<Host, Counters>) {
    this.#before = before
  }

  /** What the kernel of each host counted in all, and what its daemon logged around the longest pause. */
  async of({ longest, since }: Download): Promise<string[]> {
    const told = [`the pause began at ${new Date(since).toISOString()}`]
    for (const [host, now] of await countersOfAll()) {
      const more = grown(this.#before.get(host) ?? {}, now)
      if (more !== '') told.push(`${host.name}: ${more}`)
    }
    for (const { name, process } of daemons.values()) {
      for (const line of (await readFile(process.log, 'utf8')).split('\n')) {
        const at = Date.parse(/"time":"([^"]+)"/.exec(line)?.[1] ?? '')
        if (at > since - 5000 && at < since + longest + 2000) told.push(`${name}: ${line}`)
      }
    }
    return told
  }
}

async function countersOfAll(): Promise<ReadonlyMap<Host, Counters>> {
  const found = new Map<Host, Counters>()
  for (const host of topology.hosts) found.set(host, await countersOf(commands, host))
  return found
}

/** From the server to the client, through the client's own circuit. */
class Download {
  /** As of the last look. */
  octets = 0
  /** Milliseconds without progress. */
  longest = 0
  /** When that began, in milliseconds since 1970. */
  since = 0
  readonly #server: Program
  readonly #client: Program

  static async begin(rate: number): Promise<Download> {
    const { namespace, address } = hostOf(topology, 'server')
    const server = new Program(namespace, 'serve', address, `${PORT}`, `${rate}`)
    assert.deepEqual(await server.says(), { ready: true })
    return new Download(server, address)
  }

  private constructor(server: Program, address: string) {
    this.#server = server
    this.#client = new Program(hostOf(topology, 'client').namespace, 'fetch', address, `${PORT}`)
  }

  async reaches(octets: number): Promise<void> {
    const deadline = performance.now() + PATIENCE
    while (this.octets < octets) {
      assert.ok(
        performance.now() < deadline,
        `${this.octets} of ${octets} octets, ${this.longest} ms without any`,
      )
      await sleep(250)
      await this.look()
    }
  }

  async look(): Promise<void> {
    this.#client.hears('mark')
    const { octets, longest, since } = await this.#client.says<Progress>()
    this.octets = octets
    if (longest <= this.longest) return
    this.longest = longest
    this.since = since
  }

  async end(): Promise<{ readonly received: Received; readonly sent: Received }> {
    this.#client.hears('stop')
    return { received: await this.#client.says(), sent: await this.#server.says() }
  }

  kill(): void {
    this.#client.kill()
    this.#server.kill()
  }
}

/** `steady.ts` in a namespace. */
class Program {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(namespace: string, ...args: readonly string[]) {
    const [command, ...rest] = inNamespace(
      namespace,
      process.execPath,
      join(import.meta.dirname, 'steady.ts'),
      ...args,
    )
    this.#child = spawn(command!, rest, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  hears(line: string): void {
    this.#child.stdin!.write(`${line}\n`)
  }

  async says<T>(): Promise<T> {
    const line = await this.#lines.next()
    assert.ok(!line.done, `${this.#child.spawnargs.join(' ')} ended`)
    return JSON.parse(line.value) as T
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}
