/** Raw public keys in CERT payloads (RFC 7670): shown to who asks, believed from nobody. */
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { concat, fromHex, utf8 } from '#base/bytes'
import { nodeCrypto } from '#crypto/node'
import { encodeSpki } from '#crypto/public-key'
import type { LocalCredential, ResponderPolicy } from '#ikev2/events'
import type { Payload } from '#ikev2/message/payload'
import { CERT_ENCODING, HASH_ALGORITHM, NOTIFY } from '#ikev2/numbers'
import { nodeKey } from './pair.ts'
import {
  type Alter,
  asIs,
  KEY,
  notifyTypes,
  RogueClient,
  RogueNode,
  responder,
  withoutMethods,
} from './rogue.ts'

const { number: N } = NOTIFY
const { RAW_PUBLIC_KEY, X509_SIGNATURE } = CERT_ENCODING.number
const PUBLISHED = utf8('published')
const GUEST = nodeKey(nodeCrypto)

type Cert = Extract<Payload, { kind: 'CERT' | 'CERTREQ' }>

const certreq = (encoding: number, data = new Uint8Array(0)): Payload => ({ kind: 'CERTREQ', encoding, data })
const cert = (data: Uint8Array, encoding: number = RAW_PUBLIC_KEY): Payload => ({
  kind: 'CERT',
  encoding,
  data,
})
const append =
  (...more: readonly Payload[]): Alter =>
  (payloads) => [...payloads, ...more]
const certs = (payloads: readonly Payload[] | undefined): Cert[] =>
  (payloads ?? []).filter((payload): payload is Cert => payload.kind === 'CERT')
const kinds = (payloads: readonly Payload[] | undefined): string[] => (payloads ?? []).map(({ kind }) => kind)
const ed25519Spki = (octets: Uint8Array): Uint8Array => encodeSpki({ kind: 'ed25519', octets })
const OWN = ed25519Spki(KEY.credential.publicKey)
const GUESTS = ed25519Spki(GUEST.credential.publicKey)

/** A node that knows one other. */
const NEIGHBOUR: Partial<ResponderPolicy> = { publicKeyOf: () => GUEST.credential.publicKey }

// ---------------------------------------------------------------------------------------------- shown

test('7670: the SubjectPublicKeyInfo of Ed25519 is that of RFC 8410, and what OpenSSL makes', () => {
  assert.deepEqual(OWN, concat(fromHex('302a300506032b6570032100'), KEY.credential.publicKey))
  const { publicKey } = generateKeyPairSync('ed25519')
  const der = publicKey.export({ format: 'der', type: 'spki' })
  assert.deepEqual(ed25519Spki(der.subarray(12)), new Uint8Array(der))
})

test('7670: a node shows its key to who asks for encoding 15, before AUTH', () => {
  const client = new RogueClient(responder())
  client.init()
  const answer = client.authenticate(append(certreq(X509_SIGNATURE), certreq(RAW_PUBLIC_KEY)))
  assert.deepEqual(kinds(answer).slice(0, 3), ['IDr', 'CERT', 'AUTH'])
  assert.deepEqual(certs(answer), [cert(OWN)])
  assert.ok(client.subject.last('ike.established'))
})

for (const [title, asked] of [
  ['nobody asks', []],
  ['X.509 is asked for', [certreq(X509_SIGNATURE, new Uint8Array(40))]],
  ['encodings are asked for that nobody knows', [certreq(0), certreq(11), certreq(201)]],
] as const)
  test(`7670: ${title}: no CERT`, () => {
    const client = new RogueClient(responder())
    client.init()
    const answer = client.authenticate(append(...asked))
    assert.deepEqual(certs(answer), [])
    assert.ok(client.subject.last('ike.established'))
  })

test('7670: who asks often, or with names of authorities, gets one CERT', () => {
  const client = new RogueClient(responder())
  client.init()
  const asked = [certreq(RAW_PUBLIC_KEY, new Uint8Array(1000)), certreq(RAW_PUBLIC_KEY)]
  assert.deepEqual(certs(client.authenticate(append(...asked))), [cert(OWN)])
})

test('7670: the key that is shown is the one that signed', () => {
  const ecdsa = nodeCrypto.p256Generate()
  const client = new RogueClient(responder({ credential: { ...KEY.credential, ecdsa } }))
  const sha256 = Uint8Array.of(0, HASH_ALGORITHM.number.SHA2_256)
  client.init((payloads) =>
    payloads.map((payload) =>
      payload.kind === 'Notify' && payload.type === N.SIGNATURE_HASH_ALGORITHMS
        ? { ...payload, data: sha256 }
        : payload,
    ),
  )
  const answer = client.authenticate((all) => [...withoutMethods(all), certreq(RAW_PUBLIC_KEY)])
  assert.deepEqual(certs(answer), [
    cert(encodeSpki({ kind: 'ecdsa', curve: 'p256', point: ecdsa.publicKey })),
  ])
})

/** What an initiator sends in IKE_AUTH after that answer to its IKE_SA_INIT. */
function asked(credential: LocalCredential, alter: Alter): readonly Payload[] {
  const node = new RogueNode({ credential })
  node.init((payloads) => alter(withoutMethods(payloads)))
  return node.open(node.authRequest!)
}

