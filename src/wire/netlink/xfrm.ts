/**
 * XFRM netlink (linux/xfrm.h): numbers and the structs that SAs and policies share. The messages themselves
 * are in `xfrm-sa.ts` and `xfrm-policy.ts`. Layouts are those of 64-bit hosts.
 *
 * Addresses, SPIs and ports are in network byte order, everything else in the order of the host. Only IPv4
 * is spoken: decoders answer undefined for other families, whose entries are never ours.
 */

import type { Ip, Prefix } from '#base/ip'
import { bytesToIp, ipToUint32 } from '#base/ip'
import type { Attribute } from '#wire/netlink/attributes'
import { attribute, decodeAttributes, encodePayload, readU32 } from '#wire/netlink/attributes'
import { LITTLE_ENDIAN, viewOf } from '#wire/netlink/message'

export const XFRM_MSG = {
  newSa: 0x10,
  deleteSa: 0x11,
  getSa: 0x12,
  newPolicy: 0x13,
  deletePolicy: 0x14,
  getPolicy: 0x15,
  expire: 0x18,
  updatePolicy: 0x19,
  updateSa: 0x1a,
  flushSa: 0x1c,
  flushPolicy: 0x1d,
  newSadInfo: 0x22,
  getSadInfo: 0x23,
  newSpdInfo: 0x24,
  getSpdInfo: 0x25,
} as const

export const XFRMA = {
  encapsulation: 4,
  templates: 5,
  aead: 18,
  mark: 21,
  replayEsn: 23,
  extraFlags: 24,
  ifId: 31,
} as const

export const AF_INET = 2
export const IPPROTO_ESP = 50
export const XFRM_MODE_TUNNEL = 1
export const XFRM_DIRECTION = { in: 0, out: 1, fwd: 2 } as const
export const XFRM_ACTION = { allow: 0, block: 1 } as const
export const XFRM_STATE_FLAG = { noEcn: 1, noPmtuDiscovery: 4, esn: 128 } as const
export const XFRM_EXTRA_FLAG = { dontEncapsulateDscp: 1 } as const
/** UDP_ENCAP_ESPINUDP (RFC 3948). */
export const UDP_ENCAP_ESP = 2

export interface XfrmSelector {
  readonly source: Prefix
  readonly destination: Prefix
  /** 0 is any. */
  readonly protocol: number
  /** A mask of 0 is any port. For ICMP the type stands in the source port and the code in the destination port. */
  readonly sourcePort: number
  readonly sourcePortMask: number
  readonly destinationPort: number
  readonly destinationPortMask: number
  /** 0 is any. */
  readonly ifindex: number
  readonly user: number
}

/** Soft and hard limits. Bytes and packets: `UNLIMITED` is none. Seconds: 0 is none. */
export interface XfrmLimits {
  readonly softBytes: bigint
  readonly hardBytes: bigint
  readonly softPackets: bigint
  readonly hardPackets: bigint
  readonly softAddSeconds: bigint
  readonly hardAddSeconds: bigint
  readonly softUseSeconds: bigint
  readonly hardUseSeconds: bigint
}

export interface XfrmUse {
  readonly bytes: bigint
  readonly packets: bigint
  /** Unix seconds; 0 is never. */
  readonly added: bigint
  readonly used: bigint
}

export interface XfrmMark {
  readonly value: number
  readonly mask: number
}

export const UNLIMITED = 0xffff_ffff_ffff_ffffn

export const NO_LIMITS: XfrmLimits = {
  softBytes: UNLIMITED,
  hardBytes: UNLIMITED,
  softPackets: UNLIMITED,
  hardPackets: UNLIMITED,
  softAddSeconds: 0n,
  hardAddSeconds: 0n,
  softUseSeconds: 0n,
  hardUseSeconds: 0n,
}

export const UNUSED: XfrmUse = { bytes: 0n, packets: 0n, added: 0n, used: 0n }

const EVERYTHING: Prefix = { address: '0.0.0.0' as Ip, length: 0 }
/** Matches every IPv4 packet: also the selector of a tunnel-mode SA. */
export const ANY_XFRM_SELECTOR: XfrmSelector = {
  source: EVERYTHING,
  destination: EVERYTHING,
  protocol: 0,
  sourcePort: 0,
  sourcePortMask: 0,
  destinationPort: 0,
  destinationPortMask: 0,
  ifindex: 0,
  user: 0,
}

export const SELECTOR_LENGTH = 56
export const LIMITS_LENGTH = 64

/** `struct xfrm_selector`, 56 octets. */
export function writeSelector(view: DataView, at: number, selector: XfrmSelector): void {
  writeIp(view, at, selector.destination.address)
  writeIp(view, at + 16, selector.source.address)
  view.setUint16(at + 32, selector.destinationPort)
  view.setUint16(at + 34, selector.destinationPortMask)
  view.setUint16(at + 36, selector.sourcePort)
  view.setUint16(at + 38, selector.sourcePortMask)
  view.setUint16(at + 40, AF_INET, LITTLE_ENDIAN)
  view.setUint8(at + 42, selector.destination.length)
  view.setUint8(at + 43, selector.source.length)
  view.setUint8(at + 44, selector.protocol)
  // Three octets of padding stand between the protocol and the interface.
  view.setInt32(at + 48, selector.ifindex, LITTLE_ENDIAN)
  view.setUint32(at + 52, selector.user, LITTLE_ENDIAN)
}

