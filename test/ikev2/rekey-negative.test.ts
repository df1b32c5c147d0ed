/** Peers that rekey badly, or answer rekeys badly: no throw, no state left, the right answer, and an end to it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IkeSaId, Spi } from '#base/ids'
import { ip, ipToBytes } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import type { ChildSa } from '#ikev2/events'
import {
  answerChildRekey,
  answerIkeRekey,
  childRekeyOffer,
  childRekeyRequest,
  ikeRekeyOffer,
  ikeRekeyRequest,
} from '#ikev2/exchange/create-child'
import { decodeHeader } from '#ikev2/message/header'
import { notify, type Payload } from '#ikev2/message/payload'
import type { Proposal } from '#ikev2/message/proposal'
import { EXCHANGE, GROUP, NOTIFY } from '#ikev2/numbers'
import type { IkeSuite } from '#ikev2/proposal'
import {
  type Alter,
  asIs,
  notifyTypes,
  RogueClient,
  RogueNode,
  replace,
  responder,
  type Subject,
  twice,
  without,
} from './rogue.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const PLAIN: IkeSuite = {
  cipher: 'aes-256-gcm-16',
  prf: 'sha256',
  prfLength: 32,
  group: GROUP.number.X25519,
}
/** What the rogue client chose in IKE_AUTH. */
const CLIENT_SPI = 0x1234_5678 as Spi

const proposals = (change: (proposal: Proposal) => Proposal): Alter =>
  replace('SA', (sa) => ({ ...sa, proposals: sa.proposals.map(change) }))
const spi = (length: number, fill = 1): Alter =>
  proposals((each) => ({ ...each, spi: new Uint8Array(length).fill(fill) }))
const ke = (group: number, data: Uint8Array): Alter => replace('KE', () => ({ kind: 'KE', group, data }))
const nonce = (length: number): Alter =>
  replace('Nonce', () => ({ kind: 'Nonce', data: new Uint8Array(length) }))
/** Nothing but the best proposal. */
const first: Alter = replace('SA', (sa) => ({ ...sa, proposals: sa.proposals.slice(0, 1) }))
const noGroups: Alter = proposals((each) => ({
  ...each,
  transforms: each.transforms.filter(({ type }) => type !== 4),
}))
const selectors = (kind: 'TSi' | 'TSr', start: string, end: string): Alter =>
  replace(kind, () => ({
    kind,
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
  }))

// ---------------------------------------------------------------------------------------------- a peer asks

/** The rogue client's half of the Child SA that the subject announced last. */
function mirrored(subject: Subject, inboundSpi: Spi = CLIENT_SPI): ChildSa {
  const { child } = subject.last('child.established')!
  const { localSelectors, remoteSelectors } = child
  return { ...child, inboundSpi, localSelectors: remoteSelectors, remoteSelectors: localSelectors }
}

const childRequest = (subject: Subject, inboundSpi?: Spi): Payload[] => {
  const old = mirrored(subject, inboundSpi)
  const fresh = (0x1000 + Math.floor(Math.random() * 0xffff)) as Spi
  return childRekeyRequest(old, childRekeyOffer(nodeCrypto, old, ['aes-256-gcm-16'], fresh, PLAIN))
}
const ikeRequest = (): Payload[] => ikeRekeyRequest(ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), PLAIN))

/** Declined, and the IKE SA lives with what it had. */
function declines(title: string, kind: 'child' | 'ike', alter: Alter, answer: number): void {
  test(`${kind} rekey with ${title}: ${NOTIFY.nameOf(answer)}`, () => {
    const subject = responder()
    const client = new RogueClient(subject).establish()
    const request = kind === 'child' ? childRequest(subject) : ikeRequest()
    const payloads = client.ask(X.CREATE_CHILD_SA, alter(request))
    assert.deepEqual(notifyTypes(payloads), [answer])
    assert.equal(subject.last('child.rekeyed'), undefined)
    assert.equal(subject.count('sas.all'), 1)
    assert.deepEqual(client.ask(X.INFORMATIONAL, []), [], 'it still answers')
  })
}

