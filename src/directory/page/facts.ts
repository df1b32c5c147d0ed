/** What the page says about a node, whether the document carries it or it follows from what does. */
import { toHex } from '#base/bytes'
import { formatPrefix, ipToUint32 } from '#base/ip'
import type { ConsensusNode } from '#directory/documents'

export interface NodeFacts {
  readonly node: ConsensusNode
  /** In the order of `FLAGS`. */
  readonly flags: readonly Flag[]
  /** Measured, bits per second. */
  readonly bandwidth?: number
  /** The key of its family, in hex: those who have the same one say that one operator runs them all. */
  readonly family?: string
  /** The /16: a path never has two nodes of one. */
  readonly network: string
}

export const FLAGS = ['guard', 'entry', 'middle', 'exit', 'fast', 'stable', 'stock'] as const
export type Flag = (typeof FLAGS)[number]

export const FLAG_TEXTS: Readonly<Record<Flag, string>> = {
  guard: 'Clients may keep it as their entry for long.',
  entry: 'It takes clients.',
  middle: 'It takes circuits from one node to the next.',
  exit: 'Traffic leaves the overlay there.',
  fast: 'It is among the faster nodes.',
  stable: 'It has been there for long.',
  stock: 'A stock IKEv2 router that knows nothing of IPpriv.',
}

export function factsOf(node: ConsensusNode): NodeFacts {
  const flags = new Set<string>([...node.roles, ...(node.flags ?? [])])
  // What authorities found out counts more than what the node says of itself.
  if (node.flags !== undefined && !node.flags.includes('exit')) flags.delete('exit')
  if (node.ike !== undefined) flags.add('stock')
  return {
    node,
    flags: FLAGS.filter((flag) => flags.has(flag)),
    ...(node.bandwidth === undefined ? {} : { bandwidth: node.bandwidth * 1000 }),
    ...(node.family === undefined ? {} : { family: toHex(node.family.key) }),
    network: `${node.address.split('.', 2).join('.')}.0.0/16`,
  }
}

/** What a node is most sought for: the colour it has everywhere. */
export type Kind = 'exit' | 'entry' | 'middle'

export const kindOf = ({ flags }: NodeFacts): Kind =>
  flags.includes('exit') ? 'exit' : flags.includes('entry') ? 'entry' : 'middle'

export const byAddress = (a: NodeFacts, b: NodeFacts): number =>
  ipToUint32(a.node.address) - ipToUint32(b.node.address)

/** Does the text of a search, in lower case, name this node: part of its name, the start of its id, address or pool? */
export const matches = ({ node }: NodeFacts, query: string): boolean =>
  node.name.includes(query) ||
  node.address.startsWith(query) ||
  node.nodeId.startsWith(query) ||
  formatPrefix(node.pool).startsWith(query)
