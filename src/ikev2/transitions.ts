/**
 * The life of an IKE SA as data. Rule 1: whatever changes a state stands in this file. What a table does not list
 * is illegal: an event without a row is a defect of ours, a request without a row is refused unanswered.
 *
 *                 resuming ------------------------------.        a ticket; refused: initiating
 *     initiator   initiating -.----> exchanging ----.-> authenticating ---.
 *                     ^ |     '---------------------'                     v          close
 *                     '-'  cookie, group                             established ------------> closing ---> gone
 *     responder        half-keyed ---> half-open ------------------->^ |   \                     ^          ^
 *                          |               |                           |    '--> replaced ------'          |
 *     a successor, born of a rekey  -------|-------------------------->'             |                     |
 *                          |               |                       peer deleted      v                     |
 *                          '---------------'-- refused ---------------------> lingering -------------------'
 */
import { EXCHANGE } from '#ikev2/numbers'

export type IkeState =
  /** IKE_SESSION_RESUME is out. */
  | 'resuming'
  /** IKE_SA_INIT is out. */
  | 'initiating'
  /** IKE_INTERMEDIATE is out. */
  | 'exchanging'
  /** IKE_AUTH is out. */
  | 'authenticating'
  /** IKE_SA_INIT is answered, and an additional key exchange agreed: IKE_INTERMEDIATE is due. */
  | 'half-keyed'
  /** All keys are there, but nobody is authenticated: IKE_AUTH is due. */
  | 'half-open'
  | 'established'
  /** Another took its place, and its DELETE is awaited. */
  | 'replaced'
  /** Our DELETE is out. */
  | 'closing'
  /** Over for its owner; stays a moment to repeat the last answer, should it have been lost. */
  | 'lingering'
  | 'gone'

export type IkeStep =
  | 'ticket refused'
  | 'restart'
  | 'init answered'
  | 'more keys'
  | 'keys complete'
  | 'authenticated'
  | 'refused'
  | 'replace'
  | 'close'
  | 'ended by peer'
  | 'finish'

export const TRANSITIONS: Readonly<Record<IkeState, Partial<Record<IkeStep, IkeState>>>> = {
  resuming: {
    restart: 'resuming',
    'init answered': 'authenticating',
    'ticket refused': 'initiating',
    finish: 'gone',
  },
  initiating: {
    restart: 'initiating',
    'init answered': 'authenticating',
    'more keys': 'exchanging',
    finish: 'gone',
  },
  exchanging: { 'keys complete': 'authenticating', finish: 'gone' },
  authenticating: { authenticated: 'established', finish: 'gone' },
  'half-keyed': { 'keys complete': 'half-open', refused: 'lingering', finish: 'gone' },
  'half-open': { authenticated: 'established', refused: 'lingering', finish: 'gone' },
  established: { replace: 'replaced', close: 'closing', 'ended by peer': 'lingering', finish: 'gone' },
  replaced: { close: 'closing', 'ended by peer': 'lingering', finish: 'gone' },
  closing: { 'ended by peer': 'lingering', finish: 'gone' },
  lingering: { finish: 'gone' },
  gone: {},
}

/** The answer that is awaited comes unprotected: whoever sees the request can make one up. */
export const isUnprotected = (state: IkeState): boolean => state === 'initiating' || state === 'resuming'

/** @throws Error when the table has no such row: a defect, not a peer's doing. */
export function next(state: IkeState, step: IkeStep): IkeState {
  const following = TRANSITIONS[state][step]
  if (following === undefined) throw new Error(`an IKE SA that is ${state} cannot take the step "${step}"`)
  return following
}

const { number: X } = EXCHANGE

/** Which exchanges the peer may begin. */
export const REQUESTS: Readonly<Record<IkeState, readonly number[]>> = {
  resuming: [],
  initiating: [],
  exchanging: [],
  authenticating: [],
  'half-keyed': [X.IKE_INTERMEDIATE],
  'half-open': [X.IKE_AUTH],
  established: [X.CREATE_CHILD_SA, X.IKE_FOLLOWUP_KE, X.INFORMATIONAL],
  replaced: [X.CREATE_CHILD_SA, X.IKE_FOLLOWUP_KE, X.INFORMATIONAL],
  closing: [X.CREATE_CHILD_SA, X.IKE_FOLLOWUP_KE, X.INFORMATIONAL],
  lingering: [X.INFORMATIONAL],
  gone: [],
}

/** May the peer begin this exchange now? */
export const mayRequest = (state: IkeState, exchange: number): boolean => REQUESTS[state].includes(exchange)
