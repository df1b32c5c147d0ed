/** What a network agrees on beside its nodes, as it stands in votes and documents. Pure. */
import { type Static, Type } from 'typebox'
import type { NetworkParameters } from '#directory/documents'

/** Unless the operator of an authority says otherwise. */
export const DEFAULT_PARAMETERS: NetworkParameters = { mtu: 1280, profile: 1, versions: [] }

export const ParametersBody = Type.Object(
  {
    mtu: Type.Integer({ minimum: 576, maximum: 9000 }),
    profile: Type.Integer({ minimum: 1, maximum: 65535 }),
    versions: Type.Array(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,39}$' }), { maxItems: 16 }),
  },
  { additionalProperties: false },
)

/** In canonical order. */
export const parametersBody = ({
  mtu,
  profile,
  versions,
}: NetworkParameters): Static<typeof ParametersBody> => ({
  mtu,
  profile,
  versions: versions.toSorted(),
})

/** Of counted votes: numbers by their median, the lower one of two; versions that more than half of them name. */
export function agreeOn(proposals: readonly NetworkParameters[]): NetworkParameters | undefined {
  if (proposals.length === 0) return undefined
  const counts = new Map<string, number>()
  for (const { versions } of proposals)
    for (const version of new Set(versions)) counts.set(version, (counts.get(version) ?? 0) + 1)
  return {
    mtu: lowMedian(proposals.map(({ mtu }) => mtu)),
    profile: lowMedian(proposals.map(({ profile }) => profile)),
    versions: [...counts]
      .filter(([, count]) => count > proposals.length / 2)
      .map(([version]) => version)
      .sort()
      .slice(0, 16),
  }
}

/** The middle value, of two the lower: no single author can move it past those of the others. */
export const lowMedian = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[(values.length - 1) >> 1]!
