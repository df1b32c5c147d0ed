/**
 * What an authority has heard for one period: votes, rolls and signatures, of each author no more than proves what
 * it did. Pure; the times at which something counts are the caller's.
 */
import { toHex } from '#base/bytes'
import type { HeardFrom, Question } from '#directory/authority-events'
import type { Consensus } from '#directory/documents'
import type { Endorsement, Roll } from '#directory/roll'
import type { Vote } from '#directory/vote'

/** What we computed ourselves. */
export interface OwnDocument {
  readonly body: string
  readonly digest: string
  readonly consensus: Consensus
}

/** What became of something heard. */
export type Filed = 'new' | 'known' | 'equivocation'

export class Round {
  readonly period: number
  /** By digest. */
  readonly votes = new Map<string, Vote>()
  /** By author in hex; the first of each. */
  readonly rolls = new Map<string, Roll>()
  readonly endorsements = new Map<string, Endorsement>()
  ownVote: Vote | undefined
  ownRoll: Roll | undefined
  ownEndorsement: Endorsement | undefined
  ownDocument: OwnDocument | undefined
  /** Everything up to the document was done, or given up. */
  judged = false
  readonly #votesBy = new Map<string, string[]>()
  /** Digests of votes that came while voting was open. */
  readonly #timely = new Set<string>()
  readonly #raised = new Set<string>()

  constructor(period: number) {
    this.period = period
  }

  /** Two of one author are kept, which is proof enough; a third is only said to be one too many. */
  addVote(vote: Vote, timely: boolean): Filed {
    if (this.votes.has(vote.digest)) return 'known'
    const author = toHex(vote.author)
    const others = this.#votesBy.get(author) ?? []
    if (others.length < 2) {
      this.votes.set(vote.digest, vote)
      this.#votesBy.set(author, [...others, vote.digest])
      if (timely) this.#timely.add(vote.digest)
    }
    return others.length === 0 ? 'new' : 'equivocation'
  }

  addRoll(roll: Roll): Filed {
    const author = toHex(roll.author)
    const other = this.rolls.get(author)
    if (other === undefined) this.rolls.set(author, roll)
    return other === undefined ? 'new' : other.text === roll.text ? 'known' : 'equivocation'
  }

  addEndorsement(endorsement: Endorsement): Filed {
    const author = toHex(endorsement.author)
    const other = this.endorsements.get(author)
    if (other === undefined) this.endorsements.set(author, endorsement)
    return other === undefined ? 'new' : other.digest === endorsement.digest ? 'known' : 'equivocation'
  }

  hasVoteOf(author: string): boolean {
    return this.#votesBy.has(author)
  }

  /** From whom something came. */
  heardFrom(): HeardFrom {
    const votes = new Set([...this.votes.values()].map(({ author }) => toHex(author)))
    return { votes, rolls: new Set(this.rolls.keys()), signatures: new Set(this.endorsements.keys()) }
  }

  /** What its author says when asked; of votes, any that it has. */
  answer({ kind, digest }: Pick<Question, 'kind' | 'digest'>): string | undefined {
    if (kind === 'roll') return this.ownRoll?.text
    if (kind === 'signature') return this.ownEndorsement?.text
    return digest === undefined ? this.ownVote?.text : this.votes.get(digest)?.text
  }

  get timelyVotes(): readonly string[] {
    return [...this.#timely]
  }

  /**
   * Votes that came in time, to us or to another authority than their author. What one honest authority had in time
   * stands on its roll, and so counts for all.
   */
  admissibleVotes(): Vote[] {
    return [...this.votes.values()].filter(({ digest, author }) => {
      if (this.#timely.has(digest)) return true
      const own = toHex(author)
      return [...this.rolls].some(([who, { votes }]) => who !== own && votes.includes(digest))
    })
  }

  /** Votes that others have and we lack, with each who has it: one of them may be the one that lies. */
  missingVotes(): { readonly from: Uint8Array; readonly digest: string }[] {
    return [...this.rolls.values()].flatMap(({ author, votes }) =>
      votes.filter((digest) => !this.votes.has(digest)).map((digest) => ({ from: author, digest })),
    )
  }

  /** True once for each name: an alarm is counted once in a period. */
  raise(name: string): boolean {
    if (this.#raised.has(name)) return false
    this.#raised.add(name)
    return true
  }
}
