/**
 * Versions of this software, as descriptors name it: `ippriv 1.2.3`, with `-rc.1` or the like behind it before a release.
 * Other programs count by numbers of their own, which nobody compares with ours. Pure.
 */

/** What a network can demand: three numbers, as semver has them. */
export const VERSION_PATTERN = '^(0|[1-9][0-9]{0,4})\\.(0|[1-9][0-9]{0,4})\\.(0|[1-9][0-9]{0,4})$'

const OURS = /^ippriv(?: |$)/
const RELEASE = /^ippriv (\d{1,5}\.\d{1,5}\.\d{1,5})(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/

/** Below 0: `a` is older. Both are of `VERSION_PATTERN`. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [numbersOf(a), numbersOf(b)]
  const differs = left.findIndex((number, i) => number !== right[i])
  return differs < 0 ? 0 : left[differs]! - right[differs]!
}

/**
 * Is it ours, and older than what the network demands? What comes before a release is older than it; who does not say
 * which version it is has none that is known to be good. `minimum` undefined: nothing is demanded.
 */
export function isOutdated(software: string, minimum: string | undefined): boolean {
  if (minimum === undefined || !OURS.test(software)) return false
  const [, version, early] = RELEASE.exec(software) ?? []
  if (version === undefined) return true
  const order = compareVersions(version, minimum)
  return order < 0 || (order === 0 && early !== undefined)
}

const numbersOf = (version: string): number[] => version.split('.').map(Number)
