/**
 * How the way of a session changes under it (RFC 4555, RFC 3948), for the first hop of a telescope alone.
 *
 *     initiator, at its new address                    responder
 *     N(UPDATE_SA_ADDRESSES) N(NATD...)     --->       IKE goes there from now on
 *                                           <---       N(NATD...)
 *       ike.moved                           <---       N(COOKIE2)                    is somebody there?
 *     N(COOKIE2)                            --->         ike.moved                   only now ESP follows
 *
 * Neither side ever says an ADDITIONAL_*_ADDRESS: those are the host's other addresses, and nobody's business.
 */
import { equalBytes } from '#base/bytes'
import { type Ip, ipToBytes, type UdpPath } from '#base/ip'
import { after, type Duration, type Instant, SECOND } from '#base/time'
import type { Agenda, IkeContext, Task } from '#ikev2/context'
import type { IkeRole } from '#ikev2/events'
import { faultOfNotify, malformed, protocolFault } from '#ikev2/fault'
import { notify, type Payload } from '#ikev2/message/payload'
import { errorNotify, notifies } from '#ikev2/message/registry'
import { KEEPALIVE, natDetection, readNatDetection } from '#ikev2/nat'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { IkeSa } from '#ikev2/sa'
import { samePath, type Way } from '#ikev2/way'
import { Writer } from '#wire/cursor'

/** RFC 3948 section 4. By the clock, whatever else is sent: a pause would tell when the user does nothing. */
const KEEPALIVE_INTERVAL: Duration = 20 * SECOND
const COOKIE2_LENGTH = 16

const { number: N } = NOTIFY

/** RFC 4555 section 4.2.1: in IKE_AUTH, of both sides that do NAT traversal. */
export const MOBIKE_SUPPORTED: Payload = notify(N.MOBIKE_SUPPORTED)

export const saysMobike = (payloads: readonly Payload[]): boolean =>
  notifies(payloads, N.MOBIKE_SUPPORTED).length > 0

export interface MobilityOptions {
  /** Of the session: who began it, whatever was rekeyed since. */
  readonly role: IkeRole
  readonly way: Way
  readonly agenda: Agenda
  /** Would the owner of a responder have its peer there? */
  readonly mayBeAt: (path: UdpPath) => boolean
  /** The way is another one, and both sides know it. */
  readonly moved: () => void
}

export class Mobility {
  readonly #context: IkeContext
  readonly #options: MobilityOptions
  readonly #update: Task = { run: (sa, now) => this.#askUpdate(sa, now) }
  readonly #check: Task = { run: (sa, now) => this.#askCookie(sa, now) }
  #keepaliveAt: Instant | undefined

  constructor(context: IkeContext, options: MobilityOptions) {
    this.#context = context
    this.#options = options
  }

  /** Both sides are authenticated, or moved: a NAT may stand before us. */
  begin(now: Instant): void {
    const { role, way } = this.#options
    const needed = role === 'initiator' && way.nat.here
    this.#keepaliveAt = needed ? after(now, KEEPALIVE_INTERVAL) : undefined
  }

  end(): void {
    this.#keepaliveAt = undefined
  }

  nextTimeout(): Instant | undefined {
    return this.#keepaliveAt
  }

