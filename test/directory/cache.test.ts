import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { IpprivError } from '#base/errors'
import { ip } from '#base/ip'
import { type Instant, instant } from '#base/time'
import { DocumentCache } from '#directory/cache'
import { DirectoryClient } from '#directory/client'
import { signConsensus } from '#directory/consensus'
import { AUTHORITY, at, crypto, draft, listed, PERIOD, value } from './network.ts'

const LOOPBACK = ip('127.0.0.1')
const NAMES = Array.from({ length: 12 }, (_, i) => `node-${i}`)

const document = (period: number) =>
  value(
    signConsensus(
      draft(listed(NAMES), { serial: 7 + period, validAfter: at(period * PERIOD) }),
      [AUTHORITY],
      crypto,
    ),
  )

const start = (port = 0, monotonic: () => Instant = () => instant(0)): Promise<DocumentCache> =>
  DocumentCache.start({ listen: { address: LOOPBACK, port }, crypto, monotonic })

test('a node hands on what it has: nothing, a document, the next one as a diff', async () => {
  const cache = await start()
  try {
    const url = `http://${LOOPBACK}:${cache.port}`
    let now = at(10)
    const client = new DirectoryClient({
      urls: ['http://127.0.0.1:1'],
      mirrors: () => [{ url }],
      authorities: [AUTHORITY.publicKey],
      crypto,
      unixTime: () => now,
    })
    const empty = await fetch(`${url}/v1/consensus`)
    assert.equal(empty.status, 503)
    assert.equal(((await empty.json()) as { error: { code: string } }).error.code, 'IPP_DIR_NO_DOCUMENT')
    await cache.put(document(0))
    assert.equal(value(await client.fetchConsensus()).consensus.serial, 7)
    await cache.put(document(1))
    now = at(PERIOD + 10)
    assert.equal(value(await client.fetchConsensus()).consensus.serial, 8)
    assert.equal(client.document?.text, document(1).text)
    assert.equal(cache.counters.get('consensus.diff'), 1)
    // It takes nothing in, and has nothing else.
    for (const [path, init] of [
      ['/v1/descriptor', { method: 'POST', body: 'x' }],
      ['/v1/health', {}],
      ['/', {}],
    ] as const)
      assert.ok([404, 413, 415].includes((await fetch(`${url}${path}`, init)).status), path)
  } finally {
    await cache.close()
  }
})

test('one that asks too much is sent away, and a port that is taken has a name', async () => {
  let now = 0
  const cache = await start(0, () => instant(now))
  try {
    await cache.put(document(0))
    const ask = async () => (await fetch(`http://${LOOPBACK}:${cache.port}/v1/consensus`)).status
    const answers: number[] = []
    for (let i = 0; i < 32; i++) answers.push(await ask())
    assert.deepEqual(answers, [...Array(30).fill(200), 429, 429])
    now += 1000
    assert.equal(await ask(), 200)
    await assert.rejects(
      start(cache.port),
      (error) => error instanceof IpprivError && error.code === 'IPP_HOST_PORT_IN_USE',
    )
  } finally {
    await cache.close()
  }
})

test('mirrors that lie, are silent or behind the times cost a question each, and the authorities have the last word', async () => {
  const [old, good] = [await start(), await start()]
  const asked: string[] = []
  const liar = createServer((request, reply) => {
    asked.push(request.url ?? '')
    reply.end(document(1).text.replace('node-3', 'node-x'))
  })
  await new Promise<void>((listening) => liar.listen(0, LOOPBACK, listening))
  try {
    await old.put(document(0))
    await good.put(document(1))
    const url = (port: number) => `http://${LOOPBACK}:${port}`
    const liarUrl = url((liar.address() as AddressInfo).port)
    const client = new DirectoryClient({
      urls: [url(good.port)],
      mirrors: () => [{ url: url(1) }, { url: liarUrl }, { url: url(old.port) }],
      authorities: [AUTHORITY.publicKey],
      crypto,
      unixTime: () => at(PERIOD + 10),
    })
    assert.equal(value(await client.fetchConsensus()).consensus.serial, 8)
    assert.equal(client.document?.text, document(1).text)
    assert.deepEqual(
      ['refused.IPP_DIR_UNREACHABLE', 'refused.IPP_DIR_BAD_SIGNATURE', 'consensus.stale'].map((name) =>
        client.counters.get(name),
      ),
      [1, 1, 1],
    )
    assert.deepEqual(asked, ['/v1/consensus'])
  } finally {
    liar.closeAllConnections()
    liar.close()
    await old.close()
    await good.close()
  }
})