test('7670: an initiator with a key shows it when asked, one without never, and none asks', () => {
  const ask = append(certreq(RAW_PUBLIC_KEY))
  const shown = asked(GUEST.credential, ask)
  assert.deepEqual(certs(shown), [cert(GUESTS)])
  assert.deepEqual(kinds(shown).slice(0, 4), ['IDi', 'CERT', 'IDr', 'AUTH'])
  assert.deepEqual(certs(asked(GUEST.credential, asIs)), [])
  assert.deepEqual(certs(asked(GUEST.credential, append(certreq(X509_SIGNATURE)))), [])
  const nobodies: readonly LocalCredential[] = [{ kind: 'null' }, { kind: 'psk', key: PUBLISHED }]
  for (const nobody of nobodies) {
    // Asked or not: the template of clients is one.
    assert.deepEqual(kinds(asked(nobody, ask)), kinds(asked(nobody, asIs)))
    assert.deepEqual(certs(asked(nobody, ask)), [])
  }
  for (const credential of [GUEST.credential, ...nobodies])
    assert.ok(!kinds(asked(credential, ask)).includes('CERTREQ'))
})

// ---------------------------------------------------------------------------------------------- believed

const WRONG: readonly (readonly [string, readonly Payload[]])[] = [
  ['of another', [cert(ed25519Spki(nodeCrypto.random(32)))]],
  ['and then one of another', [cert(GUESTS), cert(OWN)]],
  ['that is the 32 octets alone', [cert(GUEST.credential.publicKey)]],
  ['that is empty', [cert(new Uint8Array(0))]],
  ['cut short', [cert(GUESTS.subarray(0, -1))]],
  ['with an octet more', [cert(concat(GUESTS, Uint8Array.of(0)))]],
  ['of 60000 octets', [cert(new Uint8Array(60_000).fill(0x30))]],
  ['whose length is a lie', [cert(concat(fromHex('3084ffffffff'), GUESTS))]],
  ['with its bits marked unused', [cert(GUESTS.with(11, 1))]],
]

for (const [title, shown] of WRONG)
  test(`7670: an initiator shows a key ${title}: AUTHENTICATION_FAILED`, () => {
    const subject = responder(NEIGHBOUR)
    const client = new RogueClient(subject)
    client.init()
    const answer = client.ask(35, [...client.authPayloads(GUEST.credential), ...shown])
    assert.deepEqual(notifyTypes(answer), [N.AUTHENTICATION_FAILED])
    assert.deepEqual(kinds(answer), ['Notify'])
    assert.equal(subject.count('raw-key'), 1)
    assert.equal(subject.last('ike.established'), undefined)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })

test('7670: a responder shows another key than the one that is pinned: the attempt fails', () => {
  const node = new RogueNode()
  node.init()
  node.authenticate(append(cert(GUESTS)))
  assert.equal(node.subject.last('ike.established'), undefined)
  assert.equal(node.subject.last('ike.closed')?.reason, 'IPP_IKE_AUTH_FAILED')
  assert.equal(node.subject.count('raw-key'), 1)
  assert.ok(node.subject.isEmpty)
})

test('7670: the key that is pinned may be shown, once or twice, by either side', () => {
  for (const shown of [[cert(GUESTS)], [cert(GUESTS), cert(GUESTS)]]) {
    const client = new RogueClient(responder(NEIGHBOUR))
    client.init()
    client.ask(35, [...client.authPayloads(GUEST.credential), ...shown])
    assert.ok(client.subject.last('ike.established'))
  }
  const node = new RogueNode()
  node.init()
  node.authenticate(append(cert(OWN)))
  assert.ok(node.subject.last('ike.established'))
})

test('7670: the right key under a wrong signature is no proof', () => {
  const subject = responder(NEIGHBOUR)
  const client = new RogueClient(subject)
  client.init()
  const impostor = { ...GUEST.credential, privateKey: nodeCrypto.random(32) }
  const answer = client.ask(35, [...client.authPayloads(impostor), cert(GUESTS)])
  assert.deepEqual(notifyTypes(answer), [N.AUTHENTICATION_FAILED])
  assert.equal(subject.count('auth-failed'), 1)
})

test('7670: certificates of other encodings are ignored, and so is the key of who proves to be nobody', () => {
  const ignored = [0, 1, X509_SIGNATURE, 11, 12, 13, 14, 16, 201, 255].map((encoding) =>
    cert(nodeCrypto.random(50), encoding),
  )
  const known = new RogueClient(responder(NEIGHBOUR))
  known.init()
  known.ask(35, [...known.authPayloads(GUEST.credential), ...ignored])
  assert.ok(known.subject.last('ike.established'))
  for (const credential of [{ kind: 'null' }, { kind: 'psk', key: PUBLISHED }] as const) {
    const client = new RogueClient(responder({ publishedKey: PUBLISHED }))
    client.init()
    client.ask(35, [...client.authPayloads(credential), cert(GUESTS)])
    assert.deepEqual(client.subject.last('ike.established')?.peer, { kind: 'none' })
  }
})

test('7670: a CERT where it has no place, and a payload of no octets, are malformed', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  assert.equal(client.init(append(cert(OWN))), undefined)
  assert.equal(subject.count('malformed'), 1)
  const other = new RogueClient(subject)
  other.init()
  const empty: Payload = { kind: 'Unknown', type: 37, critical: false, data: new Uint8Array(0) }
  assert.deepEqual(notifyTypes(other.authenticate(append(empty))), [N.INVALID_SYNTAX])
  assert.equal(subject.count('malformed'), 2)
})
