import type { ErrorCode } from '#base/errors'
import type { Spi } from '#base/ids'
import type { Rng } from '#base/rng'
import { type Duration, type Instant, MINUTE, type TimerTable } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { IkeKeys, IkeOutput } from '#ikev2/events'
import type { PeerFault } from '#ikev2/fault'
import type { IkeSa } from '#ikev2/sa'

/** What an engine lends to its IKE SAs. */
export interface IkeContext {
  readonly crypto: CryptoProvider
  readonly rng: Rng
  /** Takes the keys of every new IKE SA, where somebody asked for them. */
  readonly logKeys: ((keys: Omit<IkeKeys, 'kind'>) => void) | undefined
  emit(output: IkeOutput): void
  /** Counts a refusal and tells the owner. `detail` never quotes addresses or octets of the peer. */
  refuse(counter: string, detail: string): void
  /** A fresh inbound ESP SPI, unique in this engine until it is released. */
  allocateSpi(): Spi
  releaseSpi(spi: Spi): void
  /** A fresh SPI for an IKE SA of ours. */
  freshIkeSpi(): Uint8Array
  /** Datagrams to this SPI of ours are for `sa`, until `forget`. */
  listen(spi: Uint8Array, sa: IkeSa): void
  forget(spi: Uint8Array): void
}

/** Something to ask of the peer once its time has come and the window is free. It may find nothing left to do. */
export interface Task {
  run(sa: IkeSa, now: Instant): void
}

export type Agenda = TimerTable<Task>

/** How long a peer may take to do its part before we stop waiting: answer, or delete what it replaced. */
export const PEER_PATIENCE: Duration = 2 * MINUTE
/** Of a lifetime, to either side. */
export const LIFETIME_JITTER = 0.25

/** Why an IKE SA ends. */
export interface Verdict {
  readonly code: ErrorCode
  readonly detail: string
}

export const verdictOf = (fault: PeerFault): Verdict => ({ code: fault.code, detail: fault.message })