/** Malformed: answered, and the IKE SA ends (RFC 7296 section 2.21.3). */
function ends(title: string, kind: 'child' | 'ike', alter: Alter): void {
  test(`${kind} rekey with ${title}: INVALID_SYNTAX, and the IKE SA ends`, () => {
    const subject = responder()
    const client = new RogueClient(subject).establish()
    const request = kind === 'child' ? childRequest(subject) : ikeRequest()
    assert.deepEqual(notifyTypes(client.ask(X.CREATE_CHILD_SA, alter(request))), [N.INVALID_SYNTAX])
    assert.ok(subject.last('ike.closed'))
    assert.equal(subject.last('child.rekeyed'), undefined)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

for (const kind of ['child', 'ike'] as const) {
  declines('a KE of another group', kind, ke(19, new Uint8Array(64)), N.INVALID_KE_PAYLOAD)
  declines(
    'AH',
    kind,
    proposals((each) => ({ ...each, protocol: 2 })),
    kind === 'child' ? N.NO_PROPOSAL_CHOSEN : N.NO_ADDITIONAL_SAS,
  )
  ends('KE value 0', kind, ke(31, new Uint8Array(32)))
  ends('a KE that is too long', kind, ke(31, new Uint8Array(33)))
  ends('a nonce of 15 octets', kind, nonce(15))
  ends('a nonce of 257 octets', kind, nonce(257))
  for (const missing of ['SA', 'Nonce'] as const) ends(`no ${missing}`, kind, without(missing))
  for (const doubled of ['SA', 'Nonce', 'KE'] as const) ends(`two ${doubled}`, kind, twice(doubled))
}
declines('no key exchange offered', 'ike', noGroups, N.NO_PROPOSAL_CHOSEN)
declines('no KE', 'ike', without('KE'), N.INVALID_KE_PAYLOAD)
declines(
  'no KE and no proposal without',
  'child',
  (payloads) => without('KE')(first(payloads)),
  N.INVALID_KE_PAYLOAD,
)
for (const length of [0, 3, 8])
  declines(`an SPI of ${length} octets`, 'child', spi(length), N.NO_PROPOSAL_CHOSEN)
declines('a reserved SPI', 'child', spi(4, 0), N.NO_PROPOSAL_CHOSEN)
for (const length of [0, 4, 7, 9])
  declines(`an SPI of ${length} octets`, 'ike', spi(length), N.NO_PROPOSAL_CHOSEN)
declines('an SPI of zeros', 'ike', spi(8, 0), N.NO_PROPOSAL_CHOSEN)
declines('a foreign TSi', 'child', selectors('TSi', '192.0.2.1', '192.0.2.1'), N.TS_UNACCEPTABLE)
declines('a narrower TSr', 'child', selectors('TSr', '0.0.0.0', '127.255.255.255'), N.TS_UNACCEPTABLE)
ends('no TSi', 'child', without('TSi'))

test('a wider TSi is narrowed to what there is: a rekey wins nobody an address', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  client.ask(X.CREATE_CHILD_SA, selectors('TSi', '0.0.0.0', '255.255.255.255')(childRequest(subject)))
  const { old, child } = subject.last('child.rekeyed')!
  assert.deepEqual(child.remoteSelectors, old.remoteSelectors)
  assert.deepEqual(child.localSelectors, old.localSelectors)
})

test('a Child SA that was replaced is not rekeyed again, and nothing piles up', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  assert.deepEqual(notifyTypes(client.ask(X.CREATE_CHILD_SA, childRequest(subject))), [])
  for (let i = 0; i < 20; i++)
    assert.deepEqual(notifyTypes(client.ask(X.CREATE_CHILD_SA, childRequest(subject))), [N.TEMPORARY_FAILURE])
  assert.equal(subject.outputs.filter(({ kind }) => kind === 'child.rekeyed').length, 1)
})

test('a peer that rekeys and never deletes: children are bounded, and the old ones are deleted by us', () => {
  const subject = responder()
  const client = new RogueClient(subject).establish()
  let current = CLIENT_SPI
  let taken = 0
  for (let i = 0; i < 50; i++) {
    const request = childRequest(subject, current)
    const answer = client.ask(X.CREATE_CHILD_SA, request)
    if (notifyTypes(answer).length > 0) continue
    taken++
    current = subject.last('child.rekeyed')!.child.outboundSpi
  }
  assert.ok(taken >= 3 && taken <= 8, `${taken} at once`)
  const deletions = subject.sleep(130_000)
  assert.ok(deletions.length > 0)
  assert.deepEqual(client.open(deletions[0]!)[0]!.kind, 'Delete')
})

test('a peer that rekeys the IKE SA and never deletes: four at most, and they expire', () => {
  const subject = responder()
  let client = new RogueClient(subject).establish()
  let put = 0
  for (let i = 0; i < 20; i++) {
    const offer = ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), PLAIN)
    const answer = client.ask(X.CREATE_CHILD_SA, ikeRekeyRequest(offer))!
    if (notifyTypes(answer)[0] === N.TEMPORARY_FAILURE) put++
    else client = client.renewed(offer, answer)
  }
  assert.equal(put, 17)
  assert.equal(subject.count('sas.all'), 4)
  assert.deepEqual(client.ask(X.INFORMATIONAL, []), [], 'the newest one is in use')
  subject.sleep(130_000)
  assert.equal(subject.count('sas.all'), 1)
  assert.equal(subject.last('ike.closed'), undefined)
  client.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 1, spis: [] }])
  assert.ok(subject.last('ike.closed'))
  subject.sleep(60_000)
  assert.ok(subject.isEmpty)
})

