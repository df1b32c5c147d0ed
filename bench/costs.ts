/**
 * What protection costs: a packet in every role, cipher and size, among one circuit and ten thousand, with each crypto
 * driver; real traffic by cipher, packet size and topology; and files through one to three hops: beside plain HTTP,
 * HTTPS and scp.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Commands } from '#demo/command'
import type { Bench, BenchContext, Report } from './bench.ts'
import { type Chain, fellChain, raiseChain, realSegments } from './chain.ts'
import { Downloads } from './costs/downloads.ts'
import { type FileSample, filePlot, fileTable, measureFiles } from './costs/files.ts'
import {
  type Cell,
  MATRIX_CIPHERS,
  MATRIX_NOTES,
  MATRIX_SIZES,
  type MatrixChoice,
  matrixChoice,
  matrixPlot,
  matrixTables,
  measureMatrix,
  TOPOLOGIES,
} from './costs/matrix.ts'
import { measurePackets, type PacketSample, packetPlots, packetTables } from './costs/packets.ts'
import { OverlayNetwork } from './overlay.ts'

const PARTS = ['packets', 'matrix', 'files'] as const
type Part = (typeof PARTS)[number]

interface Samples {
  readonly packets: readonly PacketSample[]
  readonly matrix: readonly Cell[]
  readonly files: readonly FileSample[]
}

export const bench: Bench = {
  name: 'costs',
  summary: 'processor time of packets; cipher by packet size by topology, and files, beside HTTPS and scp',
  rounds: 5,
  minutesPerRound: 4,
  options: [
    ['--part <parts>', `with commas: ${PARTS.join(', ')}; or all`, 'all'],
    ['--topologies <list>', `of the matrix, with commas: ${Object.keys(TOPOLOGIES).join(', ')}`],
    ['--ciphers <list>', `of the matrix: ${MATRIX_CIPHERS.join(', ')}`],
    ['--sizes <list>', `of the matrix: ${MATRIX_SIZES.join(', ')}`],
  ],
  run: async (context) => {
    const parts = partsOf(context.options.part)
    const choice = matrixChoice(context.options)
    const packets = parts.has('packets') ? measurePackets(context) : []
    const traffic =
      parts.has('matrix') || parts.has('files') ? await measureTraffic(context, parts, choice) : NO_TRAFFIC
    return costsReport(context.rounds, { packets, ...traffic })
  },
}

const NO_TRAFFIC = { matrix: [], files: [] }

function partsOf(text: unknown): Set<Part> {
  if (text === 'all') return new Set(PARTS)
  const words = String(text).split(',')
  const wrong = words.find((word) => !(PARTS as readonly string[]).includes(word))
  if (wrong !== undefined) throw new Error(`--part: ${wrong} is none of ${PARTS.join(', ')}, all`)
  return new Set(words as Part[])
}

async function measureTraffic(
  context: BenchContext,
  parts: ReadonlySet<Part>,
  choice: MatrixChoice,
): Promise<Omit<Samples, 'packets'>> {
  const { signal, say } = context
  const commands = new Commands(signal)
  const chain: Chain = { id: `ippc${process.pid}` }
  const home = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
  try {
    await raiseChain(commands, chain)
    const downloads = new Downloads(commands, chain, join(home, 'files'))
    await downloads.start()
    const overlay = new OverlayNetwork(commands, chain, join(home, 'ippriv'))
    await overlay.start()
    say(`everything is up${downloads.others.includes('scp') ? '' : ', but there is no ssh server'}`)
    const files = parts.has('files') ? await measureFiles(context, downloads, overlay) : []
    await realSegments(commands, chain, true)
    const matrix = parts.has('matrix') ? await measureMatrix(context, choice, downloads, overlay) : []
    return { matrix, files }
  } finally {
    await commands.killAll(2000)
    await fellChain(commands, chain)
    await rm(home, { recursive: true, force: true })
  }
}

/** Of what was measured. */
export function costsReport(rounds: number, { packets, matrix, files }: Samples): Report {
  return {
    title: `What protection costs, medians of ${rounds} rounds`,
    tables: [
      ...(packets.length > 0 ? packetTables(packets) : []),
      ...(matrix.length > 0 ? matrixTables(matrix) : []),
      ...(files.length > 0 ? [fileTable(files)] : []),
    ],
    targets: [],
    plots: [
      ...(packets.length > 0 ? packetPlots(packets) : []),
      ...(matrix.length > 0 ? [matrixPlot(matrix)] : []),
      ...(files.length > 0 ? [filePlot(files)] : []),
    ],
    samples: { packets, matrix, files },
    notes: [
      ...(packets.length > 0
        ? [
            'A packet in a role is what the packet engine does with it, in one thread: the client seals or opens three layers, the entry and the exit two, the middle three. Sockets and the TUN come on top; copying it in and out of the buffer, below a microsecond, is included. The fastest driver is the one that was fastest for that cipher just before.',
          ]
        : []),
      ...(matrix.length > 0 ? MATRIX_NOTES : []),
      ...(files.length > 0
        ? [
            'Files: with three at once they share one circuit, and one segment is as long as the kernel likes.',
          ]
        : []),
      ...(matrix.length + files.length > 0
        ? ['Traffic: the machine’s processors above idle, both ends and all hosts between included.']
        : []),
    ],
  }
}
