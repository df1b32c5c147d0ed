/**
 * Inside User-Mode Linux, one JSON line on standard output per size: a middle node takes that many circuits, forwards
 * one TCP stream of one of them, and lets all go.
 *
 *     s 198.18.1.1 ---- node 198.18.1.2 | 198.18.2.1 ---- d 198.18.2.2
 *       10.64.128.2 (lent by the entry), 10.65.0.2 (lent by the node)
 *
 * `s` is client and entry in one, made by ip(8): what is measured is the node. What leaves it would be ESP for the exit;
 * here it is TCP for `d`, which is forwarded as that would be.
 */
import { execFile, execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { toHex } from '#base/bytes'
import type { Spi } from '#base/ids'
import { ip, ipToUint32, prefix, uint32ToIp } from '#base/ip'
import { drawSome } from '#base/rng'
import { nodeCrypto } from '#crypto/node'
import type { ChildSa } from '#ikev2/events'
import { XfrmPlane } from '#linux/xfrm-plane'
import {
  type Binding,
  bind,
  harden,
  type OverlayLink,
  overlayPolicies,
  overlaySas,
  unbind,
} from '#telescope/plan'
import { reqId } from '#telescope/plane'

export interface KernelSample {
  readonly circuits: number
  /** Policies are found by hash, as the plane arranges it; else in a list, as the kernel comes. */
  readonly hashed: boolean
  /** Circuits per second. */
  readonly installed: number
  readonly removed: number
  /** Of one stream of one circuit, beside all others. */
  readonly mbps: number
}

const ENTRY = ip('198.18.1.1')
const NODE = ip('198.18.1.2')
/** By the entry: the client, as the node sees it. */
const CLIENT_HERE = ip('10.64.128.2')
const LENT = ip('10.65.0.2')
const SERVER = '198.18.2.2'
const SECONDS = 4
/** Index of the overlay tunnel's reqid, SPIs and key. */
const OVERLAY = 500_000
/**
 * By circuit, where its addresses and SPIs stand: at random, as nodes lend addresses and draw SPIs. The kernel's hashes
 * of counted ones are a few hundred values, and every packet walks along those who share one.
 */
const PLACES = [
  0,
  ...drawSome(
    { bytes: nodeCrypto.random },
    Array.from({ length: 0x7fff }, (_, i) => i + 1),
    0x7fff,
  ),
]

const [sizes, rounds, hashing = [true]] = JSON.parse(process.argv[2] ?? '[[10],1]') as [
  number[],
  number,
  boolean[]?,
]
raise()
const plane = new XfrmPlane({ device: 'ippriv0' })
await plane.open()
// For good: were their SAs made anew, their sequence numbers would be replays to the other end.
const link: OverlayLink = {
  self: NODE,
  selfPool: prefix('10.65.0.0/16'),
  peer: ENTRY,
  peerPool: prefix('10.64.128.0/17'),
  reqid: reqId(OVERLAY),
}
await plane.apply([
  ...harden(link.selfPool, true),
  ...overlayPolicies(link),
  ...overlaySas(link, child(OVERLAY)),
])
await plane.apply(bind(circuit(0)))
const server = execFile('ip', ['netns', 'exec', 'd', 'iperf3', '-s', '-B', SERVER])
await sleep(1500)
try {
  for (let round = 0; round < rounds; round++)
    for (const hashed of hashing) {
      // As the plane sets it, or as the kernel comes: bits of the local and of the remote address.
      execFileSync('ip', ['xfrm', 'policy', 'set', 'hthresh4', hashed ? '0' : '32', '32'])
      for (const size of sizes) process.stdout.write(`${JSON.stringify(await measure(size, hashed))}\n`)
    }
} finally {
  server.kill()
  await plane.close()
}
process.exit()

async function measure(circuits: number, hashed: boolean): Promise<KernelSample> {
  const began = performance.now()
  // One by one, as clients come.
  for (let i = 1; i < circuits; i++) await plane.apply(bind(circuit(i)))
  const stood = performance.now()
  const mbps = await stream()
  const ending = performance.now()
  for (let i = 1; i < circuits; i++) await plane.apply(unbind(circuit(i)))
  const perSecond = (ms: number): number => (1000 * (circuits - 1)) / ms
  return {
    circuits,
    hashed,
    installed: perSecond(stood - began),
    removed: perSecond(performance.now() - ending),
    mbps,
  }
}

async function stream(): Promise<number> {
  const argv = ['netns', 'exec', 's', 'iperf3', '-J', '-c', SERVER, '-B', LENT, '-t', `${SECONDS}`]
  const { stdout } = await promisify(execFile)('ip', argv)
  const report = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } }
  return report.end.sum_received.bits_per_second / 1e6
}

