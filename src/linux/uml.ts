/**
 * Runs a command inside User-Mode Linux: a stock kernel with real XFRM and ESP, as a process of this host, on
 * this host's root file system. For tests and the demo, where the kernel of the host cannot do ESP.
 *
 * The guest sees the host's files, and may write only the directories named. Its network is its own and
 * reaches nothing of the host.
 */

import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  access,
  constants,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  statfs,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { IpprivError } from '#base/errors'

export interface UmlRun {
  /** Program and arguments; the program is looked up in the guest's PATH. */
  readonly command: readonly string[]
  /** Default: the current directory. */
  readonly cwd?: string
  /** Added to a small environment of the guest's own; nothing else of this process's is handed on. */
  readonly env?: Readonly<Record<string, string>>
  /** Existing directories the guest may write. */
  readonly writable?: readonly string[]
  /** For boot and command together. */
  readonly timeoutMs: number
  /** Output as it comes; it is in the result as well. */
  readonly onStdout?: (chunk: Uint8Array) => void
  readonly onStderr?: (chunk: Uint8Array) => void
}

export interface UmlResult {
  /** As a shell gives it: 128 + n after signal n. */
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  /** What the kernel and the guest's init said. */
  readonly kernelLog: string
}

/** Holds five daemons, so that the guest never reads programs again while packets wait. */
const MEMORY_MIB = 2048
const MODULES = '/usr/lib/uml/modules'
const INIT = resolve(import.meta.dirname, '../../deploy/uml/init.sh')
/** Node starts in half the time with compiled code at hand. Not in /tmp: it is code that root runs. */
const COMPILE_CACHE = resolve(import.meta.dirname, '../../node_modules/.cache/compile')
const SEARCH = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/sbin', '/usr/bin')

/**
 * Standard input is the lifeline: when this process closes it, or dies however, the whole machine is killed.
 * UML makes a session of its own and leaves helper processes behind when only its first one is killed.
 */
const SUPERVISOR = `
exec 5<&0
"$@" </dev/null 5<&- & uml=$!
exec 3<&- 4<&- >/dev/null 2>&1
{ cat; kill -KILL -$uml $uml; } <&5 & lifeline=$!
wait $uml
kill -KILL -$uml
kill $lifeline
`

/** Why `runInUml` cannot work on this host; undefined when it can. */
export async function umlProblem(): Promise<string | undefined> {
  if (!(await findProgram('linux.uml'))) return 'linux.uml is not installed (Debian package user-mode-linux)'
  if (!(await findProgram('modprobe'))) return 'modprobe is not installed (Debian package kmod)'
  const kernels = await readdir(MODULES).catch(() => [])
  if (kernels.length === 0) return `there are no modules in ${MODULES} (Debian package user-mode-linux)`
  return undefined
}

/**
 * Boots, runs the command, and ends the machine.
 * @throws IpprivError IPP_HOST_TOOL when it cannot boot, dies, or exceeds its time
 */
export async function runInUml(run: UmlRun): Promise<UmlResult> {
  const problem = await umlProblem()
  if (problem !== undefined) throw new IpprivError('IPP_HOST_TOOL', problem)
  const job = await mkdtemp(join(tmpdir(), 'ippriv-uml-'))
  try {
    await mkdir(COMPILE_CACHE, { recursive: true })
    await copyFile(INIT, join(job, 'init'))
    const writable = [COMPILE_CACHE, ...(run.writable ?? []).map((path) => resolve(path))]
    await writeFile(join(job, 'writable'), writable.map((path) => `${path}\n`).join(''))
    await writeFile(join(job, 'command'), script(run))
    return await boot(run, job)
  } finally {
    await rm(job, { recursive: true, force: true })
  }
}

