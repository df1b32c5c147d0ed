/**
 * Kernel settings of the network namespace a role needs, put back on close. The previous values are kept in a
 * note in the state directory, so that after a kill the next start still knows them.
 */

import { mkdir, readdir, readFile, readlink, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { IpprivError } from '#base/errors'

/** Values by path below /proc/sys, `net/ipv4/ip_forward`. A `*` stands for every network device there is. */
export type Sysctls = Readonly<Record<string, string>>

export const FORWARDING = 'net/ipv4/ip_forward'

/**
 * A node forwards, and must not tell a neighbour a shorter way. Reverse-path filtering on the plane's device
 * is loose: what comes out of it has the sources of other nodes' clients.
 */
export function nodeSysctls(device: string): Sysctls {
  return {
    [FORWARDING]: '1',
    'net/ipv4/conf/*/send_redirects': '0',
    ...overlayDevice(device),
    ...privateAddressesHidden,
  }
}

export function clientSysctls(device: string): Sysctls {
  return { ...overlayDevice(device), ...privateAddressesHidden }
}

/** The stricter of `all` and the device counts, and loose (2) beats strict (1). */
const overlayDevice = (device: string): Sysctls => ({ [`net/ipv4/conf/${device}/rp_filter`]: '2' })

/**
 * By default Linux answers ARP for an address of any device on every device, and so would tell a local
 * network that asks which private addresses this host was lent; and it may use them as ARP sources.
 */
const privateAddressesHidden: Sysctls = {
  'net/ipv4/conf/all/arp_ignore': '1',
  'net/ipv4/conf/all/arp_announce': '2',
}

const ROOT = '/proc/sys'
const NOTE = 'sysctl.json'

interface Note {
  /** Settings do not outlive the boot or the network namespace. */
  readonly boot: string
  readonly namespace: string
  readonly values: Record<string, string>
}

/** @throws IpprivError IPP_HOST_PRIVILEGE, IPP_HOST_KERNEL, IPP_STATE_UNUSABLE */
export class SysctlKeeper {
  readonly #note: string
  /** Values before ours, in the order they were changed. */
  #before = new Map<string, string>()

  /** @param stateDir directory for the note; made when it is missing */
  constructor(stateDir: string) {
    this.#note = join(stateDir, NOTE)
  }

  /**
   * Puts back what a killed predecessor changed, or, to `adopt` it, keeps that in force until `close`. Call once,
   * before `set`.
   */
  async open({ adopt = false } = {}): Promise<void> {
    this.#before = await this.#readNote()
    if (!adopt) await this.close()
  }

  /** What a setting is when none of ours is in force; undefined: there is no such setting. */
  async original(path: string): Promise<string | undefined> {
    return this.#before.get(path) ?? (await read(path))
  }

  /** Sets the values that differ. Devices that are not there are passed over. */
  async set(sysctls: Sysctls): Promise<void> {
    const changes: [path: string, value: string][] = []
    for (const [pattern, value] of Object.entries(sysctls)) {
      for (const path of await expand(pattern)) {
        const current = await read(path)
        if (current === undefined || current === value) continue
        changes.push([path, value])
        if (!this.#before.has(path)) this.#before.set(path, current)
      }
    }
    // The note first: a kill between the two must not lose what was there.
    await this.#writeNote()
    for (const [path, value] of changes) await write(path, value)
  }

  /** Puts everything back. Idempotent. */
  async close(): Promise<void> {
    for (const [path, value] of [...this.#before].reverse()) {
      if ((await read(path)) !== undefined) await write(path, value)
    }
    this.#before.clear()
    await rm(this.#note, { force: true })
  }

  async #readNote(): Promise<Map<string, string>> {
    let text: string
    try {
      text = await readFile(this.#note, 'utf8')
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return new Map()
      throw unusable(this.#note, error)
    }
    const note = parseNote(text)
    const { boot, namespace } = await place()
    if (!note || note.boot !== boot || note.namespace !== namespace) return new Map()
    return new Map(Object.entries(note.values))
  }

  async #writeNote(): Promise<void> {
    const note: Note = { ...(await place()), values: Object.fromEntries(this.#before) }
    const partial = `${this.#note}.new`
    try {
      await mkdir(dirname(this.#note), { recursive: true, mode: 0o700 })
      await writeFile(partial, JSON.stringify(note), { mode: 0o600, flush: true })
      await rename(partial, this.#note)
    } catch (error) {
      throw unusable(this.#note, error)
    }
  }
}

async function expand(pattern: string): Promise<readonly string[]> {
  const star = pattern.indexOf('*')
  if (star < 0) return [pattern]
  const devices = await readdir(join(ROOT, pattern.slice(0, star)))
  // `all` first: some kernels copy it to the devices when it is written.
  devices.sort((a, b) => Number(b === 'all') - Number(a === 'all'))
  return devices.map((device) => pattern.replace('*', device))
}

/** Undefined when there is no such setting. */
async function read(path: string): Promise<string | undefined> {
  try {
    return (await readFile(join(ROOT, path), 'utf8')).trim()
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw new IpprivError('IPP_HOST_KERNEL', `cannot read sysctl ${path}`, { cause: error })
  }
}

async function write(path: string, value: string): Promise<void> {
  try {
    await writeFile(join(ROOT, path), value)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
      throw new IpprivError('IPP_HOST_PRIVILEGE', `cannot set sysctl ${path} to ${value}`, { cause: error })
    throw new IpprivError('IPP_HOST_KERNEL', `cannot set sysctl ${path} to ${value}`, { cause: error })
  }
}

async function place(): Promise<{ boot: string; namespace: string }> {
  return {
    boot: (await read('kernel/random/boot_id')) ?? '',
    namespace: await readlink('/proc/self/ns/net'),
  }
}

/** Undefined when it is not a note of ours: whoever damaged it, nothing is put back from it. */
function parseNote(text: string): Note | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { boot, namespace, values } = value as Partial<Record<keyof Note, unknown>>
  if (typeof boot !== 'string' || typeof namespace !== 'string') return undefined
  if (typeof values !== 'object' || values === null) return undefined
  const entries = Object.entries(values).filter(
    (entry): entry is [string, string] =>
      typeof entry[1] === 'string' && /^net\/ipv4\/[\w./-]+$/.test(entry[0]) && !entry[0].includes('..'),
  )
  return { boot, namespace, values: Object.fromEntries(entries) }
}

const unusable = (file: string, error: unknown): IpprivError =>
  new IpprivError('IPP_STATE_UNUSABLE', `${file}: ${(error as Error).message}`, { cause: error })

const codeOf = (error: unknown): unknown =>
  error instanceof Error && 'code' in error ? error.code : undefined
