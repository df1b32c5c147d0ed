/**
 * Input that broke real daemons, each by its name: no throw, no state left, the right answer or silence, a counter.
 * (Rows about features this engine does not speak - EAP, certificates, RSA, resumption - are answered by refusing them.)
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, toHex } from '#base/bytes'
import { ip, ipToBytes } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import type { InitiateRequest } from '#ikev2/events'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader } from '#ikev2/message/header'
import { notify, type Payload } from '#ikev2/message/payload'
import type { Proposal, Transform } from '#ikev2/message/proposal'
import { AUTH_METHOD, EXCHANGE, NOTIFY, PAYLOAD } from '#ikev2/numbers'
import { prove } from '#ikev2/proof'
import { anonymousRequest, CLIENT, NODE, nodeKey, openPolicy, pathBetween } from './pair.ts'
import {
  type Alter,
  asIs,
  KEY,
  notifyTypes,
  RogueClient,
  RogueNode,
  replace,
  responder,
  Subject,
  twice,
  without,
} from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const NOTHING = new Uint8Array(0)

// ---------------------------------------------------------------------------------------------- IKE_SA_INIT requests

/** The alteration is refused in silence, or with the notify named; no IKE SA is made. */
function refusesInit(title: string, alter: Alter, counter: string, answer?: number): void {
  test(`${title}: ${answer === undefined ? 'silence' : NOTIFY.nameOf(answer)}`, () => {
    const subject = responder()
    const payloads = new RogueClient(subject).init(alter)
    assert.deepEqual(notifyTypes(payloads), answer === undefined ? [] : [answer])
    assert.equal(subject.count(counter), 1)
    assert.ok(subject.isEmpty)
  })
}

const transforms = (change: (transforms: readonly Transform[]) => readonly Transform[]): Alter =>
  replace('SA', ({ proposals }) => ({
    kind: 'SA',
    proposals: proposals.map((proposal) => ({ ...proposal, transforms: change(proposal.transforms) })),
  }))
const keyLengths = (attributes: Transform['attributes']): Alter =>
  transforms((all) =>
    all.filter(({ id }) => id !== 28).map((each) => (each.id === 20 ? { ...each, attributes } : each)),
  )
const ke = (group: number, data: Uint8Array): Alter => replace('KE', () => ({ kind: 'KE', group, data }))
const nonce = (length: number): Alter =>
  replace('Nonce', () => ({ kind: 'Nonce', data: new Uint8Array(length) }))
const append =
  (...more: Payload[]): Alter =>
  (payloads) => [...payloads, ...more]
const unknown = (type: number, critical: boolean): Payload => ({
  kind: 'Unknown',
  type,
  critical,
  data: NOTHING,
})

refusesInit(
  'CVE-2014-9221: KE of group 1025',
  ke(1025, new Uint8Array(32)),
  'invalid-ke',
  N.INVALID_KE_PAYLOAD,
)
refusesInit(
  'CVE-2014-9221: transforms of internal numbers only',
  transforms((all) => all.map((each) => (each.type === 4 ? { ...each, id: 1025 } : each))),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
)
for (const kind of ['SA', 'KE', 'Nonce'] as const) {
  refusesInit(`CVE-2013-6467: IKE_SA_INIT without ${kind}`, without(kind), 'malformed')
  refusesInit(`CVE-2013-6467: IKE_SA_INIT with two ${kind}`, twice(kind), 'malformed')
}
refusesInit('CVE-2015-3240: KE value 0', ke(31, new Uint8Array(32)), 'bad-ke')
refusesInit('CVE-2015-3240: KE of small order', ke(31, new Uint8Array(32).with(0, 1)), 'bad-ke')
refusesInit('CVE-2023-41913: KE longer than the group', ke(31, new Uint8Array(2000).fill(9)), 'bad-ke')
refusesInit('CVE-2023-41913: empty KE', ke(31, NOTHING), 'bad-ke')
refusesInit(
  'CVE-2016-5391: IKE proposal without a KE transform',
  transforms((all) => all.filter(({ type }) => type !== 4)),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
)
refusesInit(
  'CVE-2018-10811: only a PRF that is not there',
  transforms((all) => all.map((each) => (each.type === 2 ? { ...each, id: 4 } : each))),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
)
refusesInit('CVE-2024-3652: AES-GCM without key length', keyLengths([]), 'no-proposal', N.NO_PROPOSAL_CHOSEN)
for (const bits of [0, 1, 127, 192, 255, 512, 65535])
  refusesInit(
    `CVE-2024-3652: AES-GCM of ${bits} bits`,
    keyLengths([{ type: 14, value: bits }]),
    'no-proposal',
    N.NO_PROPOSAL_CHOSEN,
  )
refusesInit(
  'CVE-2024-3652: key length twice',
  keyLengths([
    { type: 14, value: 256 },
    { type: 14, value: 256 },
  ]),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
)
refusesInit(
  'CVE-2024-3652: ChaCha20-Poly1305 with a key length',
  transforms((all) =>
    all
      .filter(({ id }) => id !== 20)
      .map((each) => (each.id === 28 ? { ...each, attributes: [{ type: 14, value: 256 }] } : each)),
  ),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
)
for (const length of [0, 15, 257, 60_000])
  refusesInit(`CVE-2025-9242: nonce of ${length} octets`, nonce(length), 'malformed')
