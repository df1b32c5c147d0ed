/**
 * Authentication for stock peers: the published shared key instead of NULL, the signatures of RFC 7427 that are not
 * Ed25519, and P-256. Negative rows are named as in `negative.test.ts`.
 */
import assert from 'node:assert/strict'
import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { test } from 'node:test'
import { concat, fromHex, toHex, utf8 } from '#base/bytes'
import { nodeCrypto } from '#crypto/node'
import { HASH_LENGTH, type HashName } from '#crypto/provider'
import { encodeSpki } from '#crypto/public-key'
import type { IkeId, LocalCredential } from '#ikev2/events'
import { sharedKeyAuth } from '#ikev2/keys'
import { notify, type Payload } from '#ikev2/message/payload'
import { AUTH_METHOD, EXCHANGE, GROUP, HASH_ALGORITHM, ID_TYPE, NOTIFY, TRANSFORM } from '#ikev2/numbers'
import { octetsOf } from '#ikev2/proof'
import { SimNetwork } from '../sim/network.ts'
import { addHost, anonymousRequest, CLIENT, connect, find, NODE, nodeKey, openPolicy, pair } from './pair.ts'
import {
  type Alter,
  asIs,
  KEY,
  notifyTypes,
  RogueClient,
  RogueNode,
  replace,
  responder,
  type Subject,
  withoutMethods,
} from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const PUBLISHED = utf8('published')
const PSK: LocalCredential = { kind: 'psk', key: PUBLISHED }
const OPEN = { publishedKey: PUBLISHED }

// ---------------------------------------------------------------------------------------------- published key

test('PSK: a client that everybody can be gets exactly what a NULL client gets', () => {
  const stage = pair({ policy: OPEN })
  connect(stage, { credential: PSK })
  const { peer, leased, child } = find(stage.node, 'child.established')!
  assert.deepEqual(peer, { kind: 'none' })
  assert.equal(leased, '10.1.0.1')
  assert.equal(child.remoteSelectors[0]!.startAddress, leased)
  assert.equal(find(stage.client, 'child.established')!.peer.kind, 'key')
})

test('PSK: the identity is another ID_KEY_ID of 16 octets for every IKE SA', () => {
  const seen = new Set<string>()
  for (let i = 0; i < 20; i++) {
    const client = new RogueClient(responder(OPEN))
    client.init()
    const [first] = client.authPayloads(PSK)
    assert.ok(first?.kind === 'IDi')
    assert.equal(first.id.type, ID_TYPE.number.KEY_ID)
    assert.equal(first.id.data.length, 16)
    seen.add(toHex(first.id.data))
  }
  assert.equal(seen.size, 20)
})

test('PSK: two peers with the same identity are two, whatever INITIAL_CONTACT says', () => {
  const subject = responder(OPEN)
  const leases = [1, 2, 3].map(() => {
    const client = new RogueClient(subject)
    client.init()
    const contact: Alter = (payloads) => [...payloads, notify(N.INITIAL_CONTACT)]
    const id = { type: ID_TYPE.number.KEY_ID, data: utf8('everybody') }
    client.ask(X.IKE_AUTH, contact(proven(client, id, sharedKey(client, id, PUBLISHED))))
    return subject.last('child.established')!.leased
  })
  assert.equal(new Set(leases).size, 3)
  assert.equal(subject.count('sas.all'), 3)
  assert.equal(subject.last('ike.closed'), undefined)
})

for (const [name, id] of [
  ['an FQDN', { type: ID_TYPE.number.FQDN, data: utf8('laptop.example') }],
  ['an address', { type: ID_TYPE.number.IPV4_ADDR, data: Uint8Array.of(192, 0, 2, 1) }],
  ['CVE-2026-47895: nothing', { type: ID_TYPE.number.FQDN, data: new Uint8Array(0) }],
  ['ID_NULL', { type: ID_TYPE.number.NULL, data: new Uint8Array(0) }],
  ['CVE-2025-9242: 60000 octets', { type: ID_TYPE.number.KEY_ID, data: new Uint8Array(60_000) }],
  ['CVE-2013-6075: a DN that is cut short', { type: 9, data: fromHex('3082ffff3100') }],
] as const) {
  test(`PSK: a stock client that calls itself ${name} is nobody`, () => {
    const subject = responder(OPEN)
    const client = new RogueClient(subject)
    client.init()
    client.ask(X.IKE_AUTH, proven(client, id, sharedKey(client, id, PUBLISHED)))
    assert.deepEqual(subject.last('ike.established')!.peer, { kind: 'none' })
  })
}

