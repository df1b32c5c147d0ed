import type { ErrorCode } from '#base/errors'
import type { IkeSaId, Spi } from '#base/ids'
import type { Ip, UdpPath } from '#base/ip'
import type { Duration } from '#base/time'
import type { KeyPair } from '#crypto/provider'
import type { EspCipher } from '#crypto/suites'
import type { Job, JobResult } from '#ikev2/computation'
import type { Refusal } from '#ikev2/counters'
import type { Strategy } from '#ikev2/resumption/strategy'
import type { ResumptionTicket } from '#ikev2/resumption/ticket'

/**
 * The face of the IKEv2 engine: what its owner tells it and what it says back. The engine itself
 * (`engine.ts`) knows nothing of telescopes, pools or nodes.
 *
 * Terms are those of RFC 7296. "Local" and "remote" are as seen by this engine.
 */

/** With `offload` the octets of a datagram are the engine's from here on. */
export type IkeInput =
  | { readonly kind: 'datagram'; readonly path: UdpPath; readonly bytes: Uint8Array }
  | Computed

/** What a `compute` came to; no `result`: it failed, and the peer has to ask again. The engine owns the result. */
export interface Computed {
  readonly kind: 'computed'
  readonly id: number
  readonly done: { readonly result: JobResult } | undefined
}

/**
 * Of a responder that was made with `offload`: do this job, anywhere and in any order, and answer with `computed`.
 * What is in it still belongs to the engine, so take copies before anything else is asked of it.
 */
export interface Compute {
  readonly kind: 'compute'
  readonly id: number
  readonly job: Job
}

/** In the order they must be performed: see `Machine`. */
export type IkeOutput =
  | { readonly kind: 'transmit'; readonly path: UdpPath; readonly bytes: Uint8Array }
  | Compute
  | IkeEvent

export type IkeEvent =
  /** Both sides are authenticated. Comes before the `child.established` of the same exchange. */
  | IkeEstablished
  /** A Child SA exists: install it. For a responder this comes before the reply is transmitted. */
  | ChildEstablished
  /**
   * `child` is to take the place of `old`, with the same selectors: install its inbound SA beside the pair of `old`,
   * and go on sending on `old`. For a responder this comes before the reply is transmitted. Rekeys from both sides
   * may cross: then an `old` has two of them, and the one that loses is closed without ever being switched to.
   */
  | { readonly kind: 'child.rekeyed'; readonly sa: IkeSaId; readonly old: ChildSa; readonly child: ChildSa }
  /**
   * The peer can hear `child`, and we have been sending on `old` so far: install its outbound SA, then remove that of `old`. The inbound SA of `old` stays
   * until `child.closed`, for packets that are still on their way. From here on `child` is the Child SA.
   */
  | { readonly kind: 'child.switched'; readonly sa: IkeSaId; readonly old: ChildSa; readonly child: ChildSa }
  /** A Child SA is gone (deleted by either side, replaced, or with its IKE SA): remove both its SAs. */
  | { readonly kind: 'child.closed'; readonly sa: IkeSaId; readonly child: ChildSa }
  /** The IKE SA is gone and its id is free of meaning. Every child was closed before. A rekey keeps the id. */
  | {
      readonly kind: 'ike.closed'
      readonly sa: IkeSaId
      readonly role: IkeRole
      readonly path: UdpPath
      readonly reason: ErrorCode
      readonly detail: string
    }
  /** The keys of an IKE SA are new, and so are its SPIs; by either side's rekey. The id stays. */
  | { readonly kind: 'ike.rekeyed'; readonly sa: IkeSaId }
  /** The way of an IKE SA is another one, and with it that of its Child SAs (RFC 4555). */
  | IkeMoved
  /** One of our exchanges was answered. `duration` counts from the first transmission. */
  | {
      readonly kind: 'exchange'
      readonly sa: IkeSaId
      readonly name: string
      readonly duration: Duration
      readonly transmissions: number
    }
  /** Secrets for the key log; emitted only when the engine was made with `keyLog: true`. */
  | IkeKeys
  /** The peer gave us a ticket, the last one of this IKE SA that counts. The receiver owns it, and wipes it in the end. */
  | { readonly kind: 'ticket'; readonly sa: IkeSaId; readonly ticket: ResumptionTicket }
  /** Something was refused or ignored: counted, never fatal to others. */
  | { readonly kind: 'refused'; readonly counter: Refusal; readonly detail: string }

