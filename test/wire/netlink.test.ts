import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { fromHex, toHex } from '#base/bytes'
import { ip, prefix, uint32ToIp } from '#base/ip'
import {
  attribute,
  attributeText,
  decodeAttributeList,
  decodeAttributes,
  encodeAttributes,
  encodePayload,
  readText,
} from '#wire/netlink/attributes'
import {
  decodeErrno,
  decodeMessages,
  encodeMessages,
  LITTLE_ENDIAN,
  type NetlinkMessage,
  NLM_F,
  NLMSG,
} from '#wire/netlink/message'
import type { InterfaceAddress, Route } from '#wire/netlink/route'
import {
  decodeAddress,
  decodeLink,
  decodeRoute,
  encodeAddress,
  encodeLink,
  encodeLinkKey,
  encodeRoute,
  encodeRouteQuery,
  IFF,
  RT_SCOPE,
  RT_TYPE,
  RTPROT_IPPRIV,
} from '#wire/netlink/route'
import type { XfrmSelector } from '#wire/netlink/xfrm'
import {
  ANY_XFRM_SELECTOR,
  decodeSadCount,
  decodeSpdInfo,
  encodeHashThreshold,
  encodeInfoRequest,
  NO_LIMITS,
  UDP_ENCAP_ESP,
  UNLIMITED,
  UNUSED,
  XFRM_MSG,
} from '#wire/netlink/xfrm'
import type { XfrmPolicy } from '#wire/netlink/xfrm-policy'
import { decodePolicy, decodePolicyId, encodePolicy, encodePolicyId } from '#wire/netlink/xfrm-policy'
import type { XfrmSa } from '#wire/netlink/xfrm-sa'
import {
  decodeExpire,
  decodeSa,
  decodeSaId,
  encodeSa,
  encodeSaId,
  freshReplay,
  NO_STATS,
} from '#wire/netlink/xfrm-sa'
import { xfrmVector, xfrmVectors } from './netlink-vectors.ts'

// The golden bytes are of a little-endian host; Node 24 runs on one everywhere but on s390x.
assert.ok(LITTLE_ENDIAN, 'the vectors are little-endian')

const KEY = Uint8Array.from({ length: 36 }, (_, i) => i)
const SA: XfrmSa = {
  source: ip('10.1.0.2'),
  destination: ip('10.1.0.1'),
  spi: 0xc1111111,
  protocol: 50,
  selector: ANY_XFRM_SELECTOR,
  limits: NO_LIMITS,
  use: UNUSED,
  stats: NO_STATS,
  sequence: 0,
  reqid: 7,
  mode: 1,
  replayWindow: 0,
  flags: 0xa0,
  aead: { name: 'rfc4106(gcm(aes))', key: KEY, icvBits: 128 },
  replay: freshReplay(64),
}
const TUNNEL = { spi: 0, protocol: 50, reqid: 7, mode: 1, share: 0, optional: false }
const POOLS: XfrmSelector = {
  ...ANY_XFRM_SELECTOR,
  source: prefix('10.64.2.1/32'),
  destination: prefix('10.64.1.1/32'),
}

const SA_GOLDEN: readonly (readonly [what: string, type: number, sa: XfrmSa])[] = [
  [
    'UPDSA inbound aes-gcm-256 ESN window 64',
    XFRM_MSG.updateSa,
    { ...SA, source: ip('10.1.0.1'), destination: ip('10.1.0.2'), spi: 0xca3035a8, ifId: 5 },
  ],
  [
    'UPDSA inbound aes-gcm-256 ESN window 64 (no if_id)',
    XFRM_MSG.updateSa,
    { ...SA, source: ip('10.1.0.1'), destination: ip('10.1.0.2'), spi: 0xca3035a8 },
  ],
  [
    'NEWSA outbound chacha20poly1305',
    XFRM_MSG.newSa,
    {
      ...SA,
      aead: { name: 'rfc7539esp(chacha20,poly1305)', key: KEY, icvBits: 128 },
      limits: {
        softBytes: 300n,
        hardBytes: 100_000n,
        softPackets: UNLIMITED,
        hardPackets: UNLIMITED,
        softAddSeconds: 3000n,
        hardAddSeconds: 3600n,
        softUseSeconds: 0n,
        hardUseSeconds: 0n,
      },
    },
  ],
]

