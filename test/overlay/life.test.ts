/** SAs end by themselves when nobody looks after them any more, and never before. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IkeSaId, Spi } from '#base/ids'
import { ip, prefix } from '#base/ip'
import { LIFETIME_JITTER, REQUEST_PATIENCE } from '#ikev2/context'
import type { ChildSa } from '#ikev2/events'
import * as client from '#overlay/client-times'
import { LIFETIME as INHERITED } from '#overlay/estate'
import * as node from '#overlay/router-times'
import { bind, clientExtend, overlaySas } from '#telescope/plan'
import { type PlaneOperation, reqId, SA_LIFE } from '#telescope/plane'
import { renew } from '#telescope/renewal'

const child = (spi: number): ChildSa => ({
  cipher: 'aes-256-gcm-16',
  esn: true,
  inboundSpi: spi as Spi,
  outboundSpi: (spi + 1) as Spi,
  inboundKey: new Uint8Array(36),
  outboundKey: new Uint8Array(36),
  localSelectors: [],
  remoteSelectors: [],
})

test('the kernel forgets no SA that a daemon renews, or a successor of it holds', () => {
  const longest = Math.max(client.LIFETIMES.child, node.LIFETIMES.child) * node.RESPONDER_FACTOR
  assert.ok(SA_LIFE > longest * (1 + LIFETIME_JITTER) + REQUEST_PATIENCE + node.ADRIFT + INHERITED)
})

test('every SA has its life: of a layer, of a circuit at its nodes, of a tunnel, and of what takes their place', () => {
  const [self, peer, leased] = [ip('198.18.1.1'), ip('198.18.1.2'), ip('10.64.0.5')]
  const ends = { self, peer, reqid: reqId(1) }
  const pools = { selfPool: prefix('10.64.0.0/20'), peerPool: prefix('10.64.16.0/20') }
  const [old, heir] = [child(0x1001), child(0x2001)]
  const life = (operations: readonly PlaneOperation[]) =>
    operations.flatMap((each) => (each.kind === 'sa.install' ? [each.sa.life] : []))
  const layer = { hop: peer, outerSource: self, leased, reqid: ends.reqid, child: old }
  assert.deepEqual(life(clientExtend([layer])), [SA_LIFE, SA_LIFE])
  assert.deepEqual(life(bind({ self, client: peer, leased, reqid: ends.reqid, child: old })), [
    SA_LIFE,
    SA_LIFE,
  ])
  assert.deepEqual(life(overlaySas({ ...ends, ...pools }, old)), [SA_LIFE, SA_LIFE])
  const sa = 1 as IkeSaId
  const rekeyed = renew({ child: old }, ends, { kind: 'child.rekeyed', sa, old, child: heir })
  assert.deepEqual(life(rekeyed.operations), [SA_LIFE])
  const switched = renew(rekeyed.tunnel!, ends, { kind: 'child.switched', sa, old, child: heir })
  assert.deepEqual(life(switched.operations), [SA_LIFE])
})
