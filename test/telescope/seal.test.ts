import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { fromHex, toHex } from '#base/bytes'
import { type EspCipher, keyingLength } from '#crypto/suites'
import { EvpCipherDriver, NobleCipherDriver, NodeCipherDriver } from '#linux/ciphers'
import { Arena, evp } from '#linux/ffi'
import { ReplayWindow } from '#telescope/replay'
import type { CipherDriver, OpenState, SealState } from '#telescope/seal'
import { OPEN, openLayer, SEAL_HEADROOM, sealLayer, splitKey } from '#telescope/seal'
import { openSlowly, type SlowSa, sealSlowly } from '../twins/noble-esp.ts'

const memory = new Arena(8192)
const AT = 64
const drivers: CipherDriver[] = [new NodeCipherDriver(), new NobleCipherDriver()]
if (evp !== undefined) drivers.push(new EvpCipherDriver(evp, memory))
const CIPHERS: EspCipher[] = ['aes-256-gcm-16', 'aes-128-gcm-16', 'chacha20-poly1305']
const CYCLE = 0x1_0000_0000

function sender(driver: CipherDriver, sa: SlowSa, sequence = 0): SealState {
  const { key, salt } = splitKey(sa.cipher, sa.material)
  return { spi: sa.spi, esn: sa.esn, salt, driver, cipher: driver.create(sa.cipher, key, 'seal'), sequence }
}

function receiver(driver: CipherDriver, sa: SlowSa, top = 0): OpenState {
  const { key, salt } = splitKey(sa.cipher, sa.material)
  const window = new ReplayWindow(64, sa.esn)
  if (top > 0) window.accept(top)
  return { spi: sa.spi, esn: sa.esn, salt, driver, cipher: driver.create(sa.cipher, key, 'open'), window }
}

/** Seals a copy of `inner` in the shared memory and returns the ESP packet. */
function seal(sa: SealState, inner: Uint8Array): Uint8Array {
  memory.bytes.set(inner, AT)
  const length = sealLayer(sa, memory.bytes, AT, inner.length)
  assert.ok(length > 0)
  return memory.bytes.slice(AT - SEAL_HEADROOM, AT - SEAL_HEADROOM + length)
}

/** Opens a copy of `packet`; the inner packet, or one of `OPEN`. */
function open(sa: OpenState, packet: Uint8Array): Uint8Array | number {
  memory.bytes.set(packet, AT)
  const length = openLayer(sa, memory.bytes, AT, packet.length)
  return length < 0 ? length : memory.bytes.slice(AT + SEAL_HEADROOM, AT + SEAL_HEADROOM + length)
}

const material = (cipher: EspCipher): Uint8Array =>
  Uint8Array.from({ length: keyingLength(cipher) }, (_, i) => i * 5 + 1)

test('libcrypto is reachable: the fallback is not what runs here', () => {
  assert.deepEqual(
    drivers.map((driver) => driver.name),
    ['node:crypto', 'noble', 'libcrypto'],
  )
})

