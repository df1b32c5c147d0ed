/**
 * Reasons of the userspace plane to drop a packet. Names of /proc/net/xfrm_stat where the kernel has the case; those that
 * begin with `Tun` exist in this plane only.
 */
const REASONS = [
  'XfrmInHdrError',
  'XfrmInNoStates',
  'XfrmInStateProtoError',
  'XfrmInStateSeqError',
  'XfrmInStateMismatch',
  'XfrmInTmplMismatch',
  'XfrmInNoPols',
  'XfrmInPolBlock',
  'XfrmOutNoStates',
  'XfrmOutStateProtoError',
  'XfrmOutStateSeqError',
  'XfrmOutPolBlock',
  'XfrmFwdHdrError',
  // More layers than MAX_DEPTH, or a fragment of an inner ESP packet: there is no reassembly inside.
  'XfrmInBufferError',
  // The kernel routed into the TUN what no policy protects.
  'TunNoPolicy',
  // Not IPv4, or with a broken header or options.
  'TunMalformed',
  // Too big for the path once sealed; the sender was told.
  'TunTooBig',
  // A TFC dummy (RFC 4303 section 2.6): not a loss.
  'TunDummy',
] as const
export type DropReason = (typeof REASONS)[number]

/** How many packets were dropped, and why. */
export type Drops = Record<DropReason, number>

export const noDrops = (): Drops => Object.fromEntries(REASONS.map((reason) => [reason, 0])) as Drops
