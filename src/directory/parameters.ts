/** What a network agrees on beside its nodes, as it stands in votes and documents. Pure. */
import { type Static, Type } from 'typebox'
import { type NetworkParameters, SOFTWARE_PATTERN } from '#directory/documents'
import { compareVersions, VERSION_PATTERN } from '#directory/version'

/** Unless the operator of an authority says otherwise. */
export const DEFAULT_PARAMETERS: NetworkParameters = { mtu: 1280, profile: 1, versions: [] }

/** RFC 791: what every host accepts. */
export const SMALLEST_MTU = 576
export const MOST_VERSIONS = 16

export const ParametersBody = Type.Object(
  {
    mtu: Type.Integer({ minimum: SMALLEST_MTU, maximum: 9000 }),
    profile: Type.Integer({ minimum: 1, maximum: 65535 }),
    versions: Type.Array(Type.String({ pattern: SOFTWARE_PATTERN }), { maxItems: MOST_VERSIONS }),
    minimum: Type.Optional(Type.String({ pattern: VERSION_PATTERN })),
  },
  { additionalProperties: false },
)

/** In canonical order. */
export const parametersBody = ({
  mtu,
  profile,
  versions,
  minimum,
}: NetworkParameters): Static<typeof ParametersBody> => ({
  mtu,
  profile,
  versions: versions.toSorted(),
  ...(minimum === undefined ? {} : { minimum }),
})

/**
 * Of counted votes: numbers by their median, the lower one of two; versions that more than half of them name. A minimum shuts
 * nodes out, so as many authorities must demand it or a higher one as must vote for a node: `majority`, dead ones included.
 */
export function agreeOn(
  proposals: readonly NetworkParameters[],
  majority: number,
): NetworkParameters | undefined {
  if (proposals.length === 0) return undefined
  const counts = new Map<string, number>()
  for (const { versions } of proposals)
    for (const version of new Set(versions)) counts.set(version, (counts.get(version) ?? 0) + 1)
  const minimum = proposals
    .flatMap((proposal) => proposal.minimum ?? [])
    .sort((a, b) => compareVersions(b, a))[majority - 1]
  return {
    mtu: lowMedian(proposals.map(({ mtu }) => mtu)),
    profile: lowMedian(proposals.map(({ profile }) => profile)),
    versions: [...counts]
      .filter(([, count]) => count > proposals.length / 2)
      .map(([version]) => version)
      .sort()
      .slice(0, MOST_VERSIONS),
    ...(minimum === undefined ? {} : { minimum }),
  }
}

/** The middle value, of two the lower: no single author can move it past those of the others. */
export const lowMedian = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[(values.length - 1) >> 1]!
