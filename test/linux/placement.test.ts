/** The crypto framework: where SAs are placed, and what happens when their driver fails at work. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS } from '#crypto/suites'
import { NobleCipherDriver, NodeCipherDriver, type Scratch } from '#linux/ciphers'
import { driverSpeeds, MEASURED_LENGTHS, type Use } from '#linux/driver-speed'
import { availableDrivers, DRIVERS, DriverRegistry, type Registration } from '#linux/drivers'
import { Arena } from '#linux/ffi'
import { measuredPlacement, Placement } from '#linux/placement'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

const GCM = 'aes-256-gcm-16'
const key = Uint8Array.from({ length: 32 }, (_, i) => i)
const CHACHA = 'chacha20-poly1305'
const CIPHERS = Object.keys(ESP_CIPHERS) as EspCipher[]

/** Of drivers that can do everything, or say so; the first is the best. */
function inOrder(...drivers: Fragile[]): Placement {
  const offers = drivers.map((driver) => ({ driver, ciphers: CIPHERS }))
  return new Placement(offers, (driver) => drivers.indexOf(driver as Fragile))
}

/** A driver that works until told not to, and tells what it was asked for. */
class Fragile implements CipherDriver {
  readonly name: string
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  readonly #inner: NodeCipherDriver
  readonly #refuses: readonly string[]
  /** Every `create`: cipher and direction. */
  readonly asked: string[] = []
  sessions = 0
  isBroken = false

  /** `refuses`: ciphers, or ciphers in a direction. */
  constructor(name: string, scratch: Scratch, refuses: readonly string[] = []) {
    this.name = name
    this.#inner = new NodeCipherDriver(scratch)
    this.nonce = scratch.nonce
    this.associated = scratch.associated
    this.#refuses = refuses
  }

