/** What a daemon's SAs carried, put together by whom they are for. Counted since each SA was made. */
import type { Ip } from '#base/ip'

export interface Flow {
  readonly packets: number
  readonly bytes: number
  /** Refused by the anti-replay window, and with a wrong integrity check value. */
  readonly replayed: number
  readonly corrupted: number
}

/** Both directions, as this host sees them. */
export interface Traffic {
  readonly in: Flow
  readonly out: Flow
}

type Row = Flow & { readonly source: Ip; readonly destination: Ip }

const NOTHING: Flow = { packets: 0, bytes: 0, replayed: 0, corrupted: 0 }

/** `isInbound`: whether an SA of it ends here; undefined: it is of something else. */
export function trafficOf<T extends Flow>(
  rows: readonly T[],
  isInbound: (row: T) => boolean | undefined,
): Traffic {
  const sum = (wanted: boolean): Flow =>
    rows.filter((row) => isInbound(row) === wanted).reduce((total, row) => add(total, row), NOTHING)
  return { in: sum(true), out: sum(false) }
}

/** Of a node: each tunnel to a peer, all of them, and all circuits together. Never of one circuit. */
export function trafficOfNode<Peer extends { readonly address: Ip }>(
  rows: readonly Row[],
  peers: readonly Peer[],
  self: Ip,
): {
  readonly overlay: readonly (Peer & { readonly traffic: Traffic })[]
  readonly traffic: { readonly overlay: Traffic; readonly circuits: Traffic }
} {
  const addresses = new Set(peers.map(({ address }) => address))
  const farEnd = ({ source, destination }: Row): Ip => (source === self ? destination : source)
  const isInbound = (row: Row): boolean => row.destination === self
  const only = (isWanted: (row: Row) => boolean): Traffic =>
    trafficOf(rows, (row) => (isWanted(row) ? isInbound(row) : undefined))
  return {
    overlay: peers.map((peer) => ({ ...peer, traffic: only((row) => farEnd(row) === peer.address) })),
    traffic: {
      overlay: only((row) => addresses.has(farEnd(row))),
      circuits: only((row) => !addresses.has(farEnd(row))),
    },
  }
}

const add = (total: Flow, row: Flow): Flow => ({
  packets: total.packets + row.packets,
  bytes: total.bytes + row.bytes,
  replayed: total.replayed + row.replayed,
  corrupted: total.corrupted + row.corrupted,
})
