/** Real threads, real crypto: handshakes through them, and a thread that dies. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IpprivError } from '#base/errors'
import { ip } from '#base/ip'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { HandshakeWorkers } from '#daemon/handshake-workers'
import { move } from '#daemon/move'
import type { Job } from '#ikev2/computation'
import { IkeEngine } from '#ikev2/engine'
import type { Computed } from '#ikev2/events'
import { anonymousRequest, NODE, nodeKey, openPolicy, pathBetween } from '../ikev2/pair.ts'

const NOW = instant(0)
const KEY = nodeKey(nodeCrypto)

const started = (threads: number, onFailure: (error: IpprivError) => void = assert.fail): HandshakeWorkers =>
  new HandshakeWorkers({ credential: KEY.credential, threads, onFailure })

test('handshakes are computed by threads', { timeout: 120_000 }, async () => {
  const workers = started(2)
  const node = new IkeEngine({ crypto: nodeCrypto, responder: openPolicy(KEY), offload: true })
  const addresses = Array.from({ length: 6 }, (_, i) => ip(`192.0.2.${i + 1}`))
  const clients = new Map(addresses.map((address) => [address, new IkeEngine({ crypto: nodeCrypto })]))
  const established = new Set<string>()
  const { promise, resolve } = Promise.withResolvers<void>()
  const run = (): void => {
    for (const [address, client] of clients)
      for (let output = client.poll(); output !== undefined; output = client.poll()) {
        if (output.kind === 'child.established') established.add(address)
        if (output.kind === 'transmit')
          node.handle({ kind: 'datagram', path: pathBetween(NODE, address), bytes: output.bytes }, NOW)
      }
    const answers = []
    for (let output = node.poll(); output !== undefined; output = node.poll()) {
      if (output.kind === 'transmit') answers.push(output)
      if (output.kind === 'compute') workers.compute(output, (computed) => take(computed))
    }
    for (const { path, bytes } of answers) {
      const { address } = path.remote
      clients.get(address)!.handle({ kind: 'datagram', path: pathBetween(address, NODE), bytes }, NOW)
    }
    if (answers.length > 0) run()
    if (established.size === clients.size) resolve()
  }
  const take = (computed: Computed): void => {
    node.handle(computed, NOW)
    run()
  }
  for (const [address, client] of clients)
    client.initiate(anonymousRequest(KEY, { path: pathBetween(address, NODE) }), NOW)
  run()
  // Threads do not keep the process alive; this test does.
  const alive = setInterval(() => {}, 1000)
  try {
    await promise
    assert.equal(node.counters()['established.full'], 6)
    assert.equal(node.counters()['answers.computing'], 0)
  } finally {
    clearInterval(alive)
    await workers.close()
  }
})

test('a thread that dies fails what it was doing, says so, and has a successor', {
  timeout: 120_000,
}, async () => {
  const failures: IpprivError[] = []
  const workers = started(1, (error) => failures.push(error))
  const alive = setInterval(() => {}, 1000)
  const done = (id: number, job: Job): Promise<Computed> =>
    new Promise((resolve) => workers.compute({ kind: 'compute', id, job }, resolve))
  const { publicKey } = nodeCrypto.mlkem768Generate()
  const good: Job = { kind: 'encapsulation', publicKey }
  try {
    const broken = { kind: 'keys', group: 9999 } as Job
    const [first, second] = await Promise.all([done(1, broken), done(2, good)])
    assert.equal(first.done, undefined)
    assert.equal(second.done, undefined)
    assert.deepEqual(
      failures.map(({ code }) => code),
      ['IPP_WORKER_FAILED'],
    )
    const { done: third } = await done(3, good)
    assert.ok(third !== undefined && 'ciphertext' in third.result!)
    assert.equal(failures.length, 1)
  } finally {
    clearInterval(alive)
    await workers.close()
  }
})

test('what is moved is a copy that leaves this thread', () => {
  const [secret, other] = [Uint8Array.of(1, 2, 3), Uint8Array.of(4)]
  const { value, buffer } = move({ inner: { secret, set: new Set([1]) }, name: 'x', other })
  assert.equal(buffer.byteLength, 4)
  const there = structuredClone(value, { transfer: [buffer] })
  assert.deepEqual(there, { inner: { secret, set: new Set([1]) }, name: 'x', other })
  assert.equal(value.inner.secret.length, 0, 'it is gone from here')
  assert.deepEqual(secret, Uint8Array.of(1, 2, 3))
})
