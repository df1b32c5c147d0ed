/**
 * Segmentation and coalescing at the TUN. What is cut must be right packet by packet, by sums made here octet by
 * octet; what is joined must be what was cut.
 */
import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Ip } from '#base/ip'
import { ipToUint32 } from '#base/ip'
import { Coalescer } from '#linux/coalescer'
import { Arena } from '#linux/ffi'
import { Segmenter } from '#linux/segmenter'
import { VIRTIO_HEADER } from '#linux/virtio'
import { sum16, sumWords } from '#wire/checksum'
import { checkIpv4, PROTOCOL, totalLength, writeIpv4, writeUint16, writeUint32 } from '#wire/ipv4'

const SLOT = 2048
const SLOTS = 128
const START = 256
const INTAKE = SLOTS * SLOT + 16 - VIRTIO_HEADER
const LIMIT = 1500
const memory = new Arena(SLOTS * SLOT + 16 + 0x10000)

const address = (text: string) => ipToUint32(text as Ip)

interface Tcp {
  readonly sequence?: number
  readonly flags?: number
  readonly ports?: readonly [number, number]
  readonly options?: number
  readonly id?: number
  readonly dontFragment?: boolean
  readonly acknowledgment?: number
  readonly payload: Uint8Array
}

const ACK = 0x10
const PSH = 0x08
const FIN = 0x01
const CWR = 0x80

/** A TCP packet without its TCP checksum. */
function tcpPacket(tcp: Tcp): Uint8Array {
  const headers = 20 + (tcp.options ?? 12)
  const bytes = new Uint8Array(20 + headers + tcp.payload.length)
  writeIpv4(bytes, 0, {
    totalLength: bytes.length,
    protocol: PROTOCOL.tcp,
    ttl: 64,
    id: tcp.id ?? 0xfffe,
    dontFragment: tcp.dontFragment ?? true,
    tos: 0,
    source: address('10.1.0.1'),
    destination: address('198.18.40.1'),
  })
  const [from, to] = tcp.ports ?? [5201, 40000]
  writeUint16(bytes, 20, from)
  writeUint16(bytes, 22, to)
  writeUint32(bytes, 24, tcp.sequence ?? 0xffff_f000)
  writeUint32(bytes, 28, tcp.acknowledgment ?? 77)
  bytes[32] = (headers / 4) << 4
  bytes[33] = tcp.flags ?? ACK
  writeUint16(bytes, 34, 501)
  bytes.set(tcp.payload, 20 + headers)
  return bytes
}

/** The sum over pseudo header and segment, by another road than the product's; 0xffff when the checksum is right. */
function tcpSum(packet: Uint8Array): number {
  const length = packet.length - 20
  let sum = sum16(packet, 12, 8) + 6 + length + sum16(packet, 20, length)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

function withChecksum(packet: Uint8Array): Uint8Array {
  writeUint16(packet, 36, 0)
  writeUint16(packet, 36, ~tcpSum(packet) & 0xffff)
  return packet
}

/** Reads what the kernel would have handed over. */
function intake(
  packet: Uint8Array,
  virtio: { flags?: number; gso?: number; size?: number; start?: number; offset?: number },
) {
  const { view, bytes } = memory
  view.setUint8(INTAKE, virtio.flags ?? 0)
  view.setUint8(INTAKE + 1, virtio.gso ?? 0)
  view.setUint16(INTAKE + 2, 0, true)
  view.setUint16(INTAKE + 4, virtio.size ?? 0, true)
  view.setUint16(INTAKE + 6, virtio.start ?? 0, true)
  view.setUint16(INTAKE + 8, virtio.offset ?? 0, true)
  bytes.set(packet, INTAKE + VIRTIO_HEADER)
  return VIRTIO_HEADER + packet.length
}

/** All segments of the packet, each in a slot of its own; undefined when it is refused. */
function cut(packet: Uint8Array, virtio: Parameters<typeof intake>[1]): Uint8Array[] | undefined {
  const segmenter = new Segmenter(memory, LIMIT)
  if (!segmenter.begin(INTAKE, intake(packet, virtio))) return undefined
  const segments: Uint8Array[] = []
  for (let i = 0; i < SLOTS; i++) {
    const at = i * SLOT + START
    const length = segmenter.next(at)
    if (length === 0) return segments
    segments.push(memory.bytes.slice(at, at + length))
  }
  assert.fail('more segments than slots')
}

/** What a coalescer writes of packets that arrive in one batch: (virtio header, packet) pairs. */
function coalesce(
  packets: readonly Uint8Array[],
): { gso: number; size: number; flags: number; packet: Uint8Array }[] {
  const file = join(mkdtempSync(join(tmpdir(), 'ipp-offload-')), 'tun')
  const fd = openSync(file, 'w')
  try {
    const coalescer = new Coalescer(memory, fd)
    packets.forEach((packet, i) => {
      memory.bytes.set(packet, i * SLOT + START)
      coalescer.push(i * SLOT + START, packet.length)
    })
    coalescer.flush()
    assert.equal(coalescer.failures, 0)
  } finally {
    closeSync(fd)
  }
  const bytes = new Uint8Array(readFileSync(file))
  rmSync(join(file, '..'), { recursive: true })
  const view = new DataView(bytes.buffer)
  const written = []
  for (let at = 0; at < bytes.length; ) {
    const start = at + VIRTIO_HEADER
    const end = start + totalLength(bytes, start)
    assert.equal(checkIpv4(bytes, start, bytes.length - start), undefined)
    const [flags, gso, size] = [view.getUint8(at), view.getUint8(at + 1), view.getUint16(at + 4, true)]
    written.push({ flags, gso, size, packet: bytes.slice(start, end) })
    at = end
  }
  return written
}

const random = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 8)) & 255)

