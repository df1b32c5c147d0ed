/**
 * The way the datagrams of a session take, shared by its IKE SAs. It is fixed, unless both sides began with NAT
 * detection: then it goes over port 4500, and one end of it may change.
 */
import type { Ip, UdpEndpoint, UdpPath } from '#base/ip'
import type { IkeRole } from '#ikev2/events'
import { NAT_T_PORT, type NatFound } from '#ikev2/nat'

export class Way {
  /** Both sides speak MOBIKE (RFC 4555): the way changes when the initiator says so, and at no other time. */
  isMobile = false
  /** In the session: a rekey that the peer begins swaps the roles of an IKE SA, not who may be somewhere else. */
  readonly #role: IkeRole
  #path: UdpPath
  #nat: NatFound | undefined

  constructor(path: UdpPath, role: IkeRole) {
    this.#path = path
    this.#role = role
  }

  get path(): UdpPath {
    return this.#path
  }

  /** Both sides do NAT traversal. */
  get traverses(): boolean {
    return this.#nat !== undefined
  }

  get nat(): NatFound {
    return this.#nat ?? NONE
  }

  /** A NAT lets UDP through and nothing else (RFC 3948): ESP takes the ports of `path`. */
  get isEncapsulated(): boolean {
    return this.nat.here || this.nat.there
  }

  /** Both sides sent NAT detection, and this is what it found. */
  traverse(nat: NatFound): void {
    this.#nat = nat
  }

  /** An initiator goes on over port 4500, NAT or none: MOBIKE may bring one later (RFC 4555 section 3.3). */
  float(): void {
    const { local, remote } = this.#path
    this.#path = { local: { ...local, port: NAT_T_PORT }, remote: { ...remote, port: NAT_T_PORT } }
  }

  /** Our own address is another one. */
  leave(local: Ip): void {
    this.#path = { ...this.#path, local: { ...this.#path.local, address: local } }
  }

  /** The peer is somewhere else now. Whether that is true, the caller knows. */
  follow(path: UdpPath): void {
    this.#path = path
  }

  /** May a datagram of the peer come this way? Of a way that can change the peer's own messages tell, not this. */
  admits(path: UdpPath): boolean {
    if (!this.traverses) return samePath(path, this.#path)
    return this.#role === 'initiator'
      ? path.remote.address === this.#path.remote.address
      : path.local.address === this.#path.local.address
  }
}

export const samePath = (a: UdpPath, b: UdpPath): boolean =>
  sameEndpoint(a.local, b.local) && sameEndpoint(a.remote, b.remote)

const sameEndpoint = (a: UdpEndpoint, b: UdpEndpoint): boolean => a.address === b.address && a.port === b.port

const NONE: NatFound = { here: false, there: false }
