/**
 * Session resumption (RFC 5723) between two engines:
 *
 *     full exchange, ticket        IKE_SA_INIT IKE_INTERMEDIATE IKE_AUTH(TICKET_REQUEST)
 *     lost, or closed to return
 *     resumed, fresh keys, ticket  IKE_SESSION_RESUME IKE_AUTH | CREATE_CHILD_SA x 2 | INFORMATIONAL(TICKET_REQUEST)
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, toHex, utf8 } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import { after, type Duration, HOUR, MINUTE, SECOND } from '#base/time'
import { nobleCrypto } from '#crypto/noble'
import { nodeCrypto } from '#crypto/node'
import type { InitiateRequest, ResponderPolicy } from '#ikev2/events'
import { prfOf, skeyseedResumed } from '#ikev2/keys'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { Strategy } from '#ikev2/resumption/strategy'
import type { ResumptionTicket } from '#ikev2/resumption/ticket'
import type { LinkProfile } from '../sim/network.ts'
import { connect, find, type Host, isEmpty, ofKind, type Pair, pair } from './pair.ts'

const { number: X } = EXCHANGE
const { number: N } = NOTIFY
const CLOCKED: Strategy = { kind: 'clocked', limit: HOUR }

const policyWith = (
  strategy: Strategy = CLOCKED,
  overrides: Partial<ResponderPolicy['resumption'] & object> = {},
): Partial<ResponderPolicy> => ({
  resumption: { strategy, mayResume: () => true, octetsOf: () => 0, ...overrides },
})

const stageWith = (options: Parameters<typeof pair>[0] = {}, strategy?: Strategy): Pair =>
  pair({ ...options, policy: { ...policyWith(strategy), ...options.policy } })

const ticketOf = (host: Host): ResumptionTicket | undefined => find(host, 'ticket')?.ticket

/** Time goes by, also when nobody has anything to do. */
function sleep({ network }: Pair, duration: Duration): void {
  const end = after(network.now, duration)
  network.run(duration)
  network.clock.advance(end)
}

/** As it was before anybody used and wiped it. */
const copy = (ticket: ResumptionTicket): ResumptionTicket => ({
  ...ticket,
  opaque: ticket.opaque.slice(),
  skD: ticket.skD.slice(),
})

const count = ({ engine }: Host, counter: string): number => engine.counters()[counter] ?? 0

/** Exchanges of the initiator, in order. */
const exchanges = (host: Host, sa: IkeSaId): string[] =>
  host.events.flatMap((event) => (event.kind === 'exchange' && event.sa === sa ? [event.name] : []))

/** A session with a ticket, which then ends without a word on the side of the client. */
function lost(stage: Pair, request: Partial<InitiateRequest> = {}): ResumptionTicket {
  const id = connect(stage, { resume: {}, ...request })
  sleep(stage, SECOND)
  const ticket = ticketOf(stage.client)
  assert.ok(ticket !== undefined)
  stage.client.engine.abandon(id)
  stage.network.drain()
  return copy(ticket)
}

const resume = (stage: Pair, ticket: ResumptionTicket, request: Partial<InitiateRequest> = {}): IkeSaId =>
  connect(stage, { ...request, resume: { ticket } })

const sentWith = (stage: Pair, exchange: number): number =>
  stage.network.sent.filter(({ bytes }) => bytes[18] === exchange).length

