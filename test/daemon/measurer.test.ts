/** `ippriv measure`: which circuits it builds and what it makes of them; and what downloads it counts, over real TCP. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { NodeId } from '#base/ids'
import { downloadRate, type Measured, measureNode, signReport, type Track } from '#daemon/measurer'
import { ChangedFile } from '#directory/changed-file'
import { decodeMeasurement } from '#directory/measurement'
import { crypto, keyPair } from '../directory/network.ts'
import { seededRng } from '../sim/random.ts'

const folder = mkdtempSync(join(tmpdir(), 'ippriv-measurer-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const node = (name: string, roles: Measured['roles'] = ['entry', 'middle', 'exit']): Measured => ({
  nodeId: name.padEnd(64, '0') as NodeId,
  name,
  roles,
})
const NODES = [node('a'), node('b'), node('c'), node('d', ['entry', 'middle'])]

/** Nodes as fast as `speeds` says; a circuit is as fast as its slowest. What is missing cannot be built. */
function track(speeds: Readonly<Record<string, number>>) {
  const built: string[] = []
  const open = new Set<number>()
  const fake: Track = {
    build: async (path) => {
      assert.equal(open.size, 0, 'one after the other: all circuits of a client share the entry')
      const names = path.map((each) => each.replace(/0*$/, ''))
      if (names.some((name) => speeds[name] === undefined)) throw new Error('no')
      built.push(names.join('>'))
      open.add(built.length)
      return { id: built.length, source: names.join('>') }
    },
    close: async (id) => void open.delete(id),
    download: async (source) => {
      const speed = Math.min(...source.split('>').map((name) => speeds[name]!))
      if (speed < 0) throw new Error('refused')
      return speed
    },
  }
  return { fake, built, open }
}

test('two hops, the node behind others; one hop only when there is no other way', async () => {
  const all = track({ a: 5000, b: 9000, c: 9000, d: 9000 })
  assert.equal(await measureNode(NODES[0]!, NODES, all.fake, seededRng(1)), 5000)
  assert.equal(all.built.length, 2)
  for (const path of all.built) assert.match(path, /^[bcd]>a$/)
  assert.equal(all.open.size, 0)

  const entry = track({ a: 9000, b: 9000, c: 9000, d: 700 })
  assert.equal(await measureNode(NODES[3]!, NODES, entry.fake, seededRng(2)), 700)
  for (const path of entry.built) assert.match(path, /^d>[abc]$/)

  const alone = track({ a: 5000 })
  assert.equal(await measureNode(NODES[0]!, NODES, alone.fake, seededRng(3)), 5000)
  assert.deepEqual(alone.built, ['a'])
})

test('the best partner counts; a node that is gone, or lets nothing through, is 0', async () => {
  const partners = track({ a: 8000, b: 100, d: 8000 })
  const three = [NODES[0]!, NODES[1]!, NODES[3]!]
  assert.equal(await measureNode(NODES[0]!, three, partners.fake, seededRng(4)), 8000)
  const gone = track({ b: 9000, c: 9000, d: 9000 })
  assert.equal(await measureNode(NODES[0]!, NODES, gone.fake, seededRng(5)), 0)
  const deaf = track({ a: -1, b: 9000, c: 9000, d: 9000 })
  assert.equal(await measureNode(NODES[0]!, NODES, deaf.fake, seededRng(6)), 0)
  assert.equal(deaf.open.size, 0, 'closed all the same')
})

test('a download is counted in kilobits per second: a server that paces itself is measured right', async () => {
  const chunk = Buffer.alloc(12_500)
  const server = createServer((_request, response) => {
    // 12,500 octets each 50 ms: 2 Mbit/s on each connection.
    const timer = setInterval(() => response.write(chunk), 50)
    response.on('close', () => clearInterval(timer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const rate = await downloadRate('127.0.0.1', { url, seconds: 3, connections: 2 })
  server.closeAllConnections()
  server.close()
  assert.ok(rate > 1500 && rate < 4600, `${rate} of 4000 kbit/s`)
  await assert.rejects(downloadRate('127.0.0.1', { url, seconds: 1, connections: 2 }), /ECONNREFUSED/)
})

test('a report is signed, read from its file once, and again when it is another', async () => {
  const { privateKey: seed, publicKey } = keyPair('measurer')
  const report = join(folder, 'measurer.report')
  const file = new ChangedFile(report, 2 ** 20)
  assert.equal(await file.next(), undefined, 'none yet')
  writeFileSync(report, signReport(new Map([[NODES[0]!.nodeId, 5000]]), { seed, publicKey }))
  const first = await file.next()
  const read = decodeMeasurement(first!, [publicKey], crypto)
  assert.ok(read.ok)
  assert.deepEqual([...read.value.figures], [[NODES[0]!.nodeId, 5000]])
  assert.equal(await file.next(), undefined)
  utimesSync(report, 1, 1)
  assert.deepEqual(await file.next(), first)
  writeFileSync(report, Buffer.alloc(3 * 1024 * 1024))
  assert.equal(await file.next(), undefined, 'too long to be one')
})
