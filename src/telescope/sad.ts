import { wipe } from '#base/bytes'
import type { ReqId } from '#base/ids'
import type { Ip } from '#base/ip'
import { ipToUint32 } from '#base/ip'
import type { SaCounters, SaEnds, SaKey, SaSpec, Template } from '#telescope/plane'
import { ReplayWindow, type SequenceWindow } from '#telescope/replay'
import type { CipherDriver, OpenState, SealState } from '#telescope/seal'
import { splitKey } from '#telescope/seal'
import { SharedCounter, SharedWindow } from '#telescope/shared'

/**
 * Security Association Database (RFC 4301 section 4.4.2) of the userspace plane.
 *
 * A *bundle* is what a policy template names: all SAs of one (source, destination, reqid). Policies and SAs point
 * at the same object, so a template finds its newest SA, and a security path is compared with templates, without
 * a look-up. That a rekey changes no policy follows from it.
 */
export interface Bundle {
  readonly source: number
  readonly destination: number
  /** Outbound SAs, newest last: the newest is used (kernel-notes section 6). */
  readonly outbound: OutboundSa[]
  readonly name: string
  /** Policies and SAs that point here. */
  uses: number
}

interface SaCommon {
  readonly spi: number
  readonly reqid: ReqId
  // What a move changes. The addresses are int32, as in packets.
  key: SaKey
  source: number
  destination: number
  bundle: Bundle
  encapsulation: SaSpec['encapsulation']
  packets: number
  octets: number
  replayed: number
  corrupted: number
}

export interface OutboundSa extends SaCommon, SealState {
  readonly flow: 'outbound'
}

export interface InboundSa extends SaCommon, OpenState {
  readonly flow: 'inbound'
  /** The owner wants to hear of its first packet, and has not yet. */
  announce: boolean
}

export class Sad {
  readonly #driver: CipherDriver
  readonly #bundles = new Map<string, Bundle>()
  readonly #byKey = new Map<string, OutboundSa | InboundSa>()
  /** SPIs are ours to choose, so a list of more than one is rare: two local addresses with the same SPI. */
  readonly #inbound = new Map<number, InboundSa[]>()
  /** How many SAs end here, by local address (int32). */
  readonly #local = new Map<number, number>()

  constructor(driver: CipherDriver) {
    this.#driver = driver
  }

  get size(): number {
    return this.#byKey.size
  }

