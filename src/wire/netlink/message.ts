/**
 * Netlink message framing (linux/netlink.h).
 *
 *   0      4     6      8     12    16
 *   | len  | type| flags| seq | port| payload ... pad to 4 |
 *
 * Integers are in the byte order of the host, except where a family says otherwise.
 */

export interface NetlinkMessage {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  /** Netlink port of the sender of a request; 0 is filled in by the kernel. */
  readonly port: number
  /** Fixed struct and attributes. A view into the datagram it was decoded from. */
  readonly payload: Uint8Array
}

export const MESSAGE_HEADER_LENGTH = 16

/** Types below 16 belong to netlink itself. */
export const NLMSG = { noop: 1, error: 2, done: 3, overrun: 4 } as const

export const NLM_F = {
  request: 0x001,
  multi: 0x002,
  ack: 0x004,
  dumpInterrupted: 0x010,
  /** On requests that read. */
  dump: 0x300,
  /** On requests that create. */
  replace: 0x100,
  excl: 0x200,
  create: 0x400,
} as const

export const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

export const align4 = (length: number): number => (length + 3) & ~3

export const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Several messages in one buffer: the kernel takes them from one send, in order. */
export function encodeMessages(messages: readonly NetlinkMessage[]): Uint8Array {
  let length = 0
  for (const message of messages) length += align4(MESSAGE_HEADER_LENGTH + message.payload.length)
  const out = new Uint8Array(length)
  const view = viewOf(out)
  let at = 0
  for (const message of messages) {
    const size = MESSAGE_HEADER_LENGTH + message.payload.length
    view.setUint32(at, size, LITTLE_ENDIAN)
    view.setUint16(at + 4, message.type, LITTLE_ENDIAN)
    view.setUint16(at + 6, message.flags, LITTLE_ENDIAN)
    view.setUint32(at + 8, message.sequence, LITTLE_ENDIAN)
    view.setUint32(at + 12, message.port, LITTLE_ENDIAN)
    out.set(message.payload, at + MESSAGE_HEADER_LENGTH)
    at += align4(size)
  }
  return out
}

/** The messages of one datagram, or undefined when a length does not fit. */
export function decodeMessages(datagram: Uint8Array): NetlinkMessage[] | undefined {
  const view = viewOf(datagram)
  const messages: NetlinkMessage[] = []
  for (let at = 0; at < datagram.length; ) {
    if (at + MESSAGE_HEADER_LENGTH > datagram.length) return undefined
    const size = view.getUint32(at, LITTLE_ENDIAN)
    if (size < MESSAGE_HEADER_LENGTH || at + size > datagram.length) return undefined
    messages.push({
      type: view.getUint16(at + 4, LITTLE_ENDIAN),
      flags: view.getUint16(at + 6, LITTLE_ENDIAN),
      sequence: view.getUint32(at + 8, LITTLE_ENDIAN),
      port: view.getUint32(at + 12, LITTLE_ENDIAN),
      payload: datagram.subarray(at + MESSAGE_HEADER_LENGTH, at + size),
    })
    at += align4(size)
  }
  return messages
}

/**
 * The error number (positive, 0 is an acknowledgement) of an NLMSG_ERROR, or of the NLMSG_DONE that ends a
 * dump. Undefined when the message is neither, or too short.
 */
export function decodeErrno(message: NetlinkMessage): number | undefined {
  if (message.type !== NLMSG.error && message.type !== NLMSG.done) return undefined
  if (message.payload.length < 4) return message.type === NLMSG.done ? 0 : undefined
  const value = viewOf(message.payload).getInt32(0, LITTLE_ENDIAN)
  // A dump ends with its length or 0 in old kernels and with -errno when it failed.
  return value < 0 ? -value : 0
}
