/** Reads and turns knobs: files of the kernel, and where there is no file ethtool(8) and netlink. */
import { existsSync } from 'node:fs'
import { access, constants, readdir, readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { isErrno, Netlink } from '#linux/netlink'
import { runTool } from '#linux/tool'
import { readHashThreshold, setHashThreshold } from '#linux/xfrm-threshold'
import type { Device, Knob, Machine } from '#tune/settings'

/** Without `only`: the devices that some route leads through, but none of ours. */
export async function machine(only?: readonly string[]): Promise<Machine> {
  const names = only ?? (await routedDevices()).filter((name) => name !== 'lo' && !name.startsWith('ippriv'))
  return { processors: availableParallelism(), devices: await Promise.all(names.map(device)) }
}

/** Without it offloads and coalescing can be neither seen nor set. */
export const hasEthtool = async (): Promise<boolean> =>
  (await runTool('ethtool', ['--version']).catch(() => '')) !== ''

/** Why the kernel's policies can be neither seen nor set from here; undefined when they can. */
export async function xfrmProblem(): Promise<string | undefined> {
  try {
    await asked(readHashThreshold)
    return undefined
  } catch (error) {
    if (isErrno(error, NO_XFRM)) return 'this kernel has no XFRM netlink (CONFIG_XFRM_USER)'
    if (isErrno(error, ...DENIED)) return 'the kernel shows its policies only to root'
    throw error
  }
}

/** Undefined when this machine has no such knob. @throws IpprivError IPP_HOST_KERNEL */
export async function readKnob(knob: Knob): Promise<string | undefined> {
  switch (knob.kind) {
    case 'feature':
      return await ethtool(['-k', knob.device], knob.feature)
    case 'coalescing':
      return await ethtool(['-c', knob.device], 'Adaptive RX')
    case 'xfrm':
      return await readThreshold()
    default:
      return await readText(fileOf(knob))
  }
}

/**
 * Some sysctls belong to the whole machine: in another network namespace than the first they can only be read, even
 * by root. Everybody else is told so when they try.
 */
export async function isTurnable(knob: Knob): Promise<boolean> {
  if (knob.kind !== 'sysctl' || process.getuid?.() !== 0) return true
  return await access(fileOf(knob), constants.W_OK).then(
    () => true,
    () => false,
  )
}

/** Whether there is what the knob belongs to, also where the knob cannot be read. */
export async function isHere(knob: Knob): Promise<boolean> {
  if (knob.kind === 'xfrm') return true
  const place = knob.kind === 'sysctl' ? fileOf(knob) : join('/sys/class/net', knob.device)
  return await access(place).then(
    () => true,
    () => false,
  )
}

/** @throws IpprivError IPP_HOST_PRIVILEGE, IPP_HOST_KERNEL, IPP_HOST_NETLINK, IPP_HOST_TOOL */
export async function turnKnob(knob: Knob, value: string): Promise<void> {
  if (knob.kind === 'feature')
    return void (await runTool('ethtool', ['-K', knob.device, knob.feature, value]))
  if (knob.kind === 'coalescing')
    return void (await runTool('ethtool', ['-C', knob.device, knob.parameter, value]))
  if (knob.kind === 'xfrm') {
    const [local = 0, remote = 0] = value.split(' ').map(Number)
    return await asked((xfrm) => setHashThreshold(xfrm, { local, remote }))
  }
  const file = fileOf(knob)
  try {
    await writeFile(file, value)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    const denied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS'
    const why = `cannot write ${value} to ${file}: ${code}`
    throw new IpprivError(denied ? 'IPP_HOST_PRIVILEGE' : 'IPP_HOST_KERNEL', why, { cause: error })
  }
}

/** The first column of /proc/net/route, below its heading. */
async function routedDevices(): Promise<string[]> {
  const lines = (await readFile('/proc/net/route', 'utf8')).trim().split('\n').slice(1)
  return [...new Set(lines.map((line) => line.split('\t')[0]!.trim()))]
}

async function device(name: string): Promise<Device> {
  // A name from the command line becomes a path.
  if (!/^[A-Za-z0-9_.:@-]{1,15}$/.test(name) || name.startsWith('.'))
    throw new IpprivError('IPP_CONFIG_INVALID', `${JSON.stringify(name.slice(0, 20))} is no device name`)
  const queues = await readdir(`/sys/class/net/${name}/queues`).catch(() => undefined)
  if (queues === undefined) throw new IpprivError('IPP_CONFIG_INVALID', `there is no device ${name}`)
  queues.sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
  return {
    name,
    isHardware: existsSync(`/sys/class/net/${name}/device`),
    receiveQueues: queues.filter((queue) => queue.startsWith('rx-')),
    transmitQueues: queues.filter((queue) => queue.startsWith('tx-')),
  }
}

function fileOf(knob: Exclude<Knob, { kind: 'feature' | 'coalescing' | 'xfrm' }>): string {
  switch (knob.kind) {
    case 'sysctl':
      return join('/proc/sys', knob.path)
    case 'queue':
      return join('/sys/class/net', knob.device, 'queues', knob.queue, knob.file)
    case 'mtu':
      return join('/sys/class/net', knob.device, 'mtu')
  }
}

const NO_XFRM = 'EPROTONOSUPPORT'
const DENIED = ['EPERM', 'EACCES'] as const

async function readThreshold(): Promise<string | undefined> {
  try {
    const { local, remote } = await asked(readHashThreshold)
    return `${local} ${remote}`
  } catch (error) {
    if (isErrno(error, NO_XFRM, ...DENIED)) return undefined
    throw error
  }
}

async function asked<T>(question: (xfrm: Netlink) => Promise<T>): Promise<T> {
  const xfrm = new Netlink('xfrm')
  try {
    return await question(xfrm)
  } finally {
    xfrm.close()
  }
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim().split(/\s+/).join(' ')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    // Queues of some devices have the file, and refuse to be asked.
    if (code === 'ENOENT' || code === 'EOPNOTSUPP' || code === 'ENODEV' || code === 'EINVAL') return undefined
    throw new IpprivError('IPP_HOST_KERNEL', `cannot read ${file}: ${code}`, { cause: error })
  }
}

/** The value of one line of `NAME: VALUE ...`; undefined when it is missing, cannot be changed, or there is no ethtool. */
async function ethtool(args: readonly string[], name: string): Promise<string | undefined> {
  const text = await runTool('ethtool', args).catch(() => '')
  const line = text.split('\n').find((candidate) => candidate.trim().startsWith(`${name}:`))
  const value = line?.split(':')[1]?.trim().split(/\s+/)
  return value === undefined || value.includes('[fixed]') || value[0] === 'n/a' ? undefined : value[0]
}