refusesInit(
  'RFC 7296: critical unknown payload',
  append(unknown(200, true)),
  'critical-payload',
  N.UNSUPPORTED_CRITICAL_PAYLOAD,
)
refusesInit('CVE-2015-3991: a critical IKEv1 payload', append(unknown(4, true)), 'critical-payload', 1)
refusesInit(
  '9370: ADDKE2 without NONE',
  transforms((all) => [...all, { type: 7, id: 36, attributes: [] }]),
  'no-proposal',
  14,
)
refusesInit(
  'an SA without proposals of ours',
  replace('SA', (sa) => ({ ...sa, proposals: sa.proposals.map((each) => ({ ...each, protocol: 3 })) })),
  'no-proposal',
  14,
)

test('CVE-2015-3991: IKEv1 payloads that are not critical are skipped', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  assert.ok(client.init(append(unknown(4, false), unknown(13, false)))?.some(({ kind }) => kind === 'SA'))
})

test('CVE-2013-4564: datagrams shorter than the header, and lengths that are not theirs', () => {
  const subject = responder()
  const good = new RogueClient(subject).initDatagram()
  for (let length = 0; length < good.length; length++)
    assert.deepEqual(subject.hear(good.subarray(0, length)), [])
  assert.deepEqual(subject.hear(concat(good, Uint8Array.of(0))), [])
  for (const wrong of [0, 27, good.length - 1, good.length + 1, 0xffffffff]) {
    const changed = good.slice()
    new DataView(changed.buffer).setUint32(24, wrong)
    assert.deepEqual(subject.hear(changed), [])
  }
  assert.equal(subject.count('malformed'), good.length + 6)
  assert.ok(subject.isEmpty)
})

test('RFC 7296: other major versions, I and R flags, unknown exchanges, zero SPI', () => {
  const subject = responder()
  const good = new RogueClient(subject).initDatagram()
  const change = (at: number, value: number): Uint8Array => good.with(at, value)
  for (const version of [0x00, 0x10, 0x1f]) assert.deepEqual(subject.hear(change(17, version)), [])
  for (const exchange of [0, 35, 36, 37, 38, 43, 44, 99, 255])
    assert.deepEqual(subject.hear(change(18, exchange)), [])
  for (const flags of [0x00, 0x20, 0x28]) assert.deepEqual(subject.hear(change(19, flags)), [])
  assert.deepEqual(subject.hear(change(23, 1)), [])
  assert.deepEqual(subject.hear(change(8, 1)), [], 'a responder SPI in a first message')
  assert.deepEqual(subject.hear(concat(new Uint8Array(8), good.subarray(8))), [])
  assert.equal(subject.count('version'), 3)
  assert.ok(subject.isEmpty)
  assert.equal(subject.hear(change(19, 0x08 | 0x10 | 0x07)).length, 1, 'reserved bits and V are ignored')
})

test('RFC 7296: a request of ours that comes back to us is nobody', () => {
  const node = new RogueNode()
  assert.deepEqual(node.hear(node.request), [])
  const sent = node.init()
  assert.deepEqual(node.hear(sent[0]!), [])
  assert.equal(node.subject.count('unknown-spi'), 1)
  assert.equal(node.subject.count('not-a-responder'), 1)
})

test('CVE-2023-28771: metacharacters in a notify reach no text of ours', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init(append(notify(N.NO_PROPOSAL_CHOSEN, new TextEncoder().encode('";bash -c "id";echo -e "\n'))))
  client.ask(X.INFORMATIONAL, [])
  assert.ok(!JSON.stringify(subject.outputs.filter(({ kind }) => kind === 'refused')).includes('bash'))
})

// ---------------------------------------------------------------------------------------------- cookies

test('cookies: none, of 0, 64 and 65 octets, from elsewhere, not first, for another nonce, of yesterday', () => {
  const subject = new Subject({ responder: openPolicy(KEY), limits: { cookieAt: 0 } })
  const client = new RogueClient(subject)
  const cookieOf = (payloads: readonly Payload[] | undefined): Uint8Array => {
    assert.deepEqual(notifyTypes(payloads), [N.COOKIE])
    return (payloads![0] as Payload & { kind: 'Notify' }).data
  }
  const cookie = cookieOf(client.init())
  const first =
    (data: Uint8Array): Alter =>
    (payloads) => [notify(N.COOKIE, data), ...payloads]
  for (const wrong of [
    NOTHING,
    new Uint8Array(64),
    new Uint8Array(65),
    cookie.subarray(1),
    cookie.with(5, cookie[5]! ^ 1),
  ])
    cookieOf(client.init(first(wrong)))
  cookieOf(client.init(append(notify(N.COOKIE, cookie))))
  cookieOf(client.init((payloads) => first(cookie)(nonce(32)(payloads))))
  const elsewhere = subject.hear(client.initDatagram(first(cookie)), pathBetween(NODE, ip('192.0.2.77')))
  assert.equal(decodeHeader(elsewhere[0]!).firstPayload, PAYLOAD.number.Notify)
  assert.ok(subject.isEmpty, 'cookies cost no state')
  subject.sleep(150_000)
  cookieOf(client.init(first(cookie)))
  const fresh = cookieOf(client.init())
  subject.sleep(60_000)
  assert.ok(
    client.init(first(fresh))?.some(({ kind }) => kind === 'SA'),
    'the secret before this one still counts',
  )
})

test('cookies: an initiator is not led in circles', () => {
  const node = new RogueNode()
  let transmitted = 0
  for (let i = 1; i < 50; i++)
    transmitted += node.clear([notify(N.COOKIE, new Uint8Array(16).fill(i))], NOTHING_SPI).length
  assert.equal(transmitted, 4)
  assert.equal(node.subject.count('init-loop'), 45)
  node.subject.sleep(10_000)
  assert.equal(node.subject.last('ike.closed')!.reason, 'IPP_IKE_PROTOCOL')
  assert.ok(node.subject.isEmpty)
})

