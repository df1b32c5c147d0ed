/** The Internet checksum (RFC 1071): one's complement sum of 16-bit words, over byte ranges in place. */

/**
 * The running sum of `bytes[offset, offset+length)`, not folded; an odd last octet counts as the high half of a
 * word. Ranges after an odd one cannot be added. Good for up to 2^37 octets before a double loses precision.
 */
export function sum16(bytes: Uint8Array, offset: number, length: number, initial = 0): number {
  let sum = initial
  const even = offset + (length & ~1)
  for (let i = offset; i < even; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!
  if (length & 1) sum += bytes[even]! << 8
  return sum
}

/** Folds a running sum into the 16-bit value that stands in a header. */
export function foldChecksum(sum: number): number {
  let folded = (sum & 0xffff) + Math.floor(sum / 0x1_0000)
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16)
  return ~folded & 0xffff
}

/** The checksum of a range whose checksum field is zero; over a correct range with its field it is zero. */
export function checksum(bytes: Uint8Array, offset: number, length: number): number {
  return foldChecksum(sum16(bytes, offset, length))
}

/**
 * The checksum after one 16-bit word of the covered data changed (RFC 1624 section 3, equation 3: the form that
 * is right for a result of zero as well).
 */
export function adjustChecksum(old: number, oldWord: number, newWord: number): number {
  let sum = (~old & 0xffff) + (~oldWord & 0xffff) + newWord
  sum = (sum & 0xffff) + (sum >>> 16)
  sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
