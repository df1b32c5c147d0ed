/** Files through one, two and three nodes, one at a time and three at once, beside plain HTTP, HTTPS and scp. */
import type { BenchContext, Plot, Table } from '../bench.ts'
import { CHAIN_NODES } from '../chain.ts'
import type { OverlayNetwork } from '../overlay.ts'
import { idleLoad } from '../processors.ts'
import { median } from '../stats.ts'
import type { Downloaded, Downloads, Protection } from './downloads.ts'

export interface FileSample extends Downloaded {
  readonly way: string
  readonly files: number
}

const OCTETS = 32 << 20
const FILES = [1, 3] as const
const CIRCUITS = {
  'ippriv, 1 hop': [CHAIN_NODES[2]],
  'ippriv, 2 hops': [CHAIN_NODES[0], CHAIN_NODES[2]],
  'ippriv, 3 hops': CHAIN_NODES,
} as const

export async function measureFiles(
  { rounds, say }: Pick<BenchContext, 'rounds' | 'say'>,
  downloads: Downloads,
  overlay: OverlayNetwork,
): Promise<FileSample[]> {
  const samples: FileSample[] = []
  for (let round = 1; round <= rounds; round++) {
    const idle = await idleLoad()
    const measure = async (name: string, way: Protection) => {
      for (const files of FILES) {
        const result = await downloads.measure({ way, hosts: 1, files, octets: OCTETS, idle })
        samples.push({ way: name, files, ...result })
      }
    }
    for (const way of downloads.others) await measure(way, way)
    for (const [name, path] of Object.entries(CIRCUITS)) {
      await overlay.openCircuit(path)
      await measure(name, 'ippriv')
    }
    say(`files: round ${round} of ${rounds}`)
  }
  return samples
}

export function fileTable(samples: readonly FileSample[]): Table {
  const of = (way: string, files: number, field: 'mbps' | 'cost') =>
    median(samples.filter((s) => s.way === way && s.files === files).map((s) => s[field]))
  return {
    title: 'files of 32 MiB, against the number of nodes on the way',
    columns: ['way', 'one: Mbit/s', 's/GB', 'three: Mbit/s', 's/GB'],
    rows: [...new Set(samples.map(({ way }) => way))].map((way) => [
      way,
      ...FILES.flatMap((files) => [of(way, files, 'mbps'), of(way, files, 'cost')]),
    ]),
  }
}

export function filePlot(samples: readonly FileSample[]): Plot {
  const panel = (field: string, title: string) => ({
    width: 280,
    height: 240,
    mark: { type: 'point', filled: true, size: 60 },
    encoding: {
      x: { field: 'way', type: 'nominal', sort: null, title: null },
      xOffset: { field: 'files' },
      y: { field, aggregate: 'median', type: 'quantitative', title, scale: { type: 'log' } },
      color: { field: 'files', type: 'nominal', title: 'files at once' },
    },
  })
  return {
    name: 'costs-files',
    values: samples,
    spec: { hconcat: [panel('mbps', 'goodput, Mbit/s'), panel('cost', 'processor seconds per gigabyte')] },
  }
}