test('a full exchange gives a ticket, a lost session is resumed with it, and its keys are replaced at once', () => {
  const stage = stageWith()
  const { client, node, network } = stage
  const ticket = lost(stage)
  assert.equal(ticket.expires > network.now, true)
  const before = sentWith(stage, X.IKE_INTERMEDIATE)
  const id = resume(stage, ticket)
  sleep(stage, 10 * SECOND)
  assert.deepEqual(exchanges(client, id), [
    'IKE_SESSION_RESUME',
    'IKE_AUTH',
    'CREATE_CHILD_SA', // the IKE SA
    'IKE_FOLLOWUP_KE',
    'INFORMATIONAL', // DELETE of the old one
    'CREATE_CHILD_SA', // the Child SA
    'IKE_FOLLOWUP_KE',
    'INFORMATIONAL',
    'INFORMATIONAL', // TICKET_REQUEST
  ])
  assert.equal(sentWith(stage, X.IKE_INTERMEDIATE), before, 'no other key exchange')
  assert.ok(ofKind(client, 'child.rekeyed', id) && ofKind(client, 'child.switched', id))
  for (const host of [client, node]) {
    assert.equal(count(host, 'established.full'), 1)
    assert.equal(count(host, 'established.resumed'), 1)
  }
  const next = ticketOf(client)!
  assert.notDeepEqual(next.skD, ticket.skD)
  assert.notDeepEqual(next.opaque, ticket.opaque)
  const ours = client.sending.get(id)!
  const theirs = [...node.children.values()].find(({ inboundSpi }) => inboundSpi === ours.outboundSpi)!
  assert.deepEqual(theirs.inboundKey, ours.outboundKey)
  assert.equal(node.sending.size, 1, 'the lost session is over at the node, too')
})

test('resumed sessions are resumed again and again, each with a ticket of its own', () => {
  const stage = stageWith()
  let ticket = lost(stage)
  const seen = new Set([toHex(ticket.opaque)])
  for (let i = 0; i < 5; i++) {
    const id = resume(stage, ticket)
    sleep(stage, 10 * SECOND)
    ticket = copy(ticketOf(stage.client)!)
    seen.add(toHex(ticket.opaque))
    stage.client.engine.abandon(id)
  }
  assert.equal(seen.size, 6)
  assert.equal(count(stage.node, 'established.resumed'), 5)
  assert.equal(count(stage.node, 'established.full'), 1)
})

test('nobody asks for a ticket who was not told to, and nobody gets one who did not ask', () => {
  const stage = stageWith()
  connect(stage)
  assert.equal(ticketOf(stage.client), undefined)
  assert.equal(count(stage.node, 'tickets.issued'), 0)
})

test('a responder without resumption gives none, and takes none', () => {
  const giving = stageWith({ seed: 3 })
  const ticket = lost(giving)
  const stage = pair({ seed: 3 })
  connect(stage, { resume: {} })
  assert.equal(ticketOf(stage.client), undefined)
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'child.established', id))
  assert.equal(count(stage.node, 'ticket-unwanted'), 1)
  assert.equal(count(stage.node, 'established.full'), 2)
})

test('closed to return: the last ticket comes with the answer to DELETE, before the end', () => {
  const stage = stageWith()
  const { client, network } = stage
  const id = connect(stage, { resume: {} })
  const first = ticketOf(client)!
  sleep(stage, SECOND)
  client.engine.close(id, network.now, { toReturn: true })
  sleep(stage, 5 * SECOND)
  const last = ticketOf(client)!
  assert.notDeepEqual(last.opaque, first.opaque)
  const kinds = client.events.map(({ kind }) => kind)
  assert.ok(kinds.lastIndexOf('ticket') < kinds.lastIndexOf('ike.closed'))
  const again = resume(stage, last)
  sleep(stage, 10 * SECOND)
  assert.equal(exchanges(client, again)[0], 'IKE_SESSION_RESUME')
})

test('closed for good: no ticket is asked for', () => {
  const stage = stageWith()
  const { client, network } = stage
  const id = connect(stage, { resume: {} })
  client.engine.close(id, network.now)
  sleep(stage, 5 * SECOND)
  assert.equal(client.events.filter(({ kind }) => kind === 'ticket').length, 1)
})

test('a ticket is renewed half-way, and after every rekey of the IKE SA', () => {
  const stage = stageWith()
  const { client, network } = stage
  const id = connect(stage, { resume: {} })
  const tickets = () => client.events.filter(({ kind }) => kind === 'ticket').length
  assert.equal(tickets(), 1)
  sleep(stage, 40 * MINUTE)
  assert.equal(tickets(), 2)
  client.engine.rekeyIke(id, network.now)
  sleep(stage, SECOND)
  assert.equal(tickets(), 3)
  sleep(stage, 2 * HOUR)
  const atEnd = tickets()
  sleep(stage, 2 * HOUR)
  assert.equal(tickets(), atEnd, 'an authentication that is used up gives no more tickets')
})

