/**
 * Every name the engine counts under, and what it means: the one table behind `IkeEngine.counters()`, `refused` events,
 * the metrics of a daemon and docs/ikev2.md. A name that is not here does not compile.
 */

/** Something of a peer was refused or ignored. It cost this peer its message or its IKE SA, and nobody else anything. */
export const REFUSALS = {
  // Before there is an IKE SA.
  version: 'the major version is not 2; a later one is answered INVALID_MAJOR_VERSION, at a limited rate',
  'zero-spi': 'an SPI of zeros where there must be one',
  'unknown-spi': 'a message for no IKE SA of ours',
  'foreign-spi': 'our SPI, and not that of the peer beside it',
  'foreign-path': 'from an address that is not the peer’s, and may not become it',
  'not-a-responder': 'somebody begins an IKE SA with a client',
  'bad-init': 'IKE_SA_INIT or IKE_SESSION_RESUME that begins nothing: an SPI or a message ID too many',
  'cookie-demanded': 'under load: answered with a cookie to bring back',
  'puzzle-demanded': 'under attack: answered with a puzzle to solve (RFC 8019)',
  'puzzle-unsolved': 'under attack: a wrong solution; one in eight gets in all the same',
  'puzzle-reused': 'under attack: a solution that counted already',
  limit: 'there is no room for another IKE SA',
  busy: 'under attack: more answers are being computed than may wait; the peer asks again',
  'not-computed': 'an answer could not be computed, for a reason of our own; the peer asks again',
  'half-open-displaced': 'a half-open IKE SA made room for one of a neighbourhood that has fewer',
  'half-open-expired': 'a half-open IKE SA whose IKE_AUTH never came',
  'late-init': 'IKE_SA_INIT again, and its IKE SA is past that',
  // Whether a message can be believed, and read.
  icv: 'the ICV does not verify',
  fragment: 'a fragment that fits no message, or of one that is too large (RFC 7383)',
  malformed: 'the octets do not follow their format, or a payload is missing or has no place there',
  'critical-payload': 'a payload that is unknown and marked critical',
  'message-id': 'a request outside of the window',
  'changed-retransmission': 'a message ID that was answered, with other octets',
  'unexpected-response': 'a response to nothing',
  'illegal-exchange': 'a request that has no place in this state',
  // What it asks for.
  'invalid-ke': 'the KE payload is of another group than the one chosen',
  'bad-ke': 'a key exchange that is not the one agreed, or whose value is none',
  'no-proposal': 'nothing offered is acceptable',
  'ts-unacceptable': 'nothing is left of the traffic selectors',
  'bad-lease': 'the peer lent an address that is none, or other traffic than for it',
  'no-address': 'there is no address left to lend',
  'no-cp': 'a client that asks for no address',
  'bad-link': 'an additional key exchange without its link (RFC 9370)',
  'state-not-found': 'an additional key exchange of nothing that is going on (RFC 9370)',
  mobike: 'MOBIKE from a peer with whom it was not agreed',
  cookie2: 'an answer from a new address that is not to our question (RFC 4555)',
  'init-loop': 'the peer asks to begin anew for ever',
  'puzzle-too-hard': 'a puzzle that we leave unsolved',
  'peer-refused': 'the peer answered with an error',
  // Who it is.
  'auth-failed': 'the peer did not prove who it must be',
  'auth-method': 'the peer announces that it takes none of our proofs (RFC 9593)',
  'raw-key': 'the peer shows another key than the one that is pinned (RFC 7670)',
  'ticket-unwanted': 'a ticket from where nobody may resume',
  'ticket-unreadable': 'a ticket that is not ours, or from before our keys',
  'ticket-expired': 'a ticket whose time or traffic is used up',
  'ticket-spent': 'a ticket that was used before',
} as const

/** What went well, and what there is. */
export const TALLIES = {
  datagrams: 'datagrams that arrived',
  'established.full': 'IKE SAs that began with all key exchanges',
  'established.resumed': 'IKE SAs that began with a ticket (RFC 5723)',
  'tickets.issued': 'tickets that were given',
  'resumption.fell-back': 'tickets of ours that were refused, so that everything was done anew',
} as const

/** As they are now. */
export const GAUGES = {
  'sas.all': 'SPIs of IKE SAs',
  'sas.half-open': 'IKE SAs whose peer is not authenticated yet',
  'sas.lingering': 'IKE SAs that are over, and repeat their last answer for a while',
  'spis.inbound': 'SPIs of Child SAs',
  'answers.computing': 'answers that are being computed',
} as const

export type Refusal = keyof typeof REFUSALS
export type Gauge = keyof typeof GAUGES
export type Counter = Refusal | keyof typeof TALLIES
