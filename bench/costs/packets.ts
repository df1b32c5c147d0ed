/** What the packet engine does with a packet: by role, cipher, size, crypto driver, and how much it has to know. */
import { ESP_CIPHER_NAMES, type EspCipher } from '#crypto/suites'
import { driverSpeeds, MEASURED_LENGTHS, measure } from '#linux/driver-speed'
import { availableDrivers } from '#linux/drivers'
import { Arena } from '#linux/ffi'
import type { CipherDriver } from '#telescope/seal'
import type { BenchContext, Plot, Table } from '../bench.ts'
import { median } from '../stats.ts'
import { Line, type LineRole, type LineSize, ROLES, type Way } from './line.ts'

export interface PacketSample {
  readonly driver: string
  /** Whether that driver is the cipher's fastest, which is what daemons take. */
  readonly fastest: boolean
  readonly cipher: EspCipher
  readonly length: number
  readonly circuits: number
  /** Nodes beside the three of the line. */
  readonly peers: number
  readonly way: Way
  readonly role: LineRole
  readonly microseconds: number
}

const LENGTHS = [64, 256, 576, 1280]
const CIRCUITS = [1, 10, 100, 1000, 10_000]
const PEERS = [0, 10, 100, 1000]
const [CIPHER, LENGTH] = [ESP_CIPHER_NAMES[0]!, 1280]
/** Packets per measurement; half as many make the compiler warm. */
const PACKETS = 2000
/** Of drivers that daemons would not take. */
const FEW = 200
const RANKING_LENGTH = 1400
const RANKING_MS = 20

export function measurePackets({ rounds, say }: Pick<BenchContext, 'rounds' | 'say'>): PacketSample[] {
  const memory = new Arena(8192)
  const drivers = availableDrivers(memory)
  const samples: PacketSample[] = []
  const run = (
    { driver, fastest }: Ranked,
    cipher: EspCipher,
    lengths: readonly number[],
    { circuits, peers = 0 }: LineSize,
  ) => {
    const line = new Line(memory, driver, cipher, { circuits, peers })
    const packets = fastest ? PACKETS : FEW
    for (const length of lengths) {
      line.measure(packets / 2, length)
      for (let round = 0; round < rounds; round++) {
        const costs = line.measure(packets, length)
        const common = { driver: driver.name, fastest, cipher, length, circuits, peers }
        for (const way of ['up', 'down'] as const)
          for (const role of ROLES) samples.push({ ...common, way, role, microseconds: costs[way][role] })
      }
    }
  }
  for (const cipher of ESP_CIPHER_NAMES) {
    for (const ranked of rank(memory, drivers, cipher)) run(ranked, cipher, LENGTHS, { circuits: 1 })
    say(`packets: ${cipher}`)
  }
  const best = rank(memory, drivers, CIPHER)[0]!
  for (const circuits of CIRCUITS.slice(1)) {
    run(best, CIPHER, [LENGTH], { circuits })
    say(`packets: ${circuits} circuits`)
  }
  for (const peers of PEERS.slice(1)) {
    run(best, CIPHER, [LENGTH], { circuits: 1, peers })
    say(`packets: ${peers} other nodes`)
  }
  return samples
}

interface Ranked {
  readonly driver: CipherDriver
  readonly fastest: boolean
}

/** Those that do the cipher, fastest first, as they are now. */
function rank(memory: Arena, drivers: readonly CipherDriver[], cipher: EspCipher): Ranked[] {
  return drivers
    .flatMap((driver) => {
      const times = (['seal', 'open', 'seal', 'open'] as const).map((use) =>
        measure(driver, memory, { cipher, use, length: RANKING_LENGTH, budget: RANKING_MS }),
      )
      // The first of each use measures the compiler.
      const [seal, open] = times.slice(2)
      return typeof seal === 'number' && typeof open === 'number' ? [{ driver, speed: seal + open }] : []
    })
    .sort((a, b) => a.speed - b.speed)
    .map(({ driver }, i) => ({ driver, fastest: i === 0 }))
}

// ---------------------------------------------------------------------------------------------- the report

