import type { ReqId, Spi } from '#base/ids'
import type { Ip, Prefix } from '#base/ip'
import { type Duration, HOUR } from '#base/time'
import type { EspCipher } from '#crypto/suites'

/**
 * The data plane as the core sees it: a Security Association Database and a Security Policy Database
 * (RFC 4301 section 4.4) and nothing else. Two implementations: the kernel (XFRM) and our own workers.
 *
 * Semantics both must have, which are those of Linux XFRM:
 *  - a packet is looked up once; the first policy by priority (lowest number) is applied whole, all templates,
 *    innermost first. A transformed packet is not looked up again;
 *  - `in` and `fwd` policies with templates accept a packet only if it came through exactly those SAs;
 *  - a policy whose SA is missing drops the packet: never clear text.
 */
export interface DataPlane {
  readonly kind: PlaneKind
  /** Device that carries private addresses and private routes (a dummy, or the TUN). Exists after `open`. */
  readonly device: string
  /** Claims the plane. Removes what a killed predecessor left behind, unless it adopts that. @throws IpprivError IPP_PLANE_*, IPP_HOST_* */
  open(): Promise<void>
  /** Performs operations in order. @throws IpprivError IPP_PLANE_OPERATION naming the one that failed; later ones are not tried. */
  apply(operations: readonly PlaneOperation[]): Promise<void>
  /** Counters of every SA this plane holds. */
  counters(): Promise<readonly SaCounters[]>
  /** Counters of dropped packets, by reason (names of /proc/net/xfrm_stat). */
  drops(): Promise<Readonly<Record<string, number>>>
  /** Called when authentic packets arrive on an inbound SA that was installed to `announce` them: once, and early. */
  onHeard(listener: (sa: SaKey) => void): void
  /** Called when the plane dies on its own. */
  onFailure(listener: (error: Error) => void): void
  /** Removes every SA, policy and device it installed. Idempotent. */
  close(): Promise<void>
}

export type PlaneKind = 'xfrm' | 'userspace'

export type PlaneOperation =
  | { readonly kind: 'sa.install'; readonly sa: SaSpec }
  | { readonly kind: 'sa.remove'; readonly sa: SaKey }
  /**
   * The SA goes on between other ends, with its key and its sequence numbers: a second one with that key would use
   * its nonces again. Harmless when there is none.
   */
  | { readonly kind: 'sa.move'; readonly sa: SaKey; readonly to: SaEnds }
  /** Installs, or replaces the policy of the same direction and selector, with no gap between the two. */
  | { readonly kind: 'policy.install'; readonly policy: PolicySpec }
  | { readonly kind: 'policy.remove'; readonly direction: Direction; readonly selector: Selector }

/** What a killed predecessor left in a kernel, and what still carries its packets. */
export interface Inventory {
  readonly policies: readonly PolicySpec[]
  readonly sas: readonly (SaKey & { readonly reqid: ReqId })[]
}

/** What identifies an SA on the wire (RFC 4301 section 4.1). */
export interface SaKey {
  readonly source: Ip
  readonly destination: Ip
  readonly spi: Spi
}

export interface SaEnds {
  readonly source: Ip
  readonly destination: Ip
  /** UDP encapsulation (RFC 3948), first hop only. */
  readonly encapsulation?: { readonly sourcePort: number; readonly destinationPort: number }
}

/** One unidirectional tunnel-mode ESP SA. Its owner is the host it is installed on. */
export interface SaSpec extends SaKey, SaEnds {
  readonly flow: 'inbound' | 'outbound'
  readonly reqid: ReqId
  readonly cipher: EspCipher
  /** Key and the 4 octets of salt behind it (RFC 4106 section 8.1, RFC 7634 section 2). */
  readonly key: Uint8Array
  /** Extended (64-bit) sequence numbers, RFC 4303 section 2.2.1. */
  readonly esn: boolean
  /** Anti-replay window in packets, for inbound SAs. */
  readonly replayWindow: number
  /** Say when packets arrive (`onHeard`); inbound SAs alone. */
  readonly announce?: boolean
  /**
   * The kernel forgets it after this, whole seconds, on its own: packets for it are dropped from then on. For the day when
   * no daemon is there any more to remove it; the userspace plane ends with its daemon and needs none. Absent: never.
   */
  readonly life?: Duration
}

