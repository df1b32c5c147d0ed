/**
 * Payloads as values (RFC 7296 sections 3.2 to 3.16) and their bytes, both ways.
 *
 *     +---------------+-+-------------+-------------------------------+
 *     | next payload  |C|  reserved   |        payload length         |
 *     +---------------+-+-------------+-------------------------------+
 *
 * Decoding checks form only; what a payload means is the business of an exchange. Byte strings in a decoded
 * payload are views of the message. Reserved fields are ignored on receipt and zero on sending.
 */
import type { IkeId } from '#ikev2/events'
import { decodeProposals, encodeProposals, type Proposal } from '#ikev2/message/proposal'
import { CP_ATTRIBUTE, PAYLOAD, PROTOCOL, TS_TYPE } from '#ikev2/numbers'
import { Reader, Writer } from '#wire/cursor'

export type Payload =
  | { readonly kind: 'SA'; readonly proposals: readonly Proposal[] }
  | { readonly kind: 'KE'; readonly group: number; readonly data: Uint8Array }
  | { readonly kind: 'IDi' | 'IDr'; readonly id: IkeId }
  | { readonly kind: 'CERT' | 'CERTREQ'; readonly encoding: number; readonly data: Uint8Array }
  | { readonly kind: 'AUTH'; readonly method: number; readonly data: Uint8Array }
  | { readonly kind: 'Nonce' | 'Vendor' | 'EAP' | 'PS'; readonly data: Uint8Array }
  | NotifyPayload
  | { readonly kind: 'Delete'; readonly protocol: number; readonly spis: readonly Uint8Array[] }
  | { readonly kind: 'TSi' | 'TSr'; readonly selectors: readonly WireSelector[] }
  | { readonly kind: 'CP'; readonly type: number; readonly attributes: readonly CpAttribute[] }
  /** SK or SKF: opaque here. `inner` is the type of the first payload inside. */
  | { readonly kind: 'SK' | 'SKF'; readonly inner: number; readonly data: Uint8Array }
  | { readonly kind: 'Unknown'; readonly type: number; readonly critical: boolean; readonly data: Uint8Array }

export interface NotifyPayload {
  readonly kind: 'Notify'
  readonly protocol: number
  readonly spi: Uint8Array
  readonly type: number
  readonly data: Uint8Array
}

/** `start` and `end` are 4 octets (IPv4) or 16 (IPv6). Other selector types keep their bytes. */
export type WireSelector =
  | {
      readonly kind: 'range'
      readonly protocol: number
      readonly startPort: number
      readonly endPort: number
      readonly start: Uint8Array
      readonly end: Uint8Array
    }
  | { readonly kind: 'other'; readonly type: number; readonly protocol: number; readonly data: Uint8Array }

export interface CpAttribute {
  readonly type: number
  readonly data: Uint8Array
}

export const GENERIC_HEADER_LENGTH = 4
const CRITICAL = 0x80

/** Implementation constant: no message of ours or of a sane peer comes near it. */
export const MAX_PAYLOADS = 64

/**
 * A chain of payloads that begins with type `first` and fills `bytes`. SK and SKF end the chain
 * (RFC 7296 section 3.14): what their "next payload" names is inside.
 * @throws DecodeError
 */
export function decodePayloads(first: number, bytes: Uint8Array, path: string): Payload[] {
  const reader = new Reader(bytes, path)
  const payloads: Payload[] = []
  for (let type = first; type !== PAYLOAD.number.NONE; ) {
    if (payloads.length === MAX_PAYLOADS) reader.fail(`more than ${MAX_PAYLOADS} payloads`)
    const next = reader.u8()
    const critical = (reader.u8() & CRITICAL) !== 0
    const length = reader.u16()
    if (length < GENERIC_HEADER_LENGTH) reader.fail(`${PAYLOAD.nameOf(type)} of ${length} octets`)
    const body = reader.sub(length - GENERIC_HEADER_LENGTH, PAYLOAD.nameOf(type))
    if (type === PAYLOAD.number.SK || type === PAYLOAD.number.SKF) {
      payloads.push({ kind: type === PAYLOAD.number.SK ? 'SK' : 'SKF', inner: next, data: body.rest() })
      break
    }
    const decode = DECODERS.get(type)
    payloads.push(decode?.(body) ?? { kind: 'Unknown', type, critical, data: body.rest() })
    body.end()
    type = next
  }
  reader.end()
  return payloads
}

