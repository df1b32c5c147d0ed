/** The additional key exchange of rekeys (RFC 9370), rekeys without one, and peers that want another group. */
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import type { Spi } from '#base/ids'
import { nodeCrypto } from '#crypto/node'
import { Association } from '#ikev2/association'
import type { ChildSa } from '#ikev2/events'
import {
  answerChildRekey,
  answerIkeRekey,
  type ChildRekeyOffer,
  childRekeyOffer,
  childRekeyRequest,
  ikeRekeyOffer,
  ikeRekeyRequest,
  readChildRekeyAnswer,
  readIkeRekeyAnswer,
} from '#ikev2/exchange/create-child'
import { followUpRequest, linkPayload, readFollowUpAnswer } from '#ikev2/exchange/follow-up'
import { answerIntermediate, authenticatedOctets, intermediateRequest } from '#ikev2/exchange/intermediate'
import { sentMessage } from '#ikev2/message/fragment'
import { decodeHeader } from '#ikev2/message/header'
import { notify, type Payload } from '#ikev2/message/payload'
import { find, need, notifies } from '#ikev2/message/registry'
import { EXCHANGE, GROUP, NOTIFY } from '#ikev2/numbers'
import type { IkeSuite } from '#ikev2/proposal'
import { CLIENT, connect, NODE, ofKind, openPolicy, pair, pathBetween } from './pair.ts'
import {
  type Alter,
  KEY,
  notifyTypes,
  RogueClient,
  RogueNode,
  replace,
  responder,
  Subject,
  without,
} from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const { X25519, P256, MLKEM768 } = GROUP.number
const CLIENT_SPI = 0x1234_5678 as Spi
const PLAIN: IkeSuite = { cipher: 'aes-256-gcm-16', prf: 'sha256', prfLength: 32, group: X25519 }
const HYBRID: IkeSuite = { ...PLAIN, additional: MLKEM768 }

// ---------------------------------------------------------------------------------------------- a peer asks

/** A client that has ML-KEM, at a responder under test. */
function hybridClient(subject: Subject): RogueClient {
  const client = new RogueClient(subject).hybrid()
  client.init()
  client.intermediate()
  assert.ok(client.authenticate()?.some(({ kind }) => kind === 'SA'))
  return client
}

function mirrored(subject: Subject, inboundSpi: Spi = CLIENT_SPI): ChildSa {
  const { child } = subject.last('child.established')!
  const { localSelectors, remoteSelectors } = child
  return { ...child, inboundSpi, localSelectors: remoteSelectors, remoteSelectors: localSelectors }
}

let lastSpi = 0x2000
const childOffer = (subject: Subject, like = HYBRID, group?: number): ChildRekeyOffer =>
  childRekeyOffer(nodeCrypto, mirrored(subject), ['aes-256-gcm-16'], ++lastSpi as Spi, like, group)
const childRequest = (subject: Subject, offer: ChildRekeyOffer): Payload[] =>
  childRekeyRequest(mirrored(subject), offer)
const keyPair = nodeCrypto.mlkem768Generate()
const linkIn = (payloads: readonly Payload[] | undefined): Uint8Array =>
  notifies(payloads ?? [], N.ADDITIONAL_KEY_EXCHANGE)[0]!.data

const hmac = (key: Uint8Array, ...data: Uint8Array[]): Buffer =>
  createHmac('sha256', key).update(Buffer.concat(data)).digest()
/** prf+ by the book, with nothing of ours. */
function expand(key: Uint8Array, seed: Buffer, length: number): Buffer {
  let out: Buffer = Buffer.alloc(0)
  let block: Buffer = Buffer.alloc(0)
  for (let n = 1; out.length < length; n++) {
    block = hmac(key, block, seed, Buffer.of(n))
    out = Buffer.concat([out, block])
  }
  return out.subarray(0, length)
}

test('a Child SA: KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1)), and nothing exists before the second exchange', () => {
  const subject = responder()
  const client = hybridClient(subject)
  const offer = childOffer(subject)
  const answer = client.ask(X.CREATE_CHILD_SA, childRequest(subject, offer))!
  assert.equal(subject.last('child.rekeyed'), undefined)
  const { keying, terms } = readChildRekeyAnswer(nodeCrypto, offer, answer)
  assert.equal(terms.suite.additional, MLKEM768)
  const more = client.ask(X.IKE_FOLLOWUP_KE, followUpRequest(keyPair, linkIn(answer)))!
  const second = readFollowUpAnswer(nodeCrypto, keyPair, more)
  const { skD } = client.auth!.secrets
  const seed = Buffer.concat([keying.sharedSecret!, keying.ni, keying.nr, second])
  const keymat = expand(skD, seed, 72)
  const { child } = subject.last('child.rekeyed')!
  assert.deepEqual(Buffer.from(child.inboundKey), keymat.subarray(0, 36))
  assert.deepEqual(Buffer.from(child.outboundKey), keymat.subarray(36))
  assert.equal(child.outboundSpi, offer.child.inboundSpi)
})

