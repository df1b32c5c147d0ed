/**
 * How long our protected datagrams are: one of a few sizes, so that their length tells no more than how many of them a
 * message takes (threat model: whoever watches the client's link sees the messages of deeper hops as ESP frames).
 *
 *     312     everything without a post-quantum key: IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, requests and answers
 *     1200    a post-quantum key or ciphertext, or a fragment that is not the last
 *     567, 822, 1077    between the two; no message of a client's hop falls here
 *
 * The steps are what the padding of one SK payload can bridge (RFC 7296 section 3.14: at most 255 octets), and the
 * first is how far it brings an empty message. Receivers take any padding. What this cannot hide: IKE_SA_INIT, which is
 * in the clear and of one length per template, and that each layer of ESP around a datagram adds its overhead.
 */

/** No IKE datagram of ours is larger: it fits through three layers of ESP without IP fragments. */
export const MAX_DATAGRAM = 1200

/** RFC 7296 section 3.14: the pad length is one octet. */
const MAX_PADDING = 255

/** An empty message: header, generic header, IV, pad length and ICV. */
const SMALLEST = 57

/** Octets of padding for a datagram of `length` octets without any. One that is too large for a datagram has none. */
export function paddingOf(length: number): number {
  if (length >= MAX_DATAGRAM) return 0
  const steps = Math.max(1, Math.ceil((length - SMALLEST) / MAX_PADDING))
  return Math.min(SMALLEST + steps * MAX_PADDING, MAX_DATAGRAM) - length
}