test('cookies: the ticket survives one, and AUTH covers the last request', () => {
  const stage = stageWith({ limits: { cookieAt: 0 } })
  const ticket = lost(stage)
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'child.established', id))
  assert.equal(count(stage.node, 'established.resumed'), 1)
  assert.equal(count(stage.node, 'cookie-demanded'), 2)
})

// ---------------------------------------------------------------------------------------------- weather

const WEATHER: Record<string, LinkProfile> = {
  'thirty percent loss': { loss: 0.3, duplication: 0.1, latency: [10, 200] },
  'everything twice, in any order': { loss: 0, duplication: 1, latency: [1, 3000] },
}

for (const [name, link] of Object.entries(WEATHER)) {
  test(`${name}: 30 seeds end well or cleanly, and leave nothing`, () => {
    let resumed = 0
    for (let seed = 1; seed <= 30; seed++) {
      const cookies = seed % 3 === 0 ? { limits: { cookieAt: 0 } } : {}
      const stage = stageWith({ seed, link, policy: { liveness: 10_000 }, ...cookies })
      const { client, node, network } = stage
      const first = connect(stage, { resume: {} })
      sleep(stage, 20 * SECOND)
      const ticket = ticketOf(client)
      client.engine.abandon(first)
      if (ticket !== undefined) {
        const id = resume(stage, copy(ticket))
        sleep(stage, 60 * SECOND)
        if (exchanges(client, id)[0] === 'IKE_SESSION_RESUME' && ofKind(client, 'child.rekeyed', id))
          resumed++
        client.engine.close(id, network.now, { toReturn: true })
      }
      assert.equal(network.run(1_000_000), false)
      for (const host of [client, node])
        assert.ok(isEmpty(host), `seed ${seed}: ${JSON.stringify(host.engine.counters())}`)
    }
    assert.ok(resumed >= 20, `${resumed} of 30`)
  })
}

test('the client vanishes after it resumed: the node replaces the keys itself, then gives up', () => {
  const stage = stageWith({ policy: { liveness: 60_000 } })
  const { client, node, network } = stage
  const id = resume(stage, lost(stage))
  client.engine.abandon(id)
  network.filter = (datagram) => (datagram.destination.address === client.address ? undefined : datagram)
  network.sent.length = 0
  sleep(stage, 15 * SECOND)
  assert.ok(network.sent.some(({ bytes }) => bytes[18] === X.CREATE_CHILD_SA))
  sleep(stage, 20 * MINUTE)
  assert.ok(isEmpty(node))
})

test('a ticket that nobody answers is wiped, or given back to who wants that, and is good still', () => {
  for (const returnUnanswered of [false, true]) {
    const stage = stageWith()
    const { client, network } = stage
    const ticket = lost(stage)
    const sent = copy(ticket)
    network.filter = () => undefined
    connect(stage, { resume: { ticket: sent, returnUnanswered } })
    network.filter = (datagram) => datagram
    assert.equal(client.events.at(-1)!.kind, 'ike.closed')
    const back = client.events.at(-2)!
    assert.equal(back.kind === 'ticket' && back.ticket === sent, returnUnanswered)
    assert.equal(
      sent.skD.some((octet) => octet !== 0),
      returnUnanswered,
    )
    if (!returnUnanswered) continue
    const id = resume(stage, sent)
    assert.ok(ofKind(client, 'child.established', id))
    assert.equal(count(stage.node, 'established.resumed'), 1)
  }
})

// ---------------------------------------------------------------------------------------------- strategies

test('clocked: time goes by, connected or not', () => {
  const stage = stageWith({}, { kind: 'clocked', limit: HOUR })
  const ticket = lost(stage)
  sleep(stage, HOUR - 30 * SECOND)
  const id = resume(stage, copy(ticket))
  sleep(stage, 10 * SECOND)
  assert.equal(count(stage.node, 'established.resumed'), 1)
  const next = copy(ticketOf(stage.client)!)
  assert.ok(next.expires <= ticket.expires, 'a resumed session does not start the clock anew')
  stage.client.engine.abandon(id)
  sleep(stage, MINUTE)
  resume(stage, { ...next, expires: (stage.network.now + HOUR) as never })
  assert.equal(count(stage.node, 'ticket-expired'), 1)
  assert.equal(count(stage.node, 'established.full'), 2)
})

