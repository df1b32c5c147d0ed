/** The headers of the packet path: golden octets, and twins that read like the RFC. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { fromHex, toHex } from '#base/bytes'
import { ip, ipToUint32 } from '#base/ip'
import { adjustChecksum, checksum, foldChecksum, sum16 } from '#wire/checksum'
import { espCapacity, espLength, nextHeader, paddedLength, unpaddedLength, writeTrailer } from '#wire/esp'
import { FRAGMENTATION_NEEDED, makeFragmentationNeeded } from '#wire/icmp'
import {
  addressText,
  checkIpv4,
  decrementTtl,
  destination,
  dontFragment,
  isFragment,
  isLaterFragment,
  protocol,
  source,
  totalLength,
  ttl,
  writeIpv4,
} from '#wire/ipv4'
import { udpChecksum, writeUdp } from '#wire/udp'

/** A ping of RFC 7634 appendix A: a whole packet from a standard. */
const PING =
  '45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10' +
  '0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223' +
  '2425262728292a2b2c2d2e2f3031323334353637'

describe('checksum', () => {
  test('the example of RFC 1071 section 3', () => {
    const bytes = fromHex('0001f203f4f5f6f7')
    assert.equal(sum16(bytes, 0, 8), 0x2ddf0)
    assert.equal(checksum(bytes, 0, 8), 0xffff - 0xddf2)
  })

  test('agrees with a sum of bigints, odd lengths too', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        let sum = 0n
        for (let i = 0; i < bytes.length; i += 2) sum += BigInt(bytes[i]! * 256 + (bytes[i + 1] ?? 0))
        while (sum > 0xffffn) sum = (sum & 0xffffn) + (sum >> 16n)
        assert.equal(checksum(bytes, 0, bytes.length), Number(sum ^ 0xffffn))
      }),
    )
  })

  test('an adjusted checksum is the recomputed one (RFC 1624)', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 20, maxLength: 20 }), fc.nat(0xffff), (bytes, word) => {
        // Never all zero, like every header: there the two zeros of one's complement differ.
        bytes[0] = 0x45
        const before = foldChecksum(sum16(bytes, 0, 20))
        const old = (bytes[8]! << 8) | bytes[9]!
        bytes[8] = word >>> 8
        bytes[9] = word
        assert.equal(adjustChecksum(before, old, word), foldChecksum(sum16(bytes, 0, 20)))
      }),
    )
  })

  test('the example of RFC 1624 section 4', () => {
    assert.equal(adjustChecksum(0xdd2f, 0x5555, 0x3285), 0x0000)
  })
})

describe('IPv4', () => {
  test('golden header, both directions', () => {
    const bytes = fromHex(PING)
    assert.equal(checkIpv4(bytes, 0, bytes.length), undefined)
    assert.equal(addressText(source(bytes, 0)), '198.51.100.5')
    assert.equal(addressText(destination(bytes, 0)), '192.0.2.5')
    assert.deepEqual([totalLength(bytes, 0), ttl(bytes, 0), protocol(bytes, 0)], [84, 64, 1])
    const out = new Uint8Array(20)
    writeIpv4(out, 0, {
      totalLength: 84,
      protocol: 1,
      ttl: 64,
      id: 0xa6f2,
      dontFragment: false,
      tos: 0,
      source: ipToUint32(ip('198.51.100.5')),
      destination: ipToUint32(ip('192.0.2.5')),
    })
    assert.equal(toHex(out), PING.slice(0, 40))
  })

  test('faults', () => {
    const fault = (change: (bytes: Uint8Array) => void, length?: number) => {
      const bytes = fromHex(PING)
      change(bytes)
      return checkIpv4(bytes, 0, length ?? bytes.length)
    }
    assert.equal(
      fault(() => undefined, 19),
      'short',
    )
    assert.equal(
      fault((bytes) => bytes.fill(0x65, 0, 1)),
      'version',
    )
    assert.equal(
      fault((bytes) => bytes.fill(0x46, 0, 1)),
      'options',
    )
    assert.equal(
      fault((bytes) => bytes.fill(0x44, 0, 1)),
      'options',
    )
    assert.equal(
      fault((bytes) => bytes.fill(0x55, 3, 4)),
      'length',
    )
    assert.equal(
      fault((bytes) => bytes.fill(19, 3, 4)),
      'length',
    )
    assert.equal(
      fault((bytes) => bytes.fill(0, 10, 11)),
      'checksum',
    )
    assert.equal(
      fault(() => undefined, 1000),
      undefined,
    )
  })

  test('a decremented TTL keeps the checksum right, for every TTL', () => {
    for (let hops = 1; hops < 256; hops++) {
      const bytes = new Uint8Array(20)
      const header = { protocol: 50, id: hops * 251, dontFragment: true, tos: 0, source: -2, destination: 77 }
      writeIpv4(bytes, 0, { ...header, totalLength: 20, ttl: hops })
      decrementTtl(bytes, 0)
      assert.equal(ttl(bytes, 0), hops - 1)
      assert.equal(checkIpv4(bytes, 0, 20), undefined)
    }
  })

  test('fragments', () => {
    const parts = (high: number, low = 0) => {
      const bytes = fromHex(PING)
      bytes[6] = high
      bytes[7] = low
      return [isFragment(bytes, 0), isLaterFragment(bytes, 0), dontFragment(bytes, 0)]
    }
    assert.deepEqual(parts(0), [false, false, false])
    assert.deepEqual(parts(0x40), [false, false, true])
    assert.deepEqual(parts(0x20), [true, false, false])
    assert.deepEqual(parts(0x00, 1), [true, true, false])
  })
})

