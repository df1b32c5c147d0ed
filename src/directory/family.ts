/**
 * Families: nodes that say they have one operator. A family is a key. Its operator has it sign the identity key of each
 * member, and each member puts key and signature into the descriptor that it signs itself. So both sides have agreed,
 * nobody is put into a family or can join one uninvited, and a family of a hundred costs each of them one signature
 * and no list of the others.
 */
import { concat, utf8 } from '#base/bytes'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import type { FamilyMembership } from '#directory/documents'

/** By the holder of the family's key, for a node with this identity key. */
export const joinFamily = (
  identityKey: Uint8Array,
  family: KeyPair,
  crypto: CryptoProvider,
): FamilyMembership => ({
  key: family.publicKey,
  proof: crypto.ed25519Sign(family.privateKey, claim(identityKey)),
})

export const isMember = (
  identityKey: Uint8Array,
  { key, proof }: FamilyMembership,
  crypto: CryptoProvider,
): boolean => crypto.ed25519Verify(key, claim(identityKey), proof)

const claim = (identityKey: Uint8Array): Uint8Array => concat(utf8('ippriv family 1\n'), identityKey)