test('established: only connected time counts, over all sessions', () => {
  const stage = stageWith({ policy: { liveness: 10_000 } }, { kind: 'established', limit: 10 * MINUTE })
  const { client, node, network } = stage
  let id = connect(stage, { resume: {} })
  for (let i = 0; i < 3; i++) {
    sleep(stage, 4 * MINUTE)
    client.engine.close(id, network.now, { toReturn: true })
    sleep(stage, HOUR)
    const ticket = ticketOf(client)!
    id = connect(stage, { resume: { ticket: copy(ticket) } })
  }
  assert.equal(count(node, 'established.resumed'), 2)
  assert.equal(count(node, 'established.full'), 2, 'twelve minutes were too many')
})

test('established: what a session used after its last ticket counts, though the client lost it', () => {
  for (const pause of [SECOND, 2 * MINUTE]) {
    const stage = stageWith({ policy: { liveness: 30_000 } }, { kind: 'established', limit: 10 * MINUTE })
    const { client, node } = stage
    const id = connect(stage, { resume: {} })
    const ticket = copy(ticketOf(client)!)
    sleep(stage, 11 * MINUTE)
    client.engine.abandon(id)
    sleep(stage, pause)
    resume(stage, ticket)
    assert.equal(count(node, 'ticket-expired'), 1, pause === SECOND ? 'still alive' : 'settled')
    assert.equal(count(node, 'established.resumed'), 0)
  }
})

test('data: octets count, over all sessions', () => {
  let octets = 0
  const policy = policyWith({ kind: 'data', limit: 1000 }, { octetsOf: () => octets })
  const stage = pair({ policy })
  const { client, node, network } = stage
  let id = connect(stage, { resume: {} })
  for (const used of [400, 400, 400]) {
    octets = used
    client.engine.close(id, network.now, { toReturn: true })
    sleep(stage, HOUR)
    octets = 0
    id = connect(stage, { resume: { ticket: copy(ticketOf(client)!) } })
    sleep(stage, 10 * SECOND)
  }
  assert.equal(count(node, 'established.resumed'), 2)
  assert.equal(count(node, 'established.full'), 2)
})

// ---------------------------------------------------------------------------------------------- keys

test('SKEYSEED of a resumed IKE SA: the formula, and both providers agree', () => {
  const [skD, ni, nr] = [1, 2, 3].map((n) => new Uint8Array(32).fill(n)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ]
  const ours = skeyseedResumed(prfOf(nodeCrypto, 'sha256'), skD, ni, nr)
  assert.deepEqual(ours, nodeCrypto.hmac('sha256', skD, concat(utf8('Resumption'), ni, nr)))
  assert.deepEqual(ours, skeyseedResumed(prfOf(nobleCrypto, 'sha256'), skD, ni, nr))
})

test('both sides log the same keys of a resumed session, and no two sets are alike', () => {
  const stage = stageWith({ keyLog: true })
  resume(stage, lost(stage))
  sleep(stage, 10 * SECOND)
  const [ours, theirs] = [stage.client, stage.node].map(({ events }) =>
    events.flatMap((event) => (event.kind === 'keys' ? [toHex(event.skEi)] : [])),
  )
  assert.deepEqual(ours, theirs)
  // Two of the full exchange, one resumed, one of the rekey.
  assert.equal(new Set(ours).size, 4)
})

// ---------------------------------------------------------------------------------------------- RFC 5723 row

/** Notify types of an answer in the clear. */
function notifiesOf(bytes: Uint8Array): number[] {
  const { firstPayload } = decodeHeader(bytes)
  const payloads = decodePayloads(firstPayload, bytes.subarray(HEADER_LENGTH), 'answer')
  return payloads.flatMap((payload) => (payload.kind === 'Notify' ? [payload.type] : []))
}

/** What the node answers to an IKE_SESSION_RESUME request of a stranger. */
function ask(stage: Pair, payloads: readonly Payload[]): Uint8Array[] {
  const { node, client, network } = stage
  const bytes = encodeClear(
    {
      spiInitiator: nodeCrypto.random(8),
      spiResponder: new Uint8Array(8),
      exchange: X.IKE_SESSION_RESUME,
      messageId: 0,
      response: false,
      fromInitiator: true,
    },
    payloads,
  )
  const path = {
    local: { address: node.address, port: 500 },
    remote: { address: client.address, port: 501 },
  }
  const from = node.outputs.length
  node.engine.handle({ kind: 'datagram', path, bytes }, network.now)
  network.drain()
  return node.outputs.slice(from).flatMap((output) => (output.kind === 'transmit' ? [output.bytes] : []))
}