  /**
   * Installs an SA; its key octets are copied into the cipher and the caller's may be wiped. `shared` is the memory
   * of `sharedState` when other threads have the same SA.
   * @throws RangeError when the SA exists (a second one would use its nonces again) or is not well formed.
   */
  install(spec: SaSpec, shared?: SharedArrayBuffer): void {
    const name = keyText(spec)
    if (this.#byKey.has(name)) throw new RangeError('the SA exists')
    const { key, salt } = splitKey(spec.cipher, spec.key)
    const window = spec.flow === 'inbound' ? newWindow(spec, shared) : undefined
    const bundle = this.bundle(spec)
    const common = {
      key: { source: spec.source, destination: spec.destination, spi: spec.spi },
      spi: spec.spi as number,
      reqid: spec.reqid,
      source: ipToUint32(spec.source) | 0,
      destination: ipToUint32(spec.destination) | 0,
      bundle,
      encapsulation: spec.encapsulation,
      esn: spec.esn,
      salt,
      driver: this.#driver,
      packets: 0,
      octets: 0,
      replayed: 0,
      corrupted: 0,
    }
    if (window === undefined) {
      const cipher = this.#driver.create(spec.cipher, key, 'seal')
      const sa: OutboundSa = {
        ...common,
        flow: 'outbound',
        cipher,
        sequence: 0,
        ...(shared && { counter: new SharedCounter(shared) }),
      }
      bundle.outbound.push(sa)
      this.#byKey.set(name, sa)
    } else {
      const cipher = this.#driver.create(spec.cipher, key, 'open')
      const sa: InboundSa = {
        ...common,
        flow: 'inbound',
        cipher,
        window,
        announce: spec.announce === true,
      }
      const others = this.#inbound.get(sa.spi)
      if (others === undefined) this.#inbound.set(sa.spi, [sa])
      else others.push(sa)
      this.#byKey.set(name, sa)
    }
    this.#countLocal(localEnd(this.#byKey.get(name)!), 1)
  }

  /** Removes an SA and forgets its key. Harmless when there is none: a peer's delete and ours may cross. */
  remove(key: SaKey): void {
    const name = keyText(key)
    const sa = this.#byKey.get(name)
    if (sa === undefined) return
    this.#byKey.delete(name)
    if (sa.flow === 'outbound') remove(sa.bundle.outbound, sa)
    else {
      const others = this.#inbound.get(sa.spi)!
      remove(others, sa)
      if (others.length === 0) this.#inbound.delete(sa.spi)
    }
    sa.cipher.destroy()
    wipe(sa.salt)
    this.#countLocal(localEnd(sa), -1)
    this.release(sa.bundle)
  }

  /**
   * Other ends for an SA, which keeps its cipher and its sequence numbers. Harmless when there is none.
   * @throws RangeError when there is another one already.
   */
  move(key: SaKey, { source, destination, encapsulation }: SaEnds): void {
    const name = keyText(key)
    const sa = this.#byKey.get(name)
    if (sa === undefined) return
    const to = { source, destination, spi: key.spi }
    if (keyText(to) !== name && this.#byKey.has(keyText(to))) throw new RangeError('the SA exists')
    this.#byKey.delete(name)
    this.#countLocal(localEnd(sa), -1)
    if (sa.flow === 'outbound') remove(sa.bundle.outbound, sa)
    const { bundle } = sa
    sa.key = to
    sa.source = ipToUint32(source) | 0
    sa.destination = ipToUint32(destination) | 0
    sa.encapsulation = encapsulation
    sa.bundle = this.bundle({ source, destination, reqid: sa.reqid })
    this.release(bundle)
    if (sa.flow === 'outbound') sa.bundle.outbound.push(sa)
    this.#byKey.set(keyText(to), sa)
    this.#countLocal(localEnd(sa), 1)
  }

  /** The inbound SA of a packet (RFC 4301 section 4.1: SPI, destination and source). */
  findInbound(source: number, destination: number, spi: number): InboundSa | undefined {
    const candidates = this.#inbound.get(spi)
    if (candidates === undefined) return undefined
    for (const sa of candidates) if (sa.destination === destination && sa.source === source) return sa
    return undefined
  }

  /** Does an SA end at this address of ours? */
  isLocal(address: number): boolean {
    return this.#local.has(address)
  }

  /** The bundle of a template, counted as used until `release`. */
  bundle(template: Template): Bundle {
    const name = `${template.source} ${template.destination} ${template.reqid}`
    let bundle = this.#bundles.get(name)
    if (bundle === undefined) {
      bundle = {
        source: ipToUint32(template.source) | 0,
        destination: ipToUint32(template.destination) | 0,
        outbound: [],
        name,
        uses: 0,
      }
      this.#bundles.set(name, bundle)
    }
    bundle.uses++
    return bundle
  }

  release(bundle: Bundle): void {
    if (--bundle.uses === 0) this.#bundles.delete(bundle.name)
  }

  counters(): SaCounters[] {
    return Array.from(this.#byKey.values(), (sa) => ({
      ...sa.key,
      packets: sa.packets,
      bytes: sa.octets,
      replayed: sa.replayed,
      corrupted: sa.corrupted,
    }))
  }

  /** Removes every SA. */
  clear(): void {
    for (const sa of [...this.#byKey.values()]) this.remove(sa.key)
  }

  #countLocal(address: number, change: number): void {
    const count = (this.#local.get(address) ?? 0) + change
    if (count === 0) this.#local.delete(address)
    else this.#local.set(address, count)
  }
}

const newWindow = (spec: SaSpec, shared: SharedArrayBuffer | undefined): SequenceWindow =>
  shared === undefined
    ? new ReplayWindow(spec.replayWindow, spec.esn)
    : new SharedWindow(spec.replayWindow, spec.esn, shared)

const keyText = (key: { source: Ip; destination: Ip; spi: number }): string =>
  `${key.source} ${key.destination} ${key.spi}`

const localEnd = (sa: OutboundSa | InboundSa): number => (sa.flow === 'outbound' ? sa.source : sa.destination)

function remove<T>(list: T[], item: T): void {
  list.splice(list.indexOf(item), 1)
}