test('an IKE SA: SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1))', () => {
  const subject = new Subject({ responder: openPolicy(KEY), keyLog: true })
  const client = hybridClient(subject)
  const { skD } = client.auth!.secrets
  const before = Buffer.from(skD)
  const offer = ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), HYBRID)
  const answer = client.ask(X.CREATE_CHILD_SA, ikeRekeyRequest(offer))!
  assert.equal(subject.count('sas.all'), 1, 'no IKE SA before the second exchange')
  const { keying, peerSpi } = readIkeRekeyAnswer(nodeCrypto, offer, answer)
  const first = Buffer.from(keying.sharedSecret)
  const more = client.ask(X.IKE_FOLLOWUP_KE, followUpRequest(keyPair, linkIn(answer)))!
  const second = readFollowUpAnswer(nodeCrypto, keyPair, more)
  assert.equal(subject.count('sas.all'), 2)
  const seed = hmac(before, first, keying.ni, keying.nr, second)
  const stream = expand(seed, Buffer.concat([keying.ni, keying.nr, offer.spi, peerSpi]), 32 + 36 + 36)
  const { skEi, skEr } = subject.last('keys')!
  assert.deepEqual(Buffer.from(skEi), stream.subarray(32, 68))
  assert.deepEqual(Buffer.from(skEr), stream.subarray(68))
})

/** A rekey that is half done, and the request of its second half. */
function half(kind: 'child' | 'ike'): {
  readonly subject: Subject
  readonly client: RogueClient
  readonly link: Uint8Array
} {
  const subject = responder()
  const client = hybridClient(subject)
  const request =
    kind === 'child'
      ? childRequest(subject, childOffer(subject))
      : ikeRekeyRequest(ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), HYBRID))
  return { subject, client, link: linkIn(client.ask(X.CREATE_CHILD_SA, request)) }
}
const follow = (client: RogueClient, payloads: readonly Payload[]): number[] =>
  notifyTypes(client.ask(X.IKE_FOLLOWUP_KE, payloads))

for (const kind of ['child', 'ike'] as const) {
  const isMade = (subject: Subject): boolean =>
    kind === 'child' ? subject.last('child.rekeyed') !== undefined : subject.count('sas.all') === 2

  for (const [title, payloads] of [
    ['a link that is not ours', (link: Uint8Array) => followUpRequest(keyPair, link.with(0, link[0]! ^ 1))],
    ['a link cut short', (link: Uint8Array) => followUpRequest(keyPair, link.subarray(1))],
    ['no link', () => intermediateRequest(keyPair)],
    ['two links', (link: Uint8Array) => [...followUpRequest(keyPair, link), linkPayload(link)]],
  ] as const) {
    test(`9370: the second half of the rekey of a ${kind} with ${title}: STATE_NOT_FOUND, and it may still come`, () => {
      const { subject, client, link } = half(kind)
      assert.deepEqual(follow(client, payloads(link)), [N.STATE_NOT_FOUND])
      assert.equal(subject.count('state-not-found'), 1)
      assert.ok(!isMade(subject))
      assert.deepEqual(follow(client, followUpRequest(keyPair, link)), [])
      assert.ok(isMade(subject))
    })
  }

  for (const length of [0, 32, 1183, 1185]) {
    test(`9370: the second half of the rekey of a ${kind} with a key of ${length} octets: it ends`, () => {
      const { subject, client, link } = half(kind)
      const key: Payload = { kind: 'KE', group: MLKEM768, data: new Uint8Array(length) }
      assert.deepEqual(follow(client, [key, linkPayload(link)]), [N.INVALID_SYNTAX])
      assert.ok(subject.last('ike.closed'))
      subject.sleep(60_000)
      assert.ok(subject.isEmpty)
    })
  }

  test(`9370: the second half of the rekey of a ${kind} comes twice: the second time there is nothing`, () => {
    const { subject, client, link } = half(kind)
    assert.deepEqual(follow(client, followUpRequest(keyPair, link)), [])
    assert.deepEqual(follow(client, followUpRequest(keyPair, link)), [N.STATE_NOT_FOUND])
    assert.equal(subject.last('ike.closed'), undefined)
  })

  test(`9370: the second half of the rekey of a ${kind} comes after two minutes: STATE_NOT_FOUND, nothing is left`, () => {
    const { subject, client, link } = half(kind)
    const { 'spis.inbound': before } = subject.engine.counters()
    subject.sleep(125_000)
    assert.equal(subject.count('spis.inbound'), kind === 'child' ? before! - 1 : before)
    assert.deepEqual(follow(client, followUpRequest(keyPair, link)), [N.STATE_NOT_FOUND])
    assert.ok(!isMade(subject))
  })

  test(`9370: a peer that begins the rekey of a ${kind} again and again and never finishes: one is kept`, () => {
    const { subject, client, link } = half(kind)
    for (let i = 0; i < 50; i++) {
      const request =
        kind === 'child'
          ? childRequest(subject, childOffer(subject))
          : ikeRekeyRequest(ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), HYBRID))
      assert.deepEqual(notifyTypes(client.ask(X.CREATE_CHILD_SA, request)), [N.ADDITIONAL_KEY_EXCHANGE])
      assert.ok(subject.count('spis.inbound') <= 2)
      assert.equal(subject.count('sas.all'), 1)
    }
    assert.deepEqual(follow(client, followUpRequest(keyPair, link)), [N.STATE_NOT_FOUND])
    assert.deepEqual(client.ask(X.INFORMATIONAL, []), [], 'it still answers')
  })

  test(`9370: the IKE SA ends while the rekey of a ${kind} is half done: nothing is left`, () => {
    const { subject, client } = half(kind)
    client.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 1, spis: [] }])
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

