import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { type Background, type Commands, GaveUp, lastLine, sleep, until } from '#demo/command'
import { inNamespace } from '#demo/topology'

/** One packet capture by tcpdump, from `startCapture` until `stop`. */
export interface Capture {
  readonly name: string
  readonly file: string
  readonly process: Background
  readonly log: string
}

export interface CaptureSpec {
  readonly name: string
  readonly namespace: string
  /** `any` sees every device of the namespace, the tunnel devices of the userspace plane too. */
  readonly device: string
  /** In the language of pcap-filter(7); absent: everything. */
  readonly filter?: string
}

/** What tcpdump says at its end. `dropped` must be 0 for the capture to prove an absence. */
export interface CaptureTotals {
  readonly captured: number
  readonly dropped: number
}

/** Starts captures and returns when every one of them is listening. @throws IpprivError IPP_HOST_TOOL. */
export async function startCaptures(
  commands: Commands,
  directory: string,
  specs: readonly CaptureSpec[],
  timeoutMs: number,
): Promise<Capture[]> {
  const captures = specs.map((spec) => {
    const file = join(directory, `${spec.name}.pcap`)
    const log = join(directory, `${spec.name}.tcpdump.log`)
    const tcpdump = ['tcpdump', '--immediate-mode', '-U', '-s', SNAPSHOT, '-B', BUFFER, '-Z', 'root', '-nn']
    const filter = spec.filter === undefined ? [] : [spec.filter]
    const argv = inNamespace(spec.namespace, ...tcpdump, '-i', spec.device, '-w', file, ...filter)
    return { name: spec.name, file, log, process: commands.start(argv, log) }
  })
  await Promise.all(captures.map((capture) => isListening(capture, timeoutMs)))
  return captures
}

/** Ends a capture after what is in flight has been written. */
export async function stopCaptures(captures: readonly Capture[]): Promise<Map<string, CaptureTotals>> {
  await sleep(SETTLE_MS)
  await Promise.all(captures.map((capture) => capture.process.stop(10_000)))
  return new Map(captures.map((capture) => [capture.name, totalsOf(readFileSync(capture.log, 'utf8'))]))
}

/** @internal Exported for its test. */
export function totalsOf(log: string): CaptureTotals {
  const count = (pattern: RegExp) => Number(pattern.exec(log)?.[1] ?? Number.NaN)
  return {
    captured: count(/^(\d+) packets? captured/m),
    dropped: count(/^(\d+) packets? dropped by kernel/m),
  }
}

/**
 * Octets kept of a packet: all of any that a cable of 1500 carries. In immediate mode the kernel's ring has
 * one slot of this size per packet, so more would mean fewer slots and lost packets.
 */
const SNAPSHOT = '1600'
/** KiB of the ring: some 5,000 packets. */
const BUFFER = '8192'

/** A packet reaches the file within this time of being sent (immediate mode, one switch of processes). */
const SETTLE_MS = 300

async function isListening(capture: Capture, timeoutMs: number): Promise<void> {
  await until(`the capture ${capture.name}`, timeoutMs, () => {
    const log = existsSync(capture.log) ? readFileSync(capture.log, 'utf8') : ''
    if (log.includes('listening on')) return true
    if (!capture.process.running)
      throw new GaveUp(new IpprivError('IPP_HOST_TOOL', `tcpdump (${capture.name}): ${lastLine(log)}`))
    return undefined
  })
}
