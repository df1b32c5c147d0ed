import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, readPcap } from '#demo/pcap'
import { echoRequest, ipv4, PROTOCOL, pcap } from './packets.ts'

const PACKET = ipv4('198.18.1.1', '198.18.40.1', PROTOCOL.icmp, echoRequest())

for (const linkType of [1, 101, 113, 276] as const)
  for (const littleEndian of [true, false])
    test(`reads link type ${linkType}, ${littleEndian ? 'little' : 'big'} endian`, () => {
      const frames = [...readPcap(pcap([PACKET, PACKET], { linkType, littleEndian }))]
      assert.equal(frames.length, 2)
      const expected = {
        time: 1_700_000_001.5,
        type: ETHERTYPE_IPV4,
        packet: PACKET,
        wireLength: PACKET.length,
      }
      assert.deepEqual(frames[1], expected)
    })

test('tells IPv6 in a raw capture by its version', () => {
  const packet = new Uint8Array(40)
  packet[0] = 0x60
  const [frame] = [...readPcap(pcap([packet], { linkType: 101 }))]
  assert.equal(frame?.type, ETHERTYPE_IPV6)
})

test('a file cut short yields what is whole', () => {
  const file = pcap([PACKET, PACKET])
  for (const cut of [1, 10, 40]) assert.equal([...readPcap(file.subarray(0, file.length - cut))].length, 1)
})

test('refuses what is no pcap file', () => {
  assert.throws(() => [...readPcap(new Uint8Array(10))], /shorter than its header/)
  assert.throws(() => [...readPcap(new Uint8Array(100))], /wrong magic/)
  const alien = pcap([])
  alien[20] = 99
  assert.throws(() => [...readPcap(alien)], /link type 99/)
})
