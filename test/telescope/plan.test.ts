/**
 * The planner against transcripts in test/scenarios. `REWRITE=1 npm test` writes them anew: commit the
 * difference only if you understand what caused it and want it.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { CircuitId, IkeSaId, Spi } from '#base/ids'
import { type Ip, ip, prefix } from '#base/ip'
import { instant } from '#base/time'
import { ANY_SELECTOR, type ChildSa } from '#ikev2/events'
import {
  bind,
  clientEntryPass,
  clientEntryPassRemove,
  clientGuard,
  clientGuardRemove,
  harden,
  type OverlayLink,
  overlayPolicies,
  overlaySas,
  unbind,
} from '#telescope/plan'
import { MAX_TEMPLATES, type PlaneOperation, type PolicySpec } from '#telescope/plane'
import { ReqIdAllocator } from '#telescope/reqids'
import { type Hop, Telescope } from '#telescope/telescope'
import { transcript } from './transcript.ts'

const S = ip('198.18.1.1')
const NODES = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir']
const HOPS: Hop[] = NODES.map((name, i) => ({
  name,
  nodeId: name,
  address: ip(`198.18.${10 * (i + 1)}.1`),
  port: 500,
  pool: prefix(`10.64.${16 * i}.0/20`),
}))

test('a telescope of three hops grows, shrinks and closes as the transcript says', () => {
  const lines: string[] = []
  const say = (title: string, operations: readonly PlaneOperation[]): void => {
    lines.push(title, '----', ...transcript(operations), '')
  }
  const guard = {
    self: S,
    entries: [HOPS[0]!.address],
    directories: [{ address: ip('198.18.50.1'), port: 9030 }],
  }
  say('guard', clientGuard(guard))
  say('pass for the entry', clientEntryPass(S, HOPS[0]!.address))
  const telescope = new Telescope(1 as CircuitId, HOPS.slice(0, 3), S, new ReqIdAllocator(), instant(0))
  for (let n = 1; n <= 3; n++) say(`extend to ${telescope.next()!.hop.name}`, extend(telescope, n))
  say('truncate to 2', telescope.truncate(2).operations)
  say('close', telescope.truncate(0).operations)
  say('no pass any more', clientEntryPassRemove(S, HOPS[0]!.address))
  say('guard removed', clientGuardRemove(guard))
  compare('client-three-hops', lines)
})

test('a middle node links, binds and releases as the transcript says', () => {
  const lines: string[] = []
  const say = (title: string, operations: readonly PlaneOperation[]): void => {
    lines.push(title, '----', ...transcript(operations), '')
  }
  const reqids = new ReqIdAllocator()
  const [a, b] = [HOPS[0]!, HOPS[1]!]
  const link: OverlayLink = {
    self: b.address,
    selfPool: b.pool,
    peer: a.address,
    peerPool: a.pool,
    reqid: reqids.allocate(),
  }
  say('join as a relay', harden(b.pool, false))
  say('link to alder, no tunnel yet', overlayPolicies(link))
  say('tunnel to alder', overlaySas(link, child(9)))
  const binding = {
    self: b.address,
    client: ip('10.64.0.7'),
    leased: ip('10.64.16.9'),
    reqid: reqids.allocate(),
    child: child(2),
    via: link,
  }
  say('bind a client of alder', bind(binding))
  say('release it', unbind(binding))
  compare('middle-node', lines)
})

test('policies are removed exactly as they were installed, and only them', () => {
  const telescope = new Telescope(1 as CircuitId, HOPS.slice(0, 5), S, new ReqIdAllocator(), instant(0))
  const installed = new Set<string>()
  const account = (operations: readonly PlaneOperation[]): void => {
    for (const o of operations) {
      const key =
        'sa' in o
          ? `sa ${o.sa.spi}`
          : JSON.stringify(
              'policy' in o ? [o.policy.direction, o.policy.selector] : [o.direction, o.selector],
            )
      if (o.kind.endsWith('install')) installed.add(key)
      else assert.ok(installed.delete(key), `removed what was never installed: ${key}`)
    }
  }
  for (let n = 1; n <= MAX_TEMPLATES; n++) account(extend(telescope, n))
  assert.equal(installed.size, 5 * 4, 'two SAs and two policies a layer')
  account(telescope.truncate(3).operations)
  assert.equal(installed.size, 3 * 4)
  account(telescope.truncate(0).operations)
  assert.equal(installed.size, 0)
})

test('the innermost layer stands first in every policy and each outer header is the previous private address', () => {
  const telescope = new Telescope(1 as CircuitId, HOPS.slice(0, 3), S, new ReqIdAllocator(), instant(0))
  let last: PlaneOperation[] = []
  for (let n = 1; n <= 3; n++) last = extend(telescope, n)
  const out = policies(last).find((p) => p.direction === 'out')!
  assert.deepEqual(
    out.templates.map((t) => [t.source, t.destination]),
    [
      ['10.64.16.2', HOPS[2]!.address],
      ['10.64.0.2', HOPS[1]!.address],
      [S, HOPS[0]!.address],
    ],
  )
})

test('six hops do not fit in one policy', () => {
  const telescope = new Telescope(1 as CircuitId, HOPS, S, new ReqIdAllocator(), instant(0))
  for (let n = 1; n <= 5; n++) extend(telescope, n)
  assert.throws(() => extend(telescope, 6), /at most 5 layers/)
})

test("a lent address outside the hop's pool, or one already in use, is not accepted", () => {
  const telescope = new Telescope(1 as CircuitId, HOPS.slice(0, 2), S, new ReqIdAllocator(), instant(0))
  assert.equal(telescope.accepts(ip('10.64.16.2')), false)
  assert.equal(telescope.accepts(ip('10.64.0.2')), true)
  extend(telescope, 1)
  assert.equal(telescope.accepts(ip('10.64.0.2')), false)
})

function extend(telescope: Telescope, n: number): PlaneOperation[] {
  const leased = `10.64.${16 * (n - 1)}.2` as Ip
  const { path } = telescope.next()!
  return telescope.extend({
    kind: 'child.established',
    sa: n as IkeSaId,
    role: 'initiator',
    path,
    peer: { kind: 'none' },
    leased,
    child: child(n),
  })
}

function child(n: number): ChildSa {
  return {
    inboundSpi: (0x1000 * n + 1) as Spi,
    outboundSpi: (0x1000 * n + 2) as Spi,
    cipher: 'aes-256-gcm-16',
    inboundKey: new Uint8Array(36),
    outboundKey: new Uint8Array(36),
    esn: true,
    localSelectors: [ANY_SELECTOR],
    remoteSelectors: [ANY_SELECTOR],
  }
}

const policies = (operations: readonly PlaneOperation[]): PolicySpec[] =>
  operations.flatMap((o) => (o.kind === 'policy.install' ? [o.policy] : []))

function compare(name: string, lines: readonly string[]): void {
  const file = new URL(`../scenarios/${name}.txt`, import.meta.url)
  const text = `${lines.join('\n')}`
  if (process.env.REWRITE) writeFileSync(file, text)
  assert.equal(text, readFileSync(file, 'utf8'))
}