test('the fast sum is the sum', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 2000 }), (octets) => {
      memory.bytes.set(octets, 64)
      let sum = sum16(memory.bytes, 64, octets.length)
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
      // Zero has two forms.
      assert.equal(sumWords(memory.words, memory.bytes, 64, octets.length) % 0xffff, sum % 0xffff)
    }),
    { numRuns: 300 },
  )
})

test('a large segment is cut into right packets, and these are joined to it again', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 60_000 }),
      fc.integer({ min: 600, max: 1228 }),
      fc.constantFrom(ACK, ACK | PSH),
      fc.constantFrom(0, 12, 40),
      fc.boolean(),
      (length, size, flags, options, dontFragment) => {
        const payload = random(length, size)
        const whole = tcpPacket({ payload, flags, options, dontFragment })
        const segments = cut(whole, { flags: 1, gso: 1, size, start: 20, offset: 16 })!
        assert.equal(segments.length, Math.ceil(length / size))
        const headers = 40 + options
        segments.forEach((segment, i) => {
          assert.equal(checkIpv4(segment, 0, segment.length), undefined)
          assert.equal(totalLength(segment, 0), segment.length)
          assert.equal(tcpSum(segment), 0xffff, `checksum of segment ${i}`)
          const view = new DataView(segment.buffer)
          assert.equal(view.getUint16(4), (0xfffe + i) & 0xffff)
          assert.equal(view.getUint32(24), (0xffff_f000 + i * size) >>> 0)
          const last = i === segments.length - 1
          assert.equal(segment[33], last ? flags : flags & ~PSH)
          assert.deepEqual(segment.subarray(headers), payload.subarray(i * size, (i + 1) * size))
        })
        const written = coalesce(segments)
        assert.equal(written.length, Math.ceil(segments.length / 64))
        assert.deepEqual(
          Buffer.concat(written.map(({ packet }) => packet.subarray(headers))),
          Buffer.from(payload),
        )
        if (segments.length > 1 && segments.length <= 64) {
          const [{ gso, flags: virtioFlags, size: segment, packet }] = written as [(typeof written)[0]]
          assert.deepEqual([gso, virtioFlags, segment], [1, 1, size])
          assert.equal(packet[33], flags)
          // The sum of the pseudo header stands in the field for the kernel to go on from.
          let pseudo = sum16(packet, 12, 8) + 6 + packet.length - 20
          while (pseudo > 0xffff) pseudo = (pseudo & 0xffff) + (pseudo >>> 16)
          assert.equal(new DataView(packet.buffer).getUint16(36), pseudo)
        }
      },
    ),
    { numRuns: 60 },
  )
})

test('FIN stays with the last segment and CWR with the first', () => {
  const whole = tcpPacket({ payload: random(3000, 1), flags: ACK | FIN | PSH | CWR })
  const segments = cut(whole, { flags: 1, gso: 1, size: 1000, start: 20, offset: 16 })!
  assert.deepEqual(
    segments.map((segment) => segment[33]),
    [ACK | CWR, ACK, ACK | FIN | PSH],
  )
})