export type Direction = 'in' | 'out' | 'fwd'

export interface Selector {
  readonly source: Prefix
  readonly destination: Prefix
  /** IP protocol number; absent means any. */
  readonly protocol?: number
  readonly sourcePort?: number
  readonly destinationPort?: number
  /** ICMP type and code (protocol 1 only). */
  readonly icmp?: { readonly type: number; readonly code: number }
}

/** Names SAs by end points and reqid, never by SPI: a rekey changes no policy. */
export interface Template {
  readonly source: Ip
  readonly destination: Ip
  readonly reqid: ReqId
}

export interface PolicySpec {
  readonly direction: Direction
  readonly selector: Selector
  /** `protect` uses the templates, `bypass` lets pass in clear, `block` drops. */
  readonly action: 'protect' | 'bypass' | 'block'
  /** One of `PRIORITY`. */
  readonly priority: number
  /** Innermost first; at most `MAX_TEMPLATES`. Empty unless `protect`. */
  readonly templates: readonly Template[]
}

export interface SaCounters extends SaKey {
  readonly packets: number
  readonly bytes: number
  /** Packets refused by the anti-replay window, and packets whose ICV was wrong. */
  readonly replayed: number
  readonly corrupted: number
}

/** The kernel nests five templates; six are accepted by netlink and fail on output (kernel-notes, depth test). */
export const MAX_TEMPLATES = 5

/**
 * All our policies and SAs carry numbers from ranges of our own, so that a daemon recognises what a killed
 * predecessor left behind without having written anything down.
 */
const PRIORITY_BASE = 0x0495_0000
export const PRIORITY = {
  ikeBypass: PRIORITY_BASE + 100,
  isolation: PRIORITY_BASE + 500,
  circuit: PRIORITY_BASE + 1000,
  overlay: PRIORITY_BASE + 2000,
  overlayNodeToNode: PRIORITY_BASE + 2100,
  injection: PRIORITY_BASE + 60000,
  guard: PRIORITY_BASE + 65000,
} as const
export const isOurPriority = (priority: number): boolean => priority >>> 16 === PRIORITY_BASE >>> 16

const REQID_BASE = 0x4950_0000
export const REQID_COUNT = 0x0010_0000
/** The reqid with index 0..REQID_COUNT-1. */
export const reqId = (index: number): ReqId => (REQID_BASE + index) as ReqId
export const isOurReqId = (id: number): boolean => id >= REQID_BASE && id < REQID_BASE + REQID_COUNT

/** The constants of every SA and route of ours (architecture section 3: the same for everyone). */
export { INNER_MSS, INNER_MTU } from '#base/mtu'
export const REPLAY_WINDOW = 1024
/**
 * Longer than any SA is in use while somebody lives who looks after it: 2.5 hours until a responder renews it at its
 * latest, one more while the peer is away, two in the hands of a successor, and the rest to spare.
 */
export const SA_LIFE: Duration = 6 * HOUR

/** Says which operation, without a key and without an address: errors are logged. */
export function operationName(operation: PlaneOperation): string {
  switch (operation.kind) {
    case 'sa.install':
      return `${operation.kind} ${operation.sa.flow} reqid ${operation.sa.reqid}`
    case 'sa.remove':
    case 'sa.move':
      return operation.kind
    case 'policy.install':
      return `${operation.kind} ${operation.policy.direction} ${operation.policy.action}`
    case 'policy.remove':
      return `${operation.kind} ${operation.direction}`
  }
}
