/** Five authorities of the make-believe network, and votes of theirs. */
import type { Prefix } from '#base/ip'
import { unixTime } from '#base/time'
import type { KeyPair } from '#crypto/provider'
import type { SignedDescriptor } from '#directory/descriptor'
import type { NetworkParameters } from '#directory/documents'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { encodeVote, type Vote, type VotedNode, type VoteTerms } from '#directory/vote'
import { crypto, keyPair, PERIOD, PLAN, START, value } from './network.ts'

export const AUTHORITIES: readonly KeyPair[] = ['a', 'b', 'c', 'd', 'e'].map((seed) =>
  keyPair(`authority ${seed}`),
)
export const PINNED = AUTHORITIES.map(({ publicKey }) => publicKey)
export const TERMS: VoteTerms = { length: PERIOD, plan: PLAN }
/** The period that begins one after START, whose votes are made just before. */
export const NEXT = START / PERIOD + 1

export const voted = (node: SignedDescriptor, pool?: Prefix, since: number = START): VotedNode => ({
  ...node,
  pool,
  since: unixTime(since),
  flags: ['running', 'valid'],
})

export const vote = (
  author: number,
  nodes: readonly VotedNode[],
  changes: {
    period?: number
    reserved?: readonly Prefix[]
    published?: number
    parameters?: NetworkParameters
  } = {},
): Vote =>
  value(
    encodeVote(
      {
        period: changes.period ?? NEXT,
        published: unixTime(changes.published ?? START + PERIOD - 1200),
        parameters: changes.parameters ?? DEFAULT_PARAMETERS,
        nodes,
        reserved: changes.reserved ?? [],
      },
      TERMS,
      AUTHORITIES[author]!,
      crypto,
    ),
  )
