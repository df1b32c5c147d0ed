/** A telescope over three nodes, an honest client of the entry beside it, and an attacker who floods that entry. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Commands, until } from '#demo/command'
import { ADDRESS, type Chain, fellChain, onHost, raiseChain } from '../chain.ts'
import { residentOf } from '../ike/cpu.ts'
import type { LoadPlan, LoadResult } from '../load.ts'
import { OverlayNetwork } from '../overlay.ts'
import type { Renewal } from './renewer.ts'
import { NOBODY } from './request.ts'

const LOAD_PORT = 8080

export interface Phase {
  /** Goodput of a download through the telescope. */
  readonly mbps: number
  /** Those that the honest client of the entry ended in this time. */
  readonly renewals: readonly Renewal[]
  /** Octets; the most the entry had. */
  readonly resident: number
  /** What the entry refused in this time, by name. */
  readonly cookies: number
  readonly halfOpen: number
  /** How long a new circuit took, if one was built. */
  readonly buildMs?: number
  /** Of the circuit in use: how long the slowest layer took to get new keys. */
  readonly rekeyMs: number
  readonly sent?: number
}

export interface Flood {
  /** Requests per second. */
  readonly rate: number
}

export class FloodScene {
  readonly #commands: Commands
  readonly #chain: Chain
  #home = ''
  #overlay: OverlayNetwork | undefined

  constructor(commands: Commands, id: string) {
    this.#commands = commands
    this.#chain = { id }
  }

  /** Resolves when the circuit is open and the honest client is connected. */
  async raise(): Promise<void> {
    this.#home = await mkdtemp(join(tmpdir(), 'ippriv-flood-'))
    await fellChain(this.#commands, this.#chain)
    await raiseChain(this.#commands, this.#chain)
    // What is answered to nobody goes back where it came from, and ends there.
    const way = `$(ip -o route get ${ADDRESS.plain} | sed 's/.*via \\([^ ]*\\).*/\\1/')`
    const script = `ip route add ${NOBODY.network} via ${way} src ${ADDRESS.alder}`
    await this.#commands.run(onHost(this.#chain, 'alder', 'sh', '-e', '-c', script))
    const server = join(import.meta.dirname, '../load-server.ts')
    this.#start('server', 'load', server, '0.0.0.0', String(LOAD_PORT))
    await until('the load server', 20_000, async () =>
      (await this.#log('load')).endsWith('ready\n') ? true : undefined,
    )
    this.#overlay = new OverlayNetwork(this.#commands, this.#chain, join(this.#home, 'ippriv'))
    await this.#overlay.start()
    const { nodeId, ikeKey } = this.#overlay.keysOf('alder')
    const renewer = join(import.meta.dirname, 'renewer.ts')
    this.#start('plain', 'renewer', renewer, ADDRESS.plain, ADDRESS.alder, nodeId, ikeKey)
    await until('an honest client', 20_000, async () =>
      (await this.#renewals()).some(({ name }) => name === 'CREATE_CHILD_SA') ? true : undefined,
    )
  }

  async fell(): Promise<void> {
    await this.#commands.killAll(2000)
    await fellChain(this.#commands, this.#chain)
    if (this.#home !== '') await rm(this.#home, { recursive: true, force: true })
  }

  /** Downloads for so long. Meanwhile the circuit gets new keys, and under a flood another one is built. */
  async phase(milliseconds: number, flood?: Flood): Promise<Phase> {
    const began = Date.now()
    const before = await this.counters()
    const pid = this.#overlay!.pidOf('alder')
    let resident = residentOf(pid)
    const timer = setInterval(() => {
      resident = Math.max(resident, residentOf(pid))
    }, 200)
    const sent = flood && this.#flood(flood, milliseconds + 2 * MARGIN)
    try {
      if (flood !== undefined) await this.#isUnderLoad(before)
      const [{ downMbps: mbps }, [rekeyMs, buildMs]] = await Promise.all([
        this.#download(milliseconds),
        this.#renewAndBuild(flood !== undefined),
      ])
      const after = await this.counters()
      const renewals = (await this.#renewals()).filter(({ at }) => at >= began)
      return {
        mbps,
        rekeyMs,
        renewals,
        resident,
        cookies: (after['cookie-demanded'] ?? 0) - (before['cookie-demanded'] ?? 0),
        halfOpen: after['sas.half-open'] ?? 0,
        ...(buildMs === undefined ? {} : { buildMs }),
        ...(sent === undefined ? {} : { sent: await sent }),
      }
    } finally {
      clearInterval(timer)
      // If the phase failed it failed for another reason than the flood that ends after it.
      await sent?.catch(() => 0)
    }
  }

  /** Of the entry. */
  async counters(): Promise<Readonly<Record<string, number>>> {
    return await this.#overlay!.countersOf('alder')
  }

  /** Resident octets of the entry, now. */
  resident(): number {
    return residentOf(this.#overlay!.pidOf('alder'))
  }

  async #renewAndBuild(isToBuild: boolean): Promise<[rekeyMs: number, buildMs: number | undefined]> {
    const rekeyMs = await this.#overlay!.rekeyCircuit()
    return [rekeyMs, isToBuild ? await this.#overlay!.buildCircuit() : undefined]
  }

  async #isUnderLoad(before: Readonly<Record<string, number>>): Promise<void> {
    await until('the first cookie', 20_000, async () =>
      ((await this.counters())['cookie-demanded'] ?? 0) > (before['cookie-demanded'] ?? 0) ? true : undefined,
    )
  }

  /** How many requests were sent. */
  async #flood({ rate }: Flood, milliseconds: number): Promise<number> {
    const program = join(import.meta.dirname, 'flooder.ts')
    const argv = [...NODE, program, ADDRESS.alder, String(rate), String(milliseconds / 1000)]
    const options = { timeoutMs: milliseconds + 60_000 }
    const { stdout } = await this.#commands.run(onHost(this.#chain, 'plain', ...argv), options)
    return (JSON.parse(stdout) as { sent: number }).sent
  }

  async #download(durationMs: number): Promise<LoadResult> {
    const plan: LoadPlan = {
      server: ADDRESS.server,
      port: LOAD_PORT,
      down: 2,
      measure: 'bulk',
      warmupMs: MARGIN,
      durationMs,
    }
    const argv = [...NODE, join(import.meta.dirname, '../load.ts'), JSON.stringify(plan)]
    const { stdout } = await this.#commands.run(onHost(this.#chain, 'client', ...argv), {
      timeoutMs: durationMs + 60_000,
    })
    return JSON.parse(stdout) as LoadResult
  }

  async #renewals(): Promise<Renewal[]> {
    const lines = (await this.#log('renewer')).split('\n').filter((line) => line.endsWith('}'))
    return lines.map((line) => JSON.parse(line) as Renewal)
  }

  #start(host: 'server' | 'plain', name: string, ...argv: readonly string[]): void {
    this.#commands.start(onHost(this.#chain, host, ...NODE, ...argv), join(this.#home, `${name}.log`))
  }

  #log(name: string): Promise<string> {
    return readFile(join(this.#home, `${name}.log`), 'utf8')
  }
}

const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'] as const
/** Before and behind what is measured, in milliseconds. */
const MARGIN = 1500
