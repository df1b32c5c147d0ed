/**
 * Which words of a node stand in the next document. Nodes sign themselves anew all the time, to show that they live, and
 * say nothing new by it; but a signature cannot be compressed, and every reader would fetch it every hour. So a
 * document repeats what the last one said of a node, until that is out of date. Pure.
 */
import type { NodeId } from '#base/ids'
import type { UnixTime } from '#base/time'
import { type ListedNode, listedTexts } from '#directory/consensus'
import { type SignedDescriptor, sameSubstance } from '#directory/descriptor'
import type { Consensus } from '#directory/documents'

/** Seconds after which words are renewed though they are the same: an old signature must not speak for ever. */
export const WORDS_LAST = 7 * 24 * 3600

/** The nodes, with the words of `listed` where they still do. */
export function steadyWords<Node extends SignedDescriptor>(
  nodes: readonly Node[],
  listed: ReadonlyMap<NodeId, SignedDescriptor>,
  now: UnixTime,
): Node[] {
  return nodes.map((node) => {
    const last = listed.get(node.descriptor.nodeId)
    if (last === undefined || last.descriptor.published < now - WORDS_LAST) return node
    if (last.descriptor.published > node.descriptor.published) return node
    return sameSubstance(last.descriptor, node.descriptor)
      ? { ...node, descriptor: last.descriptor, text: last.text }
      : node
  })
}

/** What a document says of each node. It was verified. */
export function listedWords(text: string, { nodes }: Consensus): Map<NodeId, ListedNode> {
  const texts = listedTexts(text)
  return new Map(
    nodes.map(({ pool, flags: _flags, bandwidth: _, ...descriptor }, i) => [
      descriptor.nodeId,
      { descriptor, text: texts[i]!, pool },
    ]),
  )
}