test('cookies: an initiator does not return one of 0 or 65 octets', () => {
  for (const length of [0, 65]) {
    const node = new RogueNode()
    assert.deepEqual(node.clear([notify(N.COOKIE, new Uint8Array(length))], NOTHING_SPI), [])
    assert.equal(node.subject.count('malformed'), 1)
  }
})

const NOTHING_SPI = new Uint8Array(8)

// ---------------------------------------------------------------------------------------------- hints to an initiator

for (const [name, payloads] of [
  ['NO_PROPOSAL_CHOSEN', [notify(N.NO_PROPOSAL_CHOSEN)]],
  ['AUTHENTICATION_FAILED', [notify(N.AUTHENTICATION_FAILED)]],
  ['INVALID_IKE_SPI', [notify(N.INVALID_IKE_SPI)]],
  ['INVALID_KE_PAYLOAD with an unoffered group', [notify(N.INVALID_KE_PAYLOAD, Uint8Array.of(0, 2))]],
  ['INVALID_KE_PAYLOAD with the group we tried', [notify(N.INVALID_KE_PAYLOAD, Uint8Array.of(0, 31))]],
  ['INVALID_KE_PAYLOAD with no group', [notify(N.INVALID_KE_PAYLOAD)]],
  ['nothing at all', []],
] as const) {
  test(`3.3.6: unprotected ${name} is a hint: a better answer still counts`, () => {
    const node = new RogueNode()
    assert.deepEqual(node.clear(payloads, NOTHING_SPI), [])
    assert.equal(node.subject.last('ike.closed'), undefined)
    node.init()
    node.authenticate()
    assert.ok(node.subject.last('child.established'))
  })

  test(`3.3.6: unprotected ${name}, and nothing better: it ends soon, and cleanly`, () => {
    const node = new RogueNode()
    node.clear(payloads, NOTHING_SPI)
    node.subject.sleep(6000)
    assert.ok(node.subject.last('ike.closed'))
    assert.ok(node.subject.isEmpty)
  })
}

test('an answer with a zero responder SPI is not taken, and a better one still counts', () => {
  const node = new RogueNode()
  const spi = node.spiResponder.slice()
  node.spiResponder.fill(0)
  assert.deepEqual(node.init(), [])
  assert.equal(node.subject.count('zero-spi'), 1)
  node.spiResponder.set(spi)
  node.init()
  node.authenticate()
  assert.ok(node.subject.last('child.established'))
})

/** An answer to IKE_SA_INIT that must not be taken. */
function ignoresInitAnswer(title: string, alter: Alter, counter: string): void {
  test(`${title}: not taken`, () => {
    const node = new RogueNode()
    assert.deepEqual(node.init(alter), [])
    assert.equal(node.subject.count(counter), 1)
    assert.equal(node.subject.last('ike.closed'), undefined)
  })
}

const proposals = (change: (proposals: readonly Proposal[]) => readonly Proposal[]): Alter =>
  replace('SA', (sa) => ({ ...sa, proposals: change(sa.proposals) }))

ignoresInitAnswer(
  '2.7: a proposal number never offered',
  proposals(([p]) => [{ ...p!, number: 9 }]),
  'no-proposal',
)
ignoresInitAnswer(
  '2.7: two proposals',
  proposals(([p]) => [p!, p!]),
  'no-proposal',
)
ignoresInitAnswer('2.7: changed key length', keyLengths([{ type: 14, value: 128 }]), 'no-proposal')
ignoresInitAnswer(
  '2.7: a transform type missing',
  transforms((all) => all.slice(1)),
  'no-proposal',
)
ignoresInitAnswer(
  '2.7: a transform never offered',
  transforms((all) => [...all, { type: 6, id: 36, attributes: [] }]),
  'no-proposal',
)
ignoresInitAnswer(
  '2.7: two transforms of a type',
  transforms((all) => [...all, all[0]!]),
  'no-proposal',
)
ignoresInitAnswer('2.7: KE group not of the SA', ke(19, new Uint8Array(64)), 'bad-ke')
ignoresInitAnswer('CVE-2015-3240: KE value 0', ke(31, new Uint8Array(32)), 'bad-ke')
ignoresInitAnswer('nonce of 15 octets', nonce(15), 'malformed')
ignoresInitAnswer('critical payload in an answer', append(unknown(99, true)), 'critical-payload')
for (const kind of ['SA', 'KE', 'Nonce'] as const)
  ignoresInitAnswer(`CVE-2013-6467: answer without ${kind}`, without(kind), 'malformed')

// ---------------------------------------------------------------------------------------------- IKE_AUTH requests