export interface IkeEstablished {
  readonly kind: 'ike.established'
  readonly sa: IkeSaId
  readonly role: IkeRole
  readonly path: UdpPath
  readonly peer: PeerIdentity
  readonly suite: string
  /** The address lent by this exchange: to us (initiator) or by us (responder). */
  readonly leased?: Ip
}

export interface ChildEstablished {
  readonly kind: 'child.established'
  readonly sa: IkeSaId
  readonly role: IkeRole
  readonly path: UdpPath
  readonly peer: PeerIdentity
  readonly leased?: Ip
  /** A NAT stands between: ESP goes in UDP (RFC 3948), between the ports of `path`. */
  readonly encapsulated?: true
  readonly child: ChildSa
}

export interface IkeMoved {
  readonly kind: 'ike.moved'
  readonly sa: IkeSaId
  readonly role: IkeRole
  readonly path: UdpPath
  readonly encapsulated?: true
}

export interface IkeKeys {
  readonly kind: 'keys'
  readonly sa: IkeSaId
  readonly path: UdpPath
  readonly spiInitiator: Uint8Array
  readonly spiResponder: Uint8Array
  /** Key with its 4 octets of salt. */
  readonly skEi: Uint8Array
  readonly skEr: Uint8Array
  readonly cipher: EspCipher
}

export type IkeRole = 'initiator' | 'responder'

export interface ChildSa {
  /** On packets we receive; chosen by us. */
  readonly inboundSpi: Spi
  /** On packets we send; chosen by the peer. */
  readonly outboundSpi: Spi
  readonly cipher: EspCipher
  /** Key and salt of each direction. The receiver of this event owns them and wipes them. */
  readonly inboundKey: Uint8Array
  readonly outboundKey: Uint8Array
  readonly esn: boolean
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
}

/** An IPv4 address range with ports (RFC 7296 section 3.13.1). */
export interface TrafficSelector {
  /** 0 is any. */
  readonly protocol: number
  readonly startPort: number
  readonly endPort: number
  readonly startAddress: Ip
  readonly endAddress: Ip
}

export const ANY_SELECTOR: TrafficSelector = {
  protocol: 0,
  startPort: 0,
  endPort: 65535,
  startAddress: '0.0.0.0' as Ip,
  endAddress: '255.255.255.255' as Ip,
}

/** ID payload (RFC 7296 section 3.5, RFC 7619 section 2.2): type and data as on the wire. */
export interface IkeId {
  readonly type: number
  readonly data: Uint8Array
}

/**
 * Who the peer proved to be. `none` is NULL authentication (RFC 7619), or a shared key that is published: two such
 * peers are never the same.
 */
export type PeerIdentity =
  | { readonly kind: 'none' }
  | { readonly kind: 'key'; readonly id: IkeId; readonly publicKey: Uint8Array }

/** How we prove who we are. */
export type LocalCredential =
  /** NULL authentication with an empty ID_NULL. */
  | { readonly kind: 'null' }
  /** Method 2 with a published key, for stock responders without NULL: a fresh random ID_KEY_ID per IKE SA. */
  | { readonly kind: 'psk'; readonly key: Uint8Array }
  /**
   * Method 14 with Ed25519 (RFC 7427, RFC 8420). `privateKey` is the 32-octet seed. `ecdsa` is a P-256 key for peers
   * that announce a SHA-2 hash and not "identity": they have no EdDSA.
   */
  | {
      readonly kind: 'ed25519'
      readonly id: IkeId
      readonly privateKey: Uint8Array
      readonly publicKey: Uint8Array
      readonly ecdsa?: KeyPair
    }

