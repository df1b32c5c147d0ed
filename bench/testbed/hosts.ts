/** The file that says which machines a testbed has (docs/testbed.md). */
import { parse } from 'yaml'
import { contains, type Ip, parseIp, prefix } from '#base/ip'
import type { PlaneKind } from '#telescope/plane'

export interface Testbed {
  /** Where IPpriv is, or is put, on every machine. */
  readonly folder: string
  /** Whether it is put there first. */
  readonly install: boolean
  /** Arguments of ssh(1) for all of them. */
  readonly ssh: readonly string[]
  readonly planes: readonly PlaneKind[]
  readonly client: Machine
  /** In the order of the path. */
  readonly nodes: readonly Machine[]
  readonly server: Machine
}

export interface Machine {
  readonly name: string
  /** As ssh(1) takes it: `root@host`. */
  readonly destination: string
  /** Where its programs are reached. The client's is one more than its machine has. */
  readonly address: Ip
}

const PLANES: readonly PlaneKind[] = ['xfrm', 'userspace']
const MOST_HOPS = 5
/** Lent by nodes, and routed into the overlay. */
const POOLS = prefix('10.64.0.0/10')
const FOLDER = '/opt/ippriv-testbed'

/** @throws Error that says what is wrong, and where */
export function readTestbed(text: string): Testbed {
  const file = mapping(parse(text), 'the file')
  only(file, 'the file', ['folder', 'install', 'ssh', 'planes', 'hosts'])
  const hosts = list(file.hosts, 'hosts').map(readHost)
  const names = ['directory', ...hosts.map(({ machine }) => machine.name)]
  const addresses = hosts.map(({ machine }) => machine.address)
  for (const values of [names, addresses]) {
    const twice = values.find((value, i) => values.indexOf(value) !== i)
    if (twice !== undefined) throw new Error(`hosts: ${twice} is there twice`)
  }
  const of = (role: string) => hosts.filter((host) => host.role === role).map(({ machine }) => machine)
  const [client, server] = ['client', 'server'].map((role) => {
    const found = of(role)
    if (found.length !== 1) throw new Error(`hosts: one with role ${role}, not ${found.length}`)
    return found[0]!
  })
  const nodes = of('node')
  if (nodes.length < 1 || nodes.length > MOST_HOPS) throw new Error(`hosts: 1 to ${MOST_HOPS} with role node`)
  const planes = list(file.planes ?? ['xfrm'], 'planes').map((plane) => {
    const known = PLANES.find((candidate) => candidate === plane)
    if (known === undefined) throw new Error(`planes: ${plane} is none of ${PLANES.join(', ')}`)
    return known
  })
  const { install = true } = file
  if (typeof install !== 'boolean') throw new Error('install: true or false')
  const folder = word(file.folder ?? FOLDER, 'folder', /^\/[\w./-]+$/)
  const ssh = list(file.ssh ?? [], 'ssh').map(String)
  return { folder, install, ssh, planes, client: client!, nodes, server: server! }
}

function readHost(value: unknown, i: number): { readonly role: string; readonly machine: Machine } {
  const at = `hosts[${i}]`
  const host = mapping(value, at)
  only(host, at, ['role', 'name', 'ssh', 'address'])
  const role = word(host.role, `${at}.role`, /^(client|node|server)$/)
  const text = word(host.address, `${at}.address`, /^[\d.]+$/)
  const address = parseIp(text)
  if (address === undefined) throw new Error(`${at}.address: ${text} is no IPv4 address`)
  if (contains(POOLS, address))
    throw new Error(`${at}.address: ${text} is one that nodes lend (10.64.0.0/10)`)
  // Names become file names and arguments; a destination must not be taken for an option.
  const name = word(host.name ?? (role === 'node' ? undefined : role), `${at}.name`, /^[a-z][a-z0-9-]{0,18}$/)
  const destination = word(host.ssh, `${at}.ssh`, /^[\w.@:[\]-]+$/)
  if (destination.startsWith('-')) throw new Error(`${at}.ssh: no option`)
  return { role, machine: { name, destination, address } }
}

function mapping(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${at}: a mapping of keys`)
  return value as Record<string, unknown>
}

function list(value: unknown, at: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${at}: a list`)
  return value
}

function only(value: Record<string, unknown>, at: string, keys: readonly string[]): void {
  const unknown = Object.keys(value).find((key) => !keys.includes(key))
  if (unknown !== undefined) throw new Error(`${at}: no key ${unknown}; there are ${keys.join(', ')}`)
}

function word(value: unknown, at: string, pattern: RegExp): string {
  if (typeof value !== 'string' || !pattern.test(value))
    throw new Error(`${at}: ${JSON.stringify(value) ?? 'missing'}`)
  return value
}
