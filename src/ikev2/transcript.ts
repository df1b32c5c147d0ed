/**
 * Downgrade prevention (draft-ietf-ipsecme-ikev2-downgrade-prevention-08): AUTH covers all of IKE_SA_INIT.
 *
 * RFC 7296 has each side sign the one message it sent. When one side proves nothing, as our clients, who breaks the weakest
 * key exchange that the two would accept can strike all others from the request, and forge what covers the request.
 * With this extension the signature of the other side covers it, too:
 *
 *     plain    message sent |                         nonce of the peer | prf(SK_p, identity) [| IntAuth]
 *     full     0 (8 octets) | received | sent |       nonce of the peer | prf(SK_p, identity) [| IntAuth]
 *
 * A message never begins with a zero SPI, so the one is never the other. Both sides announce it in IKE_SA_INIT by an empty
 * notify, a responder also to who did not: what it says is under its own signature in either form, so who takes the
 * notify away, from whichever message, is found out. A rekeyed IKE SA has no AUTH, announces nothing and inherits what
 * was agreed. So does a resumed one, by its ticket: AUTH covers both messages of IKE_SESSION_RESUME then.
 *
 * The draft is no RFC yet. What is here agrees with two other implementations: libreswan (pull requests 3011: the notify is
 * 16447; 3024: the order of the octets; 3036: the ticket), and the downgrade prevention tests for strongSwan (who announces,
 * IntAuth at the end, rekeys). That both messages of IKE_SESSION_RESUME take the places of those of IKE_SA_INIT follows
 * from RFC 5723 section 5.2, and nobody but our own nodes resumes with us.
 */
import { concat } from '#base/bytes'
import type { IkeRole } from '#ikev2/events'
import { notify, type Payload } from '#ikev2/message/payload'
import { notifies } from '#ikev2/message/registry'
import { NOTIFY } from '#ikev2/numbers'

export const FULL_TRANSCRIPT: Payload = notify(NOTIFY.number.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)

export const announcesFullTranscript = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, NOTIFY.number.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH).length > 0

/** The part of the signed octets that comes from IKE_SA_INIT: whole datagrams, as sent last. */
export function signedMessages(
  init: {
    readonly initRequest: Uint8Array
    readonly initResponse: Uint8Array
    readonly fullTranscript: boolean
  },
  role: IkeRole,
): Uint8Array {
  const { initRequest, initResponse, fullTranscript } = init
  const [sent, received] = role === 'initiator' ? [initRequest, initResponse] : [initResponse, initRequest]
  return fullTranscript ? concat(ZERO_PREFIX, received, sent) : sent
}

const ZERO_PREFIX = new Uint8Array(8)
