/**
 * What protection costs: a packet in every role, cipher and size, among one circuit and ten thousand, with each crypto
 * driver; and files through one to three hops beside plain HTTP, HTTPS and scp.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { Commands } from '#demo/command'
import { driverSpeeds, MEASURED_LENGTHS } from '#linux/driver-speed'
import { availableDrivers } from '#linux/drivers'
import { Arena } from '#linux/ffi'
import type { Bench, BenchContext, Plot, Report, Table } from './bench.ts'
import { type Chain, fellChain, raiseChain } from './chain.ts'
import { Line, type LineRole, ROLES, type Way } from './costs/line.ts'
import { type Transfer, Transfers } from './costs/transfers.ts'
import { OverlayNetwork } from './overlay.ts'
import { median } from './stats.ts'

const CIPHERS = Object.keys(ESP_CIPHERS) as EspCipher[]
const LENGTHS = [64, 256, 576, 1280]
const CIRCUITS = [1, 10, 100, 1000, 10_000]
/** Packets per measurement; half as many make the compiler warm. */
const PACKETS = 2000

interface PacketSample {
  readonly cipher: EspCipher
  readonly length: number
  readonly circuits: number
  readonly way: Way
  readonly role: LineRole
  readonly microseconds: number
}

export const bench: Bench = {
  name: 'costs',
  summary:
    'processor time of a packet by role, cipher, size and number of circuits; files beside HTTPS and scp',
  rounds: 5,
  options: [['--part <part>', 'packets, files, or all', 'all']],
  run: async (context) => {
    const { part } = context.options
    const packets = part === 'files' ? [] : measurePackets(context)
    const files = part === 'packets' ? [] : await measureFiles(context)
    return report(context, packets, files)
  },
}

function measurePackets({ rounds, say }: BenchContext): PacketSample[] {
  const memory = new Arena(8192)
  const driver = availableDrivers(memory)[0]!
  const samples: PacketSample[] = []
  const measure = (line: Line, cipher: EspCipher, length: number, circuits: number) => {
    line.measure(PACKETS / 2, length)
    for (let round = 0; round < rounds; round++) {
      const costs = line.measure(PACKETS, length)
      for (const way of ['up', 'down'] as const)
        for (const role of ROLES)
          samples.push({ cipher, length, circuits, way, role, microseconds: costs[way][role] })
    }
  }
  for (const cipher of CIPHERS) {
    const line = new Line(memory, driver, cipher, 1)
    for (const length of LENGTHS) measure(line, cipher, length, 1)
    say(`packets: ${cipher}`)
  }
  for (const circuits of CIRCUITS.slice(1)) {
    measure(new Line(memory, driver, CIPHERS[0]!, circuits), CIPHERS[0]!, 1280, circuits)
    say(`packets: ${circuits} circuits`)
  }
  return samples
}

async function measureFiles({ rounds, signal, say }: BenchContext): Promise<Transfer[]> {
  const commands = new Commands(signal)
  const chain: Chain = { id: `ippc${process.pid}` }
  const home = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
  try {
    await raiseChain(commands, chain)
    const transfers = new Transfers(commands, chain, join(home, 'files'))
    await transfers.start()
    const overlay = new OverlayNetwork(commands, chain, join(home, 'ippriv'))
    await overlay.start()
    say(`files: everything is up${transfers.hasSsh ? '' : ', but there is no ssh server'}`)
    const samples: Transfer[] = []
    for (let round = 1; round <= rounds; round++) {
      samples.push(...(await transfers.round(overlay)))
      say(`files: round ${round} of ${rounds}`)
    }
    return samples
  } finally {
    await commands.killAll(2000)
    await fellChain(commands, chain)
    await rm(home, { recursive: true, force: true })
  }
}

// ---------------------------------------------------------------------------------------------- the report

function report(
  { rounds }: BenchContext,
  packets: readonly PacketSample[],
  files: readonly Transfer[],
): Report {
  return {
    title: `What protection costs, medians of ${rounds} rounds`,
    tables: [
      ...(packets.length > 0 ? packetTables(packets) : []),
      ...(files.length > 0 ? [fileTable(files)] : []),
    ],
    targets: [],
    plots: packets.length > 0 ? [circuitsPlot(packets)] : [],
    samples: { packets, files },
    notes: [
      'A packet in a role is what the packet engine does with it, in one thread with the fastest crypto driver: the client seals or opens three layers, the entry and the exit two, the middle three. Sockets and the TUN come on top; copying it in and out of the buffer, below a microsecond, is included.',
      'Files: the machine’s processors above idle, both ends and all hosts between included. With three files at once they share one circuit.',
    ],
  }
}

function packetTables(samples: readonly PacketSample[]): Table[] {
  const cost = (where: Partial<PacketSample>) =>
    median(
      samples
        .filter((sample) =>
          Object.entries(where).every(([name, value]) => sample[name as keyof PacketSample] === value),
        )
        .map(({ microseconds }) => microseconds),
    )
  const columns = [...ROLES.map((role) => `${role} up`), ...ROLES.map((role) => `${role} down`)]
  const both = (where: Partial<PacketSample>) =>
    (['up', 'down'] as const).flatMap((way) => ROLES.map((role) => cost({ ...where, way, role })))
  return [
    {
      title: 'microseconds per packet, by cipher and octets of the inner packet',
      columns: ['cipher', 'octets', ...columns],
      rows: CIPHERS.flatMap((cipher) =>
        LENGTHS.map((length) => [cipher, String(length), ...both({ cipher, length, circuits: 1 })]),
      ),
    },
    {
      title: `microseconds per packet of 1280 octets, by circuits (${CIPHERS[0]})`,
      columns: ['circuits', ...columns],
      rows: CIRCUITS.map((circuits) => [
        String(circuits),
        ...both({ cipher: CIPHERS[0]!, length: 1280, circuits }),
      ]),
    },
    {
      title: 'microseconds to seal one layer, by crypto driver',
      columns: ['driver', 'cipher', ...MEASURED_LENGTHS.map((length) => `${length} octets`)],
      rows: driverSpeeds(20).map(({ driver, cipher, microseconds }) => [
        driver,
        cipher,
        ...MEASURED_LENGTHS.map((length) => microseconds[length] ?? '-'),
      ]),
    },
  ]
}

function fileTable(samples: readonly Transfer[]): Table {
  const of = (way: string, files: number, field: 'mbps' | 'cost') =>
    median(samples.filter((s) => s.way === way && s.files === files).map((s) => s[field]))
  return {
    title: 'files of 32 MiB',
    columns: ['way', 'one: Mbit/s', 's/GB', 'three: Mbit/s', 's/GB'],
    rows: [...new Set(samples.map(({ way }) => way))].map((way) => [
      way,
      ...[1, 3].flatMap((files) => [of(way, files, 'mbps'), of(way, files, 'cost')]),
    ]),
  }
}

const circuitsPlot = (samples: readonly PacketSample[]): Plot => ({
  name: 'costs-circuits',
  values: samples.filter(({ cipher, length }) => cipher === CIPHERS[0] && length === 1280),
  spec: {
    width: 320,
    height: 240,
    mark: { type: 'line', point: true },
    encoding: {
      x: { field: 'circuits', type: 'quantitative', scale: { type: 'log' }, title: 'circuits' },
      y: {
        field: 'microseconds',
        aggregate: 'median',
        type: 'quantitative',
        title: 'µs per packet of 1280 octets',
      },
      color: { field: 'role', type: 'nominal', title: null },
    },
  },
})
