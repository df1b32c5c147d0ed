/**
 * Rekeys of Child SAs and of IKE SAs: from either side, from both at once, and across everything else.
 *
 *     client 192.0.2.1  <--- 10 ms each way --->  node 198.51.100.1
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toHex } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import type { ChildSa } from '#ikev2/events'
import { decodeHeader } from '#ikev2/message/header'
import { EXCHANGE } from '#ikev2/numbers'
import type { Datagram } from '../sim/network.ts'
import { CLIENT, connect, find, type Host, isEmpty, NODE, ofKind, type Pair, pair } from './pair.ts'

const { number: X } = EXCHANGE
type Side = 'client' | 'node'
const BOTH: readonly Side[] = ['client', 'node']
const SIDES: readonly (readonly Side[])[] = [['client'], ['node'], BOTH]

const sessionOf = (host: Host): IkeSaId => find(host, 'ike.established')!.sa
const childOf = (host: Host): ChildSa => host.sending.get(sessionOf(host))!
const kindsOf = (host: Host): string[] =>
  host.events.map(({ kind }) => kind).filter((kind) => kind.startsWith('child.') || kind.startsWith('ike.'))

const rekeyChild = (stage: Pair, side: Side): void => {
  const host = stage[side]
  host.engine.rekeyChild(sessionOf(host), childOf(host).inboundSpi, stage.network.now)
}
const rekeyIke = (stage: Pair, side: Side): void =>
  stage[side].engine.rekeyIke(sessionOf(stage[side]), stage.network.now)

const spisOf = ({ bytes }: Datagram): string => toHex(bytes.subarray(0, 16))
const isRequest = ({ bytes }: Datagram, exchange: number): boolean => {
  const header = decodeHeader(bytes)
  return header.exchange === exchange && !header.response
}

/** One Child SA on each side, both halves the same, nothing pending, and it is not the one of before. */
function assertRenewed({ client, node }: Pair, before?: ChildSa): void {
  const [ours, theirs] = [childOf(client), childOf(node)]
  assert.ok(ours !== undefined && theirs !== undefined, 'both sides have a Child SA')
  for (const host of [client, node]) assert.equal(host.children.size, 1, 'and only that one')
  assert.equal(ours.inboundSpi, theirs.outboundSpi)
  assert.equal(ours.outboundSpi, theirs.inboundSpi)
  assert.deepEqual(ours.inboundKey, theirs.outboundKey)
  assert.deepEqual(ours.outboundKey, theirs.inboundKey)
  assert.deepEqual(ours.localSelectors, theirs.remoteSelectors)
  assert.deepEqual(ours.remoteSelectors, theirs.localSelectors)
  if (before === undefined) return
  assert.notEqual(ours.inboundSpi, before.inboundSpi)
  assert.notDeepEqual(ours.inboundKey, before.inboundKey)
  assert.deepEqual(ours.localSelectors, before.localSelectors)
}

/** An established pair, and what it leaves behind when the client closes it. */
function stage(
  run: (stage: Pair) => void,
  options: Parameters<typeof pair>[0] & { readonly hybrid?: boolean } = {},
): void {
  const { hybrid = true } = options
  const made = pair(options)
  connect(made, { hybrid })
  run(made)
  made.client.engine.close(sessionOf(made.client), made.network.now)
  made.network.run(300_000)
  for (const host of [made.client, made.node])
    assert.ok(isEmpty(host), JSON.stringify(host.engine.counters()))
}

/** A peer hears a Child SA before the other sends on it, and until the other cannot have sent on it any more. */
function watchGaps({ network, client, node }: Pair): () => void {
  const problems: string[] = []
  const check = (host: Host, peer: Host, name: string): void => {
    const child = host.sending.get(sessionOf(host))
    if (child !== undefined && !peer.children.has(child.outboundSpi))
      problems.push(`${name} at ${network.now}`)
  }
  const { filter } = network
  network.filter = (datagram) => {
    check(client, node, 'client')
    check(node, client, 'node')
    return filter(datagram)
  }
  return () => assert.deepEqual(problems, [])
}

