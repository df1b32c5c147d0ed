/** What workers share of an SA, under races of real threads. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { Mutex } from '#base/mutex'
import { ReplayWindow } from '#telescope/replay'
import { SharedCounter, SharedWindow, sharedState } from '#telescope/shared'
import type { Race } from './shared-racer.ts'

const THREADS = 4

/** Runs all races at once; what each thread got. */
async function run(
  races: readonly (Race extends infer R ? Omit<R & Race, 'gate'> : never)[],
): Promise<Float64Array[]> {
  const memory = new SharedArrayBuffer(8)
  const gate = new Int32Array(memory)
  const workers = races.map(
    (race) =>
      new Worker(new URL('./shared-racer.ts', import.meta.url), { workerData: { ...race, gate: memory } }),
  )
  const answers = workers.map(async (worker) => ((await once(worker, 'message')) as [Float64Array])[0])
  while (Atomics.load(gate, 0) < races.length) await new Promise((resolve) => setTimeout(resolve, 1))
  Atomics.store(gate, 1, 1)
  Atomics.notify(gate, 1)
  return await Promise.all(answers)
}

test('no sequence number is given out twice', async () => {
  const memory = sharedState(64)
  const times = 50_000
  const got = await run(Array.from({ length: THREADS }, () => ({ kind: 'count', memory, times }) as const))
  const all = new Set<number>()
  for (const numbers of got) {
    for (let i = 1; i < numbers.length; i++) assert.ok(numbers[i]! > numbers[i - 1]!)
    for (const number of numbers) all.add(number)
  }
  assert.equal(all.size, THREADS * times)
  assert.equal(Math.max(...got.map((numbers) => numbers.at(-1)!)), THREADS * times, 'and none is left out')
})

test('a packet and its doubles are accepted once, whoever opens them', async () => {
  const size = 4096
  const memory = sharedState(size)
  // Every thread has every packet, and the top moves through all words of the ring and past a cycle.
  const begin = 0x1_0000_0000 - 20_000
  new SharedWindow(size, true, memory).accept(begin)
  const sequences = Float64Array.from({ length: 40_000 }, (_, i) => begin + 1 + i)
  const races = Array.from(
    { length: THREADS },
    () => ({ kind: 'accept', memory, window: size, sequences }) as const,
  )
  const got = await run(races)
  const times = new Map<number, number>()
  for (const numbers of got) for (const n of numbers) times.set(n, (times.get(n) ?? 0) + 1)
  for (const [sequence, count] of times) assert.equal(count, 1, `${sequence} was accepted ${count} times`)
  // The first thread to come to a number finds it new, unless the others are a window ahead.
  assert.ok(times.size > size, `${times.size} accepted`)
  const window = new SharedWindow(size, true, memory)
  assert.equal(window.admits(sequences.at(-1)!), false)
  assert.equal(window.admits(sequences.at(-1)! + 1), true)
})

test('in one thread it is the window it is made of', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.constantFrom(32, 64, 1024),
      fc.array(fc.integer({ min: 0, max: 3000 }), { maxLength: 200 }),
      (esn, size, numbers) => {
        const shared = new SharedWindow(size, esn, sharedState(size))
        const plain = new ReplayWindow(size, esn)
        for (const number of numbers) {
          const sequence = plain.infer(number)
          assert.equal(shared.infer(number), sequence)
          const admitted = plain.admits(sequence)
          assert.equal(shared.admits(sequence), admitted)
          assert.equal(shared.accept(sequence), admitted)
          if (admitted) plain.accept(sequence)
        }
      },
    ),
    { numRuns: 100 },
  )
})

test('a counter goes on past 2^32, and its users see the same', () => {
  const memory = sharedState(32)
  new BigUint64Array(memory, 8, 1)[0] = 0xffff_fffen
  const [one, other] = [new SharedCounter(memory), new SharedCounter(memory)]
  assert.deepEqual([one.next(), other.next(), one.next()], [0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001])
})

test('a mutex that is held is not taken, and can be given up on', () => {
  const words = new Int32Array(new SharedArrayBuffer(4))
  const [mine, theirs] = [new Mutex(words, 0), new Mutex(words, 0)]
  mine.lock()
  assert.equal(theirs.tryLock(1), false)
  mine.unlock()
  assert.equal(theirs.tryLock(0), true)
  assert.equal(mine.tryLock(0), false)
  theirs.unlock()
  assert.equal(mine.tryLock(0), true)
})
