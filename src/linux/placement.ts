import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { ESP_CIPHER_NAMES, type EspCipher } from '#crypto/suites'
import { measure, type Speed, type Use } from '#linux/driver-speed'
import { DRIVERS, type Offer } from '#linux/drivers'
import type { Arena } from '#linux/ffi'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

/**
 * The crypto framework of the packet path: which driver does the AEAD of which SA. Drivers register what they can do
 * (`drivers.ts`); each is measured here for every cipher, in both directions, and an SA goes to the fastest. A last
 * resort comes last, unmeasured.
 *
 * - A driver that refuses to begin is not asked for that cipher in that direction again. It keeps what else it has.
 * - A driver that fails at work, or whose result is wrong when it is measured, is not asked for anything again in this
 *   thread: all SAs on it move to the next at once, with their keys.
 *
 * Every worker has a placement of its own. What spreads SAs over the workers is their sockets (`esp-socket.ts`), or the
 * turns they take.
 */
export class Placement implements CipherDriver {
  readonly name = 'placement'
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  readonly #offers: readonly Offer[]
  readonly #assess: Assess
  /** By cipher and direction, best first. */
  readonly #ranked = new Map<string, CipherDriver[]>()
  readonly #failed = new Set<CipherDriver>()
  readonly #sessions = new Set<PlacedCipher>()
  #moves = 0

  /** The drivers share nonce and associated data: they are of one `DriverRegistry.open`. */
  constructor(offers: readonly Offer[], assess: Assess) {
    this.#offers = offers
    this.#assess = assess
    this.nonce = offers[0]!.driver.nonce
    this.associated = offers[0]!.driver.associated
  }

  /** How often an SA was moved from a driver that failed. */
  get moves(): number {
    return this.#moves
  }

  /** Measures now what would be measured when the first SA of its kind comes. */
  prepare(): void {
    for (const cipher of ESP_CIPHER_NAMES)
      for (const use of ['seal', 'open'] as const) this.#candidates(cipher, use)
  }

  /** @throws IpprivError IPP_PLANE_UNAVAILABLE when no driver takes the cipher. */
  create(cipher: EspCipher, key: Uint8Array, use: Use): PacketCipher {
    const session: PlacedCipher = new PlacedCipher(this, cipher, key.slice(), use, () =>
      this.#sessions.delete(session),
    )
    this.#sessions.add(session)
    return session
  }

  /** The best driver for this, with a session on it. @throws IpprivError IPP_PLANE_UNAVAILABLE */
  place(cipher: EspCipher, key: Uint8Array, use: Use): { driver: CipherDriver; on: PacketCipher } {
    const candidates = this.#candidates(cipher, use)
    for (const driver of [...candidates]) {
      if (this.#failed.has(driver)) continue
      try {
        return { driver, on: driver.create(cipher, key, use) }
      } catch {
        candidates.splice(candidates.indexOf(driver), 1)
      }
    }
    throw new IpprivError('IPP_PLANE_UNAVAILABLE', `no crypto driver for ${cipher}`)
  }

  /** A driver failed. @throws IpprivError IPP_PLANE_UNAVAILABLE when there is no other for one of its SAs. */
  retire(driver: CipherDriver): void {
    this.#failed.add(driver)
    for (const session of this.#sessions)
      if (session.driver === driver) {
        this.#moves++
        session.move()
      }
  }

  #candidates(cipher: EspCipher, use: Use): CipherDriver[] {
    const kind = `${cipher} ${use}`
    let ranked = this.#ranked.get(kind)
    if (ranked === undefined) {
      ranked = this.#rank(cipher, use)
      this.#ranked.set(kind, ranked)
    }
    return ranked
  }

  #rank(cipher: EspCipher, use: Use): CipherDriver[] {
    const able = this.#offers.filter(({ ciphers }) => ciphers.includes(cipher))
    const speeds = new Map<CipherDriver, number>()
    for (const { driver, lastResort } of able) {
      if (lastResort || this.#failed.has(driver)) continue
      const speed = this.#assess(driver, cipher, use)
      if (speed === 'failed') this.retire(driver)
      else if (speed !== 'refused') speeds.set(driver, speed)
    }
    const measured = [...speeds.keys()].sort((a, b) => speeds.get(a)! - speeds.get(b)!)
    return [...measured, ...able.filter(({ lastResort }) => lastResort).map(({ driver }) => driver)]
  }
}

/** What a driver is worth for a cipher and direction: the less, the better. */
export type Assess = (driver: CipherDriver, cipher: EspCipher, use: Use) => Speed

/** The session of one SA, wherever it is. It keeps the key, to begin anew on another driver. */
class PlacedCipher implements PacketCipher {
  readonly #placement: Placement
  readonly #cipher: EspCipher
  readonly #key: Uint8Array
  readonly #use: Use
  readonly #forget: () => void
  #driver: CipherDriver
  #on: PacketCipher

  constructor(placement: Placement, cipher: EspCipher, key: Uint8Array, use: Use, forget: () => void) {
    this.#placement = placement
    this.#cipher = cipher
    this.#key = key
    this.#use = use
    this.#forget = forget
    const { driver, on } = placement.place(cipher, key, use)
    this.#driver = driver
    this.#on = on
  }

  get driver(): CipherDriver {
    return this.#driver
  }

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    try {
      return this.#on.seal(bytes, offset, length, associatedLength)
    } catch {
      return this.#fail()
    }
  }

  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    try {
      return this.#on.open(bytes, offset, length, associatedLength)
    } catch {
      return this.#fail()
    }
  }

  destroy(): void {
    this.#on.destroy()
    this.#forget()
    wipe(this.#key)
  }

  /** @throws IpprivError IPP_PLANE_UNAVAILABLE when no driver is left. */
  move(): void {
    this.#on.destroy()
    const { driver, on } = this.#placement.place(this.#cipher, this.#key, this.#use)
    this.#driver = driver
    this.#on = on
  }

  /** The packet in hand is lost: it may be half done. @returns false, for that. */
  #fail(): false {
    this.#placement.retire(this.#driver)
    return false
  }
}

/** The placement of a worker, by what is measured. The packets measured with overwrite the first octets of `memory`. */
export const measuredPlacement = (memory: Arena, registry = DRIVERS): Placement =>
  new Placement(registry.open(memory), (driver, cipher, use) => {
    let sum = 0
    for (const length of TYPICAL) {
      const speed = measure(driver, memory, { cipher, use, length, budget: BUDGET })
      if (typeof speed !== 'number') return speed
      sum += speed
    }
    return sum
  })

/** Octets of an acknowledgment and of a full packet: TCP has about as many of each. */
const TYPICAL = [64, 1400]
/** In ms, for each of them. Enough to tell drivers apart: they differ by factors. */
const BUDGET = 0.25