for (const sides of SIDES) {
  test(`a Child SA is rekeyed by ${sides.join(' and ')}`, () => {
    stage((made) => {
      const noGaps = watchGaps(made)
      const before = childOf(made.client)
      for (const side of sides) rekeyChild(made, side)
      made.network.run(60_000)
      noGaps()
      assertRenewed(made, before)
    })
  })

  test(`an IKE SA is rekeyed by ${sides.join(' and ')}: id and Child SA stay, SPIs and keys do not`, () => {
    stage(
      (made) => {
        const { network, client, node } = made
        const [child, spis] = [childOf(client), spisOf(network.sent.at(-1)!)]
        for (const side of sides) rekeyIke(made, side)
        network.run(60_000)
        assert.equal(childOf(client), child)
        for (const host of [client, node]) {
          assert.equal(host.engine.counters()['sas.all'], 1)
          assert.ok(!ofKind(host, 'ike.closed') && !ofKind(host, 'child.closed'))
        }
        const sent = network.sent.length
        rekeyChild(made, 'node')
        network.run(60_000)
        assert.notEqual(spisOf(network.sent[sent]!), spis)
        assert.equal(decodeHeader(network.sent[sent]!.bytes).messageId, 0, 'message IDs begin anew')
        assertRenewed(made, child)
        const keys = [client, node].map(({ events }) =>
          events.flatMap((event) => (event.kind === 'keys' ? [toHex(event.skEi)] : [])).sort(),
        )
        assert.deepEqual(keys[0], keys[1])
        assert.equal(new Set(keys[0]).size, 3, 'two of them before IKE_AUTH')
      },
      { keyLog: true },
    )
  })
}

test('make before break: the order of events on both sides', () => {
  stage((made) => {
    rekeyChild(made, 'client')
    made.network.run(1000)
    const [ours, theirs] = [kindsOf(made.client).slice(2), kindsOf(made.node).slice(2)]
    assert.deepEqual(ours, ['child.rekeyed', 'child.switched'])
    assert.deepEqual(theirs, ['child.rekeyed', 'child.switched'])
    made.network.run(10_000)
    assert.equal(kindsOf(made.client).at(-1), 'child.closed')
    assert.equal(kindsOf(made.node).at(-1), 'child.closed')
  })
})

test('a responder announces the heir before it answers, and sends on it when the old one is deleted', () => {
  stage((made) => {
    const { node } = made
    const from = node.outputs.length
    rekeyChild(made, 'client')
    made.network.run(1000)
    const kinds = node.outputs.slice(from).map(({ kind }) => kind)
    // CREATE_CHILD_SA, IKE_FOLLOWUP_KE and INFORMATIONAL are answered.
    assert.deepEqual(kinds, ['transmit', 'child.rekeyed', 'transmit', 'transmit', 'child.switched'])
  })
})

test('many rekeys in a row, of both kinds and by both sides', () => {
  stage((made) => {
    const noGaps = watchGaps(made)
    for (let round = 0; round < 20; round++) {
      const before = childOf(made.client)
      rekeyChild(made, BOTH[round % 2]!)
      rekeyIke(made, BOTH[(round >> 1) % 2]!)
      made.network.run(30_000)
      assertRenewed(made, before)
    }
    noGaps()
  })
})

test('a second Child SA beside the first is refused, and nothing changes', () => {
  stage((made) => {
    const { client, node } = made
    assert.equal(client.children.size, 1)
    // The engine never asks for one; what it answers is in negative.test.ts.
    client.engine.rekeyChild(sessionOf(client), 999 as never, made.network.now)
    made.network.run(1000)
    assert.equal(node.children.size, 1)
  })
})

// ---------------------------------------------------------------------------------------------- collisions

const asked = (host: Host, name: string): number =>
  host.events.filter((event) => event.kind === 'exchange' && event.name === name).length

