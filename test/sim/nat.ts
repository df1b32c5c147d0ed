/** A NAT on a simulated network: one address outside for one inside, ports of its own choice. */
import type { Ip, UdpEndpoint } from '#base/ip'
import type { Datagram } from './network.ts'

export class NatBox {
  readonly #inside: Ip
  readonly #outside: Ip
  /** Outside port of each inside port, and back. */
  readonly #outward = new Map<number, number>()
  readonly #inward = new Map<number, number>()
  #nextPort = 40_001

  constructor(inside: Ip, outside: Ip) {
    this.#inside = inside
    this.#outside = outside
  }

  /** A datagram as it leaves the box; undefined: nobody inside asked for it. */
  pass(datagram: Datagram): Datagram | undefined {
    const { source, destination } = datagram
    if (source.address === this.#inside) return { ...datagram, source: this.translate(source) }
    if (destination.address === this.#inside) return undefined
    if (destination.address !== this.#outside) return datagram
    const port = this.#inward.get(destination.port)
    return port === undefined ? undefined : { ...datagram, destination: { address: this.#inside, port } }
  }

  /** What an inside end point is outside. */
  translate({ port }: UdpEndpoint): UdpEndpoint {
    let mapped = this.#outward.get(port)
    if (mapped === undefined) {
      mapped = this.#nextPort++
      this.#outward.set(port, mapped)
      this.#inward.set(mapped, port)
    }
    return { address: this.#outside, port: mapped }
  }

  /** The box restarts: nobody inside is known any more. */
  forget(): void {
    this.#outward.clear()
    this.#inward.clear()
  }
}
