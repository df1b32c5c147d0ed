/**
 * The matrix of Miltchev and others, "A Study of the Relative Costs of Network Security Protocols", in our setting: cipher by packet size by
 * topology, beside plain HTTP, HTTPS and scp with the same ciphers, with real traffic between namespaces.
 */
import type { EspCipher } from '#crypto/suites'
import type { BenchContext, Plot, Table } from '../bench.ts'
import { CHAIN_NODES } from '../chain.ts'
import { CLIENTS, type OverlayNetwork } from '../overlay.ts'
import { idleLoad } from '../processors.ts'
import { figure, median } from '../stats.ts'
import type { Downloads, Protection } from './downloads.ts'

/** By what they are here; the note says how far each is from the one of old. */
export const TOPOLOGIES = {
  'host to host': { path: [CHAIN_NODES[2]], hosts: 1 },
  gateways: { path: [CHAIN_NODES[0], CHAIN_NODES[2]], hosts: 1 },
  'three to one': { path: [CHAIN_NODES[2]], hosts: 3 },
} as const
export type TopologyName = keyof typeof TOPOLOGIES

export const MATRIX_CIPHERS: readonly EspCipher[] = ['aes-128-gcm-16', 'aes-256-gcm-16', 'chacha20-poly1305']
/** Octets of the IP packets that the server sends, before any layer of ours. */
export const MATRIX_SIZES = [128, 576, 1280] as const

export interface Cell {
  readonly topology: TopologyName
  readonly way: Protection
  /** `none` of what is plain. */
  readonly cipher: EspCipher | 'none'
  readonly size: number
  readonly round: number
  readonly mbps: number
  /** Of the server's data, computed from goodput. */
  readonly packetsPerSecond: number
  readonly cost: number
}

/** What of the matrix is measured. */
export interface MatrixChoice {
  readonly topologies: readonly TopologyName[]
  readonly ciphers: readonly EspCipher[]
  readonly sizes: readonly number[]
}

export const MATRIX_NOTES = [
  'Matrix: downloads; the packet size is that of the server’s IP packets (a limit of its route), with one segment per packet on all cables (on long ones, as in the files below, plain is many times as fast). Session set-up is included, as in the paper.',
  'Host to host: one hop, the exit being the server’s next neighbour: a node is no destination of its own exit. Gateways: two hops, the entry beside the client and the exit beside the server. IPpriv has no gateway mode: a client forwards for nobody, so its host is the end of the tunnel there too, where the paper’s was not. Three to one: three hosts, each with a client and a circuit of one hop over the same exit, and no gateway for them.',
  'The ciphers are those of the circuit’s layers, and HTTPS and scp use the same; the tunnel between two nodes has AES-256-GCM. Without a circuit both topologies of one host are the same cables.',
]

/** IPv4, TCP and its timestamps. */
const HEADERS = 52
/** Of each file, in every cell, so that small ones do not take for ever. */
const PACKETS = 15_000

/** @throws Error naming what is not in the matrix */
export function matrixChoice(options: BenchContext['options']): MatrixChoice {
  return {
    topologies: chosen(options.topologies, Object.keys(TOPOLOGIES) as TopologyName[], '--topologies'),
    ciphers: chosen(options.ciphers, MATRIX_CIPHERS, '--ciphers'),
    sizes: chosen(options.sizes, MATRIX_SIZES.map(String), '--sizes').map(Number),
  }
}

