/** The specifications of the data plane as XFRM requests, and what the kernel lists as specifications. */

import { IpprivError } from '#base/errors'
import type { ReqId, Spi } from '#base/ids'
import { formatSpi, SPI_MIN } from '#base/ids'
import { formatPrefix } from '#base/ip'
import { SECOND } from '#base/time'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS, keyingLength } from '#crypto/suites'
import type { NetlinkRequest } from '#linux/netlink'
import type {
  Direction,
  PolicySpec,
  SaCounters,
  SaEnds,
  SaKey,
  SaSpec,
  Selector,
  Template,
} from '#telescope/plane'
import { MAX_TEMPLATES } from '#telescope/plane'
import type { XfrmLimits, XfrmSelector } from '#wire/netlink/xfrm'
import {
  ANY_XFRM_SELECTOR,
  IPPROTO_ESP,
  NO_LIMITS,
  UDP_ENCAP_ESP,
  UNUSED,
  XFRM_ACTION,
  XFRM_DIRECTION,
  XFRM_EXTRA_FLAG,
  XFRM_MODE_TUNNEL,
  XFRM_MSG,
  XFRM_STATE_FLAG,
} from '#wire/netlink/xfrm'
import type { XfrmPolicy, XfrmTemplate } from '#wire/netlink/xfrm-policy'
import { encodePolicy, encodePolicyId } from '#wire/netlink/xfrm-policy'
import type { XfrmSa } from '#wire/netlink/xfrm-sa'
import { encodeSa, encodeSaId, freshReplay, NO_STATS } from '#wire/netlink/xfrm-sa'

/** Names of the kernel's crypto API. */
const AEAD_NAMES: Readonly<Record<EspCipher, string>> = {
  'aes-256-gcm-16': 'rfc4106(gcm(aes))',
  'aes-128-gcm-16': 'rfc4106(gcm(aes))',
  'chacha20-poly1305': 'rfc7539esp(chacha20,poly1305)',
}

const ICMP = 1
const SENDER_WINDOW = 32
const EXACT_PORT = 0xffff
/** Packets that may have been sent since the kernel said how many: no sequence number is used twice. */
const UNSEEN = 0x1_0000n

/** @throws IpprivError IPP_PLANE_OPERATION for a specification that would not be what it says */
export function saInstallRequest(sa: SaSpec): NetlinkRequest {
  const name = `NEWSA ${saName(sa)}`
  // RFC 4303 section 2.1; the kernel would take them.
  if (sa.spi < SPI_MIN || sa.spi > 0xffff_ffff)
    throw new IpprivError('IPP_PLANE_OPERATION', `${name}: SPI is reserved`)
  if (sa.key.length !== keyingLength(sa.cipher))
    throw new IpprivError('IPP_PLANE_OPERATION', `${name}: key has ${sa.key.length} octets`)
  const inbound = sa.flow === 'inbound'
  // A window of over 32 packets needs this attribute, ESN always does, and a move reads it. A sender has no use for
  // a window, but kernels before 6.10 refuse ESN with none.
  const replay = freshReplay(inbound ? sa.replayWindow : SENDER_WINDOW)
  const payload = encodeSa({
    source: sa.source,
    destination: sa.destination,
    spi: sa.spi,
    protocol: IPPROTO_ESP,
    selector: ANY_XFRM_SELECTOR,
    limits: saLimits(sa),
    use: UNUSED,
    stats: NO_STATS,
    sequence: 0,
    reqid: sa.reqid,
    mode: XFRM_MODE_TUNNEL,
    replayWindow: 0,
    // Nothing of the inner header shows in the outer one: neither ECN nor (by the extra flag) DSCP, and with
    // NOPMTUDISC not DF either, which then is 0 for everyone.
    flags:
      XFRM_STATE_FLAG.noEcn |
      (inbound ? 0 : XFRM_STATE_FLAG.noPmtuDiscovery) |
      (sa.esn ? XFRM_STATE_FLAG.esn : 0),
    extraFlags: XFRM_EXTRA_FLAG.dontEncapsulateDscp,
    aead: { name: AEAD_NAMES[sa.cipher], key: sa.key, icvBits: 8 * ESP_CIPHERS[sa.cipher].icvLength },
    replay,
    ...(sa.encapsulation && { encapsulation: { type: UDP_ENCAP_ESP, ...sa.encapsulation } }),
  })
  return { name, type: XFRM_MSG.newSa, payload }
}

/** The same SA between other ends: key, sequence numbers and window as the kernel had them a moment ago. */
export function saMoveRequest(found: XfrmSa, { source, destination, encapsulation }: SaEnds): NetlinkRequest {
  const { replay, encapsulation: _, ...rest } = found
  const name = `NEWSA ${saName({ source, destination, spi: found.spi as Spi })}`
  if (replay === undefined) throw new IpprivError('IPP_PLANE_OPERATION', `${name}: no sequence numbers`)
  const sent = replay.sent === 0n ? 0n : replay.sent + UNSEEN
  const payload = encodeSa({
    ...rest,
    source,
    destination,
    replay: { ...replay, sent },
    ...(encapsulation && { encapsulation: { type: UDP_ENCAP_ESP, ...encapsulation } }),
  })
  return { name, type: XFRM_MSG.newSa, payload }
}

export function saRemoveRequest(sa: SaKey): NetlinkRequest {
  return { name: `DELSA ${saName(sa)}`, type: XFRM_MSG.deleteSa, payload: encodeSaId(sa) }
}

/**
 * @param replace whether there is such a policy already
 * @throws IpprivError IPP_PLANE_OPERATION for a specification that would not be what it says
 */
