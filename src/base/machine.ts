import type { Instant } from '#base/time'

/**
 * A sans-IO machine: bytes and `now` in, effects out.
 *
 * **Drive rule: after every `handle()` or `tick()`, call `poll()` until it yields undefined, performing the
 * effects strictly in that order and each one completely before the next; then sleep until `nextTimeout()`
 * and call `tick()`.**
 *
 * The order is a contract: "install the SA" stands before "send the reply that makes the peer use it".
 */
export interface Machine<Input, Output> {
  /** Takes one input. Never throws for bytes a peer sent: a bad datagram is an output (event, counter). */
  handle(input: Input, now: Instant): void
  /** Lets due timers fire. Harmless when nothing is due. */
  tick(now: Instant): void
  /** The next effect to perform, or undefined when there is none. */
  poll(): Output | undefined
  /** When `tick` must be called next, or undefined when no timer is armed. */
  nextTimeout(): Instant | undefined
}
