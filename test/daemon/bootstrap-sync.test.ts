/** Daemons with a bootstrap file: they follow the network's changes, and nobody else's. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import type { KeyPair } from '#crypto/provider'
import { BootstrapFile } from '#daemon/bootstrap-file'
import { BootstrapSync } from '#daemon/bootstrap-sync'
import { keptBootstrap, resolveTrust, type Trust } from '#daemon/trust'
import { until } from '#demo/command'
import { encodeBootstrap, readChain } from '#directory/bootstrap'
import { AUTHORITIES } from '../directory/authorities.ts'
import { crypto, keyPair, START, value } from '../directory/network.ts'

const [a, b, c] = AUTHORITIES as [KeyPair, KeyPair, KeyPair]
const FRESH = keyPair('a fresh authority')

test('a change is followed and kept, an older or foreign chain is refused', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-bootstrap-'))
  let served = ''
  let asked = 0
  const server = createServer((request, reply) => {
    asked++
    reply.statusCode = request.url === '/v1/bootstrap' && served !== '' ? 200 : 404
    reply.end(served)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const { port } = server.address() as AddressInfo
  const document = (serial: number, keys: readonly KeyPair[], signers: readonly KeyPair[]): string => {
    const authorities = keys.map(({ publicKey }, i) => ({
      name: `n${i}`,
      key: publicKey,
      // The first two do not answer: the third is asked.
      url: `http://127.0.0.1:${i === 2 ? port : i + 1}`,
    }))
    return value(encodeBootstrap({ serial, published: START, threshold: 2, authorities }, signers, crypto))
  }
  try {
    const first = document(1, [a, b, c], [a, b])
    // c is revoked.
    const second = document(2, [a, b, FRESH], [a, b])
    const file = join(folder, 'network')
    await writeFile(file, first)
    const directory = { kind: 'bootstrap', file, mirrors: [] } as const
    const before = await resolveTrust(directory, folder, crypto)
    assert.deepEqual(
      before.keys,
      [a, b, c].map(({ publicKey }) => publicKey),
    )
    const trusted: Trust[] = []
    const troubles: string[] = []
    const sync = new BootstrapSync({
      bootstrap: before.bootstrap!,
      crypto,
      rng: { bytes: (length) => crypto.random(length) },
      file: keptBootstrap(folder),
      onTrust: (trust) => trusted.push(trust),
      onTrouble: (line) => troubles.push(line),
    })
    await sync.ask()
    assert.deepEqual([trusted, troubles], [[], []])
    const strangers = ['x', 'y', 'z'].map(keyPair)
    served = first + document(2, strangers, strangers)
    await sync.ask()
    assert.equal(trusted.length, 0)
    assert.match(troubles.pop() ?? '', /IPP_DIR_BAD_SIGNATURE/)
    served = first + second
    await sync.ask()
    assert.deepEqual(
      trusted[0]?.keys,
      [a, b, FRESH].map(({ publicKey }) => publicKey),
    )
    assert.deepEqual(
      trusted[0]?.servers.map(({ url }) => url),
      [1, 2, port].map((at) => `http://127.0.0.1:${at}`),
    )
    assert.equal(sync.held.serial, 2)
    assert.equal(await readFile(keptBootstrap(folder), 'latin1'), first + second)
    // A server that goes back, or lies, changes nothing.
    served = first
    await sync.ask()
    assert.match(troubles.pop() ?? '', /IPP_DIR_REPLAYED/)
    served = 'x'.repeat(2 ** 21)
    await sync.ask()
    assert.match(troubles.pop() ?? '', /IPP_DIR_OVERSIZED/)
    assert.equal(sync.held.serial, 2)
    // Nobody has a document that is believed: it asks at once, and not again because that is said again.
    asked = 0
    for (const troubled of [true, true, false]) sync.told(troubled)
    await until('the question', 10_000, () => (troubles.length > 0 ? true : undefined))
    assert.equal(asked, 1)
    sync.end()
    // The next start begins with what was kept, also when the configured file is old.
    const after = await resolveTrust(directory, folder, crypto)
    assert.deepEqual(
      after.keys,
      [a, b, FRESH].map(({ publicKey }) => publicKey),
    )
    // Of another network it does not count.
    await writeFile(file, document(1, strangers, strangers))
    const other = await resolveTrust(directory, folder, crypto)
    assert.deepEqual(
      other.keys,
      strangers.map(({ publicKey }) => publicKey),
    )
    assert.equal(value(readChain(utf8(first + second), crypto)).length, 2)
  } finally {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true, force: true })
  }
})

test('an authority reads its file when it is another one, and takes what follows from the one it had', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-bootstrap-'))
  const file = join(folder, 'network')
  const document = (serial: number, keys: readonly KeyPair[], port: number, signers = keys): string => {
    const authorities = keys.map(({ publicKey }, i) => ({
      name: `n${i}`,
      key: publicKey,
      url: `http://192.0.2.${i + 1}:${port}`,
    }))
    return value(encodeBootstrap({ serial, published: START, threshold: 2, authorities }, signers, crypto))
  }
  try {
    const first = document(1, [a, b, c], 9030)
    await writeFile(file, first)
    const changes: [serial: number, url: string | undefined, chain: string][] = []
    const troubles: string[] = []
    const watched = new BootstrapFile({
      file,
      held: value(readChain(utf8(first), crypto)).at(-1)!,
      crypto,
      onChange: (newest, chain) => changes.push([newest.serial, newest.authorities[0]?.url, chain]),
      onTrouble: (line) => troubles.push(line),
    })
    await watched.look()
    assert.deepEqual([changes, troubles], [[], []])
    // Another address is another document.
    const moved = first + document(2, [a, b, c], 9031)
    const bad: [text: string, code: RegExp][] = [
      [moved.slice(0, -10), /IPP_DIR_/],
      [first + document(2, [a, b, FRESH], 9030, [b, FRESH]), /IPP_DIR_BAD_SIGNATURE/],
      [document(1, [a, b, FRESH], 9030), /IPP_DIR_REPLAYED/],
      ['', /IPP_DIR_/],
    ]
    for (const [text, code] of bad) {
      await writeFile(file, text)
      await watched.look()
      assert.match(troubles.pop() ?? '', code)
      await watched.look()
      assert.equal(troubles.length, 0, 'it is said once')
    }
    await rm(file)
    await watched.look()
    await writeFile(file, moved)
    await watched.look()
    assert.deepEqual([changes, troubles], [[[2, 'http://192.0.2.1:9031', moved]], []])
    await writeFile(file, first)
    await watched.look()
    assert.match(troubles.pop() ?? '', /IPP_DIR_REPLAYED/)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
