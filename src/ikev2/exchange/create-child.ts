/**
 * CREATE_CHILD_SA as a responder. An IKE SA of ours has the one Child SA it was made for: a second one is refused
 * (RFC 7296 section 1.3), and so is a rekey, after which the peer builds anew.
 */
import type { Spi } from '#base/ids'
import { malformed } from '#ikev2/fault'
import { notify, type Payload } from '#ikev2/message/payload'
import { notifies } from '#ikev2/message/registry'
import { NOTIFY, PROTOCOL } from '#ikev2/numbers'
import { Reader } from '#wire/cursor'

/** @throws PeerFault INVALID_SYNTAX for a REKEY_SA that cannot name a Child SA. */
export function answerCreateChild(
  payloads: readonly Payload[],
  hasOutbound: (spi: Spi) => boolean,
): Payload[] {
  for (const { protocol, spi } of notifies(payloads, NOTIFY.number.REKEY_SA)) {
    if (protocol !== PROTOCOL.number.ESP || spi.length !== 4)
      throw malformed(`REKEY_SA for ${PROTOCOL.nameOf(protocol)} with an SPI of ${spi.length} octets`)
    // RFC 7296 section 2.25.1; the notify names the SA that was not found.
    if (!hasOutbound(new Reader(spi).u32() as Spi))
      return [
        { kind: 'Notify', protocol, spi, type: NOTIFY.number.CHILD_SA_NOT_FOUND, data: new Uint8Array(0) },
      ]
  }
  return [notify(NOTIFY.number.NO_ADDITIONAL_SAS)]
}
