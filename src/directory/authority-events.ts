/** What goes into the machine of an authority and comes out of it. */
import type { NodeId } from '#base/ids'
import type { Prefix } from '#base/ip'
import type { UnixTime } from '#base/time'
import type { KnownNode } from '#directory/admission'
import type { Consensus } from '#directory/documents'
import type { Figure } from '#directory/measurement'

/** A node as an authority knows it. */
export interface AuthorityRecord extends KnownNode {
  /** What the last document that listed it said. */
  readonly pool: Prefix | undefined
  /** Since when every vote of ours found it running; absent: the last one did not, or there was none. */
  readonly up?: UnixTime
  /** The last word of our measurer. */
  readonly figure?: Figure
}

export interface KeptState {
  readonly records: ReadonlyMap<NodeId, AuthorityRecord>
  /** The last document, which is verified again. */
  readonly document: string | undefined
  /** The last periods in which it voted and signed; 0: never. */
  readonly voted: number
  readonly signed: number
}

/** What authorities say to each other. */
export type MessageKind = 'vote' | 'roll' | 'signature' | 'consensus'

/** A question to another authority. With `digest`: this vote, whoever wrote it; else what it said itself. */
export interface Question {
  readonly kind: MessageKind
  readonly period: number
  readonly digest?: string
}

export type AlarmName =
  | 'equivocation'
  | 'other-period'
  | 'vote-missing'
  | 'vote-late'
  | 'votes-too-few'
  | 'signature-missing'
  | 'signature-invalid'
  | 'document-differs'
  | 'document-missing'
  | 'clock'
  | 'fork'

/** In this order; a driver does not go on before `keep` is on disk. */
export type AuthorityEffect =
  | { readonly kind: 'keep'; readonly what: 'voted' | 'signed'; readonly period: number }
  | { readonly kind: 'keep'; readonly what: 'nodes'; readonly records: readonly AuthorityRecord[] }
  | { readonly kind: 'forget'; readonly nodes: readonly NodeId[] }
  /** To every other authority. */
  | { readonly kind: 'tell'; readonly message: MessageKind; readonly text: string }
  | { readonly kind: 'ask'; readonly who: Uint8Array; readonly question: Question }
  /** The document to keep, then to serve. */
  | { readonly kind: 'publish'; readonly text: string; readonly consensus: Consensus }
  /** Counted as `alarm.<name>`; `author` is one of the pinned keys. */
  | { readonly kind: 'alarm'; readonly name: AlarmName; readonly author?: Uint8Array }

/** Keys in hex. */
export interface HeardFrom {
  readonly votes: ReadonlySet<string>
  readonly rolls: ReadonlySet<string>
  readonly signatures: ReadonlySet<string>
}

export interface HeldDocument {
  readonly text: string
  readonly consensus: Consensus
}