/** Half-open stays half-open or ends; the answer is the notify named; nobody was established. */
function refusesAuth(
  title: string,
  alter: Alter,
  counter: string,
  answer: number,
  beside: readonly string[] = [],
): void {
  test(`${title}: ${NOTIFY.nameOf(answer)}`, () => {
    const subject = responder()
    const client = new RogueClient(subject)
    client.init()
    const payloads = client.authenticate(alter)
    assert.deepEqual(notifyTypes(payloads), [answer])
    assert.deepEqual(
      payloads!.filter(({ kind }) => kind !== 'Notify').map(({ kind }) => kind),
      beside,
    )
    assert.ok(subject.count(counter) >= 1, JSON.stringify(subject.engine.counters()))
    assert.equal(subject.last('ike.established'), undefined)
    assert.equal(subject.last('ike.closed'), undefined)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

const PROOF = ['IDr', 'AUTH']
const id = (kind: 'IDi' | 'IDr', type: number, data: Uint8Array): Alter =>
  replace(kind, () => ({ kind, id: { type, data } }))
const auth = (method: number, data: Uint8Array): Alter =>
  replace('AUTH', () => ({ kind: 'AUTH', method, data }))

for (const kind of ['IDi', 'SA', 'TSi', 'TSr'] as const) {
  refusesAuth(`CVE-2013-6467: IKE_AUTH without ${kind}`, without(kind), 'malformed', N.INVALID_SYNTAX)
  refusesAuth(`CVE-2013-6467: IKE_AUTH with two ${kind}`, twice(kind), 'malformed', N.INVALID_SYNTAX)
}
refusesAuth('CVE-2026-78134: two IDr', twice('IDr'), 'malformed', N.INVALID_SYNTAX)
refusesAuth('CVE-2021-45079: AUTH missing (EAP)', without('AUTH'), 'auth-failed', N.AUTHENTICATION_FAILED)
refusesAuth(
  'CVE-2021-45079: an EAP payload',
  append({ kind: 'EAP', data: Uint8Array.of(3, 1, 0, 4) }),
  'malformed',
  N.INVALID_SYNTAX,
)
refusesAuth('two AUTH', twice('AUTH'), 'malformed', N.INVALID_SYNTAX)
refusesAuth(
  'KE in IKE_AUTH',
  append({ kind: 'KE', group: 31, data: new Uint8Array(32) }),
  'malformed',
  N.INVALID_SYNTAX,
)
refusesAuth(
  '7619: NULL with wrong octets',
  auth(13, new Uint8Array(32)),
  'auth-failed',
  N.AUTHENTICATION_FAILED,
)
refusesAuth('7619: NULL with no octets', auth(13, NOTHING), 'auth-failed', N.AUTHENTICATION_FAILED)
refusesAuth(
  '7619: ID_NULL with data',
  id('IDi', 13, Uint8Array.of(1)),
  'auth-failed',
  N.AUTHENTICATION_FAILED,
)
refusesAuth('7619: NULL with a name', id('IDi', 2, Uint8Array.of(97)), 'auth-failed', N.AUTHENTICATION_FAILED)
refusesAuth(
  'CVE-2026-47895: empty identity that signs',
  (payloads) => auth(14, NOTHING)(id('IDi', 11, NOTHING)(payloads)),
  'auth-failed',
  N.AUTHENTICATION_FAILED,
)
refusesAuth(
  'CVE-2013-6075: ID_DER_ASN1_DN cut short',
  id('IDi', 9, Uint8Array.of(0x30, 0x82)),
  'auth-failed',
  N.AUTHENTICATION_FAILED,
)
refusesAuth(
  'CVE-2025-9242: IDi of 60000 octets',
  id('IDi', 11, new Uint8Array(60_000)),
  'auth-failed',
  N.AUTHENTICATION_FAILED,
)
refusesAuth('IDr that is not ours', id('IDr', 11, new Uint8Array(32)), 'auth-failed', N.AUTHENTICATION_FAILED)
for (const method of [0, 1, 2, 3, 9, 12, 15, 255])
  refusesAuth(
    `CVE-2015-4171: ${AUTH_METHOD.nameOf(method)}`,
    auth(method, new Uint8Array(32)),
    'auth-failed',
    N.AUTHENTICATION_FAILED,
  )
refusesAuth(
  'critical payload',
  append(unknown(250, true)),
  'critical-payload',
  N.UNSUPPORTED_CRITICAL_PAYLOAD,
)
refusesAuth(
  'no ESP proposal of ours',
  transforms((all) => all.map((each) => ({ ...each, id: 12 }))),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
  PROOF,
)
refusesAuth(
  'CVE-2024-3652: ESP without encryption',
  transforms((all) => all.filter(({ type }) => type !== 1)),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
  PROOF,
)
refusesAuth(
  'ESP SPI 0',
  proposals(([p]) => [{ ...p!, spi: new Uint8Array(4) }]),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
  PROOF,
)
refusesAuth(
  'ESP SPI 255',
  proposals(([p]) => [{ ...p!, spi: Uint8Array.of(0, 0, 0, 255) }]),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
  PROOF,
)
refusesAuth(
  'ESP SPI of 8 octets',
  proposals(([p]) => [{ ...p!, spi: new Uint8Array(8) }]),
  'no-proposal',
  N.NO_PROPOSAL_CHOSEN,
  PROOF,
)
refusesAuth('no CP', without('CP'), 'no-cp', N.FAILED_CP_REQUIRED, PROOF)
refusesAuth(
  'CP SET',
  replace('CP', (cp) => ({ ...cp, type: 3 })),
  'no-cp',
  N.FAILED_CP_REQUIRED,
  PROOF,
)
refusesAuth(
  'CP without an address',
  replace('CP', (cp) => ({ ...cp, attributes: [{ type: 3, data: NOTHING }] })),
  'no-cp',
  N.FAILED_CP_REQUIRED,
  PROOF,
)
refusesAuth(
  '3.15: an IPv6 address alone is asked for',
  replace('CP', (cp) => ({ ...cp, attributes: [{ type: 8, data: NOTHING }] })),
  'no-address',
  N.INTERNAL_ADDRESS_FAILURE,
  PROOF,
)
for (const [type, length] of [
  [1, 3],
  [1, 17],
  [2, 5],
  [8, 4],
  [8, 16],
] as const)
  refusesAuth(
    `3.15.1: configuration attribute ${type} of ${length} octets`,
    replace('CP', (cp) => ({ ...cp, attributes: [{ type, data: new Uint8Array(length) }] })),
    'malformed',
    N.INVALID_SYNTAX,
  )

const range = (start: string, end: string): Payload & { kind: 'TSi' } => ({
  kind: 'TSi',
  selectors: [
    {
      kind: 'range',
      protocol: 0,
      startPort: 0,
      endPort: 65535,
      start: ipToBytes(ip(start)),
      end: ipToBytes(ip(end)),
    },
  ],
})
refusesAuth(
  '2.9: a foreign TSi',
  replace('TSi', () => range('192.0.2.1', '192.0.2.1')),
  'ts-unacceptable',
  N.TS_UNACCEPTABLE,
  PROOF,
)
refusesAuth(
  '2.9: only selectors of an unknown type',
  replace('TSr', () => ({
    kind: 'TSr',
    selectors: [{ kind: 'other', type: 9, protocol: 0, data: new Uint8Array(16) }],
  })),
  'ts-unacceptable',
  N.TS_UNACCEPTABLE,
  PROOF,
)

test('7619: INITIAL_CONTACT of a NULL peer deletes nobody', () => {
  const subject = responder()
  new RogueClient(subject).establish()
  const second = new RogueClient(subject)
  second.init()
  second.authenticate(append(notify(N.INITIAL_CONTACT)))
  assert.equal(subject.count('sas.all'), 2)
  assert.equal(subject.last('ike.closed'), undefined)
})

test('CVE-2024-2357 / a stranger: a key that nobody pinned', () => {
  const stranger = nodeKey(nodeCrypto)
  const subject = responder()
  const client = new RogueClient(subject)
  client.init()
  const answer = client.ask(X.IKE_AUTH, client.authPayloads(stranger.credential))
  assert.deepEqual(notifyTypes(answer), [N.AUTHENTICATION_FAILED])
  subject.sleep(60_000)
  assert.ok(subject.isEmpty)
})

for (const [name, change] of [
  ['wrong OID', (data: Uint8Array) => data.with(7, 0x71)],
  ['length octet beyond the payload', (data: Uint8Array) => data.with(0, 255)],
  ['trailing octet', (data: Uint8Array) => concat(data, Uint8Array.of(0))],
  ['one octet short', (data: Uint8Array) => data.subarray(0, -1)],
  ['CVE-2013-2944: no signature at all', (data: Uint8Array) => data.subarray(0, 8)],
  ['empty', () => NOTHING],
  ['one bit flipped', (data: Uint8Array) => data.with(20, data[20]! ^ 1)],
] as const) {
  test(`7427/8420: Ed25519 with ${name}`, () => {
    const known = nodeKey(nodeCrypto)
    const subject = responder({ publicKeyOf: () => known.credential.publicKey })
    const client = new RogueClient(subject)
    client.init()
    const alter = replace('AUTH', ({ data, ...rest }) => ({ ...rest, data: change(data) }))
    const answer = client.ask(X.IKE_AUTH, alter(client.authPayloads(known.credential)))
    assert.deepEqual(notifyTypes(answer), [N.AUTHENTICATION_FAILED])
    assert.equal(subject.last('ike.established'), undefined)
  })
}

test("7427: a signature by the right key over the other side's octets (reflection)", () => {
  const known = nodeKey(nodeCrypto)
  const subject = responder({ publicKeyOf: () => known.credential.publicKey })
  const client = new RogueClient(subject)
  client.init()
  const reflected = prove(nodeCrypto, client.auth!, 'responder', known.credential, known.id)
  const answer = client.ask(
    X.IKE_AUTH,
    replace('AUTH', () => reflected)(client.authPayloads(known.credential)),
  )
  assert.deepEqual(notifyTypes(answer), [N.AUTHENTICATION_FAILED])
})

test('8420: an initiator that did not announce "identity" cannot be answered', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init((payloads) => payloads.filter((payload) => payload.kind !== 'Notify'))
  assert.deepEqual(notifyTypes(client.authenticate()), [N.AUTHENTICATION_FAILED])
})

test('8420: we do not sign for a responder that did not announce "identity"', () => {
  const node = new RogueNode({ credential: nodeKey(nodeCrypto).credential })
  assert.deepEqual(
    node.init((payloads) => payloads.filter((payload) => payload.kind !== 'Notify')),
    [],
  )
  assert.equal(node.subject.last('ike.closed')!.reason, 'IPP_IKE_AUTH_FAILED')
  assert.ok(node.subject.isEmpty)
})

test('8019 4.6: an IKE_AUTH that does not decrypt changes nothing; the right one still counts', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init()
  const good = client.seal(X.IKE_AUTH, client.authPayloads())
  for (let i = 40; i < good.length; i += 7) assert.deepEqual(subject.hear(good.with(i, good[i]! ^ 1)), [])
  assert.ok(subject.count('icv') > 10)
  assert.equal(subject.count('sas.half-open'), 1)
  assert.equal(subject.hear(good).length, 1)
  assert.ok(subject.last('child.established'))
})

test('2.2: a request from elsewhere, or with another SPI, is not from the peer', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init()
  const good = client.seal(X.IKE_AUTH, client.authPayloads())
  assert.deepEqual(subject.hear(good, pathBetween(NODE, ip('203.0.113.9'))), [])
  assert.deepEqual(subject.hear(good.with(0, good[0]! ^ 1)), [])
  assert.equal(subject.count('foreign-path'), 1)
  assert.equal(subject.count('foreign-spi'), 1)
})

