import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressesIn, analyse, flowText, peel } from '#demo/analysis'
import { KeyRing, parseEspSa } from '#demo/keys'
import { dissect } from '#demo/packet'
import {
  echoRequest,
  espKey,
  ikeMessage,
  ipv4,
  PROTOCOL,
  pcap,
  sealed,
  tcp,
  udp,
  unreachable,
} from './packets.ts'

const [S, A, B, C, D] = ['198.18.1.1', '198.18.10.1', '198.18.20.1', '198.18.30.1', '198.18.40.1'] as const
const [SA, SB, SC] = ['10.64.0.2', '10.64.16.2', '10.64.32.2'] as const
const PING = ipv4(SC, D, PROTOCOL.icmp, echoRequest())

for (const cipher of ['aes-256-gcm-16', 'aes-128-gcm-16', 'chacha20-poly1305'] as const)
  for (const esn of [true, false])
    test(`three nested layers open with all keys, ${cipher}, ${esn ? '64' : '32'}-bit numbers`, () => {
      const keys = [
        espKey(S, A, { cipher, esn }),
        espKey(SA, B, { cipher, esn }),
        espKey(SB, C, { cipher, esn }),
      ]
      const packet = keys.reduceRight((inner, key) => sealed(key, inner), PING)
      const peeled = peel(packet, new KeyRing(keys))
      assert.equal(peeled?.ending, 'plain')
      assert.deepEqual(
        peeled?.layers.map((layer) => `${layer.source}>${layer.destination}`),
        [`${S}>${A}`, `${SA}>${B}`, `${SB}>${C}`, `${SC}>${D}`],
      )
    })

test('a party without the next key stops there', () => {
  const [first, second] = [espKey(S, A), espKey(SA, B)]
  const packet = sealed(first, sealed(second, PING))
  const view = analyse([pcap([packet])], new KeyRing([first]))
  assert.deepEqual(addressesIn(view.flows), [SA, S, A, B].sort())
  assert.deepEqual(
    view.flows.map((flow) => [flow.depth, flow.opened, flow.packets]),
    [
      [0, 1, 1],
      [1, 0, 1],
    ],
  )
})

test('a wrong check value is not an opened layer', () => {
  const key = espKey(S, A)
  const packet = sealed(key, PING)
  packet[packet.length - 1]! ^= 1
  const view = analyse([pcap([packet])], new KeyRing([key]))
  assert.deepEqual([view.flows[0]?.opened, view.flows[0]?.forged], [0, 1])
  assert.equal(view.flows.length, 1)
})

test('a key serves its own direction only', () => {
  const key = espKey(S, A)
  const packet = sealed({ ...key, source: key.destination, destination: key.source }, PING)
  assert.equal(peel(packet, new KeyRing([key]))?.ending, 'no-key')
})

test('dummy packets are opened and empty', () => {
  const key = espKey(S, A)
  const view = analyse([pcap([sealed(key, new Uint8Array(20), 1, 59)])], new KeyRing([key]))
  assert.deepEqual([view.flows.length, view.flows[0]?.opened], [1, 1])
})

test('flows are described as an onlooker would', () => {
  const packets = [
    ipv4(S, A, PROTOCOL.udp, udp(500, 500, ikeMessage())),
    ipv4(S, A, PROTOCOL.udp, udp(4500, 4500, new Uint8Array([0, 0, 0, 0, ...ikeMessage()]))),
    ipv4(S, A, PROTOCOL.udp, udp(4500, 4500, new Uint8Array([0, 0, 0xab, 1, 0, 0, 0, 7, 1, 2, 3, 4]))),
    ipv4(S, A, PROTOCOL.udp, udp(500, 500, new TextEncoder().encode('not IKE'))),
    ipv4(S, D, PROTOCOL.tcp, tcp(40000, 80)),
    ipv4(C, D, PROTOCOL.icmp, unreachable(PING)),
  ]
  const view = analyse([pcap(packets)], new KeyRing([]))
  assert.deepEqual(view.flows.map(flowText), [
    `${S}>${A} ike`,
    `${S}>${A} esp 0x0000ab01`,
    `${S}>${A} udp 500`,
    `${S}>${D} tcp 80`,
    `${C}>${D} icmp error quoting ${SC}>${D}`,
  ])
  assert.ok(addressesIn(view.flows).includes(SC as never), 'a quoted address is known')
})

test('other families are counted apart', () => {
  const view = analyse(
    [pcap([new Uint8Array(40)], { etherType: 0x86dd }), pcap([PING], { etherType: 0x0806 })],
    new KeyRing([]),
  )
  assert.deepEqual([...view.strange], [[0x86dd, 1]])
})

test('nonsense never throws', () => {
  const ring = new KeyRing([espKey(S, A)])
  for (let length = 0; length < 80; length++) {
    const bytes = new Uint8Array(length).fill(length)
    if (length > 9) bytes.set([0x45, 0, 0, length, 0, 0, 0, 0, 64, length % 2 ? 50 : 17])
    assert.doesNotThrow(() => peel(bytes, ring))
  }
  assert.equal(dissect(new Uint8Array(0)), undefined)
})

test('reads the key log as Wireshark has it', () => {
  const lines = [
    `"IPv4","*","*","0xbf0bc9fe","AES-GCM with 16 octet ICV [RFC4106]","0x${'2c'.repeat(36)}","NULL","","32-bit","0"`,
    `"IPv4","${S}","${A}","0x0000ab01","AES-GCM with 16 octet ICV [RFC4106]","0x${'11'.repeat(20)}","NULL","","64-bit","0"`,
    `"IPv4","${S}","${A}","0xab02","ChaCha20 with Poly1305 [RFC7634]","0x${'22'.repeat(36)}","NULL","","64-bit","0"`,
  ]
  const keys = parseEspSa(`${lines.join('\n')}\n`)
  assert.deepEqual(
    keys.map((key) => [key.spi, key.source, key.cipher, key.key.length, key.salt.length, key.esn]),
    [
      [0xbf0bc9fe, undefined, 'aes-256-gcm-16', 32, 4, false],
      [0xab01, S, 'aes-128-gcm-16', 16, 4, true],
      [0xab02, S, 'chacha20-poly1305', 32, 4, true],
    ],
  )
  assert.throws(() => parseEspSa('"IPv4","*","*","0x01","3DES","0x00","NULL",""'), /line 1/)
  assert.throws(() => parseEspSa(`${lines[0]}\nrubbish`), /line 2/)
})
