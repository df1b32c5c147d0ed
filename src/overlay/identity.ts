import { utf8 } from '#base/bytes'
import { isNodeId, type NodeId, nodeIdBytes, nodeIdFromBytes } from '#base/ids'
import type { KeyPair } from '#crypto/provider'
import type { StockAuthentication } from '#directory/documents'
import type { IkeId, LocalCredential } from '#ikev2/events'

/**
 * The pre-shared key by which a stock client without NULL authentication says that it is nobody. It is in the manual,
 * so it proves nothing; every node of ours takes it.
 */
export const PUBLISHED_KEY = 'ippriv-public-well-known-psk'

/** How an anonymous client authenticates to a node. */
export const anonymousCredential = (ike: StockAuthentication | undefined): LocalCredential =>
  ike === undefined ? { kind: 'null' } : { kind: 'psk', key: utf8(ike.key) }

/** ID_KEY_ID, RFC 7296 section 3.5: an opaque octet string; for us the 32 octets of the node id. */
const ID_KEY_ID = 11

/** How a node is called in IKE_AUTH. */
export const nodeIdentity = (id: NodeId): IkeId => ({ type: ID_KEY_ID, data: nodeIdBytes(id) })

/** With what a node proves in IKE_AUTH who it is. */
export const nodeCredential = (id: NodeId, ikeKey: KeyPair & { readonly ecdsa?: KeyPair }) =>
  ({ kind: 'ed25519', id: nodeIdentity(id), ...ikeKey }) as const

/** The node an identity names, or undefined when it is not of our form. */
export function nodeOfIdentity(id: IkeId): NodeId | undefined {
  if (id.type !== ID_KEY_ID || id.data.length !== 32) return undefined
  const nodeId = nodeIdFromBytes(id.data)
  return isNodeId(nodeId) ? nodeId : undefined
}
