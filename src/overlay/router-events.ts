/** The face of a node: what it is made of, what it is told, and what it says (`router.ts`). */
import type { ErrorCode } from '#base/errors'
import type { IkeSaId, NodeId } from '#base/ids'
import type { Ip, Prefix, UdpPath } from '#base/ip'
import type { Rng } from '#base/rng'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import type { EspCipher } from '#crypto/suites'
import type { Consensus, ConsensusNode, NodeRole } from '#directory/documents'
import type { Computed, IkeKeys, Lifetimes } from '#ikev2/events'
import type { Strategy } from '#ikev2/resumption/strategy'
import type { ExitPolicy, FilterContext } from '#nat/rules'
import type { NodeRulesRequest } from '#nat/rulesets'
import type { Peer } from '#overlay/peers'
import type { Effect } from '#overlay/ports'
import type { RekeyEvent, RekeyWish } from '#overlay/rekeys'
import type { Inventory, SaCounters, SaKey } from '#telescope/plane'

export interface RouterOptions {
  readonly nodeId: NodeId
  readonly self: Ip
  readonly port: number
  readonly roles: readonly NodeRole[]
  readonly exitPolicy: ExitPolicy
  /** Ed25519 key of IKE_AUTH, and a P-256 key for stock peers without EdDSA. */
  readonly ikeKey: KeyPair & { readonly ecdsa?: KeyPair }
  readonly ciphers: readonly EspCipher[]
  readonly context: FilterContext
  /** This host forwards packets for others, too, and is left to it. Default: it forwards for telescopes alone. */
  readonly isRouter?: boolean
  /** As of `NodeRulesRequest`. */
  readonly cache?: NodeRulesRequest['cache']
  readonly crypto: CryptoProvider
  readonly rng: Rng
  readonly keyLog?: boolean
  /** As of `IkeEngine`. */
  readonly offload?: boolean
  /** As of `IkeEngine`: tunnels of the overlay are spread evenly. Default: 1. */
  readonly spread?: number
  /** How long an authentication is good for; absent: everybody runs full exchanges. */
  readonly resumption?: Strategy
  /** What a killed predecessor left in force: its circuits go on. */
  readonly inventory?: Inventory
  /** When overlay tunnels get new keys, if not at the usual times. */
  readonly lifetimes?: Lifetimes
}

export type RouterInput =
  | { readonly kind: 'start' }
  | { readonly kind: 'datagram'; readonly path: UdpPath; readonly bytes: Uint8Array }
  | Computed
  | { readonly kind: 'consensus'; readonly consensus: Consensus }
  /** The last one may be used no longer: what stands stays, and no more clients are admitted. */
  | { readonly kind: 'consensus.expired' }
  /** Packets arrive on an SA that was to announce them. */
  | { readonly kind: 'heard'; readonly sa: SaKey }
  /** New keys for the overlay tunnel to a peer (its name or node id), now and not when they are old. */
  | ({ readonly kind: 'rekey'; readonly peer: string } & RekeyWish)
  /** What the data plane counted; asked for by the strategy `data`, and while there are circuits of a predecessor. */
  | { readonly kind: 'traffic'; readonly counters: readonly SaCounters[] }
  | { readonly kind: 'stop' }
  | {
      readonly kind: 'effect.failed'
      readonly effect: Effect<RouterEvent>
      readonly code: ErrorCode
      readonly detail: string
    }

export type RouterEvent =
  | RekeyEvent
  /** The consensus lists us (with this pool), or no longer does. */
  | { readonly kind: 'listed'; readonly pool: Prefix | undefined }
  | { readonly kind: 'overlay.up' | 'overlay.down'; readonly peer: ConsensusNode; readonly detail?: string }
  /** Counts only: nothing about who or where. */
  | { readonly kind: 'circuit.bound' | 'circuit.released' }
  /** A client was turned away; the circuits there are go on. */
  | { readonly kind: 'pool.exhausted' }
  | { readonly kind: 'refused'; readonly counter: string; readonly detail: string }
  | { readonly kind: 'keys'; readonly keys: IkeKeys }
  /** Filter, route or hardening do not stand. They are tried again, and no client is admitted meanwhile. */
  | { readonly kind: 'guard.failed'; readonly code: ErrorCode; readonly detail: string }
  | { readonly kind: 'stopped' }

/** Who hears of an effect that could not be performed. */
export type RouterOwner = { readonly link: Peer } | { readonly circuit: IkeSaId } | 'guard'
