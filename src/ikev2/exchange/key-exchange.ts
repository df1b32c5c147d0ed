/** What every key exchange is made of: a fresh key pair and a nonce on either side (RFC 7296 sections 2.10, 3.4, 3.9). */

import type { CryptoProvider, KeyAnswer, KeyPair } from '#crypto/provider'
import { malformed, PeerFault, protocolFault } from '#ikev2/fault'
import { groupOf } from '#ikev2/groups'
import type { NotifyPayload } from '#ikev2/message/payload'
import { NOTIFY } from '#ikev2/numbers'
import { Reader, Writer } from '#wire/cursor'

/** The nonces of both sides and the secrets they share, which are the receiver's to wipe. */
export interface Keying {
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  readonly sharedSecret: Uint8Array
  /** Of IKE_FOLLOWUP_KE (RFC 9370). */
  readonly additional?: Uint8Array
}

/** A Child SA may do without a key exchange of its own. */
export type ChildKeying = Pick<Keying, 'ni' | 'nr'> & Partial<Keying>

/** RFC 7296 section 2.10: at least half the key size of the PRF; everybody uses 32 octets. */
export const NONCE_LENGTH = 32
/** RFC 7296 section 3.9. */
const NONCE_MIN = 16
const NONCE_MAX = 256

export const isNonce = (nonce: Uint8Array): boolean => nonce.length >= NONCE_MIN && nonce.length <= NONCE_MAX

/** @throws PeerFault */
export function checkNonce(nonce: Uint8Array): Uint8Array {
  if (!isNonce(nonce)) throw malformed(`a nonce of ${nonce.length} octets`)
  return nonce
}

/** @throws PeerFault when the peer's value is of no use */
export function agree(crypto: CryptoProvider, group: number, keyPair: KeyPair, peer: Uint8Array): Uint8Array {
  return acceptable(groupOf(group).agree(crypto, keyPair.privateKey, peer))
}

/** The same for the side that answers. @throws PeerFault when the peer's value is of no use */
export function answerKey(crypto: CryptoProvider, group: number, peer: Uint8Array): KeyAnswer {
  return acceptable(groupOf(group).answer(crypto, peer))
}

/** The group an INVALID_KE_PAYLOAD in a rekey asks for: one of those `offered`, and not the one we tried. */
export function otherGroup(
  { type, data }: NotifyPayload,
  tried: number,
  offered: readonly number[],
): number | undefined {
  if (type !== NOTIFY.number.INVALID_KE_PAYLOAD || data.length !== 2) return undefined
  const group = new Reader(data).u16()
  return group !== tried && offered.includes(group) ? group : undefined
}

/** The KE payload must be of the group of the proposal: the answer names that one. */
export const invalidKe = (group: number): PeerFault =>
  new PeerFault('IPP_IKE_NO_PROPOSAL', 'invalid-ke', 'the KE payload is of another group than the proposal', {
    type: NOTIFY.number.INVALID_KE_PAYLOAD,
    data: new Writer(2).u16(group).finish(),
  })

/** RFC 7748 section 6.1, RFC 5903 section 9: not of a wrong length, no point of small order, and one of the curve. */
export function acceptable<T>(result: T | undefined): T {
  if (result === undefined) throw protocolFault('bad-ke', 'the key exchange value is not acceptable')
  return result
}
