import { wipe } from '#base/bytes'
import { IpprivError } from '#base/errors'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS } from '#crypto/suites'
import { EvpCipherDriver, NobleCipherDriver, NodeCipherDriver } from '#linux/ciphers'
import { Arena, evp } from '#linux/ffi'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

/**
 * The crypto framework of the packet path: which driver does the AEAD of which SA. Every driver is measured for every
 * cipher; an SA goes to the fastest that takes its cipher, and to the next when that one fails at work. A driver that
 * failed is not asked again in this thread.
 *
 * Nothing is asked about a driver but what it does: a cipher it cannot do is one that its `create` refuses.
 */
export class Placement implements CipherDriver {
  readonly name = 'placement'
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  readonly #drivers: readonly CipherDriver[]
  readonly #rank: (drivers: readonly CipherDriver[], cipher: EspCipher) => readonly CipherDriver[]
  /** By cipher, best first. */
  readonly #ranked = new Map<EspCipher, CipherDriver[]>()
  #moves = 0

  /** `drivers` share `nonce` and `associated`. `rank` sorts them for a cipher, and leaves out what cannot do it. */
  constructor(
    drivers: readonly CipherDriver[],
    rank: (drivers: readonly CipherDriver[], cipher: EspCipher) => readonly CipherDriver[],
  ) {
    this.#drivers = drivers
    this.#rank = rank
    this.nonce = drivers[0]!.nonce
    this.associated = drivers[0]!.associated
  }

  /** How often an SA was moved from a driver that failed. */
  get moves(): number {
    return this.#moves
  }

  /** @throws IpprivError IPP_PLANE_UNAVAILABLE when no driver takes the cipher. */
  create(cipher: EspCipher, key: Uint8Array, use: 'seal' | 'open'): PacketCipher {
    return new PlacedCipher(this, cipher, key.slice(), use)
  }

  /** The best driver for a cipher, with a session on it. @throws IpprivError IPP_PLANE_UNAVAILABLE */
  place(
    cipher: EspCipher,
    key: Uint8Array,
    use: 'seal' | 'open',
  ): { driver: CipherDriver; on: PacketCipher } {
    for (const driver of [...this.#candidates(cipher)]) {
      try {
        return { driver, on: driver.create(cipher, key, use) }
      } catch {
        this.#retire(driver)
      }
    }
    throw new IpprivError('IPP_PLANE_UNAVAILABLE', `no crypto driver for ${cipher}`)
  }

  /** A session of this driver failed at work. */
  moveFrom(driver: CipherDriver): void {
    this.#moves++
    this.#retire(driver)
  }

  #candidates(cipher: EspCipher): CipherDriver[] {
    let ranked = this.#ranked.get(cipher)
    if (ranked === undefined) {
      ranked = [...this.#rank(this.#drivers, cipher)]
      this.#ranked.set(cipher, ranked)
    }
    return ranked
  }

  #retire(driver: CipherDriver): void {
    for (const [cipher, ranked] of this.#ranked)
      this.#ranked.set(
        cipher,
        ranked.filter((other) => other !== driver),
      )
  }
}

/** The session of one SA, wherever it is. It keeps the key, to begin anew on another driver. */
class PlacedCipher implements PacketCipher {
  readonly #placement: Placement
  readonly #cipher: EspCipher
  readonly #key: Uint8Array
  readonly #use: 'seal' | 'open'
  #driver: CipherDriver
  #on: PacketCipher

  constructor(placement: Placement, cipher: EspCipher, key: Uint8Array, use: 'seal' | 'open') {
    this.#placement = placement
    this.#cipher = cipher
    this.#key = key
    this.#use = use
    const { driver, on } = placement.place(cipher, key, use)
    this.#driver = driver
    this.#on = on
  }

  seal(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    try {
      return this.#on.seal(bytes, offset, length, associatedLength)
    } catch {
      return this.#move()
    }
  }

  open(bytes: Uint8Array, offset: number, length: number, associatedLength: number): boolean {
    try {
      return this.#on.open(bytes, offset, length, associatedLength)
    } catch {
      return this.#move()
    }
  }

