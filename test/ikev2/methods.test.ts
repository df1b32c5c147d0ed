/** Announced authentication methods (RFC 9593): what is said, what follows from it, and lists that are none. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { fromHex, toHex, utf8 } from '#base/bytes'
import { nodeCrypto } from '#crypto/node'
import { encodeSpki } from '#crypto/public-key'
import type { InitiateRequest } from '#ikev2/events'
import { PeerFault } from '#ikev2/fault'
import { decodeHeader } from '#ikev2/message/header'
import { type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import { initiatorMethods, readMethods, responderMethods } from '#ikev2/methods'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { connect, find, pair } from './pair.ts'
import { type Alter, asIs, KEY, notifyTypes, RogueClient, RogueNode, responder } from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const ED25519 = '0a0e00' + '300506032b6570'
const ECDSA_SHA256 = '0f0e00' + '300a06082a8648ce3d040302'
const KEY_OF_ALL = utf8('published')

const list = (hex: string): NotifyPayload => notify(N.SUPPORTED_AUTH_METHODS, fromHex(hex))
/** The responder announces this, and nothing else. */
const announcing =
  (...notifies: readonly Payload[]): Alter =>
  (payloads) => [
    ...payloads.filter((payload) => (payload as NotifyPayload).type !== N.SUPPORTED_AUTH_METHODS),
    ...notifies,
  ]

test('a responder announces what it takes: in IKE_SA_INIT, and the shared key only if it has one', () => {
  assert.equal(toHex(responderMethods(undefined).data.subarray(0, 12)), `020d${ED25519}`)
  assert.equal(toHex(responderMethods(KEY_OF_ALL).data.subarray(0, 14)), `020d0202${ED25519}`)
  const announced = readMethods(new RogueClient(responder({ publishedKey: KEY_OF_ALL })).init()!)
  assert.ok(announced !== undefined && announced !== 'later')
  assert.deepEqual([...announced.plain], [13, 2])
  assert.equal(announced.algorithms.size, 5)
})

test('an initiator announces what fits the pinned key, after everything else in IKE_AUTH', () => {
  assert.equal(toHex(initiatorMethods(KEY.credential.publicKey)[0]!.data), ED25519)
  const spki = encodeSpki({ kind: 'ecdsa', curve: 'p256', point: nodeCrypto.p256Generate().publicKey })
  assert.equal(toHex(initiatorMethods(spki)[0]!.data), ECDSA_SHA256)
  assert.deepEqual(initiatorMethods(new Uint8Array(3)), [])
  const node = new RogueNode()
  node.init()
  const last = node.open(node.authRequest!).at(-1)
  assert.equal(last?.kind === 'Notify' && last.type, N.SUPPORTED_AUTH_METHODS)
})

/** The attempt ends without an IKE_AUTH, and nothing is left. */
function neverTries(title: string, request: Partial<InitiateRequest>, announced: string): void {
  test(`${title}: no attempt is made`, () => {
    const node = new RogueNode(request)
    assert.deepEqual(node.init(announcing(list(announced))), [])
    assert.equal(node.subject.count('auth-method'), 1)
    const sent = node.subject.sleep(60_000)
    assert.deepEqual(
      sent.filter((bytes) => decodeHeader(bytes).exchange !== X.IKE_SA_INIT),
      [],
    )
    assert.equal(node.subject.last('ike.closed')?.reason, 'IPP_IKE_REFUSED')
    assert.ok(node.subject.isEmpty)
  })
}
neverTries('nobody at a responder that takes shared keys alone', {}, '0202')
neverTries('nobody at a responder that takes signatures alone', {}, ED25519)
neverTries(
  'a shared key at a responder that takes nobody',
  { credential: { kind: 'psk', key: KEY_OF_ALL } },
  '020d',
)
neverTries('Ed25519 at a responder that takes ECDSA alone', { credential: KEY.credential }, ECDSA_SHA256)
neverTries('anybody at a responder that takes what nobody knows', {}, '02ff04fe0000')

test('it is a hint and no verdict: a better answer still counts', () => {
  const node = new RogueNode()
  assert.deepEqual(node.init(announcing(list('0202'))), [])
  assert.equal(node.init(announcing(list('020d'))).length, 1)
  node.authenticate()
  assert.ok(node.subject.last('ike.established'))
})

test('a responder that announces nothing is tried, and so is one that announces us', () => {
  for (const alter of [announcing(), announcing(list('0202020d')), announcing(list(`03010002ff020d`))]) {
    const node = new RogueNode()
    node.init(alter)
    node.authenticate()
    assert.ok(node.subject.last('ike.established'))
  }
})

