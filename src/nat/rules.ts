import type { Ip, Prefix } from '#base/ip'

/**
 * Packet-filter rules as values, so that one rule set serves nftables (JSON) and the iptables front end.
 * `linux/nft.ts` and `linux/iptables.ts` render it; `nat/rulesets.ts` says which rules a role needs.
 */
export interface RuleSet {
  /** Also the name of the table or the prefix of the chains: how a successor recognises its own. */
  readonly owner: 'ippriv_client' | 'ippriv_node'
  readonly chains: readonly Chain[]
}

export interface Chain {
  /** Netfilter hook. `postrouting` is of type nat, the others of type filter. */
  readonly hook: 'input' | 'forward' | 'output' | 'postrouting' | 'mss'
  /** What happens to a packet that no rule decided. */
  readonly policy: 'accept' | 'drop'
  readonly rules: readonly Rule[]
}

export interface Rule {
  /** All must hold. */
  readonly matches: readonly Match[]
  readonly verdict: Verdict
  /** Shown by the front end beside the rule. */
  readonly comment?: string
}

export type Match =
  | {
      readonly kind: 'source' | 'destination'
      /** At least one. With `negate`, exactly one: iptables cannot say "none of these". */
      readonly prefixes: readonly Prefix[]
      readonly negate?: boolean
    }
  | { readonly kind: 'protocol'; readonly protocol: 'tcp' | 'udp' | 'icmp' | 'esp' }
  | {
      readonly kind: 'destination-port' | 'source-port'
      readonly protocol: 'tcp' | 'udp'
      /** At least one; a pair is a range, both ends included. */
      readonly ports: readonly (number | readonly [first: number, last: number])[]
      readonly negate?: boolean
    }
  | { readonly kind: 'icmp-type'; readonly type: number; readonly code?: number }
  | { readonly kind: 'input-device' | 'output-device'; readonly device: string; readonly negate?: boolean }
  | { readonly kind: 'mark'; readonly mark: number }
  /** Connection state, from conntrack. */
  | {
      readonly kind: 'state'
      readonly states: readonly ('established' | 'related' | 'new' | 'invalid')[]
      readonly negate?: boolean
    }
  /** The packet came out of one of our tunnels. How that is told differs by plane: secpath, or the TUN device. */
  | { readonly kind: 'from-telescope'; readonly negate?: boolean }
  /** The packet is about to go into one of our tunnels: an IPsec policy applies, or the TUN device. */
  | { readonly kind: 'into-telescope'; readonly negate?: boolean }
  /** IPv6 packet (the guard drops them all). */
  | { readonly kind: 'ipv6' }
  | { readonly kind: 'loopback' }

export type Verdict =
  | { readonly kind: 'accept' | 'drop' }
  | { readonly kind: 'reject'; readonly with: 'admin-prohibited' }
  /** Source NAT to the address of the outgoing device, with fully random ports. */
  | { readonly kind: 'masquerade' }
  /** Clamp the TCP MSS option of SYN packets to this value; in a rule that matches protocol tcp. */
  | { readonly kind: 'clamp-mss'; readonly mss: number }

/** Mark on sockets of the client daemon itself (SO_MARK): the only local sockets the guard lets out. */
export const DAEMON_MARK = 0x4950

export interface ExitRule {
  readonly action: 'accept' | 'reject'
  readonly destination: Prefix
  /** Absent: every protocol and port. */
  readonly protocol?: 'tcp' | 'udp' | 'icmp'
  readonly ports?: readonly [first: number, last: number]
}

/** First match decides; nothing matched means refused. */
export type ExitPolicy = readonly ExitRule[]

/** How the packet filter of this host can tell tunnel traffic apart. */
export interface FilterContext {
  readonly plane: 'xfrm' | 'userspace'
  /** The plane's device. */
  readonly device: string
  /** The host's own public address. */
  readonly address: Ip
}
