/** `ippriv doctor`: what this host offers, which data plane would run and why, and what to do about what is missing. */
import { access, readFile } from 'node:fs/promises'
import { release } from 'node:os'
import type { Command } from 'commander'
import { IpprivError } from '#base/errors'
import { columns, EXIT, paint, print, printJson } from '#cli/output'

export interface Finding {
  readonly name: string
  readonly state: 'ok' | 'missing' | 'unknown'
  /** What was found. */
  readonly detail: string
  /** What to do; only when something is missing. */
  readonly todo?: string
}

export interface Diagnosis {
  readonly findings: readonly Finding[]
  /** What `plane: auto` would take; null: no plane can run here. */
  readonly plane: 'xfrm' | 'userspace' | null
  readonly why: string
}

export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('what this host offers, which data plane would run here, what is missing')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExit code 0 if some data plane can run. Changes nothing; asks most as root.')
    .action(async (options: { json?: boolean }) => {
      const diagnosis = await diagnose()
      if (options.json) printJson(diagnosis)
      else print(...report(diagnosis))
      process.exitCode = diagnosis.plane === null ? EXIT.failed : EXIT.ok
    })
}

/** Asks the host. Never throws for what is missing: that is the answer. */
export async function diagnose(): Promise<Diagnosis> {
  const findings = new Map<string, Finding>()
  const add = (finding: Finding): void => void findings.set(finding.name, finding)
  add(kernelVersion())
  add(nodeVersion())
  for (const finding of await privileges()) add(finding)
  const privileged = findings.get('CAP_NET_ADMIN')?.state === 'ok'
  const needsRoot = (name: string): Finding => ({
    name,
    state: 'unknown',
    detail: 'can only be asked as root',
  })
  add(await tun())
  for (const finding of privileged ? await kernelEsp() : [needsRoot('ESP in the kernel')]) add(finding)
  for (const finding of privileged ? await packetFilters() : [needsRoot('packet filter')]) add(finding)
  add(await connectionTracking())
  for (const finding of await cryptoDrivers()) add(finding)
  return { findings: [...findings.values()], ...choosePlane(findings) }
}

/** What `plane: auto` takes, from the findings by name. */
export function choosePlane(findings: ReadonlyMap<string, Finding>): Pick<Diagnosis, 'plane' | 'why'> {
  const ok = (name: string): boolean => findings.get(name)?.state === 'ok'
  const lacking = ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'packet filter'].filter(
    (name) => findings.get(name)?.state === 'missing',
  )
  if (lacking.length > 0) return { plane: null, why: `no data plane can run without ${lacking.join(', ')}` }
  if (ok('ESP in the kernel')) return { plane: 'xfrm', why: 'the kernel takes ESP SAs' }
  if (ok('TUN')) return { plane: 'userspace', why: 'the kernel takes no ESP SAs, but TUN devices work' }
  return { plane: null, why: 'the kernel has neither ESP nor TUN' }
}

export function report({ findings, plane, why }: Diagnosis): string[] {
  const marks = { ok: paint('green', 'ok'), missing: paint('red', 'missing'), unknown: paint('yellow', '?') }
  const todos = findings.flatMap((finding) =>
    finding.todo === undefined ? [] : [`  ${finding.name}: ${finding.todo}`],
  )
  return [
    ...columns(findings.map((finding) => [finding.name, marks[finding.state], finding.detail])),
    '',
    `plane: ${plane === null ? paint('red', 'none') : paint('bold', plane)} (${why})`,
    ...(todos.length > 0 ? ['', 'What to do:', ...todos] : []),
  ]
}

function kernelVersion(): Finding {
  const version = release()
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const enough = major > OLDEST_KERNEL[0] || (major === OLDEST_KERNEL[0] && minor >= OLDEST_KERNEL[1])
  if (enough) return { name: 'kernel', state: 'ok', detail: version }
  const todo = `use Linux ${OLDEST_KERNEL.join('.')} or newer`
  return { name: 'kernel', state: 'missing', detail: version, todo }
}

/** The oldest with everything that the rules and XFRM messages use (nft NAT in the inet family is of 5.2). */
const OLDEST_KERNEL = [5, 10] as const

function nodeVersion(): Finding {
  const ok = Number(process.versions.node.split('.')[0]) >= 24
  const detail = `${process.version}, OpenSSL ${process.versions.openssl}`
  return ok
    ? { name: 'Node.js', state: 'ok', detail }
    : {
        name: 'Node.js',
        state: 'missing',
        detail,
        todo: 'run bin/ippriv, which uses the Node.js that npm installed',
      }
}

