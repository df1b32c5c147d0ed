/**
 * Every setting of `ippriv tune`, with what it can be compared with on a chain of namespaces, or why it cannot. Pure:
 * `tune.ts` turns and measures.
 */
import type { Knob, Role, Setting } from '#tune/settings'
import { correction, settingsFor } from '#tune/settings'

/** Who has the knob: both ends of a TCP connection, the nodes, every host, or the machine below all of them. */
export type Where = 'ends' | 'nodes' | 'hosts' | 'machine'

export interface Trial {
  /** The setting's, with `DEVICE` for any device. */
  readonly name: string
  readonly knob: Knob
  readonly where: Where
  /** What is there without us. */
  readonly found: string
  /** What `ippriv tune` wants. */
  readonly wanted: string
  /** What it is compared with: what was found, if that is not what is wanted. */
  readonly without: string
}

export interface Unmeasured {
  readonly name: string
  readonly why: string
}

/** A name no device has, in knobs that are every device's. */
export const ANY_DEVICE = 'DEVICE'

/**
 * The catalogue of `ippriv tune` for hosts whose cables have one queue each way, as veth has, but all there is for
 * hardware: what needs some is listed as not measured.
 */
export function catalogue(processors: number): readonly { readonly role: Role; readonly setting: Setting }[] {
  const device = { name: ANY_DEVICE, isHardware: true, receiveQueues: ['rx-0'], transmitQueues: ['tx-0'] }
  const settings = new Map<string, { role: Role; setting: Setting }>()
  // What both roles want is measured as the node's; the client's values of socket buffers are smaller.
  for (const role of ['client', 'node'] as const)
    for (const setting of settingsFor(role, { processors, devices: [device] }))
      settings.set(setting.name, { role, setting })
  return [...settings.values()]
}

/** `found`: undefined when there is no such knob here, or it cannot be turned. */
export function plan(setting: Setting, found: string | undefined): Trial | Unmeasured {
  const { name, knob } = setting
  const why = UNMEASURED[lastPart(name)]
  if (why !== undefined) return { name, why }
  const rule = COMPARED[lastPart(name)]
  if (rule === undefined) return { name, why: 'the bench does not know what to compare it with' }
  if (found === undefined) return { name, why: 'this machine has no such knob' }
  const wanted = wantedValue(setting, found)
  const without = found === wanted ? rule.without : found
  return { name, knob, where: rule.where, found, wanted, without }
}

export const isTrial = (plan: Trial | Unmeasured): plan is Trial => 'knob' in plan

/** The one of both values that is not there anyway. */
export const deviation = ({ found, wanted, without }: Trial): string => (found === wanted ? without : wanted)

/** What the wanted value has over the other one, in percent. `found` and `deviating` are goodputs of one round. */
export function contribution(trial: Trial, found: number, deviating: number): number {
  const [wanted, without] = trial.found === trial.wanted ? [found, deviating] : [deviating, found]
  return 100 * (wanted / without - 1)
}

/** One line of sh that turns the knob, on `device` if it is a device's. */
export function turningLine(knob: Knob, value: string, device: string): string {
  switch (knob.kind) {
    case 'sysctl':
      return `echo ${value} >/proc/sys/${knob.path}`
    case 'feature':
      return `ethtool -K ${device} ${knob.feature} ${value}`
    case 'coalescing':
      return `ethtool -C ${device} ${knob.parameter} ${value}`
    case 'queue':
      return `echo ${value} >/sys/class/net/${device}/queues/${knob.queue}/${knob.file}`
    case 'mtu':
      return `ip link set ${device} mtu ${value}`
    case 'xfrm':
      return `ip xfrm policy set ${knob.parameter} ${value}`
  }
}

/** Devices have names of their own: what a setting is called does not change with them. */
const lastPart = (name: string): string => name.replace(`${ANY_DEVICE}/`, '')

function wantedValue(setting: Setting, found: string): string {
  const { wanted } = setting
  if (wanted.kind === 'advice') return wanted.ok(found) ? found : wanted.value
  return correction(setting, found) ?? found
}

/** `without` has what people had before, or what an operator may have set. */
const COMPARED: Readonly<Record<string, { readonly where: Where; readonly without: string }>> = {
  'net.ipv4.tcp_window_scaling': { where: 'ends', without: '0' },
  'net.ipv4.tcp_sack': { where: 'ends', without: '0' },
  'net.ipv4.tcp_timestamps': { where: 'ends', without: '0' },
  // Linux 2.4's.
  'net.ipv4.tcp_rmem': { where: 'ends', without: '4096 87380 174760' },
  'net.ipv4.tcp_wmem': { where: 'ends', without: '4096 16384 131072' },
  'net.ipv4.tcp_congestion_control': { where: 'ends', without: 'reno' },
  'net.ipv4.tcp_mtu_probing': { where: 'nodes', without: '0' },
  'net.core.netdev_max_backlog': { where: 'machine', without: '1000' },
  'net.core.netdev_budget': { where: 'machine', without: '300' },
  'net.core.netdev_budget_usecs': { where: 'machine', without: '2000' },
  'generic-receive-offload': { where: 'hosts', without: 'off' },
  'generic-segmentation-offload': { where: 'hosts', without: 'off' },
  'tcp-segmentation-offload': { where: 'hosts', without: 'off' },
  'rx-udp-gro-forwarding': { where: 'nodes', without: 'off' },
  // A tunnel or PPPoE on the way.
  mtu: { where: 'hosts', without: '1400' },
}

const ROOT_ANYWAY = 'the daemons of a bench are root’s, whose sockets may be as large as they like'
const NOT_SPEED = 'it is about looking like everybody, not about speed'
const FLOWS = 'it is about more flows than a bench makes'
const UNMEASURED: Readonly<Record<string, string>> = {
  'net.core.rmem_max': ROOT_ANYWAY,
  'net.core.wmem_max': ROOT_ANYWAY,
  'net.netfilter.nf_conntrack_max': FLOWS,
  'net.netfilter.nf_conntrack_buckets': FLOWS,
  'net.ipv4.tcp_ecn': NOT_SPEED,
  'net.ipv4.ip_default_ttl': NOT_SPEED,
  'xfrm/hthresh4': 'it is the kernel plane’s: the part xfrm measures it in User-Mode Linux',
  'adaptive-rx': 'veth has no interrupts to gather: it needs a network card',
  'rx-0/rps_cpus': 'veth has no interrupts to spread, and is not given it: it needs a network card',
  'tx-0/xps_cpus': 'veth has one queue: it needs a network card with several',
}
