/** The face of the client: what it is made of, what it is told, and what it says (`client.ts`). */
import type { ErrorCode } from '#base/errors'
import type { CircuitId } from '#base/ids'
import type { Ip, UdpPath } from '#base/ip'
import type { Rng } from '#base/rng'
import type { CryptoProvider } from '#crypto/provider'
import type { EspCipher } from '#crypto/suites'
import type { Consensus } from '#directory/documents'
import type { IkeKeys, Lifetimes } from '#ikev2/events'
import type { SampledGuard } from '#overlay/entry-guards'
import type { IsolationRule } from '#overlay/groups'
import type { GuardOptions } from '#overlay/guard'
import type { Destination } from '#overlay/path'
import type { PathTaste } from '#overlay/path-finder'
import type { Effect } from '#overlay/ports'
import type { RekeyEvent, RekeyWish } from '#overlay/rekeys'
import type { ReserveOptions } from '#overlay/reserve'
import type { SaCounters, SaKey } from '#telescope/plane'
import type { Telescope } from '#telescope/telescope'

export interface ClientOptions extends GuardOptions, PathTaste {
  /** Layers of a circuit, 1..5. */
  readonly hops: number
  /** Offered in this order. One constant for all clients unless the user insists. */
  readonly ciphers: readonly EspCipher[]
  /** Names of the nodes the default circuit must use. */
  readonly path?: readonly string[]
  readonly crypto: CryptoProvider
  readonly rng: Rng
  readonly keyLog?: boolean
  /** The entry guards of earlier runs, as `guards.changed` told them. */
  readonly guards?: readonly SampledGuard[]
  /** When layers get new keys; one constant for all clients unless a test is in a hurry. */
  readonly lifetimes?: Lifetimes
  /** Only circuits that are asked for. */
  readonly onDemand?: boolean
  /** Traffic that shares no circuit with other traffic. */
  readonly isolation?: readonly IsolationRule[]
  /** Circuits that stand ready; none unless said otherwise. */
  readonly reserve?: ReserveOptions
}

export type ClientInput =
  | { readonly kind: 'start' }
  | { readonly kind: 'datagram'; readonly path: UdpPath; readonly bytes: Uint8Array }
  | { readonly kind: 'consensus'; readonly consensus: Consensus }
  /** The last one may be used no longer: what is open stays, and nothing more is built. */
  | { readonly kind: 'consensus.expired' }
  /** One more circuit; `ticket` comes back in the event that says how it ended. */
  | {
      readonly kind: 'build'
      readonly ticket: number
      readonly path?: readonly string[]
      readonly hops?: number
      /** What for: the exit must let it through. */
      readonly destination?: Destination
    }
  | { readonly kind: 'close'; readonly circuit: CircuitId }
  /** New keys for hop 1, 2, ... of an open circuit, now and not when they are old. */
  | ({ readonly kind: 'rekey'; readonly circuit: CircuitId; readonly hop: number } & RekeyWish)
  /** Packets arrive on an SA that was to announce them. */
  | { readonly kind: 'heard'; readonly sa: SaKey }
  /** What the data plane counted; asked for every few seconds. */
  | { readonly kind: 'traffic'; readonly counters: readonly SaCounters[] }
  /** Our own address, or the way out of this host, is another one. */
  | { readonly kind: 'moved'; readonly self: Ip }
  | { readonly kind: 'stop' }
  /** A plane or host effect could not be performed. */
  | {
      readonly kind: 'effect.failed'
      readonly effect: Effect<ClientEvent>
      readonly code: ErrorCode
      readonly detail: string
    }

export type ClientEvent =
  | RekeyEvent
  | { readonly kind: 'circuit.open'; readonly circuit: Telescope; readonly ticket?: number }
  /** The circuit could not be built, or is lost. */
  | {
      readonly kind: 'circuit.failed'
      readonly circuit?: Telescope
      readonly ticket?: number
      readonly code: ErrorCode
      readonly detail: string
    }
  /** A hop answers no more. What was begun on the circuit goes on; if it was the default one, another is built. */
  | { readonly kind: 'circuit.draining'; readonly circuit: Telescope }
  /** It stood ready, and is what the traffic of this group uses from here on. */
  | { readonly kind: 'circuit.default'; readonly circuit: Telescope; readonly group: string }
  | { readonly kind: 'circuit.closed'; readonly circuit: Telescope }
  /** The entry knows where we are now; only layer 1 has changed. */
  | { readonly kind: 'circuit.moved'; readonly circuit: Telescope }
  | { readonly kind: 'keys'; readonly keys: IkeKeys }
  | { readonly kind: 'refused'; readonly counter: string; readonly detail: string }
  /** The guard does not stand. It is tried again, and nothing is built meanwhile. */
  | { readonly kind: 'guard.failed'; readonly code: ErrorCode; readonly detail: string }
  /** To be kept for the next run, instead of what was kept before. */
  | { readonly kind: 'guards.changed'; readonly sampled: readonly SampledGuard[] }
  /** The guard is gone: the daemon may end. */
  | { readonly kind: 'stopped' }

export type ClientState =
  | 'unguarded'
  | 'waiting-for-consensus'
  | 'building'
  | 'ready'
  | 'failed'
  | 'stopping'
  | 'stopped'
