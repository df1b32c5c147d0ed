/** The effective capabilities of this process (capabilities(7)). */
import { readFile } from 'node:fs/promises'
import { IpprivError } from '#base/errors'

/** Bit numbers of linux/capability.h. */
export const CAPABILITIES = { CAP_NET_BIND_SERVICE: 10, CAP_NET_ADMIN: 12, CAP_NET_RAW: 13 } as const
export type Capability = keyof typeof CAPABILITIES

/** Which of the capabilities we know are in effect. */
export async function effectiveCapabilities(): Promise<ReadonlySet<Capability>> {
  return parseCapabilities(await readFile('/proc/self/status', 'utf8'))
}

/** @throws IpprivError IPP_HOST_PRIVILEGE with the capabilities that are not in effect. */
export async function requireCapabilities(...needed: readonly Capability[]): Promise<void> {
  const effective = await effectiveCapabilities()
  const lacking = needed.filter((capability) => !effective.has(capability))
  if (lacking.length > 0) throw new IpprivError('IPP_HOST_PRIVILEGE', lacking.join(', '))
}

/** From the text of /proc/PID/status. */
export function parseCapabilities(status: string): ReadonlySet<Capability> {
  const mask = BigInt(`0x${/^CapEff:\s*([0-9a-fA-F]+)$/m.exec(status)?.[1] ?? '0'}`)
  const names = Object.keys(CAPABILITIES) as Capability[]
  return new Set(names.filter((name) => ((mask >> BigInt(CAPABILITIES[name])) & 1n) === 1n))
}
