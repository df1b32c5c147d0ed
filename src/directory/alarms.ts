/** What can be wrong with a directory, in words for those who run it. */
import type { UnixTime } from '#base/time'

export interface Alarm {
  readonly name: string
  /** The authority it is about; undefined: this directory. */
  readonly authority: string | undefined
  readonly since: UnixTime
  readonly last: UnixTime
  /** One line more about it. */
  readonly detail?: string
}

/** What it means, and where to look. Those of the authority's machine, and those that every directory may have. */
export const ALARM_TEXTS: Readonly<Record<string, string>> = {
  certificate:
    'The certificate of its signing key ends soon, or did: make another (`ippriv directory certify`) and restart it.',
  clock: 'Its vote was made at another time than the schedule says: its clock or ours is off.',
  'document-differs': 'It counted another document from the same votes.',
  'document-missing': 'No document came about in time; the last one goes on until its end.',
  equivocation: 'It made two votes for one period: its key may be in other hands.',
  fork: 'Two documents of one period have enough signatures each: authorities misbehave. Look at once.',
  'other-period': 'It speaks of a period that is over or has not begun: look at its clock and configuration.',
  'signature-invalid': 'Its signature does not verify.',
  'signature-missing': 'It did not sign the document in time.',
  'vote-late': 'Its vote came after the others had called the roll.',
  'vote-missing': 'No vote came from it: it is down, or cannot be reached.',
  'votes-too-few': 'Fewer votes than the threshold: nothing could be signed.',
  silent: 'It does not answer.',
  publishing: 'No new document can be made or kept here.',
  expired: 'The document has expired: whoever asks now gets nothing to use.',
}