/** The chain of payloads; the type of the first goes into what stands before it. */
export function encodePayloads(payloads: readonly Payload[]): Uint8Array {
  const writer = new Writer(512)
  payloads.forEach((payload, index) => {
    const start = writer.length
    const following = payloads[index + 1]
    const next = isOpaque(payload) ? payload.inner : following === undefined ? 0 : typeOf(following)
    writer
      .u8(next)
      .u8(payload.kind === 'Unknown' && payload.critical ? CRITICAL : 0)
      .u16(0)
    encodeBody(writer, payload)
    writer.patch16(start + 2, writer.length - start)
  })
  return writer.finish()
}

export const typeOf = (payload: Payload): number =>
  payload.kind === 'Unknown' ? payload.type : PAYLOAD.number[payload.kind]

export const firstType = (payloads: readonly Payload[]): number =>
  payloads[0] === undefined ? PAYLOAD.number.NONE : typeOf(payloads[0])

const NOTHING = new Uint8Array(0)

/** A notify about the IKE SA as a whole. */
export const notify = (type: number, data: Uint8Array = NOTHING): NotifyPayload => ({
  kind: 'Notify',
  protocol: PROTOCOL.number.NONE,
  spi: NOTHING,
  type,
  data,
})

/** The ID payload without its generic header: what AUTH covers (RFC 7296 section 2.15). */
export function encodeId(id: IkeId): Uint8Array {
  return new Writer(4 + id.data.length).u8(id.type).zeros(3).bytes(id.data).finish()
}

// ---------------------------------------------------------------------------------------------- decoding

const { number: TYPE } = PAYLOAD

const DECODERS: ReadonlyMap<number, (body: Reader) => Payload> = new Map([
  [TYPE.SA, (body: Reader): Payload => ({ kind: 'SA', proposals: decodeProposals(body) })],
  [TYPE.KE, decodeKe],
  [TYPE.IDi, (body): Payload => ({ kind: 'IDi', id: decodeId(body) })],
  [TYPE.IDr, (body): Payload => ({ kind: 'IDr', id: decodeId(body) })],
  [TYPE.CERT, (body): Payload => ({ kind: 'CERT', encoding: body.u8(), data: body.rest() })],
  [TYPE.CERTREQ, (body): Payload => ({ kind: 'CERTREQ', encoding: body.u8(), data: body.rest() })],
  [TYPE.AUTH, decodeAuth],
  [TYPE.Nonce, (body): Payload => ({ kind: 'Nonce', data: body.rest() })],
  [TYPE.Notify, decodeNotify],
  [TYPE.Delete, decodeDelete],
  [TYPE.Vendor, (body): Payload => ({ kind: 'Vendor', data: body.rest() })],
  [TYPE.TSi, (body): Payload => ({ kind: 'TSi', selectors: decodeSelectors(body) })],
  [TYPE.TSr, (body): Payload => ({ kind: 'TSr', selectors: decodeSelectors(body) })],
  [TYPE.CP, decodeCp],
  [TYPE.EAP, (body): Payload => ({ kind: 'EAP', data: body.rest() })],
  [TYPE.PS, (body): Payload => ({ kind: 'PS', data: body.rest() })],
])

function decodeKe(body: Reader): Payload {
  const group = body.u16()
  body.skip(2)
  return { kind: 'KE', group, data: body.rest() }
}

function decodeId(body: Reader): IkeId {
  const type = body.u8()
  body.skip(3)
  return { type, data: body.rest() }
}

function decodeAuth(body: Reader): Payload {
  const method = body.u8()
  body.skip(3)
  return { kind: 'AUTH', method, data: body.rest() }
}

function decodeNotify(body: Reader): Payload {
  const protocol = body.u8()
  const spiSize = body.u8()
  const type = body.u16()
  return { kind: 'Notify', protocol, spi: body.bytes(spiSize), type, data: body.rest() }
}

function decodeDelete(body: Reader): Payload {
  const protocol = body.u8()
  const spiSize = body.u8()
  const count = body.u16()
  // RFC 7296 section 3.11: an IKE SA is named by the header, so it has no SPI here.
  if (protocol === PROTOCOL.number.IKE && (spiSize !== 0 || count !== 0)) body.fail('an IKE SA with SPIs')
  if (protocol !== PROTOCOL.number.IKE && spiSize !== 4) body.fail(`SPIs of ${spiSize} octets`)
  if (count * spiSize !== body.remaining) body.fail(`${count} SPIs in ${body.remaining} octets`)
  return { kind: 'Delete', protocol, spis: Array.from({ length: count }, () => body.bytes(spiSize)) }
}

/** RFC 7296 section 3.13. */
function decodeSelectors(body: Reader): WireSelector[] {
  const count = body.u8()
  body.skip(3)
  if (count === 0) body.fail('no selectors')
  return Array.from({ length: count }, (_, index) => {
    const type = body.u8()
    const protocol = body.u8()
    const length = body.u16()
    return decodeSelector(body.sub(length - 4, `selector ${index}`), type, protocol)
  })
}