test('rekeys of a Child SA cross: the lowest nonce loses, and has no additional key exchange', () => {
  const winners = new Set<string>()
  for (let seed = 1; seed <= 40; seed++) {
    stage(
      (made) => {
        const before = childOf(made.client)
        for (const side of BOTH) rekeyChild(made, side)
        made.network.run(60_000)
        assertRenewed(made, before)
        const ahead = BOTH.filter((side) => asked(made[side], 'IKE_FOLLOWUP_KE') === 1)
        assert.equal(ahead.length, 1, 'only the winner goes on')
        for (const side of BOTH)
          assert.equal(kindsOf(made[side]).filter((k) => k === 'child.rekeyed').length, 1)
        winners.add(ahead[0]!)
      },
      { seed },
    )
  }
  assert.equal(winners.size, 2)
})

test('classic rekeys of a Child SA cross: the lowest nonce loses, whoever it is', () => {
  const winners = new Set<string>()
  for (let seed = 1; seed <= 40; seed++) {
    stage(
      (made) => {
        const before = childOf(made.client)
        for (const side of BOTH) rekeyChild(made, side)
        made.network.run(60_000)
        assertRenewed(made, before)
        const told = BOTH.filter(
          (side) => kindsOf(made[side]).filter((k) => k === 'child.rekeyed').length === 2,
        )
        assert.equal(told.length, 1, 'only the winner heard of both')
        winners.add(told[0]!)
      },
      { seed, hybrid: false },
    )
  }
  assert.equal(winners.size, 2)
})

/** Loses the n-th datagram (from 0) that a side sends from now on. */
function lose({ network }: Pair, side: Side, ...which: number[]): void {
  const address = side === 'client' ? CLIENT : NODE
  let n = 0
  network.filter = (datagram) =>
    datagram.source.address === address && which.includes(n++) ? undefined : datagram
}

for (const kind of ['Child SA', 'IKE SA'] as const) {
  const rekey = kind === 'IKE SA' ? rekeyIke : rekeyChild
  for (const side of BOTH) {
    for (const lost of [[0], [1], [2], [3], [0, 1], [0, 2], [1, 2], [0, 1, 2, 3]]) {
      test(`crossing rekeys of a ${kind}, and datagrams ${lost} of the ${side} are lost`, () => {
        for (let seed = 1; seed <= 16; seed++) {
          stage(
            (made) => {
              const before = childOf(made.client)
              lose(made, side, ...lost)
              for (const each of BOTH) rekey(made, each)
              made.network.run(400_000)
              assertRenewed(made, kind === 'Child SA' ? before : undefined)
              for (const host of [made.client, made.node]) {
                assert.equal(host.engine.counters()['sas.all'], 1, `seed ${seed}`)
                assert.ok(!ofKind(host, 'ike.closed'), `seed ${seed}: ${find(host, 'ike.closed')?.detail}`)
              }
            },
            { seed, hybrid: seed % 2 === 0 },
          )
        }
      })
    }
  }
}

test('a rekey of the IKE SA meets one of a Child SA: put off, then done', () => {
  for (const [ike, child] of [
    ['client', 'node'],
    ['node', 'client'],
  ] as const) {
    stage((made) => {
      const before = childOf(made.client)
      const spis = spisOf(made.network.sent.at(-1)!)
      rekeyIke(made, ike)
      rekeyChild(made, child)
      made.network.run(120_000)
      assertRenewed(made, before)
      made.client.engine.closeChild(sessionOf(made.client), childOf(made.client).inboundSpi, made.network.now)
      made.network.run(20)
      assert.notEqual(spisOf(made.network.sent.at(-1)!), spis, 'the IKE SA is another')
    })
  }
})

test('a rekey meets the deletion of the same Child SA: it is deleted, on both sides', () => {
  for (const [rekeys, deletes] of [
    ['client', 'node'],
    ['node', 'client'],
  ] as const) {
    stage((made) => {
      const { network } = made
      rekeyChild(made, rekeys)
      const host = made[deletes]
      host.engine.closeChild(sessionOf(host), childOf(host).inboundSpi, network.now)
      network.run(120_000)
      for (const side of BOTH) {
        assert.equal(made[side].children.size, 0, side)
        assert.ok(!ofKind(made[side], 'ike.closed'))
        assert.ok(!ofKind(made[side], 'child.switched'))
      }
    })
  }
})