  create(cipher: EspCipher, material: Uint8Array, use: Use): PacketCipher {
    this.asked.push(`${cipher} ${use}`)
    if (this.#refuses.includes(cipher) || this.#refuses.includes(`${cipher} ${use}`))
      throw new Error(`${this.name} has no ${cipher}`)
    const inner = this.#inner.create(cipher, material)
    this.sessions++
    const check = () => {
      if (this.isBroken) throw new Error(`${this.name} is broken`)
    }
    return {
      seal: (...args) => {
        check()
        return inner.seal(...args)
      },
      open: (...args) => {
        check()
        return inner.open(...args)
      },
      destroy: () => {
        this.sessions--
        inner.destroy()
      },
    }
  }
}

function sealed(cipher: PacketCipher): Uint8Array | undefined {
  const bytes = new Uint8Array(64).fill(7, 0, 48)
  return cipher.seal(bytes, 0, 48, 8) ? bytes : undefined
}

test('an SA goes to the best driver that takes its cipher', () => {
  const scratch = new NodeCipherDriver()
  const [first, second] = [new Fragile('first', scratch, [CHACHA]), new Fragile('second', scratch)]
  const placement = inOrder(first, second)
  const [gcm, gcmOpen] = [placement.create(GCM, key, 'seal'), placement.create(GCM, key, 'open')]
  assert.deepEqual([first.sessions, second.sessions], [2, 0])
  gcm.destroy()
  gcmOpen.destroy()
  placement.create(CHACHA, key, 'seal')
  assert.deepEqual([first.sessions, second.sessions], [0, 1])
  assert.equal(placement.moves, 0, 'a refusal is not a failure at work')
})

test('what a driver refuses costs it that, in that direction, and nothing else', () => {
  const scratch = new NodeCipherDriver()
  const first = new Fragile('first', scratch, [`${CHACHA} seal`])
  const second = new Fragile('second', scratch)
  const placement = inOrder(first, second)
  // Ranked for all of it before the refusal, and after.
  placement.create(GCM, key, 'seal')
  placement.create(CHACHA, key, 'seal')
  assert.deepEqual([first.sessions, second.sessions], [1, 1])
  placement.create(GCM, key, 'seal')
  placement.create(GCM, key, 'open')
  placement.create(CHACHA, key, 'open')
  placement.create('aes-128-gcm-16', key.subarray(0, 16), 'seal')
  assert.deepEqual([first.sessions, second.sessions], [5, 1])
  placement.create(CHACHA, key, 'seal')
  assert.equal(first.asked.filter((what) => what === `${CHACHA} seal`).length, 1, 'nor is it asked again')
})

test('the best is another one by cipher and by direction', () => {
  const scratch = new NodeCipherDriver()
  const [one, other] = [new Fragile('one', scratch), new Fragile('other', scratch)]
  const speeds: Record<string, readonly [number, number]> = {
    [`${GCM} seal`]: [1, 2],
    [`${GCM} open`]: [2, 1],
    [`${CHACHA} seal`]: [3, 1],
    [`${CHACHA} open`]: [1, 3],
  }
  const placement = new Placement(
    [one, other].map((driver) => ({ driver, ciphers: CIPHERS })),
    (driver, cipher, use) => speeds[`${cipher} ${use}`]![driver === one ? 0 : 1],
  )
  for (const [kind, [ofOne, ofOther]] of Object.entries(speeds)) {
    const [cipher, use] = kind.split(' ') as [EspCipher, Use]
    assert.equal(placement.place(cipher, key, use).driver, ofOne < ofOther ? one : other, kind)
  }
})

test('SAs move when their driver fails, with the same keys, and one packet is lost', () => {
  const scratch = new NodeCipherDriver()
  const [first, second] = [new Fragile('first', scratch), new Fragile('second', scratch)]
  const placement = inOrder(first, second)
  const material = key.slice()
  const sealing = placement.create(GCM, material, 'seal')
  const opening = placement.create(GCM, material, 'open')
  const gone = placement.create(GCM, material, 'open')
  gone.destroy()
  material.fill(0) // the caller wipes its copy
  const before = sealed(sealing)
  first.isBroken = true
  assert.equal(sealed(sealing), undefined)
  assert.deepEqual([first.sessions, second.sessions], [0, 2], 'the other SA need not meet the failure')
  assert.equal(placement.moves, 2)
  const after = sealed(sealing)
  assert.deepEqual(after, before)
  assert.equal(opening.open(after!, 0, 48, 8), true)
  assert.equal(after![47], 7)
})

test('a driver that failed at work is not asked again, for any cipher', () => {
  const scratch = new NodeCipherDriver()
  const [first, second] = [new Fragile('first', scratch), new Fragile('second', scratch)]
  const placement = inOrder(first, second)
  const sealing = placement.create(GCM, key, 'seal')
  placement.create('aes-128-gcm-16', key.subarray(0, 16), 'open')
  first.isBroken = true
  assert.equal(sealed(sealing), undefined)
  first.isBroken = false
  first.asked.length = 0
  // Of a kind it was ranked for before, and of kinds it was not.
  for (const cipher of CIPHERS)
    for (const use of ['seal', 'open'] as const)
      placement.create(cipher, key.subarray(0, ESP_CIPHERS[cipher].keyLength), use)
  assert.deepEqual(first.asked, [])
  assert.deepEqual([first.sessions, second.sessions], [0, 8])
})

test('with no driver left the failure is told', () => {
  const only = new Fragile('only', new NodeCipherDriver(), [CHACHA])
  const placement = inOrder(only)
  assert.throws(() => placement.create(CHACHA, key, 'seal'), { code: 'IPP_PLANE_UNAVAILABLE' })
  const session = placement.create(GCM, key, 'seal')
  only.isBroken = true
  assert.throws(() => sealed(session), { code: 'IPP_PLANE_UNAVAILABLE' })
})

/** A driver before the last resort. */
const registryWith = (registration: Omit<Registration, 'name'>): DriverRegistry =>
  new DriverRegistry().register({ name: 'new', ...registration }).register(noble)

const noble: Registration = {
  name: 'noble',
  ciphers: CIPHERS,
  available: () => true,
  create: (_, scratch) => new NobleCipherDriver(scratch),
}

test('a driver is asked for what it registered, where it is available', () => {
  const made: Fragile[] = []
  const create: Registration['create'] = (_, scratch) => {
    made.push(new Fragile('new', scratch))
    return made.at(-1)!
  }
  const memory = new Arena(4096)
  const registry = registryWith({ ciphers: [GCM], available: () => true, create })
  assert.throws(() => registry.register(noble), RangeError)
  const placement = measuredPlacement(memory, registry)
  placement.prepare()
  assert.deepEqual(new Set(made[0]!.asked), new Set([`${GCM} seal`, `${GCM} open`]))
  assert.equal(placement.place(GCM, key, 'open').driver, made[0])
  assert.equal(placement.place(CHACHA, key, 'open').driver.name, 'noble')
  const none = measuredPlacement(memory, registryWith({ ciphers: CIPHERS, available: () => false, create }))
  assert.equal(none.place(GCM, key, 'seal').driver.name, 'noble')
  assert.equal(made.length, 1)
})

test('the last resort is the last, and is not measured', () => {
  const scratch = new NodeCipherDriver()
  const [resort, other] = [new Fragile('resort', scratch), new Fragile('other', scratch, [CHACHA])]
  const assessed: string[] = []
  const placement = new Placement(
    [
      { driver: resort, ciphers: CIPHERS, lastResort: true },
      { driver: other, ciphers: CIPHERS },
    ],
    (driver) => assessed.push(driver.name),
  )
  const session = placement.create(GCM, key, 'seal')
  placement.create(CHACHA, key, 'seal')
  assert.deepEqual(assessed, ['other', 'other'])
  assert.deepEqual([resort.sessions, other.sessions], [1, 1])
  other.isBroken = true
  assert.equal(sealed(session), undefined)
  assert.deepEqual([resort.sessions, other.sessions], [2, 0])
})

test('a driver whose result is wrong is found out when it is measured, and moves what it has', () => {
  // In one cipher and direction only, and that is the end of it.
  for (const wrong of [`${CHACHA} seal`, `${CHACHA} open`]) {
    const create: Registration['create'] = (_, scratch) => {
      const right = new Fragile('new', scratch)
      return {
        name: 'new',
        nonce: right.nonce,
        associated: right.associated,
        create: (cipher, material, use) => {
          const session = right.create(cipher, material, use)
          if (`${cipher} ${use}` !== wrong) return session
          // One bit of the last octet.
          const spoil = (bytes: Uint8Array, at: number) => {
            bytes[at] = bytes[at]! ^ 1
            return true
          }
          return {
            seal: (bytes, offset, length, more) =>
              session.seal(bytes, offset, length, more) && spoil(bytes, offset + length - 1),
            open: (bytes, offset, length, more) =>
              session.open(bytes, offset, length, more) && spoil(bytes, offset + length - 1),
            destroy: () => session.destroy(),
          }
        },
      }
    }
    const registry = registryWith({ ciphers: CIPHERS, available: () => true, create })
    const placement = measuredPlacement(new Arena(4096), registry)
    assert.equal(placement.place(GCM, key, 'seal').driver.name, 'new')
    placement.create(GCM, key, 'seal')
    placement.prepare()
    assert.equal(placement.moves, 1)
    for (const cipher of CIPHERS)
      for (const use of ['seal', 'open'] as const) {
        const material = key.subarray(0, ESP_CIPHERS[cipher].keyLength)
        assert.equal(placement.place(cipher, material, use).driver.name, 'noble', `${cipher} ${use}`)
      }
  }
})

test('every driver opens what every other sealed', () => {
  const memory = new Arena(256)
  const drivers = availableDrivers(memory)
  assert.equal(drivers[0]!.name, 'libcrypto')
  for (const cipher of Object.keys(ESP_CIPHERS) as EspCipher[]) {
    const material = key.subarray(0, ESP_CIPHERS[cipher].keyLength)
    for (const from of drivers)
      for (const to of drivers) {
        memory.bytes.fill(5, 0, 100)
        assert.equal(from.create(cipher, material, 'seal').seal(memory.bytes, 0, 100, 12), true)
        assert.notEqual(memory.bytes[0], 5)
        const what = `${cipher}, ${from.name} to ${to.name}`
        assert.equal(to.create(cipher, material, 'open').open(memory.bytes, 0, 100, 12), true, what)
        assert.equal(memory.bytes[99], 5, what)
      }
  }
})

test('what is measured decides: JavaScript is the last resort', () => {
  const speeds = driverSpeeds(3)
  for (const cipher of Object.keys(ESP_CIPHERS)) {
    for (const which of ['microseconds', 'microsecondsToOpen'] as const) {
      const full = (driver: string) =>
        speeds.find((s) => s.driver === driver && s.cipher === cipher)![which][MEASURED_LENGTHS[2]]!
      assert.ok(full('libcrypto') < full('noble'), `${cipher} ${which}`)
      assert.ok(full('node:crypto') < full('noble'), `${cipher} ${which}`)
    }
  }
  const placement = measuredPlacement(new Arena(4096), DRIVERS)
  placement.prepare()
  for (const use of ['seal', 'open'] as const)
    assert.notEqual(placement.place(GCM, key, use).driver.name, 'noble')
  assert.equal(placement.moves, 0)
})
