/** What two well-behaved engines do with each other. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toHex } from '#base/bytes'
import { ip } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import type { Aead, CryptoProvider } from '#crypto/provider'
import { IkeEngine } from '#ikev2/engine'
import { ANY_SELECTOR, type ChildSa, type TrafficSelector } from '#ikev2/events'
import { decodeHeader } from '#ikev2/message/header'
import { decodePayloads } from '#ikev2/message/payload'
import { EXCHANGE } from '#ikev2/numbers'
import { hostSelector } from '#ikev2/selectors'
import { SimNetwork } from '../sim/network.ts'
import { seededCrypto, seededRng } from '../sim/random.ts'
import {
  addHost,
  anonymousRequest,
  CLIENT,
  connect,
  find,
  isEmpty,
  NODE,
  nodeKey,
  ofKind,
  openPolicy,
  pair,
  pathBetween,
} from './pair.ts'

test('nobody gets an address and a Child SA in three round trips, one of them for ML-KEM', () => {
  const stage = pair()
  connect(stage)
  const { client, node, network, key } = stage
  const ours = find(client, 'child.established')!
  const theirs = find(node, 'child.established')!
  assert.equal(network.sent.length, 7, 'the key of ML-KEM takes two datagrams')
  assert.equal(ours.leased, ip('10.1.0.1'))
  assert.equal(theirs.leased, ip('10.1.0.1'))
  assert.deepEqual(ours.peer, { kind: 'key', id: key.id, publicKey: key.credential.publicKey })
  assert.deepEqual(theirs.peer, { kind: 'none' })
  assert.deepEqual(ours.child.localSelectors, [hostSelector(ip('10.1.0.1'))])
  assert.deepEqual(ours.child.remoteSelectors, [ANY_SELECTOR])
  assertMirrored(ours.child, theirs.child)
  assert.ok(ours.child.esn, 'extended sequence numbers are preferred')
  assert.equal(find(client, 'ike.established')!.suite, 'aes-256-gcm-16/hmac-sha256/x25519+mlkem768')
})

test('the responder announces the Child SA before it transmits the answer that makes the peer use it', () => {
  const stage = pair()
  connect(stage)
  const kinds = stage.node.outputs.map(({ kind }) => kind)
  assert.deepEqual(kinds, ['transmit', 'transmit', 'ike.established', 'child.established', 'transmit'])
})

test('all requests look the same: one payload order, nothing that names a client', () => {
  const shapes = [1, 2, 3].map((seed) => {
    const stage = pair({ seed })
    connect(stage)
    return stage.network.sent.map(({ bytes }) => {
      const header = decodeHeader(bytes)
      const outer = decodePayloads(header.firstPayload, bytes.subarray(28), 'message')
      return `${bytes.length} ${outer.map((payload) => (payload.kind === 'Notify' ? payload.type : payload.kind))}`
    })
  })
  assert.deepEqual(shapes[0], [
    '260 SA,KE,Nonce,16430,16431,16438,16447',
    '327 SA,KE,Nonce,16430,16431,16438,16447,16443',
    '1200 SKF',
    '312 SKF',
    '1200 SK',
    '312 SK',
    '312 SK',
  ])
  assert.deepEqual(shapes[1], shapes[0])
  assert.deepEqual(shapes[2], shapes[0])
})

for (const cipher of ['aes-256-gcm-16', 'aes-128-gcm-16', 'chacha20-poly1305'] as const) {
  test(`the Child SA is ${cipher} when that is all the node takes`, () => {
    const stage = pair({ policy: { espCiphers: [cipher] } })
    connect(stage, { espCiphers: ['chacha20-poly1305', 'aes-256-gcm-16', 'aes-128-gcm-16'] })
    const { child } = find(stage.client, 'child.established')!
    assert.equal(child.cipher, cipher)
    assert.equal(child.inboundKey.length, cipher === 'aes-128-gcm-16' ? 20 : 36)
    assertMirrored(child, find(stage.node, 'child.established')!.child)
  })
}

test('two nodes authenticate each other by key and get exactly the selectors agreed', () => {
  const network = new SimNetwork({ seed: 3 })
  const [a, b] = [1, 2].map((seed) => nodeKey(seededCrypto(seededRng(seed))))
  const policy = (own: typeof a, other: typeof a): ReturnType<typeof openPolicy> =>
    openPolicy(own!, {
      publicKeyOf: (id) =>
        toHex(id.data) === toHex(other!.id.data) ? other!.credential.publicKey : undefined,
    })
  const left = addHost(network, { address: CLIENT, seed: 4, responder: policy(a, b) })
  const right = addHost(network, { address: NODE, seed: 5, responder: policy(b, a) })
  const range = (start: string, end: string): TrafficSelector => ({
    ...ANY_SELECTOR,
    startAddress: ip(start),
    endAddress: ip(end),
  })
  const [local, remote] = [[range('10.1.0.0', '10.1.15.255')], [range('10.2.0.0', '10.2.15.255')]]
  left.engine.initiate(
    anonymousRequest(b!, {
      credential: a!.credential,
      requestAddress: false,
      localSelectors: local,
      remoteSelectors: remote,
    }),
    network.now,
  )
  network.run(1000)
  const ours = find(left, 'child.established')!
  const theirs = find(right, 'child.established')!
  assert.deepEqual(theirs.peer, { kind: 'key', id: a!.id, publicKey: a!.credential.publicKey })
  assert.equal(theirs.leased, undefined)
  assert.deepEqual(ours.child.localSelectors, local)
  assert.deepEqual(theirs.child.localSelectors, remote)
  assertMirrored(ours.child, theirs.child)
})

test('close: DELETE, its answer, and nothing is left', () => {
  const stage = pair()
  const id = connect(stage)
  const { client, node, network } = stage
  client.engine.close(id, network.now)
  client.engine.close(id, network.now)
  network.run(60_000)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_CLOSED')
  assert.equal(find(node, 'ike.closed')!.reason, 'IPP_IKE_DELETED')
  assert.deepEqual(
    node.events.slice(-2).map(({ kind }) => kind),
    ['child.closed', 'ike.closed'],
  )
  assert.ok(isEmpty(client) && isEmpty(node))
})

test('close ends also when the peer never answers', () => {
  const stage = pair()
  const id = connect(stage)
  const { client, network } = stage
  network.filter = () => undefined
  client.engine.close(id, network.now)
  network.run(11_000)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_CLOSED')
  assert.ok(isEmpty(client))
})

test('close while IKE_AUTH is out: the SA the peer may have is deleted as soon as it answers', () => {
  const stage = pair()
  const { client, node, network, key } = stage
  const id = client.engine.initiate(anonymousRequest(key), network.now)
  network.run(1000, () => network.sent.length === 6)
  client.engine.close(id, network.now)
  network.run(60_000)
  assert.ok(!ofKind(client, 'child.established'))
  assert.ok(ofKind(node, 'child.established') && ofKind(node, 'child.closed'))
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_CLOSED')
  assert.ok(isEmpty(client) && isEmpty(node))
})

test('close before anything was answered ends at once', () => {
  const { client, network, key } = pair()
  const id = client.engine.initiate(anonymousRequest(key), network.now)
  client.engine.close(id, network.now)
  assert.ok(client.engine.counters()['sas.all'] === 0)
  network.drain()
  assert.ok(ofKind(client, 'ike.closed', id))
})

test('abandon says nothing to the peer and closes in public', () => {
  const stage = pair()
  const id = connect(stage)
  const { client, network } = stage
  const before = network.sent.length
  client.engine.abandon(id)
  network.run(1000)
  assert.equal(network.sent.length, before)
  assert.deepEqual(
    client.events.slice(-2).map(({ kind }) => kind),
    ['child.closed', 'ike.closed'],
  )
  assert.ok(isEmpty(client))
})

test('both sides close at once', () => {
  const stage = pair()
  const id = connect(stage)
  const { client, node, network } = stage
  client.engine.close(id, network.now)
  node.engine.close(find(node, 'ike.established')!.sa, network.now)
  network.run(60_000)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_CLOSED')
  assert.equal(find(node, 'ike.closed')!.reason, 'IPP_IKE_CLOSED')
  assert.ok(isEmpty(client) && isEmpty(node))
})

test('a Child SA alone is deleted by either side, and by both at once', () => {
  for (const closers of [['client'], ['node'], ['client', 'node']]) {
    const stage = pair()
    const { client, node, network } = stage
    connect(stage)
    for (const host of [client, node]) {
      if (!closers.includes(host === client ? 'client' : 'node')) continue
      const { sa, child } = find(host, 'child.established')!
      host.engine.closeChild(sa, child.inboundSpi, network.now)
    }
    network.run(1000)
    for (const host of [client, node]) {
      assert.equal(host.events.filter(({ kind }) => kind === 'child.closed').length, 1)
      assert.ok(!ofKind(host, 'ike.closed'))
      assert.equal(host.children.size, 0)
    }
  }
})

test('an exhausted pool refuses inside a valid IKE_AUTH and leaves existing SAs alone', () => {
  const addresses = [ip('10.1.0.9')]
  const stage = pair({ policy: { lease: () => addresses.pop() } })
  const { client, node, network } = stage
  connect(stage)
  const second = connect(stage)
  network.run(30_000)
  const closed = client.events.find((event) => event.kind === 'ike.closed' && event.sa === second)
  assert.equal(closed?.kind === 'ike.closed' && closed.reason, 'IPP_IKE_ADDRESS_REFUSED')
  assert.equal(node.engine.counters()['no-address'], 1)
  assert.equal(client.children.size, 1)
  assert.equal(node.children.size, 1)
  assert.equal(client.engine.counters()['sas.all'], 1)
  assert.equal(node.engine.counters()['sas.all'], 1)
})

test('liveness: a silent peer is asked, and buried when it does not answer', () => {
  const stage = pair({ policy: { liveness: 20_000 } })
  connect(stage)
  const { node, network } = stage
  const before = network.sent.length
  network.run(70_000)
  assert.ok(network.sent.length - before >= 6, 'asked and answered, several times')
  assert.ok(!ofKind(node, 'ike.closed'))
  network.filter = () => undefined
  network.run(200_000)
  assert.equal(find(node, 'ike.closed')!.reason, 'IPP_IKE_TIMEOUT')
  assert.ok(isEmpty(node))
})

test('liveness: ESP that arrives is proof enough', () => {
  const stage = pair({ policy: { liveness: 20_000 } })
  connect(stage)
  const { node, network } = stage
  const before = network.sent.length
  const { sa } = find(node, 'ike.established')!
  for (let i = 0; i < 10; i++) {
    network.run(10_000)
    node.engine.heard(sa, network.now)
    network.drain()
  }
  assert.equal(network.sent.length, before)
})

test('nobody answers: retransmissions back off, and patience ends', () => {
  const stage = pair()
  stage.network.filter = () => undefined
  const times: number[] = []
  const { client, network } = stage
  network.filter = () => {
    times.push(network.now)
    return undefined
  }
  connect(stage)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_TIMEOUT')
  assert.equal(network.now, 30_000)
  assert.ok(times.length === 5 || times.length === 6, 'the sixth is due around the end')
  const gaps = times.slice(1).map((time, i) => time - times[i]!)
  gaps.forEach((gap, i) => {
    assert.ok(gap >= 0.9 * 1000 * 2 ** i && gap <= 1.1 * 1000 * 2 ** i, `gap ${i} is ${gap}`)
  })
  assert.ok(isEmpty(client))
})

test('a retransmission is the same octets, and so is its answer', () => {
  const stage = pair()
  const { network } = stage
  let dropped = 0
  network.filter = (datagram) =>
    datagram.source.address === NODE && dropped++ % 2 === 0 ? undefined : datagram
  connect(stage)
  network.run(60_000)
  const byId = new Map<string, Set<string>>()
  for (const { bytes } of network.sent) {
    const { exchange, response, messageId } = decodeHeader(bytes)
    // Of fragments only the number tells them apart.
    const piece = bytes.length > 1000 ? 'first' : 'rest'
    const key = `${exchange} ${response} ${messageId} ${piece}`
    byId.set(key, (byId.get(key) ?? new Set()).add(toHex(bytes)))
  }
  assert.ok(network.sent.length > 10)
  for (const [key, variants] of byId) assert.equal(variants.size, 1, key)
})

test('under load a cookie is asked for and returned; AUTH covers the request with it', () => {
  const stage = pair({ limits: { cookieAt: 0 } })
  connect(stage)
  assert.ok(ofKind(stage.client, 'child.established'))
  assert.equal(stage.network.sent.length, 9)
  assert.equal(stage.node.engine.counters()['cookie-demanded'], 1)
})

test('half-open IKE SAs are bounded and expire', () => {
  const stage = pair({ limits: { cookieAt: 1000, halfOpen: 20 } })
  const { network, node, key } = stage
  network.filter = (datagram) => (datagram.source.address === NODE ? undefined : datagram)
  for (let i = 0; i < 50; i++)
    stage.client.engine.initiate(
      anonymousRequest(key, { path: pathBetween(CLIENT, NODE, 1024 + i) }),
      network.now,
    )
  network.run(500)
  assert.equal(node.engine.counters()['sas.half-open'], 20)
  assert.equal(node.engine.counters().limit, 30)
  network.run(120_000)
  assert.ok(isEmpty(node) && isEmpty(stage.client))
})

test('lingering IKE SAs are bounded: the oldest is forgotten', () => {
  const stage = pair({ limits: { lingering: 3 } })
  const { client, node, network } = stage
  const ids = Array.from({ length: 10 }, () => connect(stage))
  for (const id of ids) client.engine.close(id, network.now)
  network.run(1000)
  assert.equal(node.engine.counters()['sas.all'], 3)
  network.run(60_000)
  assert.ok(isEmpty(node) && isEmpty(client))
})

test('a node that restarted: the old IKE SA dies of liveness, a new one works', () => {
  const stage = pair()
  const { network, key, client } = stage
  connect(stage, { liveness: 10_000 })
  addHost(network, { address: NODE, seed: 99, responder: openPolicy(key) })
  network.run(200_000)
  assert.equal(find(client, 'ike.closed')!.reason, 'IPP_IKE_TIMEOUT')
  connect(stage)
  assert.equal(client.children.size, 1)
})

test('a wrong pinned key ends the attempt and tells the peer', () => {
  const stage = pair()
  const other = nodeKey(nodeCrypto)
  connect(stage, { peer: { id: stage.key.id, publicKey: other.credential.publicKey } })
  stage.network.run(30_000)
  assert.equal(find(stage.client, 'ike.closed')!.reason, 'IPP_IKE_AUTH_FAILED')
  assert.ok(isEmpty(stage.client) && isEmpty(stage.node))
})

test('a policy that admits nobody: AUTHENTICATION_FAILED, and nothing is left', () => {
  const stage = pair({ policy: { admitAnonymous: () => 'IPP_OVERLAY_FOREIGN_SOURCE' } })
  connect(stage)
  stage.network.run(30_000)
  assert.equal(find(stage.client, 'ike.closed')!.reason, 'IPP_IKE_REFUSED')
  assert.ok(!ofKind(stage.node, 'ike.established') && !ofKind(stage.node, 'ike.closed'))
  assert.equal(stage.policy.leases.size, 0)
  assert.ok(isEmpty(stage.client) && isEmpty(stage.node))
})

test('a host without a policy answers no one', () => {
  const stage = pair()
  const { network, key } = stage
  const mute = addHost(network, { address: NODE, seed: 8 })
  stage.client.engine.initiate(anonymousRequest(key), network.now)
  network.run(60_000)
  assert.equal(find(stage.client, 'ike.closed')!.reason, 'IPP_IKE_TIMEOUT')
  assert.ok((mute.engine.counters()['not-a-responder'] ?? 0) > 0)
})

test('keys are told only to whoever asked for them', () => {
  const silent = pair()
  connect(silent)
  assert.ok(!ofKind(silent.client, 'keys'))
  const stage = pair({ keyLog: true })
  connect(stage)
  const ours = find(stage.client, 'keys')!
  const theirs = find(stage.node, 'keys')!
  assert.deepEqual(ours.skEi, theirs.skEi)
  assert.deepEqual(ours.skEr, theirs.skEr)
  assert.equal(ours.skEi.length, 36)
  assert.ok(ours.skEi.some((octet) => octet !== 0))
})

test('no AEAD nonce is used twice under a key, whatever is lost and repeated', () => {
  const seen = new Map<string, string>()
  const watch = (crypto: CryptoProvider): CryptoProvider => ({
    ...crypto,
    aead(cipher, key): Aead {
      const inner = crypto.aead(cipher, key)
      const name = toHex(key)
      return {
        ...inner,
        seal(nonce, plaintext, associated) {
          const use = `${name} ${toHex(nonce)}`
          assert.ok(!seen.has(use), 'a nonce was used twice')
          seen.set(use, toHex(plaintext))
          return inner.seal(nonce, plaintext, associated)
        },
        open: (nonce, sealed, associated) => inner.open(nonce, sealed, associated),
        destroy: () => inner.destroy(),
      }
    },
  })
  const network = new SimNetwork({ seed: 5, link: { loss: 0.25, duplication: 0.2, latency: [5, 900] } })
  const key = nodeKey(nodeCrypto)
  const node = addHost(network, {
    address: NODE,
    seed: 1,
    crypto: watch(seededCrypto(seededRng(1))),
    responder: openPolicy(key, { liveness: 3_000 }),
  })
  const client = addHost(network, { address: CLIENT, seed: 2, crypto: watch(seededCrypto(seededRng(2))) })
  for (let i = 0; i < 5; i++) client.engine.initiate(anonymousRequest(key, { liveness: 2_000 }), network.now)
  network.run(120_000)
  for (const { sa } of client.events.filter((event) => event.kind === 'ike.established'))
    client.engine.close(sa, network.now)
  network.run(300_000)
  assert.ok(seen.size > 100, `${seen.size} messages were sealed`)
  assert.ok(isEmpty(client) && isEmpty(node))
})

test('ESP SPIs come from the whole range and are unique', () => {
  const engine = new IkeEngine({ crypto: seededCrypto(seededRng(6)) })
  const key = nodeKey(nodeCrypto)
  const tops = new Set<number>()
  const spis = new Set<number>()
  const stage = pair()
  for (let i = 0; i < 60; i++) {
    connect(stage)
    const { child } = find(stage.client, 'child.established')!
    spis.add(child.inboundSpi)
    tops.add(child.inboundSpi >>> 29)
    assert.ok(child.inboundSpi >= 256)
  }
  assert.equal(spis.size, 60)
  assert.equal(tops.size, 8)
  assert.ok(engine.initiate(anonymousRequest(key), stage.network.now) > 0)
})

function assertMirrored(a: ChildSa, b: ChildSa): void {
  assert.equal(a.inboundSpi, b.outboundSpi)
  assert.equal(a.outboundSpi, b.inboundSpi)
  assert.deepEqual(a.inboundKey, b.outboundKey)
  assert.deepEqual(a.outboundKey, b.inboundKey)
  assert.notDeepEqual(a.inboundKey, a.outboundKey)
  assert.deepEqual(a.localSelectors, b.remoteSelectors)
  assert.deepEqual(a.remoteSelectors, b.localSelectors)
  assert.equal(a.cipher, b.cipher)
  assert.equal(a.esn, b.esn)
}

test('exchange numbers print their names', () => {
  assert.equal(EXCHANGE.nameOf(35), 'IKE_AUTH')
  assert.equal(EXCHANGE.nameOf(99), 'exchange type 99')
})
