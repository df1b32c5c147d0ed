import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DecodeError, Reader, Writer } from '#wire/cursor'

test('what is written is read', () => {
  const bytes = new Writer(1)
    .u8(0x12)
    .u16(0x3456)
    .u32(0xfedcba98)
    .bytes(Uint8Array.of(1, 2, 3))
    .zeros(2)
    .finish()
  const reader = new Reader(bytes)
  assert.equal(reader.u8(), 0x12)
  assert.equal(reader.u16(), 0x3456)
  assert.equal(reader.u32(), 0xfedcba98)
  assert.deepEqual(reader.bytes(3), Uint8Array.of(1, 2, 3))
  assert.deepEqual(reader.rest(), Uint8Array.of(0, 0))
  reader.end()
})

test('every read checks its bounds, and a failure says where', () => {
  const reader = new Reader(Uint8Array.of(1, 2, 3), 'message').sub(2, 'part').sub(1, 'field')
  assert.throws(
    () => reader.u32(),
    (error) =>
      error instanceof DecodeError &&
      error.path === 'message/part/field' &&
      error.reason === 'wants 4 octets, 1 are left',
  )
  assert.throws(() => new Reader(new Uint8Array(0)).u8(), DecodeError)
  assert.throws(() => new Reader(new Uint8Array(4)).bytes(-1), DecodeError)
  assert.throws(() => new Reader(new Uint8Array(4)).skip(5), DecodeError)
  assert.throws(() => new Reader(new Uint8Array(1)).end(), /1 octets too many/)
})

test('a reader of a part does not see beyond it', () => {
  const reader = new Reader(Uint8Array.of(1, 2, 3, 4))
  const part = reader.sub(2, 'part')
  assert.equal(part.remaining, 2)
  part.skip(2)
  assert.throws(() => part.u8(), DecodeError)
  assert.equal(reader.u16(), 0x0304)
})

test('lengths are patched in place, and only where something was written', () => {
  const writer = new Writer().u16(0).u32(0).u8(0)
  writer.patch16(0, 0xabcd)
  writer.patch32(2, 0x01020304)
  writer.patch8(6, 9)
  assert.deepEqual(writer.finish(), Uint8Array.of(0xab, 0xcd, 1, 2, 3, 4, 9))
  assert.throws(() => writer.patch16(6, 1), RangeError)
  assert.throws(() => writer.patch16(0, 0x1_0000), RangeError)
})
