/**
 * What the nodes behind the entry can know of the clients they serve: every IKE message of hops 2 and 3, decrypted
 * with the clients' key logs, and the addresses and ports under which it came.
 *
 *     client 1 --.                  hears all of:   birch      cedar
 *                 >-- alder (entry) ------------>  (hop 2) -> (hop 3)
 *     client 2 --'
 */
import { concat, toHex } from '#base/bytes'
import { contains, type Ip, type UdpPath } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import type { IkeKeys } from '#ikev2/events'
import { FRAGMENT_HEADER_LENGTH, MessageKey } from '#ikev2/message/encrypted'
import { readFragmentOf } from '#ikev2/message/fragment'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, encodePayloads, firstType, type Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { POOL_SPACE, type SimClient } from './overlay.ts'

export interface Heard {
  readonly at: Ip
  readonly path: UdpPath
  readonly bytes: Uint8Array
}

/** One IKE message of a client with the node of a hop, either way. */
export interface Told {
  /** Index of the client. */
  readonly client: number
  readonly hop: number
  /** Exchange, direction and message ID: what the same message of another circuit has, too. */
  readonly title: string
  readonly isRequest: boolean
  readonly spis: string
  /** The ends as the node sees them. */
  readonly path: UdpPath
  /** Of each datagram, as on the wire of the hop. */
  readonly lengths: readonly number[]
  /** The header, and behind it the payloads, in the clear. */
  readonly header: Uint8Array
  readonly payloads: readonly Payload[]
}

/** Everything heard at the nodes of `hops`, the first of which is hop 1, by or from these clients. */
export function tell(
  heard: readonly Heard[],
  clients: readonly SimClient[],
  hops: readonly Ip[],
): readonly Told[] {
  const keys = new Map<string, { readonly client: number; readonly keys: IkeKeys[] }>()
  clients.forEach(({ events }, client) => {
    for (const event of events) {
      if (event.kind !== 'keys') continue
      const spi = toHex(event.keys.spiInitiator)
      const known = keys.get(spi) ?? { client, keys: [] }
      known.keys.push(event.keys)
      keys.set(spi, known)
    }
  })
  const messages = new Map<string, Heard[]>()
  for (const each of heard) {
    const isPrivate =
      contains(POOL_SPACE, each.path.local.address) || contains(POOL_SPACE, each.path.remote.address)
    // The first hop is in the open, and beside ESP on port 4500.
    if (!isPrivate) continue
    const header = decodeHeader(each.bytes)
    if (!keys.has(toHex(header.spiInitiator))) continue
    const { exchange, messageId, response } = header
    const name = [toHex(header.spiInitiator), exchange, messageId, response].join()
    messages.set(name, [...(messages.get(name) ?? []), each])
  }
  return [...messages.values()].map((datagrams) => {
    const [{ path: heardOn, bytes }] = datagrams as [Heard]
    const header = decodeHeader(bytes)
    const { client, keys: candidates } = keys.get(toHex(header.spiInitiator))!
    const isRequest = !header.response
    const path = isRequest ? heardOn : { local: heardOn.remote, remote: heardOn.local }
    return {
      client,
      hop: hops.indexOf(path.local.address) + 1,
      title: `${EXCHANGE.nameOf(header.exchange)} ${isRequest ? 'request' : 'response'} ${header.messageId}`,
      isRequest,
      spis: toHex(header.spiInitiator) + toHex(header.spiResponder),
      path,
      lengths: datagrams.map((each) => each.bytes.length),
      header: bytes.slice(0, HEADER_LENGTH),
      payloads: open(
        datagrams.map((each) => each.bytes),
        candidates,
      ),
    }
  })
}

/** The payloads of a message, whole or in pieces, by the first of the keys that fit. */
function open(datagrams: readonly Uint8Array[], candidates: readonly IkeKeys[]): Payload[] {
  const pieces = datagrams.map((bytes) => {
    const { firstPayload, fromInitiator } = decodeHeader(bytes)
    const outer = decodePayloads(firstPayload, bytes.subarray(HEADER_LENGTH), 'outer')
    const sk = outer.at(-1)
    if (sk?.kind !== 'SK' && sk?.kind !== 'SKF')
      return { clear: outer, number: 1, first: 0, plaintext: bytes }
    const fragment = sk.kind === 'SKF' ? readFragmentOf(sk.data) : undefined
    const length = sk.data.length - (fragment === undefined ? 0 : FRAGMENT_HEADER_LENGTH)
    for (const { cipher, skEi, skEr } of candidates) {
      const plaintext = new MessageKey(nodeCrypto, cipher, fromInitiator ? skEi : skEr).open(bytes, length)
      if (plaintext !== undefined) return { number: fragment?.number ?? 1, first: sk.inner, plaintext }
    }
    throw new Error('no key fits')
  })
  pieces.sort((a, b) => a.number - b.number)
  const [first] = pieces
  return (
    first!.clear ?? decodePayloads(first!.first, concat(...pieces.map(({ plaintext }) => plaintext)), 'inner')
  )
}

/** Header and payloads as one string of octets. */
export const octetsOf = ({ header, payloads }: Told): Uint8Array => concat(header, encodePayloads(payloads))

/** Which of the octets of `octetsOf` are random or lent: 1, or 0 for those that must be everybody's. */
export function randomOf({ header, payloads, isRequest }: Told): Uint8Array {
  const flipped = payloads.map((payload) => flip(payload, isRequest))
  if (firstType(flipped) !== firstType(payloads)) throw new Error('flipping changes contents only')
  const [a, b] = [encodePayloads(payloads), encodePayloads(flipped)]
  // IKE SPIs: the first 16 octets.
  return concat(
    header.map((_, i) => (i < 16 ? 1 : 0)),
    a.map((octet, i) => (octet === b[i] ? 0 : 1)),
  )
}

/** The payload with every octet changed that chance or a node chose. */
function flip(payload: Payload, isRequest: boolean): Payload {
  switch (payload.kind) {
    case 'KE':
    case 'Nonce':
    case 'AUTH':
      return { ...payload, data: not(payload.data) }
    case 'SA':
      return { ...payload, proposals: payload.proposals.map((each) => ({ ...each, spi: not(each.spi) })) }
    case 'Delete':
      return { ...payload, spis: payload.spis.map(not) }
    case 'Notify':
      return payload.type === NOTIFY.number.REKEY_SA ? { ...payload, spi: not(payload.spi) } : payload
    case 'CP':
      return { ...payload, attributes: payload.attributes.map((each) => ({ ...each, data: not(each.data) })) }
    case 'TSi':
      // Only the answer names the address that is lent.
      if (isRequest) return payload
      return {
        ...payload,
        selectors: payload.selectors.map((each) =>
          each.kind === 'range' ? { ...each, start: not(each.start), end: not(each.end) } : each,
        ),
      }
    default:
      return payload
  }
}

const not = (octets: Uint8Array): Uint8Array => octets.map((octet) => octet ^ 0xff)
