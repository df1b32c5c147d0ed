import type { CircuitStatus, ExchangeStatus } from '#demo/daemons'
import type { Check, Knowledge } from '#demo/verdict'
import type { PlaneKind } from '#telescope/plane'

/** The facts of one run: what `--json` prints and what the text below says in words. */
export interface Report {
  readonly ok: boolean
  readonly plane: PlaneKind
  readonly kernel: string
  /** True inside User-Mode Linux: real kernel ESP, slow. */
  readonly userModeLinux: boolean
  /** Node names from entry to exit. */
  readonly path: readonly string[]
  /** Lent by each hop in that order. */
  readonly privateAddresses: readonly string[]
  readonly cipher: string
  readonly suite: string
  readonly circuitBuildMs: number
  /** Per hop, in order. */
  readonly exchanges: readonly (readonly ExchangeStatus[])[]
  readonly secondCircuit: Pick<CircuitStatus, 'id' | 'path' | 'privateAddresses' | 'buildMs'> | null
  readonly download: { readonly octets: number; readonly sha256: string } | null
  readonly goodputMbps: number | null
  /** The same download between the same server and a host without IPpriv. */
  readonly directMbps: number | null
  /**
   * Kernel plane: one short download after another through the daemons' telescope, and through one made by hand
   * with ip(8): same kernel, path and cipher. `ratio` compares the best of each.
   */
  readonly yardstick: {
    readonly daemonsMbps: readonly number[]
    readonly handmadeMbps: readonly number[]
    readonly ratio: number
  } | null
  readonly pings: Pings
  /** Packets of the client outside the telescope. */
  readonly leaks: number
  readonly checks: readonly Check[]
  readonly whoSawWhom: readonly NamedKnowledge[]
  /** Counters of every SA, by daemon, after the download. On plane xfrm they are the kernel's own. */
  readonly sas: Readonly<Record<string, readonly unknown[]>>
  /** Random loss between any two hosts, in percent. */
  readonly lossPercent: number
  readonly seconds: number
  readonly out: string
}

export interface Pings {
  readonly sent: number
  readonly received: number
  /** Null when none came back. */
  readonly rttMs: { readonly min: number; readonly average: number; readonly max: number } | null
}

export interface NamedKnowledge {
  readonly party: string
  readonly sees: readonly { readonly name: string; readonly address: string }[]
}

export const nameKnowledge = (
  knowledge: readonly Knowledge[],
  names: ReadonlyMap<string, string>,
): NamedKnowledge[] =>
  knowledge.map(({ party, addresses }) => ({
    party,
    sees: addresses.map((address) => ({ name: names.get(address) ?? '?', address })),
  }))

/** The report for people, many lines. */
export function formatReport(report: Report): string {
  const lines: string[] = ['']
  const plane = report.plane === 'xfrm' ? "the kernel's ESP (xfrm)" : 'ESP in user space'
  lines.push(
    `Path              client > ${report.path.join(' > ')} > server`,
    `Private addresses ${report.path.map((node, i) => `${report.privateAddresses[i]} (${node})`).join(', ')}`,
    `Data plane        ${plane}, Linux ${report.kernel}${report.userModeLinux ? ' in User-Mode Linux' : ''}`,
    `Algorithms        IKE ${report.suite}; ESP ${report.cipher}`,
    `Circuit           open after ${report.circuitBuildMs.toFixed(1)} ms`,
  )
  for (const [index, exchanges] of report.exchanges.entries())
    lines.push(
      `                  hop ${index + 1}, ${report.path[index]}: ${exchanges.map(formatExchange).join(', ')}`,
    )
  lines.push(
    `Round trip        ${formatPings(report.pings)}`,
    `Goodput           ${mbps(report.goodputMbps)} through the circuit, ${mbps(report.directMbps)} direct${ratio(report)}`,
  )
  if (report.yardstick !== null) {
    const { daemonsMbps, handmadeMbps, ratio: share } = report.yardstick
    const best = (samples: readonly number[]) => mbps(Math.max(...samples))
    lines.push(
      `                  short downloads, best of each: ${best(daemonsMbps)}, by hand ${best(handmadeMbps)} (${share.toFixed(2)})`,
    )
  }
  if (report.lossPercent > 0) lines.push(`Loss              ${report.lossPercent} % between any two hosts`)
  lines.push('', 'Who saw whom')
  const width = Math.max(0, ...report.whoSawWhom.map((row) => row.party.length))
  for (const row of report.whoSawWhom)
    lines.push(
      `  ${row.party.padEnd(width)}  ${row.sees.map((known) => `${known.name} ${known.address}`).join(', ')}`,
    )
  lines.push('', 'Checks')
  for (const check of report.checks)
    lines.push(`  ${check.ok ? 'ok  ' : 'FAIL'} ${check.name}`, `       ${check.evidence}`)
  const failed = report.checks.filter((check) => !check.ok).length
  lines.push(
    '',
    failed === 0
      ? `All ${report.checks.length} checks hold, ${report.leaks} packets leaked; ${report.seconds.toFixed(0)} s.`
      : `${failed} of ${report.checks.length} checks FAILED, ${report.leaks} packets leaked; ${report.seconds.toFixed(0)} s.`,
    `Captures, key logs and daemon logs: ${report.out}`,
    '',
  )
  return lines.join('\n')
}

const formatExchange = (exchange: ExchangeStatus): string =>
  `${exchange.name} ${exchange.ms.toFixed(1)} ms${exchange.transmissions > 1 ? ` (sent ${exchange.transmissions} times)` : ''}`

function formatPings(pings: Pings): string {
  const counts = `${pings.received} of ${pings.sent} pings answered`
  if (pings.rttMs === null) return counts
  const { min, average, max } = pings.rttMs
  return `${average.toFixed(2)} ms (${min.toFixed(2)} to ${max.toFixed(2)}), ${counts}`
}

const mbps = (value: number | null): string => (value === null ? 'nothing' : `${value.toFixed(1)} Mbit/s`)

function ratio(report: Report): string {
  if (report.goodputMbps === null || report.directMbps === null) return ''
  return ` (${((100 * report.goodputMbps) / report.directMbps).toFixed(0)} %)`
}
