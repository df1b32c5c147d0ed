/**
 * XFRM messages about Security Associations: NEWSA and UPDSA (one layout), DELSA and GETSA (another), FLUSHSA.
 *
 * `xfrm_usersa_info`, 224 octets:
 *     0 selector   56 destination, 72 SPI, 76 protocol   80 source   96 limits   160 use
 *   192 stats     204 sequence   208 reqid   212 family   214 mode   215 replay window   216 flags
 */

import { utf8 } from '#base/bytes'
import type { Ip } from '#base/ip'
import type { Attribute } from '#wire/netlink/attributes'
import {
  attribute,
  attributeU32,
  decodeAttributes,
  encodePayload,
  readText,
  readU32,
} from '#wire/netlink/attributes'
import { LITTLE_ENDIAN, viewOf } from '#wire/netlink/message'
import type { XfrmLimits, XfrmMark, XfrmSelector, XfrmUse } from '#wire/netlink/xfrm'
import {
  AF_INET,
  IPPROTO_ESP,
  markAttribute,
  readIp,
  readLimits,
  readMark,
  readSelector,
  readUse,
  writeIp,
  writeLimits,
  writeSelector,
  writeUse,
  XFRMA,
} from '#wire/netlink/xfrm'

export interface XfrmSa {
  readonly source: Ip
  readonly destination: Ip
  readonly spi: number
  readonly protocol: number
  readonly selector: XfrmSelector
  readonly limits: XfrmLimits
  readonly use: XfrmUse
  readonly stats: XfrmSaStats
  /** Ties the SA to an ACQUIRE; 0 otherwise. */
  readonly sequence: number
  readonly reqid: number
  readonly mode: number
  /** The old 8-bit field, at most 32 packets; 0 when `replay` says it. */
  readonly replayWindow: number
  readonly flags: number
  readonly aead?: XfrmAead
  readonly replay?: XfrmReplay
  readonly encapsulation?: XfrmEncapsulation
  readonly mark?: XfrmMark
  readonly ifId?: number
  readonly extraFlags?: number
}

export interface XfrmSaStats {
  /** Below the anti-replay window. */
  readonly belowWindow: number
  readonly replayed: number
  readonly integrityFailed: number
}

export interface XfrmAead {
  /** Name of the kernel's crypto API, `rfc4106(gcm(aes))`. */
  readonly name: string
  /** Key and salt. When decoded, a view into the message. */
  readonly key: Uint8Array
  readonly icvBits: number
}

/** `xfrm_replay_state_esn`: counters of 64 bits, and a window of any size. */
export interface XfrmReplay {
  readonly window: number
  readonly sent: bigint
  readonly received: bigint
  /** One bit per packet of the window, ceil(window / 32) words. */
  readonly bitmap: readonly number[]
}

export interface XfrmEncapsulation {
  readonly type: number
  readonly sourcePort: number
  readonly destinationPort: number
}

export const NO_STATS: XfrmSaStats = { belowWindow: 0, replayed: 0, integrityFailed: 0 }

export const freshReplay = (window: number): XfrmReplay => ({
  window,
  sent: 0n,
  received: 0n,
  bitmap: new Array<number>(Math.ceil(window / 32)).fill(0),
})

const SA_INFO_LENGTH = 224
const SA_ID_LENGTH = 24
const AEAD_NAME_LENGTH = 64
const REPLAY_HEADER_LENGTH = 24

/** Payload of NEWSA or UPDSA. */
export function encodeSa(sa: XfrmSa): Uint8Array {
  const fixed = new Uint8Array(SA_INFO_LENGTH)
  const view = viewOf(fixed)
  writeSelector(view, 0, sa.selector)
  writeIp(view, 56, sa.destination)
  view.setUint32(72, sa.spi)
  view.setUint8(76, sa.protocol)
  writeIp(view, 80, sa.source)
  writeLimits(view, 96, sa.limits)
  writeUse(view, 160, sa.use)
  view.setUint32(192, sa.stats.belowWindow, LITTLE_ENDIAN)
  view.setUint32(196, sa.stats.replayed, LITTLE_ENDIAN)
  view.setUint32(200, sa.stats.integrityFailed, LITTLE_ENDIAN)
  view.setUint32(204, sa.sequence, LITTLE_ENDIAN)
  view.setUint32(208, sa.reqid, LITTLE_ENDIAN)
  view.setUint16(212, AF_INET, LITTLE_ENDIAN)
  view.setUint8(214, sa.mode)
  view.setUint8(215, sa.replayWindow)
  view.setUint8(216, sa.flags)
  const attributes: Attribute[] = []
  if (sa.aead) attributes.push(encodeAead(sa.aead))
  if (sa.replay) attributes.push(encodeReplay(sa.replay))
  if (sa.encapsulation) attributes.push(encodeEncapsulation(sa.encapsulation))
  if (sa.mark) attributes.push(markAttribute(sa.mark))
  if (sa.ifId !== undefined) attributes.push(attributeU32(XFRMA.ifId, sa.ifId))
  if (sa.extraFlags !== undefined) attributes.push(attributeU32(XFRMA.extraFlags, sa.extraFlags))
  return encodePayload(fixed, attributes)
}

