/** Key exchange methods (RFC 7296 section 3.4): what a public value is, and what two of them agree on. */
import type { CryptoProvider, KeyAnswer, KeyPair } from '#crypto/provider'
import { GROUP } from '#ikev2/numbers'

interface Group {
  generate(crypto: CryptoProvider): KeyPair
  /** The shared secret, or undefined when the peer's value is of a wrong length, or no acceptable point. */
  agree(crypto: CryptoProvider, privateKey: Uint8Array, peer: Uint8Array): Uint8Array | undefined
  /** Both at once, for the side that answers. */
  answer(crypto: CryptoProvider, peer: Uint8Array): KeyAnswer | undefined
}

const GROUPS: ReadonlyMap<number, Group> = new Map([
  // RFC 8031.
  [
    GROUP.number.X25519,
    {
      generate: (crypto: CryptoProvider) => crypto.x25519Generate(),
      agree: (crypto: CryptoProvider, privateKey: Uint8Array, peer: Uint8Array) =>
        crypto.x25519Agree(privateKey, peer),
      answer: (crypto: CryptoProvider, peer: Uint8Array) => crypto.x25519Answer(peer),
    },
  ],
  // RFC 5903: for stock peers alone; between ours it is never the first, and never chosen.
  [
    GROUP.number.P256,
    {
      generate: (crypto: CryptoProvider) => crypto.p256Generate(),
      agree: (crypto: CryptoProvider, privateKey: Uint8Array, peer: Uint8Array) =>
        crypto.p256Agree(privateKey, peer),
      answer: (crypto: CryptoProvider, peer: Uint8Array) => crypto.p256Answer(peer),
    },
  ],
])

/** In order of preference: what a responder takes. */
export const ACCEPTED_GROUPS: readonly number[] = [...GROUPS.keys()]

/** @throws RangeError for a group that was never negotiated */
export function groupOf(number: number): Group {
  const group = GROUPS.get(number)
  if (group === undefined) throw new RangeError(`no ${GROUP.nameOf(number)}`)
  return group
}