for (const driver of drivers)
  describe(driver.name, () => {
    for (const cipher of CIPHERS)
      for (const esn of [false, true])
        test(`${cipher}${esn ? ' with ESN' : ''}: the same octets as the twin, both ways`, () => {
          const sa = { cipher, material: material(cipher), spi: 0xc0ffee01, esn }
          const starts = esn ? [0, 1000, CYCLE - 2, CYCLE - 1, 7 * CYCLE + 3] : [0, 1000, CYCLE - 2]
          fc.assert(
            fc.property(fc.uint8Array({ maxLength: 1500 }), fc.constantFrom(...starts), (inner, start) => {
              const packet = seal(sender(driver, sa, start), inner)
              const sequence = BigInt(start + 1)
              const iv = new Uint8Array(8)
              new DataView(iv.buffer).setBigUint64(0, sequence)
              assert.equal(toHex(packet), toHex(sealSlowly(sa, sequence, iv, inner)))
              assert.deepEqual(openSlowly(sa, sequence, packet), inner)
              assert.deepEqual(open(receiver(driver, sa, start), packet), inner)
            }),
            { numRuns: 30 },
          )
        })

    test('RFC 7634 appendix A: an ESP packet with ChaCha20-Poly1305', () => {
      const sa: SlowSa = {
        cipher: 'chacha20-poly1305',
        material: fromHex('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3'),
        spi: 0x01020304,
        esn: false,
      }
      const packet = fromHex(
        '01020304000000051011121314151617' +
          '24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6' +
          '14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3' +
          'cbec163fac469b502773f6fb94e664da9165b82829f641e0' +
          '76aaa8266b7fb0f7b11b369907e1ad43',
      )
      const inner =
        '45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10' +
        '0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223' +
        '2425262728292a2b2c2d2e2f3031323334353637'
      assert.equal(toHex(open(receiver(driver, sa), packet) as Uint8Array), inner)
      assert.equal(toHex(sealSlowly(sa, 5n, packet.slice(8, 16), fromHex(inner))), toHex(packet))
    })

    test('draft-mcgrew-gcm-test-01: the AEAD of an ESP packet, 12 octets of associated data', () => {
      // Below `openLayer`: an extended number of 2^63 is beyond what a double, or any SA, counts to.
      const { key, salt } = splitKey('aes-128-gcm-16', fromHex('4c80cdefbb5d10da906ac73c3613a6342e443b68'))
      driver.nonce.set(salt)
      driver.nonce.set(fromHex('4956ed7e3b244cfe'), 4)
      driver.associated.set(fromHex('000043218765432100000000'))
      const plain =
        '45000048699a000080114db7c0a80102c0a801010a9bf15638d30100000100000000' +
        '0000045f736970045f756470037369700963796265726369747902646b0000210001' +
        '01020201'
      const sealed =
        'fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34' +
        'cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce' +
        '61bc17d768fd9732459018148f6cbe722fd04796562dfdb4'
      const length = plain.length / 2
      memory.bytes.set(fromHex(plain), AT)
      driver.create('aes-128-gcm-16', key, 'seal').seal(memory.bytes, AT, length, 12)
      assert.equal(toHex(memory.bytes.subarray(AT, AT + length + 16)), sealed)
      assert.ok(driver.create('aes-128-gcm-16', key, 'open').open(memory.bytes, AT, length, 12))
      assert.equal(toHex(memory.bytes.subarray(AT, AT + length)), plain)
    })

    test('a change of any octet is noticed, and the window does not move', () => {
      const sa = {
        cipher: 'aes-256-gcm-16',
        material: material('aes-256-gcm-16'),
        spi: 256,
        esn: true,
      } as const
      const packet = seal(sender(driver, sa), fromHex('4500'))
      const into = receiver(driver, sa)
      for (let i = 4; i < packet.length; i++) {
        const changed = packet.slice()
        changed[i]! ^= 1
        const result = open(into, changed)
        // Number 1 ^ 1 = 0 is refused before anything is computed.
        assert.equal(result, i === 7 ? OPEN.replayed : OPEN.corrupted, `octet ${i}`)
      }
      assert.equal((into.window as ReplayWindow).top, 0)
      assert.deepEqual(open(into, packet), fromHex('4500'))
      assert.equal(open(into, packet), OPEN.replayed)
    })

    test('packets too short to be ESP are malformed', () => {
      const sa = {
        cipher: 'aes-256-gcm-16',
        material: material('aes-256-gcm-16'),
        spi: 256,
        esn: true,
      } as const
      const into = receiver(driver, sa)
      for (let length = 0; length < 36; length++)
        assert.equal(open(into, new Uint8Array(length)), OPEN.malformed)
    })

    test('nonces are never used twice: 20,000 packets over the 2^32 mark, all different', () => {
      const sa = {
        cipher: 'chacha20-poly1305',
        material: material('chacha20-poly1305'),
        spi: 256,
        esn: true,
      } as const
      const from = sender(driver, sa, CYCLE - 10_000)
      const nonces = new Set<string>()
      for (let i = 0; i < 20_000; i++) nonces.add(toHex(seal(from, fromHex('45')).subarray(8, 16)))
      assert.equal(nonces.size, 20_000)
    })

    test('an SA without ESN ends at 2^32 - 1: exhausted, not wrapped', () => {
      const sa = {
        cipher: 'aes-128-gcm-16',
        material: material('aes-128-gcm-16'),
        spi: 256,
        esn: false,
      } as const
      const from = sender(driver, sa, CYCLE - 2)
      seal(from, fromHex('45'))
      memory.bytes.fill(0xaa)
      assert.equal(sealLayer(from, memory.bytes, AT, 10), -1)
      assert.ok(memory.bytes.every((octet) => octet === 0xaa))
    })
  })

test('key material of a wrong length is refused', () => {
  assert.throws(() => splitKey('aes-256-gcm-16', new Uint8Array(32)), RangeError)
})
