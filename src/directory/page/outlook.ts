/** What the page shows, as values: the document and what this directory knows about how it came about. */
import type { NodeId } from '#base/ids'
import type { UnixTime } from '#base/time'
import type { Alarm } from '#directory/alarms'
import type { Consensus } from '#directory/documents'
import type { HistoryPoint } from '#directory/history'

export interface AuthorityOutlook {
  /** For people. */
  readonly name: string
  /** Public key, hex. */
  readonly key: string
  /** Its signature is on the document that is shown. */
  readonly signed: boolean
  /** Its vote came for the period that is being prepared, or was the last to be. Undefined: there are no votes. */
  readonly voted?: boolean
  /** The directory that serves this page. */
  readonly self: boolean
}

export interface Outlook {
  readonly now: UnixTime
  readonly consensus: Consensus
  /** Octets of the document, and of it compressed as most fetch it. */
  readonly size: { readonly plain: number; readonly packed: number }
  readonly authorities: readonly AuthorityOutlook[]
  readonly threshold: number
  /** Those that stand, the eldest first. */
  readonly alarms: readonly Alarm[]
  readonly history: readonly HistoryPoint[]
  /** What documents said of the bandwidth of a node, bits per second, the eldest first. */
  readonly courseOf: (id: NodeId) => readonly { readonly at: UnixTime; readonly value: number }[]
}

export type Verdict = 'well' | 'worn' | 'ill'

/** In one word for people: does the network have a document, is it new, and is something wrong? */
export function verdictOf({ now, consensus, alarms, authorities, threshold }: Outlook): Verdict {
  const signed = authorities.filter((authority) => authority.signed).length
  if (now >= consensus.validUntil || signed < threshold) return 'ill'
  return now >= consensus.freshUntil || alarms.length > 0 || signed < authorities.length ? 'worn' : 'well'
}
