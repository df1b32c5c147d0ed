import { access, constants, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { delimiter, join, resolve } from 'node:path'
import { IpprivError } from '#base/errors'
import { type EspCipher, isEspCipher } from '#crypto/suites'
import { type CouncilStory, formatCouncil, tellOfAuthorities } from '#demo/authorities'
import { Commands } from '#demo/command'
import { PROGRAM, socketOf } from '#demo/daemons'
import { formatReport, type Report } from '#demo/report'
import { Scene } from '#demo/scene'
import { tell } from '#demo/story'
import {
  fell,
  hostOf,
  keptMark,
  keptRuns,
  MOST_AUTHORITIES,
  MOST_NODES,
  planTopology,
  staleRuns,
  type Topology,
} from '#demo/topology'
import type { PlaneKind } from '#telescope/plane'

/** `ippriv demo`: options as the command line gives them. */
export interface DemoOptions {
  readonly json: boolean
  readonly plane: 'auto' | PlaneKind
  readonly keep: boolean
  readonly hops: number
  readonly cipher: string
  readonly out: string
  /** Percent of packets lost between any two hosts. */
  readonly loss: number
  /** MiB of the large download; absent: 64, or 4 with loss. */
  readonly size?: number
  readonly authorities: number
  readonly nodes: number
}

/** Runs the demo. The exit code: 0 when everything held. @throws IpprivError when it cannot run or be finished. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const began = performance.now()
  const say = (text: string) =>
    process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}\n`)
  const cipher = acceptable(options)
  checkPrivileges()
  const userModeLinux = await isUserModeLinux()
  const plane = await choosePlane(options.plane, cipher)
  const out = resolve(options.out)
  if (plane === 'user-mode-linux') {
    if (userModeLinux) throw new IpprivError('IPP_PLANE_UNAVAILABLE', 'xfrm: this User-Mode Linux has no ESP')
    return await inUserModeLinux(options, out, say)
  }
  await checkTools()
  await clearOut(out)
  const mebibytes = options.size ?? (options.loss > 0 ? 4 : 64)
  const { keep, hops, authorities, nodes, loss: lossPercent } = options
  return await interruptible(async (signal) => {
    // After an interruption the steps that fail because of it are of no interest.
    const tellProgress = (text: string) => void (signal.aborted || say(text))
    const settings = {
      plane,
      hops,
      cipher,
      out,
      keep,
      lossPercent,
      mebibytes,
      userModeLinux,
      say: tellProgress,
    }
    const commands = new Commands(signal)
    for (const id of await staleRuns()) {
      say(`removing what an earlier run left behind (${id})`)
      await fell(commands, id)
    }
    const topology = planTopology(`ippd${process.pid}`, { nodes, authorities })
    const scene = new Scene(commands, topology, settings)
    let kept = false
    try {
      if (authorities > 1) {
        const told = await withAbort(signal, tellOfAuthorities(scene))
        process.stdout.write(options.json ? `${JSON.stringify(told)}\n` : formatCouncil(told))
        return told.ok ? 0 : 1
      }
      const report = await withAbort(signal, tell(scene))
      if (keep) {
        await writeFile(keptMark(topology.id), `${out}\n`)
        kept = true
        commands.release()
      }
      print(report, options.json)
      if (kept) process.stderr.write(lookAround(topology))
      return report.ok ? 0 : 1
    } finally {
      if (!kept) {
        say('taking everything down')
        await commands.killAll(5_000)
        await fell(commands, topology.id)
      }
    }
  })
}

/** `ippriv demo --down`: takes down what --keep left up. */
export async function takeDown(): Promise<number> {
  checkPrivileges()
  const commands = new Commands(new AbortController().signal)
  const runs = [...(await keptRuns()), ...(await staleRuns())]
  for (const id of runs) {
    await fell(commands, id)
    process.stderr.write(`removed ${id}\n`)
  }
  if (runs.length === 0) process.stderr.write('nothing to take down\n')
  return 0
}

function acceptable(options: DemoOptions): EspCipher {
  const { cipher, hops, loss, size, authorities, nodes } = options
  const refuse = (where: string) => {
    throw new IpprivError('IPP_CONFIG_INVALID', where)
  }
  if (!isEspCipher(cipher))
    refuse(`--cipher ${cipher}: expected aes-256-gcm-16, aes-128-gcm-16 or chacha20-poly1305`)
  if (!Number.isInteger(hops) || hops < 1 || hops > 5) refuse('--hops: expected 1 to 5')
  if (!(loss >= 0 && loss <= 20)) refuse('--loss: expected a percentage from 0 to 20')
  if (size !== undefined && !(Number.isInteger(size) && size >= 1 && size <= 1024))
    refuse('--size: expected 1 to 1024 (MiB)')
  const whole = (n: number, least: number, most: number) => Number.isInteger(n) && n >= least && n <= most
  if (authorities !== 1 && !whole(authorities, 3, MOST_AUTHORITIES))
    refuse(`--authorities: expected 1, or 3 to ${MOST_AUTHORITIES}`)
  if (!whole(nodes, 5, MOST_NODES)) refuse(`--nodes: expected 5 to ${MOST_NODES}`)
  if (authorities > 1 && options.keep) refuse('--keep: not with several authorities')
  return cipher as EspCipher
}

function checkPrivileges(): void {
  if (process.platform !== 'linux') throw new IpprivError('IPP_HOST_KERNEL', 'the demo needs Linux')
  if (process.getuid?.() !== 0)
    throw new IpprivError('IPP_HOST_PRIVILEGE', 'the demo creates network namespaces; run it as root')
}

async function checkTools(): Promise<void> {
  const missing: string[] = []
  for (const tool of ['ip', 'tcpdump', 'curl', 'ping']) if (!(await isInstalled(tool))) missing.push(tool)
  if (missing.length > 0)
    throw new IpprivError(
      'IPP_HOST_TOOL',
      `not found: ${missing.join(', ')} (\`npm run demo\` installs them)`,
    )
}

async function isInstalled(tool: string): Promise<boolean> {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/bin', '/bin']
  const found = places.map((place) => access(join(place, tool), constants.X_OK).then(() => true))
  return (await Promise.allSettled(found)).some((result) => result.status === 'fulfilled')
}

/** The identical demo, by the same command, in a kernel that has ESP. Its files are on this host's disk. */
async function inUserModeLinux(
  options: DemoOptions,
  out: string,
  say: (text: string) => void,
): Promise<number> {
  if (options.keep)
    throw new IpprivError(
      'IPP_CONFIG_INVALID',
      '--keep: a User-Mode Linux ends with the demo; use --plane userspace',
    )
  const { runInUml } = await import('#linux/uml')
  await mkdir(out, { recursive: true })
  say('this kernel has no ESP: booting a User-Mode Linux, which has; it is slow')
  const size = options.size === undefined ? [] : ['--size', String(options.size)]
  const counts = ['--authorities', String(options.authorities), '--nodes', String(options.nodes)]
  const numbers = ['--hops', String(options.hops), '--loss', String(options.loss), ...counts, ...size]
  const result = await runInUml({
    command: [
      PROGRAM,
      'demo',
      '--plane',
      'xfrm',
      '--json',
      '--cipher',
      options.cipher,
      '--out',
      out,
      ...numbers,
    ],
    writable: [out],
    timeoutMs: 20 * 60_000,
    onStderr: (chunk) => process.stderr.write(chunk),
  })
  // Without a report it has said why on stderr.
  if (result.stdout.trim() === '') return result.exitCode === 0 ? 1 : result.exitCode
  if (options.json) process.stdout.write(result.stdout)
  else if (options.authorities > 1)
    process.stdout.write(formatCouncil(JSON.parse(result.stdout) as CouncilStory))
  else print(JSON.parse(result.stdout) as Report, false)
  return result.exitCode
}

async function isUserModeLinux(): Promise<boolean> {
  return /User Mode Linux/.test(await readFile('/proc/cpuinfo', 'utf8'))
}

/** `auto` asks the kernel; `xfrm` where it has no ESP means a kernel of our own. */
async function choosePlane(
  wanted: DemoOptions['plane'],
  cipher: EspCipher,
): Promise<PlaneKind | 'user-mode-linux'> {
  if (wanted === 'userspace') return 'userspace'
  const { probeKernelEsp } = await import('#linux/xfrm-probe')
  const hasEsp = (await probeKernelEsp()).ciphers.includes(cipher)
  if (wanted === 'auto') return hasEsp ? 'xfrm' : 'userspace'
  return hasEsp ? 'xfrm' : 'user-mode-linux'
}

/** Empties the directory if an earlier demo made it; never anything else. */
async function clearOut(out: string): Promise<void> {
  await mkdir(out, { recursive: true })
  const names = await readdir(out)
  if (names.length > 0 && !names.includes(OUT_MARK))
    throw new IpprivError('IPP_CONFIG_INVALID', `--out ${out}: it is not empty and no earlier demo made it`)
  await Promise.all(names.map((name) => rm(join(out, name), { recursive: true })))
  await writeFile(join(out, OUT_MARK), '')
}

const OUT_MARK = '.ippriv-demo'

/**
 * Runs `body` so that SIGINT and SIGTERM end it through its `finally`. A second signal changes nothing: the
 * taking-down is what both want.
 */
async function interruptible(body: (signal: AbortSignal) => Promise<number>): Promise<number> {
  const controller = new AbortController()
  const interrupt = (name: NodeJS.Signals) => controller.abort(name)
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)
  process.on('SIGHUP', interrupt)
  try {
    return await body(controller.signal)
  } catch (error) {
    if (!controller.signal.aborted) throw error
    process.stderr.write(`interrupted by ${controller.signal.reason}; everything was taken down\n`)
    // Steps of the story may still wait for something; nothing is left for them to do.
    return process.exit(controller.signal.reason === 'SIGINT' ? 130 : 143)
  } finally {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.removeListener(name, interrupt)
  }
}

function withAbort<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new Error('interrupted')), { once: true })
    work.then(resolve, reject)
  })
}

function print(report: Report, json: boolean): void {
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : formatReport(report))
}

function lookAround(topology: Topology): string {
  const client = hostOf(topology, 'client')
  const server = hostOf(topology, 'server')
  const node = hostOf(topology, 'alder')
  return `Left up. Look around:
  ip netns exec ${client.namespace} curl http://${server.address}/whoami
  ip netns exec ${client.namespace} ping ${server.address}
  bin/ippriv status --socket ${socketOf(topology, 'client')}
  bin/ippriv circuits --socket ${socketOf(topology, 'client')}
  bin/ippriv status --socket ${socketOf(topology, 'alder')}
  ip netns exec ${topology.router} tcpdump -nni ${client.cable}
  ip netns exec ${node.namespace} tcpdump -nni any
Take it down:
  bin/ippriv demo --down
`
}
