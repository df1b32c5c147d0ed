import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { type Background, type Commands, GaveUp, lastLine, until } from '#demo/command'
import { ECHO_PORT } from '#demo/content'
import type { Probe, ProbeResult } from '#demo/probe'
import type { Pings } from '#demo/report'
import { type Host, hostOf, inNamespace, runDirectory, type Topology } from '#demo/topology'

/**
 * What ordinary programs on a host do: curl, ping, and a small UDP program. `from` binds to an address, as
 * a person chooses a circuit; without it the routing table decides.
 */
export class Traffic {
  readonly #commands: Commands
  readonly #topology: Topology
  /** How much longer than usual everything may take (User-Mode Linux, lossy cables). */
  readonly #patience: number

  constructor(commands: Commands, topology: Topology, patience: number) {
    this.#commands = commands
    this.#topology = topology
    this.#patience = patience
  }

  /** The body of a page of the web server. @throws IpprivError IPP_HOST_TOOL with curl's reason. */
  async page(host: Host, path: string, from?: string): Promise<string> {
    const result = await this.#commands.run(this.#curl(host, path, '-', 20, from), {
      timeoutMs: 60_000 * this.#patience,
    })
    return result.stdout
  }

  async ping(host: Host, count: number, from?: string): Promise<Pings> {
    const bound = from === undefined ? [] : ['-I', from]
    const interval = ['-i', '0.05', '-W', String(2 * this.#patience)]
    const argv = ['ping', '-n', '-q', '-c', String(count), ...interval, ...bound, this.#server]
    const result = await this.#commands.run(inNamespace(host.namespace, ...argv), {
      check: false,
      timeoutMs: 60_000 * this.#patience,
    })
    if (result.code !== 0 && !result.stdout.includes('transmitted'))
      throw new IpprivError('IPP_HOST_TOOL', `ping: ${lastLine(result.stderr)}`)
    return parsePing(result.stdout)
  }

  async probe(host: Host, plan: readonly Probe[]): Promise<readonly ProbeResult[]> {
    const program = join(import.meta.dirname, 'probe.ts')
    const argv = inNamespace(host.namespace, process.execPath, program, JSON.stringify(plan))
    const result = await this.#commands.run(argv, { timeoutMs: 60_000 * this.#patience })
    return JSON.parse(result.stdout) as ProbeResult[]
  }

  /** `count` datagrams to the echo service. */
  echo(count: number, from?: string): Probe {
    const bound = from === undefined ? {} : { from }
    return { kind: 'echo', to: this.#server, port: ECHO_PORT, count, intervalMs: 20, ...bound }
  }

  /** Fetches the file, to a tmpfs, then hashes it. @throws IpprivError IPP_HOST_TOOL with curl's reason. */
  async download(host: Host, octets: number, from?: string): Promise<Download> {
    const file = join(runDirectory(this.#topology.id), `${host.name}.download`)
    try {
      const limit = 300 * this.#patience
      const argv = [
        ...this.#curl(host, `/file?octets=${octets}`, file, limit, from),
        '-w',
        '%{size_download} %{time_total}',
      ]
      const result = await this.#commands.run(argv, { timeoutMs: (limit + 10) * 1000 })
      const [size, seconds] = result.stdout.split(' ').map(Number)
      return { octets: size!, mbps: (8 * size!) / seconds! / 1e6, sha256: await digest(file) }
    } finally {
      await rm(file, { force: true })
    }
  }

  /** Begins a download and returns when it is under way. */
  async beginDownload(
    host: Host,
    octets: number,
    log: string,
  ): Promise<{ process: Background; received: number }> {
    const file = join(runDirectory(this.#topology.id), 'interrupted.download')
    const argv = this.#curl(host, `/file?octets=${octets}`, file, 60 * this.#patience)
    const process = this.#commands.start(argv, log)
    const size = async () => (await stat(file).catch(() => undefined))?.size ?? 0
    const begun = async () => {
      if (!process.running)
        throw new GaveUp(new Error(`the download ended: ${lastLine(await readFile(log, 'utf8'))}`))
      const octetsSoFar = await size()
      return octetsSoFar > 128 * 1024 ? octetsSoFar : undefined
    }
    try {
      const received = await until('a download to get under way', 30_000 * this.#patience, begun, 10)
      return { process, received }
    } catch (error) {
      await process.stop(0)
      throw error
    }
  }

  get #server(): string {
    return hostOf(this.#topology, 'server').address
  }

  #curl(host: Host, path: string, output: string, seconds: number, from?: string): string[] {
    const bound = from === undefined ? [] : ['--interface', from]
    const limits = [
      '--connect-timeout',
      String(10 * this.#patience),
      '--max-time',
      String(seconds * this.#patience),
    ]
    const argv = ['curl', '-sS', '--fail', '--no-buffer', '-o', output, ...limits, ...bound]
    return inNamespace(host.namespace, ...argv, `http://${this.#server}${path}`)
  }
}

export interface Download {
  readonly octets: number
  readonly mbps: number
  readonly sha256: string
}

/** @internal Exported for its test. Takes the summary of ping(8). */
export function parsePing(text: string): Pings {
  const counts = /(\d+) packets transmitted, (\d+) received/.exec(text)
  const times = /= ([\d.]+)\/([\d.]+)\/([\d.]+)\//.exec(text)
  return {
    sent: Number(counts?.[1] ?? 0),
    received: Number(counts?.[2] ?? 0),
    rttMs:
      times === null ? null : { min: Number(times[1]), average: Number(times[2]), max: Number(times[3]) },
  }
}

async function digest(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk as Buffer)
  return hash.digest('hex')
}