const NONCE: Payload = { kind: 'Nonce', data: new Uint8Array(32).fill(7) }
const opaque = (bytes: Uint8Array): Payload => notify(N.TICKET_OPAQUE, bytes)

function isNacked(stage: Pair, bytes: Uint8Array, counter: string): void {
  const before = count(stage.node, 'sas.all')
  const [answer, ...others] = ask(stage, [NONCE, opaque(bytes)])
  assert.deepEqual(notifiesOf(answer!), [N.TICKET_NACK])
  assert.deepEqual(others, [])
  assert.ok(count(stage.node, counter) >= 1, counter)
  assert.equal(count(stage.node, 'sas.all'), before, 'no state')
}

test('5723: a ticket replayed: TICKET_NACK, and the client that has no other falls back', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  resume(stage, copy(ticket))
  sleep(stage, 10 * SECOND)
  isNacked(stage, ticket.opaque, 'ticket-spent')
  const id = resume(stage, ticket)
  assert.deepEqual(exchanges(stage.client, id).slice(0, 4), ['IKE_SA_INIT', 'IKE_INTERMEDIATE', 'IKE_AUTH'])
  assert.equal(count(stage.client, 'resumption.fell-back'), 1)
  assert.ok(ofKind(stage.client, 'child.established', id))
})

test('5723: a ticket replayed before its owner is done: one of the two gets in', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  // A thief saw the ticket on the wire: it is answered, holds half-open state, and has no SK_d.
  assert.equal(ask(stage, [NONCE, opaque(ticket.opaque)]).length, 1)
  const id = resume(stage, copy(ticket))
  assert.ok(ofKind(stage.client, 'child.established', id), 'the owner is not locked out')
  assert.equal(exchanges(stage.client, id)[0], 'IKE_SESSION_RESUME')
  isNacked(stage, ticket.opaque, 'ticket-spent')
  sleep(stage, 60 * SECOND)
  assert.equal(count(stage.node, 'sas.half-open'), 0)
})

test('5723: SK_d used twice: two tickets of one IKE SA, also two at once', () => {
  const stage = stageWith()
  const { client, node, network } = stage
  const id = connect(stage, { resume: {} })
  const first = copy(ticketOf(client)!)
  sleep(stage, 40 * MINUTE)
  const second = copy(ticketOf(client)!)
  assert.notDeepEqual(first.opaque, second.opaque)
  assert.deepEqual(first.skD, second.skD)
  client.engine.abandon(id)
  const a = client.engine.initiate({ ...requestOf(stage), resume: { ticket: copy(first) } }, network.now)
  const b = client.engine.initiate({ ...requestOf(stage), resume: { ticket: copy(second) } }, network.now)
  sleep(stage, 20 * SECOND)
  const opened = [a, b].filter((sa) => ofKind(client, 'child.established', sa))
  assert.equal(opened.length, 1)
  assert.equal(count(node, 'established.resumed'), 1)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_REFUSED')
  isNacked(stage, first.opaque, 'ticket-spent')
  isNacked(stage, second.opaque, 'ticket-spent')
})

const requestOf = (stage: Pair): InitiateRequest => ({
  path: {
    local: { address: stage.client.address, port: 500 },
    remote: { address: stage.node.address, port: 500 },
  },
  credential: { kind: 'null' },
  peer: { id: stage.key.id, publicKey: stage.key.credential.publicKey },
  requestAddress: true,
  localSelectors: [
    { protocol: 0, startPort: 0, endPort: 65535, startAddress: '0.0.0.0', endAddress: '255.255.255.255' },
  ] as never,
  remoteSelectors: [
    { protocol: 0, startPort: 0, endPort: 65535, startAddress: '0.0.0.0', endAddress: '255.255.255.255' },
  ] as never,
  espCiphers: ['aes-256-gcm-16'],
})

