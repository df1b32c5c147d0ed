import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { swapPorts, tcpSacks } from '#wire/tcp'

/** A TCP header with these options, padded with noise behind its end. */
function header(...options: number[]): Uint8Array {
  const length = 20 + ((options.length + 3) & ~3)
  const bytes = new Uint8Array(80).fill(0xff)
  bytes.fill(0, 0, length)
  bytes[12] = (length / 4) << 4
  bytes.set(options, 20)
  return bytes
}
const u32 = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 255,
  (value >>> 8) & 255,
  value & 255,
]
const TIMESTAMPS = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]

test('selective acknowledgments are found behind other options, across the end of the numbers', () => {
  const bytes = header(
    ...TIMESTAMPS,
    1,
    1,
    5,
    18,
    ...u32(1000),
    ...u32(2000),
    ...u32(0xffff_ff00),
    ...u32(0x100),
  )
  assert.ok(tcpSacks(bytes, 0, 80, 2000))
  assert.ok(!tcpSacks(header(5, 10, ...u32(1000), ...u32(2000)), 0, 80, 2001))
  assert.ok(tcpSacks(bytes, 0, 80, 0x100))
  assert.ok(tcpSacks(bytes, 0, 80, 0xffff_fff0))
  assert.ok(!tcpSacks(header(...TIMESTAMPS), 0, 80, 0))
  assert.ok(!tcpSacks(header(0, 5, 10, ...u32(1), ...u32(9)), 0, 80, 1), 'the list has ended')
})

test('options with lengths that lie end the search within the packet', () => {
  assert.ok(!tcpSacks(header(5, 0, 5, 0), 0, 80, 0))
  assert.ok(!tcpSacks(header(5, 255, ...u32(1)), 0, 80, 0), 'the block is not in the header')
  assert.ok(!tcpSacks(header(5, 10, ...u32(1000), ...u32(2000)), 0, 28, 1), 'nor in the packet')
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 60, maxLength: 60 }), fc.integer(), (bytes, sequence) => {
      tcpSacks(bytes, 0, 60, sequence)
    }),
  )
})

test('ports the other way round', () => {
  assert.equal(swapPorts(0x1234_abcd), 0xabcd_1234 | 0)
  fc.assert(fc.property(fc.integer(), (ports) => assert.equal(swapPorts(swapPorts(ports)), ports)))
})
