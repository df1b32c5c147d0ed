/** Whom a daemon believes, and where they are, as its file says; for an authority: who the others are. */
import { fromHex } from '#base/bytes'
import { type Ip, ip } from '#base/ip'
import { parseDirectoryUrl } from '#config/formats'
import type { ConfigFile } from '#config/schema'
import type { Locator, Problem } from '#config/validate'
import { SHORTEST_PERIOD } from '#directory/documents'

export interface DirectoryServer {
  /** `http://address:port`, without a slash at the end. */
  readonly url: string
  readonly address: Ip
  readonly port: number
}

/** Whose documents are believed, and who serves them. */
export type TrustedDirectory = {
  /** Who else hands out documents. */
  readonly mirrors: readonly DirectoryServer[]
} & (
  | {
      readonly kind: 'pinned'
      /** At least one. */
      readonly servers: readonly DirectoryServer[]
      /** Ed25519 public keys, 32 octets each. */
      readonly keys: readonly Uint8Array[]
      /** So many of them must have signed. */
      readonly threshold: number
    }
  /** A file that says all of that. */
  | { readonly kind: 'bootstrap'; readonly file: string }
)

/** One of the authorities, as an authority is told. */
export interface AuthorityConfig {
  readonly name: string
  /** Ed25519 public key, 32 octets. */
  readonly key: Uint8Array
  /** `http://address:port`, without a slash at the end. */
  readonly url: string
}

/** A list of all authorities, or a bootstrap file that has one. */
export type CouncilConfig =
  | { readonly kind: 'pinned'; readonly authorities: readonly AuthorityConfig[]; readonly threshold: number }
  | { readonly kind: 'bootstrap'; readonly file: string }

/** One server with one key, several with a threshold, or a file. */
export function directoryProblem(value: ConfigFile<'client'>['directory'], at: Locator): Problem | undefined {
  const { mirrors: _, ...trust } = value
  const { url, key, urls, keys, threshold, bootstrap } = trust
  const place = ['directory']
  if (bootstrap !== undefined)
    return Object.keys(trust).length === 1
      ? undefined
      : at(place, 'bootstrap alone: the file names servers and keys', 'other keys beside it')
  if (urls === undefined && keys === undefined && threshold === undefined) {
    if (url !== undefined && key !== undefined) return undefined
    const lacks = url === undefined ? 'url' : 'key'
    return at(place, `the key ${lacks}; or urls, keys and threshold; or bootstrap`, 'it is absent')
  }
  if (url !== undefined || key !== undefined)
    return at(place, 'either url and key, or urls, keys and threshold', 'both')
  if (urls === undefined || keys === undefined || threshold === undefined)
    return at(place, 'urls, keys and threshold, all three', 'not all of them')
  return thresholdProblem(threshold, keys.length, [...place, 'threshold'], at)
}

export function councilProblem(value: ConfigFile<'directory'>, at: Locator): Problem | undefined {
  const { authorities, threshold, bootstrap, period } = value
  if (authorities === undefined && threshold === undefined && bootstrap === undefined)
    return value.network === undefined
      ? undefined
      : at(['network'], 'none without authorities: one that decides alone proposes nothing', 'some')
  if (period !== undefined && period < SHORTEST_PERIOD)
    return at(['period'], `at least ${SHORTEST_PERIOD} seconds, so that authorities can agree`, `${period}`)
  if (bootstrap !== undefined)
    return authorities === undefined && threshold === undefined
      ? undefined
      : at(['bootstrap'], 'either bootstrap, or authorities and threshold', 'both')
  if (authorities === undefined || threshold === undefined)
    return at([], 'authorities and threshold, both', 'one of them')
  for (const what of ['name', 'key', 'url'] as const)
    if (new Set(authorities.map((one) => one[what])).size < authorities.length)
      return at(['authorities'], `every ${what} once`, 'one of them again')
  return thresholdProblem(threshold, authorities.length, ['threshold'], at)
}

/** With half of them or fewer, two documents could be valid at a time. */
function thresholdProblem(
  threshold: number,
  keys: number,
  place: readonly string[],
  at: Locator,
): Problem | undefined {
  if (2 * threshold > keys && threshold <= keys) return undefined
  return at(place, `more than half of the ${keys} keys and no more than all`, `${threshold}`)
}

/** `absolute`: of a path in the file. */
export function directoryOf(
  value: ConfigFile<'client'>['directory'],
  absolute: (path: string) => string,
): TrustedDirectory {
  const mirrors = (value.mirrors ?? []).map(serverOf)
  if (value.bootstrap !== undefined) return { kind: 'bootstrap', file: absolute(value.bootstrap), mirrors }
  const urls = value.urls ?? [value.url!]
  const keys = (value.keys ?? [value.key!]).map(fromHex)
  return { kind: 'pinned', servers: urls.map(serverOf), keys, threshold: value.threshold ?? 1, mirrors }
}

/** What a URL of the right form says. */
export function serverOf(text: string): DirectoryServer {
  const { base, address, port } = parseDirectoryUrl(text)!
  return { url: base, address: ip(address), port }
}

/** Undefined: it decides alone. */
export function councilOf(
  value: ConfigFile<'directory'>,
  absolute: (path: string) => string,
): CouncilConfig | undefined {
  if (value.bootstrap !== undefined) return { kind: 'bootstrap', file: absolute(value.bootstrap) }
  if (value.authorities === undefined) return undefined
  const authorities = value.authorities.map(({ name, key, url }) => ({
    name,
    key: fromHex(key),
    url: serverOf(url).url,
  }))
  return { kind: 'pinned', authorities, threshold: value.threshold! }
}