test('9370: the Child SA is deleted while its rekey is half done: STATE_NOT_FOUND, nothing is left', () => {
  const { subject, client, link } = half('child')
  const spis = [Uint8Array.of(0x12, 0x34, 0x56, 0x78)]
  client.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 3, spis }])
  assert.deepEqual(follow(client, followUpRequest(keyPair, link)), [N.STATE_NOT_FOUND])
  assert.equal(subject.count('spis.inbound'), 0)
})

test('9370: IKE_FOLLOWUP_KE out of turn', () => {
  const subject = responder()
  const early = new RogueClient(subject).hybrid()
  early.init()
  const request = followUpRequest(keyPair, new Uint8Array(16))
  assert.equal(early.ask(X.IKE_FOLLOWUP_KE, request, 1), undefined)
  assert.equal(subject.count('illegal-exchange'), 1)
  const client = hybridClient(responder())
  assert.deepEqual(follow(client, request), [N.STATE_NOT_FOUND])
  assert.deepEqual(client.ask(X.INFORMATIONAL, []), [])
})

// ---------------------------------------------------------------------------------------------- a peer answers

interface Asked {
  readonly node: RogueNode
  readonly subject: Subject
  readonly request: readonly Payload[]
  readonly messageId: number
}

/** A subject whose rekey is out, at a node that has ML-KEM or has not. */
function asked(kind: 'child' | 'ike', hybrid: boolean): Asked {
  const node = new RogueNode()
  node.isHybrid = hybrid
  // It sends and takes everything whole.
  node.init(withoutNotify(N.IKEV2_FRAGMENTATION_SUPPORTED))
  if (hybrid) intermediate(node)
  node.authenticate()
  const { subject } = node
  const { sa, child } = subject.last('child.established')!
  if (kind === 'child') subject.engine.rekeyChild(sa, child.inboundSpi, subject.now)
  else subject.engine.rekeyIke(sa, subject.now)
  return { subject, node, ...next(node, subject.drain()) }
}

const next = (node: RogueNode, sent: readonly Uint8Array[]): Pick<Asked, 'request' | 'messageId'> => ({
  request: node.open(sent[0]!),
  messageId: decodeHeader(sent[0]!).messageId,
})

function intermediate(node: RogueNode): void {
  const sent = node.authRequest!
  const opened = node.channel!.open(decodeHeader(sent), sent)
  const { sharedSecret, payloads } = answerIntermediate(nodeCrypto, node.open(sent))
  const response = node.seal(X.IKE_INTERMEDIATE, 1, payloads, true)
  node.authRequest = node.hear(response)[0]!
  const association = new Association(
    1 as never,
    pathBetween(NODE, CLIENT),
    decodeHeader(sent).spiInitiator,
    node.spiResponder,
  )
  const extended = node.channel!.extend(
    { crypto: nodeCrypto, logKeys: undefined },
    association,
    node.auth!,
    sharedSecret,
    {
      initiator: authenticatedOctets(opened),
      responder: authenticatedOctets(sentMessage([response], payloads)),
    },
  )
  node.channel = extended.channel
  node.auth = extended.auth
}

