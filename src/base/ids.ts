/** Branded identifiers: a number that means one thing cannot be passed for another. */

import { fromHex, toHex } from '#base/bytes'

/** An ESP Security Parameter Index, 256..2^32-1 (RFC 4303 section 2.1 reserves 0..255). */
export type Spi = number & { readonly __brand: 'Spi' }
/** Names the SAs a policy template may use; survives rekeying (kernel "reqid"). */
export type ReqId = number & { readonly __brand: 'ReqId' }
/** A node: SHA-256 of its Ed25519 identity key, as 64 hex digits. It is also the node's IKE ID_KEY_ID. */
export type NodeId = string & { readonly __brand: 'NodeId' }
/** A circuit of one client, counted from 1 in that client. Local only: it never leaves the process. */
export type CircuitId = number & { readonly __brand: 'CircuitId' }
/** An IKE SA inside one engine, counted from 1. Local only. */
export type IkeSaId = number & { readonly __brand: 'IkeSaId' }

export const SPI_MIN = 256
export const formatSpi = (spi: Spi): string => `0x${spi.toString(16).padStart(8, '0')}`
export const nodeIdBytes = (id: NodeId): Uint8Array => fromHex(id)
export const nodeIdFromBytes = (bytes: Uint8Array): NodeId => toHex(bytes) as NodeId
export const isNodeId = (text: string): text is NodeId => /^[0-9a-f]{64}$/.test(text)
