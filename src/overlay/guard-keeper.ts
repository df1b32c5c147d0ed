/**
 * Whether the guard stands. It is asked for again until all of it does, and nothing is built before: what could not be
 * performed of it would be a gap.
 *
 *     down > rising > up
 *              |  ^    |   an effect failed
 *              v  |    v
 *              failed <'   and again after a while, and a longer one
 */
import type { ErrorCode } from '#base/errors'
import type { Ip } from '#base/ip'
import { after, type Instant } from '#base/time'
import type { ClientEvent } from '#overlay/client-events'
import * as times from '#overlay/client-times'
import type { EffectQueue } from '#overlay/effects'
import type { Guard } from '#overlay/guard'
import type { Owner } from '#overlay/hops'

export class GuardKeeper {
  readonly #guard: Guard
  readonly #effects: EffectQueue<ClientEvent, Owner>
  #is: 'down' | 'rising' | 'failed' | 'up' = 'down'
  /** When it stands if nothing fails meanwhile, or is to be tried again. */
  #due: Instant | undefined
  #backoff = times.GUARD_FIRST

  constructor(guard: Guard, effects: EffectQueue<ClientEvent, Owner>) {
    this.#guard = guard
    this.#effects = effects
  }

  get stands(): boolean {
    return this.#is === 'up'
  }

  raise(now: Instant): void {
    this.#is = 'rising'
    this.#effects.add('guard', ...this.#guard.raise())
    this.#due = now
  }

  /** An effect of the guard could not be performed. */
  failed(code: ErrorCode, detail: string, now: Instant): void {
    if (this.#is === 'failed') return
    this.#is = 'failed'
    this.#due = after(now, this.#backoff)
    this.#backoff = Math.min(2 * this.#backoff, times.GUARD_MAX)
    this.#effects.event({ kind: 'guard.failed', code, detail })
  }

  /** Every effect of `raise` was performed, or one was not and it is time to try again. @returns whether it stands since */
  tick(now: Instant): boolean {
    if (this.#due === undefined || this.#due > now) return false
    this.#due = undefined
    if (this.#is === 'failed') {
      this.raise(now)
      return false
    }
    this.#is = 'up'
    this.#backoff = times.GUARD_FIRST
    return true
  }

  nextTimeout(): Instant | undefined {
    return this.#due
  }

  /** Our own address, or the way out of this host, is another one. @returns whether the address is */
  move(self: Ip): boolean {
    const isElsewhere = self !== this.#guard.self
    this.#effects.add('guard', ...this.#guard.move(self))
    return isElsewhere
  }

  /** Octets of packets inside circuits. */
  resize(mtu: number): void {
    this.#effects.add('guard', ...this.#guard.resize(mtu))
  }

  /** Everything else is gone: it leaves last. */
  lower(): void {
    this.#due = undefined
    this.#effects.add('guard', ...this.#guard.lower())
  }
}