const good = (kind: 'child' | 'ike', subject: Subject, request: readonly Payload[]): Payload[] =>
  kind === 'ike'
    ? answerIkeRekey(nodeCrypto, nodeCrypto.random(8), request).payloads
    : answerChildRekey(nodeCrypto, mirrored(subject), ['aes-256-gcm-16'], 0x7654_3210 as Spi, request)
        .payloads
const LINK = linkPayload(new Uint8Array(5).fill(9))

for (const kind of ['child', 'ike'] as const) {
  test(`9370: our rekey of a ${kind}: the link comes back as it was sent, and the answer completes it`, () => {
    const { node, subject, request, messageId } = asked(kind, true)
    const sent = node.respond(X.CREATE_CHILD_SA, messageId, [...good(kind, subject, request), LINK])
    assert.equal(subject.last('child.switched'), undefined)
    const more = next(node, sent)
    assert.deepEqual(linkIn(more.request), new Uint8Array(5).fill(9))
    const { payloads } = answerIntermediate(nodeCrypto, more.request)
    node.respond(X.IKE_FOLLOWUP_KE, more.messageId, payloads)
    if (kind === 'child') assert.ok(subject.last('child.switched'))
    else assert.equal(subject.count('sas.all'), 2)
  })

  test(`9370: our rekey of a ${kind} is agreed to and no link given: it ends`, () => {
    const { node, subject, request, messageId } = asked(kind, true)
    node.respond(X.CREATE_CHILD_SA, messageId, good(kind, subject, request))
    assert.equal(subject.last('ike.closed')!.reason, 'IPP_IKE_PROTOCOL')
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })

  test(`9370: the state of our rekey of a ${kind} is lost: we try again, from the beginning`, () => {
    const { node, subject, request, messageId } = asked(kind, true)
    const sent = node.respond(X.CREATE_CHILD_SA, messageId, [...good(kind, subject, request), LINK])
    node.respond(X.IKE_FOLLOWUP_KE, next(node, sent).messageId, [notify(N.STATE_NOT_FOUND)])
    assert.equal(subject.last('ike.closed'), undefined)
    assert.equal(subject.count('spis.inbound'), 1)
    const again = subject.sleep(5_000)
    assert.equal(decodeHeader(again[0]!).exchange, X.CREATE_CHILD_SA)
  })

  for (const [title, answer] of [
    ['a ciphertext of 1087 octets', [{ kind: 'KE', group: MLKEM768, data: new Uint8Array(1087) }]],
    ['another method', [{ kind: 'KE', group: X25519, data: new Uint8Array(32).fill(9) }]],
    ['nothing', []],
    ['NO_PROPOSAL_CHOSEN', [notify(N.NO_PROPOSAL_CHOSEN)]],
  ] as const satisfies readonly (readonly [string, readonly Payload[]])[]) {
    test(`9370: our second half of the rekey of a ${kind} is answered with ${title}: it ends`, () => {
      const { node, subject, request, messageId } = asked(kind, true)
      const sent = node.respond(X.CREATE_CHILD_SA, messageId, [...good(kind, subject, request), LINK])
      node.respond(X.IKE_FOLLOWUP_KE, next(node, sent).messageId, answer)
      assert.ok(subject.last('ike.closed'))
      assert.equal(subject.last('child.rekeyed'), undefined)
      subject.sleep(60_000)
      assert.ok(subject.isEmpty)
    })
  }

  test(`9370: our rekey of a ${kind} is answered without the additional exchange: so be it`, () => {
    const { node, subject, request, messageId } = asked(kind, true)
    const answer = good(kind, subject, request.map(withoutTransform(6, MLKEM768)))
    node.respond(X.CREATE_CHILD_SA, messageId, answer)
    if (kind === 'child') assert.ok(subject.last('child.switched'))
    else assert.equal(subject.count('sas.all'), 2)
  })

  test(`INVALID_KE_PAYLOAD to our rekey of a ${kind}: the group asked for, once`, () => {
    const wants = (group: number): Payload => notify(N.INVALID_KE_PAYLOAD, Uint8Array.of(0, group))
    const { node, subject, request, messageId } = asked(kind, false)
    assert.equal(need(request, 'KE').group, X25519)
    const again = next(node, node.respond(X.CREATE_CHILD_SA, messageId, [wants(P256)]))
    assert.equal(need(again.request, 'KE').group, P256)
    assert.equal(need(again.request, 'KE').data.length, 64)
    node.respond(X.CREATE_CHILD_SA, again.messageId, [wants(X25519)])
    assert.equal(subject.last('ike.closed')!.reason, 'IPP_IKE_NO_PROPOSAL')
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

const withoutNotify =
  (type: number): Alter =>
  (payloads) =>
    payloads.filter((payload) => payload.kind !== 'Notify' || payload.type !== type)

const withoutTransform =
  (type: number, id: number) =>
  (payload: Payload): Payload =>
    payload.kind !== 'SA'
      ? payload
      : {
          ...payload,
          proposals: payload.proposals.map((each) => ({
            ...each,
            transforms: each.transforms.filter((one) => one.type !== type || one.id !== id),
          })),
        }

// ---------------------------------------------------------------------------------------------- stock peers

for (const kind of ['child', 'ike'] as const) {
  test(`a peer of P-256 alone: we rekey a ${kind} with what it has`, () => {
    const subject = responder()
    const client = new RogueClient(subject, undefined, P256).establish()
    const { sa, child } = subject.last('child.established')!
    if (kind === 'child') subject.engine.rekeyChild(sa, child.inboundSpi, subject.now)
    else subject.engine.rekeyIke(sa, subject.now)
    const request = client.open(subject.drain()[0]!)
    assert.equal(need(request, 'KE').group, P256)
    const answer = good(kind, subject, request.map(withoutTransform(4, X25519)))
    assert.equal(need(answer, 'KE').group, P256)
    subject.hear(client.seal(X.CREATE_CHILD_SA, answer, 0, true))
    if (kind === 'child') assert.ok(subject.last('child.switched'))
    else assert.equal(subject.count('sas.all'), 2)
  })
}

test('a rekey of a Child SA without a key exchange is taken: its keys are prf+(SK_d, Ni | Nr)', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  const offer = childOffer(subject, PLAIN)
  const only = replace('SA', (sa) => ({ ...sa, proposals: sa.proposals.slice(1) }))
  const request = without('KE')(only(childRequest(subject, offer)))
  const answer = client.ask(X.CREATE_CHILD_SA, request)!
  assert.equal(find(answer, 'KE'), undefined)
  const seed = Buffer.concat([offer.nonce, need(answer, 'Nonce').data])
  const keymat = expand(client.auth!.secrets.skD, seed, 72)
  assert.deepEqual(Buffer.from(subject.last('child.rekeyed')!.child.inboundKey), keymat.subarray(0, 36))
})

test('offers of which some have a key exchange: one with, if the peer began one', () => {
  for (const begun of [true, false]) {
    for (const reversed of [true, false]) {
      const subject = responder()
      const client = new RogueClient(subject).establish()
      const order = replace('SA', (sa) => ({
        ...sa,
        proposals: reversed
          ? sa.proposals.toReversed().map((each, i) => ({ ...each, number: i + 1 }))
          : sa.proposals,
      }))
      const request = order(childRequest(subject, childOffer(subject, PLAIN)))
      const answer = client.ask(X.CREATE_CHILD_SA, begun ? request : without('KE')(request))!
      assert.equal(find(answer, 'KE') !== undefined, begun)
      const [proposal] = need(answer, 'SA').proposals
      assert.equal(
        proposal!.transforms.some(({ type }) => type === 4),
        begun,
      )
      assert.ok(subject.last('child.rekeyed'))
    }
  }
})

// ---------------------------------------------------------------------------------------------- bad paths

test('thirty percent loss and an impatient owner: an hour of rekeys does not end the session', () => {
  for (let seed = 1; seed <= 5; seed++) {
    const stage = pair({ seed, link: { loss: 0, duplication: 0.05, latency: [10, 200] } })
    const { client, network } = stage
    const id = connect(stage, { patience: 10_000, lifetimes: { child: 300_000, ike: 900_000 } })
    assert.ok(client.sending.has(id))
    // A deterministic storm: of ten datagrams each way three are lost.
    let n = seed
    network.filter = (datagram) => ([2, 5, 6].includes(n++ % 10) ? undefined : datagram)
    network.run(3_600_000)
    assert.ok(!ofKind(client, 'ike.closed'), `seed ${seed}`)
    assert.ok(client.events.filter(({ kind }) => kind === 'child.switched').length >= 8)
  }
})