/** What we demand of a peer before anything else happens. */
export interface ExpectedPeer {
  readonly id: IkeId
  /** Pinned from the directory: Ed25519 as its 32 octets; ECDSA (P-256, P-384) and RSA as SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
}

/** One IKE SA to be initiated. */
export interface InitiateRequest {
  readonly path: UdpPath
  readonly credential: LocalCredential
  readonly peer: ExpectedPeer
  /** Ask for an INTERNAL_IP4_ADDRESS; then our selector must come back as exactly that address. */
  readonly requestAddress: boolean
  /**
   * Finds a NAT between, and follows changes of our address (`IkeEngine.move`): for the first hop of a client only,
   * and there always. Both need hashes of addresses that deeper hops must not see.
   */
  readonly mobile?: true
  /** Proposed selectors. The answer must equal them (or the leased /32 on our side): no silent narrowing. */
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  /** ESP ciphers in order of preference. */
  readonly espCiphers: readonly EspCipher[]
  /** Check the peer after this much silence; absent: never. A telescope has its last hop checked, which proves all. */
  readonly liveness?: Duration
  /** Lower bound of the first retransmission timeout; deeper hops wait longer. */
  readonly initialTimeout?: Duration
  /** Give the peer up after this long: while it is being established, and when it answers no liveness check. */
  readonly patience?: Duration
  readonly lifetimes?: Lifetimes
  /** Ask for tickets (RFC 5723), and begin with this one if it is still good. The engine owns it from here on. */
  readonly resume?: {
    readonly ticket?: ResumptionTicket
    /** Give the ticket back, as an event, if nobody answers it: for peers that are no secret to each other. */
    readonly returnUnanswered?: boolean
  }
  /** Offer an additional key exchange, ML-KEM-768. Everybody does: to be without is for tests and comparisons. Default: true. */
  readonly hybrid?: boolean
}

/**
 * How long an SA is used before it is renewed. The actual moment is random, up to a quarter earlier or later, so that
 * layers of a telescope and the SAs of a node never line up. Both sides renew: let the one that should not have at
 * least twice the lifetimes of the other. Absent: never on our own.
 */
export interface Lifetimes {
  readonly ike: Duration
  readonly child: Duration
}

/** What a responder decides, synchronously and without I/O. */
export interface ResponderPolicy {
  readonly credential: LocalCredential & { kind: 'ed25519' }
  /** The shared key by which stock initiators say that they are nobody; absent: method 2 is refused. */
  readonly publishedKey?: Uint8Array
  /** May a peer without a key of its own come from here? Undefined: yes. */
  admitAnonymous(path: UdpPath): ErrorCode | undefined
  /** May a NAT stand before a peer there, and may it move? Absent: no, and whatever it says of that is ignored. */
  mayMove?(path: UdpPath): boolean
  /** Whose client comes from there: those of one neighbour share what room there is. Undefined: its /24 (or /56). */
  neighbourOf?(path: UdpPath): string | undefined
  /** The pinned key, as in `ExpectedPeer`, of a peer that claims this identity; undefined: a stranger. */
  publicKeyOf(id: IkeId, path: UdpPath): Uint8Array | undefined
  /** A fresh address for this IKE SA, or undefined when the pool is exhausted. */
  lease(sa: IkeSaId, path: UdpPath): Ip | undefined
  /** Selectors for an authenticated (key) peer; undefined: refuse. Anonymous peers get exactly lease <-> any. */
  selectorsFor(
    id: IkeId,
    proposedLocal: readonly TrafficSelector[],
    proposedRemote: readonly TrafficSelector[],
  ): { readonly local: readonly TrafficSelector[]; readonly remote: readonly TrafficSelector[] } | undefined
  readonly espCiphers: readonly EspCipher[]
  readonly liveness?: Duration
  readonly lifetimes?: Lifetimes
  /** Absent: no tickets. */
  readonly resumption?: ResumptionPolicy
}

export interface ResumptionPolicy {
  readonly strategy: Strategy
  /** May peers from there have tickets, and use them? */
  mayResume(path: UdpPath): boolean
  /** Octets that the Child SAs of this IKE SA carried so far; what is not counted is 0. */
  octetsOf(sa: IkeSaId): number
}
