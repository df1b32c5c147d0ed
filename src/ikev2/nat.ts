/**
 * NAT detection (RFC 7296 section 2.23), and IKE beside ESP on UDP port 4500 (RFC 3948).
 *
 * Each side says a hash of the addresses it believes in, and compares what arrives with the addresses it sees. The
 * hash is salted with public SPIs only: it tells an IPv4 address to whoever tries them all. So it is for the first
 * hop alone, whose entry and whose wire see that address anyway, and there every client sends it, NAT or none, so
 * that all look the same. On inner hops it is neither sent, nor answered, nor read.
 */
import { concat, equalBytes } from '#base/bytes'
import { ipToBytes, type UdpEndpoint, type UdpPath } from '#base/ip'
import type { CryptoProvider } from '#crypto/provider'
import { malformed } from '#ikev2/fault'
import { notify, type Payload } from '#ikev2/message/payload'
import { notifies } from '#ikev2/message/registry'
import { NOTIFY } from '#ikev2/numbers'
import { Writer } from '#wire/cursor'

/** IKE with the non-ESP marker, ESP in UDP, and keepalives (RFC 3948 section 2). */
export const NAT_T_PORT = 4500
/** RFC 3948 section 2.3: keeps a NAT's mapping; nobody answers it. */
export const KEEPALIVE: Uint8Array = Uint8Array.of(0xff)

/** At which end a NAT stands, as one side sees it. */
export interface NatFound {
  readonly here: boolean
  readonly there: boolean
}

/** The SPIs of the message the payloads are in: the responder's is zero in the first. */
export interface MessageSpis {
  readonly spiInitiator: Uint8Array
  readonly spiResponder: Uint8Array
}

export const natDetection = (crypto: CryptoProvider, spis: MessageSpis, path: UdpPath): Payload[] => [
  notify(NOTIFY.number.NAT_DETECTION_SOURCE_IP, digest(crypto, spis, path.local)),
  notify(NOTIFY.number.NAT_DETECTION_DESTINATION_IP, digest(crypto, spis, path.remote)),
]

/** What a received message says; undefined: its sender does not do this. @throws PeerFault */
export function readNatDetection(
  crypto: CryptoProvider,
  spis: MessageSpis,
  path: UdpPath,
  payloads: readonly Payload[],
): NatFound | undefined {
  const sources = notifies(payloads, NOTIFY.number.NAT_DETECTION_SOURCE_IP)
  const destinations = notifies(payloads, NOTIFY.number.NAT_DETECTION_DESTINATION_IP)
  if (sources.length === 0 || destinations.length === 0) return undefined
  for (const { data } of [...sources, ...destinations])
    if (data.length !== DIGEST_LENGTH) throw malformed(`a NAT detection hash of ${data.length} octets`)
  // A sender that does not know its address may say several.
  const says = (among: readonly { readonly data: Uint8Array }[], end: UdpEndpoint): boolean => {
    const expected = digest(crypto, spis, end)
    return among.some(({ data }) => equalBytes(data, expected))
  }
  return { here: !says(destinations, path.local), there: !says(sources, path.remote) }
}

/** An IKE message as a datagram of this path (RFC 3948 section 2.2). */
export const frame = (path: UdpPath, message: Uint8Array): Uint8Array =>
  path.local.port === NAT_T_PORT ? concat(NON_ESP_MARKER, message) : message

/** The IKE message in a datagram; undefined: a keepalive. @throws PeerFault when there is neither. */
export function unframe(path: UdpPath, datagram: Uint8Array): Uint8Array | undefined {
  if (path.local.port !== NAT_T_PORT) return datagram
  if (equalBytes(datagram, KEEPALIVE)) return undefined
  if (!equalBytes(datagram.subarray(0, NON_ESP_MARKER.length), NON_ESP_MARKER))
    throw malformed('neither IKE nor a keepalive on port 4500')
  return datagram.subarray(NON_ESP_MARKER.length)
}

const NON_ESP_MARKER = new Uint8Array(4)
const DIGEST_LENGTH = 20

/** SHA-1 of SPIi | SPIr | address | port. */
const digest = (
  crypto: CryptoProvider,
  { spiInitiator, spiResponder }: MessageSpis,
  { address, port }: UdpEndpoint,
): Uint8Array =>
  crypto.hash(
    'sha1',
    concat(spiInitiator, spiResponder, ipToBytes(address), new Writer(2).u16(port).finish()),
  )
