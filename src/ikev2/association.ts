/** Who an IKE SA is on the wire: its SPIs, our role, and the way its datagrams take. */

import { equalBytes } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import type { UdpPath } from '#base/ip'
import type { IkeRole } from '#ikev2/events'
import { type Header, isZeroSpi, SPI_LENGTH } from '#ikev2/message/header'
import { Way } from '#ikev2/way'

export class Association {
  readonly id: IkeSaId
  readonly role: IkeRole
  readonly way: Way
  readonly spiInitiator: Uint8Array
  #spiResponder: Uint8Array

  /** Without `spiResponder` this is an initiator, which learns it from the answer to IKE_SA_INIT. */
  constructor(
    id: IkeSaId,
    way: Way | UdpPath,
    spiInitiator: Uint8Array,
    spiResponder?: Uint8Array,
    role: IkeRole = spiResponder === undefined ? 'initiator' : 'responder',
  ) {
    this.id = id
    this.role = role
    this.way = way instanceof Way ? way : new Way(way, role)
    this.spiInitiator = spiInitiator
    this.#spiResponder = spiResponder ?? new Uint8Array(SPI_LENGTH)
  }

  get path(): UdpPath {
    return this.way.path
  }

  /** All zero until it is known (RFC 7296 section 3.1). */
  get spiResponder(): Uint8Array {
    return this.#spiResponder
  }

  learnResponder(spi: Uint8Array): void {
    this.#spiResponder = spi.slice()
  }

  /** Who a rekeyed IKE SA is: new SPIs, and the roles are those of the rekey (RFC 7296 section 2.18). */
  succeed(role: IkeRole, spiInitiator: Uint8Array, spiResponder: Uint8Array): Association {
    return new Association(this.id, this.way, spiInitiator, spiResponder, role)
  }

  /** The SPI we chose. */
  get ownSpi(): Uint8Array {
    return this.role === 'initiator' ? this.spiInitiator : this.#spiResponder
  }

  header(exchange: number, messageId: number, response: boolean): Header {
    const { spiInitiator, spiResponder } = this
    return {
      spiInitiator,
      spiResponder,
      exchange,
      messageId,
      response,
      fromInitiator: this.role === 'initiator',
    }
  }

  /** Why a datagram with our SPI is not from the peer, if so: the counter of its SPI, or of where it came from. */
  mismatch(header: Header, path: UdpPath): 'foreign-spi' | 'foreign-path' | undefined {
    const isFromPeer =
      this.role === 'responder'
        ? equalBytes(header.spiInitiator, this.spiInitiator)
        : isZeroSpi(this.#spiResponder) || equalBytes(header.spiResponder, this.#spiResponder)
    if (!isFromPeer) return 'foreign-spi'
    return this.way.admits(path) ? undefined : 'foreign-path'
  }
}
