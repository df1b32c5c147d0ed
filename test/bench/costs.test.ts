import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Cell, matrixChoice, matrixPlot, matrixTables } from '../../bench/costs/matrix.ts'
import { measurePackets, packetPlots, packetTables } from '../../bench/costs/packets.ts'
import { costsReport } from '../../bench/costs.ts'
import { draw } from '../../bench/plot.ts'

const cells: Cell[] = (['host to host', 'three to one'] as const).flatMap((topology) =>
  [128, 1280].flatMap((size) =>
    [10, 30, 20].flatMap((mbps, i): Cell[] => {
      const common = { topology, size, round: i + 1, packetsPerSecond: mbps * 1000, cost: 100 / mbps }
      return [
        { ...common, way: 'ippriv', cipher: 'aes-256-gcm-16', mbps },
        { ...common, way: 'HTTPS', cipher: 'aes-256-gcm-16', mbps: 10 * mbps },
        { ...common, way: 'plain', cipher: 'none', mbps: 100 * mbps },
      ]
    }),
  ),
)

test('the matrix: a table for each topology, a row for each way and cipher, medians of the rounds', () => {
  const tables = matrixTables(cells)
  assert.deepEqual(
    tables.map(({ title }) => title.split(':')[0]),
    ['host to host', 'three to one'],
  )
  const [{ columns, rows }] = tables as [(typeof tables)[number]]
  assert.equal(columns.length, 2 + 2 * 3)
  assert.deepEqual(
    rows.find(([way]) => way === 'HTTPS'),
    ['HTTPS', 'aes-256-gcm-16', 200, 20_000, 5, 200, 20_000, 5],
  )
})

test('what of the matrix is wanted', () => {
  assert.deepEqual(matrixChoice({}).sizes, [128, 576, 1280])
  const some = matrixChoice({ sizes: '1280,128', ciphers: 'chacha20-poly1305', topologies: 'gateways' })
  assert.deepEqual(some, { sizes: [128, 1280], ciphers: ['chacha20-poly1305'], topologies: ['gateways'] })
  assert.throws(() => matrixChoice({ ciphers: 'rot13' }), /--ciphers: rot13 is none of aes-128-gcm-16/)
})

test('the report says what is missing between our topologies and the paper’s', () => {
  const { notes } = costsReport(3, { packets: [], matrix: cells, files: [] })
  assert.ok(notes!.some((note) => note.includes('no gateway mode')))
})

test('packets: every driver, and the fastest one where there is one', { timeout: 120_000 }, () => {
  const samples = measurePackets({ rounds: 1, say: () => undefined })
  const drivers = new Set(samples.map(({ driver }) => driver))
  assert.ok(drivers.has('noble') && drivers.size >= 2, [...drivers].join())
  assert.ok(!samples.some(({ driver, fastest }) => fastest && driver === 'noble'))
  assert.ok(samples.every(({ microseconds }) => microseconds > 0))
  const [byCipher, byDriver, byCircuits, byPeers] = packetTables(samples)
  for (const { rows } of [byCipher!, byCircuits!, byPeers!])
    assert.ok(rows.every((row) => row.every((cell) => typeof cell !== 'number' || cell > 0)))
  const total = (driver: string) =>
    Number(byDriver!.rows.find(([name, cipher]) => name === driver && cipher === 'aes-256-gcm-16')!.at(-1))
  assert.ok(total('noble') > total(String(byCipher!.rows[0]![1])))
  assert.deepEqual(
    packetPlots(samples).map(({ name }) => name),
    ['costs-circuits', 'costs-peers'],
  )
})

test('the matrix is drawn', async (t) => {
  const out = await mkdtemp(join(tmpdir(), 'bench-'))
  t.after(() => rm(out, { recursive: true }))
  assert.equal((await draw(matrixPlot(cells), out)).length, 2)
})
