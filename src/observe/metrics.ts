/**
 * The counters of a daemon in the text format that Prometheus scrapes (text/plain; version=0.0.4). What a daemon
 * counts is in its status; nothing here counts. No label names a client, a circuit or an SPI: a series per circuit
 * would be a log of who was there.
 */
import { type StatusOfDirectory, writeDirectoryMetrics } from '#observe/directory-metrics'
import { Exposition } from '#observe/prometheus'
import type { Flow, Traffic } from '#observe/traffic'

export interface StatusOfDaemon extends StatusOfDirectory {
  readonly role: string
  /** Name -> how often. */
  readonly counters?: Readonly<Record<string, number>>
  readonly leases?: { readonly inUse: number; readonly free: number; readonly quarantined: number }
  /** How many (node) or which ones (client). */
  readonly circuits?: number | readonly unknown[]
  readonly overlay?: readonly { readonly state: string }[]
  readonly consensus?: { readonly serial: number; readonly nodes: number } | null
  readonly sas?: readonly { readonly packets: number; readonly bytes: number }[]
  /** Of a node: what all tunnels to peers carried, and what all circuits. */
  readonly traffic?: { readonly overlay: Traffic; readonly circuits: Traffic }
}

/** Samples of one status; every line ends in a line feed. */
export function renderMetrics(status: StatusOfDaemon): string {
  const exposition = new Exposition({ role: status.role })
  const family: Exposition['family'] = (...parts) => exposition.family(...parts)
  const { counters, leases, circuits, overlay, consensus, sas, traffic } = status
  family(
    'ippriv_events_total',
    'counter',
    'What the daemon refused, ignored or counted, by name.',
    Object.entries(counters ?? {}).map(([event, value]) => [{ event }, value]),
  )
  family(
    'ippriv_leases',
    'gauge',
    'Private addresses of the own pool, by state.',
    Object.entries(leases ?? {}).map(([state, value]) => [{ state }, value]),
  )
  if (circuits !== undefined)
    family('ippriv_circuits', 'gauge', 'Circuits that exist.', [
      [{}, typeof circuits === 'number' ? circuits : circuits.length],
    ])
  family(
    'ippriv_overlay_tunnels',
    'gauge',
    'Overlay tunnels, by state.',
    [...countBy(overlay ?? [], (t) => t.state)].map(([state, value]) => [{ state }, value]),
  )
  if (consensus)
    family('ippriv_consensus_nodes', 'gauge', 'Nodes in the consensus in use.', [[{}, consensus.nodes]])
  if (sas !== undefined) {
    family('ippriv_sas', 'gauge', 'ESP SAs in the data plane.', [[{}, sas.length]])
    family('ippriv_sa_bytes', 'gauge', 'Octets through the SAs that exist now.', [
      [{}, sum(sas.map((sa) => sa.bytes))],
    ])
    family('ippriv_sa_packets', 'gauge', 'Packets through the SAs that exist now.', [
      [{}, sum(sas.map((sa) => sa.packets))],
    ])
  }
  if (traffic !== undefined) {
    const flows = Object.entries(traffic).flatMap(([carrier, { in: inward, out }]) => [
      [{ carrier, direction: 'in' }, inward] as const,
      [{ carrier, direction: 'out' }, out] as const,
    ])
    const of = (name: keyof Flow) => flows.map(([labels, flow]) => [labels, flow[name]] as const)
    family('ippriv_traffic_bytes', 'gauge', 'Octets through the SAs that exist now, of all.', of('bytes'))
    family(
      'ippriv_traffic_packets',
      'gauge',
      'Packets through the SAs that exist now, of all.',
      of('packets'),
    )
    const refused = (['replayed', 'corrupted'] as const).flatMap((reason) =>
      of(reason).map(([labels, value]) => [{ ...labels, reason }, value] as const),
    )
    const inward = refused.filter(([{ direction }]) => direction === 'in')
    family('ippriv_traffic_refused', 'gauge', 'Packets that SAs refused, by reason.', inward)
  }
  writeDirectoryMetrics(status, exposition)
  return exposition.toString()
}

function countBy<T>(items: readonly T[], key: (item: T) => string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1)
  return counts
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
