/** Tickets without a protocol around them: sealing, rotation, the ledger, and the lifetimes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IkeSaId } from '#base/ids'
import { HOUR, type Instant, instant, MINUTE } from '#base/time'
import { nobleCrypto } from '#crypto/noble'
import { nodeCrypto } from '#crypto/node'
import type { CryptoProvider } from '#crypto/provider'
import { Ledger } from '#ikev2/resumption/ledger'
import { TicketMint } from '#ikev2/resumption/mint'
import { allows, type Strategy } from '#ikev2/resumption/strategy'
import { decodeGrant, encodeGrant, type Grant } from '#ikev2/resumption/ticket'

const ID = { type: 11, data: new Uint8Array(32).fill(9) }
const CLOCKED: Strategy = { kind: 'clocked', limit: HOUR }

const grant = (overrides: Partial<Grant> = {}): Grant => ({
  skD: nodeCrypto.random(32),
  suite: { cipher: 'aes-256-gcm-16', prf: 'sha256', prfLength: 32, group: 31, additional: 36 },
  fullTranscript: true,
  peer: { kind: 'none' },
  id: { type: 13, data: new Uint8Array(0) },
  session: 7 as IkeSaId,
  usage: { since: instant(1000.5), connected: 12.25, octets: 2 ** 52 },
  expires: instant(99_999.125),
  ...overrides,
})

test('a grant survives its encoding', () => {
  const id = { type: 11, data: nodeCrypto.random(32) }
  for (const each of [
    grant(),
    grant({
      skD: nodeCrypto.random(64),
      suite: { cipher: 'chacha20-poly1305', prf: 'sha512', prfLength: 64, group: 19 },
      fullTranscript: false,
    }),
    grant({ id, peer: { kind: 'key', id, publicKey: nodeCrypto.random(32) } }),
  ])
    assert.deepEqual(decodeGrant(encodeGrant(each)), each)
})

for (const crypto of [nodeCrypto, nobleCrypto] as CryptoProvider[]) {
  test(`${crypto.name}: sealed with a random nonce, opened by the same node only`, () => {
    const mint = new TicketMint(crypto, ID, CLOCKED)
    const now = instant(2000)
    const each = grant()
    const [a, b] = [mint.issue(each, now)!, mint.issue(each, now)!]
    assert.notDeepEqual(a.opaque, b.opaque)
    assert.deepEqual(mint.open(a.opaque, now), { ...each, expires: a.expires })
    assert.equal(new TicketMint(crypto, ID, CLOCKED).open(a.opaque, now), 'ticket-unreadable')
  })
}

test('a ticket of one identity is none of another under the same key', () => {
  const random = (length: number) => new Uint8Array(length).fill(5)
  const crypto: CryptoProvider = { ...nodeCrypto, random }
  const ours = new TicketMint(crypto, ID, CLOCKED)
  const theirs = new TicketMint(crypto, { ...ID, data: new Uint8Array(32) }, CLOCKED)
  const { opaque } = ours.issue(grant(), instant(0))!
  theirs.issue(grant(), instant(0))
  assert.equal(theirs.open(opaque, instant(1)), 'ticket-unreadable')
})

test('keys rotate: the one before is good for the overlap, and then for nothing', () => {
  const strategy: Strategy = { kind: 'established', limit: 100 * HOUR }
  const mint = new TicketMint(nodeCrypto, ID, strategy)
  const at = (hours: number): Instant => instant(hours * HOUR)
  const open = (opaque: Uint8Array, now: Instant): string => {
    const found = mint.open(opaque, now)
    return typeof found === 'string' ? found : 'good'
  }
  const early = mint.issue(grant(), at(0))!
  const late = mint.issue(grant(), at(7.9))!
  const next = mint.issue(grant(), at(8.1))!
  assert.notEqual(late.opaque[0], next.opaque[0], 'another key')
  assert.equal(open(late.opaque, at(15.8)), 'good')
  assert.equal(open(early.opaque, at(8.1)), 'ticket-expired')
  assert.equal(open(late.opaque, at(16.1)), 'ticket-unreadable')
  assert.equal(open(next.opaque, at(16.05)), 'good')
  mint.age(at(100))
  assert.equal(open(next.opaque, at(100)), 'ticket-unreadable')
})

test('the ledger: once, by SK_d, bounded, and never forgotten while it matters', () => {
  const ledger = new Ledger(nodeCrypto, 3)
  const mark = (n: number): string => ledger.markOf(new Uint8Array(32).fill(n))
  for (const n of [1, 2, 3]) assert.equal(ledger.spend(mark(n), instant(100), instant(0)), true)
  assert.equal(ledger.spend(mark(1), instant(100), instant(0)), false)
  assert.equal(ledger.spend(mark(4), instant(100), instant(50)), false, 'no room: refused, not forgotten')
  assert.equal(ledger.isSpent(mark(1)), true)
  assert.equal(ledger.spend(mark(4), instant(300), instant(100)), true, 'what expired makes room')
  assert.equal(ledger.size, 1)
})

test('the three lifetimes', () => {
  const usage = { since: instant(0), connected: 10 * MINUTE, octets: 1000 }
  const now = instant(HOUR)
  const ask = (kind: Strategy['kind'], limit: number): boolean => allows({ kind, limit }, usage, now)
  assert.deepEqual([ask('clocked', HOUR + 1), ask('clocked', HOUR)], [true, false])
  assert.deepEqual([ask('established', 10 * MINUTE + 1), ask('established', 10 * MINUTE)], [true, false])
  assert.deepEqual([ask('data', 1001), ask('data', 1000)], [true, false])
})
