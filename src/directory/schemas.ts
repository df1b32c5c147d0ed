/** The parts that the schemas of both documents share, and how a mismatch is told. */
import { Type } from 'typebox'

/** An Ed25519 public key in lower-case hex. */
export const KeyText = Type.String({ pattern: '^[0-9a-f]{64}$' })

/** An Ed25519 public key, or SubjectPublicKeyInfo of another kind, in lower-case hex. */
export const PinnedKeyText = Type.String({ pattern: '^([0-9a-f]{2}){32,1100}$' })

export const Ipv4Text = Type.String({ minLength: 7, maxLength: 15 })
export const PrefixText = Type.String({ minLength: 9, maxLength: 18 })

/** Seconds since 1970, up to the year 9999: every sum with a period stays an exact integer. */
export const Moment = Type.Integer({ minimum: 0, maximum: 253_402_300_799 })

interface SchemaError {
  readonly keyword: string
  readonly instancePath: string
  readonly message: string
}

/**
 * The first mismatch, as `place: what was expected`. The place is made of names that the schema knows: a key or
 * a value that a stranger chose is never repeated.
 */
export function schemaProblem(
  validator: { Errors(value: unknown): readonly SchemaError[] },
  value: unknown,
): string {
  // Keyword "boolean" is the refusal of an unknown property and names it; the one that follows does not.
  const first = validator.Errors(value).find((error) => error.keyword !== 'boolean')
  if (first === undefined) return 'it does not fit the schema'
  const place = first.instancePath.replaceAll('/', '.').replace(/^\./, '')
  return place === '' ? first.message : `${place}: ${first.message}`
}