test('an IKE SA that was replaced takes no more rekeys, and its end is not the end of the session', () => {
  const subject = responder()
  const old = new RogueClient(subject).establish()
  const offer = ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), PLAIN)
  const renewed = old.renewed(offer, old.ask(X.CREATE_CHILD_SA, ikeRekeyRequest(offer))!)
  assert.deepEqual(notifyTypes(old.ask(X.CREATE_CHILD_SA, ikeRequest())), [N.TEMPORARY_FAILURE])
  assert.deepEqual(notifyTypes(old.ask(X.CREATE_CHILD_SA, childRequest(subject))), [N.TEMPORARY_FAILURE])
  assert.deepEqual(old.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 1, spis: [] }]), [])
  assert.equal(subject.last('ike.closed'), undefined)
  assert.deepEqual(notifyTypes(renewed.ask(X.CREATE_CHILD_SA, childRequest(subject))), [])
  assert.ok(subject.last('child.rekeyed'))
  subject.sleep(60_000)
  assert.equal(subject.count('sas.all'), 1)
})

test('a Child SA is deleted on the IKE SA that was replaced: it is the same Child SA', () => {
  const subject = responder()
  const old = new RogueClient(subject).establish()
  const offer = ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), PLAIN)
  old.ask(X.CREATE_CHILD_SA, ikeRekeyRequest(offer))
  const spis = [Uint8Array.of(0x12, 0x34, 0x56, 0x78)]
  const answer = old.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 3, spis }])
  assert.equal(answer?.filter(({ kind }) => kind === 'Delete').length, 1)
  assert.ok(subject.last('child.closed'))
})

test('CVE-2014-2338: a rekey of an IKE SA that is not authenticated is not answered', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init()
  assert.equal(client.ask(X.CREATE_CHILD_SA, ikeRequest(), 1), undefined)
  assert.equal(subject.count('illegal-exchange'), 1)
  assert.equal(subject.last('ike.established'), undefined)
})

// ---------------------------------------------------------------------------------------------- a peer answers

interface Asked {
  readonly node: RogueNode
  readonly subject: Subject
  /** The request of the subject and its message ID. */
  readonly request: readonly Payload[]
  readonly messageId: number
}

function asked(kind: 'child' | 'ike'): Asked {
  const node = new RogueNode()
  node.init()
  node.authenticate()
  const { subject } = node
  const { sa, child } = subject.last('child.established')!
  if (kind === 'child') subject.engine.rekeyChild(sa, child.inboundSpi, subject.now)
  else subject.engine.rekeyIke(sa, subject.now)
  const [datagram] = subject.drain()
  return { node, subject, request: node.open(datagram!), messageId: decodeHeader(datagram!).messageId }
}

const goodAnswer = (kind: 'child' | 'ike', { subject, request }: Asked): Payload[] =>
  kind === 'ike'
    ? answerIkeRekey(nodeCrypto, nodeCrypto.random(8), request).payloads
    : answerChildRekey(
        nodeCrypto,
        mirrored(subject, 0x2345_6789 as Spi),
        ['aes-256-gcm-16'],
        0x7654_3210 as Spi,
        request,
      ).payloads

/** The subject tells the peer, once, and ends. */
function gives(title: string, kind: 'child' | 'ike', alter: Alter, code: string): void {
  test(`${kind} rekey answered with ${title}: ${code}`, () => {
    const stage = asked(kind)
    const { node, subject, messageId } = stage
    const sent = node.respond(X.CREATE_CHILD_SA, messageId, alter(goodAnswer(kind, stage)))
    assert.deepEqual(node.open(sent.at(-1)!), [{ kind: 'Delete', protocol: 1, spis: [] }])
    assert.equal(subject.last('ike.closed')!.reason, code)
    assert.equal(subject.last('child.switched'), undefined)
    subject.sleep(60_000)
    assert.ok(subject.isEmpty)
  })
}