const MALFORMED: readonly (readonly [string, string])[] = [
  ['an announcement of no octets', '00'],
  ['an announcement of one octet', '01'],
  ['a length beyond the end', '04020d'],
  ['a method without its octets', '020d0f0e00300a'],
  ['more announcements than there are methods', '020d'.repeat(65)],
]
for (const [title, hex] of MALFORMED) {
  test(`${title}: malformed from a responder`, () => {
    const node = new RogueNode()
    assert.deepEqual(node.init(announcing(list(hex))), [])
    assert.equal(node.subject.count('malformed'), 1)
    node.init(announcing())
    node.authenticate()
    assert.ok(node.subject.last('ike.established'))
  })

  test(`${title}: malformed from an initiator`, () => {
    const subject = responder()
    const client = new RogueClient(subject)
    client.init()
    assert.deepEqual(notifyTypes(client.authenticate(announcing(list(hex)))), [N.INVALID_SYNTAX])
    assert.equal(subject.count('malformed'), 1)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

test('any octets at all are a list or malformed', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (data) => {
      try {
        const read = readMethods([notify(N.SUPPORTED_AUTH_METHODS, data)])
        assert.ok(read === 'later' || read!.plain.size + read!.algorithms.size <= 64)
      } catch (error) {
        assert.ok(error instanceof PeerFault || (error as Error).name === 'DecodeError')
      }
    }),
  )
})

// ---------------------------------------------------------------------------------------------- which signature

const BOTH = { ...KEY.credential, ecdsa: nodeCrypto.p256Generate() }
const signatureOf = (
  announced: Payload[],
  credential: typeof BOTH | typeof KEY.credential = BOTH,
): string => {
  const client = new RogueClient(responder({ credential }))
  client.init()
  const answer = client.authenticate(announcing(...announced))!
  const auth = answer.find((payload) => payload.kind === 'AUTH')
  if (auth?.kind !== 'AUTH') return notifyTypes(answer).map(NOTIFY.nameOf).join()
  return toHex(auth.data.subarray(1, 1 + auth.data[0]!))
}

test('a node with two keys signs with the one that the initiator takes', () => {
  assert.equal(signatureOf([]), ED25519.slice(6))
  assert.equal(signatureOf([list(ED25519)]), ED25519.slice(6))
  assert.equal(signatureOf([list(ECDSA_SHA256)]), ECDSA_SHA256.slice(6))
  assert.equal(signatureOf([list(ECDSA_SHA256 + ED25519)]), ED25519.slice(6))
  assert.equal(signatureOf([list('0f0e00300a06082a8648ce3d040304')]), '300a06082a8648ce3d040304')
})

test('a node that has no such key says so, and signs nothing', () => {
  assert.equal(signatureOf([list(ECDSA_SHA256)], KEY.credential), 'AUTHENTICATION_FAILED')
  assert.equal(signatureOf([list('0202')]), 'AUTHENTICATION_FAILED')
})

test('our client with an ECDSA key pinned gets ECDSA from a node with both keys', () => {
  const stage = pair({ policy: { credential: BOTH } })
  const publicKey = encodeSpki({ kind: 'ecdsa', curve: 'p256', point: BOTH.ecdsa.publicKey })
  connect(stage, { peer: { id: KEY.id, publicKey } })
  assert.ok(find(stage.client, 'ike.established'))
})

test('an initiator with two keys signs with the one that the responder takes', () => {
  const publicKey = encodeSpki({ kind: 'ecdsa', curve: 'p256', point: BOTH.ecdsa.publicKey })
  const node = new RogueNode({ credential: BOTH, requestAddress: false })
  node.init(announcing(list(ECDSA_SHA256)))
  node.authenticate(asIs, { publicKeyOf: () => publicKey })
  assert.ok(node.subject.last('ike.established'))
})

// ---------------------------------------------------------------------------------------------- in IKE_INTERMEDIATE

/** What the subject does after a hybrid responder put its list off, and then sent this. */
function putOff(...inIntermediate: readonly Payload[]): RogueNode & { readonly sent: Uint8Array[] } {
  const node = new RogueNode()
  node.isHybrid = true
  node.init(announcing(list('')))
  const { ciphertext } = nodeCrypto.mlkem768Encapsulate(nodeCrypto.mlkem768Generate().publicKey)!
  const sent = node.respond(X.IKE_INTERMEDIATE, 1, [
    { kind: 'KE', group: 36, data: ciphertext },
    ...inIntermediate,
  ])
  return Object.assign(node, { sent })
}

test('an empty list puts it off until IKE_INTERMEDIATE, where it counts', () => {
  for (const payloads of [[list('020d')], []]) {
    const { sent } = putOff(...payloads)
    assert.deepEqual(
      sent.map((bytes) => decodeHeader(bytes).exchange),
      [X.IKE_AUTH],
    )
  }
  const { sent, subject } = putOff(list('0202'))
  assert.ok(sent.every((bytes) => decodeHeader(bytes).exchange !== X.IKE_AUTH))
  assert.equal(subject.count('auth-method'), 1)
  assert.equal(subject.last('ike.closed')?.reason, 'IPP_IKE_REFUSED')
  assert.ok(subject.isEmpty)
})

test('a malformed list in IKE_INTERMEDIATE ends the attempt', () => {
  const { subject } = putOff(list('04020d'))
  assert.equal(subject.last('ike.closed')?.reason, 'IPP_IKE_MALFORMED')
  assert.ok(subject.isEmpty)
})
