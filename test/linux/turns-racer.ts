/** A thread of turns.test.ts: takes its turns and writes down, when one comes, whose it is. `workerData` is a `TurnRace`. */
import { workerData } from 'node:worker_threads'
import { Turns } from '#linux/turns'

export interface TurnRace {
  readonly memory: SharedArrayBuffer
  /** Of all threads. */
  readonly batches: number
  /** How many were received, and how many were sent. */
  readonly progress: SharedArrayBuffer
  /** What was sent, in order. */
  readonly sent: SharedArrayBuffer
}

const race = workerData as TurnRace
const turns = new Turns(race.memory)
// Plain words: turns alone keep one thread from another.
const progress = new Int32Array(race.progress)
const sent = new Int32Array(race.sent)
const deadline = performance.now() + 30_000
const pause = new Int32Array(new SharedArrayBuffer(4))

while (performance.now() < deadline) {
  if (!turns.tryLead(50)) continue
  const batch = progress[0]!
  if (batch === race.batches) {
    turns.pass()
    break
  }
  const ticket = turns.take()
  progress[0] = batch + 1
  turns.pass()
  // Some work takes so long that whoever is next falls asleep.
  if (batch % 50 === 0) Atomics.wait(pause, 0, 0, 1)
  else for (let i = (batch * 2_654_435_761) % 2000; i > 0; i--) Atomics.load(pause, 0)
  turns.await(ticket)
  sent[progress[1]!] = batch
  progress[1]!++
  turns.done(ticket)
}