export function packetTables(samples: readonly PacketSample[]): Table[] {
  const select = (where: Partial<PacketSample>) =>
    samples.filter((sample) =>
      Object.entries(where).every(([name, value]) => sample[name as keyof PacketSample] === value),
    )
  const cost = (where: Partial<PacketSample>) => median(select(where).map(({ microseconds }) => microseconds))
  const columns = [...ROLES.map((role) => `${role} up`), ...ROLES.map((role) => `${role} down`)]
  const both = (where: Partial<PacketSample>) =>
    (['up', 'down'] as const).flatMap((way) => ROLES.map((role) => cost({ ...where, way, role })))
  const whole = (where: Partial<PacketSample>) => both(where).reduce((sum, value) => sum + value, 0) / 2
  const small = { circuits: 1, peers: 0 }
  const fastest = (cipher: EspCipher) => select({ ...small, cipher, fastest: true })[0]?.driver ?? '-'
  return [
    {
      title: 'microseconds per packet, by cipher and octets of the inner packet, with the fastest driver',
      columns: ['cipher', 'driver', 'octets', ...columns],
      rows: ESP_CIPHER_NAMES.flatMap((cipher) =>
        LENGTHS.map((length) => [
          cipher,
          fastest(cipher),
          String(length),
          ...both({ ...small, cipher, length, fastest: true }),
        ]),
      ),
    },
    {
      title: 'microseconds of all four for a packet, mean of both ways, by driver, cipher and octets',
      columns: ['driver', 'cipher', ...LENGTHS.map(String)],
      rows: [...new Set(samples.map(({ driver }) => driver))].flatMap((driver) =>
        ESP_CIPHER_NAMES.map((cipher) => [
          driver,
          cipher,
          ...LENGTHS.map((length) => whole({ ...small, driver, cipher, length })),
        ]),
      ),
    },
    {
      title: `microseconds per packet of ${LENGTH} octets, by circuits (${CIPHER})`,
      columns: ['circuits', ...columns],
      rows: CIRCUITS.map((circuits) => [
        String(circuits),
        ...both({ fastest: true, cipher: CIPHER, length: LENGTH, circuits, peers: 0 }),
      ]),
    },
    {
      title: `microseconds per packet of ${LENGTH} octets, by other nodes that all three have tunnels to (${CIPHER})`,
      columns: ['nodes', ...columns],
      rows: PEERS.map((peers) => [
        String(peers),
        ...both({ fastest: true, cipher: CIPHER, length: LENGTH, circuits: 1, peers }),
      ]),
    },
    {
      title: 'microseconds of one layer, by crypto driver and octets',
      columns: [
        ...['driver', 'cipher'],
        ...['seal', 'open'].flatMap((use) => MEASURED_LENGTHS.map((length) => `${use} ${length}`)),
      ],
      rows: driverSpeeds(RANKING_MS).map(({ driver, cipher, microseconds, microsecondsToOpen }) => [
        driver,
        cipher,
        ...[microseconds, microsecondsToOpen].flatMap((by) =>
          MEASURED_LENGTHS.map((length) => by[length] ?? '-'),
        ),
      ]),
    },
  ]
}

/** Against circuits, and against nodes. */
export function packetPlots(samples: readonly PacketSample[]): Plot[] {
  const like = samples.filter(
    ({ fastest, cipher, length }) => fastest && cipher === CIPHER && length === LENGTH,
  )
  const plot = (field: 'circuits' | 'peers', title: string, values: readonly PacketSample[]): Plot => ({
    name: `costs-${field}`,
    values,
    spec: {
      width: 320,
      height: 240,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field, type: 'quantitative', scale: { type: field === 'peers' ? 'symlog' : 'log' }, title },
        y: {
          field: 'microseconds',
          aggregate: 'median',
          type: 'quantitative',
          title: `µs per packet of ${LENGTH} octets`,
        },
        color: { field: 'role', type: 'nominal', title: null },
      },
    },
  })
  return [
    plot(
      'circuits',
      'circuits',
      like.filter(({ peers }) => peers === 0),
    ),
    plot(
      'peers',
      'other nodes',
      like.filter(({ circuits }) => circuits === 1),
    ),
  ]
}