  tick(now: Instant): void {
    if (this.#keepaliveAt === undefined || now < this.#keepaliveAt) return
    this.#keepaliveAt = after(now, KEEPALIVE_INTERVAL)
    this.#context.emit({ kind: 'transmit', path: this.#options.way.path, bytes: KEEPALIVE })
  }

  /** Our address is another one: the peer is told as soon as the window is free. */
  leave(local: Ip, now: Instant): void {
    const { way, agenda } = this.#options
    way.leave(local)
    agenda.set(this.#update, now)
  }

  /**
   * An authentic request came this way. Without MOBIKE a peer behind a NAT is where it was heard last (RFC 7296
   * section 2.23); a peer that has just begun floats to port 4500.
   */
  heardFrom(path: UdpPath, isHalfOpen: boolean): void {
    const { role, way, moved } = this.#options
    if (role === 'initiator' || way.isMobile || samePath(path, way.path)) return
    if (!isHalfOpen && !way.nat.there) return
    way.follow(path)
    if (!isHalfOpen) moved()
  }

  /** What an INFORMATIONAL request of this matter is answered. @throws PeerFault */
  answer(sa: IkeSa, request: readonly Payload[], path: UdpPath, now: Instant): Payload[] {
    const isUpdate = notifies(request, N.UPDATE_SA_ADDRESSES).length > 0
    const [cookie] = notifies(request, N.COOKIE2)
    if (!isUpdate && cookie === undefined) return []
    const { role, way } = this.#options
    if (!way.isMobile || (isUpdate && role === 'initiator')) {
      this.#context.refuse('mobike', 'MOBIKE from a peer with whom it was not agreed')
      return []
    }
    return [
      ...(cookie === undefined ? [] : [notify(N.COOKIE2, checkCookie(cookie.data))]),
      ...(isUpdate ? this.#answerUpdate(sa, request, path, now) : []),
    ]
  }

  #answerUpdate(sa: IkeSa, request: readonly Payload[], path: UdpPath, now: Instant): Payload[] {
    const { crypto } = this.#context
    const { way, agenda, mayBeAt } = this.#options
    const [noNats] = notifies(request, N.NO_NATS_ALLOWED)
    if (noNats !== undefined && !equalBytes(noNats.data, addressesOf(path)))
      return [notify(N.UNEXPECTED_NAT_DETECTED)]
    if (!mayBeAt(path)) return [notify(N.UNACCEPTABLE_ADDRESSES)]
    const nat = readNatDetection(crypto, sa.association, path, request)
    if (nat !== undefined) way.traverse(nat)
    way.follow(path)
    agenda.set(this.#check, now)
    return nat === undefined ? [] : natDetection(crypto, sa.association, path)
  }

  #askUpdate(sa: IkeSa, now: Instant): void {
    const { crypto } = this.#context
    const { way, moved } = this.#options
    const { path } = way
    const payloads = [notify(N.UPDATE_SA_ADDRESSES), ...natDetection(crypto, sa.association, path)]
    sa.ask(EXCHANGE.number.INFORMATIONAL, payloads, now, (answer, at) => {
      // We moved on meanwhile: another update is on the agenda.
      if (!samePath(path, way.path)) return
      const error = errorNotify(answer)
      if (error !== undefined) throw faultOfNotify(error.type)
      const nat = readNatDetection(crypto, sa.association, path, answer)
      if (nat !== undefined) way.traverse(nat)
      this.begin(at)
      moved()
    })
  }

  /** RFC 4555 section 3.7: whoever answers from there knows the keys; an address in a header proves nothing. */
  #askCookie(sa: IkeSa, now: Instant): void {
    const { way, moved } = this.#options
    const { path } = way
    const cookie = this.#context.crypto.random(COOKIE2_LENGTH)
    sa.ask(EXCHANGE.number.INFORMATIONAL, [notify(N.COOKIE2, cookie)], now, (answer) => {
      const [echo, ...others] = notifies(answer, N.COOKIE2)
      if (echo === undefined || others.length > 0 || !equalBytes(echo.data, cookie))
        throw protocolFault('cookie2', 'the answer from the new address is not to our question')
      // It moved on meanwhile: another check is on the agenda.
      if (samePath(path, way.path)) moved()
    })
  }
}

/** RFC 4555 section 4.2.5: 8 to 64 octets. */
function checkCookie(cookie: Uint8Array): Uint8Array {
  if (cookie.length < 8 || cookie.length > 64) throw malformed(`a COOKIE2 of ${cookie.length} octets`)
  return cookie
}

/** RFC 4555 section 4.2.6, as the sender of what arrived on `path` would have it. */
const addressesOf = ({ local, remote }: UdpPath): Uint8Array =>
  new Writer(12)
    .bytes(ipToBytes(remote.address))
    .bytes(ipToBytes(local.address))
    .u16(remote.port)
    .u16(local.port)
    .finish()