/** Undefined when malformed, or not IPv4. */
export function decodeSa(payload: Uint8Array): XfrmSa | undefined {
  if (payload.length < SA_INFO_LENGTH) return undefined
  const view = viewOf(payload)
  const selector = readSelector(view, 0, true)
  const attributes = decodeAttributes(payload, SA_INFO_LENGTH)
  if (!selector || !attributes || view.getUint16(212, LITTLE_ENDIAN) !== AF_INET) return undefined
  const aead = decodeAead(attributes.get(XFRMA.aead))
  const replay = decodeReplay(attributes.get(XFRMA.replayEsn))
  const encapsulation = decodeEncapsulation(attributes.get(XFRMA.encapsulation))
  const mark = readMark(attributes.get(XFRMA.mark))
  const ifId = readU32(attributes.get(XFRMA.ifId))
  const extraFlags = readU32(attributes.get(XFRMA.extraFlags))
  return {
    source: readIp(view, 80),
    destination: readIp(view, 56),
    spi: view.getUint32(72),
    protocol: view.getUint8(76),
    selector,
    limits: readLimits(view, 96),
    use: readUse(view, 160),
    stats: {
      belowWindow: view.getUint32(192, LITTLE_ENDIAN),
      replayed: view.getUint32(196, LITTLE_ENDIAN),
      integrityFailed: view.getUint32(200, LITTLE_ENDIAN),
    },
    sequence: view.getUint32(204, LITTLE_ENDIAN),
    reqid: view.getUint32(208, LITTLE_ENDIAN),
    mode: view.getUint8(214),
    replayWindow: view.getUint8(215),
    flags: view.getUint8(216),
    ...(aead && { aead }),
    ...(replay && { replay }),
    ...(encapsulation && { encapsulation }),
    ...(mark && { mark }),
    ...(ifId !== undefined && { ifId }),
    ...(extraFlags !== undefined && { extraFlags }),
  }
}

/** A limit of an SA was reached. */
export interface XfrmExpiry {
  readonly sa: XfrmSa
  /** The SA is gone; else it goes on. */
  readonly isHard: boolean
}

/** `xfrm_user_expire`: 0 SA, 224 hard u8, of an EXPIRE. Undefined when malformed, or not IPv4. */
export function decodeExpire(payload: Uint8Array): XfrmExpiry | undefined {
  if (payload.length <= SA_INFO_LENGTH) return undefined
  const sa = decodeSa(payload.subarray(0, SA_INFO_LENGTH))
  return sa && { sa, isHard: payload[SA_INFO_LENGTH] !== 0 }
}

/** Names one ESP SA: payload of DELSA, or of GETSA without DUMP. */
export interface XfrmSaId {
  readonly destination: Ip
  readonly spi: number
}

/** `xfrm_usersa_id`: 0 destination, 16 SPI, 20 family, 22 protocol. */
export function encodeSaId(id: XfrmSaId): Uint8Array {
  const fixed = new Uint8Array(SA_ID_LENGTH)
  const view = viewOf(fixed)
  writeIp(view, 0, id.destination)
  view.setUint32(16, id.spi)
  view.setUint16(20, AF_INET, LITTLE_ENDIAN)
  view.setUint8(22, IPPROTO_ESP)
  return fixed
}

