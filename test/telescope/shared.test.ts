/** What workers share of an SA, under races of real threads. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { Mutex } from '#base/mutex'
import { NodeCipherDriver } from '#linux/ciphers'
import { ReplayWindow } from '#telescope/replay'
import { SEAL, SEAL_HEADROOM, type SealState, sealLayer } from '#telescope/seal'
import { SharedCounter, SharedWindow, sharedState } from '#telescope/shared'
import type { Race } from './shared-racer.ts'

const THREADS = 4
/** Of the counters of SAs. */
const CYCLE = 2 ** 30

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

/** What threads count up at once. Their numbers, in order; none is there twice, and each thread's go up. */
async function count(memory: SharedArrayBuffer, times: number, cycle: number): Promise<Float64Array> {
  const got = await run(
    Array.from({ length: THREADS }, () => ({ kind: 'count', memory, times, cycle }) as const),
  )
  for (const numbers of got) {
    assert.equal(numbers.length, times)
    for (let i = 1; i < times; i++) assert.ok(numbers[i]! > numbers[i - 1]!)
  }
  const all = Float64Array.from(got.flatMap((numbers) => [...numbers])).sort()
  for (let i = 1; i < all.length; i++) assert.notEqual(all[i], all[i - 1])
  return all
}

/** The memory of a counter that gave out `last`. */
function countedTo(last: number, cycle: number): SharedArrayBuffer {
  const memory = sharedState(64)
  const words = new Int32Array(memory)
  words[1] = Math.floor(last / cycle)
  words[2] = last % cycle
  return memory
}

test('no sequence number is given out twice', async () => {
  const times = 50_000
  const all = await count(sharedState(64), times, CYCLE)
  assert.equal(all[0], 1)
  assert.equal(all.at(-1), THREADS * times, 'and none is left out')
})

test('nor where the high half goes up', async () => {
  const times = 50_000
  const last = 0x1_0000_0000 - (THREADS * times) / 2
  const all = await count(countedTo(last, CYCLE), times, CYCLE)
  assert.equal(all[0], last + 1)
  const left = all.at(-1)! - last - all.length
  assert.ok(left >= 0 && left <= THREADS, `${left} are left out`)
})

test('nor where cycles end all the time', async () => {
  const times = 50_000
  // Every thread that comes late to the end of a cycle may give up a position of the next.
  for (const cycle of [5, 64, 1000]) {
    const all = await count(sharedState(64), times, cycle)
    const last = all.at(-1)!
    assert.ok(last - all.length <= THREADS * Math.ceil(last / cycle), `${last - all.length} are left out`)
  }
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
  const memory = countedTo(0xffff_fffe, CYCLE)
  const [one, other] = [new SharedCounter(memory), new SharedCounter(memory)]
  assert.deepEqual([one.next(), other.next(), one.next()], [0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001])
})

test('an SA ends with its numbers, whoever counts', () => {
  for (const [esn, last] of [
    [false, 0xffff_ffff],
    [true, Number.MAX_SAFE_INTEGER],
  ] as const) {
    const memory = countedTo(last - 1, CYCLE)
    const driver = new NodeCipherDriver()
    const sealing = (): SealState => ({
      spi: 0x1234,
      esn,
      salt: new Uint8Array(4),
      cipher: driver.create('aes-128-gcm-16', new Uint8Array(16)),
      driver,
      sequence: 0,
      counter: new SharedCounter(memory),
    })
    const [one, other] = [sealing(), sealing()]
    const bytes = new Uint8Array(256)
    assert.ok(sealLayer(one, bytes, 64, 100) > 100)
    const view = new DataView(bytes.buffer, 64 - SEAL_HEADROOM)
    assert.equal(view.getUint32(4), last % 2 ** 32)
    assert.equal(view.getUint32(8), Math.floor(last / 2 ** 32), 'the high half, in the IV')
    for (let i = 0; i < 3; i++) assert.equal(sealLayer(other, bytes, 64, 100), SEAL.exhausted)
    assert.equal(sealLayer(one, bytes, 64, 100), SEAL.exhausted)
  }
})

test('to seal with others allocates as little as to seal alone', async () => {
  // A process of its own: what others do in this one would be counted.
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--expose-gc',
    '--max-semi-space-size=64',
    new URL('./shared-heap.ts', import.meta.url).pathname,
  ])
  const { alone, shared } = JSON.parse(stdout) as Record<'alone' | 'shared', number>
  assert.ok(shared < alone + 1, `${shared} octets a number; alone ${alone}`)
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