test('a checksum left to the device is completed', () => {
  const packet = tcpPacket({ payload: random(501, 3) })
  let pseudo = sum16(packet, 12, 8) + 6 + packet.length - 20
  while (pseudo > 0xffff) pseudo = (pseudo & 0xffff) + (pseudo >>> 16)
  writeUint16(packet, 36, pseudo)
  const [only, ...more] = cut(packet, { flags: 1, start: 20, offset: 16 })!
  assert.equal(more.length, 0)
  assert.equal(tcpSum(only!), 0xffff)
})

test('what the kernel should never hand over is refused', () => {
  const packet = tcpPacket({ payload: random(3000, 1) })
  const good = { flags: 1, gso: 1, size: 1000, start: 20, offset: 16 }
  assert.notEqual(cut(packet, good), undefined)
  assert.equal(cut(packet, { ...good, size: 0 }), undefined)
  assert.equal(cut(packet, { ...good, size: LIMIT }), undefined, 'a segment larger than a slot')
  assert.equal(cut(packet, { ...good, gso: 4 }), undefined, 'IPv6')
  assert.equal(cut(packet.subarray(0, 45), good), undefined)
  assert.equal(cut(packet, {}), undefined, 'larger than a slot')
  const short = packet.subarray(0, 100)
  assert.equal(cut(short, { flags: 1, start: 20, offset: 90 }), undefined)
  assert.equal(cut(short, { flags: 1, start: 2000, offset: 16 }), undefined)
  const options = packet.slice()
  options[0] = 0x46
  assert.equal(cut(options, good), undefined)
  const long = packet.slice()
  long[32] = 0xf0
  assert.equal(cut(long.subarray(0, 70), good), undefined, 'headers longer than the packet')
})

test('only what follows is joined', () => {
  const payload = (seed: number) => random(1000, seed)
  const at = (i: number, more: Partial<Tcp> = {}) =>
    withChecksum(tcpPacket({ sequence: 1000 + 1000 * i, id: i, payload: payload(i), ...more }))
  const counts = (packets: readonly Uint8Array[]) =>
    coalesce(packets).map(({ packet }) => (packet.length - 52) / 1000)
  assert.deepEqual(counts([at(0), at(1), at(2)]), [3])
  assert.deepEqual(counts([at(0), at(2), at(1)]), [1, 1, 1], 'out of order: as it came')
  assert.deepEqual(counts([at(0), at(1, { flags: ACK | PSH }), at(2)]), [2, 1], 'pushed')
  assert.deepEqual(counts([at(0), at(1, { acknowledgment: 78 })]), [1, 1])
  assert.deepEqual(counts([at(0), at(1, { dontFragment: false })]), [1, 1])
  assert.deepEqual(counts([0, 1].map((i) => at(i, { dontFragment: false }))), [2])
  assert.deepEqual(
    counts([at(0, { dontFragment: false }), at(1, { dontFragment: false, id: 7 })]),
    [1, 1],
    'other identifications could not be made again',
  )
  const other = at(1)
  other[45] = 1 // an option
  assert.deepEqual(counts([at(0), withChecksum(other)]), [1, 1])
  const broken = at(1)
  broken[700]! ^= 1
  assert.deepEqual(counts([at(0), broken, at(2)]), [1, 1, 1], 'a wrong checksum is not made right')
  const brokenFirst = at(0)
  brokenFirst[700]! ^= 1
  assert.deepEqual(counts([brokenFirst, at(1)]), [1, 1])
})

test('connections are joined side by side, and each keeps its order', () => {
  const packets: Uint8Array[] = []
  for (let i = 0; i < 4; i++)
    for (let port = 1; port <= 20; port++)
      packets.push(
        withChecksum(tcpPacket({ sequence: 500 * i, ports: [port, 9], payload: random(500, port + i) })),
      )
  const next = new Map<number, number>()
  let octets = 0
  for (const { packet } of coalesce(packets)) {
    const view = new DataView(packet.buffer)
    const port = view.getUint16(20)
    assert.equal(view.getUint32(24), next.get(port) ?? 0)
    const length = packet.length - 52
    next.set(port, view.getUint32(24) + length)
    octets += length
  }
  assert.equal(octets, 20 * 4 * 500)
})

test('an acknowledgment does not overtake the data of its connection', () => {
  const data = [0, 1].map((i) => withChecksum(tcpPacket({ sequence: 1000 * i, payload: random(1000, i) })))
  const ack = withChecksum(tcpPacket({ sequence: 2000, payload: new Uint8Array(0) }))
  assert.deepEqual(
    coalesce([...data, ack]).map(({ packet }) => packet.length),
    [2052, 52],
  )
})
