import { type CipherGCMTypes, createDecipheriv } from 'node:crypto'
import type { Ip } from '#base/ip'
import type { EspKey, KeyRing } from '#demo/keys'
import { type Content, describe, dissect, type Packet } from '#demo/packet'
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, type Frame, readPcap } from '#demo/pcap'

/**
 * What a party learns from the packets it sees: each packet is peeled as far as that party's own keys reach.
 * An ESP layer counts as opened only when its integrity check value verifies, so a flow at depth 1 or more is
 * proof that the holder of these keys can read it and that the packet was made by the other holder.
 */
export interface Flow {
  readonly source: Ip
  readonly destination: Ip
  /** See `describe`. */
  readonly what: string
  readonly kind: Content['kind']
  readonly spi: number | undefined
  /** 0: as seen on the wire. n: inside n layers of ESP that were opened. */
  readonly depth: number
  /** Addresses of a packet that an ICMP error quotes. */
  readonly quoted: readonly Ip[]
  packets: number
  /** For ESP: packets that were opened with a key of the ring. */
  opened: number
  /** For ESP: packets with a key in the ring whose check value was wrong. */
  forged: number
}

export interface View {
  readonly flows: readonly Flow[]
  /** Frames that are neither IPv4 nor ARP, by EtherType. */
  readonly strange: ReadonlyMap<number, number>
  readonly packets: number
}

/** One opened packet: the layers from the wire inwards. */
export interface Peeled {
  readonly layers: readonly Packet[]
  /** How the innermost ESP layer ended: no key for it, or a key but a wrong check value. */
  readonly ending: 'plain' | 'no-key' | 'forged'
}

/**
 * Everything to be learnt from capture files with these keys, up to a moment in seconds since 1970.
 * @throws RangeError for a file that is no pcap.
 */
export function analyse(files: readonly Uint8Array[], keys: KeyRing, until = Number.POSITIVE_INFINITY): View {
  const flows = new Map<string, Flow>()
  const strange = new Map<number, number>()
  let packets = 0
  for (const file of files)
    for (const frame of readPcap(file)) {
      if (frame.type === ETHERTYPE_ARP || frame.time > until) continue
      packets++
      if (!record(flows, frame, keys)) strange.set(frame.type, (strange.get(frame.type) ?? 0) + 1)
    }
  return { flows: [...flows.values()], strange, packets }
}

/** Undefined when it is not an IPv4 packet. */
export function peel(bytes: Uint8Array, keys: KeyRing): Peeled | undefined {
  const layers: Packet[] = []
  let inner: Uint8Array | undefined = bytes
  for (;;) {
    const packet: Packet | undefined = dissect(inner)
    if (packet === undefined) return layers.length === 0 ? undefined : { layers, ending: 'plain' }
    layers.push(packet)
    if (packet.content.kind !== 'esp') return { layers, ending: 'plain' }
    const candidates = keys.find(packet.content.spi, packet.source, packet.destination)
    if (candidates.length === 0) return { layers, ending: 'no-key' }
    inner = candidates.map((key) => open(packet.content as EspContent, key)).find((p) => p !== undefined)
    if (inner === undefined) return { layers, ending: 'forged' }
  }
}

/** Every address in these flows, sorted: what the holder of the view knows. */
export function addressesIn(flows: Iterable<Flow>): Ip[] {
  const known = new Set<Ip>()
  for (const flow of flows)
    for (const address of [flow.source, flow.destination, ...flow.quoted]) known.add(address)
  return [...known].sort()
}

export const flowText = (flow: Flow): string => `${flow.source}>${flow.destination} ${flow.what}`

type EspContent = Content & { kind: 'esp' }

function record(flows: Map<string, Flow>, frame: Frame, keys: KeyRing): boolean {
  const peeled = frame.type === ETHERTYPE_IPV4 ? peel(frame.packet, keys) : undefined
  if (peeled === undefined) return false
  for (const [depth, packet] of peeled.layers.entries()) {
    const what = describe(packet.content)
    const id = `${depth} ${packet.source} ${packet.destination} ${what}`
    let flow = flows.get(id)
    if (flow === undefined) {
      flow = {
        source: packet.source,
        destination: packet.destination,
        what,
        kind: packet.content.kind,
        spi: packet.content.kind === 'esp' ? packet.content.spi : undefined,
        depth,
        quoted: packet.content.kind === 'icmp' ? (packet.content.quoted ?? []) : [],
        packets: 0,
        opened: 0,
        forged: 0,
      }
      flows.set(id, flow)
    }
    flow.packets++
    if (packet.content.kind !== 'esp') continue
    if (depth < peeled.layers.length - 1) flow.opened++
    else if (peeled.ending === 'plain') flow.opened++
    else if (peeled.ending === 'forged') flow.forged++
  }
  return true
}

/**
 * Opens one ESP packet in tunnel mode (RFC 4303 section 2): the inner packet, or undefined when the check
 * value is wrong or the trailer is not one. The nonce is salt and the 8 octets behind the header.
 * With extended sequence numbers the associated data has the high 32 bits in the middle (RFC 4106 section 5);
 * they are 0 in the life of a demo.
 */
function open(esp: EspContent, key: EspKey): Uint8Array | undefined {
  const { bytes } = esp
  if (bytes.length < HEADER + IV + ICV + 2) return undefined
  const associated = key.esn ? new Uint8Array(12) : new Uint8Array(8)
  associated.set(bytes.subarray(0, 4), 0)
  associated.set(bytes.subarray(4, 8), associated.length - 4)
  const nonce = Buffer.concat([key.salt, bytes.subarray(HEADER, HEADER + IV)])
  const sealed = bytes.subarray(HEADER + IV, bytes.length - ICV)
  const decipher = createDecipheriv(NODE_CIPHER[key.cipher], key.key, nonce, { authTagLength: ICV })
  decipher.setAAD(associated, { plaintextLength: sealed.length })
  decipher.setAuthTag(bytes.subarray(bytes.length - ICV))
  const plain = decipher.update(sealed)
  try {
    decipher.final()
  } catch {
    return undefined
  }
  const nextHeader = plain[plain.length - 1]!
  const padding = plain[plain.length - 2]!
  // Next header 59 is a dummy packet (RFC 4303 section 2.6): opened, and empty.
  if (nextHeader === NO_NEXT_HEADER) return new Uint8Array(0)
  if (nextHeader !== IPV4 || padding + 2 > plain.length) return undefined
  return plain.subarray(0, plain.length - 2 - padding)
}

const HEADER = 8
const IV = 8
const ICV = 16
const IPV4 = 4
const NO_NEXT_HEADER = 59

/** OpenSSL's names. ChaCha20-Poly1305 takes the same calls as GCM; only its name is not in that type. */
const NODE_CIPHER = {
  'aes-256-gcm-16': 'aes-256-gcm',
  'aes-128-gcm-16': 'aes-128-gcm',
  'chacha20-poly1305': 'chacha20-poly1305' as CipherGCMTypes,
} as const
