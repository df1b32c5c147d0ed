/**
 * Planes over a circuit of real machines (docs/testbed.md): direct from the client's machine, and through the circuit,
 * in turns; every round has new daemons for each plane.
 */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Commands } from '#demo/command'
import { parsePing } from '#demo/traffic'
import type { PlaneKind } from '#telescope/plane'
import type { BenchContext, Report, Table } from './bench.ts'
import { readBulk } from './bulk.ts'
import { median } from './stats.ts'
import { readTestbed } from './testbed/hosts.ts'
import { TestbedOverlay } from './testbed/overlay.ts'
import type { Remote } from './testbed/remote.ts'

export type TestbedSide = 'direct' | PlaneKind

export interface TestbedSample {
  readonly side: TestbedSide
  readonly load: string
  readonly round: number
  readonly mbps?: number
  readonly retransmissions?: number
  /** Processor seconds of each machine per gigabyte, whatever it did. */
  readonly cost?: Readonly<Record<string, number>>
  /** Round trip of 1,024 octets, ms. */
  readonly ms?: number
}

const LOADS = [
  ['1 down', '-P 1 -R'],
  ['1 up', '-P 1'],
  ['5 down', '-P 5 -R'],
  ['5 up', '-P 5'],
] as const
const PINGS = 100

export async function runTestbed({ options, rounds, signal, say }: BenchContext): Promise<Report> {
  const testbed = readTestbed(await readFile(String(options.hosts), 'utf8'))
  const seconds = Number(options.seconds)
  const commands = new Commands(signal)
  const overlay = new TestbedOverlay(commands, testbed, `ipph${process.pid}`)
  const samples: TestbedSample[] = []
  try {
    await overlay.install(resolve(import.meta.dirname, '..'))
    say(testbed.install ? 'installed' : 'not installed: it is there')
    await overlay.prepare()
    for (let round = 1; round <= rounds; round++)
      for (const plane of testbed.planes) {
        await overlay.start(plane)
        say(`round ${round} of ${rounds}: ${plane}, the circuit is open`)
        for (const side of ['direct', plane] as const)
          samples.push({ side, load: 'idle', round, ms: await trip(overlay, side) })
        for (const [load, flags] of LOADS)
          for (const side of ['direct', plane] as const)
            samples.push({ side, load, round, ...(await transfer(overlay, side, flags, seconds)) })
        await overlay.stop()
      }
    return testbedReport(
      rounds,
      overlay.machines.map(({ machine }) => machine.name),
      samples,
    )
  } finally {
    await overlay.clean()
  }
}

const from = (overlay: TestbedOverlay, side: TestbedSide, command: string): string =>
  side === 'direct' ? command : overlay.onClient(command)

async function trip(overlay: TestbedOverlay, side: TestbedSide): Promise<number> {
  const ping = `ping -n -q -i 0.02 -s 996 -c ${PINGS} ${overlay.server.machine.address}`
  return parsePing(await overlay.client.sh(`${from(overlay, side, ping)} || :`)).rttMs?.average ?? Number.NaN
}

async function transfer(
  overlay: TestbedOverlay,
  side: TestbedSide,
  flags: string,
  seconds: number,
): Promise<Pick<TestbedSample, 'mbps' | 'retransmissions' | 'cost'>> {
  const command = `iperf3 -J -c ${overlay.server.machine.address} -t ${seconds} ${flags} || :`
  const before = await Promise.all(overlay.machines.map(busySeconds))
  const said = await overlay.client.sh(from(overlay, side, command), { timeoutMs: (seconds + 60) * 1000 })
  const after = await Promise.all(overlay.machines.map(busySeconds))
  const { mbps, octets, retransmissions } = readBulk(said)
  const cost = Object.fromEntries(
    overlay.machines.map(({ machine }, i) => [machine.name, (1e9 * (after[i]! - before[i]!)) / octets]),
  )
  return { mbps, retransmissions, cost }
}

/** proc(5), /proc/stat: user, nice, system, irq and softirq in ticks of 10 ms, of all processors. */
async function busySeconds(remote: Remote): Promise<number> {
  const [user, nice, system, , , irq, softirq] = (await remote.sh('head -n 1 /proc/stat'))
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user! + nice! + system! + irq! + softirq!) / 100
}

export function testbedReport(
  rounds: number,
  machines: readonly string[],
  samples: readonly TestbedSample[],
): Report {
  const sides = [...new Set(samples.map(({ side }) => side))]
  const of = (side: TestbedSide, load: string, value: (sample: TestbedSample) => number | undefined) =>
    median(samples.filter((s) => s.side === side && s.load === load).flatMap((s) => value(s) ?? []))
  const loads = LOADS.map(([load]) => load)
  const table = (
    title: string,
    rows: readonly string[],
    value: (sample: TestbedSample) => number | undefined,
  ): Table => ({
    title,
    columns: ['load', ...sides],
    rows: rows.map((load) => [load, ...sides.map((side) => of(side, load, value))]),
  })
  return {
    title: `Planes on a testbed, ${machines.length - 2} hops, medians of ${rounds} rounds`,
    tables: [
      table('goodput, Mbit/s', loads, ({ mbps }) => mbps),
      table('retransmissions', loads, ({ retransmissions }) => retransmissions),
      table('round trip of 1,024 octets, ms', ['idle'], ({ ms }) => ms),
      {
        title: 'processor seconds of each machine per gigabyte, one stream down',
        columns: ['side', ...machines],
        rows: sides.map((side) => [
          side,
          ...machines.map((name) => of(side, '1 down', ({ cost }) => cost?.[name])),
        ]),
      },
    ],
    targets: [],
    samples,
    plots: [
      {
        name: 'testbed-goodput',
        values: samples.filter(({ mbps }) => mbps !== undefined),
        spec: {
          mark: { type: 'boxplot', extent: 'min-max' },
          encoding: {
            x: { field: 'load', type: 'nominal', sort: null, title: 'streams' },
            xOffset: { field: 'side' },
            y: { field: 'mbps', type: 'quantitative', scale: { type: 'log' }, title: 'Mbit/s' },
            color: { field: 'side', type: 'nominal' },
          },
        },
      },
    ],
    notes: [
      'Direct is from the client’s machine itself; the circuit begins in a network namespace of it, one veth pair further.',
      'Processor time is the whole machine’s, so nothing else should run there.',
    ],
  }
}
