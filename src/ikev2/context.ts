import type { ErrorCode } from '#base/errors'
import type { IkeSaId, Spi } from '#base/ids'
import type { UdpPath } from '#base/ip'
import type { Rng } from '#base/rng'
import { type Duration, type Instant, MINUTE, type TimerTable } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { Counter, Refusal } from '#ikev2/counters'
import type { IkeKeys, IkeOutput } from '#ikev2/events'
import type { PeerFault } from '#ikev2/fault'
import type { TicketMint } from '#ikev2/resumption/mint'
import type { IkeSa } from '#ikev2/sa'
import type { SpiWish } from '#ikev2/spis'
import type { Workshop } from '#ikev2/workshop'

/** What an engine lends to its IKE SAs. */
export interface IkeContext {
  readonly crypto: CryptoProvider
  readonly rng: Rng
  /** Takes the keys of every new IKE SA, where somebody asked for them. */
  readonly logKeys: ((keys: Omit<IkeKeys, 'kind'>) => void) | undefined
  emit(output: IkeOutput): void
  /** Counts a refusal and tells the owner. `detail` never quotes addresses or octets of the peer. */
  refuse(counter: Refusal, detail: string): void
  /** Where what takes long is computed. */
  readonly workshop: Workshop | undefined
  /** Counts without a word. */
  count(counter: Counter): void
  /** Absent: nobody gets a ticket here, and none is good. */
  readonly resumption: Resumption | undefined
  /** A session resumed what another one was: that one is over, without a word (RFC 5723 section 4.3.4). */
  supersede(session: IkeSaId): void
  /** A fresh inbound ESP SPI, unique in this engine until it is released. */
  allocateSpi(wish?: SpiWish): Spi
  releaseSpi(spi: Spi): void
  /** A fresh SPI for an IKE SA of ours. */
  freshIkeSpi(): Uint8Array
  /** Datagrams to this SPI of ours are for `sa`, until `forget`. */
  listen(spi: Uint8Array, sa: IkeSa): void
  forget(spi: Uint8Array): void
}

/** A responder's side of session resumption (RFC 5723). */
export interface Resumption {
  readonly mint: TicketMint
  /** May peers from there have tickets, and use them? */
  mayResume(path: UdpPath): boolean
  /** Octets that the Child SAs of a session carried so far. */
  octetsOf(session: IkeSaId): number
}

/** Something to ask of the peer once its time has come and the window is free. It may find nothing left to do. */
export interface Task {
  run(sa: IkeSa, now: Instant): void
}

export type Agenda = TimerTable<Task>

/** How long a peer may take to do its part before we stop waiting: answer, or delete what it replaced. */
export const PEER_PATIENCE: Duration = 2 * MINUTE
/**
 * For the answer to a request on an established IKE SA that is no question of life: about a dozen tries, as RFC 7296
 * section 2.4 wants. A bad path is not to end what still works.
 */
export const REQUEST_PATIENCE: Duration = 4 * MINUTE
/** Of a lifetime, to either side. */
export const LIFETIME_JITTER = 0.25

/** Why an IKE SA ends. */
export interface Verdict {
  readonly code: ErrorCode
  readonly detail: string
}

export const verdictOf = (fault: PeerFault): Verdict => ({ code: fault.code, detail: fault.message })
