/** Workers that share their sockets send in the order in which they received. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Turns } from '#linux/turns'
import type { TurnRace } from './turns-racer.ts'

const THREADS = 3
const BATCHES = 20_000

async function race(memory: SharedArrayBuffer): Promise<Int32Array> {
  const data: TurnRace = {
    memory,
    batches: BATCHES,
    progress: new SharedArrayBuffer(8),
    sent: new SharedArrayBuffer(4 * BATCHES),
  }
  const workers = Array.from(
    { length: THREADS },
    () => new Worker(new URL('./turns-racer.ts', import.meta.url), { workerData: data }),
  )
  await Promise.all(workers.map((worker) => once(worker, 'exit')))
  assert.deepEqual([...new Int32Array(data.progress)], [BATCHES, BATCHES])
  return new Int32Array(data.sent)
}

const inOrder = Array.from({ length: BATCHES }, (_, i) => i)

test('batches leave in the order in which they came', async () => {
  assert.deepEqual([...(await race(Turns.memory()))], inOrder)
})

test('and go on where tickets of 32 bits begin anew', async () => {
  const memory = Turns.memory()
  new Int32Array(memory).fill(2 ** 31 - BATCHES / 2, 1)
  assert.deepEqual([...(await race(memory))], inOrder)
})
