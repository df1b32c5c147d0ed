/** Pinned keys and ECDSA signatures in DER: what OpenSSL writes is read, and anything else is refused. */
import assert from 'node:assert/strict'
import { type createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'node:test'
import { concat, fromHex, toHex, utf8 } from '#base/bytes'
import { DER, encodeDer, encodeUnsigned } from '#crypto/der'
import { ecdsaFromDer, ecdsaToDer } from '#crypto/ecdsa'
import { nodeCrypto } from '#crypto/node'
import { type EcdsaCurve, encodeOid, encodeSpki, readPublicKey } from '#crypto/public-key'

const CURVES: readonly (readonly [EcdsaCurve, string])[] = [
  ['p256', 'prime256v1'],
  ['p384', 'secp384r1'],
]
const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve })
const spki = (key: ReturnType<typeof createPublicKey>): Uint8Array =>
  new Uint8Array(key.export({ format: 'der', type: 'spki' }))

test('SubjectPublicKeyInfo of every kind, both ways', () => {
  const keys = [
    generateKeyPairSync('ed25519').publicKey,
    ...CURVES.map(([, name]) => ec(name).publicKey),
    generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey,
    generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 3 }).publicKey,
  ]
  for (const key of keys) {
    const read = readPublicKey(spki(key))
    assert.ok(read, key.asymmetricKeyType)
    assert.equal(toHex(encodeSpki(read)), toHex(spki(key)))
  }
})

test('an Ed25519 key is the same as 32 octets and as SubjectPublicKeyInfo', () => {
  const { publicKey } = nodeCrypto.ed25519Generate()
  const key = readPublicKey(publicKey)!
  assert.deepEqual(key, { kind: 'ed25519', octets: publicKey })
  assert.deepEqual(readPublicKey(encodeSpki(key)), key)
})

test('no key: every prefix, every changed octet of the structure, an octet behind it', () => {
  const der = spki(ec('prime256v1').publicKey)
  for (let length = 0; length < der.length; length++)
    if (length !== 32) assert.equal(readPublicKey(der.subarray(0, length)), undefined)
  // Everything before the point is structure.
  for (let i = 0; i < 27; i++)
    assert.equal(readPublicKey(der.with(i, der[i]! ^ 0x15)), undefined, `octet ${i}`)
  assert.equal(readPublicKey(concat(der, Uint8Array.of(0))), undefined)
})

test('CVE-2017-9022, CVE-2021-41990: RSA with modulus 0, even, short or huge; exponents 0, 1, even, long', () => {
  const modulus = new Uint8Array(256).fill(0xc5)
  const rsa = (n: Uint8Array, e: Uint8Array) =>
    readPublicKey(encodeSpki({ kind: 'rsa', modulus: n, exponent: e }))
  assert.ok(rsa(modulus, Uint8Array.of(3)))
  for (const n of [
    new Uint8Array(0),
    modulus.with(255, 2),
    modulus.subarray(1),
    new Uint8Array(1025).fill(0xc5),
  ])
    assert.equal(rsa(n, Uint8Array.of(3)), undefined)
  for (const e of [[], [1], [2], [1, 0, 0], [1, 0, 0, 0, 1]])
    assert.equal(rsa(modulus, Uint8Array.from(e)), undefined, `exponent ${e}`)
})

test('CVE-2017-9023, CVE-2026-78130: lengths beyond the buffer, indefinite, not minimal; missing fields', () => {
  const inner = concat(encodeOid('2a8648ce3d0201'), encodeOid('2a8648ce3d030107'))
  const wrong = [
    '3080000000', // indefinite
    '30840fffffff', // longer than anything
    '30820003020100', // not minimal
    '308100',
    '3000',
    toHex(encodeDer(DER.SEQUENCE, encodeDer(DER.SEQUENCE, inner))), // no key
    toHex(encodeDer(DER.SEQUENCE, encodeDer(DER.SEQUENCE), encodeDer(DER.BIT_STRING, Uint8Array.of(0)))),
    toHex(encodeDer(DER.SEQUENCE, encodeDer(DER.SEQUENCE, inner), encodeDer(DER.BIT_STRING))),
    toHex(
      encodeDer(DER.SEQUENCE, encodeDer(DER.SEQUENCE, inner), encodeDer(DER.BIT_STRING, Uint8Array.of(7, 4))),
    ),
    '30'.repeat(1000),
  ]
  for (const der of wrong) assert.equal(readPublicKey(fromHex(der)), undefined, der.slice(0, 80))
  assert.equal(readPublicKey(spki(ec('secp521r1').publicKey)), undefined)
  assert.equal(readPublicKey(spki(generateKeyPairSync('ed448').publicKey)), undefined)
  assert.equal(readPublicKey(spki(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey)), undefined)
})

test('ECDSA signatures: what OpenSSL writes, both ways', () => {
  for (const [curve, name] of CURVES) {
    const { privateKey, publicKey } = ec(name)
    const key = readPublicKey(spki(publicKey))
    assert.ok(key?.kind === 'ecdsa')
    for (let round = 0; round < 20; round++) {
      const der = new Uint8Array(sign('sha512', utf8(`message ${round}`), privateKey))
      const raw = ecdsaFromDer(curve, der)!
      assert.equal(toHex(ecdsaToDer(raw)), toHex(der))
      assert.ok(nodeCrypto.ecdsaVerify(key, 'sha512', utf8(`message ${round}`), raw))
    }
  }
})

test('CVE-2013-2944: an empty or malformed ECDSA signature', () => {
  const half = new Uint8Array(32).fill(1)
  const long = new Uint8Array(33).fill(1)
  const pair = (...parts: Uint8Array[]) => encodeDer(DER.SEQUENCE, ...parts)
  const [one, zero] = [encodeUnsigned(half), encodeUnsigned(new Uint8Array(0))]
  assert.ok(ecdsaFromDer('p256', pair(one, one)))
  for (const wrong of [
    new Uint8Array(0),
    pair(),
    pair(one),
    pair(one, one, one),
    pair(zero, one),
    pair(one, zero),
    pair(one, encodeUnsigned(long)),
    pair(one, encodeDer(DER.INTEGER)),
    pair(one, encodeDer(DER.INTEGER, Uint8Array.of(0x80))),
    pair(one, encodeDer(DER.INTEGER, Uint8Array.of(0, 1))),
    concat(pair(one, one), Uint8Array.of(0)),
    pair(one, one).subarray(0, -1),
    concat(half, half),
  ])
    assert.equal(ecdsaFromDer('p256', wrong), undefined, toHex(wrong))
})
