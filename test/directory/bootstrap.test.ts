import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import type { KeyPair } from '#crypto/provider'
import {
  type Bootstrap,
  type BootstrapDraft,
  bootstrapBody,
  encodeBootstrap,
  followChain,
  readChain,
} from '#directory/bootstrap'
import { AUTHORITIES } from './authorities.ts'
import { crypto, keyPair, refused, START, value } from './network.ts'

const [a, b, c, d, e] = AUTHORITIES as [KeyPair, KeyPair, KeyPair, KeyPair, KeyPair]
const FRESH = keyPair('a fresh authority')

const draft = (serial: number, keys: readonly KeyPair[], threshold = 3): BootstrapDraft => ({
  serial,
  published: START,
  threshold,
  authorities: keys.map(({ publicKey }, i) => ({
    name: `n${serial}-${i}`,
    key: publicKey,
    url: `http://198.18.50.${i + 1}:9030`,
  })),
})

const seal = (what: BootstrapDraft, signers: readonly KeyPair[]) =>
  value(encodeBootstrap(what, signers, crypto))
const chainOf = (...texts: string[]) => readChain(utf8(texts.join('')), crypto)
const newest = (...texts: string[]): Bootstrap => value(chainOf(...texts)).at(-1)!

const FIRST = seal(draft(1, [a, b, c, d, e]), [a, b, c])
// e is revoked, another one comes instead.
const SECOND = seal(draft(2, [a, b, c, d, FRESH]), [b, c, d])
const THIRD = seal(draft(3, [a, b, FRESH], 2), [a, b, c])

test('a chain is read, each document signed by its own authorities and those before', () => {
  const [first, second, third] = value(chainOf(FIRST, SECOND, THIRD))
  assert.deepEqual([first?.serial, second?.serial, third?.serial], [1, 2, 3])
  assert.equal(second?.authorities[4]?.url, 'http://198.18.50.5:9030')
  assert.deepEqual(second?.authorities[4]?.key, FRESH.publicKey)
  assert.equal(third?.threshold, 2)
})

test('who holds one document follows the rest, and never goes back', () => {
  const first = newest(FIRST)
  const second = newest(FIRST, SECOND)
  assert.equal(value(followChain(first, value(chainOf(FIRST, SECOND, THIRD)), crypto)).serial, 3)
  assert.equal(value(followChain(first, value(chainOf(SECOND, THIRD)), crypto)).serial, 3)
  assert.equal(value(followChain(second, value(chainOf(FIRST, SECOND)), crypto)).serial, 2)
  refused(followChain(second, value(chainOf(FIRST)), crypto), 'IPP_DIR_REPLAYED', /serial 1, but 2/)
  refused(followChain(first, value(chainOf(THIRD)), crypto), 'IPP_DIR_REPLAYED', /nothing leads/)
  const fork = seal(draft(2, [a, b, c, d, e]), [a, b, c])
  refused(followChain(second, value(chainOf(FIRST, fork)), crypto), 'IPP_DIR_REPLAYED', /two documents/)
})

test('nobody else can replace the authorities', () => {
  const strangers = ['x', 'y', 'z'].map(keyPair)
  const own = seal(draft(2, strangers, 2), strangers)
  refused(chainOf(FIRST, own), 'IPP_DIR_BAD_SIGNATURE', /document 2: .*0 valid signatures of its predecessor/)
  refused(followChain(newest(FIRST), value(chainOf(own)), crypto), 'IPP_DIR_BAD_SIGNATURE')
  // t-1 of those before.
  const few = seal(draft(2, [a, b, FRESH], 2), [a, b, FRESH])
  refused(chainOf(FIRST, few), 'IPP_DIR_BAD_SIGNATURE', /2 valid signatures of its predecessor's.*, 3 needed/)
  // Enough of those before, and not of those who are to be.
  const forced = seal(draft(2, [d, e, FRESH], 2), [a, b, c])
  refused(chainOf(FIRST, forced), 'IPP_DIR_BAD_SIGNATURE', /of its own/)
  refused(chainOf(seal(draft(1, [a, b, c, d, e]), [a, b])), 'IPP_DIR_BAD_SIGNATURE', /2 valid .*3 needed/)
  refused(chainOf(FIRST, THIRD), 'IPP_DIR_REPLAYED')
  refused(chainOf(FIRST.replace('n1-0', 'n1-9')), 'IPP_DIR_BAD_SIGNATURE')
})

test('what is not a bootstrap file is refused', () => {
  refused(chainOf(''), 'IPP_DIR_MALFORMED')
  refused(chainOf('{}\n'), 'IPP_DIR_BAD_SIGNATURE')
  refused(chainOf(FIRST.slice(0, -1)), 'IPP_DIR_MALFORMED')
  refused(chainOf(FIRST, '\n'), 'IPP_DIR_MALFORMED')
  refused(readChain(new Uint8Array(2 ** 21), crypto), 'IPP_DIR_OVERSIZED')
  const wrong: [Partial<BootstrapDraft>, RegExp][] = [
    [{ threshold: 2 }, /more than half/],
    [{ threshold: 6 }, /no more than all/],
    [{ authorities: draft(1, [a, b, c, a]).authorities }, /every key once/],
    [
      { authorities: draft(1, [a, b, c]).authorities.map((one) => ({ ...one, name: 'same' })) },
      /every name once/,
    ],
    [{ authorities: draft(1, [a, b, c]).authorities.map((one, i) => ({ ...one, name: `<b>${i}` })) }, /name/],
    [
      { authorities: draft(1, [a, b, c]).authorities.map((one) => ({ ...one, url: 'http://999.1.1.1:1' })) },
      /every url once/,
    ],
    [
      {
        threshold: 1,
        authorities: draft(1, [a]).authorities.map((one) => ({ ...one, url: 'http://999.1.1.1:1' })),
      },
      /URLs/,
    ],
  ]
  for (const [change, where] of wrong)
    refused(bootstrapBody({ ...draft(1, [a, b, c, d, e]), ...change }), 'IPP_DIR_MALFORMED', where)
})
