/**
 * A middle node with several neighbours before it and one behind it, and a circuit through each: what the node is
 * told, and what the other side needs to make packets it will forward. Both processes compute the same.
 *
 *     outside: neighbours 198.18.101.1 .. 8, next 198.18.102.1 ---- relay: 198.18.100.1
 */
import type { Spi } from '#base/ids'
import { ANY, host, type Ip, ip, prefix } from '#base/ip'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import {
  type Direction,
  type PlaneOperation,
  PRIORITY,
  REPLAY_WINDOW,
  reqId,
  type SaSpec,
  type Template,
} from '#telescope/plane'

export const RELAY = ip('198.18.100.1')
export const NEXT = ip('198.18.102.1')
export const CIRCUITS = 8
export const neighbour = (i: number): Ip => ip(`198.18.101.${i + 1}`)
/** What the node lent, and what the neighbour did. */
export const lent = (i: number): Ip => ip(`10.2.0.${i + 1}`)
const lentBefore = (i: number): Ip => ip(`10.1.${i}.1`)
const POOL = prefix('10.2.0.0/16')

/** What the relay is told. Every packet is opened twice and sealed once. */
export function relayOperations(cipher: EspCipher): PlaneOperation[] {
  const outward = template(RELAY, NEXT, 99)
  const operations: PlaneOperation[] = [
    { kind: 'sa.install', sa: sa('outbound', cipher, RELAY, NEXT, 99, 0x9999) },
    policy('out', POOL, host(NEXT), PRIORITY.overlay, [outward]),
  ]
  for (let i = 0; i < CIRCUITS; i++)
    operations.push(
      ...layers(i).map(
        ([from, index, spi]): PlaneOperation => ({
          kind: 'sa.install',
          sa: sa('inbound', cipher, from, RELAY, index, spi),
        }),
      ),
      policy(
        'fwd',
        host(lent(i)),
        ANY,
        PRIORITY.circuit,
        layers(i).map(([from, index]) => template(from, RELAY, index)),
      ),
    )
  return operations
}

/** What the other side's engine is told: both layers in one policy, as a client does. */
export function outsideOperations(cipher: EspCipher): PlaneOperation[] {
  return Array.from({ length: CIRCUITS }, (_, i) => [
    ...layers(i).map(
      ([from, index, spi]): PlaneOperation => ({
        kind: 'sa.install',
        sa: sa('outbound', cipher, from, RELAY, index, spi),
      }),
    ),
    policy(
      'out',
      host(lent(i)),
      ANY,
      PRIORITY.circuit,
      layers(i).map(([from, index]) => template(from, RELAY, index)),
    ),
  ]).flat()
}

/** Innermost first. SPIs of the outer layer are even and odd in turn, so that two workers get half each. */
const layers = (i: number): readonly (readonly [from: Ip, index: number, spi: number])[] => [
  [lentBefore(i), 2 * i, 0x2000 + i],
  [neighbour(i), 2 * i + 1, 0x1000 + i],
]

const template = (source: Ip, destination: Ip, index: number): Template => ({
  source,
  destination,
  reqid: reqId(index),
})

const sa = (
  flow: SaSpec['flow'],
  cipher: EspCipher,
  source: Ip,
  destination: Ip,
  index: number,
  spi: number,
): SaSpec => {
  const { keyLength, saltLength } = ESP_CIPHERS[cipher]
  return {
    flow,
    source,
    destination,
    spi: spi as Spi,
    reqid: reqId(index),
    cipher,
    key: Uint8Array.from({ length: keyLength + saltLength }, (_, i) => (spi * 31 + i * 7) & 255),
    esn: true,
    replayWindow: REPLAY_WINDOW,
  }
}

const policy = (
  direction: Direction,
  source: ReturnType<typeof prefix>,
  destination: ReturnType<typeof prefix>,
  priority: number,
  templates: readonly Template[],
): PlaneOperation => ({
  kind: 'policy.install',
  policy: { direction, selector: { source, destination }, action: 'protect', priority, templates },
})
