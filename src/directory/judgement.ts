/**
 * What an authority makes of a round: the document that follows from the votes, and what is to be said against others. Pure; when
 * it is time for either is the caller's to know.
 */
import { equalBytes, toHex } from '#base/bytes'
import { type Result, success } from '#base/result'
import type { CryptoProvider } from '#crypto/provider'
import type { AlarmName } from '#directory/authority-events'
import { joinDocument, verifyBody } from '#directory/canonical'
import { buildConsensus } from '#directory/consensus'
import type { Endorsement } from '#directory/roll'
import type { OwnDocument, Round } from '#directory/round'
import { sortVotes, tallyVotes } from '#directory/tally'
import { digestOf, type VoteTerms } from '#directory/vote'

/** Who judges, and by which terms. */
export interface Jury {
  /** All of them. */
  readonly authorities: readonly Uint8Array[]
  readonly threshold: number
  readonly terms: VoteTerms
  readonly crypto: CryptoProvider
}

export interface Complaint {
  readonly name: AlarmName
  /** Of whom; absent: of nobody in particular. */
  readonly author?: Uint8Array
}

/**
 * When voting is over. `others`: whose votes are missed, too. Without a document too few votes count.
 * Errors of the document: those of `buildConsensus`.
 */
export function judgeVotes(
  round: Round,
  others: readonly Uint8Array[],
  { authorities, threshold, terms, crypto }: Jury,
): { readonly complaints: readonly Complaint[]; readonly document?: Result<OwnDocument> } {
  const { counted, alarms } = sortVotes(round.admissibleVotes(), round.period)
  const complaints: Complaint[] = []
  for (const author of others) {
    const name = toHex(author)
    if (alarms.get(name) === 'equivocation') complaints.push({ name: 'equivocation', author })
    else if (!round.hasVoteOf(name)) complaints.push({ name: 'vote-missing', author })
    else if (!counted.some((vote) => equalBytes(vote.author, author)))
      complaints.push({ name: 'vote-late', author })
  }
  // With fewer nothing could be listed, and what others know would be forgotten.
  if (counted.length < threshold) return { complaints: [...complaints, { name: 'votes-too-few' }] }
  const built = buildConsensus(tallyVotes(counted, authorities.length, round.period, terms))
  if (!built.ok) return { complaints, document: built }
  const body = JSON.stringify(built.value.body)
  const { consensus } = built.value
  return { complaints, document: success({ body, digest: digestOf(body, crypto), consensus }) }
}

/** When the document is due. `text`: it with its signatures, in the order of their keys, once enough of them are valid. */
export function joinSignatures(
  { endorsements }: Round,
  { body, digest }: OwnDocument,
  { threshold, crypto }: Jury,
): { readonly complaints: readonly Complaint[]; readonly text?: string } {
  const complaints: Complaint[] = []
  const signatures: Endorsement['signature'][] = []
  for (const { author, signature, digest: signed } of endorsements.values()) {
    if (signed !== digest) continue
    if (verifyBody('consensus', body, signature, crypto)) signatures.push(signature)
    else complaints.push({ name: 'signature-invalid', author })
  }
  if (signatures.length < threshold) return { complaints }
  signatures.sort((a, b) => (toHex(a.key) < toHex(b.key) ? -1 : 1))
  const text = joinDocument('consensus', body, signatures)
  return text.ok ? { complaints, text: text.value } : { complaints }
}

/** When everybody had time to sign what we have. */
export function judgeSignatures(
  { ownDocument, endorsements }: Round,
  authorities: readonly Uint8Array[],
): Complaint[] {
  if (ownDocument === undefined) return []
  const complaints: Complaint[] = []
  for (const author of authorities) {
    const said = endorsements.get(toHex(author))
    if (said === undefined) complaints.push({ name: 'signature-missing', author })
    else if (said.digest !== ownDocument.digest) complaints.push({ name: 'document-differs', author })
  }
  return complaints
}
