/**
 * What fills the relay's sockets: `node bench/parallel/source.ts CIPHER LENGTH`. For every line with a number on
 * stdin it sends so many packets through all circuits in turn, and says `sent`.
 */
import { createInterface } from 'node:readline'
import { ipToUint32 } from '#base/ip'
import type { EspCipher } from '#crypto/suites'
import { EspSocket, openEspSocket } from '#linux/esp-socket'
import { Arena, MessageBatch } from '#linux/ffi'
import { measuredPlacement } from '#linux/placement'
import { HEADROOM, PacketEngine, TAILROOM, VERDICT } from '#telescope/engine'
import { destination, IPV4_HEADER, PROTOCOL, source, writeIpv4 } from '#wire/ipv4'
import { CIRCUITS, lent, NEXT, outsideOperations } from './circuits.ts'

const BATCH = 64
const SLOT = 4096
const START = (HEADROOM + 15) & ~15

const [cipher, lengthText] = process.argv.slice(2)
const length = Math.min(Number(lengthText), SLOT - START - TAILROOM)
const memory = new Arena(BATCH * SLOT)
const engine = new PacketEngine({ driver: measuredPlacement(memory), pathMtu: 9000 })
engine.apply(outsideOperations(cipher as EspCipher))
const socket = new EspSocket(openEspSocket('esp'))
const batch = new MessageBatch(BATCH)
let made = 0

for await (const line of createInterface({ input: process.stdin })) {
  for (let left = Number(line); left > 0; left -= BATCH) send(Math.min(left, BATCH))
  process.stdout.write('sent\n')
}

function send(count: number): void {
  for (let i = 0; i < count; i++) {
    const at = i * SLOT + START
    writeIpv4(memory.bytes, at, {
      totalLength: length,
      protocol: PROTOCOL.esp,
      ttl: 64,
      id: 0,
      dontFragment: false,
      tos: 0,
      source: ipToUint32(lent(made++ % CIRCUITS)),
      destination: ipToUint32(NEXT),
    })
    if (engine.fromTun(memory.bytes, at, length) !== VERDICT.network)
      throw new Error(`not sealed: ${JSON.stringify(engine.drops())}`)
    const { offset } = engine
    batch.setBuffer(i, memory.address + offset + IPV4_HEADER, engine.length - IPV4_HEADER)
    batch.setAddresses(i, source(memory.bytes, offset), destination(memory.bytes, offset))
  }
  const failed = socket.send(batch, count)
  if (failed > 0) throw new Error(`${failed} packets were not sent`)
}