  destroy(): void {
    this.#on.destroy()
    wipe(this.#key)
  }

  /** The packet in hand is lost: it may be half done. @returns false, for that. @throws when no driver is left. */
  #move(): false {
    this.#placement.moveFrom(this.#driver)
    this.#on.destroy()
    const { driver, on } = this.#placement.place(this.#cipher, this.#key, this.#use)
    this.#driver = driver
    this.#on = on
    return false
  }
}

/** What works in this process, for packets in `memory`. */
export function availableDrivers(memory: Arena): CipherDriver[] {
  const drivers: CipherDriver[] = evp === undefined ? [] : [new EvpCipherDriver(evp, memory)]
  drivers.push(new NodeCipherDriver(drivers[0]))
  drivers.push(new NobleCipherDriver(drivers[0]))
  return drivers
}

/**
 * The placement of a worker: drivers by what they measured, once per cipher, when its first SA comes. The packet
 * measured with overwrites the first octets of `memory`.
 */
export const measuredPlacement = (memory: Arena): Placement =>
  new Placement(availableDrivers(memory), (drivers, cipher) => {
    const speeds = new Map(
      drivers.map((driver) => [driver, measure(driver, memory, cipher, FULL, RANKING_BUDGET)]),
    )
    return drivers
      .filter((driver) => speeds.get(driver) !== undefined)
      .sort((a, b) => speeds.get(a)! - speeds.get(b)!)
  })

const FULL = 1400
/** Packets between two looks at the clock. */
const AT_ONCE = 4
/** At least: a thread that was not running for a while has used up its time without measuring. */
const CHUNKS = 8
/** In ms, per driver. Enough to tell them apart: they differ by factors. */
const RANKING_BUDGET = 1

/**
 * Microseconds to seal a packet of `length` octets, measured for about `budget` ms; undefined when the driver does
 * not do that cipher.
 */
export function measure(
  driver: CipherDriver,
  memory: Arena,
  cipher: EspCipher,
  length: number,
  budget: number,
): number | undefined {
  const { bytes } = memory
  driver.nonce.fill(0)
  driver.associated.fill(0)
  try {
    const session = driver.create(cipher, new Uint8Array(ESP_CIPHERS[cipher].keyLength), 'seal')
    try {
      session.seal(bytes, 0, length, 8)
      // The best of many: what else the machine does can only add to it.
      let best = Number.POSITIVE_INFINITY
      let sealed = 0
      const end = performance.now() + budget
      for (let began = performance.now(), chunks = 0; chunks < CHUNKS || began < end; chunks++) {
        for (let i = 0; i < AT_ONCE; i++, sealed++) {
          // Another nonce every time, as at work.
          driver.nonce[11] = sealed
          driver.nonce[10] = sealed >>> 8
          session.seal(bytes, 0, length, 8)
        }
        const now = performance.now()
        best = Math.min(best, now - began)
        began = now
      }
      return (best / AT_ONCE) * 1000
    } finally {
      session.destroy()
    }
  } catch {
    return undefined // what it does not do, it refuses
  }
}

export interface DriverSpeed {
  readonly driver: string
  readonly cipher: EspCipher
  /** Microseconds per packet, by its octets. Nothing: the driver does not do this cipher. */
  readonly microseconds: Readonly<Record<number, number>>
}

/** Octets of the packets a driver is measured with: an acknowledgment, a small one, a full one. */
export const MEASURED_LENGTHS = [64, 576, 1400] as const

/** Measures every driver with every cipher and length, for about `budget` ms each. */
export function driverSpeeds(budget: number): DriverSpeed[] {
  const memory = new Arena(4096)
  const ciphers = Object.keys(ESP_CIPHERS) as EspCipher[]
  return availableDrivers(memory).flatMap((driver) =>
    ciphers.map((cipher) => {
      // The first measures the compiler.
      measure(driver, memory, cipher, FULL, budget)
      const measured = MEASURED_LENGTHS.map(
        (length) => [length, measure(driver, memory, cipher, length, budget)] as const,
      )
      const microseconds = Object.fromEntries(
        measured.filter((entry): entry is [(typeof entry)[0], number] => entry[1] !== undefined),
      )
      return { driver: driver.name, cipher, microseconds }
    }),
  )
}
