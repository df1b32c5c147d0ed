/**
 * Which payloads make a message: how often each may stand in each message of each exchange. A kind that has no
 * row is not legal there and makes the message malformed; Notify, Vendor and unknown payloads may stand anywhere.
 */
import { malformed, PeerFault } from '#ikev2/fault'
import type { NotifyPayload, Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'

export type PayloadKind = Payload['kind']

export type Count = 'one' | 'at most one' | 'any'
export type Contents = Partial<Record<PayloadKind, Count>>

const { number: X } = EXCHANGE

/** By exchange type. */
export const CONTENTS: Readonly<Record<number, { readonly request: Contents; readonly response: Contents }>> =
  {
    // RFC 7296 section 1.2. A response may be nothing but an error or a COOKIE.
    [X.IKE_SA_INIT]: {
      request: { PS: 'at most one', SA: 'one', KE: 'one', Nonce: 'one' },
      response: { SA: 'at most one', KE: 'at most one', Nonce: 'at most one', CERTREQ: 'any' },
    },
    // RFC 5723 section 4.3.1. A response may be nothing but a COOKIE or a TICKET_NACK.
    [X.IKE_SESSION_RESUME]: { request: { Nonce: 'one' }, response: { Nonce: 'at most one' } },
    // RFC 9370 section 2.2.2: one additional key exchange.
    [X.IKE_INTERMEDIATE]: { request: { KE: 'one' }, response: { KE: 'at most one' } },
    [X.IKE_AUTH]: {
      request: {
        IDi: 'one',
        IDr: 'at most one',
        AUTH: 'at most one',
        CERT: 'any',
        CERTREQ: 'any',
        CP: 'at most one',
        SA: 'one',
        TSi: 'one',
        TSr: 'one',
      },
      response: {
        IDr: 'at most one',
        AUTH: 'at most one',
        CERT: 'any',
        CP: 'at most one',
        SA: 'at most one',
        TSi: 'at most one',
        TSr: 'at most one',
      },
    },
    // Sections 1.3.1 to 1.3.3: an IKE SA rekey has no selectors, a Child SA need not have a KE.
    [X.CREATE_CHILD_SA]: {
      request: {
        SA: 'one',
        Nonce: 'one',
        KE: 'at most one',
        TSi: 'at most one',
        TSr: 'at most one',
        CP: 'at most one',
      },
      response: {
        SA: 'at most one',
        Nonce: 'at most one',
        KE: 'at most one',
        TSi: 'at most one',
        TSr: 'at most one',
      },
    },
    // RFC 9370 section 2.2.4.
    [X.IKE_FOLLOWUP_KE]: { request: { KE: 'one' }, response: { KE: 'at most one' } },
    [X.INFORMATIONAL]: {
      request: { Delete: 'any', CP: 'at most one' },
      response: { Delete: 'any', CP: 'at most one' },
    },
  }

export const ANYWHERE: ReadonlySet<PayloadKind> = new Set(['Notify', 'Vendor', 'Unknown'])

/** @throws PeerFault when the message is not made of the payloads it must have. */
export function checkContents(exchange: number, response: boolean, payloads: readonly Payload[]): void {
  for (const payload of payloads)
    if (payload.kind === 'Unknown' && payload.critical) throw critical(payload.type)
  const contents = CONTENTS[exchange]?.[response ? 'response' : 'request'] ?? {}
  for (const { kind } of payloads)
    if (!ANYWHERE.has(kind) && contents[kind] === undefined)
      throw malformed(`${kind} has no place in ${EXCHANGE.nameOf(exchange)}`)
  for (const key in contents) {
    const kind = key as PayloadKind
    const allowed = contents[kind]
    let found = 0
    for (const payload of payloads) if (payload.kind === kind) found++
    if ((found > 1 && allowed !== 'any') || (found === 0 && allowed === 'one'))
      throw malformed(`${EXCHANGE.nameOf(exchange)} has ${found} ${kind} payloads`)
  }
}

/** The payload of a kind that stands at most once. */
export function find<K extends PayloadKind>(payloads: readonly Payload[], kind: K): Of<K> | undefined {
  return payloads.find((payload): payload is Of<K> => payload.kind === kind)
}

/** @throws PeerFault when it is missing. */
export function need<K extends PayloadKind>(payloads: readonly Payload[], kind: K): Of<K> {
  const payload = find(payloads, kind)
  if (payload === undefined) throw malformed(`${kind} is missing`)
  return payload
}

export const notifies = (payloads: readonly Payload[], type: number): NotifyPayload[] =>
  payloads.filter((payload): payload is NotifyPayload => payload.kind === 'Notify' && payload.type === type)

/** The first error among the notifies. */
export const errorNotify = (payloads: readonly Payload[]): NotifyPayload | undefined =>
  payloads.find(
    (payload): payload is NotifyPayload => payload.kind === 'Notify' && payload.type < FIRST_STATUS,
  )

/** The member of the union that a kind names, also where several kinds share a shape. */
type Of<K extends PayloadKind> = Select<Payload, K>
type Select<P extends Payload, K> = P extends { readonly kind: infer Q } ? (K extends Q ? P : never) : never

/** RFC 7296 section 3.10.1: types below are errors. */
const FIRST_STATUS = NOTIFY.number.INITIAL_CONTACT

/** RFC 7296 section 2.5: the notify carries the one octet of payload type. */
function critical(type: number): PeerFault {
  return new PeerFault('IPP_IKE_PROTOCOL', 'critical-payload', `payload type ${type} is marked critical`, {
    type: NOTIFY.number.UNSUPPORTED_CRITICAL_PAYLOAD,
    data: Uint8Array.of(type),
  })
}
