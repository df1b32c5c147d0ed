/**
 * Drives one machine for real: inputs in, effects out, strictly in order and each one completely before the next
 * (the drive rule of `base/machine.ts`). Inputs that arrive meanwhile wait.
 */
import { wipe } from '#base/bytes'
import { type ErrorCode, errorLine, IpprivError } from '#base/errors'
import type { Machine } from '#base/machine'
import { type Instant, instant } from '#base/time'
import type { Compute, Computed } from '#ikev2/events'
import type { UdpSockets } from '#linux/sockets'
import type { Effect, HostNetwork } from '#overlay/ports'
import type { DataPlane, PlaneOperation, SaSpec } from '#telescope/plane'

export interface DriverPorts<Event> {
  readonly plane: DataPlane
  readonly host: HostNetwork
  readonly sockets: UdpSockets
  /** Does a job of the machine elsewhere; absent: this machine has none. */
  compute?(compute: Compute, answer: (computed: Computed) => void): void
  onEvent(event: Event): void
  /** Every SA, before its key is wiped: for the key log. */
  onSa?(sa: SaSpec): void
  /** An effect failed; the machine was told already. */
  onError(line: string): void
}

/** What every overlay machine accepts when an effect could not be performed. */
type EffectFailed<Event> = {
  readonly kind: 'effect.failed'
  readonly effect: Effect<Event>
  readonly code: ErrorCode
  readonly detail: string
}

/** Datagrams beyond this many waiting ones are dropped: IKE retransmits, memory does not grow. */
const MAX_WAITING = 4096

export class Driver<Input extends { readonly kind: string }, Event> {
  readonly #machine: Machine<Input | EffectFailed<Event>, Effect<Event>>
  readonly #ports: DriverPorts<Event>
  readonly #datagrams: Input[] = []
  /** Everything else: it goes ahead of the datagrams, and is never dropped. */
  readonly #wishes: Input[] = []
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #ended = false

  constructor(machine: Machine<Input | EffectFailed<Event>, Effect<Event>>, ports: DriverPorts<Event>) {
    this.#machine = machine
    this.#ports = ports
  }

  input(input: Input): void {
    if (this.#ended) return
    if (input.kind !== 'datagram') this.#wishes.push(input)
    else if (this.#datagrams.length < MAX_WAITING) this.#datagrams.push(input)
    this.#run()
  }

  /** Resolves when nothing is waiting and every effect so far is done. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  /** No input and no timer is taken any more. */
  async end(): Promise<void> {
    this.#ended = true
    clearTimeout(this.#timer)
    await this.idle()
  }

  #run(): void {
    this.#running ??= this.#pump().finally(() => {
      this.#running = undefined
      if (this.#isWaiting) this.#run()
      else this.#sleep()
    })
  }

  async #pump(): Promise<void> {
    clearTimeout(this.#timer)
    for (;;) {
      // Time first: a flood of datagrams must not hold up retransmissions and rekeys.
      const input = this.#isDue() ? undefined : (this.#wishes.shift() ?? this.#datagrams.shift())
      if (input !== undefined) this.#machine.handle(input, now())
      else this.#machine.tick(now())
      for (let effect = this.#machine.poll(); effect !== undefined; effect = this.#machine.poll()) {
        const pending = this.#perform(effect)
        if (pending !== undefined) await pending
      }
      if (!this.#isWaiting && !this.#isDue()) return
    }
  }

  get #isWaiting(): boolean {
    return this.#wishes.length > 0 || this.#datagrams.length > 0
  }

  /** A machine may ask to be called again once its effects are performed. */
  #isDue(): boolean {
    const next = this.#machine.nextTimeout()
    return next !== undefined && next <= now() && !this.#ended
  }

  #sleep(): void {
    clearTimeout(this.#timer)
    const next = this.#machine.nextTimeout()
    if (next === undefined || this.#ended) return
    // setTimeout rounds down and may fire early; a millisecond more saves a useless turn.
    this.#timer = setTimeout(() => this.#run(), Math.min(Math.max(0, next - now()) + 1, 0x7fff_ffff))
  }

  /** Nothing to wait for is undefined, so that a datagram costs no turn of the event loop. */
  #perform(effect: Effect<Event>): Promise<void> | undefined {
    switch (effect.kind) {
      case 'transmit':
        this.#ports.sockets.send(effect.path, effect.bytes)
        return undefined
      case 'compute':
        this.#ports.compute?.(effect, (computed) => this.input(computed as never))
        return undefined
      case 'event':
        this.#ports.onEvent(effect.event)
        return undefined
      case 'plane':
        return this.#guarded(effect, () => this.#plane(effect.operations))
      case 'host':
        return this.#guarded(effect, async () => {
          for (const operation of effect.operations) {
            if (operation.kind === 'address.remove') this.#ports.sockets.closeLocal(operation.address)
          }
          await this.#ports.host.apply(effect.operations)
        })
    }
  }

  async #plane(operations: readonly PlaneOperation[]): Promise<void> {
    const installed = operations.flatMap((operation) =>
      operation.kind === 'sa.install' ? [operation.sa] : [],
    )
    try {
      for (const sa of installed) this.#ports.onSa?.(sa)
      await this.#ports.plane.apply(operations)
    } finally {
      for (const sa of installed) wipe(sa.key)
    }
  }

  async #guarded(effect: Effect<Event>, perform: () => Promise<void>): Promise<void> {
    try {
      await perform()
    } catch (error) {
      const code = error instanceof IpprivError ? error.code : 'IPP_INTERNAL'
      this.#ports.onError(errorLine(error))
      this.#machine.handle({ kind: 'effect.failed', effect, code, detail: errorLine(error) }, now())
    }
  }
}

/** The clock of machines. */
export const now = (): Instant => instant(performance.now())
