import { type Instant, instant } from '#base/time'

/** Virtual time: events happen in order of their instant, and those of one instant in the order they were planned. */
export class VirtualClock {
  #now = instant(0)
  #planned = 0
  /** A binary heap by (at, order). */
  readonly #heap: Event[] = []

  get now(): Instant {
    return this.#now
  }

  /** When the next event happens, or undefined when nothing is planned. */
  get next(): Instant | undefined {
    return this.#heap[0]?.at
  }

  /** How many events are planned. */
  get pending(): number {
    return this.#heap.length
  }

  plan(at: Instant, happen: () => void): void {
    const heap = this.#heap
    heap.push({ at: instant(Math.max(at, this.#now)), order: this.#planned++, happen })
    for (let i = heap.length - 1; i > 0; ) {
      const parent = (i - 1) >>> 1
      if (!before(heap[i]!, heap[parent]!)) break
      swap(heap, i, parent)
      i = parent
    }
  }

  /** Moves on to `to`, which must not skip an event. */
  advance(to: Instant): void {
    if (to < this.#now || (this.next !== undefined && to > this.next))
      throw new RangeError(`cannot move from ${this.#now} to ${to}`)
    this.#now = to
  }

  /** Moves on to the next event and lets it happen. */
  step(): void {
    const heap = this.#heap
    const first = heap[0]
    if (first === undefined) throw new RangeError('nothing is planned')
    const last = heap.pop()!
    if (heap.length > 0) {
      heap[0] = last
      for (let i = 0; ; ) {
        let least = i
        for (const child of [2 * i + 1, 2 * i + 2])
          if (child < heap.length && before(heap[child]!, heap[least]!)) least = child
        if (least === i) break
        swap(heap, i, least)
        i = least
      }
    }
    this.#now = first.at
    first.happen()
  }
}

interface Event {
  readonly at: Instant
  readonly order: number
  readonly happen: () => void
}

const before = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

function swap(heap: Event[], i: number, j: number): void {
  const held = heap[i]!
  heap[i] = heap[j]!
  heap[j] = held
}
