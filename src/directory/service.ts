/** What HTTP asks of a directory, be it one that decides alone or one of several authorities. */
import type { IpprivError } from '#base/errors'
import type { NodeId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { Result } from '#base/result'
import type { Instant, UnixTime } from '#base/time'
import type { Counters } from '#directory/counters'
import type { Publication } from '#directory/publication'
import type { Shelf } from '#directory/shelf'

export interface DirectoryService {
  readonly counters: Counters
  /** What is served now. Undefined: nothing was ever made. */
  readonly publication: Publication | undefined
  /** The same, with the way to it from former documents. */
  readonly shelf: Shelf
  /** Why nothing new can be made or kept. */
  readonly problem: IpprivError | undefined
  /** Takes a descriptor, which came from `source` (undefined: wherever); what is acknowledged is on disk. */
  accept(document: Uint8Array, source?: Ip): Promise<Result<Acceptance>>
}

export interface Acceptance {
  readonly nodeId: NodeId
  /** The very same bytes were here before. */
  readonly known: boolean
}

export interface DirectoryClock {
  unixTime(): UnixTime
  monotonic(): Instant
}

/** What pino offers, and all that is used of it. */
export interface DirectoryLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}