/** The first one is the client's, all others are of clients that are silent. */
function circuit(index: number): Binding {
  const place = PLACES[index]!
  return {
    self: NODE,
    client: uint32ToIp(ipToUint32(CLIENT_HERE) + place),
    leased: uint32ToIp(ipToUint32(LENT) + place),
    reqid: reqId(index),
    child: child(place),
    via: link,
  }
}

/** A key each time, as the plane's owner hands them over. */
function child(place: number): ChildSa {
  return {
    cipher: 'aes-256-gcm-16',
    esn: true,
    inboundSpi: spi('in', place),
    outboundSpi: spi('out', place),
    inboundKey: new Uint8Array(36).fill(1),
    outboundKey: new Uint8Array(36).fill(2),
    localSelectors: [],
    remoteSelectors: [],
  }
}

/** Scattered by the golden ratio of 2^32, and always the same for a place. */
function spi(flow: 'in' | 'out', place: number): Spi {
  return ((flow === 'in' ? 0x1000_0000 : 0x2000_0000) + (Math.imul(place, 0x9e37_79b1) >>> 4)) as Spi
}

function raise(): void {
  const key = (octet: number): string => `0x${toHex(new Uint8Array(36).fill(octet))}`
  const state = (source: string, destination: string, index: number, flow: 'in' | 'out'): string =>
    `xfrm state add src ${source} dst ${destination} proto esp ` +
    `spi ${spi(flow, index)} reqid ${index + 1} mode tunnel ` +
    `flag esn replay-window 1024 aead rfc4106(gcm(aes)) ${key(flow === 'in' ? 1 : 2)} 128`
  const template = (source: string, destination: string, index: number): string =>
    `tmpl src ${source} dst ${destination} proto esp reqid ${index + 1} mode tunnel`
  const batch = (lines: readonly string[], ...where: readonly string[]): void => {
    execFileSync('ip', [...where, '-batch', '-'], { input: `${lines.join('\n')}\n` })
  }
  batch([
    'netns add s',
    'netns add d',
    'link add n0 type veth peer name s0 netns s',
    'link add n1 type veth peer name d0 netns d',
    `addr add ${NODE}/24 dev n0`,
    'addr add 198.18.2.1/24 dev n1',
    'link set n0 up',
    'link set n1 up',
  ])
  batch(['addr add 198.18.2.2/24 dev d0', 'link set d0 up', `route add default via 198.18.2.1`], '-n', 'd')
  const there = [template(CLIENT_HERE, NODE, 0), template(ENTRY, NODE, OVERLAY)].join(' ')
  const back = [template(NODE, CLIENT_HERE, 0), template(NODE, ENTRY, OVERLAY)].join(' ')
  batch(
    [
      `addr add ${ENTRY}/24 dev s0`,
      ...[CLIENT_HERE, LENT].map((address) => `addr add ${address}/32 dev s0`),
      'link set s0 up',
      `route add default via ${NODE} mtu 1280`,
      state(CLIENT_HERE, NODE, 0, 'in'),
      state(NODE, CLIENT_HERE, 0, 'out'),
      state(ENTRY, NODE, OVERLAY, 'in'),
      state(NODE, ENTRY, OVERLAY, 'out'),
      `xfrm policy add src ${LENT} dst 0.0.0.0/0 dir out ${there}`,
      `xfrm policy add src 0.0.0.0/0 dst ${LENT} dir in ${back}`,
    ],
    '-n',
    's',
  )
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1'])
  // To the address that is lent, as every node has it: into a device where an answer without a policy would die.
  execFileSync('ip', ['route', 'add', '10.64.0.0/10', 'via', ENTRY])
}