/** IKE_AUTH is answered with AUTHENTICATION_FAILED alone, and nothing is left of it. */
function refused(subject: Subject, answer: readonly Payload[] | undefined): void {
  assert.deepEqual(
    answer?.map(({ kind }) => kind),
    ['Notify'],
  )
  assert.deepEqual(notifyTypes(answer), [N.AUTHENTICATION_FAILED])
  assert.equal(subject.count('auth-failed'), 1)
  assert.equal(subject.last('ike.established'), undefined)
  subject.sleep(60_000)
  assert.ok(subject.isEmpty)
}

for (const [name, change] of [
  ['another key', (client: RogueClient, id: IkeId) => sharedKey(client, id, utf8('Published'))],
  ['an empty key', (client: RogueClient, id: IkeId) => sharedKey(client, id, new Uint8Array(0))],
  ["another peer's identity", (client: RogueClient) => sharedKey(client, someId(), PUBLISHED)],
  ['no data', () => new Uint8Array(0)],
  ['one octet less', (client: RogueClient, id: IkeId) => sharedKey(client, id, PUBLISHED).subarray(1)],
  ['one octet more', (client: RogueClient, id: IkeId) => concat(sharedKey(client, id, PUBLISHED), PUBLISHED)],
  [
    "the responder's octets (reflection)",
    (client: RogueClient) => {
      const { prf } = client.auth!
      return sharedKeyAuth(prf, PUBLISHED, octetsOf(client.auth!, 'responder', KEY.id))
    },
  ],
] as const) {
  test(`PSK: AUTH made of ${name} is refused`, () => {
    const subject = responder(OPEN)
    const client = new RogueClient(subject)
    client.init()
    const id = someId()
    refused(subject, client.ask(X.IKE_AUTH, proven(client, id, change(client, id))))
  })
}

test('PSK: a node without a published key refuses it', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init()
  refused(subject, client.ask(X.IKE_AUTH, client.authPayloads(PSK)))
})

test('PSK: who is not admitted as NULL is not admitted by a key that everybody has', () => {
  const subject = responder({ ...OPEN, admitAnonymous: () => 'IPP_OVERLAY_FOREIGN_SOURCE' })
  const client = new RogueClient(subject)
  client.init()
  refused(subject, client.ask(X.IKE_AUTH, client.authPayloads(PSK)))
})

test('PSK: knowing the key does not make a peer a node', () => {
  const known = nodeKey(nodeCrypto)
  const subject = responder({ ...OPEN, publicKeyOf: () => known.credential.publicKey })
  const client = new RogueClient(subject)
  client.init()
  client.ask(X.IKE_AUTH, proven(client, known.id, sharedKey(client, known.id, PUBLISHED)))
  assert.deepEqual(subject.last('ike.established')!.peer, { kind: 'none' })
})

test('CVE-2015-4171: a responder that must sign and answers with the published key is an impostor', () => {
  const node = new RogueNode({ credential: PSK })
  node.init()
  node.authenticate(
    replace('AUTH', () => {
      const { prf } = node.auth!
      const data = sharedKeyAuth(prf, PUBLISHED, octetsOf(node.auth!, 'responder', KEY.id))
      return { kind: 'AUTH', method: AUTH_METHOD.number.SHARED_KEY, data }
    }),
    OPEN,
  )
  assert.equal(node.subject.last('ike.closed')!.reason, 'IPP_IKE_AUTH_FAILED')
})

// ---------------------------------------------------------------------------------------------- signatures

