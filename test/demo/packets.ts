/** Packets and capture files made by hand, for the tests of the analysis. */
import { type CipherGCMTypes, createCipheriv } from 'node:crypto'
import { concat } from '#base/bytes'
import { type Ip, ip, ipToBytes } from '#base/ip'
import type { EspKey } from '#demo/keys'

export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, esp: 50 } as const

export function ipv4(source: string, destination: string, protocol: number, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(20)
  const view = new DataView(header.buffer)
  view.setUint8(0, 0x45)
  view.setUint16(2, 20 + payload.length)
  view.setUint8(8, 64)
  view.setUint8(9, protocol)
  header.set(ipToBytes(ip(source)), 12)
  header.set(ipToBytes(ip(destination)), 16)
  return concat(header, payload)
}

export function udp(sourcePort: number, destinationPort: number, data: Uint8Array): Uint8Array {
  const header = new Uint8Array(8)
  const view = new DataView(header.buffer)
  view.setUint16(0, sourcePort)
  view.setUint16(2, destinationPort)
  view.setUint16(4, 8 + data.length)
  return concat(header, data)
}

export function tcp(sourcePort: number, destinationPort: number): Uint8Array {
  const header = new Uint8Array(20)
  const view = new DataView(header.buffer)
  view.setUint16(0, sourcePort)
  view.setUint16(2, destinationPort)
  view.setUint8(12, 0x50)
  return header
}

export const echoRequest = (): Uint8Array => Uint8Array.of(8, 0, 0, 0, 0, 1, 0, 1)

/** An ICMP error quoting the beginning of `packet` (RFC 792). */
export const unreachable = (packet: Uint8Array): Uint8Array =>
  concat(Uint8Array.of(3, 1, 0, 0, 0, 0, 0, 0), packet.subarray(0, 28))

/** An IKEv2 header with `extra` octets behind it (RFC 7296 section 3.1). */
export function ikeMessage(extra = 4): Uint8Array {
  const message = new Uint8Array(28 + extra)
  message[17] = 0x20
  new DataView(message.buffer).setUint32(24, message.length)
  return message
}

let nextSpi = 0x1000
export function espKey(source: string, destination: string, options: Partial<EspKey> = {}): EspKey {
  const cipher = options.cipher ?? 'aes-256-gcm-16'
  const seed = nextSpi++
  return {
    spi: seed,
    source: source as Ip,
    destination: destination as Ip,
    cipher,
    key: new Uint8Array(cipher === 'aes-128-gcm-16' ? 16 : 32).fill(seed),
    salt: Uint8Array.of(1, 2, 3, seed & 255),
    esn: true,
    ...options,
  }
}

const OPENSSL = {
  'aes-256-gcm-16': 'aes-256-gcm',
  'aes-128-gcm-16': 'aes-128-gcm',
  'chacha20-poly1305': 'chacha20-poly1305' as CipherGCMTypes,
} as const

/** `inner` in tunnel mode under `key`, with the outer header (RFC 4303 section 2). */
export function sealed(key: EspKey, inner: Uint8Array, sequence = 1, nextHeader = 4): Uint8Array {
  const header = new Uint8Array(8)
  new DataView(header.buffer).setUint32(0, key.spi)
  new DataView(header.buffer).setUint32(4, sequence)
  const iv = new Uint8Array(8)
  new DataView(iv.buffer).setUint32(4, sequence)
  const padding = (4 - ((inner.length + 2) % 4)) % 4
  const trailer = Uint8Array.from([...Array.from({ length: padding }, (_, i) => i + 1), padding, nextHeader])
  const associated = key.esn ? concat(header.subarray(0, 4), new Uint8Array(4), header.subarray(4)) : header
  const plain = concat(inner, trailer)
  const cipher = createCipheriv(OPENSSL[key.cipher], key.key, concat(key.salt, iv), { authTagLength: 16 })
  cipher.setAAD(associated, { plaintextLength: plain.length })
  const secret = concat(cipher.update(plain), cipher.final())
  return ipv4(key.source!, key.destination!, PROTOCOL.esp, concat(header, iv, secret, cipher.getAuthTag()))
}

export interface PcapOptions {
  readonly linkType?: 1 | 101 | 113 | 276
  readonly littleEndian?: boolean
  readonly etherType?: number
}

/** A capture file with these network-layer packets. */
export function pcap(packets: readonly Uint8Array[], options: PcapOptions = {}): Uint8Array {
  const { linkType = 1, littleEndian = true, etherType = 0x0800 } = options
  const head = new Uint8Array(24)
  const view = new DataView(head.buffer)
  view.setUint32(0, 0xa1b2c3d4, littleEndian)
  view.setUint16(4, 2, littleEndian)
  view.setUint16(6, 4, littleEndian)
  view.setUint32(16, 262144, littleEndian)
  view.setUint32(20, linkType, littleEndian)
  const records = packets.map((packet, index) => {
    const link = new Uint8Array({ 1: 14, 101: 0, 113: 16, 276: 20 }[linkType])
    const typeAt = { 1: 12, 101: undefined, 113: 14, 276: 0 }[linkType]
    if (typeAt !== undefined) new DataView(link.buffer).setUint16(typeAt, etherType)
    const record = new Uint8Array(16)
    const recordView = new DataView(record.buffer)
    recordView.setUint32(0, 1_700_000_000 + index, littleEndian)
    recordView.setUint32(4, 500_000, littleEndian)
    recordView.setUint32(8, link.length + packet.length, littleEndian)
    recordView.setUint32(12, link.length + packet.length, littleEndian)
    return concat(record, link, packet)
  })
  return concat(head, ...records)
}
