/**
 * Strict DER (X.690), as far as public keys and signatures need it: definite lengths in their shortest form, tags of
 * one octet, and nothing left over. The caller names every element it expects, so depth is bounded by its code.
 */
import { concat, toHex } from '#base/bytes'

export const DER = {
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  NULL: 0x05,
  OID: 0x06,
  SEQUENCE: 0x30,
  /** [n] EXPLICIT, constructed. */
  context: (n: number): number => 0xa0 | n,
} as const

/** What `read` makes of all of `bytes`, or undefined where they are not the DER it expects. */
export function readDer<T>(bytes: Uint8Array, read: (reader: DerReader) => T): T | undefined {
  try {
    const reader = new DerReader(bytes)
    const value = read(reader)
    reader.end()
    return value
  } catch (error) {
    if (error instanceof DerError) return undefined
    throw error
  }
}

export class DerReader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get remaining(): number {
    return this.#bytes.length - this.#at
  }

  end(): void {
    if (this.remaining > 0) throw new DerError('octets behind the end')
  }

  /** What is not read yet, as it is. */
  rest(): Uint8Array {
    const rest = this.#bytes.subarray(this.#at)
    this.#at = this.#bytes.length
    return rest
  }

  /** The contents of the next element, which must have this tag. */
  take(tag: number): Uint8Array {
    if (this.#octet() !== tag) throw new DerError('another element')
    const length = this.#length()
    if (length > this.remaining) throw new DerError('an element longer than what holds it')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  /** Reads within a constructed element, to its end. */
  within<T>(tag: number, read: (inner: DerReader) => T): T {
    const inner = new DerReader(this.take(tag))
    const value = read(inner)
    inner.end()
    return value
  }

  /** As `within`, where the element may be missing. */
  optional<T>(tag: number, read: (inner: DerReader) => T): T | undefined {
    return this.#bytes[this.#at] === tag ? this.within(tag, read) : undefined
  }

  /** An object identifier as the hex of its contents. */
  oid(): string {
    return toHex(this.take(DER.OID))
  }

  /** A positive INTEGER as its octets, without leading zeros; zero is empty. */
  unsigned(): Uint8Array {
    const octets = this.take(DER.INTEGER)
    const [first, second] = octets
    if (first === undefined || first > 0x7f) throw new DerError('a negative number, or none')
    if (first !== 0) return octets
    if (second !== undefined && second <= 0x7f) throw new DerError('a number with needless zeros')
    return octets.subarray(1)
  }

  /** A BIT STRING of whole octets. */
  bitString(): Uint8Array {
    const octets = this.take(DER.BIT_STRING)
    if (octets[0] !== 0) throw new DerError('a bit string of odd bits')
    return octets.subarray(1)
  }

  #length(): number {
    const first = this.#octet()
    if (first < 0x80) return first
    const count = first & 0x7f
    // 0 is the indefinite form; nothing here has 64 KiB.
    if (count === 0 || count > 2) throw new DerError('a length that is not DER')
    const length = count === 1 ? this.#octet() : (this.#octet() << 8) | this.#octet()
    if (length < (count === 1 ? 0x80 : 0x100)) throw new DerError('a length that is too long')
    return length
  }

  #octet(): number {
    const octet = this.#bytes[this.#at++]
    if (octet === undefined) throw new DerError('it ends early')
    return octet
  }
}

/** An element whose contents are `parts`, which have less than 64 KiB. */
export function encodeDer(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const contents = concat(...parts)
  const { length } = contents
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return concat(Uint8Array.of(tag, ...size), contents)
}

/** A positive INTEGER. */
export function encodeUnsigned(octets: Uint8Array): Uint8Array {
  const first = octets.findIndex((octet) => octet !== 0)
  const digits = first < 0 ? Uint8Array.of(0) : octets.subarray(first)
  return encodeDer(DER.INTEGER, digits[0]! > 0x7f ? concat(Uint8Array.of(0), digits) : digits)
}

class DerError extends Error {}
