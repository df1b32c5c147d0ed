/**
 * What a client or a node makes of that which its network agrees on beside its nodes. The network decides, within what
 * this program can do: it never makes packets larger than there is room for, nor speaks a profile it does not know.
 */
import { INNER_MTU } from '#base/mtu'
import { failure, type Result, success } from '#base/result'
import type { Consensus } from '#directory/documents'
import { SMALLEST_MTU } from '#directory/parameters'
import { isOutdated } from '#directory/version'

/** The one there is: offers, their order and padding, as `ikev2/` has them for everybody. */
const KNOWN_PROFILES: readonly number[] = [1]

type Agreed = Pick<Consensus, 'parameters'>

/**
 * Octets of packets inside circuits. Less than otherwise where the network says so, and never more: devices and routes of
 * those who do not know better could not carry it.
 */
export const mtuOf = (consensus: Agreed | undefined): number =>
  Math.max(SMALLEST_MTU, Math.min(INNER_MTU, consensus?.parameters?.mtu ?? INNER_MTU))

/**
 * Whether a document can be acted on at all. Errors: IPP_DIR_OUTDATED, for which there is no remedy but another version of
 * this program; IPP_DIR_PROFILE.
 */
export function heed<C extends Agreed>(consensus: C, software: string): Result<C> {
  const { profile, minimum } = consensus.parameters ?? {}
  if (isOutdated(software, minimum))
    return failure('IPP_DIR_OUTDATED', `ippriv ${minimum} is needed; this is ${software}`)
  return profile === undefined || KNOWN_PROFILES.includes(profile)
    ? success(consensus)
    : failure('IPP_DIR_PROFILE', `profile ${profile}, known: ${KNOWN_PROFILES.join(', ')}`)
}

/** What an operator should be told: the network recommends other software. Undefined: nothing. */
export function advice({ parameters }: Agreed, software: string): string | undefined {
  const versions = parameters?.versions ?? []
  return versions.length === 0 || versions.includes(software)
    ? undefined
    : `the network recommends ${versions.join(', ')}; this is ${software}`
}
