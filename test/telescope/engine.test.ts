/**
 * A whole telescope in memory, with the checks that were made of the kernel:
 *
 *     S 198.18.1.1 ==== A 198.18.10.1 ==== B 198.18.20.1 ==== C 198.18.30.1 ---- D 203.0.113.80
 *     lends:              10.65.0.0/16       10.66.0.0/16       10.67.0.0/16
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { toHex } from '#base/bytes'
import type { Spi } from '#base/ids'
import { ANY, host, ip, prefix } from '#base/ip'
import { HEADROOM, VERDICT } from '#telescope/engine'
import { innerMtu, sealedLength } from '#telescope/mtu'
import type { PlaneOperation } from '#telescope/plane'
import { PRIORITY } from '#telescope/plane'
import { sequenceLow, spi } from '#wire/esp'
import {
  checkIpv4,
  dontFragment,
  isFragment,
  PROTOCOL,
  protocol,
  readUint16,
  tos,
  totalLength,
  ttl,
  writeUint16,
} from '#wire/ipv4'
import {
  ends,
  guard,
  Host,
  harden,
  installSa,
  Network,
  overlay,
  packet,
  policy,
  ROOM,
  Telescope,
  template,
} from './engine-hosts.ts'

const D = '203.0.113.80'
const [SA, SB, SC] = ['10.65.0.2', '10.66.0.2', '10.67.0.2'] as const

function lab() {
  const network = new Network()
  const s = new Host(network, 'S', '198.18.1.1')
  const s2 = new Host(network, 'S2', '198.18.2.1')
  const a = new Host(network, 'A', '198.18.10.1', prefix('10.65.0.0/16'))
  const b = new Host(network, 'B', '198.18.20.1', prefix('10.66.0.0/16'))
  const c = new Host(network, 'C', '198.18.30.1', prefix('10.67.0.0/16'))
  overlay(a, b, 9001)
  overlay(b, c, 9002)
  harden(a, 'relay')
  harden(b, 'relay')
  harden(c, 'exit')
  guard(s)
  const telescope = new Telescope(s)
  telescope.extend(a, SA, 11)
  telescope.extend(b, SB, 12, a, 9001)
  telescope.extend(c, SC, 13, b, 9002)
  const nodes = [s, a, b, c]
  const noDrops = () => {
    for (const node of nodes) assert.deepEqual(node.drops(), {}, node.name)
  }
  return { network, s, s2, a, b, c, telescope, noDrops }
}

const flows = (packets: readonly Uint8Array[]): string[] => [...new Set(packets.map(ends))]

describe('forward and back', () => {
  test('S reaches D: plain at C only, three hops on the wire, one ESP flow per link', () => {
    const { network, s, c, noDrops } = lab()
    s.route(packet(SC, D))
    assert.deepEqual(c.delivered.map(ends), [`${SC} > ${D}`])
    assert.equal(toHex(c.delivered[0]!), toHex(packet(SC, D)))
    assert.deepEqual(flows(network.wire), [
      '198.18.1.1 > 198.18.10.1',
      '198.18.10.1 > 198.18.20.1',
      '198.18.20.1 > 198.18.30.1',
    ])
    for (const sent of network.wire) assert.equal(protocol(sent, 0), PROTOCOL.esp)
    noDrops()
  })

  test('D reaches S back through the private address alone', () => {
    const { s, c, noDrops } = lab()
    c.route(packet(D, SC, { ttl: 57 }))
    assert.deepEqual(s.delivered.map(ends), [`${D} > ${SC}`])
    assert.equal(toHex(s.delivered[0]!), toHex(packet(D, SC, { ttl: 57 })))
    noDrops()
  })

  test('the control plane of each hop goes through the layers below it', () => {
    const { s, b, c, noDrops } = lab()
    const ports: [number, number] = [500, 500]
    s.route(packet(SA, '198.18.20.1', { ports }))
    s.route(packet(SB, '198.18.30.1', { ports }))
    assert.deepEqual(b.delivered.map(ends), [`${SA} > 198.18.20.1`])
    assert.deepEqual(c.delivered.map(ends), [`${SB} > 198.18.30.1`])
    b.route(packet('198.18.20.1', SA, { ports }))
    c.route(packet('198.18.30.1', SB, { ports }))
    assert.deepEqual(s.delivered.map(ends), [`198.18.20.1 > ${SA}`, `198.18.30.1 > ${SB}`])
    noDrops()
  })

  test('each node decrements the TTL of what it forwards inside, once; nothing else is a router', () => {
    const { network, s, b, noDrops } = lab()
    s.route(packet(SA, '198.18.20.1', { ttl: 9 }))
    assert.equal(ttl(b.delivered[0]!, 0), 8)
    for (const sent of network.wire) assert.equal(ttl(sent, 0), 64)
    noDrops()
  })

  test('a forwarded packet whose TTL is used up is dropped without a word', () => {
    const { network, s, a } = lab()
    s.route(packet(SA, '198.18.20.1', { ttl: 1 }))
    assert.deepEqual(a.drops(), { XfrmFwdHdrError: 1 })
    assert.equal(network.wire.length, 1)
  })

  test('two clients of one path are kept apart', () => {
    const { s, s2, a, b, c } = lab()
    const second = new Telescope(s2)
    second.extend(a, '10.65.0.3', 21)
    second.extend(b, '10.66.0.3', 22, a, 9001)
    second.extend(c, '10.67.0.3', 23, b, 9002)
    s.route(packet(SC, D))
    s2.route(packet('10.67.0.3', D))
    assert.deepEqual(c.delivered.map(ends), [`${SC} > ${D}`, `10.67.0.3 > ${D}`])
    c.route(packet(D, '10.67.0.3'))
    assert.deepEqual([s.delivered.length, s2.delivered.length], [0, 1])
  })
})

describe('headers and sizes', () => {
  test('outer headers are constant whatever is inside', () => {
    const { network, s, c } = lab()
    for (const more of [{}, { tos: 0xb9, ttl: 3, df: true }, { tos: 3, ttl: 255 }]) {
      s.route(packet(SC, D, more))
      c.route(packet(D, SC, more))
    }
    assert.equal(network.wire.length, 18)
    for (const sent of network.wire) {
      assert.equal(checkIpv4(sent, 0, sent.length), undefined)
      assert.deepEqual(
        [tos(sent, 0), ttl(sent, 0), dontFragment(sent, 0), isFragment(sent, 0)],
        [0, 64, false, false],
      )
      // The IP ID says no more than the ESP header behind it.
      assert.equal(readUint16(sent, 4), sequenceLow(sent, 20) & 0xffff)
    }
  })

  test('no nonce is used twice under one key, over the whole network', () => {
    const { network, s, c } = lab()
    for (let i = 0; i < 100; i++) {
      s.route(packet(SC, D))
      c.route(packet(D, SC))
    }
    const used = network.wire.map((sent) => `${spi(sent, 20)} ${toHex(sent.subarray(28, 36))}`)
    assert.equal(new Set(used).size, used.length)
  })

  test('three layers leave 1334 octets of 1500; each layer adds the 56 of the kernel', () => {
    assert.equal(innerMtu(1500, 3), 1334)
    assert.equal(sealedLength(1334, 3), 1500)
    assert.equal(sealedLength(84, 1), 140)
    assert.equal(sealedLength(84, 2), 196)
    const { network, s, c } = lab()
    s.route(packet(SC, D, { length: 1334 }))
    assert.equal(network.wire[0]!.length, 1500)
    assert.equal(c.delivered[0]!.length, 1334)
  })

  test('one octet more: frag-needed with the right MTU, back into the TUN', () => {
    const { network, s } = lab()
    s.route(packet(SC, D, { length: 1335, df: true }))
    assert.equal(network.wire.length, 0)
    assert.deepEqual(s.drops(), { TunTooBig: 1 })
    const [error] = s.delivered
    assert.equal(ends(error!), `${D} > ${SC}`)
    assert.deepEqual([protocol(error!, 0), error![20], error![21], readUint16(error!, 26)], [1, 3, 4, 1334])
    assert.equal(toHex(error!.subarray(28)), toHex(packet(SC, D, { length: 1335, df: true }).subarray(0, 28)))
  })

  test('too big in the middle: the error goes back to the sender through the overlay, sealed', () => {
    const { network, b, c } = lab()
    // Fits the one layer from C to B, but not the two that B has to put on.
    const big = packet(c.address, SB, { length: innerMtu(1500, 1), protocol: 50 })
    c.route(big)
    assert.deepEqual(b.drops(), { TunTooBig: 1 })
    assert.deepEqual(flows(network.wire), ['198.18.30.1 > 198.18.20.1', '198.18.20.1 > 198.18.30.1'])
    const [error] = c.delivered
    assert.equal(ends(error!), '198.18.20.1 > 198.18.30.1')
    assert.equal(readUint16(error!, 26), innerMtu(1500, 2))
  })

  test('no error is made about an error', () => {
    const { s } = lab()
    const error = packet(SC, D, { length: 1400, protocol: 1 })
    error[20] = 3
    s.route(error)
    assert.deepEqual(s.drops(), { TunTooBig: 1 })
    assert.equal(s.delivered.length, 0)
  })
})

describe('spoofing and injection', () => {
  test('S using an S_C it was not given is dropped at C', () => {
    const { s, c, telescope } = lab()
    s.apply(policy('out', host(ip('10.67.0.99')), ANY, PRIORITY.circuit, telescope.out))
    s.route(packet('10.67.0.99', D))
    assert.deepEqual(
      [s.drops(), c.drops()],
      [{ XfrmInPolBlock: 1 }, {}],
      'not an address of S: its own guard',
    )
    s.engine.setHostAddresses([ip('10.67.0.99')])
    s.route(packet('10.67.0.99', D))
    assert.deepEqual(c.drops(), { XfrmInNoPols: 1 })
    assert.equal(c.delivered.length, 0)
  })

  test('a foreign source inside layer 1 is dropped at A', () => {
    const { s, a } = lab()
    s.engine.setHostAddresses([ip('10.67.0.99')])
    s.apply(
      policy('out', host(ip('10.67.0.99')), ANY, PRIORITY.circuit, [template(s.address, a.address, 11)]),
    )
    s.route(packet('10.67.0.99', D))
    assert.deepEqual(a.drops(), { XfrmInNoPols: 1 })
  })

  test("another client's address inside layer 1 is dropped at A", () => {
    const { s, s2, a } = lab()
    new Telescope(s2).extend(a, '10.65.0.3', 21)
    s.engine.setHostAddresses([ip('10.65.0.3')])
    s.apply(policy('out', host(ip('10.65.0.3')), ANY, PRIORITY.circuit, [template(s.address, a.address, 11)]))
    s.route(packet('10.65.0.3', '198.18.20.1'))
    assert.deepEqual(a.drops(), { XfrmInTmplMismatch: 1 })
  })

  test('A forwards no clear text of S_A: it is not an exit', () => {
    const { s, a } = lab()
    s.route(packet(SA, D))
    assert.deepEqual(a.drops(), { XfrmOutPolBlock: 1 })
    assert.equal(a.delivered.length, 0)
  })

  test('S_A reaches neither another client of A nor A itself', () => {
    const { s, s2, a } = lab()
    new Telescope(s2).extend(a, '10.65.0.3', 21)
    s.route(packet(SA, '10.65.0.3'))
    assert.deepEqual(a.drops(), { XfrmInPolBlock: 1 })
    for (const local of [a.address, '127.0.0.1', '255.255.255.255', '224.0.0.1']) {
      s.route(packet(SA, local))
      assert.deepEqual(a.drops(), { XfrmInNoPols: 1 }, local)
    }
    assert.equal(s2.delivered.length + a.delivered.length, 0)
  })

  test("S_C reaches no other address of the exit's host", () => {
    const { s, c } = lab()
    c.engine.setHostAddresses([ip('192.168.7.1')])
    s.route(packet(SC, '192.168.7.1'))
    assert.deepEqual(c.drops(), { XfrmInNoPols: 1 })
  })

  test('clear text injected towards a private address never enters a telescope of a relay', () => {
    const { network, a, b } = lab()
    a.route(packet('198.18.1.254', SA))
    b.route(packet('198.18.1.254', SB))
    assert.deepEqual([a.drops(), b.drops()], [{ XfrmInPolBlock: 1 }, { XfrmInPolBlock: 1 }])
    assert.equal(network.wire.length, 0)
  })

  test('an overlay peer cannot inject for a pool that is not its own', () => {
    const { a, b, c } = lab()
    // B wraps a packet "from a client of C" for A.
    const forged = packet('10.67.0.9', SA)
    b.apply(policy('out', ANY, host(ip(SA)), 1, [template(b.address, a.address, 9001)]))
    b.engine.setHostAddresses([ip('10.67.0.9')])
    b.route(forged)
    assert.deepEqual(a.drops(), { XfrmInPolBlock: 1 })
    assert.deepEqual(c.drops(), {})
  })

  test('a layer that is missing or too many is a mismatch', () => {
    const { s, b, telescope } = lab()
    // S speaks to C without the layer of B's overlay neighbour: straight from S_A.
    s.apply(policy('out', host(ip(SB)), ANY, PRIORITY.circuit, telescope.out.slice(1)))
    b.apply(policy('fwd', host(ip(SB)), ANY, PRIORITY.circuit, [template(ip(SA), b.address, 12)]))
    s.route(packet(SB, '198.18.30.1'))
    assert.deepEqual(b.drops(), { XfrmInTmplMismatch: 1 })
  })

  test('replayed, changed, unknown, truncated ESP: each its counter, nothing out', () => {
    const { network, s, a } = lab()
    s.route(packet(SA, '198.18.20.1'))
    const [sent] = network.wire
    a.receive(sent!)
    assert.deepEqual(a.drops(), { XfrmInStateSeqError: 1 })
    const changed = sent!.slice()
    changed[60]! ^= 1
    changed[27]! += 1 // another number, or the window would refuse it first
    a.receive(changed)
    assert.deepEqual(a.drops(), { XfrmInStateProtoError: 1 })
    const unknown = sent!.slice()
    unknown[22]! ^= 1
    a.receive(unknown)
    assert.deepEqual(a.drops(), { XfrmInNoStates: 1 })
    a.receive(sent!.slice(0, 50))
    assert.deepEqual(a.drops(), { XfrmInHdrError: 1 })
    const [sa] = a.engine.counters().filter((counters) => counters.spi === spi(sent!, 20))
    assert.deepEqual([sa!.packets, sa!.replayed, sa!.corrupted], [1, 1, 1])
  })

  test('an SA serves its own source address only', () => {
    const { network, s, a } = lab()
    s.route(packet(SA, '198.18.20.1'))
    const moved = packet('198.18.2.1', a.address, { length: network.wire[0]!.length, protocol: 50 })
    moved.set(network.wire[0]!.subarray(20), 20)
    a.receive(moved)
    assert.deepEqual(a.drops(), { XfrmInNoStates: 1 })
  })

  test('random octets from anywhere never throw', () => {
    const { s, a } = lab()
    let seed = 7
    const next = () => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
      return seed >>> 16
    }
    for (let i = 0; i < 3000; i++) {
      const junk = Uint8Array.from({ length: next() % 120 }, () => next())
      if (junk.length >= 20 && i % 2)
        junk.set(packet('198.18.1.1', a.address, { length: junk.length, protocol: 50 }).subarray(0, 20))
      a.receive(junk)
      s.route(junk)
    }
    assert.equal(a.delivered.length + s.delivered.length, 0)
  })
})

describe('fail closed', () => {
  const removal = (from: string, to: string, spiValue: number): PlaneOperation => ({
    kind: 'sa.remove',
    sa: { source: ip(from), destination: ip(to), spi: spiValue as Spi },
  })
  const outboundSpi = (node: Host, from: string, to: string): number =>
    node.engine.counters().find((sa) => sa.source === from && sa.destination === to)!.spi

  test('client: an SA of any layer removed, policy kept: dropped; a fresh one repairs it', () => {
    const { network, s, c } = lab()
    s.apply(removal(SB, c.address, outboundSpi(s, SB, c.address)))
    s.route(packet(SC, D))
    assert.deepEqual(s.drops(), { XfrmOutNoStates: 1 })
    assert.equal(network.wire.length, 0)
    installSa(ip(SB), c.address, 13, c, s)
    s.route(packet(SC, D))
    assert.equal(c.delivered.length, 1)
  })

  test('client: the policy removed: the guard blocks', () => {
    const { network, s } = lab()
    s.apply({ kind: 'policy.remove', direction: 'out', selector: { source: host(ip(SC)), destination: ANY } })
    s.route(packet(SC, D))
    assert.deepEqual(s.drops(), { XfrmOutPolBlock: 1 })
    assert.equal(network.wire.length, 0)
  })

  test('exit: the circuit policy removed: a reply dies in the TUN', () => {
    const { network, c } = lab()
    c.apply({ kind: 'policy.remove', direction: 'out', selector: { source: ANY, destination: host(ip(SC)) } })
    c.route(packet(D, SC))
    assert.deepEqual(c.drops(), { TunNoPolicy: 1 })
    assert.equal(network.wire.length, 0)
  })

  test('a bypass policy lets nothing out of the TUN in clear', () => {
    const { network, s } = lab()
    const selector = { source: host(ip(SC)), destination: host(ip(D)) }
    s.apply({
      kind: 'policy.install',
      policy: { direction: 'out', selector, action: 'bypass', priority: PRIORITY.ikeBypass, templates: [] },
    })
    s.route(packet(SC, D))
    assert.deepEqual(s.drops(), { TunNoPolicy: 1 })
    assert.equal(network.wire.length, 0)
  })

  test('after clear() the engine holds nothing', () => {
    const { s, c } = lab()
    for (const node of [s, c]) node.engine.clear()
    s.route(packet(SC, D))
    assert.deepEqual(s.engine.counters(), [])
    assert.deepEqual(s.drops(), { TunNoPolicy: 1 })
  })

  test('make before break: the newest outbound SA is used, the old one still opens', () => {
    const { network, s, a, noDrops } = lab()
    const old = outboundSpi(s, s.address, a.address)
    s.route(packet(SC, D))
    const fresh = installSa(s.address, a.address, 11, a, s)
    s.route(packet(SC, D))
    const fromS = network.wire.filter((sent) => ends(sent) === `${s.address} > ${a.address}`)
    assert.deepEqual(
      fromS.map((sent) => spi(sent, 20)),
      [old, fresh.spi],
    )
    s.apply(removal(s.address, a.address, old))
    a.apply(removal(s.address, a.address, old))
    s.route(packet(SC, D))
    noDrops()
  })

  test('an SA that exists is not installed again: its nonces would be', () => {
    const { s, a } = lab()
    const sa = installSa(s.address, a.address, 11, a, s)
    assert.throws(() => s.apply({ kind: 'sa.install', sa: { ...sa, flow: 'outbound' } }), {
      code: 'IPP_PLANE_OPERATION',
    })
    s.apply(removal('192.0.2.1', '192.0.2.2', 300))
  })
})

describe('odd packets', () => {
  test('UDP encapsulation on the first hop', () => {
    const network = new Network()
    const s = new Host(network, 'S', '198.18.1.1')
    const a = new Host(network, 'A', '198.18.10.1', prefix('10.65.0.0/16'))
    const encapsulation = { sourcePort: 4500, destinationPort: 4500 }
    installSa(s.address, a.address, 11, a, s, { encapsulation })
    s.apply(policy('out', host(ip(SA)), ANY, 1, [template(s.address, a.address, 11)]))
    s.apply(policy('in', ANY, host(ip(SA)), 1, [template(a.address, s.address, 11)]))
    a.apply(policy('fwd', host(ip(SA)), ANY, 1, [template(s.address, a.address, 11)]))
    s.route(packet(SA, D))
    const [sent] = network.wire
    assert.equal(protocol(sent!, 0), PROTOCOL.udp)
    assert.deepEqual([readUint16(sent!, 20), readUint16(sent!, 22), readUint16(sent!, 26)], [4500, 4500, 0])
    assert.equal(toHex(a.delivered[0]!), toHex(packet(SA, D)))
    // The same ESP without UDP is for another SA.
    const bare = packet(s.address, a.address, { length: sent!.length - 8, protocol: 50 })
    bare.set(sent!.subarray(28), 20)
    a.receive(bare)
    assert.deepEqual(a.drops(), { XfrmInStateMismatch: 1 })
  })

  test('IP options are refused on both sides', () => {
    const { s } = lab()
    const optioned = packet(SC, D)
    optioned[0] = 0x46
    s.route(optioned)
    assert.deepEqual(s.drops(), { TunMalformed: 1 })
  })

  test('a later fragment carries no ports, and a selector with ports does not take it', () => {
    const { s, b } = lab()
    const fragment = packet(SA, '198.18.20.1', { ports: [500, 500] })
    writeUint16(fragment, 6, 10)
    writeUint16(fragment, 10, 0)
    let sum = 0
    for (let i = 0; i < 20; i += 2) sum += readUint16(fragment, i)
    writeUint16(fragment, 10, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff)
    b.apply({
      kind: 'policy.install',
      policy: {
        direction: 'in',
        selector: { source: ANY, destination: host(b.address), protocol: 17, destinationPort: 500 },
        action: 'block',
        priority: 1,
        templates: [],
      },
    })
    s.route(fragment)
    assert.equal(b.delivered.length, 1)
    s.route(packet(SA, '198.18.20.1', { ports: [500, 500] }))
    assert.deepEqual(b.drops(), { XfrmInPolBlock: 1 })
  })

  test('a Russian doll of our own SAs ends at the depth limit', () => {
    const network = new Network()
    const x = new Host(network, 'X', '198.18.1.1')
    const y = new Host(network, 'Y', '198.18.1.2')
    const sa = installSa(x.address, y.address, 1, y, x)
    x.apply(policy('out', ANY, host(y.address), 1, [template(x.address, y.address, sa.reqid - 0x4950_0000)]))
    // X wraps its own wrapped packet again and again.
    const bytes = new Uint8Array(ROOM)
    let doll = packet(x.address, y.address)
    for (let depth = 1; depth <= 8; depth++) {
      bytes.set(doll, HEADROOM)
      assert.equal(x.engine.fromTun(bytes, HEADROOM, doll.length), VERDICT.network)
      doll = bytes.slice(x.engine.offset, x.engine.offset + x.engine.length)
      assert.equal(totalLength(doll, 0), doll.length)
    }
    y.receive(doll)
    assert.deepEqual(y.drops(), { XfrmInBufferError: 1 })
  })
})