// ---------------------------------------------------------------------------------------------- out of order

for (const [name, exchange, counter = 'illegal-exchange'] of [
  ['CVE-2019-12312: INFORMATIONAL', X.INFORMATIONAL],
  ['CVE-2026-78135: CREATE_CHILD_SA', X.CREATE_CHILD_SA],
  ['9242: IKE_INTERMEDIATE', X.IKE_INTERMEDIATE],
  ['9370: IKE_FOLLOWUP_KE', X.IKE_FOLLOWUP_KE],
  ['5723: IKE_SESSION_RESUME', X.IKE_SESSION_RESUME, 'bad-init'],
  ['an unknown exchange', 99],
] as const) {
  test(`${name} on an IKE SA that is not authenticated: silence, and nothing changes`, () => {
    const subject = responder()
    const client = new RogueClient(subject)
    client.init()
    assert.equal(client.ask(exchange, [{ kind: 'Nonce', data: new Uint8Array(32) }], 1), undefined)
    assert.equal(subject.count(counter), 1)
    assert.equal(subject.last('ike.established'), undefined)
    client.nextId = 1
    assert.ok(
      client.authenticate()?.some(({ kind }) => kind === 'SA'),
      'IKE_AUTH still counts',
    )
  })
}

test('CVE-2015-4171: a second IKE_AUTH on an established IKE SA (method 13 in a second round)', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  assert.equal(client.ask(X.IKE_AUTH, []), undefined)
  assert.equal(subject.count('illegal-exchange'), 1)
})

