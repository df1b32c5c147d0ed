import { ESP_CIPHER_NAMES, type EspCipher } from '#crypto/suites'
import { ArenaScratch, EvpCipherDriver, NobleCipherDriver, NodeCipherDriver } from '#linux/ciphers'
import { type Arena, evp } from '#linux/ffi'
import type { CipherDriver } from '#telescope/seal'

/** What a crypto driver says of itself before anybody makes one. */
export interface Registration {
  readonly name: string
  readonly ciphers: readonly EspCipher[]
  /** Only where nothing else is left; then it need not be measured. */
  readonly lastResort?: true
  /** Can it work in this process at all? Cheap. */
  available(): boolean
  /** For packets in `memory` of one thread. Nonces and associated data are those of `scratch`. */
  create(memory: Arena, scratch: ArenaScratch): CipherDriver
}

/** A driver that was made, and what it may be asked for. */
export interface Offer extends Pick<Registration, 'ciphers' | 'lastResort'> {
  readonly driver: CipherDriver
}

/** Who can do the cryptography of packets. How well, is measured (`placement.ts`): the order here means nothing. */
export class DriverRegistry {
  readonly #registrations = new Map<string, Registration>()

  /** @throws RangeError when the name is taken. */
  register(registration: Registration): this {
    const { name } = registration
    if (this.#registrations.has(name)) throw new RangeError(`there is a crypto driver ${name}`)
    this.#registrations.set(name, registration)
    return this
  }

  /** Makes those that are available, for one thread: they share nonce and associated data. */
  open(memory: Arena): Offer[] {
    const scratch = new ArenaScratch()
    return [...this.#registrations.values()]
      .filter((registration) => registration.available())
      .map((registration) => ({ ...registration, driver: registration.create(memory, scratch) }))
  }
}

/** Ours. */
export const DRIVERS = new DriverRegistry()
  .register({
    name: 'libcrypto',
    ciphers: ESP_CIPHER_NAMES,
    available: () => evp !== undefined,
    create: (memory, scratch) => new EvpCipherDriver(evp!, memory, scratch),
  })
  .register({
    name: 'node:crypto',
    ciphers: ESP_CIPHER_NAMES,
    available: () => true,
    create: (_memory, scratch) => new NodeCipherDriver(scratch),
  })
  .register({
    name: 'noble',
    ciphers: ESP_CIPHER_NAMES,
    lastResort: true,
    available: () => true,
    create: (_memory, scratch) => new NobleCipherDriver(scratch),
  })

/** What works in this process, for packets in `memory`. */
export const availableDrivers = (memory: Arena): CipherDriver[] =>
  DRIVERS.open(memory).map(({ driver }) => driver)
