import { ESP_CIPHER_NAMES, ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { NobleCipherDriver, NodeCipherDriver } from '#linux/ciphers'
import { availableDrivers } from '#linux/drivers'
import { Arena } from '#linux/ffi'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

/** How fast crypto drivers are here, and whether what they make is right. */

export type Use = 'seal' | 'open'

/**
 * Microseconds per packet; or that the driver refused to begin (it does not do this cipher), or that it failed: it
 * threw at work, or its result was wrong.
 */
export type Speed = number | 'refused' | 'failed'

export interface Task {
  readonly cipher: EspCipher
  readonly use: Use
  /** Of the packet, in octets. */
  readonly length: number
  /** How long to measure, in ms, about. */
  readonly budget: number
}

/** Packets between two looks at the clock. */
const AT_ONCE = 4
/** At least: a thread that was not running for a while has used up its time without measuring. */
const CHUNKS = 8

/** Overwrites the first octets of `memory`, nonce and associated data. */
export function measure(driver: CipherDriver, memory: Arena, task: Task): Speed {
  const key = new Uint8Array(ESP_CIPHERS[task.cipher].keyLength)
  let session: PacketCipher
  try {
    session = driver.create(task.cipher, key, task.use)
  } catch {
    return 'refused'
  }
  try {
    return isRight(driver, session, memory.bytes, task) ? time(driver, session, memory.bytes, task) : 'failed'
  } catch {
    return 'failed'
  } finally {
    session.destroy()
  }
}

/** Does it make of a packet what the reference makes of it, and the other way round? */
function isRight(driver: CipherDriver, session: PacketCipher, bytes: Uint8Array, task: Task): boolean {
  const { length } = task
  const sealed = reference(task.cipher, length)
  driver.nonce.fill(0)
  driver.associated.fill(0)
  if (task.use === 'seal') {
    bytes.fill(0, 0, sealed.length)
    return session.seal(bytes, 0, length, ASSOCIATED) && sealed.every((octet, i) => bytes[i] === octet)
  }
  bytes.set(sealed)
  return session.open(bytes, 0, length, ASSOCIATED) && bytes.subarray(0, length).every((octet) => octet === 0)
}

function time(driver: CipherDriver, session: PacketCipher, bytes: Uint8Array, task: Task): Speed {
  const { use, length, budget } = task
  const { nonce } = driver
  const sealed = reference(task.cipher, length)
  // The best of many: what else the machine does can only add to it.
  let best = Number.POSITIVE_INFINITY
  let packets = 0
  const end = performance.now() + budget
  for (let began = performance.now(), chunks = 0; chunks < CHUNKS || began < end; chunks++) {
    for (let i = 0; i < AT_ONCE; i++) {
      if (use === 'seal') {
        // Another nonce every time, as at work.
        nonce[11] = ++packets
        nonce[10] = packets >>> 8
        if (!session.seal(bytes, 0, length, ASSOCIATED)) return 'failed'
      } else {
        // It stands where it was opened. To copy it is the same for all.
        bytes.set(sealed)
        if (!session.open(bytes, 0, length, ASSOCIATED)) return 'failed'
      }
    }
    const now = performance.now()
    best = Math.min(best, (1000 * (now - began)) / AT_ONCE)
    began = now
  }
  return best
}

/** Without extended sequence numbers. */
const ASSOCIATED = 8
const references = new Map<string, Uint8Array>()

/** A packet of zeros under a key, nonce and associated data of zeros. */
function reference(cipher: EspCipher, length: number): Uint8Array {
  const name = `${cipher} ${length}`
  let sealed = references.get(name)
  if (sealed === undefined) {
    try {
      sealed = sealedBy(new NodeCipherDriver(), cipher, length)
    } catch {
      sealed = sealedBy(new NobleCipherDriver(), cipher, length) // this Node does not do it
    }
    references.set(name, sealed)
  }
  return sealed
}

function sealedBy(driver: CipherDriver, cipher: EspCipher, length: number): Uint8Array {
  const { keyLength, icvLength } = ESP_CIPHERS[cipher]
  const bytes = new Uint8Array(length + icvLength)
  driver.create(cipher, new Uint8Array(keyLength), 'seal').seal(bytes, 0, length, ASSOCIATED)
  return bytes
}

export interface DriverSpeed {
  readonly driver: string
  readonly cipher: EspCipher
  /** Microseconds to seal a packet, by its octets. Nothing: the driver does not do this cipher. */
  readonly microseconds: Readonly<Record<number, number>>
  /** The same, to open it. */
  readonly microsecondsToOpen: Readonly<Record<number, number>>
}

/** Octets of the packets a driver is measured with: an acknowledgment, a small one, a full one. */
export const MEASURED_LENGTHS = [64, 576, 1400] as const

/** Measures every driver with every cipher, direction and length, for about `budget` ms each. */
export function driverSpeeds(budget: number): DriverSpeed[] {
  const memory = new Arena(4096)
  return availableDrivers(memory).flatMap((driver) =>
    ESP_CIPHER_NAMES.map((cipher) => {
      const speeds = (use: Use) => {
        // The first measures the compiler.
        measure(driver, memory, { cipher, use, length: MEASURED_LENGTHS[0], budget })
        const measured = MEASURED_LENGTHS.map(
          (length) => [length, measure(driver, memory, { cipher, use, length, budget })] as const,
        )
        return Object.fromEntries(
          measured.filter((entry): entry is [(typeof entry)[0], number] => typeof entry[1] === 'number'),
        )
      }
      return {
        driver: driver.name,
        cipher,
        microseconds: speeds('seal'),
        microsecondsToOpen: speeds('open'),
      }
    }),
  )
}
