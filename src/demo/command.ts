import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { IpprivError } from '#base/errors'

/**
 * Programs the demo runs: `run` waits for the end, `start` leaves one in the background. Everything started
 * here is known to `killAll`, and nothing starts once the demo is being taken down.
 */
export class Commands {
  readonly #signal: AbortSignal
  readonly #background = new Set<Background>()

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  /**
   * Runs a program to its end. @throws IpprivError IPP_HOST_TOOL when it cannot start, exceeds `timeoutMs`
   * (it is killed), or ends with another code than 0 and `check` is not false.
   */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    const { check = true, timeoutMs = 60_000 } = options
    const began = performance.now()
    const child = this.#spawn(argv, ['pipe', 'pipe', 'pipe'], options.always)
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk))
    // A program that ends without reading its input is judged by its exit code, not by the broken pipe.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(options.input ?? '')
    let late = false
    const timer = setTimeout(() => {
      late = true
      killGroup(child, 'SIGKILL')
    }, timeoutMs)
    const abort = () => killGroup(child, 'SIGKILL')
    if (!options.always) this.#signal.addEventListener('abort', abort, { once: true })
    const code = await ended(child, 'close').finally(() => {
      clearTimeout(timer)
      this.#signal.removeEventListener('abort', abort)
    })
    const result = {
      code,
      stdout: Buffer.concat(stdout).toString(),
      stderr: Buffer.concat(stderr).toString(),
      ms: performance.now() - began,
    }
    if (late) throw new IpprivError('IPP_HOST_TOOL', `${argv.join(' ')}: no end within ${timeoutMs / 1000} s`)
    if (check && code !== 0)
      throw new IpprivError(
        'IPP_HOST_TOOL',
        `${argv.join(' ')}: ${oneLine(result.stderr) || oneLine(result.stdout) || `exit code ${code}`}`,
      )
    return result
  }

  /** Starts a program in its own process group (Ctrl-C reaches the demo only), its output going to `log`. */
  start(argv: readonly string[], log: string): Background {
    const file = openSync(log, 'a')
    try {
      const child = this.#spawn(argv, ['ignore', file, file])
      const background = new Background(argv, log, child)
      this.#background.add(background)
      void background.ended.then(() => this.#background.delete(background))
      return background
    } finally {
      closeSync(file)
    }
  }

  /** Ends everything still in the background: SIGTERM, and SIGKILL after `graceMs`. */
  async killAll(graceMs: number): Promise<void> {
    await Promise.all([...this.#background].map((background) => background.stop(graceMs)))
  }

  /** Lets this process end while the programs go on (--keep). */
  release(): void {
    for (const background of this.#background) background.release()
  }

  #spawn(argv: readonly string[], stdio: StdioOptions, always = false): ChildProcess {
    if (this.#signal.aborted && !always) throw new IpprivError('IPP_HOST_TOOL', `${argv[0]}: interrupted`)
    const [program, ...rest] = argv
    return spawn(program!, rest, {
      stdio,
      detached: true,
      env: { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin` },
    })
  }
}

export interface RunOptions {
  readonly input?: string
  readonly timeoutMs?: number
  /** False: an exit code other than 0 is a result, not an error. */
  readonly check?: boolean
  /** True for the taking-down itself, which must not be cut short by the interruption that caused it. */
  readonly always?: boolean
}

export interface CommandResult {
  /** Null when a signal ended the program. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
}

/** A program left running. */
export class Background {
  readonly argv: readonly string[]
  readonly log: string
  /** Resolves with the exit code, null after a signal, when the program has ended. Never rejects. */
  readonly ended: Promise<number | null>
  readonly #child: ChildProcess

  constructor(argv: readonly string[], log: string, child: ChildProcess) {
    this.argv = argv
    this.log = log
    this.#child = child
    this.ended = ended(child, 'exit').catch(() => null)
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  kill(signal: NodeJS.Signals): void {
    if (this.running) killGroup(this.#child, signal)
  }

  /** SIGTERM, SIGKILL after `graceMs`. Returns the exit code (null: a signal ended it). */
  async stop(graceMs: number): Promise<number | null> {
    this.kill('SIGTERM')
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs)
    return await this.ended.finally(() => clearTimeout(timer))
  }

  release(): void {
    this.#child.unref()
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Asks `probe` until it yields something other than undefined. @throws IpprivError IPP_HOST_TOOL with `what`
 * and what `probe` last threw, when `timeoutMs` have passed.
 */
export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => T | undefined | Promise<T | undefined>,
  intervalMs = 50,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  let last = ''
  for (;;) {
    try {
      const value = await probe()
      if (value !== undefined) return value
      last = ''
    } catch (error) {
      if (error instanceof GaveUp) throw error.reason
      last = error instanceof Error ? `: ${error.message}` : ''
    }
    if (performance.now() > deadline)
      throw new IpprivError('IPP_HOST_TOOL', `${what}: not within ${Math.round(timeoutMs / 1000)} s${last}`)
    await sleep(intervalMs)
  }
}

/** Thrown inside a probe of `until` when waiting longer is pointless. */
export class GaveUp extends Error {
  readonly reason: Error
  constructor(reason: Error) {
    super(reason.message)
    this.reason = reason
  }
}

/** What a program had to say, as one line of at most 300 characters. */
const oneLine = (text: string): string =>
  text
    .trim()
    .split(/\s*\n\s*/)
    .join('; ')
    .slice(0, 300)

export const lastLine = (text: string): string => text.trim().split('\n').at(-1)?.trim() ?? ''

function ended(child: ChildProcess, event: 'exit' | 'close'): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.once('error', (error) =>
      reject(new IpprivError('IPP_HOST_TOOL', `${child.spawnfile}: ${error.message}`)),
    )
    child.once(event, (code: number | null) => resolve(code))
  })
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, signal)
  } catch (error) {
    // ESRCH: it ended by itself in between, which is what was wanted.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
