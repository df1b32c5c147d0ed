/**
 * What of a Linux network stack matters to an overlay of ESP, as data: where the knob is, what it should say for a
 * role and a machine, and why. Pure; `knobs.ts` reads and turns them.
 *
 * Two kinds of advice. On a node, packets of many people pass: what counts is cost per packet and room for bursts.
 * On a client, the exit passes on what its kernel writes into TCP headers: there the best value is the one everybody
 * has, and a setting that would be faster alone would also be a name tag.
 */

import { HASH_THRESHOLD } from '#linux/xfrm-threshold'

export type Role = 'node' | 'client'

/** Where a knob is. */
export type Knob =
  /** Below /proc/sys. */
  | { readonly kind: 'sysctl'; readonly path: string }
  /** A file of each receive or transmit queue of a device: a mask of processors. */
  | {
      readonly kind: 'queue'
      readonly device: string
      readonly queue: string
      readonly file: 'rps_cpus' | 'xps_cpus'
    }
  /** As `ethtool -k` calls it. */
  | { readonly kind: 'feature'; readonly device: string; readonly feature: string }
  /** As `ethtool -c` calls it. */
  | { readonly kind: 'coalescing'; readonly device: string; readonly parameter: 'adaptive-rx' }
  | { readonly kind: 'mtu'; readonly device: string }
  /** `LOCAL REMOTE`, bits, as `ip xfrm policy set hthresh4` takes them. */
  | { readonly kind: 'xfrm'; readonly parameter: 'hthresh4' }

export interface Setting {
  /** Stable, for `--json` and for people: the sysctl's name with dots, `DEVICE/feature`, or `xfrm/parameter`. */
  readonly name: string
  readonly knob: Knob
  readonly wanted: Wanted
  /** One sentence. */
  readonly why: string
  /** Set when a deviation makes a client distinguishable: said with emphasis. */
  readonly distinguishes?: string
}

export type Wanted =
  | { readonly kind: 'exactly'; readonly value: string }
  /** Every number of the value at least this; larger ones of the operator stay. */
  | { readonly kind: 'at-least'; readonly values: readonly number[] }
  /** Only looked at: changing it is not for a program. */
  | { readonly kind: 'advice'; readonly ok: (value: string) => boolean; readonly value: string }

export interface Machine {
  readonly processors: number
  readonly devices: readonly Device[]
}

export interface Device {
  readonly name: string
  /** Something is behind it that interrupts a processor; with a veth it is the sender's that receives. */
  readonly isHardware: boolean
  readonly receiveQueues: readonly string[]
  readonly transmitQueues: readonly string[]
}

const MEBI = 1 << 20

export function settingsFor(role: Role, machine: Machine): Setting[] {
  const common = role === 'node' ? [...NODE, POLICY_HASHING] : CLIENT
  return [...common, ...machine.devices.flatMap((device) => deviceSettings(role, device, machine.processors))]
}

/**
 * What the setting is once it is as wanted, whether it is that already or not; undefined when it is not to be touched.
 * `current`: undefined where there is no such knob now.
 */
export function settled({ wanted }: Setting, current: string | undefined): string | undefined {
  if (wanted.kind === 'advice') return undefined
  if (wanted.kind === 'exactly') return wanted.value
  const values = current === undefined ? [] : words(current).split(' ').map(Number)
  const columns = Math.max(values.length, wanted.values.length)
  return Array.from({ length: columns }, (_, i) => Math.max(wanted.values[i] ?? 0, values[i] ?? 0)).join(' ')
}

/** What the setting should be turned to, or undefined when the current value is good or is not to be touched. */
export function correction(setting: Setting, current: string): string | undefined {
  const value = settled(setting, current)
  return value === undefined || words(value) === words(current) ? undefined : value
}

/** Does the setting need a person's attention, without being ours to change? */
export const isFineAsIs = ({ wanted }: Setting, current: string): boolean =>
  wanted.kind !== 'advice' || wanted.ok(current)

export function wantedText({ wanted }: Setting): string {
  if (wanted.kind === 'at-least') return `>= ${wanted.values.join(' ')}`
  return wanted.value
}

/** Values of sysctls are separated by tabs or blanks, as the kernel likes. */
const words = (value: string): string => value.trim().split(/\s+/).join(' ')

const sysctl = (name: string, wanted: Wanted, why: string, distinguishes?: string): Setting => ({
  name,
  knob: { kind: 'sysctl', path: name.replaceAll('.', '/') },
  wanted,
  why,
  ...(distinguishes === undefined ? {} : { distinguishes }),
})
const exactly = (value: string): Wanted => ({ kind: 'exactly', value })
const atLeast = (...values: readonly number[]): Wanted => ({ kind: 'at-least', values })

const NODE: readonly Setting[] = [
  sysctl(
    'net.core.rmem_max',
    atLeast(16 * MEBI),
    'the userspace plane asks for large socket buffers, so that a burst waits instead of being lost',
  ),
  sysctl('net.core.wmem_max', atLeast(16 * MEBI), 'the same on the way out'),
  sysctl(
    'net.core.netdev_max_backlog',
    atLeast(4096),
    'each layer of ESP puts a packet through the backlog once more',
  ),
  sysctl(
    'net.core.netdev_budget',
    atLeast(600),
    'packets one softirq may take before it yields: decryption happens inside it',
  ),
  sysctl(
    'net.core.netdev_budget_usecs',
    atLeast(8000),
    'the time for that budget: a packet with ESP takes longer than a plain one',
  ),
  sysctl(
    'net.netfilter.nf_conntrack_max',
    atLeast(262_144),
    'an exit tracks every flow of every client; beyond this new ones are dropped',
  ),
  sysctl(
    'net.netfilter.nf_conntrack_buckets',
    atLeast(65_536),
    'four flows per bucket at the maximum keep a look-up short',
  ),
  sysctl(
    'net.ipv4.tcp_mtu_probing',
    exactly('1'),
    'the directory and other TCP of this host survives a path that drops ICMP',
  ),
]

