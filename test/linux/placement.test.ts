/** The crypto framework: where SAs are placed, and what happens when their driver fails at work. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS } from '#crypto/suites'
import { NodeCipherDriver } from '#linux/ciphers'
import { Arena } from '#linux/ffi'
import {
  availableDrivers,
  driverSpeeds,
  MEASURED_LENGTHS,
  measuredPlacement,
  Placement,
} from '#linux/placement'
import type { CipherDriver, PacketCipher } from '#telescope/seal'

const GCM = 'aes-256-gcm-16'
const key = Uint8Array.from({ length: 32 }, (_, i) => i)
const inOrder = (drivers: readonly CipherDriver[]) => drivers

/** A driver that works until told not to, and tells what it was asked for. */
class Fragile implements CipherDriver {
  readonly name: string
  readonly nonce: Uint8Array
  readonly associated: Uint8Array
  readonly #inner: NodeCipherDriver
  readonly #refuses: readonly EspCipher[]
  sessions = 0
  isBroken = false

  constructor(name: string, scratch: NodeCipherDriver, refuses: readonly EspCipher[] = []) {
    this.name = name
    this.#inner = new NodeCipherDriver(scratch)
    this.nonce = scratch.nonce
    this.associated = scratch.associated
    this.#refuses = refuses
  }

  create(cipher: EspCipher, material: Uint8Array): PacketCipher {
    if (this.#refuses.includes(cipher)) throw new Error(`${this.name} has no ${cipher}`)
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
  const [first, second] = [
    new Fragile('first', scratch, ['chacha20-poly1305']),
    new Fragile('second', scratch),
  ]
  const placement = new Placement([first, second], inOrder)
  const [gcm, gcmOpen] = [placement.create(GCM, key, 'seal'), placement.create(GCM, key, 'open')]
  assert.deepEqual([first.sessions, second.sessions], [2, 0])
  gcm.destroy()
  gcmOpen.destroy()
  placement.create('chacha20-poly1305', key, 'seal')
  assert.deepEqual([first.sessions, second.sessions], [0, 1])
  assert.equal(placement.moves, 0, 'a refusal is not a failure at work')
})

test('an SA moves when its driver fails, with the same key, and loses one packet', () => {
  const scratch = new NodeCipherDriver()
  const [first, second] = [new Fragile('first', scratch), new Fragile('second', scratch)]
  const placement = new Placement([first, second], inOrder)
  const material = key.slice()
  const sealing = placement.create(GCM, material, 'seal')
  const opening = placement.create(GCM, material, 'open')
  material.fill(0) // the caller wipes its copy
  const before = sealed(sealing)
  first.isBroken = true
  assert.equal(sealed(sealing), undefined)
  const after = sealed(sealing)
  assert.deepEqual(after, before)
  assert.deepEqual([first.sessions, second.sessions], [1, 1], 'the other SA has not met the failure yet')
  assert.equal(opening.open(after!.slice(), 0, 48, 8), false)
  assert.equal(opening.open(after!, 0, 48, 8), true)
  assert.equal(after![47], 7)
  assert.deepEqual([first.sessions, second.sessions], [0, 2])
  assert.equal(placement.moves, 2)
  placement.create(GCM, key, 'seal')
  assert.equal(second.sessions, 3, 'who failed is not asked again')
})

test('with no driver left the failure is told', () => {
  const only = new Fragile('only', new NodeCipherDriver(), ['chacha20-poly1305'])
  const placement = new Placement([only], inOrder)
  assert.throws(() => placement.create('chacha20-poly1305', key, 'seal'), { code: 'IPP_PLANE_UNAVAILABLE' })
  const other = new Placement([only], inOrder)
  const session = other.create(GCM, key, 'seal')
  only.isBroken = true
  assert.throws(() => sealed(session), { code: 'IPP_PLANE_UNAVAILABLE' })
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
    const full = (driver: string) =>
      speeds.find((s) => s.driver === driver && s.cipher === cipher)!.microseconds[MEASURED_LENGTHS[2]]!
    assert.ok(full('libcrypto') < full('noble'), cipher)
    assert.ok(full('node:crypto') < full('noble'), cipher)
  }
  const memory = new Arena(4096)
  const placement = measuredPlacement(memory)
  assert.notEqual(placement.place(GCM, key, 'seal').driver.name, 'noble')
})