test('an initiator obeys no request before it is authenticated', () => {
  const node = new RogueNode()
  node.init()
  const deletion: Payload = { kind: 'Delete', protocol: 1, spis: [] }
  assert.deepEqual(node.hear(node.seal(X.INFORMATIONAL, 0, [deletion])), [])
  assert.equal(node.subject.count('illegal-exchange'), 1)
  node.authenticate()
  assert.ok(node.subject.last('child.established'))
})

test('2.2: message IDs too low and too high; a repeated one with other content; responses to nothing', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  for (const messageId of [0, 3, 4, 1000, 0xffffffff])
    assert.equal(client.ask(X.INFORMATIONAL, [], messageId), undefined)
  assert.equal(subject.count('message-id'), 5)
  const request = client.seal(X.INFORMATIONAL, [], 2)
  const [answer] = subject.hear(request)
  assert.deepEqual(subject.hear(request), [answer], 'the same octets again')
  assert.equal(client.ask(X.INFORMATIONAL, [notify(N.INITIAL_CONTACT)], 2), undefined)
  assert.equal(subject.count('changed-retransmission'), 1)
  const [response] = client.channel!.seal(client.header(X.INFORMATIONAL, 0, true), [])
  assert.deepEqual(subject.hear(response!), [])
  assert.equal(subject.count('unexpected-response'), 1)
})

test('CVE-2009-0790: INFORMATIONAL for SPIs that are nobody', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  client.spiResponder = new Uint8Array(8).fill(7)
  assert.equal(client.ask(X.INFORMATIONAL, []), undefined)
  assert.equal(subject.count('unknown-spi'), 1)
})

test('RFC 7296: two SK, nothing in SK, no SK, SK too short, payloads behind SK, SKF that was not negotiated', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const header = client.header(X.INFORMATIONAL, 2)
  const sk = (length: number): Payload => ({ kind: 'SK', inner: 0, data: new Uint8Array(length) })
  for (const payloads of [
    [],
    [notify(N.INITIAL_CONTACT)],
    ...[0, 7, 8, 23, 24, 25, 60].map((length) => [sk(length)]),
    [{ kind: 'SKF', inner: 0, data: Uint8Array.of(0, 1, 0, 1, 1, 2, 3) } as const],
  ])
    assert.deepEqual(subject.hear(encodeClear(header, payloads)), [])
  const good = client.seal(X.INFORMATIONAL, [], 2)
  const behind = concat(good, Uint8Array.of(0, 0, 0, 4))
  new DataView(behind.buffer).setUint32(24, behind.length)
  assert.deepEqual(subject.hear(behind), [])
  assert.equal(subject.count('sas.all'), 1)
  assert.equal(subject.hear(good).length, 1, 'an empty SK is a question')
})

test('CVE-2026-12413: many unknown payloads before SK', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const many = Array.from({ length: 5000 }, () => unknown(200, false))
  assert.deepEqual(subject.hear(encodeClear(client.header(X.INFORMATIONAL, 2), many)), [])
  assert.equal(subject.count('malformed'), 1)
})

// ---------------------------------------------------------------------------------------------- an established IKE SA