/** Undefined when malformed, not IPv4, or not ESP. */
export function decodeSaId(payload: Uint8Array): XfrmSaId | undefined {
  if (payload.length < SA_ID_LENGTH) return undefined
  const view = viewOf(payload)
  if (view.getUint16(20, LITTLE_ENDIAN) !== AF_INET || view.getUint8(22) !== IPPROTO_ESP) return undefined
  return { destination: readIp(view, 0), spi: view.getUint32(16) }
}

/** GETSA with DUMP takes no struct. */
export const encodeSaDump = (): Uint8Array => new Uint8Array(0)

/** FLUSHSA: every ESP SA of the network namespace, whoever made it. */
export const encodeSaFlush = (): Uint8Array => Uint8Array.of(IPPROTO_ESP)

/** `xfrm_algo_aead`: name[64], key bits u32, ICV bits u32, key. */
function encodeAead({ name, key, icvBits }: XfrmAead): Attribute {
  const payload = new Uint8Array(AEAD_NAME_LENGTH + 8 + key.length)
  payload.set(utf8(name).subarray(0, AEAD_NAME_LENGTH - 1))
  const view = viewOf(payload)
  view.setUint32(AEAD_NAME_LENGTH, 8 * key.length, LITTLE_ENDIAN)
  view.setUint32(AEAD_NAME_LENGTH + 4, icvBits, LITTLE_ENDIAN)
  payload.set(key, AEAD_NAME_LENGTH + 8)
  return attribute(XFRMA.aead, payload)
}

function decodeAead(payload: Uint8Array | undefined): XfrmAead | undefined {
  if (payload === undefined || payload.length < AEAD_NAME_LENGTH + 8) return undefined
  const view = viewOf(payload)
  const keyLength = Math.ceil(view.getUint32(AEAD_NAME_LENGTH, LITTLE_ENDIAN) / 8)
  if (payload.length < AEAD_NAME_LENGTH + 8 + keyLength) return undefined
  return {
    name: readText(payload.subarray(0, AEAD_NAME_LENGTH))!,
    key: payload.subarray(AEAD_NAME_LENGTH + 8, AEAD_NAME_LENGTH + 8 + keyLength),
    icvBits: view.getUint32(AEAD_NAME_LENGTH + 4, LITTLE_ENDIAN),
  }
}

/** `xfrm_replay_state_esn`: words, oseq, seq, oseq_hi, seq_hi, window, bitmap: all u32. */
function encodeReplay({ window, sent, received, bitmap }: XfrmReplay): Attribute {
  const payload = new Uint8Array(REPLAY_HEADER_LENGTH + 4 * bitmap.length)
  const view = viewOf(payload)
  const words = [
    bitmap.length,
    Number(sent & 0xffff_ffffn),
    Number(received & 0xffff_ffffn),
    Number(sent >> 32n),
    Number(received >> 32n),
    window,
    ...bitmap,
  ]
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word, LITTLE_ENDIAN)
  return attribute(XFRMA.replayEsn, payload)
}

function decodeReplay(payload: Uint8Array | undefined): XfrmReplay | undefined {
  if (payload === undefined || payload.length < REPLAY_HEADER_LENGTH) return undefined
  const view = viewOf(payload)
  const word = (i: number): number => view.getUint32(4 * i, LITTLE_ENDIAN)
  const long = (high: number, low: number): bigint => (BigInt(word(high)) << 32n) | BigInt(word(low))
  if (payload.length < REPLAY_HEADER_LENGTH + 4 * word(0)) return undefined
  return {
    window: word(5),
    sent: long(3, 1),
    received: long(4, 2),
    bitmap: Array.from({ length: word(0) }, (_, i) => word(6 + i)),
  }
}

/** `xfrm_encap_tmpl`: type u16, ports be16, padding, original address (zero). */
function encodeEncapsulation({ type, sourcePort, destinationPort }: XfrmEncapsulation): Attribute {
  const payload = new Uint8Array(24)
  const view = viewOf(payload)
  view.setUint16(0, type, LITTLE_ENDIAN)
  view.setUint16(2, sourcePort)
  view.setUint16(4, destinationPort)
  return attribute(XFRMA.encapsulation, payload)
}

function decodeEncapsulation(payload: Uint8Array | undefined): XfrmEncapsulation | undefined {
  if (payload === undefined || payload.length < 24) return undefined
  const view = viewOf(payload)
  return {
    type: view.getUint16(0, LITTLE_ENDIAN),
    sourcePort: view.getUint16(2),
    destinationPort: view.getUint16(4),
  }
}