export async function measureMatrix(
  { rounds, say }: Pick<BenchContext, 'rounds' | 'say'>,
  { topologies, ciphers, sizes }: MatrixChoice,
  downloads: Downloads,
  overlay: OverlayNetwork,
): Promise<Cell[]> {
  const cells: Cell[] = []
  for (let round = 1; round <= rounds; round++) {
    const idle = await idleLoad()
    const measure = async (where: readonly TopologyName[], way: Protection, cipher?: EspCipher) => {
      const [first] = where
      if (first === undefined) return
      for (const size of sizes) {
        await downloads.limitPackets(size)
        const payload = size - HEADERS
        const octets = PACKETS * payload
        const { hosts } = TOPOLOGIES[first]
        const load = { way, hosts, files: 1, octets, idle, ...(cipher === undefined ? {} : { cipher }) }
        const { mbps, cost } = await downloads.measure(load)
        const packetsPerSecond = (mbps * 1e6) / 8 / payload
        say(
          `${way} ${cipher ?? ''} ${where.join(', ')}, ${size}: ${figure(mbps)} Mbit/s, ${figure(cost)} s/GB`,
        )
        for (const topology of where)
          cells.push({ topology, way, cipher: cipher ?? 'none', size, round, mbps, packetsPerSecond, cost })
      }
    }
    const [one, three] = [1, 3].map((hosts) =>
      topologies.filter((topology) => TOPOLOGIES[topology].hosts === hosts),
    )
    for (const way of downloads.others)
      for (const cipher of way === 'plain' ? [undefined] : ciphers)
        for (const where of [one!, three!]) await measure(where, way, cipher)
    for (const cipher of ciphers)
      for (const topology of topologies) {
        const { path, hosts } = TOPOLOGIES[topology]
        for (const client of CLIENTS.slice(0, hosts)) await overlay.openCircuit(path, { client, cipher })
        await measure([topology], 'ippriv', cipher)
        // Their hosts are plain again.
        for (const client of CLIENTS.slice(1, hosts)) await overlay.stopClient(client)
      }
    await downloads.limitPackets(undefined)
    say(`matrix: round ${round} of ${rounds}`)
  }
  return cells
}

export function matrixTables(cells: readonly Cell[]): Table[] {
  const unique = <T>(values: readonly T[]): T[] => [...new Set(values)]
  const sizes = unique(cells.map(({ size }) => size)).sort((a, b) => a - b)
  return unique(cells.map(({ topology }) => topology)).map((topology): Table => {
    const here = cells.filter((cell) => cell.topology === topology)
    const rows = unique(here.map(({ way, cipher }) => `${way}|${cipher}`)).map((row) => row.split('|'))
    return {
      title: `${topology}: Mbit/s, packets per second and processor seconds per gigabyte, by octets of a packet`,
      columns: ['way', 'cipher', ...sizes.flatMap((size) => [`${size}: Mbit/s`, 'packets/s', 's/GB'])],
      rows: rows.map(([way, cipher]) => [
        way!,
        cipher!,
        ...sizes.flatMap((size) => {
          const of = (field: 'mbps' | 'packetsPerSecond' | 'cost') =>
            median(
              here
                .filter((c) => c.way === way && c.cipher === cipher && c.size === size)
                .map((c) => c[field]),
            )
          return [of('mbps'), of('packetsPerSecond'), of('cost')]
        }),
      ]),
    }
  })
}

export function matrixPlot(cells: readonly Cell[]): Plot {
  const panel = (field: string, title: string) => ({
    facet: { column: { field: 'topology', type: 'nominal', sort: null, title: null } },
    spec: {
      width: 220,
      height: 200,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'size', type: 'quantitative', title: 'octets of a packet' },
        y: { field, aggregate: 'median', type: 'quantitative', title, scale: { type: 'log' } },
        color: { field: 'way', type: 'nominal', sort: null, title: null },
        strokeDash: { field: 'cipher', type: 'nominal', sort: null, title: null },
      },
    },
  })
  return {
    name: 'costs-matrix',
    values: cells,
    spec: { vconcat: [panel('mbps', 'goodput, Mbit/s'), panel('cost', 'processor seconds per gigabyte')] },
  }
}

function chosen<T extends string>(text: unknown, all: readonly T[], flag: string): T[] {
  if (typeof text !== 'string') return [...all]
  const wanted = text.split(',').map((word) => word.trim())
  const unknown = wanted.find((word) => !(all as readonly string[]).includes(word))
  if (unknown !== undefined) throw new Error(`${flag}: ${unknown} is none of ${all.join(', ')}`)
  return all.filter((one) => wanted.includes(one))
}