describe('XFRM messages that real kernels took', () => {
  for (const [what, type, sa] of SA_GOLDEN) {
    test(what, () => {
      const { hex } = xfrmVector(what)
      const [message] = decodeMessages(fromHex(hex))!
      assert.equal(message!.type, type)
      assert.deepEqual(decodeSa(message!.payload), sa)
      assert.equal(toHex(encodeMessages([{ ...message!, payload: encodeSa(sa) }])), hex)
    })
  }

  test('NEWSA udp encap', () => {
    const { hex } = xfrmVector('NEWSA udp encap')
    const [message] = decodeMessages(fromHex(hex))!
    const { replay: _, ...plain } = SA
    const sa: XfrmSa = {
      ...plain,
      spi: 0xc1111114,
      flags: 0x20,
      replayWindow: 32,
      encapsulation: { type: UDP_ENCAP_ESP, sourcePort: 4500, destinationPort: 4500 },
      mark: { value: 5, mask: 0xffff_ffff },
    }
    assert.deepEqual(decodeSa(message!.payload), sa)
    assert.equal(toHex(encodeMessages([{ ...message!, payload: encodeSa(sa) }])), hex)
  })

  test('NEWPOLICY out', () => {
    const { hex } = xfrmVector('NEWPOLICY out')
    const [message] = decodeMessages(fromHex(hex))!
    const policy: XfrmPolicy = {
      selector: { ...POOLS, source: POOLS.destination, destination: POOLS.source },
      limits: NO_LIMITS,
      use: UNUSED,
      priority: 1000,
      index: 0,
      direction: 1,
      action: 0,
      flags: 0,
      share: 0,
      templates: [],
    }
    const decoded = decodePolicy(message!.payload)!
    const templates = [{ ...TUNNEL, source: ip('10.1.0.2'), destination: ip('10.1.0.1') }]
    assert.deepEqual(decoded, { ...policy, selector: decoded.selector, templates })
    assert.deepEqual(
      [decoded.selector.source, decoded.selector.destination],
      [POOLS.source, POOLS.destination],
    )
    assert.equal(toHex(encodeMessages([{ ...message!, payload: encodePolicy(decoded) }])), hex)
  })

  test('DELPOLICY', () => {
    const { hex } = xfrmVector('DELPOLICY')
    const [message] = decodeMessages(fromHex(hex))!
    const id = decodePolicyId(message!.payload)!
    assert.deepEqual(id, {
      selector: { ...POOLS, source: POOLS.destination, destination: POOLS.source },
      index: 0,
      direction: 2,
    })
    assert.equal(toHex(encodeMessages([{ ...message!, payload: encodePolicyId(id) }])), hex)
  })

  for (const [what, id] of [
    ['DELSA', { destination: ip('10.1.0.2'), spi: 0xca3035a8 }],
    ['GETSA one', { destination: ip('10.1.0.1'), spi: 0xc1111111 }],
  ] as const) {
    test(what, () => {
      const { hex } = xfrmVector(what)
      const [message] = decodeMessages(fromHex(hex))!
      assert.deepEqual(decodeSaId(message!.payload), id)
      assert.equal(toHex(encodeMessages([{ ...message!, payload: encodeSaId(id) }])), hex)
    })
  }

  test('GETSADINFO', () => {
    const { hex } = xfrmVector('GETSADINFO')
    const [message] = decodeMessages(fromHex(hex))!
    assert.equal(message!.type, XFRM_MSG.getSadInfo)
    assert.equal(toHex(encodeMessages([{ ...message!, payload: encodeInfoRequest() }])), hex)
  })
})