async function privileges(): Promise<Finding[]> {
  const { effectiveCapabilities } = await import('#linux/caps')
  const effective = await effectiveCapabilities()
  const purposes = { CAP_NET_ADMIN: 'routes, SAs, packet filter', CAP_NET_RAW: 'ESP sockets' } as const
  return (['CAP_NET_ADMIN', 'CAP_NET_RAW'] as const).map((name) =>
    effective.has(name)
      ? { name, state: 'ok', detail: `for ${purposes[name]}` }
      : {
          name,
          state: 'missing',
          detail: `for ${purposes[name]}`,
          todo: 'run as root, or use deploy/systemd',
        },
  )
}

async function tun(): Promise<Finding> {
  const todo = 'modprobe tun; in a container, add the device /dev/net/tun'
  try {
    await access('/dev/net/tun')
    return { name: 'TUN', state: 'ok', detail: '/dev/net/tun' }
  } catch {
    // A kernel with the driver built in and a bare /dev still works: the plane makes the device node itself.
    const drivers = await readFile('/proc/misc', 'utf8')
    return /^\s*\d+ tun$/m.test(drivers)
      ? { name: 'TUN', state: 'ok', detail: 'driver is there, /dev/net/tun will be made' }
      : { name: 'TUN', state: 'missing', detail: 'no /dev/net/tun and no driver', todo }
  }
}

async function kernelEsp(): Promise<Finding[]> {
  const name = 'ESP in the kernel'
  const todo = 'use a kernel with CONFIG_XFRM_USER and CONFIG_INET_ESP; until then the userspace plane serves'
  try {
    const { probeKernelEsp } = await import('#linux/xfrm-probe')
    const { ciphers, reason } = await probeKernelEsp()
    // The cipher every client offers first: without it `plane: auto` does not take the kernel.
    if (ciphers.includes('aes-256-gcm-16')) return [{ name, state: 'ok', detail: ciphers.join(', ') }]
    return [{ name, state: 'missing', detail: reason ?? 'not with aes-256-gcm-16', todo }]
  } catch (error) {
    return [{ name, state: 'missing', detail: whereOf(error), todo }]
  }
}

async function packetFilters(): Promise<Finding[]> {
  const { probeFirewalls } = await import('#linux/firewall')
  const { nft, iptables } = await probeFirewalls()
  const one = (name: string, probe: typeof nft): Finding =>
    probe.works
      ? { name, state: 'ok', detail: 'takes our rules' }
      : { name, state: 'missing', detail: probe.why }
  const chosen = nft.works ? 'nft' : iptables.works ? 'iptables-legacy' : undefined
  const todo = 'apt-get install nftables (or iptables), and a kernel with nf_tables'
  return [
    one('nft', nft),
    one('iptables-legacy', iptables),
    chosen === undefined
      ? { name: 'packet filter', state: 'missing', detail: 'neither works', todo }
      : { name: 'packet filter', state: 'ok', detail: `${chosen} will be used` },
  ]
}

async function connectionTracking(): Promise<Finding> {
  const name = 'connection tracking'
  try {
    const limit = await readFile('/proc/sys/net/netfilter/nf_conntrack_max', 'utf8')
    return { name, state: 'ok', detail: `${limit.trim()} flows at most` }
  } catch {
    // The module loads itself with the first rule that needs it.
    return { name, state: 'unknown', detail: 'not loaded yet; an exit and a client need it' }
  }
}

/** In ms, for every driver, cipher, direction and packet size. */
const SPEED_BUDGET = 5

/** How fast one thread seals and opens packets with each crypto driver: what a userspace plane here can hope for. */
async function cryptoDrivers(): Promise<Finding[]> {
  const { driverSpeeds, MEASURED_LENGTHS } = await import('#linux/driver-speed')
  const lengths = MEASURED_LENGTHS.join(' / ')
  return driverSpeeds(SPEED_BUDGET).map(({ driver, cipher, microseconds, microsecondsToOpen }) => {
    const name = `${driver} ${cipher}`
    const [seal, open] = [microseconds, microsecondsToOpen].map((speeds) =>
      MEASURED_LENGTHS.flatMap((length) => speeds[length]?.toFixed(1) ?? []),
    ) as [string[], string[]]
    if (seal.length + open.length < 2 * MEASURED_LENGTHS.length)
      return { name, state: 'missing', detail: 'not by this driver' }
    const full = MEASURED_LENGTHS.at(-1)!
    const megabits = (full * 8) / microseconds[full]!
    const detail = `${seal.join(' / ')} us to seal ${lengths} octets, ${open.join(' / ')} to open, ${Math.round(megabits)} Mbit/s per layer and core`
    return { name, state: 'ok', detail }
  })
}

const whereOf = (error: unknown): string =>
  error instanceof IpprivError ? error.where : error instanceof Error ? error.message : String(error)