test('UDP: a zero checksum is written, and a computed one verifies', () => {
  const bytes = new Uint8Array(13)
  writeUdp(bytes, 0, 4500, 500, 13)
  bytes.set([1, 2, 3, 4, 5], 8)
  assert.equal(toHex(bytes.subarray(0, 8)), '119401f4000d0000')
  const [from, to] = [ipToUint32(ip('10.0.0.1')), ipToUint32(ip('198.18.0.1')) | 0]
  const sum = udpChecksum(bytes, 0, from, to)
  bytes[6] = sum >>> 8
  bytes[7] = sum
  assert.equal(udpChecksum(bytes, 0, from, to), 0)
})

test('ICMP fragmentation needed: golden octets, the quoted packet in its place', () => {
  const bytes = new Uint8Array(200)
  bytes.set(fromHex(PING), 100)
  const at = makeFragmentationNeeded(
    bytes,
    100,
    1280,
    ipToUint32(ip('192.0.2.5')),
    ipToUint32(ip('198.51.100.5')),
  )
  assert.equal(at, 72)
  const error = bytes.subarray(at, at! + FRAGMENTATION_NEEDED)
  assert.equal(checkIpv4(error, 0, error.length), undefined)
  assert.equal(checksum(error, 20, 36), 0)
  assert.equal(toHex(error.subarray(0, 10)), '45000038000000004001')
  assert.equal(toHex(error.subarray(20, 22)), '0304')
  assert.equal(toHex(error.subarray(24, 28)), '00000500')
  assert.equal(toHex(error.subarray(28)), PING.slice(0, 56))
})

describe('ESP', () => {
  test('padding ends on four octets and is 1, 2, 3 (RFC 4303 section 2.4)', () => {
    for (const [length, tail] of [
      [0, '01020204'],
      [1, '010104'],
      [2, '0004'],
      [3, '0102030304'],
      [84, '01020204'],
    ] as const) {
      const bytes = new Uint8Array(100)
      const total = writeTrailer(bytes, 0, length, 4)
      assert.equal(toHex(bytes.subarray(length, total)), tail)
      assert.equal(unpaddedLength(bytes, 0, total), length)
      assert.equal(nextHeader(bytes, 0, total), 4)
    }
  })

  test('a pad length beyond the packet is noticed', () => {
    assert.equal(unpaddedLength(Uint8Array.of(1, 2, 3, 4), 0, 4), -1)
    assert.equal(unpaddedLength(Uint8Array.of(1, 2, 2, 4), 0, 4), 0)
  })

  test('capacity is the inverse of length', () => {
    for (let limit = 100; limit < 1600; limit++) {
      const capacity = espCapacity(limit)
      assert.ok(espLength(capacity) <= limit)
      assert.ok(espLength(capacity + 1) > limit)
    }
    for (let length = 0; length < 64; length++) assert.equal(paddedLength(length) % 4, 0)
  })
})