describe('XFRM messages that real kernels sent', () => {
  test('NEWSADINFO counts the SAs', () => {
    const vector = xfrmVectors().find(({ type_name }) => type_name === 'NEWSADINFO')!
    assert.equal(decodeSadCount(decodeMessages(fromHex(vector.hex))![0]!.payload), 4)
  })

  test('NEWSPDINFO gives the hash threshold', () => {
    const counts = new Uint8Array(24)
    counts.set([1, 0, 0, 0, 2, 0, 0, 0, 3], 0)
    const payload = encodePayload(new Uint8Array(4), [
      attribute(1, counts),
      attribute(3, Uint8Array.of(0, 32)),
    ])
    assert.deepEqual(decodeSpdInfo(payload), {
      in: 1,
      out: 2,
      fwd: 3,
      hashThreshold: { local: 0, remote: 32 },
    })
    assert.equal(toHex(encodeHashThreshold({ local: 0, remote: 32 })), '000000000600030000200000')
  })

  test('NEWSA replies decode, whatever attributes the kernel adds', () => {
    const replies = xfrmVectors().filter(({ type_name, dir }) => type_name === 'NEWSA' && dir === 'reply')
    assert.equal(replies.length, 3)
    for (const { hex } of replies) {
      const sa = decodeSa(decodeMessages(fromHex(hex))![0]!.payload)
      assert.equal(sa?.reqid, 7)
      assert.equal(sa?.mode, 1)
    }
  })

  test('every vector frames and re-frames to the same octets', () => {
    for (const { hex } of xfrmVectors())
      assert.equal(toHex(encodeMessages(decodeMessages(fromHex(hex))!)), hex)
  })
})

describe('rtnetlink', () => {
  test('golden: create a dummy device, up (as ip link add ippriv0 up type dummy)', () => {
    const payload = encodeLink(0, { name: 'ippriv0', kind: 'dummy', flags: IFF.up, flagMask: IFF.up })
    assert.equal(
      toHex(payload),
      '00000000000000000100000001000000' +
        '0c00030069707072697630' +
        '00' +
        '10001200' +
        '0a00010064756d6d79000000',
    )
    assert.equal(toHex(encodeLinkKey({ index: 5 })), '00000000050000000000000000000000')
  })

  test('golden: add 10.64.0.5/32 to device 3', () => {
    const address: InterfaceAddress = { index: 3, address: ip('10.64.0.5'), prefixLength: 32, scope: 0 }
    assert.equal(toHex(encodeAddress(address)), '0220000003000000' + '080002000a400005' + '080001000a400005')
    assert.deepEqual(decodeAddress(encodeAddress(address)), address)
  })

  test('golden: a default half through device 3, with source, mtu and advmss', () => {
    const route: Route = {
      destination: prefix('128.0.0.0/1'),
      table: 254,
      protocol: RTPROT_IPPRIV,
      scope: RT_SCOPE.link,
      type: RT_TYPE.unicast,
      device: 3,
      source: ip('10.64.0.5'),
      mtu: 1280,
      advmss: 1240,
    }
    assert.equal(
      toHex(encodeRoute(route)),
      '02010000fe49fd0100000000' +
        '0800010080000000' +
        '0800040003000000' +
        '080007000a400005' +
        '140008000800020000050000' +
        '08000800d8040000',
    )
    assert.deepEqual(decodeRoute(encodeRoute(route)), route)
  })

  test('golden: which route leads to 192.0.2.9', () => {
    assert.equal(
      toHex(encodeRouteQuery(ip('192.0.2.9'), { fibMatch: true })),
      '02200000000000000020000008000100c0000209',
    )
  })

  test('a link decodes with its kind', () => {
    const payload = encodeLink(7, { name: 'x0', mtu: 1280, kind: 'tun', flags: 1, flagMask: 0 })
    assert.deepEqual(decodeLink(payload), { index: 7, name: 'x0', flags: 1, mtu: 1280, kind: 'tun' })
  })

  test('IPv6 is answered with undefined', () => {
    const route = encodeRouteQuery(ip('192.0.2.9'))
    route[0] = 10
    assert.equal(decodeRoute(route), undefined)
    const sa = encodeSa(SA)
    sa[212] = 10
    assert.equal(decodeSa(sa), undefined)
  })
})

