/**
 * IKE_INTERMEDIATE (RFC 9242) with one additional key exchange (RFC 9370 section 2.2.2): ML-KEM-768
 * (draft-ietf-ipsecme-ikev2-mlkem), where the one side sends a key and the other what it encapsulated for it.
 *
 *     initiator                                responder
 *     KE(encapsulation key, 1184)    --->
 *                                    <---      KE(ciphertext, 1088)
 *
 * It protects against whoever records now and breaks X25519 later. All keys change with it, and AUTH covers both
 * messages.
 */
import type { CryptoProvider, Encapsulation, KeyPair } from '#crypto/provider'
import { malformed, protocolFault } from '#ikev2/fault'
import type { Opened } from '#ikev2/message/fragment'
import { HEADER_LENGTH } from '#ikev2/message/header'
import { GENERIC_HEADER_LENGTH, type Payload } from '#ikev2/message/payload'
import { errorNotify, need } from '#ikev2/message/registry'
import { GROUP, NOTIFY, PAYLOAD } from '#ikev2/numbers'

export const intermediateRequest = ({ publicKey }: KeyPair): Payload[] => [ke(publicKey)]

/** The shared secret, the caller's to wipe. @throws PeerFault */
export function readIntermediateAnswer(
  crypto: CryptoProvider,
  { privateKey }: KeyPair,
  payloads: readonly Payload[],
): Uint8Array {
  const error = errorNotify(payloads)
  if (error !== undefined)
    throw protocolFault('bad-ke', `the peer answered our key with ${NOTIFY.nameOf(error.type)}`)
  const secret = crypto.mlkem768Decapsulate(privateKey, readKey(payloads))
  if (secret === undefined) throw protocolFault('bad-ke', 'the ciphertext has a wrong length')
  return secret
}

/** @throws PeerFault when the peer's key is none */
export function answerIntermediate(
  crypto: CryptoProvider,
  payloads: readonly Payload[],
): { readonly sharedSecret: Uint8Array; readonly payloads: Payload[] } {
  return answerKeyWith(crypto.mlkem768Encapsulate(readKey(payloads)))
}

/** The same with what came of the peer's key. @throws PeerFault when that was none */
export function answerKeyWith(encapsulation: Encapsulation | undefined): {
  readonly sharedSecret: Uint8Array
  readonly payloads: Payload[]
} {
  if (encapsulation === undefined) throw protocolFault('bad-ke', 'not an ML-KEM-768 key')
  const { sharedSecret, ciphertext } = encapsulation
  return { sharedSecret, payloads: [ke(ciphertext)] }
}

/**
 * The octets of a message that IntAuth covers (RFC 9242 section 3.3.2): the message as if it had travelled in one
 * piece and in the clear - all headers, with lengths that count no IV, padding and ICV, and the payloads.
 */
export function authenticatedOctets({ front, plaintext }: Pick<Opened, 'front' | 'plaintext'>): Uint8Array {
  if (front.length !== HEADER_LENGTH + GENERIC_HEADER_LENGTH) throw malformed('payloads in front of SK')
  const octets = new Uint8Array(front.length + plaintext.length)
  octets.set(front)
  octets.set(plaintext, front.length)
  const view = new DataView(octets.buffer)
  octets[FIRST_PAYLOAD_AT] = PAYLOAD.number.SK
  view.setUint32(LENGTH_AT, octets.length)
  view.setUint16(HEADER_LENGTH + 2, octets.length - HEADER_LENGTH)
  return octets
}

const FIRST_PAYLOAD_AT = 16
const LENGTH_AT = 24

const ke = (data: Uint8Array): Payload => ({ kind: 'KE', group: GROUP.number.MLKEM768, data })

/** @throws PeerFault */
export function readKey(payloads: readonly Payload[]): Uint8Array {
  const { group, data } = need(payloads, 'KE')
  if (group !== GROUP.number.MLKEM768)
    throw protocolFault('bad-ke', `${GROUP.nameOf(group)} is not the method agreed`)
  return data
}
