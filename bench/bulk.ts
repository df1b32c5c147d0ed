import { readFileSync } from 'node:fs'
import { type Commands, lastLine } from '#demo/command'
import { type Host, inNamespace } from '#demo/topology'
import { parsePing } from '#demo/traffic'

/** What a bench puts on a path, and what it costs. */
export interface Bulk {
  readonly mbps: number
  readonly octets: number
  readonly retransmissions: number
  /** Seconds of processor time, of both ends of iperf3. */
  readonly cpuSeconds: number
}

export interface BulkOptions {
  readonly seconds: number
  readonly streams: number
  /** `down` is from the server to the host. */
  readonly direction: 'up' | 'down'
}

/** TCP for some seconds, to an iperf3 server. @throws IpprivError IPP_HOST_TOOL */
export async function bulk(
  commands: Commands,
  host: Host,
  server: Host,
  { seconds, streams, direction }: BulkOptions,
): Promise<Bulk> {
  const size = ['-t', String(seconds), '-P', String(streams)]
  const reverse = direction === 'down' ? ['-R'] : []
  const argv = inNamespace(host.namespace, 'iperf3', '-c', server.address, '-J', ...size, ...reverse)
  const { stdout } = await commands.run(argv, { timeoutMs: (seconds + 60) * 1000 })
  return readBulk(stdout)
}

/** What `iperf3 -J` printed. @throws Error with its own words when it did not get to an end */
export function readBulk(json: string): Bulk {
  const { end, error } = JSON.parse(json) as IperfReport
  if (error !== undefined) throw new Error(`iperf3: ${error}`)
  const load = end.cpu_utilization_percent.host_total + end.cpu_utilization_percent.remote_total
  return {
    mbps: end.sum_received.bits_per_second / 1e6,
    octets: end.sum_received.bytes,
    retransmissions: end.sum_sent.retransmits ?? 0,
    cpuSeconds: (load / 100) * end.sum_sent.seconds,
  }
}

/** The part of `iperf3 -J` that is read. */
interface IperfReport {
  readonly error?: string
  readonly end: {
    readonly sum_sent: { readonly seconds: number; readonly retransmits?: number }
    readonly sum_received: { readonly bits_per_second: number; readonly bytes: number }
    readonly cpu_utilization_percent: { readonly host_total: number; readonly remote_total: number }
  }
}

/** Round trips of 1,024 octets in IP, in ms; NaN when none was answered. @throws IpprivError IPP_HOST_TOOL */
export async function roundTrip(
  commands: Commands,
  host: Host,
  server: Host,
  count: number,
): Promise<number> {
  const argv = ['ping', '-n', '-q', '-i', '0.02', '-s', '996', '-c', String(count), server.address]
  const result = await commands.run(inNamespace(host.namespace, ...argv), {
    check: false,
    timeoutMs: 120_000,
  })
  if (result.stdout === '') throw new Error(`ping: ${lastLine(result.stderr)}`)
  return parsePing(result.stdout).rttMs?.average ?? Number.NaN
}

/** Processor time a process and its threads have used, in seconds; 0 when it has ended. */
export function processSeconds(pid: number | undefined): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0
    throw error
  }
}

/** Time this machine has spent in soft interrupts, in seconds: packets on their way between the hosts. */
export function softirqSeconds(): number {
  const fields = readFileSync('/proc/stat', 'utf8').split('\n')[0]!.split(/\s+/)
  return Number(fields[7]) / TICKS
}

/** USER_HZ: 100 on every architecture of ours. */
const TICKS = 100
