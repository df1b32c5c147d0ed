/**
 * HMAC (RFC 2104) by two calls of a one-shot hash. A handshake is a dozen HMACs under as many keys, and in Node.js each
 * HMAC object, and each key object for one, costs as much again when it is collected; a one-shot hash leaves no object.
 */
import { wipe } from '#base/bytes'
import { HASH_LENGTH, type HashName } from '#crypto/provider'

/** Gives octets of its own, which are wiped after use. */
type Hash = (name: HashName, data: Uint8Array) => Uint8Array

/** Octets that a compression function takes at once (FIPS 180-4 section 1). */
const BLOCK_LENGTH: Readonly<Record<HashName, number>> = { sha256: 64, sha384: 128, sha512: 128 }
const INNER_PAD = 0x36
const OUTER_PAD = 0x5c

/** Most messages are shorter: those share one buffer. */
const SHARED_LENGTH = 2048

export function hmacOf(hash: Hash): (name: HashName, key: Uint8Array, data: Uint8Array) => Uint8Array {
  const shared = new Uint8Array(SHARED_LENGTH)
  // A view costs more than what it is good for here, and there are few lengths.
  const views: Uint8Array[] = []
  const viewOf = (length: number): Uint8Array => (views[length] ??= shared.subarray(0, length))
  return (name, key, data) => {
    const block = BLOCK_LENGTH[name]
    if (key.length > block) {
      const short = hash(name, key)
      const mac = hmacUnder(short)
      wipe(short)
      return mac
    }
    return hmacUnder(key)

    function hmacUnder(short: Uint8Array): Uint8Array {
      const length = block + data.length
      const padded = length <= SHARED_LENGTH ? viewOf(length) : new Uint8Array(length)
      pad(padded, short, block, INNER_PAD)
      padded.set(data, block)
      const inner = hash(name, padded)
      const outer = viewOf(block + HASH_LENGTH[name])
      pad(outer, short, block, OUTER_PAD)
      outer.set(inner, block)
      const digest = hash(name, outer)
      const mac = new Uint8Array(digest)
      wipe(padded, inner, outer, digest)
      return mac
    }
  }
}

function pad(out: Uint8Array, key: Uint8Array, block: number, value: number): void {
  for (let i = 0; i < key.length; i++) out[i] = key[i]! ^ value
  out.fill(value, key.length, block)
}
