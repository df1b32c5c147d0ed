/**
 * XFRM messages about policies: NEWPOLICY and UPDPOLICY (one layout), DELPOLICY and GETPOLICY (another).
 *
 * `xfrm_userpolicy_info`, 168 octets:
 *     0 selector   56 limits   120 use   152 priority   156 index   160 direction   161 action   162 flags
 *   163 share     164 padding
 */

import type { Ip } from '#base/ip'
import type { Attribute } from '#wire/netlink/attributes'
import { attribute, attributeU32, decodeAttributes, encodePayload, readU32 } from '#wire/netlink/attributes'
import { LITTLE_ENDIAN, viewOf } from '#wire/netlink/message'
import type { XfrmLimits, XfrmMark, XfrmSelector, XfrmUse } from '#wire/netlink/xfrm'
import {
  AF_INET,
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

export interface XfrmPolicy {
  readonly selector: XfrmSelector
  readonly limits: XfrmLimits
  readonly use: XfrmUse
  /** The lowest number wins. */
  readonly priority: number
  /** Given by the kernel; 0 in requests. */
  readonly index: number
  /** A value of `XFRM_DIRECTION`. */
  readonly direction: number
  /** A value of `XFRM_ACTION`. */
  readonly action: number
  readonly flags: number
  readonly share: number
  /** Innermost first. */
  readonly templates: readonly XfrmTemplate[]
  readonly mark?: XfrmMark
  readonly ifId?: number
}

/** `xfrm_user_tmpl` with every algorithm allowed: 0 id, 24 family, 28 source, 44 reqid, 48 mode, 50 optional. */
export interface XfrmTemplate {
  readonly source: Ip
  readonly destination: Ip
  /** 0 is any: then the reqid decides. */
  readonly spi: number
  readonly protocol: number
  readonly reqid: number
  readonly mode: number
  readonly share: number
  readonly optional: boolean
}

/** What a policy is found by. `index`, when not 0, stands for the selector. */
export interface XfrmPolicyId {
  readonly selector: XfrmSelector
  readonly index: number
  readonly direction: number
}

const POLICY_INFO_LENGTH = 168
const POLICY_ID_LENGTH = 64
const TEMPLATE_LENGTH = 64
const EVERY_ALGORITHM = 0xffff_ffff

/** Payload of NEWPOLICY or UPDPOLICY. */
export function encodePolicy(policy: XfrmPolicy): Uint8Array {
  const fixed = new Uint8Array(POLICY_INFO_LENGTH)
  const view = viewOf(fixed)
  writeSelector(view, 0, policy.selector)
  writeLimits(view, 56, policy.limits)
  writeUse(view, 120, policy.use)
  view.setUint32(152, policy.priority, LITTLE_ENDIAN)
  view.setUint32(156, policy.index, LITTLE_ENDIAN)
  view.setUint8(160, policy.direction)
  view.setUint8(161, policy.action)
  view.setUint8(162, policy.flags)
  view.setUint8(163, policy.share)
  const attributes: Attribute[] = []
  if (policy.templates.length > 0) attributes.push(encodeTemplates(policy.templates))
  if (policy.mark) attributes.push(markAttribute(policy.mark))
  if (policy.ifId !== undefined) attributes.push(attributeU32(XFRMA.ifId, policy.ifId))
  return encodePayload(fixed, attributes)
}

/** Undefined when malformed, or not IPv4. */
export function decodePolicy(payload: Uint8Array): XfrmPolicy | undefined {
  if (payload.length < POLICY_INFO_LENGTH) return undefined
  const view = viewOf(payload)
  const selector = readSelector(view, 0)
  const attributes = decodeAttributes(payload, POLICY_INFO_LENGTH)
  if (!selector || !attributes) return undefined
  const templates = decodeTemplates(attributes.get(XFRMA.templates))
  if (!templates) return undefined
  const mark = readMark(attributes.get(XFRMA.mark))
  const ifId = readU32(attributes.get(XFRMA.ifId))
  return {
    selector,
    limits: readLimits(view, 56),
    use: readUse(view, 120),
    priority: view.getUint32(152, LITTLE_ENDIAN),
    index: view.getUint32(156, LITTLE_ENDIAN),
    direction: view.getUint8(160),
    action: view.getUint8(161),
    flags: view.getUint8(162),
    share: view.getUint8(163),
    templates,
    ...(mark && { mark }),
    ...(ifId !== undefined && { ifId }),
  }
}

/** Payload of DELPOLICY, or of GETPOLICY without DUMP. */
export function encodePolicyId(id: XfrmPolicyId): Uint8Array {
  const fixed = new Uint8Array(POLICY_ID_LENGTH)
  const view = viewOf(fixed)
  writeSelector(view, 0, id.selector)
  view.setUint32(56, id.index, LITTLE_ENDIAN)
  view.setUint8(60, id.direction)
  return fixed
}

/** Undefined when malformed, or not IPv4. */
export function decodePolicyId(payload: Uint8Array): XfrmPolicyId | undefined {
  if (payload.length < POLICY_ID_LENGTH) return undefined
  const view = viewOf(payload)
  const selector = readSelector(view, 0)
  return selector && { selector, index: view.getUint32(56, LITTLE_ENDIAN), direction: view.getUint8(60) }
}

/** GETPOLICY with DUMP takes no struct. */
export const encodePolicyDump = (): Uint8Array => new Uint8Array(0)

/** FLUSHPOLICY: every policy of the network namespace, whoever made it. */
export const encodePolicyFlush = (): Uint8Array => new Uint8Array(0)

function encodeTemplates(templates: readonly XfrmTemplate[]): Attribute {
  const payload = new Uint8Array(TEMPLATE_LENGTH * templates.length)
  const view = viewOf(payload)
  for (const [i, template] of templates.entries()) {
    const at = TEMPLATE_LENGTH * i
    writeIp(view, at, template.destination)
    view.setUint32(at + 16, template.spi)
    view.setUint8(at + 20, template.protocol)
    view.setUint16(at + 24, AF_INET, LITTLE_ENDIAN)
    writeIp(view, at + 28, template.source)
    view.setUint32(at + 44, template.reqid, LITTLE_ENDIAN)
    view.setUint8(at + 48, template.mode)
    view.setUint8(at + 49, template.share)
    view.setUint8(at + 50, template.optional ? 1 : 0)
    for (const algorithms of [52, 56, 60]) view.setUint32(at + algorithms, EVERY_ALGORITHM, LITTLE_ENDIAN)
  }
  return attribute(XFRMA.templates, payload)
}

function decodeTemplates(payload: Uint8Array | undefined): XfrmTemplate[] | undefined {
  if (payload === undefined) return []
  if (payload.length % TEMPLATE_LENGTH !== 0) return undefined
  const view = viewOf(payload)
  const templates: XfrmTemplate[] = []
  for (let at = 0; at < payload.length; at += TEMPLATE_LENGTH) {
    if (view.getUint16(at + 24, LITTLE_ENDIAN) !== AF_INET) return undefined
    templates.push({
      destination: readIp(view, at),
      spi: view.getUint32(at + 16),
      protocol: view.getUint8(at + 20),
      source: readIp(view, at + 28),
      reqid: view.getUint32(at + 44, LITTLE_ENDIAN),
      mode: view.getUint8(at + 48),
      share: view.getUint8(at + 49),
      optional: view.getUint8(at + 50) !== 0,
    })
  }
  return templates
}
