/**
 * The loop: take an input that is known, change it, run it, and keep it if it reached code that none reached before.
 *
 * Reading coverage costs as much as many inputs, so it is read per batch; only a batch with something new is run
 * again, input by input, to find who it was. Inputs draw fresh keys and nonces: what was seen may not come again, and is
 * then no one's.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { seededRng } from '../sim/random.ts'
import type { Coverage } from './coverage.ts'
import { mutate, pick } from './mutate.ts'

export interface Target {
  readonly name: string
  /** Inputs to begin with, besides those of the corpus. */
  seeds(): readonly Uint8Array[]
  /** Runs one input. @throws whatever gets out of the code under test, or an assertion about it */
  run(input: Uint8Array): void
  /** Lets time pass after a batch. @throws when state is left that should be gone */
  settle(): void
}

export interface Find {
  readonly kind: 'crash' | 'slow' | 'leak' | 'memory'
  readonly target: string
  readonly detail: string
  readonly input: Uint8Array
}

export interface Progress {
  readonly inputs: number
  readonly known: number
  /** Characters of source that ran. */
  readonly covered: number
}

export interface LoopOptions {
  readonly target: Target
  readonly coverage: Coverage
  readonly corpus: readonly Uint8Array[]
  readonly seed: number
  /** False: nothing that is found is built upon. To measure what guidance is worth. */
  readonly guided?: boolean
  /** Called now and then; false ends the loop. */
  readonly more: (progress: Progress) => boolean
  /** Called before each input, for a watchdog. */
  readonly begin?: (input: Uint8Array) => void
}

export interface Outcome extends Progress {
  /** Inputs that reached new code, in the order in which they did. */
  readonly fresh: readonly Uint8Array[]
  readonly finds: readonly Find[]
}

const BATCH = 48
/** For one input, on a machine that is busy with other things. */
const SLOW = 3000
const MAX_FINDS = 5
/** Memory after a collection may grow by so much while a loop runs: what is kept is known and small. */
const MAX_GROWTH = 48 * 2 ** 20

export function loop(options: LoopOptions): Outcome {
  const { target, coverage, seed, guided = true, begin } = options
  const rng = seededRng(seed)
  const known = [...target.seeds(), ...options.corpus]
  const fresh: Uint8Array[] = []
  const finds: Find[] = []
  let inputs = 0

  const found = (kind: Find['kind'], detail: string, input: Uint8Array): void => {
    // What breaks at the same place is the same.
    const isKnown = finds.some((find) => find.detail === detail)
    if (!isKnown && finds.length < MAX_FINDS) finds.push({ kind, target: target.name, detail, input })
  }
  const run = (input: Uint8Array): void => {
    begin?.(input)
    inputs++
    const start = performance.now()
    try {
      target.run(input)
    } catch (error) {
      found('crash', (error as Error).stack ?? String(error), input)
    }
    const time = performance.now() - start
    if (time > SLOW) found('slow', `${time.toFixed(0)} ms`, input)
  }
  const settle = (batch: readonly Uint8Array[]): void => {
    try {
      target.settle()
    } catch (error) {
      const culprit =
        batch.length === 1 ? batch[0]! : (batch.find((input) => leaks(target, input)) ?? batch[0]!)
      found('leak', (error as Error).stack ?? String(error), culprit)
    }
  }

  for (const input of known) run(input)
  settle(known)
  coverage.fresh()
  const memory = memoryUsed()
  const progress = (): Progress => ({ inputs, known: known.length, covered: coverage.size })
  while (finds.length < MAX_FINDS && options.more(progress())) {
    const batch = Array.from({ length: BATCH }, () => {
      // The newest are the least explored.
      const parent = rng.fraction() < 0.5 ? pick(rng, known.slice(-16)) : pick(rng, known)
      return mutate(rng, parent, pick(rng, known))
    })
    for (const input of batch) run(input)
    settle(batch)
    const restore = coverage.mark()
    if (coverage.fresh() === 0 || !guided) continue
    // Once more, one by one, compared with what was known before the batch.
    restore()
    for (const input of batch) {
      run(input)
      settle([input])
      if (coverage.fresh() === 0) continue
      known.push(input)
      fresh.push(input)
    }
  }
  const growth = memoryUsed() - memory
  if (growth > MAX_GROWTH) found('memory', `${growth} octets more after ${inputs} inputs`, new Uint8Array(0))
  return { ...progress(), fresh, finds }
}

function leaks(target: Target, input: Uint8Array): boolean {
  try {
    target.run(input)
    target.settle()
    return false
  } catch {
    return true
  }
}

function memoryUsed(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