test('the peer deleted a Child SA and its DELETE is late: CHILD_SA_NOT_FOUND closes it here too', () => {
  stage((made) => {
    const { network, client, node } = made
    const held: Datagram[] = []
    network.filter = (datagram) => {
      if (datagram.source.address !== NODE || !isRequest(datagram, X.INFORMATIONAL)) return datagram
      held.push(datagram)
      return undefined
    }
    node.engine.closeChild(sessionOf(node), childOf(node).inboundSpi, network.now)
    network.run(30)
    rekeyChild(made, 'client')
    network.run(30)
    // It is being deleted over there: TEMPORARY_FAILURE, and we try again.
    assert.equal(client.children.size, 1)
    network.filter = (datagram) => datagram
    network.run(120_000)
    for (const side of BOTH) assert.equal(made[side].children.size, 0, side)
    assert.ok(held.length > 0)
  })
})

for (const [title, act] of [
  ['of a Child SA', rekeyChild],
  ['of the IKE SA', rekeyIke],
] as const) {
  for (const rekeys of BOTH) {
    for (const closes of BOTH) {
      test(`a rekey ${title} by the ${rekeys} meets the end of the IKE SA by the ${closes}`, () => {
        for (const delay of [0, 5, 12, 15, 25, 35, 45]) {
          const made = pair()
          connect(made)
          act(made, rekeys)
          made.network.run(delay)
          made[closes].engine.close(sessionOf(made[closes]), made.network.now)
          made.network.run(300_000)
          for (const side of BOTH) {
            assert.ok(isEmpty(made[side]), `delay ${delay}, ${side}`)
            assert.equal(kindsOf(made[side]).filter((kind) => kind === 'ike.closed').length, 1)
          }
        }
      })
    }
  }
}

test('both close while rekeys of the IKE SA cross', () => {
  for (let delay = 0; delay <= 60; delay += 3) {
    const made = pair({ seed: 1 + delay })
    connect(made)
    for (const side of BOTH) rekeyIke(made, side)
    made.network.run(delay)
    for (const side of BOTH) made[side].engine.close(sessionOf(made[side]), made.network.now)
    made.network.run(300_000)
    for (const side of BOTH) assert.ok(isEmpty(made[side]), `delay ${delay}, ${side}`)
  }
})

test('an IKE SA that was replaced and is never deleted expires', () => {
  const made = pair()
  connect(made)
  const { network, client, node } = made
  network.filter = (datagram) => (isRequest(datagram, X.INFORMATIONAL) ? undefined : datagram)
  rekeyIke(made, 'client')
  network.run(100)
  client.engine.abandon(sessionOf(client))
  assert.equal(node.engine.counters()['sas.all'], 2)
  network.run(125_000)
  assert.equal(node.engine.counters()['sas.all'], 1)
  assert.equal(node.children.size, 1, 'the session goes on')
  node.engine.abandon(sessionOf(node))
  network.run(1)
  assert.ok(isEmpty(node))
})

test('nobody answers a rekey: the session ends as of any silence', () => {
  for (const act of [rekeyChild, rekeyIke]) {
    const made = pair()
    connect(made)
    made.network.filter = () => undefined
    act(made, 'client')
    made.network.run(230_000)
    assert.ok(!ofKind(made.client, 'ike.closed'), 'not in a hurry')
    made.network.run(20_000)
    assert.equal(find(made.client, 'ike.closed')!.reason, 'IPP_IKE_TIMEOUT')
    assert.ok(isEmpty(made.client))
  }
})

// ---------------------------------------------------------------------------------------------- lifetimes

