import { ipToUint32 } from '#base/ip'
import { PROTOCOL, writeIpv4, writeUint16, writeUint32 } from '#wire/ipv4'

/** A packet of TCP (or with ports alone, of UDP), as much of it as queues look at. */
export interface Segment {
  readonly from: string
  readonly to: string
  readonly ports: readonly [number, number]
  readonly protocol?: number
  readonly payload?: number
  readonly sequence?: number
  readonly acknowledgment?: number
  /** Right edges of SACK blocks of 1,000 octets. */
  readonly sacks?: readonly number[]
}

export function segment(s: Segment): Uint8Array {
  const sacks = s.sacks ?? []
  const options = sacks.length === 0 ? 0 : 4 + 8 * sacks.length
  const bytes = new Uint8Array(40 + options + (s.payload ?? 0))
  writeIpv4(bytes, 0, {
    totalLength: bytes.length,
    protocol: s.protocol ?? PROTOCOL.tcp,
    ttl: 64,
    id: 0,
    dontFragment: true,
    tos: 0,
    source: ipToUint32(s.from as never),
    destination: ipToUint32(s.to as never),
  })
  writeUint16(bytes, 20, s.ports[0])
  writeUint16(bytes, 22, s.ports[1])
  writeUint32(bytes, 24, s.sequence ?? 0)
  writeUint32(bytes, 28, s.acknowledgment ?? 0)
  bytes[32] = ((20 + options) / 4) << 4
  bytes[33] = 0x10
  if (sacks.length > 0) bytes.set([1, 1, 5, 2 + 8 * sacks.length], 40)
  for (const [i, edge] of sacks.entries()) {
    writeUint32(bytes, 44 + 8 * i, edge - 1000)
    writeUint32(bytes, 48 + 8 * i, edge)
  }
  return bytes
}
