/** `ippriv keygen token`: a token for the nodes of an operator, and the line by which a directory knows it. */
import { toHex } from '#base/bytes'
import { createToken } from '#config/keys'
import { nodeCrypto } from '#crypto/node'
import { tokenKey } from '#directory/token'

/** Writes operator.token into `directory`. @throws IpprivError IPP_KEY_UNREADABLE (also when there is one) */
export const issueToken = async (directory: string): Promise<{ key: string }> => ({
  key: toHex(tokenKey(await createToken(directory), nodeCrypto)),
})