function decodeSelector(selector: Reader, type: number, protocol: number): WireSelector {
  const size = ADDRESS_SIZE.get(type)
  if (size === undefined) return { kind: 'other', type, protocol, data: selector.rest() }
  const startPort = selector.u16()
  const endPort = selector.u16()
  const start = selector.bytes(size)
  const end = selector.bytes(size)
  selector.end()
  if (compare(start, end) > 0) selector.fail('starts behind its end')
  // RFC 7296 section 3.13.1: 65535 to 0 means OPAQUE, and is the one range that may run backwards.
  if (startPort > endPort && !(startPort === 65535 && endPort === 0)) selector.fail('ports run backwards')
  return { kind: 'range', protocol, startPort, endPort, start, end }
}

const ADDRESS_SIZE: ReadonlyMap<number, number> = new Map([
  [TS_TYPE.number.IPV4_ADDR_RANGE, 4],
  [TS_TYPE.number.IPV6_ADDR_RANGE, 16],
])

function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
  return 0
}

function decodeCp(body: Reader): Payload {
  const type = body.u8()
  body.skip(3)
  const attributes: CpAttribute[] = []
  while (body.remaining > 0) {
    // The high bit is reserved (section 3.15.1).
    const attribute = body.u16() & 0x7fff
    const length = body.u16()
    const whole = CP_LENGTH.get(attribute)
    if (whole !== undefined && length !== 0 && length !== whole)
      body.fail(`${CP_ATTRIBUTE.nameOf(attribute)} of ${length} octets`)
    attributes.push({ type: attribute, data: body.bytes(length) })
  }
  return { kind: 'CP', type, attributes }
}

/** Section 3.15.1: an IPv6 address comes with the length of its prefix. Without a value they are asked for. */
const CP_LENGTH: ReadonlyMap<number, number> = new Map([
  [CP_ATTRIBUTE.number.INTERNAL_IP4_ADDRESS, 4],
  [CP_ATTRIBUTE.number.INTERNAL_IP4_NETMASK, 4],
  [CP_ATTRIBUTE.number.INTERNAL_IP6_ADDRESS, 17],
])

// ---------------------------------------------------------------------------------------------- encoding

type Opaque = Extract<Payload, { kind: 'SK' | 'SKF' }>

const isOpaque = (payload: Payload): payload is Opaque => payload.kind === 'SK' || payload.kind === 'SKF'

function encodeBody(writer: Writer, payload: Payload): void {
  switch (payload.kind) {
    case 'SA':
      return encodeProposals(writer, payload.proposals)
    case 'KE':
      writer.u16(payload.group).zeros(2).bytes(payload.data)
      return
    case 'IDi':
    case 'IDr':
      writer.bytes(encodeId(payload.id))
      return
    case 'CERT':
    case 'CERTREQ':
      writer.u8(payload.encoding).bytes(payload.data)
      return
    case 'AUTH':
      writer.u8(payload.method).zeros(3).bytes(payload.data)
      return
    case 'Notify':
      writer.u8(payload.protocol).u8(payload.spi.length).u16(payload.type)
      writer.bytes(payload.spi).bytes(payload.data)
      return
    case 'Delete':
      writer.u8(payload.protocol).u8(payload.protocol === PROTOCOL.number.IKE ? 0 : 4)
      writer.u16(payload.spis.length)
      for (const spi of payload.spis) writer.bytes(spi)
      return
    case 'TSi':
    case 'TSr':
      writer.u8(payload.selectors.length).zeros(3)
      for (const selector of payload.selectors) encodeSelector(writer, selector)
      return
    case 'CP':
      writer.u8(payload.type).zeros(3)
      for (const { type, data } of payload.attributes) writer.u16(type).u16(data.length).bytes(data)
      return
    case 'Nonce':
    case 'Vendor':
    case 'EAP':
    case 'PS':
    case 'SK':
    case 'SKF':
    case 'Unknown':
      writer.bytes(payload.data)
  }
}

function encodeSelector(writer: Writer, selector: WireSelector): void {
  if (selector.kind === 'other') {
    writer
      .u8(selector.type)
      .u8(selector.protocol)
      .u16(4 + selector.data.length)
      .bytes(selector.data)
    return
  }
  const { number } = TS_TYPE
  const { start, end } = selector
  writer.u8(start.length === 4 ? number.IPV4_ADDR_RANGE : number.IPV6_ADDR_RANGE)
  writer.u8(selector.protocol).u16(8 + start.length + end.length)
  writer.u16(selector.startPort).u16(selector.endPort).bytes(start).bytes(end)
}