export function policyInstallRequest(policy: PolicySpec, replace: boolean): NetlinkRequest {
  const name = `${replace ? 'UPDPOLICY' : 'NEWPOLICY'} ${policyName(policy.direction, policy.selector)}`
  const count = policy.templates.length
  // A policy without templates lets pass in clear: `protect` must never become that.
  if ((policy.action === 'protect') !== count > 0 || count > MAX_TEMPLATES)
    throw new IpprivError('IPP_PLANE_OPERATION', `${name}: ${policy.action} with ${count} templates`)
  const payload = encodePolicy({
    selector: kernelSelector(policy.selector),
    limits: NO_LIMITS,
    use: UNUSED,
    priority: policy.priority,
    index: 0,
    direction: XFRM_DIRECTION[policy.direction],
    action: policy.action === 'block' ? XFRM_ACTION.block : XFRM_ACTION.allow,
    flags: 0,
    share: 0,
    templates: policy.templates.map(kernelTemplate),
  })
  return { name, type: replace ? XFRM_MSG.updatePolicy : XFRM_MSG.newPolicy, payload }
}

export function policyRemoveRequest(direction: Direction, selector: Selector): NetlinkRequest {
  return {
    name: `DELPOLICY ${policyName(direction, selector)}`,
    type: XFRM_MSG.deletePolicy,
    payload: encodePolicyId({
      selector: kernelSelector(selector),
      index: 0,
      direction: XFRM_DIRECTION[direction],
    }),
  }
}

/** One text per SA of this plane. */
export const saName = (sa: SaKey): string => `${sa.source} -> ${sa.destination} spi ${formatSpi(sa.spi)}`

/** One text per policy of this plane: its direction and selector. */
export function policyName(direction: Direction, selector: Selector): string {
  const { source, destination, protocol, sourcePort, destinationPort, icmp } = selector
  const parts = [direction, formatPrefix(source), '->', formatPrefix(destination)]
  if (protocol !== undefined) parts.push(`proto ${protocol}`)
  if (sourcePort !== undefined) parts.push(`sport ${sourcePort}`)
  if (destinationPort !== undefined) parts.push(`dport ${destinationPort}`)
  if (icmp) parts.push(`icmp ${icmp.type}/${icmp.code}`)
  return parts.join(' ')
}

export const saKeyOf = (sa: XfrmSa): SaKey => ({
  source: sa.source,
  destination: sa.destination,
  spi: sa.spi as Spi,
})

export const saCountersOf = (sa: XfrmSa): SaCounters => ({
  ...saKeyOf(sa),
  packets: Number(sa.use.packets),
  bytes: Number(sa.use.bytes),
  replayed: sa.stats.belowWindow + sa.stats.replayed,
  corrupted: sa.stats.integrityFailed,
})

/** Undefined for directions that are not of routed traffic (socket policies). */
export function policySpecOf(policy: XfrmPolicy): PolicySpec | undefined {
  const direction = (['in', 'out', 'fwd'] as const).find((name) => XFRM_DIRECTION[name] === policy.direction)
  if (!direction) return undefined
  const protect = policy.templates.length > 0
  return {
    direction,
    selector: selectorOf(policy.selector),
    action: policy.action === XFRM_ACTION.block ? 'block' : protect ? 'protect' : 'bypass',
    priority: policy.priority,
    templates: policy.templates.map(({ source, destination, reqid }) => ({
      source,
      destination,
      reqid: reqid as ReqId,
    })),
  }
}

function kernelSelector({
  source,
  destination,
  protocol,
  sourcePort,
  destinationPort,
  icmp,
}: Selector): XfrmSelector {
  const first = icmp ? icmp.type : sourcePort
  const second = icmp ? icmp.code : destinationPort
  return {
    source,
    destination,
    protocol: protocol ?? (icmp ? ICMP : 0),
    sourcePort: first ?? 0,
    sourcePortMask: first === undefined ? 0 : EXACT_PORT,
    destinationPort: second ?? 0,
    destinationPortMask: second === undefined ? 0 : EXACT_PORT,
    ifindex: 0,
    user: 0,
  }
}

function selectorOf(selector: XfrmSelector): Selector {
  const { source, destination, protocol, sourcePort, destinationPort } = selector
  const exactSource = selector.sourcePortMask !== 0
  const exactDestination = selector.destinationPortMask !== 0
  const icmp = protocol === ICMP && exactSource && exactDestination
  return {
    source,
    destination,
    ...(protocol !== 0 && { protocol }),
    ...(icmp && { icmp: { type: sourcePort, code: destinationPort } }),
    ...(exactSource && !icmp && { sourcePort }),
    ...(exactDestination && !icmp && { destinationPort }),
  }
}

const saLimits = ({ announce, life }: SaSpec): XfrmLimits => ({
  ...NO_LIMITS,
  // The kernel says EXPIRE, and goes on, when a packet finds this many before it.
  ...(announce && { softPackets: 1n }),
  // It says EXPIRE and removes the SA. 0 would be never.
  ...(life !== undefined && { hardAddSeconds: BigInt(Math.max(1, Math.ceil(life / SECOND))) }),
})

/** No SPI: the reqid names the SAs, so that a rekey changes no policy. */
const kernelTemplate = (template: Template): XfrmTemplate => ({
  source: template.source,
  destination: template.destination,
  spi: 0,
  protocol: IPPROTO_ESP,
  reqid: template.reqid,
  mode: XFRM_MODE_TUNNEL,
  share: 0,
  optional: false,
})
