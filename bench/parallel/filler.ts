import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'

/** `source.ts` as its owner sees it. A relay that begins anew needs sequence numbers that do: `forget`. */
export class Source {
  readonly #prefix: readonly string[]
  readonly #cipher: string
  readonly #length: number
  #child: ChildProcess | undefined
  #lines: Interface | undefined

  constructor(prefix: readonly string[], cipher: string, length: number) {
    this.#prefix = prefix
    this.#cipher = cipher
    this.#length = length
  }

  get pid(): number {
    return this.#child!.pid!
  }

  /** Resolves when all are in the sockets of whom they are for. */
  async send(packets: number): Promise<void> {
    this.#child ??= this.#start()
    const answer = once(this.#lines!, 'line', { signal: AbortSignal.timeout(60_000) })
    this.#child.stdin!.write(`${packets}\n`)
    await answer
  }

  forget(): void {
    this.#child?.kill('SIGKILL')
    this.#child = undefined
  }

  async close(): Promise<void> {
    if (this.#child === undefined) return
    const ended = once(this.#child, 'exit')
    this.forget()
    await ended
  }

  #start(): ChildProcess {
    const argv = [...this.#prefix, process.execPath, join(import.meta.dirname, 'source.ts')]
    const child = spawn(argv[0]!, [...argv.slice(1), this.#cipher, String(this.#length)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#lines = createInterface({ input: child.stdout! })
    return child
  }
}