const ECDSA_IDENTIFIER: Record<HashName, string> = {
  sha256: '300a06082a8648ce3d040302',
  sha384: '300a06082a8648ce3d040303',
  sha512: '300a06082a8648ce3d040304',
}
/** RFC 7427 appendix A.4.3: RSASSA-PSS with SHA-256; the others differ in the hash and the salt. */
const pssIdentifier = (hash: HashName): string => {
  const oid = `060960864801650304020${{ sha256: 1, sha384: 2, sha512: 3 }[hash]}`
  const salt = HASH_LENGTH[hash].toString(16)
  return `304106092a864886f70d01010a3034a00f300d${oid}0500a11c301a06092a864886f70d010108300d${oid}0500a2030201${salt}`
}
const authData = (identifier: string, signature: Uint8Array): Uint8Array =>
  concat(Uint8Array.of(identifier.length / 2), fromHex(identifier), signature)

const STOCK = {
  p256: generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
  p384: generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ed25519: generateKeyPairSync('ed25519'),
}
const spki = (key: KeyObject): Uint8Array => new Uint8Array(key.export({ format: 'der', type: 'spki' }))
const pss = (hash: HashName) => ({
  key: STOCK.rsa.privateKey,
  padding: constants.RSA_PKCS1_PSS_PADDING,
  saltLength: HASH_LENGTH[hash],
})

/** A stock node that signs as `data` says, and what our client makes of it. */
function stockNode(
  pinned: Uint8Array,
  data: (octets: Uint8Array, reflected: Uint8Array) => Uint8Array,
): Subject {
  const node = new RogueNode({ credential: PSK, peer: { id: KEY.id, publicKey: pinned } })
  node.init()
  const sign = replace('AUTH', () => {
    const octets = octetsOf(node.auth!, 'responder', KEY.id)
    const reflected = octetsOf(node.auth!, 'initiator', KEY.id)
    return { kind: 'AUTH', method: AUTH_METHOD.number.SIGNATURE, data: data(octets, reflected) }
  })
  node.authenticate(sign, OPEN)
  return node.subject
}

const accepts = (title: string, pinned: Uint8Array, data: (octets: Uint8Array) => Uint8Array): void =>
  void test(`7427: ${title}`, () => {
    const subject = stockNode(pinned, data)
    assert.deepEqual(subject.last('ike.established')!.peer, { kind: 'key', id: KEY.id, publicKey: pinned })
  })

const refuses = (
  title: string,
  pinned: Uint8Array,
  data: (octets: Uint8Array, reflected: Uint8Array) => Uint8Array,
): void =>
  void test(`${title}: an impostor`, () => {
    const subject = stockNode(pinned, data)
    assert.equal(subject.last('ike.established'), undefined)
    assert.equal(subject.last('ike.closed')!.reason, 'IPP_IKE_AUTH_FAILED')
    assert.equal(subject.count('auth-failed'), 1)
    assert.ok(subject.isEmpty)
  })

const P256 = spki(STOCK.p256.publicKey)
const RSA = spki(STOCK.rsa.publicKey)

for (const hash of ['sha256', 'sha384', 'sha512'] as const) {
  for (const curve of ['p256', 'p384'] as const)
    accepts(`ECDSA ${curve} with ${hash}`, spki(STOCK[curve].publicKey), (octets) =>
      authData(ECDSA_IDENTIFIER[hash], sign(hash, octets, STOCK[curve].privateKey)),
    )
  accepts(`RSASSA-PSS with ${hash}`, RSA, (octets) =>
    authData(pssIdentifier(hash), sign(hash, octets, pss(hash))),
  )
}
accepts('RSASSA-PSS without the NULL of the hashes (RFC 4055 section 2.1)', RSA, (octets) => {
  const oid = '0609608648016503040201'
  const identifier = `303d06092a864886f70d01010a3030a00d300b${oid}a11a301806092a864886f70d010108300b${oid}a203020120`
  return authData(identifier, sign('sha256', octets, pss('sha256')))
})
accepts('8420: Ed25519 with a key pinned as SubjectPublicKeyInfo', spki(STOCK.ed25519.publicKey), (octets) =>
  authData('300506032b6570', sign(null, octets, STOCK.ed25519.privateKey)),
)

