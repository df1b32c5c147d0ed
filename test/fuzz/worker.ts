/** The thread that fuzzes, so that another can watch it: an input that never ends is a find, too. */
import { parentPort, workerData } from 'node:worker_threads'
import { Coverage } from './coverage.ts'

export interface WorkerInput {
  readonly targets: readonly string[]
  readonly seconds: number
  readonly seed: number
  readonly guided: boolean
  /** Present: run only this, once. */
  readonly replay?: Uint8Array
  /** Length of the present input, how many there were, then the input. */
  readonly present: SharedArrayBuffer
}

const { targets, seconds, seed, guided, replay, present } = workerData as WorkerInput
// Before the code under test is compiled: only then are its blocks counted.
const coverage = new Coverage(/\/src\/(base|wire|crypto|ikev2)\//)
const { TARGETS } = await import('./targets.ts')
const { loop } = await import('./loop.ts')
const { readCorpus } = await import('./corpus.ts')

const [LENGTH, COUNT] = [0, 1]
const numbers = new Int32Array(present, 0, 2)
const octets = new Uint8Array(present, 8)
const begin = (input: Uint8Array): void => {
  const kept = input.subarray(0, octets.length)
  octets.set(kept)
  Atomics.store(numbers, LENGTH, kept.length)
  Atomics.add(numbers, COUNT, 1)
}

for (const name of targets) {
  const target = TARGETS[name]!()
  const start = performance.now()
  let told = start
  const outcome = loop({
    target,
    coverage,
    seed,
    guided,
    begin,
    corpus: replay === undefined ? readCorpus(name) : [replay],
    more(progress) {
      const now = performance.now()
      if (now - told > 2000) {
        told = now
        parentPort!.postMessage({
          kind: 'progress',
          target: name,
          seconds: (now - start) / 1000,
          ...progress,
        })
      }
      return replay === undefined && now - start < (seconds * 1000) / targets.length
    },
  })
  parentPort!.postMessage({ kind: 'outcome', target: name, ...outcome })
}
coverage.stop()