for (const [protocol, size] of [
  [0, 4],
  [1, 0],
  [1, 8],
  [2, 4],
  [3, 0],
  [3, 3],
  [3, 8],
] as const) {
  test(`CVE-2023-38710: REKEY_SA of ${protocol} with an SPI of ${size} octets: INVALID_SYNTAX, and the IKE SA ends`, () => {
    const subject = responder()
    const client = new RogueClient(subject).establish()
    const rekey: Payload = {
      kind: 'Notify',
      protocol,
      spi: new Uint8Array(size),
      type: N.REKEY_SA,
      data: NOTHING,
    }
    const answer = client.ask(X.CREATE_CHILD_SA, [rekey, ...createChild(client)])
    assert.deepEqual(notifyTypes(answer), [N.INVALID_SYNTAX])
    assert.equal(subject.last('ike.closed')!.reason, 'IPP_IKE_MALFORMED')
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

const createChild = (client: RogueClient): Payload[] => {
  const [sa] = client.offer.proposals
  return [
    { kind: 'SA', proposals: [{ ...sa!, protocol: 3, spi: Uint8Array.of(1, 2, 3, 4) }] },
    { kind: 'Nonce', data: new Uint8Array(32) },
  ]
}

test('CREATE_CHILD_SA: a second Child SA and a rekey of an unknown one are declined, and the IKE SA lives', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const unknownChild: Payload = {
    kind: 'Notify',
    protocol: 3,
    spi: Uint8Array.of(9, 9, 9, 9),
    type: N.REKEY_SA,
    data: NOTHING,
  }
  const ask = (...more: Payload[]): number[] =>
    notifyTypes(client.ask(X.CREATE_CHILD_SA, [...more, ...createChild(client)]))
  assert.deepEqual(ask(), [N.NO_ADDITIONAL_SAS])
  assert.deepEqual(ask(unknownChild), [N.CHILD_SA_NOT_FOUND])
  assert.equal(subject.count('sas.all'), 1)
})

test('CVE-2026-78133: rekey and delete of a Child SA at once', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const { sa, child } = subject.last('child.established')!
  subject.engine.closeChild(sa, child.inboundSpi, subject.now)
  const [deletion] = subject.drain()
  const spi = Uint8Array.of(0x12, 0x34, 0x56, 0x78)
  const rekey: Payload = { kind: 'Notify', protocol: 3, spi, type: N.REKEY_SA, data: NOTHING }
  const put = client.ask(X.CREATE_CHILD_SA, [rekey, ...createChild(client)])
  assert.deepEqual(notifyTypes(put), [N.TEMPORARY_FAILURE])
  const crossing: Payload = { kind: 'Delete', protocol: 3, spis: [spi, spi] }
  assert.deepEqual(client.ask(X.INFORMATIONAL, [crossing]), [], 'ours is out: it is not listed again')
  assert.equal(subject.last('child.closed'), undefined)
  const { messageId } = decodeHeader(deletion!)
  subject.hear(client.channel!.seal(client.header(X.INFORMATIONAL, messageId, true), [])[0]!)
  assert.equal(subject.outputs.filter(({ kind }) => kind === 'child.closed').length, 1)
})

test('3.4.4: DELETE of unknown SPIs and of AH gets an empty answer', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const spis = [Uint8Array.of(1, 2, 3, 4)]
  assert.deepEqual(client.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 3, spis }]), [])
  assert.deepEqual(client.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 2, spis }]), [])
  assert.equal(subject.last('child.closed'), undefined)
})

test('3.1.2: UPDATE_SA_ADDRESSES is not for us', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  assert.deepEqual(client.ask(X.INFORMATIONAL, [notify(N.UPDATE_SA_ADDRESSES)]), [])
})

test('2.5: a critical unknown payload on an established IKE SA is refused by name, and the IKE SA lives', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const answer = client.ask(X.INFORMATIONAL, [unknown(77, true)])
  assert.deepEqual(answer, [notify(N.UNSUPPORTED_CRITICAL_PAYLOAD, Uint8Array.of(77))])
  assert.deepEqual(client.ask(X.INFORMATIONAL, []), [])
})

test('2.21.3: a malformed authentic request is answered and ends the IKE SA', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  // A notify whose SPI is longer than itself: the codec cannot write it, so an unknown payload of that type does.
  const broken: Payload = {
    kind: 'Unknown',
    type: PAYLOAD.number.Notify,
    critical: false,
    data: Uint8Array.of(1, 200, 0, 1),
  }
  assert.deepEqual(notifyTypes(client.ask(X.INFORMATIONAL, [broken])), [N.INVALID_SYNTAX])
  assert.equal(subject.last('ike.closed')!.reason, 'IPP_IKE_MALFORMED')
  assert.ok(subject.last('child.closed'))
  subject.sleep(60_000)
  assert.ok(subject.isEmpty)
})

for (const [name, data] of [
  ['count 0', [0, 0, 0, 0]],
  ['count beyond the entries', [2, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]],
  ['selector length 0', [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]],
  ['selector length 15', [1, 0, 0, 0, 7, 0, 0, 15, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255]],
  [
    'an IPv6 selector with IPv4 addresses',
    [1, 0, 0, 0, 8, 0, 0, 16, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255],
  ],
  ['start behind end', [1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 2, 10, 0, 0, 1]],
  ['ports that run backwards', [1, 0, 0, 0, 7, 17, 0, 16, 0, 9, 0, 8, 10, 0, 0, 1, 10, 0, 0, 2]],
  ['trailing octets', [1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0]],
] as const) {
  const type = PAYLOAD.number.TSi
  const raw: Payload = { kind: 'Unknown', type, critical: false, data: Uint8Array.from(data) }
  refusesAuth(
    `CVE-2023-23009: TS with ${name}`,
    replace('TSi', () => raw),
    'malformed',
    N.INVALID_SYNTAX,
  )
}

// ---------------------------------------------------------------------------------------------- what a node answers

/** The initiator ends with the code, tells an authenticated peer, and keeps nothing. */
function refusesAnswer(
  title: string,
  alter: Alter,
  code: string,
  request: Partial<InitiateRequest> = {},
): void {
  test(`${title}: ${code}`, () => {
    const node = new RogueNode(request)
    node.init()
    const sent = node.authenticate(alter)
    const { subject } = node
    assert.equal(subject.last('child.established'), undefined)
    assert.equal(subject.last('ike.closed')!.reason, code)
    assert.deepEqual(node.open(sent[0]!), [{ kind: 'Delete', protocol: 1, spis: [] }])
    assert.ok(subject.isEmpty)
  })
}

refusesAnswer('rule 9: no AUTH', without('AUTH'), 'IPP_IKE_AUTH_FAILED')
refusesAnswer('rule 9: no IDr', without('IDr'), 'IPP_IKE_MALFORMED')
refusesAnswer('rule 9: another IDr', id('IDr', 11, new Uint8Array(32)), 'IPP_IKE_AUTH_FAILED')
refusesAnswer('7619: NULL from a node that must sign', auth(13, new Uint8Array(32)), 'IPP_IKE_AUTH_FAILED')
refusesAnswer('rule 9: a signature of another key', asIs, 'IPP_IKE_AUTH_FAILED', {
  peer: { id: KEY.id, publicKey: nodeKey(nodeCrypto).credential.publicKey },
})
refusesAnswer('two IDr', twice('IDr'), 'IPP_IKE_MALFORMED')
refusesAnswer('no SA', without('SA'), 'IPP_IKE_MALFORMED')
refusesAnswer('2.19: no reply to CP', without('CP'), 'IPP_IKE_ADDRESS_REFUSED')
const cp = (...attributes: [type: number, data: number[]][]): Alter =>
  replace('CP', (payload) => ({
    ...payload,
    attributes: attributes.map(([type, data]) => ({ type, data: Uint8Array.from(data) })),
  }))