test('5723: a ticket of another relay, and one from before a restart', () => {
  const other = stageWith({ seed: 7 })
  const ticket = lost(other)
  const stage = stageWith({ seed: 8 })
  lost(stage)
  isNacked(stage, ticket.opaque, 'ticket-unreadable')
  // The client never even tries it elsewhere: it is of another peer.
  stage.network.sent.length = 0
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'child.established', id))
  assert.equal(sentWith(stage, X.IKE_SESSION_RESUME), 0)
  assert.ok(
    ticket.skD.every((octet) => octet === 0),
    'wiped',
  )
})

test('5723: a ticket truncated, lengthened, or with any octet changed', () => {
  const stage = stageWith()
  const { opaque: sealed } = lost(stage)
  for (const length of [0, 1, 12, 13, 14, 28, sealed.length - 1])
    isNacked(stage, sealed.subarray(0, length), 'ticket-unreadable')
  isNacked(stage, concat(sealed, Uint8Array.of(0)), 'ticket-unreadable')
  for (let at = 0; at < sealed.length; at++)
    isNacked(stage, sealed.with(at, sealed[at]! ^ 1), 'ticket-unreadable')
  isNacked(stage, new Uint8Array(60_000).fill(sealed[0]!), 'ticket-unreadable')
})

test('5723: a ticket expired: the client does not send it, and the node does not take it', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  sleep(stage, HOUR + SECOND)
  stage.network.sent.length = 0
  resume(stage, copy(ticket))
  assert.equal(sentWith(stage, X.IKE_SESSION_RESUME), 0)
  isNacked(stage, ticket.opaque, 'ticket-expired')
  sleep(stage, 2 * HOUR)
  isNacked(stage, ticket.opaque, 'ticket-unreadable')
})

test('5723: IDi changed: AUTHENTICATION_FAILED, and the ticket is still its owner’s', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  const thief = { ...copy(ticket), id: { type: 11, data: new Uint8Array(16) } }
  resume(stage, thief)
  assert.equal(find(stage.client, 'ike.closed')!.reason, 'IPP_IKE_REFUSED')
  assert.equal(count(stage.node, 'auth-failed'), 1)
  assert.equal(count(stage.node, 'established.resumed'), 0)
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'child.established', id))
  assert.equal(count(stage.node, 'established.resumed'), 1)
})

test('AUTH covers both messages of IKE_SESSION_RESUME: whoever alters either, or the ticket says otherwise, is not let in', () => {
  const alter = (isResponse: boolean) => (stage: Pair) => {
    stage.network.filter = (datagram) => {
      const header = decodeHeader(datagram.bytes)
      if (header.exchange !== X.IKE_SESSION_RESUME || header.response !== isResponse) return datagram
      const body = datagram.bytes.subarray(HEADER_LENGTH)
      const payloads = decodePayloads(header.firstPayload, body, 'resume')
      return { ...datagram, bytes: encodeClear(header, [...payloads, notify(N.INITIAL_CONTACT)]) }
    }
  }
  for (const [spoil, fullTranscript] of [
    [alter(false), true],
    [alter(true), true],
    [() => {}, false],
  ] as const) {
    const stage = stageWith()
    const ticket = lost(stage)
    assert.equal(ticket.fullTranscript, true)
    spoil(stage)
    const id = resume(stage, { ...copy(ticket), fullTranscript })
    assert.equal(ofKind(stage.client, 'child.established', id), false)
    assert.equal(count(stage.node, 'auth-failed'), 1)
    assert.equal(count(stage.node, 'established.resumed'), 0)
  }
})

test('5723: a ticket without its SK_d, or with the octets of another suite: nobody is let in', () => {
  for (const spoil of [
    (ticket: ResumptionTicket) => ({ ...ticket, skD: new Uint8Array(32) }),
    (ticket: ResumptionTicket) => ({
      ...ticket,
      suite: { ...ticket.suite, cipher: 'chacha20-poly1305' as const },
    }),
  ]) {
    const stage = stageWith()
    const ticket = lost(stage)
    const id = resume(stage, spoil(copy(ticket)))
    assert.equal(ofKind(stage.client, 'child.established', id), false)
    assert.equal(count(stage.node, 'established.resumed'), 0)
    assert.ok(count(stage.node, 'icv') > 0)
  }
})

