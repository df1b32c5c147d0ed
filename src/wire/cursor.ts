/**
 * Bounds-checked reading and writing of network-order bytes.
 *
 * A decoder is a function of a `Reader`. Each `sub()` narrows the bounds and adds its name to the path, so
 * a failure says where it happened: `IKE_AUTH/TSi/selector 2: wants 16 octets, 8 are left`.
 */

/** Bytes that do not follow their format. `path` names the place, `reason` what was wrong there. */
export class DecodeError extends Error {
  readonly path: string
  readonly reason: string

  constructor(path: string, reason: string) {
    super(path === '' ? reason : `${path}: ${reason}`)
    this.name = 'DecodeError'
    this.path = path
    this.reason = reason
  }
}

export class Reader {
  readonly #bytes: Uint8Array
  readonly #path: string
  readonly #start: number
  readonly #end: number
  #at: number

  /** Reads `bytes` without copying: results of `bytes()` and `rest()` are views. */
  constructor(bytes: Uint8Array, path = '', start = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#path = path
    this.#start = start
    this.#end = end
    this.#at = start
  }

  /** Octets that were read. */
  get offset(): number {
    return this.#at - this.#start
  }

  get remaining(): number {
    return this.#end - this.#at
  }

  u8(): number {
    this.#want(1)
    return this.#bytes[this.#at++]!
  }

  u16(): number {
    const at = this.#take(2)
    return (this.#bytes[at]! << 8) | this.#bytes[at + 1]!
  }

  u32(): number {
    const at = this.#take(4)
    const b = this.#bytes
    return ((b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!) >>> 0
  }

  /** The next `length` octets, as a view. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** All that is left, as a view. */
  rest(): Uint8Array {
    return this.bytes(this.remaining)
  }

  skip(length: number): void {
    this.#take(length)
  }

  /** A reader of the next `length` octets; this one moves behind them. */
  sub(length: number, name: string): Reader {
    const at = this.#take(length)
    return new Reader(this.#bytes, this.#path === '' ? name : `${this.#path}/${name}`, at, at + length)
  }

  /** @throws DecodeError unless everything was read. */
  end(): void {
    if (this.remaining !== 0) this.fail(`${this.remaining} octets too many`)
  }

  fail(reason: string): never {
    throw new DecodeError(this.#path, reason)
  }

  #take(length: number): number {
    this.#want(length)
    const at = this.#at
    this.#at += length
    return at
  }

  #want(length: number): void {
    if (length < 0 || length > this.remaining) this.fail(`wants ${length} octets, ${this.remaining} are left`)
  }
}

export class Writer {
  #bytes: Uint8Array
  #length = 0

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(Math.max(capacity, 16))
  }

  get length(): number {
    return this.#length
  }

  u8(value: number): this {
    const at = this.#grow(1)
    this.#bytes[at] = value
    return this
  }

  u16(value: number): this {
    this.#put16(this.#grow(2), value)
    return this
  }

  u32(value: number): this {
    const at = this.#grow(4)
    this.#put16(at, value >>> 16)
    this.#put16(at + 2, value)
    return this
  }

  bytes(value: Uint8Array): this {
    const at = this.#grow(value.length)
    this.#bytes.set(value, at)
    return this
  }

  zeros(length: number): this {
    this.#grow(length)
    return this
  }

  /** Overwrites one octet written before. */
  patch8(at: number, value: number): void {
    this.#check(at, 1)
    this.#bytes[at] = value
  }

  /** Overwrites two octets written before: lengths are known only afterwards. */
  patch16(at: number, value: number): void {
    this.#check(at, 2)
    if (value > 0xffff) throw new RangeError(`${value} does not fit a 16-bit length`)
    this.#put16(at, value)
  }

  patch32(at: number, value: number): void {
    this.#check(at, 4)
    this.#put16(at, value >>> 16)
    this.#put16(at + 2, value)
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  #put16(at: number, value: number): void {
    this.#bytes[at] = value >>> 8
    this.#bytes[at + 1] = value
  }

  #check(at: number, length: number): void {
    if (at < 0 || at + length > this.#length) throw new RangeError(`no ${length} octets written at ${at}`)
  }

  /** Makes room for `length` zero octets and returns where they stand. */
  #grow(length: number): number {
    const at = this.#length
    this.#length += length
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length))
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    return at
  }
}