refuses('7427: ECDSA with SHA-1', P256, (octets) =>
  authData('300906072a8648ce3d0401', sign('sha1', octets, STOCK.p256.privateKey)),
)
refuses('7427: ECDSA that names another hash than it used', P256, (octets) =>
  authData(ECDSA_IDENTIFIER.sha512, sign('sha256', octets, STOCK.p256.privateKey)),
)
refuses('7427: ECDSA by another key', spki(STOCK.p384.publicKey), (octets) =>
  authData(ECDSA_IDENTIFIER.sha256, sign('sha256', octets, STOCK.p256.privateKey)),
)
refuses('7427: ECDSA with NULL parameters', P256, (octets) =>
  authData('300c06082a8648ce3d0403020500', sign('sha256', octets, STOCK.p256.privateKey)),
)
refuses('7427: ECDSA with an octet behind the signature', P256, (octets) =>
  concat(authData(ECDSA_IDENTIFIER.sha256, sign('sha256', octets, STOCK.p256.privateKey)), Uint8Array.of(0)),
)
refuses('7427: ECDSA in the form of RFC 4754 (r | s)', P256, (octets) =>
  authData(
    ECDSA_IDENTIFIER.sha256,
    sign('sha256', octets, { key: STOCK.p256.privateKey, dsaEncoding: 'ieee-p1363' }),
  ),
)
refuses('CVE-2013-2944: ECDSA without a signature', P256, () =>
  authData(ECDSA_IDENTIFIER.sha256, new Uint8Array(0)),
)
refuses('CVE-2013-2944: ECDSA with r = s = 0', P256, () =>
  authData(ECDSA_IDENTIFIER.sha256, fromHex('3006020100020100')),
)
refuses(
  '7427: a signature by the right key over the octets of the other side (reflection)',
  P256,
  (_, reflected) => authData(ECDSA_IDENTIFIER.sha256, sign('sha256', reflected, STOCK.p256.privateKey)),
)
refuses('CVE-2018-16151: RSASSA-PKCS1-v1_5 with SHA-256', RSA, (octets) =>
  authData('300d06092a864886f70d01010b0500', sign('sha256', octets, STOCK.rsa.privateKey)),
)
refuses('CVE-2018-16152: RSASSA-PKCS1-v1_5 in the name of PSS', RSA, (octets) =>
  authData(pssIdentifier('sha256'), sign('sha256', octets, STOCK.rsa.privateKey)),
)
refuses('CVE-2026-50722: RSASSA-PKCS1-v1_5 with SHA-1', RSA, (octets) =>
  authData('300d06092a864886f70d0101050500', sign('sha1', octets, STOCK.rsa.privateKey)),
)
refuses('7427: RSASSA-PSS with its defaults, which are SHA-1', RSA, (octets) =>
  authData(
    '300d06092a864886f70d01010a3000',
    sign('sha1', octets, {
      key: STOCK.rsa.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: 20,
    }),
  ),
)
refuses('7427: RSASSA-PSS with MGF1 of another hash', RSA, (octets) =>
  authData(
    pssIdentifier('sha256').replace(/(f70d010108300d06096086480165030402)01/, '$102'),
    sign('sha256', octets, pss('sha256')),
  ),
)
for (const [title, salt] of [
  ['a salt of 0', '00'],
  ['a negative salt', 'e0'],
  ['another salt than it used', '14'],
] as const)
  refuses(`CVE-2021-41990: RSASSA-PSS with ${title}`, RSA, (octets) =>
    authData(pssIdentifier('sha256').replace(/20$/, salt), sign('sha256', octets, pss('sha256'))),
  )