for (const kind of ['child', 'ike'] as const) {
  const only =
    (type: number): Alter =>
    () => [notify(type)]
  gives('NO_ADDITIONAL_SAS', kind, only(N.NO_ADDITIONAL_SAS), 'IPP_IKE_PROTOCOL')
  gives('NO_PROPOSAL_CHOSEN', kind, only(N.NO_PROPOSAL_CHOSEN), 'IPP_IKE_NO_PROPOSAL')
  gives('INVALID_KE_PAYLOAD', kind, only(N.INVALID_KE_PAYLOAD), 'IPP_IKE_NO_PROPOSAL')
  gives('nothing', kind, () => [], 'IPP_IKE_MALFORMED')
  gives('KE value 0', kind, ke(31, new Uint8Array(32)), 'IPP_IKE_PROTOCOL')
  gives('a KE of another group', kind, ke(19, new Uint8Array(64)), 'IPP_IKE_PROTOCOL')
  gives('a short nonce', kind, nonce(3), 'IPP_IKE_MALFORMED')
  gives('no group', kind, noGroups, 'IPP_IKE_NO_PROPOSAL')
  gives('no KE', kind, without('KE'), 'IPP_IKE_MALFORMED')
  gives(
    'two proposals',
    kind,
    replace('SA', (sa) => ({ ...sa, proposals: [...sa.proposals, ...sa.proposals] })),
    'IPP_IKE_NO_PROPOSAL',
  )
  gives('an SPI of 3 octets', kind, spi(3), 'IPP_IKE_NO_PROPOSAL')
}
gives('an SPI of zeros', 'ike', spi(8, 0), 'IPP_IKE_NO_PROPOSAL')
gives('a reserved SPI', 'child', spi(4, 0), 'IPP_IKE_NO_PROPOSAL')
gives('another TSi', 'child', selectors('TSi', '10.9.9.9', '10.9.9.9'), 'IPP_IKE_TS_UNACCEPTABLE')
gives('a wider TSi', 'child', selectors('TSi', '0.0.0.0', '255.255.255.255'), 'IPP_IKE_TS_UNACCEPTABLE')

test('the peers of these tests are good ones if nothing is altered', () => {
  for (const kind of ['child', 'ike'] as const) {
    const stage = asked(kind)
    stage.node.respond(X.CREATE_CHILD_SA, stage.messageId, asIs(goodAnswer(kind, stage)))
    assert.equal(stage.subject.last('ike.closed'), undefined)
    assert.equal(stage.subject.last('child.switched') !== undefined, kind === 'child')
  }
})

test('TEMPORARY_FAILURE is believed for some minutes, with growing pauses, and not for ever', () => {
  for (const kind of ['child', 'ike'] as const) {
    const { node, subject, messageId } = asked(kind)
    const started = subject.now
    let sent = node.respond(X.CREATE_CHILD_SA, messageId, [notify(N.TEMPORARY_FAILURE)])
    let next = messageId + 1
    const times: number[] = []
    while (subject.last('ike.closed') === undefined && times.length < 50) {
      sent = subject.sleep((subject.engine.nextTimeout() ?? subject.now) - subject.now)
      if (sent.length === 0) continue
      times.push(subject.now - started)
      node.respond(X.CREATE_CHILD_SA, next++, [notify(N.TEMPORARY_FAILURE)])
    }
    assert.equal(times.length, 12)
    assert.ok(times.at(-1)! > 120_000 && times.at(-1)! < 600_000, `${times}`)
    assert.equal(subject.last('ike.closed')!.reason, 'IPP_IKE_PROTOCOL')
    assert.ok(subject.isEmpty)
  }
})

test('CHILD_SA_NOT_FOUND: it is gone here, too, and the IKE SA lives', () => {
  const { node, subject, messageId } = asked('child')
  node.respond(X.CREATE_CHILD_SA, messageId, [notify(N.CHILD_SA_NOT_FOUND)])
  assert.ok(subject.last('child.closed'))
  assert.equal(subject.last('ike.closed'), undefined)
})

test('an IKE SA id that is unknown has nothing to rekey', () => {
  const subject = responder()
  subject.engine.rekeyIke(77 as IkeSaId, subject.now)
  subject.engine.rekeyChild(77 as IkeSaId, CLIENT_SPI, subject.now)
  assert.equal(subject.engine.poll(), undefined)
})