test('5723: no ticket, two tickets, no nonce, a nonce too short, payloads of IKE_SA_INIT: silence', () => {
  const stage = stageWith()
  const { opaque: sealed } = lost(stage)
  for (const payloads of [
    [NONCE],
    [NONCE, opaque(sealed), opaque(sealed)],
    [opaque(sealed)],
    [{ kind: 'Nonce', data: new Uint8Array(15) } as Payload, opaque(sealed)],
    [NONCE, { kind: 'KE', group: 31, data: new Uint8Array(32) } as Payload, opaque(sealed)],
  ]) {
    const before = count(stage.node, 'malformed')
    assert.deepEqual(ask(stage, payloads), [])
    assert.equal(count(stage.node, 'malformed'), before + 1)
  }
})

test('5723: a path that may not resume: no ticket there, and none is good there', () => {
  let welcome = true
  const stage = pair({ policy: policyWith(CLOCKED, { mayResume: () => welcome }) })
  const ticket = lost(stage)
  welcome = false
  isNacked(stage, ticket.opaque, 'ticket-unwanted')
  const id = connect(stage, { resume: {} })
  assert.ok(ofKind(stage.client, 'child.established', id))
  assert.equal(count(stage.node, 'tickets.issued'), 1)
})

test('5723: who is no longer admitted is not resumed either', () => {
  let refusal: 'IPP_OVERLAY_NOT_LISTED' | undefined
  const stage = stageWith({ policy: { admitAnonymous: () => refusal } })
  const ticket = lost(stage)
  refusal = 'IPP_OVERLAY_NOT_LISTED'
  resume(stage, ticket)
  assert.equal(find(stage.client, 'ike.closed')!.reason, 'IPP_IKE_REFUSED')
})

test('5723: answers that are no use: wrong AUTH of the node, a zero SPI, an error: waited out, never believed', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  stage.network.filter = (datagram) => {
    const { bytes } = datagram
    if (bytes[18] !== X.IKE_SESSION_RESUME || datagram.source.address !== stage.node.address) return datagram
    return { ...datagram, bytes: bytes.map((octet, at) => (at >= 8 && at < 16 ? 0 : octet)) }
  }
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'ike.closed', id))
  assert.ok(count(stage.client, 'zero-spi') > 0)
  assert.ok(isEmpty(stage.client))
})

test('5723: a made-up TICKET_NACK costs the shortcut and nothing else', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  stage.network.filter = (datagram) => {
    const { bytes } = datagram
    if (bytes[18] !== X.IKE_SESSION_RESUME || datagram.source.address !== stage.node.address) return datagram
    const { spiInitiator } = decodeHeader(bytes)
    const header = {
      spiInitiator,
      spiResponder: new Uint8Array(8),
      exchange: X.IKE_SESSION_RESUME,
      messageId: 0,
    }
    const forged = encodeClear({ ...header, response: true, fromInitiator: false }, [notify(N.TICKET_NACK)])
    return { ...datagram, bytes: forged }
  }
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'child.established', id))
  assert.equal(exchanges(stage.client, id).at(0), 'IKE_SA_INIT')
  sleep(stage, 60 * SECOND)
  assert.equal(count(stage.node, 'sas.half-open'), 0)
})

test('5723: the cookie loop ends', () => {
  const stage = stageWith()
  const ticket = lost(stage)
  let made = 0
  stage.network.filter = (datagram) => {
    const { bytes } = datagram
    if (bytes[18] !== X.IKE_SESSION_RESUME || datagram.source.address !== stage.node.address) return datagram
    const { spiInitiator } = decodeHeader(bytes)
    const header = {
      spiInitiator,
      spiResponder: new Uint8Array(8),
      exchange: X.IKE_SESSION_RESUME,
      messageId: 0,
    }
    const cookie = notify(N.COOKIE, Uint8Array.of(++made))
    return { ...datagram, bytes: encodeClear({ ...header, response: true, fromInitiator: false }, [cookie]) }
  }
  const id = resume(stage, ticket)
  assert.ok(ofKind(stage.client, 'ike.closed', id))
  assert.equal(count(stage.client, 'init-loop') >= 1, true)
})
