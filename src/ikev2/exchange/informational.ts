/** INFORMATIONAL (RFC 7296 section 1.4): deletion, and the empty message that asks "are you there?". */

import type { Spi } from '#base/ids'
import { spiBytes } from '#ikev2/exchange/child'
import type { Payload } from '#ikev2/message/payload'
import { notifies } from '#ikev2/message/registry'
import { NOTIFY, PROTOCOL } from '#ikev2/numbers'
import { Reader } from '#wire/cursor'

export const deleteIke = (): Payload => ({ kind: 'Delete', protocol: PROTOCOL.number.IKE, spis: [] })

/** DELETE lists the SPIs of the sender's inbound SAs (RFC 7296 section 1.4.1). */
export const deleteChildren = (inboundSpis: readonly Spi[]): Payload => ({
  kind: 'Delete',
  protocol: PROTOCOL.number.ESP,
  spis: inboundSpis.map(spiBytes),
})

/** What the peer deletes: the whole IKE SA, or Child SAs by the SPIs that are outbound for us. */
export function readDeletes(payloads: readonly Payload[]): {
  readonly ike: boolean
  readonly outboundSpis: readonly Spi[]
} {
  let ike = false
  const outboundSpis: Spi[] = []
  for (const payload of payloads) {
    if (payload.kind !== 'Delete') continue
    if (payload.protocol === PROTOCOL.number.IKE) ike = true
    if (payload.protocol === PROTOCOL.number.ESP)
      for (const spi of payload.spis) outboundSpis.push(new Reader(spi).u32() as Spi)
  }
  return { ike, outboundSpis }
}

/** The peer did not accept our proof and says so in an exchange of its own (RFC 7296 section 2.21.2). */
export const saysAuthFailed = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, NOTIFY.number.AUTHENTICATION_FAILED).length > 0
