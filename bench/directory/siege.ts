/** A directory in a namespace of its own, readers, and a crowd that wants to be listed. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Ip } from '#base/ip'
import { unwrap } from '#base/result'
import { nodeCrypto } from '#crypto/node'
import { encodeDescriptor } from '#directory/descriptor'
import type { Job, Probed, Served, Standing, Uploaded } from './load.ts'
import { LivingNetwork, newKeyPair, START } from './network.ts'

export interface SiegeResult {
  /** Uploads per second of a directory that takes them all, each on disk. */
  readonly uploadsPerSecond: number
  readonly calm: readonly number[]
  readonly besieged: readonly number[]
  readonly failed: number
  readonly statuses: Readonly<Record<string, number>>
  readonly seconds: number
  readonly before: number
  /** Of those who were listed before. */
  readonly stayed: number
  readonly fakes: number
  readonly resident: number
}

interface Sizes {
  readonly nodes: number
  readonly fakes: number
  readonly addresses: number
  /** Bits that the directory wants of newcomers, and the crowd does not do. */
  readonly work: number
}

export async function besiege(
  { nodes, fakes, addresses, work }: Sizes,
  folder: string,
  signal: AbortSignal,
): Promise<SiegeResult> {
  const scene = new Scene(`ippb${process.pid}`, signal)
  try {
    await scene.raise()
    const honest = new LivingNetwork(nodes, 1, 1).nodes.map(({ text }) => text)
    const file = async (name: string, texts: readonly string[]): Promise<string> => {
      await writeFile(join(folder, name), JSON.stringify(texts))
      return join(folder, name)
    }
    const nodesFile = await file('honest.json', honest)

    const open = await scene.serve({
      folder: join(folder, 'open'),
      nodes: await file('none.json', []),
      open: true,
      work: 0,
    })
    const url = (port: number, path: string) => `http://${SERVER}:${port}/v1/${path}`
    const sources = Array.from({ length: 32 }, (_, i) => `198.18.0.${i + 10}`)
    const uploaded = await scene.run<Uploaded>({
      role: 'upload',
      url: url(open.port, 'descriptor'),
      sources,
      file: nodesFile,
    })
    open.child.kill()
    if (uploaded.statuses[201] !== nodes) throw new Error(`uploads: ${JSON.stringify(uploaded.statuses)}`)

    const server = await scene.serve({ folder: join(folder, 'siege'), nodes: nodesFile, open: false, work })
    const before = await scene.standing(server.child)
    const crowd = Array.from({ length: addresses }, (_, i) => `203.0.${113 + (i >> 8)}.${i & 255}`)
    const strangers = await file(
      'fakes.json',
      Array.from({ length: fakes }, (_, i) => fake(i, crowd[i % crowd.length]! as Ip)),
    )
    const ask: Job = { role: 'probe', url: url(server.port, 'consensus'), sources, count: 600 }
    const calm = await scene.run<Probed>(ask)
    const attack = scene.run<Uploaded>({
      role: 'upload',
      url: url(server.port, 'descriptor'),
      sources: crowd,
      file: strangers,
    })
    const during: Probed[] = []
    let isOver = false
    void attack.then(
      () => {
        isOver = true
      },
      () => {
        isOver = true
      },
    )
    while (!isOver) during.push(await scene.run<Probed>({ ...ask, count: 300 }))
    const { statuses, seconds } = await attack
    // The debounce of an early document.
    await new Promise((wake) => setTimeout(wake, 3000))
    const after = await scene.standing(server.child)
    const listed = new Set(after.listed)
    const stayed = before.listed.filter((text) => listed.has(text)).length
    return {
      uploadsPerSecond: nodes / uploaded.seconds,
      calm: calm.ms,
      besieged: during.flatMap(({ ms }) => ms),
      failed: calm.failed + during.reduce((sum, { failed }) => sum + failed, 0),
      statuses,
      seconds,
      before: before.listed.length,
      stayed,
      fakes: after.listed.length - stayed,
      resident: after.resident,
    }
  } finally {
    await scene.fell()
  }
}

const SERVER = '198.18.0.1'

const fake = (i: number, address: Ip): string =>
  unwrap(
    encodeDescriptor(
      {
        ikeKey: FAKE_IKE_KEY,
        name: `fake-${i}`,
        address,
        port: 500,
        roles: ['entry', 'middle', 'exit'],
        exitPolicy: [],
        published: START,
        software: 'ippriv 0.1.0',
      },
      newKeyPair(),
      nodeCrypto,
    ),
  ).text

const FAKE_IKE_KEY = newKeyPair().publicKey

class Scene {
  readonly #namespace: string
  readonly #signal: AbortSignal
  readonly #children = new Set<ChildProcess>()

  constructor(namespace: string, signal: AbortSignal) {
    this.#namespace = namespace
    this.#signal = signal
  }

  async raise(): Promise<void> {
    await ip('netns', 'add', this.#namespace)
    await ip('-n', this.#namespace, 'link', 'set', 'lo', 'up')
    for (const prefix of ['198.18.0.0/24', '203.0.112.0/22'])
      await ip('-n', this.#namespace, 'route', 'add', 'local', prefix, 'dev', 'lo')
  }

  async fell(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    await ip('netns', 'del', this.#namespace)
  }

  async serve(job: Omit<Extract<Job, { role: 'serve' }>, 'role'>): Promise<Served & { child: ChildProcess }> {
    const child = this.#start({ role: 'serve', ...job })
    return { ...(await answerOf<Served>(child)), child }
  }

  async run<Done>(job: Job): Promise<Done> {
    return await answerOf<Done>(this.#start(job))
  }

  async standing(server: ChildProcess): Promise<Standing> {
    server.send('standing')
    return await answerOf<Standing>(server)
  }

  #start(job: Job): ChildProcess {
    const program = [process.execPath, '--disable-warning=ExperimentalWarning']
    const argv = ['netns', 'exec', this.#namespace, ...program, join(import.meta.dirname, 'load.ts')]
    const child = spawn('ip', [...argv, JSON.stringify(job)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      signal: this.#signal,
    })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }
}

function answerOf<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) =>
      reject(new Error(`a process of the measurement ended with ${code}`))
    child.once('exit', ended)
    child.once('error', reject)
    child.once('message', (message) => {
      child.off('exit', ended)
      child.off('error', reject)
      resolve(message as T)
    })
  })
}

async function ip(...args: readonly string[]): Promise<void> {
  await promisify(execFile)('ip', args)
}
