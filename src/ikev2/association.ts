/** Who an IKE SA is on the wire: its SPIs, our role, and the way its datagrams take. */

import { equalBytes } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import type { UdpEndpoint, UdpPath } from '#base/ip'
import type { IkeRole } from '#ikev2/events'
import { type Header, isZeroSpi, SPI_LENGTH } from '#ikev2/message/header'

export class Association {
  readonly id: IkeSaId
  readonly role: IkeRole
  readonly path: UdpPath
  readonly spiInitiator: Uint8Array
  #spiResponder: Uint8Array

  /** Without `spiResponder` this is an initiator, which learns it from the answer to IKE_SA_INIT. */
  constructor(
    id: IkeSaId,
    path: UdpPath,
    spiInitiator: Uint8Array,
    spiResponder?: Uint8Array,
    role: IkeRole = spiResponder === undefined ? 'initiator' : 'responder',
  ) {
    this.id = id
    this.role = role
    this.path = path
    this.spiInitiator = spiInitiator
    this.#spiResponder = spiResponder ?? new Uint8Array(SPI_LENGTH)
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
    return new Association(this.id, this.path, spiInitiator, spiResponder, role)
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
    return samePath(path, this.path) ? undefined : 'foreign-path'
  }
}

const samePath = (a: UdpPath, b: UdpPath): boolean =>
  sameEndpoint(a.local, b.local) && sameEndpoint(a.remote, b.remote)

const sameEndpoint = (a: UdpEndpoint, b: UdpEndpoint): boolean => a.address === b.address && a.port === b.port