test('lifetimes: the client renews, the node with twice as long never gets to it', () => {
  const made = pair({ policy: { lifetimes: { child: 120_000, ike: 480_000 } } })
  connect(made, { lifetimes: { child: 60_000, ike: 240_000 } })
  const { network, client, node } = made
  network.run(3_600_000)
  const count = (host: Host, kind: string): number => kindsOf(host).filter((each) => each === kind).length
  const rekeys = count(client, 'child.switched')
  assert.ok(rekeys >= 45 && rekeys <= 80, `${rekeys} rekeys in an hour`)
  assert.equal(count(node, 'child.switched'), rekeys)
  assert.ok(!node.events.some((event) => event.kind === 'exchange'), 'the node never asked')
  assertRenewed(made)
  client.engine.close(sessionOf(client), network.now)
  network.run(60_000)
  for (const host of [client, node]) assert.ok(isEmpty(host))
})

test('lifetimes: moments are random, and no two sessions line up', () => {
  const moments = new Set<number>()
  for (let seed = 1; seed <= 30; seed++) {
    const made = pair({ seed })
    connect(made, { lifetimes: { child: 600_000, ike: 1e9 } })
    made.network.run(800_000, () => ofKind(made.client, 'child.switched'))
    moments.add(Math.round(made.network.now / 10_000))
    assert.ok(made.network.now > 440_000 && made.network.now < 760_000, `${made.network.now}`)
  }
  assert.ok(moments.size > 12, `${moments.size} different moments`)
})

// ---------------------------------------------------------------------------------------------- heard

test('the peer is heard on the heir before its DELETE arrives: we send on it from then on, and once', () => {
  stage((made) => {
    const { network, client, node } = made
    const before = childOf(client)
    network.filter = (datagram) => (isRequest(datagram, X.INFORMATIONAL) ? undefined : datagram)
    rekeyChild(made, 'client')
    network.run(300)
    assert.ok(ofKind(client, 'child.switched') && !ofKind(node, 'child.switched'))
    const { old, child } = find(node, 'child.rekeyed')!
    node.engine.heardOn(sessionOf(node), old.inboundSpi, network.now)
    node.engine.heardOn(sessionOf(node), 4711 as never, network.now)
    network.run(1)
    assert.ok(!ofKind(node, 'child.switched'), 'the old one says nothing')
    for (let i = 0; i < 3; i++) node.engine.heardOn(sessionOf(node), child.inboundSpi, network.now)
    network.run(1)
    assert.equal(kindsOf(node).filter((kind) => kind === 'child.switched').length, 1)
    assert.equal(node.sending.get(sessionOf(node)), child)
    assert.equal(node.children.size, 2, 'the old one is heard still')
    network.filter = (datagram) => datagram
    network.run(60_000)
    assertRenewed(made, before)
    assert.equal(kindsOf(node).filter((kind) => kind === 'child.switched').length, 1)
  })
})

test('the heir is heard while classic rekeys cross: nobody switches to what may be in vain', () => {
  for (let seed = 1; seed <= 20; seed++) {
    stage(
      (made) => {
        const { network, node } = made
        const before = childOf(made.client)
        for (const side of BOTH) rekeyChild(made, side)
        for (let i = 0; i < 20; i++) {
          network.run(5)
          for (const { inboundSpi } of [...node.children.values()])
            node.engine.heardOn(sessionOf(node), inboundSpi, network.now)
        }
        network.run(60_000)
        assertRenewed(made, before)
      },
      { seed, hybrid: false },
    )
  }
})

for (const rekeying of ['client', 'node'] as const)
  for (const hybrid of [true, false])
    test(`a Child SA deleted while the ${rekeying} rekeys it, hybrid ${hybrid}: its heir goes the same way`, () => {
      const stage = pair()
      const { network, client, node } = stage
      const sa = connect(stage, { hybrid })
      const there = find(node, 'ike.established')!.sa
      const { inboundSpi, outboundSpi } = client.sending.get(sa)!
      if (rekeying === 'client') client.engine.rekeyChild(sa, inboundSpi, network.now)
      else node.engine.rekeyChild(there, outboundSpi, network.now)
      network.run(5)
      client.engine.closeChild(sa, inboundSpi, network.now)
      network.run(60_000)
      assert.deepEqual([client.children.size, node.children.size], [0, 0])
      assert.equal(find(client, 'ike.closed'), undefined)
    })
