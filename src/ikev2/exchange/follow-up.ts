/**
 * IKE_FOLLOWUP_KE (RFC 9370 section 2.2.4): the additional key exchange of a rekey, ML-KEM-768 as in IKE_INTERMEDIATE.
 *
 *     either side                                            the other
 *     CREATE_CHILD_SA with ADDKE1            --->
 *                                            <---            ... N(ADDITIONAL_KEY_EXCHANGE)(link)
 *     KE, N(ADDITIONAL_KEY_EXCHANGE)(link)   --->
 *                                            <---            KE
 *                                            <---            or N(STATE_NOT_FOUND)
 *
 * The link is the answering side's own, and means nothing to the other. The new SA exists, and has keys, when the last
 * of the two exchanges is done:
 *
 *     Child SA   KEYMAT   = prf+(SK_d, SK(0) | Ni | Nr | SK(1))
 *     IKE SA     SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1))
 */
import type { KeyPair } from '#crypto/provider'
import { intermediateRequest } from '#ikev2/exchange/intermediate'
import { PeerFault, protocolFault } from '#ikev2/fault'
import { notify, type Payload } from '#ikev2/message/payload'
import { notifies } from '#ikev2/message/registry'
import { NOTIFY } from '#ikev2/numbers'

export {
  answerIntermediate as answerFollowUp,
  readIntermediateAnswer as readFollowUpAnswer,
} from '#ikev2/exchange/intermediate'

export const followUpRequest = (keyPair: KeyPair, link: Uint8Array): Payload[] => [
  ...intermediateRequest(keyPair),
  linkPayload(link),
]

export const linkPayload = (link: Uint8Array): Payload => notify(NOTIFY.number.ADDITIONAL_KEY_EXCHANGE, link)

/** The link of a message, if it has exactly one. */
export function linkOf(payloads: readonly Payload[]): Uint8Array | undefined {
  const links = notifies(payloads, NOTIFY.number.ADDITIONAL_KEY_EXCHANGE)
  return links.length === 1 ? links[0]!.data.slice() : undefined
}

/** @throws PeerFault when the peer agreed to an additional key exchange and does not say how it goes on */
export function needLink(payloads: readonly Payload[]): Uint8Array {
  const link = linkOf(payloads)
  if (link === undefined) throw protocolFault('bad-link', 'an additional key exchange without its link')
  return link
}

/** We have forgotten what this belongs to, or never knew. The peer begins anew. */
export const stateNotFound = (detail: string): PeerFault =>
  new PeerFault('IPP_IKE_PROTOCOL', 'state-not-found', detail, { type: NOTIFY.number.STATE_NOT_FOUND })
