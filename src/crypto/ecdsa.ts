/** The two forms of an ECDSA signature: `Ecdsa-Sig-Value` in DER (RFC 3279 section 2.2.3), and r | s. */
import { DER, encodeDer, encodeUnsigned, readDer } from '#crypto/der'
import { type EcdsaCurve, FIELD_LENGTH } from '#crypto/public-key'

/** r | s, or undefined when `der` is no signature for the curve: empty, longer, negative, or not DER. */
export function ecdsaFromDer(curve: EcdsaCurve, der: Uint8Array): Uint8Array | undefined {
  const length = FIELD_LENGTH[curve]
  const halves = readDer(der, (reader) =>
    reader.within(DER.SEQUENCE, (inner) => [inner.unsigned(), inner.unsigned()] as const),
  )
  if (halves === undefined) return undefined
  const raw = new Uint8Array(2 * length)
  for (const [i, half] of halves.entries()) {
    if (half.length === 0 || half.length > length) return undefined
    raw.set(half, (i + 1) * length - half.length)
  }
  return raw
}

export function ecdsaToDer(raw: Uint8Array): Uint8Array {
  const half = raw.length / 2
  return encodeDer(DER.SEQUENCE, encodeUnsigned(raw.subarray(0, half)), encodeUnsigned(raw.subarray(half)))
}
