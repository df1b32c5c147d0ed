/**
 * Raw public keys in CERT payloads (RFC 7670): encoding 15, a SubjectPublicKeyInfo. Keys are pinned here, so nobody needs
 * one and we never ask. A peer that asks for ours gets it, and what a peer shows must be the key that is pinned:
 *
 *     CERTREQ  15 (1) | nothing, and what there is is ignored
 *     CERT     15 (1) | SubjectPublicKeyInfo
 *
 * Certificates of every other encoding are ignored: what they say counts for nothing beside the pin. So is the CERT of
 * a peer that proves to be nobody.
 */
import { equalBytes } from '#base/bytes'
import { encodeSpki, type PublicKey, readPublicKey } from '#crypto/public-key'
import type { LocalCredential } from '#ikev2/events'
import { PeerFault } from '#ikev2/fault'
import type { Payload } from '#ikev2/message/payload'
import { CERT_ENCODING, NOTIFY } from '#ikev2/numbers'
import { SIGNATURE_ALGORITHMS } from '#ikev2/signature'

type AuthPayload = Extract<Payload, { kind: 'AUTH' }>

const { RAW_PUBLIC_KEY } = CERT_ENCODING.number

export const asksForRawKey = (payloads: readonly Payload[]): boolean =>
  payloads.some((payload) => payload.kind === 'CERTREQ' && payload.encoding === RAW_PUBLIC_KEY)

/** Ours, for a peer that asked: the key that made `auth`. Nothing of who has no key, or one that everybody has. */
export function rawKeys(isAskedFor: boolean, credential: LocalCredential, auth: AuthPayload): Payload[] {
  if (!isAskedFor || credential.kind !== 'ed25519') return []
  return [{ kind: 'CERT', encoding: RAW_PUBLIC_KEY, data: encodeSpki(keyBehind(credential, auth)) }]
}

/** @throws PeerFault when the peer shows another key than the one that is pinned. */
export function checkRawKeys(payloads: readonly Payload[], pinned: Uint8Array): void {
  const shown = payloads.filter(
    (payload) => payload.kind === 'CERT' && payload.encoding === RAW_PUBLIC_KEY,
  ) as Extract<Payload, { kind: 'CERT' | 'CERTREQ' }>[]
  if (shown.length === 0) return
  const key = readPublicKey(pinned)
  const expected = key && encodeSpki(key)
  // DER has one encoding of a key, so there is nothing of the peer's to parse.
  if (expected !== undefined && shown.every(({ data }) => equalBytes(data, expected))) return
  const detail = 'the peer shows another key than the one that is pinned'
  throw new PeerFault('IPP_IKE_AUTH_FAILED', 'raw-key', detail, { type: NOTIFY.number.AUTHENTICATION_FAILED })
}

/** Of the two that a node may have: the one whose signature it is. */
function keyBehind(
  { publicKey, ecdsa }: LocalCredential & { kind: 'ed25519' },
  { data }: AuthPayload,
): PublicKey {
  const { ed25519 } = SIGNATURE_ALGORITHMS
  if (ecdsa === undefined || equalBytes(data.subarray(1, 1 + ed25519.length), ed25519))
    return { kind: 'ed25519', octets: publicKey }
  return { kind: 'ecdsa', curve: 'p256', point: ecdsa.publicKey }
}