async function boot(run: UmlRun, job: string): Promise<UmlResult> {
  const nonce = randomUUID()
  const machine = ['taskset', '--cpu-list', await oneProcessor(), 'linux.uml', ...kernelArguments(job, nonce)]
  const child = spawn('sh', ['-c', SUPERVISOR, 'sh', ...machine], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    // A session of its own: Ctrl-C is for the runner, and the machine goes with it.
    detached: true,
    env: { PATH: SEARCH.join(':'), TMPDIR: await memoryDirectory(), HOME: job },
  })
  const stdout = new Output(child.stdio[3] as Readable, nonce, run.onStdout)
  const stderr = new Output(child.stdio[4] as Readable, nonce, run.onStderr)
  const log: string[] = []
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => log.push(String(chunk)))
  const ended = new Promise<void>((done) => child.once('close', () => done()))
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<'timeout'>((late) => {
    timer = setTimeout(late, run.timeoutMs, 'timeout')
  })
  const finished = Promise.all([stdout.end, stderr.end])
  try {
    const first = await Promise.race([finished, ended.then(() => 'died' as const), timeout])
    const kernelLog = (): string => log.join('').replaceAll('\r', '')
    if (typeof first === 'string') {
      const what = first === 'died' ? 'User-Mode Linux died' : `no end after ${run.timeoutMs} ms`
      throw new IpprivError('IPP_HOST_TOOL', `${what}: ${`${stderr.text}\n${kernelLog()}`.slice(-2000)}`)
    }
    return { exitCode: first[0], stdout: stdout.text, stderr: stderr.text, kernelLog: kernelLog() }
  } finally {
    clearTimeout(timer)
    await end(child, ended)
  }
}

/**
 * The last we may use. At every system call of the guest its kernel and its program hand over to each other: on two
 * processors one wakes the other each time, which takes twice as long.
 */
async function oneProcessor(): Promise<string> {
  const status = await readFile('/proc/self/status', 'utf8')
  return /^Cpus_allowed_list:.*?(\d+)$/m.exec(status)![1]!
}

function kernelArguments(job: string, nonce: string): readonly string[] {
  return [
    'rootfstype=hostfs',
    'rootflags=/',
    'rw',
    `mem=${MEMORY_MIB}M`,
    'con=null',
    'ssl=null',
    'con0=null,fd:1',
    'con1=fd:3,fd:3',
    'con2=fd:4,fd:4',
    'quiet',
    `uml_dir=${job}/`,
    `IPP_UML_JOB=${job}`,
    `IPP_UML_NONCE=${nonce}`,
    'init=/bin/sh',
    '--',
    join(job, 'init'),
  ]
}

function script({ command, cwd, env }: UmlRun): string {
  const variables = {
    LANG: 'C.UTF-8',
    TERM: 'dumb',
    NO_COLOR: '1',
    HOME: '/run/home',
    TMPDIR: '/run/tmp',
    NODE_COMPILE_CACHE: COMPILE_CACHE,
    ...env,
  }
  const exports = Object.entries(variables).map(([name, value]) => `export ${name}=${quote(value)}`)
  return [
    `cd ${quote(resolve(cwd ?? '.'))} || exit 126`,
    ...exports,
    `exec ${command.map(quote).join(' ')}`,
    '',
  ].join('\n')
}

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** One stream of the guest, up to the line that ends it. */
class Output {
  /** The exit code. */
  readonly end: Promise<number>
  readonly #passed: Buffer[] = []

  constructor(stream: Readable, nonce: string, listener: ((chunk: Uint8Array) => void) | undefined) {
    const trailer = Buffer.from(`\0${nonce} `)
    // What may be the beginning of the trailer, and waits for the rest of it.
    let held = Buffer.alloc(0)
    const pass = (bytes: Buffer): void => {
      if (bytes.length === 0) return
      this.#passed.push(bytes)
      listener?.(bytes)
    }
    this.end = new Promise((done) => {
      stream.on('data', (chunk: Buffer) => {
        const bytes = Buffer.concat([held, chunk])
        const at = bytes.indexOf(trailer)
        const nul = bytes.indexOf(0, Math.max(0, bytes.length - trailer.length))
        const to = at >= 0 ? at : nul >= 0 ? nul : bytes.length
        pass(bytes.subarray(0, to))
        held = bytes.subarray(to)
        if (at >= 0 && held.includes('\n')) done(Number(held.subarray(trailer.length).toString()))
      })
    })
  }

  get text(): string {
    return Buffer.concat(this.#passed).toString()
  }
}

/** Where the file that is the guest's memory has room: faster in memory, but containers have a tiny /dev/shm. */
async function memoryDirectory(): Promise<string> {
  const { bavail, bsize } = await statfs('/dev/shm').catch(() => ({ bavail: 0, bsize: 0 }))
  return bavail * bsize > (MEMORY_MIB + 64) * 2 ** 20 ? '/dev/shm' : tmpdir()
}

async function end(child: ChildProcess, ended: Promise<void>): Promise<void> {
  child.stdin?.destroy()
  await ended
}

async function findProgram(name: string): Promise<string | undefined> {
  for (const directory of SEARCH) {
    const path = join(directory, name)
    try {
      await access(path, constants.X_OK)
      return path
    } catch (error) {
      if (!(error instanceof Error)) throw error
    }
  }
  return undefined
}
