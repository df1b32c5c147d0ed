/** What an authority asks others for: what they have and it lacks. Messages get lost, and authorities start late. Pure. */
import { toHex } from '#base/bytes'
import type { UnixTime } from '#base/time'
import type { AuthorityEffect, MessageKind } from '#directory/authority-events'
import type { Round } from '#directory/round'
import { scheduleOf } from '#directory/schedule'
import { periodOf } from '#directory/vote'

/** `held`: serial of the document at hand, 0 for none. `length`: seconds of a period. */
export function inquiries(
  round: Round,
  others: readonly Uint8Array[],
  held: number,
  now: UnixTime,
  length: number,
): AuthorityEffect[] {
  const { period } = round
  const at = scheduleOf(period, length)
  const questions: AuthorityEffect[] = []
  const ask = (who: Uint8Array, kind: MessageKind, of: number, digest?: string): void => {
    const question = { kind, period: of, ...(digest === undefined ? {} : { digest }) }
    questions.push({ kind: 'ask', who, question })
  }
  // A second after they were due: what was told needs no asking.
  if (now > at.vote && now < at.sign) {
    for (const other of others) if (!round.hasVoteOf(toHex(other))) ask(other, 'vote', period)
    for (const { from, digest } of round.missingVotes()) ask(from, 'vote', period, digest)
  }
  if (now > at.roll && now < at.sign)
    for (const other of others) if (!round.rolls.has(toHex(other))) ask(other, 'roll', period)
  if (held === period) return questions
  if (now > at.sign && round.ownDocument !== undefined)
    for (const other of others) if (!round.endorsements.has(toHex(other))) ask(other, 'signature', period)
  // The one that is valid now, which the others made without us.
  if (held < periodOf(now, length)) for (const other of others) ask(other, 'consensus', held + 1)
  return questions
}