/** Of a client there are so few that a walk is as good. */
const POLICY_HASHING: Setting = {
  name: 'xfrm/hthresh4',
  knob: { kind: 'xfrm', parameter: 'hthresh4' },
  wanted: exactly(`${HASH_THRESHOLD.local} ${HASH_THRESHOLD.remote}`),
  why: 'policies of circuits are found by hash, not by a walk along all of them; of this network namespace alone, and a node on the kernel plane sets it while it runs',
}

/** Linux as it comes: a window scale, an option or a TTL of one's own is seen by every destination. */
const SEEN =
  'every destination sees it in TCP headers: another value than the kernel’s own sets this client apart'
// Not every kernel has it built in, and loading modules is not for a program.
const CUBIC: Wanted = { kind: 'advice', value: 'cubic', ok: (value) => value === 'cubic' }
const CLIENT: readonly Setting[] = [
  sysctl(
    'net.ipv4.tcp_window_scaling',
    exactly('1'),
    'without it TCP has at most 64 KiB in flight, 5 Mbit/s at 100 ms',
    SEEN,
  ),
  sysctl(
    'net.ipv4.tcp_sack',
    exactly('1'),
    'without selective acknowledgements a lost packet costs whole windows',
    SEEN,
  ),
  sysctl(
    'net.ipv4.tcp_timestamps',
    exactly('1'),
    'round trips are measured with them; 1 starts each connection at a random offset',
    SEEN,
  ),
  sysctl(
    'net.ipv4.tcp_ecn',
    exactly('2'),
    'asked for by others only, as Linux does unless told otherwise',
    SEEN,
  ),
  sysctl('net.ipv4.ip_default_ttl', exactly('64'), 'the exit sees it', SEEN),
  sysctl(
    'net.ipv4.tcp_rmem',
    exactly('4096 131072 6291456'),
    'the largest receive buffer decides the window scale of every SYN',
    SEEN,
  ),
  sysctl(
    'net.ipv4.tcp_wmem',
    exactly('4096 16384 4194304'),
    'enough for 300 Mbit/s at 100 ms, and what everybody has',
  ),
  sysctl(
    'net.ipv4.tcp_congestion_control',
    CUBIC,
    'the pace of uploads tells one algorithm from another',
    SEEN,
  ),
  sysctl('net.core.rmem_max', atLeast(4 * MEBI), 'the userspace plane asks for large socket buffers'),
  sysctl('net.core.wmem_max', atLeast(4 * MEBI), 'the same on the way out'),
]

function deviceSettings(role: Role, device: Device, processors: number): Setting[] {
  const { name } = device
  const settings: Setting[] = [
    feature(
      name,
      'generic-receive-offload',
      'on',
      'the plane and the kernel take runs of packets at once instead of one by one',
    ),
    feature(name, 'generic-segmentation-offload', 'on', 'long segments stay whole until the last moment'),
    feature(name, 'tcp-segmentation-offload', 'on', 'the same, done by the device'),
    {
      name: `${name}/mtu`,
      knob: { kind: 'mtu', device: name },
      wanted: { kind: 'advice', value: '>= 1500', ok: (value) => Number(value) >= 1500 },
      why:
        role === 'node'
          ? 'three layers fit into 1,500 octets; jumbo frames between nodes save nothing here, since circuits carry 1,280 at most'
          : 'three layers around 1,280 octets need 1,488; a smaller link must fragment ESP, which is slow and visible',
    },
  ]
  if (role === 'node') {
    settings.push(
      feature(
        name,
        'rx-udp-gro-forwarding',
        'on',
        'UDP that is only passed on (clients behind NAT) travels in runs as well',
      ),
      {
        name: `${name}/adaptive-rx`,
        knob: { kind: 'coalescing', device: name, parameter: 'adaptive-rx' },
        wanted: exactly('on'),
        why: 'interrupts are gathered under load and immediate when idle',
      },
    )
    // With as many queues as processors the device spreads flows itself, and without any interrupts senders do.
    if (device.isHardware && device.receiveQueues.length < processors)
      for (const queue of device.receiveQueues)
        settings.push(
          queueMask(
            name,
            queue,
            'rps_cpus',
            processors,
            'one queue is decrypted by one processor: spread what arrives',
          ),
        )
    if (device.transmitQueues.length > 1 && device.transmitQueues.length < processors)
      for (const queue of device.transmitQueues)
        settings.push(
          queueMask(name, queue, 'xps_cpus', processors, 'any processor may use any queue to send'),
        )
  }
  return settings
}

const feature = (device: string, name: string, value: string, why: string): Setting => ({
  name: `${device}/${name}`,
  knob: { kind: 'feature', device, feature: name },
  wanted: exactly(value),
  why,
})

const queueMask = (
  device: string,
  queue: string,
  file: 'rps_cpus' | 'xps_cpus',
  processors: number,
  why: string,
): Setting => ({
  name: `${device}/${queue}/${file}`,
  knob: { kind: 'queue', device, queue, file },
  wanted: exactly(processorMask(processors)),
  why,
})

/** As the kernel prints it: groups of 32 bits in hex, the highest first. */
export function processorMask(processors: number): string {
  const groups: string[] = []
  for (let left = processors; left > 0; left -= 32) groups.unshift((2 ** Math.min(32, left) - 1).toString(16))
  return groups.map((group, i) => (i === 0 ? group : group.padStart(8, '0'))).join(',')
}