/** @param orUnspecified whether family 0 passes too: so the kernel shows SAs that are only begun */
export function readSelector(view: DataView, at: number, orUnspecified = false): XfrmSelector | undefined {
  const lengths = [view.getUint8(at + 42), view.getUint8(at + 43)] as const
  const family = view.getUint16(at + 40, LITTLE_ENDIAN)
  if (family !== AF_INET && !(orUnspecified && family === 0)) return undefined
  if (lengths[0] > 32 || lengths[1] > 32) return undefined
  return {
    destination: { address: readIp(view, at), length: lengths[0] },
    source: { address: readIp(view, at + 16), length: lengths[1] },
    destinationPort: view.getUint16(at + 32),
    destinationPortMask: view.getUint16(at + 34),
    sourcePort: view.getUint16(at + 36),
    sourcePortMask: view.getUint16(at + 38),
    protocol: view.getUint8(at + 44),
    ifindex: view.getInt32(at + 48, LITTLE_ENDIAN),
    user: view.getUint32(at + 52, LITTLE_ENDIAN),
  }
}

/** `xfrm_address_t`: 16 octets, IPv4 in the first four. The rest is zero already. */
export function writeIp(view: DataView, at: number, address: Ip): void {
  view.setUint32(at, ipToUint32(address))
}

export function readIp(view: DataView, at: number): Ip {
  return bytesToIp(new Uint8Array(view.buffer, view.byteOffset + at, 4))
}

const LIMIT_FIELDS = [
  'softBytes',
  'hardBytes',
  'softPackets',
  'hardPackets',
  'softAddSeconds',
  'hardAddSeconds',
  'softUseSeconds',
  'hardUseSeconds',
] as const

/** `struct xfrm_lifetime_cfg`, 64 octets. */
export function writeLimits(view: DataView, at: number, limits: XfrmLimits): void {
  for (const [i, field] of LIMIT_FIELDS.entries()) view.setBigUint64(at + 8 * i, limits[field], LITTLE_ENDIAN)
}

export function readLimits(view: DataView, at: number): XfrmLimits {
  const limits = { ...NO_LIMITS } as { -readonly [K in keyof XfrmLimits]: bigint }
  for (const [i, field] of LIMIT_FIELDS.entries())
    limits[field] = view.getBigUint64(at + 8 * i, LITTLE_ENDIAN)
  return limits
}

/** `struct xfrm_lifetime_cur`, 32 octets. */
export function writeUse(view: DataView, at: number, use: XfrmUse): void {
  view.setBigUint64(at, use.bytes, LITTLE_ENDIAN)
  view.setBigUint64(at + 8, use.packets, LITTLE_ENDIAN)
  view.setBigUint64(at + 16, use.added, LITTLE_ENDIAN)
  view.setBigUint64(at + 24, use.used, LITTLE_ENDIAN)
}

export function readUse(view: DataView, at: number): XfrmUse {
  return {
    bytes: view.getBigUint64(at, LITTLE_ENDIAN),
    packets: view.getBigUint64(at + 8, LITTLE_ENDIAN),
    added: view.getBigUint64(at + 16, LITTLE_ENDIAN),
    used: view.getBigUint64(at + 24, LITTLE_ENDIAN),
  }
}

export function markAttribute(mark: XfrmMark): Attribute {
  const payload = new Uint8Array(8)
  viewOf(payload).setUint32(0, mark.value, LITTLE_ENDIAN)
  viewOf(payload).setUint32(4, mark.mask, LITTLE_ENDIAN)
  return attribute(XFRMA.mark, payload)
}

export function readMark(payload: Uint8Array | undefined): XfrmMark | undefined {
  if (payload === undefined || payload.length < 8) return undefined
  return { value: readU32(payload)!, mask: readU32(payload.subarray(4))! }
}

/** GETSADINFO and GETSPDINFO: u32 flags, ignored by the kernel. */
export const encodeInfoRequest = (): Uint8Array => Uint8Array.of(255, 255, 255, 255)

/** How many SAs there are (payload of NEWSADINFO). Undefined when malformed. */
export function decodeSadCount(payload: Uint8Array): number | undefined {
  return readU32(decodeAttributes(payload, 4)?.get(1))
}

export interface SpdInfo {
  /** Policies by direction. */
  readonly in: number
  readonly out: number
  readonly fwd: number
  readonly hashThreshold: HashThreshold
}

/**
 * IPv4 policies whose selector has at least so many bits of the local and of the remote prefix are found by a
 * hash, the others by a walk.
 */
export interface HashThreshold {
  readonly local: number
  readonly remote: number
}

/** Payload of NEWSPDINFO as the kernel sends it. Undefined when malformed. */
export function decodeSpdInfo(payload: Uint8Array): SpdInfo | undefined {
  const attributes = decodeAttributes(payload, 4)
  const counts = attributes?.get(1)
  const threshold = attributes?.get(3)
  if (!counts || counts.length < 12 || !threshold || threshold.length < 2) return undefined
  return {
    in: readU32(counts)!,
    out: readU32(counts.subarray(4))!,
    fwd: readU32(counts.subarray(8))!,
    hashThreshold: { local: threshold[0]!, remote: threshold[1]! },
  }
}

/** NEWSPDINFO as a request: sets the threshold of IPv4. */
export function encodeHashThreshold({ local, remote }: HashThreshold): Uint8Array {
  return encodePayload(new Uint8Array(4), [attribute(3, Uint8Array.of(local, remote))])
}