describe('properties', () => {
  const octets = fc.uint8Array({ maxLength: 40 })
  const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
  const u64 = fc.bigInt({ min: 0n, max: UNLIMITED })
  const address = u32.map(uint32ToIp)
  const anyPrefix = fc
    .tuple(address, fc.integer({ min: 0, max: 32 }))
    .map(([a, length]) => ({ address: a, length }))
  const port = fc.integer({ min: 0, max: 65535 })
  const octet = fc.integer({ min: 0, max: 255 })
  const selector: fc.Arbitrary<XfrmSelector> = fc.record({
    source: anyPrefix,
    destination: anyPrefix,
    protocol: octet,
    sourcePort: port,
    sourcePortMask: port,
    destinationPort: port,
    destinationPortMask: port,
    ifindex: fc.integer({ min: 0, max: 0x7fff_ffff }),
    user: u32,
  })
  const limits = fc.record({
    softBytes: u64,
    hardBytes: u64,
    softPackets: u64,
    hardPackets: u64,
    softAddSeconds: u64,
    hardAddSeconds: u64,
    softUseSeconds: u64,
    hardUseSeconds: u64,
  })
  const use = fc.record({ bytes: u64, packets: u64, added: u64, used: u64 })
  const mark = fc.record({ value: u32, mask: u32 })

  test('messages and attributes come back as they went', () => {
    const message = fc
      .record({ type: port, flags: port, sequence: u32, port: u32, payload: octets })
      .map((m): NetlinkMessage => m)
    fc.assert(
      fc.property(fc.array(message, { maxLength: 5 }), (messages) => {
        assert.deepEqual(decodeMessages(encodeMessages(messages)), structuredClone(messages))
      }),
    )
    const attributes = fc.array(fc.record({ type: fc.integer({ min: 0, max: 0x3fff }), payload: octets }), {
      maxLength: 5,
    })
    fc.assert(
      fc.property(attributes, (list) => {
        assert.deepEqual(decodeAttributeList(encodeAttributes(list)), structuredClone(list))
      }),
    )
  })

  test('SAs come back as they went', () => {
    const replay = fc
      .record({ window: fc.integer({ min: 0, max: 4096 }), sent: u64, received: u64 })
      .chain((r) =>
        fc
          .array(u32, { minLength: Math.ceil(r.window / 32), maxLength: Math.ceil(r.window / 32) })
          .map((bitmap) => ({ ...r, bitmap })),
      )
    const sa: fc.Arbitrary<XfrmSa> = fc.record(
      {
        source: address,
        destination: address,
        spi: u32,
        protocol: octet,
        selector,
        limits,
        use,
        stats: fc.record({ belowWindow: u32, replayed: u32, integrityFailed: u32 }),
        sequence: u32,
        reqid: u32,
        mode: octet,
        replayWindow: octet,
        flags: octet,
        aead: fc.record({ name: fc.stringMatching(/^[a-z0-9(),]{1,63}$/), key: octets, icvBits: u32 }),
        replay,
        encapsulation: fc.record({ type: port, sourcePort: port, destinationPort: port }),
        mark,
        ifId: u32,
        extraFlags: u32,
      },
      {
        requiredKeys: [
          'source',
          'destination',
          'spi',
          'protocol',
          'selector',
          'limits',
          'use',
          'stats',
          'sequence',
          'reqid',
          'mode',
          'replayWindow',
          'flags',
        ],
      },
    )
    fc.assert(fc.property(sa, (value) => assert.deepEqual(decodeSa(encodeSa(value)), structuredClone(value))))
  })

  test('an EXPIRE is of the SA in it, soft or hard, and of none without saying which', () => {
    const { aead: _, replay: __, ...bare } = SA
    const sa = encodeSa(bare)
    const expire = (...hard: number[]) => decodeExpire(Uint8Array.from([...sa, ...hard]))
    assert.deepEqual(expire(0, 0, 0, 0), { sa: bare, isHard: false })
    assert.deepEqual(expire(1, 0, 0, 0), { sa: bare, isHard: true })
    assert.equal(expire(), undefined)
  })

  test('policies come back as they went', () => {
    const template = fc.record({
      source: address,
      destination: address,
      spi: u32,
      protocol: octet,
      reqid: u32,
      mode: octet,
      share: octet,
      optional: fc.boolean(),
    })
    const policy: fc.Arbitrary<XfrmPolicy> = fc.record(
      {
        selector,
        limits,
        use,
        priority: u32,
        index: u32,
        direction: octet,
        action: octet,
        flags: octet,
        share: octet,
        templates: fc.array(template, { maxLength: 6 }),
        mark,
        ifId: u32,
      },
      {
        requiredKeys: [
          'selector',
          'limits',
          'use',
          'priority',
          'index',
          'direction',
          'action',
          'flags',
          'share',
          'templates',
        ],
      },
    )
    fc.assert(
      fc.property(policy, (value) =>
        assert.deepEqual(decodePolicy(encodePolicy(value)), structuredClone(value)),
      ),
    )
  })

  test('no decoder throws, and what it takes is within bounds', () => {
    const hostile = fc.oneof(
      fc.uint8Array({ maxLength: 600 }),
      fc
        .tuple(fc.constantFrom(...xfrmVectors().map(({ hex }) => hex)), fc.nat(), octet)
        .map(([hex, at, value]) => {
          const bytes = fromHex(hex)
          bytes[at % bytes.length] = value
          return bytes
        }),
    )
    fc.assert(
      fc.property(hostile, (bytes) => {
        for (const message of decodeMessages(bytes) ?? []) decodeErrno(message)
        for (const decode of [
          decodeSa,
          decodeSaId,
          decodePolicy,
          decodePolicyId,
          decodeSadCount,
          decodeSpdInfo,
          decodeLink,
          decodeAddress,
          decodeRoute,
          decodeAttributes,
        ]) {
          decode(bytes)
          decode(bytes.subarray(Math.min(16, bytes.length)))
        }
      }),
      { numRuns: 500 },
    )
  })
})

test('an error, an acknowledgement and the end of a dump are told apart', () => {
  const of = (type: number, ...octetsOfIt: number[]): NetlinkMessage => ({
    type,
    flags: NLM_F.multi,
    sequence: 1,
    port: 0,
    payload: Uint8Array.from(octetsOfIt),
  })
  assert.equal(decodeErrno(of(NLMSG.error, 0xff, 0xff, 0xff, 0xff)), 1)
  assert.equal(decodeErrno(of(NLMSG.error, 0, 0, 0, 0)), 0)
  assert.equal(decodeErrno(of(NLMSG.done)), 0)
  assert.equal(decodeErrno(of(NLMSG.done, 0xda, 0xff, 0xff, 0xff)), 38)
  assert.equal(decodeErrno(of(NLMSG.error, 1)), undefined)
  assert.equal(decodeErrno(of(16, 0, 0, 0, 0)), undefined)
})

test('text ends at its NUL', () => {
  const attributes = decodeAttributes(encodeAttributes([attributeText(3, 'lo')]))!
  assert.equal(readText(attributes.get(3)), 'lo')
})
