/**
 * A value that must not reach a log, an error text or JSON by accident: client addresses, paths, destinations,
 * keys. Reading it is explicit (`.reveal()`), and so is easy to grep for.
 */
export class Sensitive<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  reveal(): T {
    return this.#value
  }

  toString(): string {
    return '[redacted]'
  }

  toJSON(): string {
    return '[redacted]'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[redacted]'
  }
}
