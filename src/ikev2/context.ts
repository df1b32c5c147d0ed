import type { ErrorCode } from '#base/errors'
import type { Spi } from '#base/ids'
import type { Rng } from '#base/rng'
import type { CryptoProvider } from '#crypto/provider'
import type { IkeKeys, IkeOutput } from '#ikev2/events'
import type { PeerFault } from '#ikev2/fault'

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
}

/** Why an IKE SA ends. */
export interface Verdict {
  readonly code: ErrorCode
  readonly detail: string
}

export const verdictOf = (fault: PeerFault): Verdict => ({ code: fault.code, detail: fault.message })
