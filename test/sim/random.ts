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

export { type SeededRng, seededRng } from '../../sim/random.ts'

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