refuses('CVE-2021-41990: RSASSA-PSS with a huge salt', RSA, (octets) =>
  authData(
    pssIdentifier('sha256')
      .replace('3041', '3044')
      .replace('3034', '3037')
      .replace(/a203020120$/, 'a20602047fffffff'),
    sign('sha256', octets, pss('sha256')),
  ),
)
refuses('CVE-2017-11185: RSA signature of value 0', RSA, () =>
  authData(pssIdentifier('sha256'), new Uint8Array(256)),
)
refuses('CVE-2017-11185: RSA signature of value n', RSA, () => {
  const { n } = STOCK.rsa.publicKey.export({ format: 'jwk' })
  return authData(pssIdentifier('sha256'), new Uint8Array(Buffer.from(n!, 'base64url')))
})
refuses('7427: the algorithm of another kind of key', KEY.credential.publicKey, (octets) =>
  authData(ECDSA_IDENTIFIER.sha256, sign('sha256', octets, STOCK.p256.privateKey)),
)
refuses('8420: Ed25519ph', KEY.credential.publicKey, (octets) =>
  authData(
    '300506032b6570',
    nodeCrypto.ed25519Sign(KEY.credential.privateKey, nodeCrypto.hash('sha512', octets)),
  ),
)
for (const [title, identifier] of [
  ['no algorithm', ''],
  ['an algorithm cut short', '300a06082a8648ce3d0403'],
  ['nested lengths beyond the buffer', '300a06ff2a8648ce3d040302'],
  ['an indefinite length', '308006082a8648ce3d0403020000'],
  ['a SEQUENCE in a SEQUENCE', '300c300a06082a8648ce3d040302'],
] as const)
  refuses(`CVE-2017-9023: ${title}`, P256, (octets) =>
    authData(identifier, sign('sha256', octets, STOCK.p256.privateKey)),
  )
refuses('7427: a length octet beyond the payload', P256, () => Uint8Array.of(255, 0x30))
refuses('7427: nothing at all', P256, () => new Uint8Array(0))
refuses('a pinned key that is none', fromHex('3000'), (octets) =>
  authData(ECDSA_IDENTIFIER.sha256, sign('sha256', octets, STOCK.p256.privateKey)),
)

// ---------------------------------------------------------------------------------------------- signing

const announce = (...hashes: readonly number[]): Alter =>
  replace('Notify', (payload) =>
    payload.type === N.SIGNATURE_HASH_ALGORITHMS
      ? notify(payload.type, Uint8Array.from(hashes.flatMap((hash) => [0, hash])))
      : payload,
  )

for (const [hash, name] of [
  [HASH_ALGORITHM.number.SHA2_256, 'sha256'],
  [HASH_ALGORITHM.number.SHA2_384, 'sha384'],
  [HASH_ALGORITHM.number.SHA2_512, 'sha512'],
] as const) {
  test(`7427: a node with an ECDSA key signs for an initiator that announces ${name} and not "identity"`, () => {
    const ecdsa = nodeCrypto.p256Generate()
    const subject = responder({ credential: { ...KEY.credential, ecdsa } })
    const client = new RogueClient(subject)
    client.init(announce(1, hash))
    const auth = client.authenticate(withoutMethods)!.find((payload) => payload.kind === 'AUTH')
    assert.ok(auth?.kind === 'AUTH')
    assert.equal(toHex(auth.data.subarray(0, 13)), `0c${ECDSA_IDENTIFIER[name]}`)
    assert.ok(auth.data.length >= 13 + 2 + 60)
    // An initiator of ours that has this key pinned is content with it.
    const pinned = encodeSpki({ kind: 'ecdsa', curve: 'p256', point: ecdsa.publicKey })
    const node = new RogueNode({ peer: { id: KEY.id, publicKey: pinned } })
    node.init()
    node.auth = { ...node.auth!, peerHashes: new Set([hash]) }
    node.authenticate(asIs, { credential: { ...KEY.credential, ecdsa } })
    assert.ok(node.subject.last('ike.established'))
  })
}