refusesAnswer('2.19: two addresses', cp([1, [10, 1, 0, 1]], [1, [10, 1, 0, 2]]), 'IPP_IKE_ADDRESS_REFUSED')
refusesAnswer('2.19: wrong netmask', cp([1, [10, 1, 0, 1]], [2, [255, 0, 0, 0]]), 'IPP_IKE_ADDRESS_REFUSED')
refusesAnswer(
  '2.19: IPv6 beside it',
  cp([1, [10, 1, 0, 1]], [8, new Array(17).fill(0)]),
  'IPP_IKE_ADDRESS_REFUSED',
)
refusesAnswer('2.19: IPv6 to an IPv4 request', cp([8, new Array(17).fill(0)]), 'IPP_IKE_ADDRESS_REFUSED')
refusesAnswer('2.19: an address of 0 octets', cp([1, []]), 'IPP_IKE_ADDRESS_REFUSED')
for (const address of [
  [0, 0, 0, 0],
  [127, 0, 0, 1],
  [224, 0, 0, 1],
  [255, 255, 255, 255],
])
  refusesAnswer(`2.19: address ${address.join('.')}`, cp([1, address]), 'IPP_IKE_ADDRESS_REFUSED')
refusesAnswer(
  '2.19: CP REQUEST as reply',
  replace('CP', (payload) => ({ ...payload, type: 1 })),
  'IPP_IKE_ADDRESS_REFUSED',
)
refusesAnswer(
  '2.9: TSi wider than the lease',
  replace('TSi', () => range('0.0.0.0', '255.255.255.255')),
  'IPP_IKE_TS_UNACCEPTABLE',
)
refusesAnswer(
  '2.9: TSi another address',
  replace('TSi', () => range('10.1.0.2', '10.1.0.2')),
  'IPP_IKE_TS_UNACCEPTABLE',
)
refusesAnswer(
  '2.9: TSr narrowed',
  replace('TSr', () => ({ ...range('0.0.0.0', '127.255.255.255'), kind: 'TSr' })),
  'IPP_IKE_TS_UNACCEPTABLE',
)
refusesAnswer(
  '2.7: an ESP proposal never offered',
  proposals(([p]) => [{ ...p!, number: 9 }]),
  'IPP_IKE_NO_PROPOSAL',
)
refusesAnswer(
  'ESP SPI 0',
  proposals(([p]) => [{ ...p!, spi: new Uint8Array(4) }]),
  'IPP_IKE_NO_PROPOSAL',
)
refusesAnswer('critical payload', append(unknown(201, true)), 'IPP_IKE_PROTOCOL')
for (const [type, code] of [
  [N.INTERNAL_ADDRESS_FAILURE, 'IPP_IKE_ADDRESS_REFUSED'],
  [N.FAILED_CP_REQUIRED, 'IPP_IKE_ADDRESS_REFUSED'],
  [N.TS_UNACCEPTABLE, 'IPP_IKE_TS_UNACCEPTABLE'],
  [N.NO_PROPOSAL_CHOSEN, 'IPP_IKE_NO_PROPOSAL'],
  [N.TEMPORARY_FAILURE, 'IPP_IKE_PROTOCOL'],
] as const)
  refusesAnswer(
    `${NOTIFY.nameOf(type)} beside a valid AUTH`,
    (payloads) => [...payloads.slice(0, 2), notify(type)],
    code,
  )

test('a second answer to IKE_AUTH is an answer to nothing', () => {
  const node = new RogueNode()
  node.init()
  node.authenticate()
  assert.ok(node.subject.last('child.established'))
  assert.deepEqual(node.authenticate(without('CP')), [])
  assert.equal(node.subject.count('unexpected-response'), 1)
  assert.equal(node.subject.last('ike.closed'), undefined)
})

// ---------------------------------------------------------------------------------------------- memory

test('CVE-2026-78127: a soak of rejects leaves nothing behind', () => {
  const subject = responder()
  const bad: Alter[] = [without('SA'), ke(31, new Uint8Array(32)), nonce(3), append(unknown(9, true))]
  for (let i = 0; i < 400; i++) new RogueClient(subject).init(bad[i % bad.length])
  assert.ok(subject.isEmpty)
  assert.equal(subject.engine.poll(), undefined)
})

test('the same IKE_SA_INIT again and again is one half-open IKE SA, and the same answer', () => {
  const subject = responder()
  const datagram = new RogueClient(subject).initDatagram()
  const answers = Array.from({ length: 20 }, () => toHex(subject.hear(datagram)[0]!))
  assert.equal(new Set(answers).size, 1)
  assert.equal(subject.count('sas.all'), 1)
})

test('ids that mean nothing any more are no error', () => {
  const subject = new Subject()
  const sa = subject.engine.initiate(anonymousRequest(KEY, { path: pathBetween(CLIENT, NODE) }), subject.now)
  subject.engine.abandon(sa)
  subject.engine.abandon(sa)
  subject.engine.close(sa, subject.now)
  subject.engine.closeChild(sa, 256 as never, subject.now)
  subject.engine.heard(sa, subject.now)
  subject.drain()
  assert.equal(subject.outputs.filter(({ kind }) => kind === 'ike.closed').length, 1)
})
