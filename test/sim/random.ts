/** Randomness with a seed, so that a simulation that failed can be run again. Never for keys that matter. */

import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import type { Rng } from '#base/rng'
import { nodeCrypto } from '#crypto/node'
import {
  type CryptoProvider,
  type Encapsulation,
  type KeyAnswer,
  type KeyPair,
  MLKEM768,
} from '#crypto/provider'

export interface SeededRng extends Rng {
  /** Uniform in [0, 1). */
  fraction(): number
}

/** sfc32, seeded by a counter that is mixed in for a while. */
export function seededRng(seed: number): SeededRng {
  let [a, b, c, d] = [seed | 0, 0x9e3779b9, 0x243f6a88, 1]
  const next = (): number => {
    const t = (a + b + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + t) | 0
    return t >>> 0
  }
  for (let i = 0; i < 16; i++) next()
  return {
    fraction: () => next() / 2 ** 32,
    bytes: (length) => Uint8Array.from({ length }, () => next() & 255),
  }
}

/** The node provider with all randomness from `rng`: same seed, same octets on the simulated wire. */
export function seededCrypto(rng: Rng): CryptoProvider {
  const basePoint = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 9 : 0))
  return {
    ...nodeCrypto,
    name: 'seeded',
    random: (length) => rng.bytes(length),
    x25519Generate(): KeyPair {
      const privateKey = rng.bytes(32)
      return { privateKey, publicKey: nodeCrypto.x25519Agree(privateKey, basePoint)! }
    },
    x25519Answer(peerPublicKey): KeyAnswer | undefined {
      const { privateKey, publicKey } = this.x25519Generate()
      const sharedSecret = nodeCrypto.x25519Agree(privateKey, peerPublicKey)
      return sharedSecret && { publicKey, sharedSecret }
    },
    mlkem768Generate(): KeyPair {
      const privateKey = rng.bytes(MLKEM768.seed)
      return { privateKey, publicKey: ml_kem768.keygen(privateKey).publicKey }
    },
    mlkem768Encapsulate(publicKey): Encapsulation | undefined {
      // The provider decides what is a key; the randomness is ours.
      if (nodeCrypto.mlkem768Encapsulate(publicKey) === undefined) return undefined
      const { cipherText: ciphertext, sharedSecret } = ml_kem768.encapsulate(publicKey, rng.bytes(32))
      return { ciphertext, sharedSecret }
    },
    ed25519Generate(): KeyPair {
      const privateKey = rng.bytes(32)
      return { privateKey, publicKey: nodeCrypto.ed25519PublicKey(privateKey) }
    },
  }
}