test('8420: whoever announces "identity" gets Ed25519, whatever else it announces', () => {
  const subject = responder({ credential: { ...KEY.credential, ecdsa: nodeCrypto.p256Generate() } })
  const client = new RogueClient(subject)
  client.init()
  const auth = client.authenticate()!.find((payload) => payload.kind === 'AUTH')
  assert.ok(auth?.kind === 'AUTH')
  assert.equal(toHex(auth.data.subarray(0, 8)), '07300506032b6570')
})

for (const [title, hashes] of [
  ['nothing', []],
  ['SHA-1 alone', [1]],
  ['what nobody knows', [77, 0]],
] as const)
  test(`7427: an initiator that announces ${title} cannot be answered`, () => {
    const subject = responder({ credential: { ...KEY.credential, ecdsa: nodeCrypto.p256Generate() } })
    const client = new RogueClient(subject)
    client.init(announce(...hashes))
    refused(subject, client.authenticate())
  })

// ---------------------------------------------------------------------------------------------- P-256

test('5903: a stock initiator that has no X25519 gets P-256', () => {
  const client = new RogueClient(responder(OPEN), undefined, GROUP.number.P256)
  client.init()
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))
  assert.match(client.subject.last('ike.established')!.suite, /p256$/)
})

test('5903: between X25519 and P-256 a node takes X25519, and asks for it', () => {
  const both: Alter = replace('SA', ({ proposals }) => ({
    kind: 'SA',
    proposals: proposals.map((proposal) => ({
      ...proposal,
      transforms: [
        ...proposal.transforms,
        { type: TRANSFORM.number.KE, id: GROUP.number.X25519, attributes: [] },
      ],
    })),
  }))
  const client = new RogueClient(responder(), undefined, GROUP.number.P256)
  const answer = client.init(both)
  assert.deepEqual(notifyTypes(answer), [N.INVALID_KE_PAYLOAD])
  assert.ok(answer?.[0]?.kind === 'Notify' && toHex(answer[0].data) === '001f')
})

for (const [title, value] of [
  ['CVE-2015-3240: a P-256 value of 0', new Uint8Array(64)],
  ['CVE-2015-3240: no point of P-256', new Uint8Array(64).fill(7)],
  ['CVE-2023-41913: a P-256 value of 65 octets', new Uint8Array(65).fill(4)],
  ['CVE-2023-41913: an X25519 value in the name of P-256', nodeCrypto.x25519Generate().publicKey],
] as const) {
  test(`${title}: silence`, () => {
    const subject = responder()
    const client = new RogueClient(subject, undefined, GROUP.number.P256)
    const answer = client.init(replace('KE', (payload) => ({ ...payload, data: value })))
    assert.equal(answer, undefined)
    assert.equal(subject.count('bad-ke'), 1)
    assert.ok(subject.isEmpty)
  })
}

test('PSK: over links that lose and repeat', () => {
  const network = new SimNetwork({ seed: 5, link: { loss: 0.2, duplication: 0.1, latency: [10, 30] } })
  const key = nodeKey(nodeCrypto)
  addHost(network, { address: NODE, seed: 6, responder: openPolicy(key, OPEN) })
  const client = addHost(network, { address: CLIENT, seed: 7 })
  client.engine.initiate(anonymousRequest(key, { credential: PSK }), network.now)
  network.run(60_000, () => find(client, 'child.established') !== undefined)
  assert.ok(find(client, 'child.established'))
})

// ---------------------------------------------------------------------------------------------- pieces

const someId = (): IkeId => ({ type: ID_TYPE.number.KEY_ID, data: nodeCrypto.random(16) })

function sharedKey(client: RogueClient, id: IkeId, key: Uint8Array): Uint8Array {
  return sharedKeyAuth(client.auth!.prf, key, octetsOf(client.auth!, 'initiator', id))
}

/** IKE_AUTH of somebody with this identity and this proof. */
function proven(client: RogueClient, id: IkeId, data: Uint8Array): Payload[] {
  return client.authPayloads(PSK).map((payload) => {
    if (payload.kind === 'IDi') return { kind: 'IDi', id }
    return payload.kind === 'AUTH' ? { ...payload, data } : payload
  })
}
