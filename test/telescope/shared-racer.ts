/** A thread of shared.test.ts: `workerData` is a `Race`; posts what it got as a Float64Array. */
import { parentPort, workerData } from 'node:worker_threads'
import { SharedCounter, SharedWindow } from '#telescope/shared'

export type Race =
  | {
      readonly kind: 'count'
      readonly memory: SharedArrayBuffer
      readonly gate: SharedArrayBuffer
      readonly times: number
      readonly cycle: number
    }
  | {
      readonly kind: 'accept'
      readonly memory: SharedArrayBuffer
      readonly gate: SharedArrayBuffer
      readonly window: number
      readonly sequences: Float64Array
    }

const race = workerData as Race
const gate = new Int32Array(race.gate)
// All begin at once.
Atomics.add(gate, 0, 1)
while (Atomics.load(gate, 1) === 0) Atomics.wait(gate, 1, 0, 5)
const got: number[] = []
if (race.kind === 'count') {
  const counter = new SharedCounter(race.memory, race.cycle)
  for (let i = 0; i < race.times; i++) got.push(counter.next())
} else {
  const window = new SharedWindow(race.window, true, race.memory)
  for (const sequence of race.sequences) {
    // As a packet does it: the double may be verified by another thread between the two. A number far behind is
    // taken for one of the next cycle, and then the check value is wrong.
    const inferred = window.infer(sequence % 0x1_0000_0000)
    if (window.admits(inferred) && inferred === sequence && window.accept(inferred)) got.push(inferred)
  }
}
parentPort!.postMessage(Float64Array.from(got))
