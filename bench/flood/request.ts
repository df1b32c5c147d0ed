/** IKE_SA_INIT requests as our clients send them, each as if from another host. */
import { randomFillSync } from 'node:crypto'
import { type UdpEndpoint, uint32ToIp } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import { initOffer, initRequest } from '#ikev2/exchange/init'
import { encodeClear } from '#ikev2/message/encrypted'
import { SPI_LENGTH } from '#ikev2/message/header'
import { EXCHANGE } from '#ikev2/numbers'

/** 198.18.128.0/17, of the addresses for benchmarks (RFC 2544): nobody is there. */
export const NOBODY = { network: '198.18.128.0/17', first: 0xc612_8000, count: 0x7fff } as const

export interface SpoofedRequest {
  readonly source: UdpEndpoint
  /** Good until the next one is asked for. */
  readonly bytes: Uint8Array
}

export class SpoofedRequests {
  readonly #bytes: Uint8Array
  readonly #spi: Uint8Array
  readonly #nonce: Uint8Array
  #sent = 0

  constructor() {
    const offer = initOffer(nodeCrypto)
    const spiInitiator = new Uint8Array(SPI_LENGTH)
    const header = { spiInitiator, spiResponder: new Uint8Array(SPI_LENGTH), messageId: 0 }
    this.#bytes = encodeClear(
      { ...header, exchange: EXCHANGE.number.IKE_SA_INIT, fromInitiator: true, response: false },
      initRequest(offer),
    )
    const at = Buffer.from(this.#bytes.buffer).indexOf(offer.nonce)
    this.#spi = this.#bytes.subarray(0, SPI_LENGTH)
    this.#nonce = this.#bytes.subarray(at, at + offer.nonce.length)
  }

  get length(): number {
    return this.#bytes.length
  }

  /** SPI, nonce and source are its own; the key exchange is everybody's. */
  next(): SpoofedRequest {
    randomFillSync(this.#spi)
    randomFillSync(this.#nonce)
    const index = this.#sent++
    const address = uint32ToIp(NOBODY.first + 1 + (index % NOBODY.count))
    return { source: { address, port: 1024 + (index % 60_000) }, bytes: this.#bytes }
  }
}
