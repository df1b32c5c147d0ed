/**
 * What an operator writes on a stock router so that it serves as an overlay node: `swanctl.conf`, and the tunnel
 * devices and routes of the overlay.
 *
 * The overlay is route-based. A charon IKE socket bypasses policies, so what arrives through a policy-based tunnel
 * for it is dropped (XfrmInTmplMismatch); a VTI device takes the packet out of its tunnel before that is asked.
 */
import { PUBLISHED_KEY } from '#overlay/identity'

export interface StockStatus {
  readonly nodeId: string
  readonly pool: string | null
  readonly listed: boolean
  /** As published. */
  readonly ikeKey: string | null
  readonly neighbours: readonly Neighbour[]
}

export interface Neighbour {
  readonly name: string
  readonly nodeId: string
  readonly address: string
  readonly pool: string
  readonly ikeKey: string
}

/** A node of ours, to a stock client. */
export interface Gateway {
  readonly name: string
  readonly nodeId: string
  readonly address: string
  /** As nodes publish it. */
  readonly ikeKey: Uint8Array
}

export interface Suite {
  readonly ike: string
  readonly esp: string
}

/** What a router takes of its neighbours and of clients. */
export interface Offers {
  readonly overlay: Suite
  readonly telescopes: Suite
}

export const SUITES = {
  'aes-256-gcm-16': { ike: 'aes256gcm16-prfsha256-x25519', esp: 'aes256gcm16-x25519' },
  'chacha20-poly1305': { ike: 'chacha20poly1305-prfsha256-x25519', esp: 'chacha20poly1305-x25519' },
} as const satisfies Record<string, Suite>

/** X25519 with ML-KEM-768 (RFC 9370): strongSwan 6.0.2 or later with OpenSSL 3.5. */
export const HYBRID: Suite = {
  ike: 'aes256gcm16-prfsha256-x25519-ke1_mlkem768',
  esp: 'aes256gcm16-x25519-ke1_mlkem768',
}

export const HYBRID_OFFERS: Offers = { overlay: HYBRID, telescopes: HYBRID }

/** A router that has neither X25519 nor Ed25519. */
const NIST: Suite = { ike: 'aes256gcm16-prfsha256-ecp256', esp: 'aes256gcm16-ecp256' }
export const NIST_OFFERS: Offers = { overlay: NIST, telescopes: NIST }

const CLASSIC_OFFERS: Offers = {
  overlay: SUITES['aes-256-gcm-16'],
  telescopes: {
    ike: Object.values(SUITES)
      .map(({ ike }) => ike)
      .join(),
    esp: Object.values(SUITES)
      .map(({ esp }) => esp)
      .join(),
  },
}

const PSK = `secrets { ike-anonymous { secret = "${PUBLISHED_KEY}" } }\n`
const COMMON = `version = 2
    send_cert = never
    send_certreq = no`

/** Of a relay at `address`, with its own key in `own.pem` and each neighbour's in `NAME.pem`. */
export function relayConfig(
  address: string,
  status: StockStatus,
  { overlay: between, telescopes }: Offers = CLASSIC_OFFERS,
): string {
  const local = `local {
      auth = pubkey
      id = "@#${status.nodeId}"
      pubkeys = own.pem
    }`
  const overlay = status.neighbours.map(
    (peer, i) => `  ov-${peer.name} {
    ${COMMON}
    mobike = no
    local_addrs = ${address}
    remote_addrs = ${peer.address}
    proposals = ${between.ike}
    ${local}
    remote {
      auth = pubkey
      id = "@#${peer.nodeId}"
      pubkeys = ${peer.name}.pem
    }
    children { ov-${peer.name} {
      local_ts = ${status.pool},${address}/32
      remote_ts = ${peer.pool},${peer.address}/32
      mark_in = ${markOf(i)}
      mark_out = ${markOf(i)}
      esp_proposals = ${between.esp}
    } }
  }
`,
  )
  return `connections {
${overlay.join('')}  telescope {
    ${COMMON}
    local_addrs = ${address}
    proposals = ${telescopes.ike}
    pools = telescopes
    unique = never
    ${local}
    remote {
      auth = psk
      id = %any
    }
    children { telescope {
      local_ts = 0.0.0.0/0
      esp_proposals = ${telescopes.esp}
    } }
  }
}
pools { telescopes { addrs = ${status.pool} } }
${PSK}`
}

/** The commands that make the overlay devices, routes and the address translation of an exit, as root there. */
export function relayScript(address: string, { pool, neighbours }: StockStatus): string {
  const lines = neighbours.flatMap(({ name, address: peer, pool: theirs }, i) => [
    `ip link add ov-${name} type vti local ${address} remote ${peer} key ${markOf(i)}`,
    `ip link set ov-${name} up`,
    `echo 1 >/proc/sys/net/ipv4/conf/ov-${name}/disable_policy`,
    `echo 0 >/proc/sys/net/ipv4/conf/ov-${name}/rp_filter`,
    // To a neighbour's clients, and from our clients to a neighbour.
    `ip route add ${theirs} dev ov-${name} table 90`,
    `ip route add ${peer} dev ov-${name} table 100`,
  ])
  return `set -e
echo 1 >/proc/sys/net/ipv4/ip_forward
for f in all default eth0; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/$f/send_redirects; done
ip rule add pref 90 lookup 90
ip rule add pref 100 from ${pool} lookup 100
ip route add ${pool} dev eth0
${lines.join('\n')}
iptables-legacy -t nat -A POSTROUTING -s ${pool} -o eth0 -m policy --dir out --pol none -j MASQUERADE
`
}

/** Of a stock client with Debian's defaults: it needs `vips`, and takes everything through its gateway. */
export function clientConfig(gateway: Gateway, suite: Suite, vips = '0.0.0.0'): string {
  return `connections { gateway {
    version = 2
    remote_addrs = ${gateway.address}
    proposals = ${suite.ike}
    vips = ${vips}
    local {
      auth = psk
      id = somebody@example.org
    }
    remote {
      auth = pubkey
      id = "@#${gateway.nodeId}"
      pubkeys = ${gateway.name}.pem
    }
    children { everything {
      remote_ts = ${vips.includes(':') ? '0.0.0.0/0,::/0' : '0.0.0.0/0'}
      esp_proposals = ${suite.esp}
    } }
} }
${PSK}`
}

const markOf = (index: number): number => 101 + index
