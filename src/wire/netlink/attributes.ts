/**
 * Netlink attributes: u16 length (4 + payload, without padding), u16 type, payload, padding to 4 octets.
 */

import { utf8 } from '#base/bytes'
import { align4, LITTLE_ENDIAN, viewOf } from '#wire/netlink/message'

export interface Attribute {
  readonly type: number
  readonly payload: Uint8Array
}

/** The upper two bits of the type are flags: nested, network byte order. */
const TYPE_MASK = 0x3fff
const ATTRIBUTE_HEADER_LENGTH = 4

/** A fixed struct followed by attributes: the payload of a message. */
export function encodePayload(fixed: Uint8Array, attributes: readonly Attribute[]): Uint8Array {
  const start = align4(fixed.length)
  const out = new Uint8Array(start + attributesLength(attributes))
  out.set(fixed)
  writeAttributes(out, start, attributes)
  return out
}

export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  const out = new Uint8Array(attributesLength(attributes))
  writeAttributes(out, 0, attributes)
  return out
}

/** Attributes from `offset` on, in order, payloads as views. Undefined when a length does not fit. */
export function decodeAttributeList(bytes: Uint8Array, offset = 0): Attribute[] | undefined {
  const view = viewOf(bytes)
  const list: Attribute[] = []
  for (let at = align4(offset); at < bytes.length; ) {
    if (at + ATTRIBUTE_HEADER_LENGTH > bytes.length) return undefined
    const size = view.getUint16(at, LITTLE_ENDIAN)
    if (size < ATTRIBUTE_HEADER_LENGTH || at + size > bytes.length) return undefined
    const type = view.getUint16(at + 2, LITTLE_ENDIAN) & TYPE_MASK
    list.push({ type, payload: bytes.subarray(at + ATTRIBUTE_HEADER_LENGTH, at + size) })
    at += align4(size)
  }
  return list
}

/** As above, by type; of a type that comes twice the last one counts, as in the kernel. */
export function decodeAttributes(bytes: Uint8Array, offset = 0): Map<number, Uint8Array> | undefined {
  const list = decodeAttributeList(bytes, offset)
  return list && new Map(list.map(({ type, payload }) => [type, payload]))
}

export const attribute = (type: number, payload: Uint8Array): Attribute => ({ type, payload })

export function attributeU8(type: number, value: number): Attribute {
  return { type, payload: Uint8Array.of(value) }
}

export function attributeU32(type: number, value: number): Attribute {
  const payload = new Uint8Array(4)
  viewOf(payload).setUint32(0, value, LITTLE_ENDIAN)
  return { type, payload }
}

/** A string with the terminating NUL most families want. */
export function attributeText(type: number, text: string): Attribute {
  return { type, payload: utf8(`${text}\0`) }
}

export function attributeNested(type: number, attributes: readonly Attribute[]): Attribute {
  return { type, payload: encodeAttributes(attributes) }
}

/** Undefined when the attribute is absent or too short. */
export function readU32(payload: Uint8Array | undefined): number | undefined {
  return payload && payload.length >= 4 ? viewOf(payload).getUint32(0, LITTLE_ENDIAN) : undefined
}

export function readText(payload: Uint8Array | undefined): string | undefined {
  if (payload === undefined) return undefined
  const end = payload.indexOf(0)
  return new TextDecoder().decode(end < 0 ? payload : payload.subarray(0, end))
}

function attributesLength(attributes: readonly Attribute[]): number {
  let length = 0
  for (const { payload } of attributes) length += align4(ATTRIBUTE_HEADER_LENGTH + payload.length)
  return length
}

function writeAttributes(out: Uint8Array, offset: number, attributes: readonly Attribute[]): void {
  const view = viewOf(out)
  let at = offset
  for (const { type, payload } of attributes) {
    const size = ATTRIBUTE_HEADER_LENGTH + payload.length
    view.setUint16(at, size, LITTLE_ENDIAN)
    view.setUint16(at + 2, type, LITTLE_ENDIAN)
    out.set(payload, at + ATTRIBUTE_HEADER_LENGTH)
    at += align4(size)
  }
}
