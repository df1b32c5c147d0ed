/** What the operator of a node says about it in the descriptor beside where it is and what it does. */
import { readKeyFile } from '#config/keys'
import type { NodeConfig } from '#config/load'
import type { CryptoProvider } from '#crypto/provider'
import type { DescriptorFields } from '#directory/descriptor'
import { joinFamily } from '#directory/family'

export type Claims = Pick<DescriptorFields, 'declared' | 'family'>

/** @throws IpprivError IPP_KEY_UNREADABLE, IPP_KEY_INVALID: the family's key */
export async function claimsOf(
  { bandwidth, family }: Pick<NodeConfig, 'bandwidth' | 'family'>,
  identityKey: Uint8Array,
  crypto: CryptoProvider,
): Promise<Claims> {
  const declared = bandwidth === undefined ? {} : { declared: bandwidth }
  if (family === undefined) return declared
  const { seed: privateKey, publicKey } = await readKeyFile(family)
  return { ...declared, family: joinFamily(identityKey, { privateKey, publicKey }, crypto) }
}
