import type { NodeId } from '#base/ids'
import type { Ip, Prefix } from '#base/ip'
import type { UnixTime } from '#base/time'
import type { ExitPolicy } from '#nat/rules'

/**
 * What the directory says, as values. `descriptor.ts` and `consensus.ts` turn signed bytes into these and
 * back; nobody else parses documents.
 */
export interface NodeDescriptor {
  readonly nodeId: NodeId
  /** Ed25519 identity key, 32 octets; `nodeId` is its SHA-256. */
  readonly identityKey: Uint8Array
  /** Key the node signs IKE_AUTH with: Ed25519 as 32 octets, ECDSA or RSA (stock routers) as SubjectPublicKeyInfo. */
  readonly ikeKey: Uint8Array
  /** With which it signs instead for stock peers without EdDSA: ECDSA P-256 as SubjectPublicKeyInfo. */
  readonly ecdsaKey?: Uint8Array
  /** How an anonymous peer authenticates to this node. Absent: by NULL authentication (RFC 7619). */
  readonly ike?: StockAuthentication
  /** Chosen by the operator, 1..19 of [a-z0-9-], unique in a consensus. For people; programs use `nodeId`. */
  readonly name: string
  readonly address: Ip
  /** IKE port; 500 unless said otherwise. */
  readonly port: number
  readonly roles: readonly NodeRole[]
  readonly exitPolicy: ExitPolicy
  readonly published: UnixTime
  readonly software: string
  /** Kilobits per second it wants to carry at most. It can make itself be used less by it, and never more. */
  readonly declared?: number
  /** Nodes of one family have one operator, and never share a path. */
  readonly family?: FamilyMembership
}

/** A node says that it is of a family, and the family's key says so too: nobody can join another's, or be put into one. */
export interface FamilyMembership {
  /** Ed25519, 32 octets: the name of the family. */
  readonly key: Uint8Array
  /** By that key, over the node's identity key (`family.ts`). */
  readonly proof: Uint8Array
}

/**
 * Of a stock router without NULL authentication: a pre-shared key that everybody knows, and so proves nothing. It is
 * printable ASCII, for it stands in configuration files.
 */
export interface StockAuthentication {
  readonly method: 'psk'
  readonly key: string
}

/**
 * Seconds by which two honest clocks may differ. It is granted where a document is younger than the reader
 * thinks possible; never at the end of its life, which is long enough already.
 */
export const CLOCK_TOLERANCE = 120

/** Seconds: the shortest period in which each step of authorities is two whole seconds. */
export const SHORTEST_PERIOD = 24

/** Of what descriptors name: letters that mean nothing to HTML, a shell or a terminal. */
export const SOFTWARE_PATTERN = '^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,39}$'

export const PUBLISHED_KEY_PATTERN = '^[A-Za-z0-9._+-]{1,64}$'

export type NodeRole = 'entry' | 'middle' | 'exit'

/** What most authorities found out about a node; the rules are in docs/directory.md. */
export type NodeFlag = 'exit' | 'fast' | 'guard' | 'running' | 'stable' | 'valid'

/** A node as the consensus lists it: its own words plus what the directory assigned. */
export interface ConsensusNode extends NodeDescriptor {
  /** Private addresses this node lends. Disjoint from every other node's. */
  readonly pool: Prefix
  /** Absent in a document of one directory alone, which finds out nothing. */
  readonly flags?: readonly NodeFlag[]
  /** Kilobits per second, as measured. Absent: nobody measured it, or too few did. */
  readonly bandwidth?: number
}

/** What all of a network have in common. */
export interface NetworkParameters {
  /** Octets of the packets inside circuits. */
  readonly mtu: number
  /** Number of the IKE profile: what is offered, in which order, and how messages are padded. */
  readonly profile: number
  /** Software that is recommended, as descriptors name theirs; empty: all. */
  readonly versions: readonly string[]
  /** The oldest version of this software that may take part, `1.2.3`. Absent: any. */
  readonly minimum?: string
}

export interface Consensus {
  readonly validAfter: UnixTime
  readonly freshUntil: UnixTime
  readonly validUntil: UnixTime
  /** Grows by one with every document: an older one is a replay. */
  readonly serial: number
  /** All pools are carved from it. */
  readonly poolSpace: Prefix
  /** Absent in a document of one directory alone. */
  readonly parameters?: NetworkParameters
  /** Sorted by nodeId. */
  readonly nodes: readonly ConsensusNode[]
}
