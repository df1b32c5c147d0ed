import type { Command } from 'commander'
import { type CircuitReport, circuitLines } from '#cli/circuits'
import { bytesText, columns, paint, print, printJson } from '#cli/output'
import { controlRequest } from '#linux/control'
import { renderMetrics } from '#observe/metrics'

interface SaReport {
  readonly source: string
  readonly destination: string
  readonly spi: number
  readonly packets: number
  readonly bytes: number
  readonly replayed: number
  readonly corrupted: number
}

interface StatusReport {
  readonly role: string
  readonly counters?: Record<string, number>
  readonly sas?: readonly SaReport[]
  readonly circuits?: readonly CircuitReport[] | number
  readonly overlay?: readonly { readonly peer: string; readonly address: string; readonly state: string }[]
  readonly [fact: string]: unknown
}

/** `ippriv status`: what a running daemon says about itself. */
export function registerStatus(program: Command): void {
  program
    .command('status')
    .description('what a running daemon is doing')
    .requiredOption('-s, --socket <path>', 'control socket of the daemon')
    .option('--json', "print the daemon's own report as JSON")
    .option('--metrics', 'print its counters in the text format that Prometheus scrapes')
    .action(async (options: { socket: string; json?: boolean; metrics?: boolean }) => {
      const report = (await controlRequest(options.socket, 'status')) as StatusReport
      if (options.metrics) process.stdout.write(renderMetrics(report))
      else if (options.json) printJson(report)
      else print(...statusLines(report))
    })
}

function statusLines({ counters = {}, sas = [], circuits, overlay, ...facts }: StatusReport): string[] {
  const lines = columns(Object.entries(facts).map(([name, value]) => [paint('dim', name), factText(value)]))
  if (typeof circuits === 'number') lines.push(...columns([[paint('dim', 'circuits'), String(circuits)]]))
  if (Array.isArray(circuits)) lines.push('', ...circuitLines(circuits))
  if (overlay !== undefined && overlay.length > 0) {
    const rows = overlay.map(({ peer, address, state }) => [
      peer,
      address,
      paint(state === 'up' ? 'green' : 'yellow', state),
    ])
    lines.push('', ...columns(rows, ['peer', 'address', 'overlay']))
  }
  if (sas.length > 0) {
    const rows = sas.map((sa) => [
      `${sa.source} > ${sa.destination}`,
      `0x${sa.spi.toString(16).padStart(8, '0')}`,
      String(sa.packets),
      bytesText(sa.bytes),
      String(sa.replayed),
      String(sa.corrupted),
    ])
    lines.push('', ...columns(rows, ['sa', 'spi', 'packets', 'bytes', 'replayed', 'corrupted']))
  }
  const moved = Object.entries(counters).filter(([, value]) => value > 0)
  if (moved.length > 0)
    lines.push(
      '',
      ...columns(
        moved.map(([name, value]) => [name, String(value)]),
        ['counter', 'value'],
      ),
    )
  return lines
}

function factText(value: unknown): string {
  if (value === null || value === undefined) return '-'
  if (Array.isArray(value)) return value.map(factText).join('; ')
  if (typeof value !== 'object') return String(value)
  return Object.entries(value)
    .map(([name, inner]) => `${name} ${String(inner)}`)
    .join(', ')
}
