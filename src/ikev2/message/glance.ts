/**
 * What a responder under load reads of a request that begins an IKE SA before it decides whether to read it at all: the
 * chain of generic headers (RFC 7296 section 3.2), the nonce, and a cookie. Nothing is copied.
 */
import { HEADER_LENGTH } from '#ikev2/message/header'
import { GENERIC_HEADER_LENGTH, MAX_PAYLOADS } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY, PAYLOAD } from '#ikev2/numbers'

/** Views of the message. */
export interface Glance {
  readonly nonce: Uint8Array
  /** RFC 7296 section 2.6: the first payload; anywhere else it is none. */
  readonly cookie: Uint8Array | undefined
}

const { SA, KE, Nonce, Notify, Vendor, PS, NONE } = PAYLOAD.number
/** Protocol, SPI size and type, before SPI and data. */
const NOTIFY_HEADER_LENGTH = 4

/**
 * Undefined: not the ordinary request, and what is to be said about it the decoder knows. `first` is the type of the
 * first payload. Whoever is answered after no more than a glance sent at least what its exchange needs, so the answer
 * is shorter than the request.
 */
export function glanceAt(exchange: number, first: number, message: Uint8Array): Glance | undefined {
  let [hasSa, hasKe] = [false, false]
  let nonce: Uint8Array | undefined
  let cookie: Uint8Array | undefined
  let at = HEADER_LENGTH
  let type = first
  for (let count = 0; type !== NONE; count++) {
    if (count === MAX_PAYLOADS || at + GENERIC_HEADER_LENGTH > message.length) return undefined
    const length = (message[at + 2]! << 8) | message[at + 3]!
    const end = at + length
    if (length < GENERIC_HEADER_LENGTH || end > message.length) return undefined
    const body = at + GENERIC_HEADER_LENGTH
    if (type === Nonce && nonce === undefined) nonce = message.subarray(body, end)
    else if (type === SA && !hasSa) hasSa = true
    else if (type === KE && !hasKe) hasKe = true
    else if (type === Notify) {
      if (count === 0) cookie = cookieIn(message, body, end)
    } else if (type !== Vendor && type !== PS) return undefined
    type = message[at]!
    at = end
  }
  const isFull = exchange === EXCHANGE.number.IKE_SA_INIT
  if (at !== message.length || hasSa !== isFull || hasKe !== isFull) return undefined
  return nonce && { nonce, cookie }
}

function cookieIn(message: Uint8Array, body: number, end: number): Uint8Array | undefined {
  if (body + NOTIFY_HEADER_LENGTH > end) return undefined
  const type = (message[body + 2]! << 8) | message[body + 3]!
  const data = body + NOTIFY_HEADER_LENGTH + message[body + 1]!
  return type === NOTIFY.number.COOKIE && data <= end ? message.subarray(data, end) : undefined
}
