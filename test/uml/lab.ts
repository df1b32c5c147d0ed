/** Namespaces, planes and captures for the guest tests. */
import type { ChildProcess } from 'node:child_process'
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { parse, stringify } from 'yaml'
import { toHex } from '#base/bytes'
import type { Ip } from '#base/ip'
import { configOf } from '#demo/daemons'
import type { Inventory, PlaneOperation, SaCounters, SaKey } from '#telescope/plane'

const run = promisify(execFile)

/** Changes the file a daemon of the demo is configured by. */
export async function amendConfig(out: string, name: string, changes: object): Promise<void> {
  const file = configOf(out, name)
  await writeFile(file, stringify({ ...parse(await readFile(file, 'utf8')), ...changes }))
}

export const ip = (...args: readonly string[]): string =>
  execFileSync('ip', args, { encoding: 'utf8' }).trim()

/** How many of `count` pings were answered. */
export async function ping(
  namespace: string,
  source: string,
  destination: string,
  count = 3,
): Promise<number> {
  const args = [
    'netns',
    'exec',
    namespace,
    'ping',
    '-n',
    '-q',
    `-c${count}`,
    '-i0.05',
    '-W1',
    '-M',
    'do',
    '-I',
    source,
  ]
  try {
    const { stdout } = await run('ip', [...args, destination])
    return Number(/(\d+) received/.exec(stdout)?.[1])
  } catch (error) {
    // ping ends with 1 when nothing came back.
    return Number(/(\d+) received/.exec((error as { stdout?: string }).stdout ?? '')?.[1] ?? 0)
  }
}

/**
 * Runs `work` and gives the packets that left by the device meanwhile (on `any`: crossed one), as tcpdump shows them verbosely. (Of what
 * comes in, the kernel shows every layer it took off as one more packet.)
 */
export async function captured(
  namespace: string,
  device: string,
  work: () => Promise<unknown>,
  filter = 'ip',
  direction: 'in' | 'out' = 'out',
): Promise<string> {
  const args = [
    'netns',
    'exec',
    namespace,
    'tcpdump',
    '--immediate-mode',
    '-Z',
    'root',
    ...(device === 'any' ? [] : [`-Q${direction}`]),
    '-lnnvi',
    device,
    filter,
  ]
  const child = spawn('ip', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  let log = ''
  child.stdout.on('data', (chunk) => (text += String(chunk)))
  child.stderr.on('data', (chunk) => (log += String(chunk)))
  try {
    for (let i = 0; i < 200 && !log.includes('listening'); i++) await sleep(50)
    await work()
    await sleep(300)
  } finally {
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    await exited
  }
  return text
}

interface Answer {
  readonly result?: unknown
  readonly error?: { readonly code: string; readonly line: string }
  readonly failure?: string
  readonly heard?: SaKey
}

/** `XfrmPlane` in a process of its own, in a namespace. */
export class PlaneProcess {
  /** What the plane told its failure listener. */
  readonly failures: string[] = []
  /** SPIs of SAs that announced packets. */
  readonly heard: number[] = []
  readonly #child: ChildProcess
  readonly #waiting: ((answer: Answer) => void)[] = []
  #log = ''

  constructor(namespace: string, ...options: readonly string[]) {
    const program = join(import.meta.dirname, 'plane-process.ts')
    this.#child = spawn('ip', ['netns', 'exec', namespace, process.execPath, program, ...options])
    this.#child.stderr!.on('data', (chunk) => (this.#log += String(chunk)))
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const answer = JSON.parse(line) as Answer
      if (answer.failure !== undefined) this.failures.push(answer.failure)
      else if (answer.heard !== undefined) this.heard.push(answer.heard.spi)
      else this.#waiting.shift()?.(answer)
    })
    this.#child.on('exit', () => {
      for (const waiting of this.#waiting) waiting({ error: { code: 'exit', line: this.#log } })
    })
  }

  open = (): Promise<unknown> => this.#call({ method: 'open' })
  close = (): Promise<unknown> => this.#call({ method: 'close' })
  apply = (...operations: readonly PlaneOperation[]): Promise<unknown> =>
    this.#call({ method: 'apply', operations })
  listen = (address: Ip): Promise<unknown> => this.#call({ method: 'listen', address })
  counters = async (): Promise<readonly SaCounters[]> =>
    (await this.#call({ method: 'counters' })) as SaCounters[]
  inventory = async (): Promise<Inventory> => (await this.#call({ method: 'inventory' })) as Inventory
  drops = async (): Promise<Record<string, number>> =>
    (await this.#call({ method: 'drops' })) as Record<string, number>

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** SIGKILL: no handler runs. */
  async kill(): Promise<void> {
    if (!this.alive) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }

  /** @throws Error with the code of the plane's error */
  async #call(call: object): Promise<unknown> {
    const text = JSON.stringify(call, (key, value) => (key === 'key' ? toHex(value as Uint8Array) : value))
    const answer = await new Promise<Answer>((done) => {
      this.#waiting.push(done)
      this.#child.stdin!.write(`${text}\n`)
    })
    if (answer.error) throw Object.assign(new Error(answer.error.line), { code: answer.error.code })
    return answer.result
  }
}
