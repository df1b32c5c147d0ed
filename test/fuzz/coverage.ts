/**
 * How much of our code ran: V8's precise coverage, the signal that guides the fuzzer. V8 tells nested ranges of source
 * text with counts, and joins those whose counts are equal; so what is kept is the text that ran, as intervals.
 */
import { type Profiler, Session } from 'node:inspector'

/** From and to, sorted and disjoint. */
type Intervals = readonly (readonly [from: number, to: number])[]

export class Coverage {
  readonly #session = new Session()
  readonly #ours: RegExp
  /** By function. */
  #covered: ReadonlyMap<string, Intervals> = new Map()
  #size = 0

  /** `ours` picks files by their URL. Counting starts now: code that is compiled later is counted by blocks. */
  constructor(ours: RegExp) {
    this.#ours = ours
    this.#session.connect()
    this.#session.post('Profiler.enable')
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /** Characters of source that ran so far; those of a function within another count for both. */
  get size(): number {
    return this.#size
  }

  /** How much ran since the last call that never ran before. */
  fresh(): number {
    const before = this.#size
    const covered = new Map(this.#covered)
    for (const [name, ran] of this.#take()) {
      const known = covered.get(name) ?? []
      const union = join([...known, ...ran])
      const growth = lengthOf(union) - lengthOf(known)
      if (growth === 0) continue
      covered.set(name, union)
      this.#size += growth
    }
    if (this.#size > before) this.#covered = covered
    return this.#size - before
  }

  /** What is known now; to go back there. */
  mark(): () => void {
    const [covered, size] = [this.#covered, this.#size]
    return () => {
      this.#covered = covered
      this.#size = size
    }
  }

  stop(): void {
    this.#session.disconnect()
  }

  *#take(): Generator<readonly [name: string, ran: Intervals]> {
    let taken: Profiler.TakePreciseCoverageReturnType | undefined
    // Answers before it returns: the session is of this very thread.
    this.#session.post('Profiler.takePreciseCoverage', (error, result) => {
      if (error !== null) throw error
      taken = result
    })
    for (const { url, functions, scriptId } of taken!.result) {
      if (!this.#ours.test(url)) continue
      for (const { ranges } of functions) {
        const [whole] = ranges
        if (whole!.count > 0) yield [`${scriptId} ${whole!.startOffset} ${whole!.endOffset}`, ranOf(ranges)]
      }
    }
  }
}

/** Of nested ranges, outer ones first, the text whose innermost range has a count. */
function ranOf(ranges: readonly Profiler.CoverageRange[]): Intervals {
  const edges = [...new Set(ranges.flatMap(({ startOffset, endOffset }) => [startOffset, endOffset]))].sort(
    (a, b) => a - b,
  )
  const ran = edges.slice(1).flatMap((to, i): Intervals => {
    const from = edges[i]!
    const innermost = ranges.findLast(({ startOffset, endOffset }) => startOffset <= from && to <= endOffset)
    return innermost !== undefined && innermost.count > 0 ? [[from, to]] : []
  })
  return join(ran)
}

function join(intervals: Intervals): Intervals {
  const joined: [number, number][] = []
  for (const [from, to] of intervals.toSorted((a, b) => a[0] - b[0])) {
    const last = joined.at(-1)
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to)
    else joined.push([from, to])
  }
  return joined
}

const lengthOf = (intervals: Intervals): number => intervals.reduce((sum, [from, to]) => sum + to - from, 0)
