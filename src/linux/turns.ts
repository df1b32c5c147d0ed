import { Mutex } from '#base/mutex'

/**
 * How workers that share their sockets keep packets in order: one of them at a time takes a batch and a ticket, all
 * work on theirs at once, and each sends when those with earlier tickets have sent. So a plane with several workers
 * sends in the order in which it received, as one with a single worker does.
 */
export class Turns {
  readonly #words: Int32Array
  readonly #lead: Mutex

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory)
    this.#lead = new Mutex(this.#words, LEAD)
  }

  static memory(): SharedArrayBuffer {
    return new SharedArrayBuffer(4 * WORDS)
  }

  /** Becomes the one that receives; false after `timeout` ms, or when somebody called `wake`. */
  tryLead(timeout: number): boolean {
    return this.#lead.tryLock(timeout)
  }

  /** The leader's, for the batch it received. */
  take(): number {
    return Atomics.add(this.#words, ISSUED, 1)
  }

  /** Lets another one receive. */
  pass(): void {
    this.#lead.unlock()
  }

  /**
   * Returns when all earlier tickets are done. As a rule the one before is being sent by now, and to wake a thread
   * that sleeps takes as long as the rest of that: so it looks for a while before it sleeps.
   */
  await(ticket: number): void {
    for (let looks = 0; looks < LOOKS; looks++) {
      if (Atomics.load(this.#words, DONE) === ticket) return
      Atomics.pause()
    }
    for (;;) {
      const done = Atomics.load(this.#words, DONE)
      if (done === ticket) return
      Atomics.wait(this.#words, DONE, done)
    }
  }

  done(ticket: number): void {
    Atomics.store(this.#words, DONE, (ticket + 1) | 0)
    Atomics.notify(this.#words, DONE)
  }

  /** Whoever waits to lead looks around. */
  wake(): void {
    this.#lead.wake()
  }
}

/** About 0.1 ms; a batch of 64 packets is sent in 0.3. */
const LOOKS = 2500

const LEAD = 0
const ISSUED = 1
const DONE = 2
const WORDS = 3
