/** A small make-believe network: keys from seeds, descriptors from a few words. */
import assert from 'node:assert/strict'
import { utf8 } from '#base/bytes'
import { type Prefix, prefix, uint32ToIp } from '#base/ip'
import type { Failure, Result } from '#base/result'
import { type Instant, instant, type UnixTime, unixTime } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import type { KeyPair } from '#crypto/provider'
import type { ConsensusDraft, ListedNode } from '#directory/consensus'
import { type DescriptorFields, encodeDescriptor, type SignedDescriptor } from '#directory/descriptor'
import { freePool } from '#directory/pools'
import type { DirectoryClock, DirectoryLog } from '#directory/service'
import { DEFAULT_EXIT_POLICY } from '#nat/exit-policy'

export const crypto = nodeCrypto

export function keyPair(seed: string): KeyPair {
  const privateKey = crypto.hash('sha256', utf8(seed))
  return { privateKey, publicKey: crypto.ed25519PublicKey(privateKey) }
}

export const AUTHORITY = keyPair('authority')
export const START = unixTime(1_767_225_600)
export const PERIOD = 3600
export const SPACE = prefix('10.64.0.0/10')
export const PLAN = { space: SPACE, length: 20 }

export const at = (seconds: number): UnixTime => unixTime(START + seconds)

export function fieldsOf(name: string, changes: Partial<DescriptorFields> = {}): DescriptorFields {
  // A public address that depends on the name only.
  const octets = crypto.hash('sha256', utf8(name))
  return {
    ikeKey: keyPair(`${name} ike`).publicKey,
    name,
    address: uint32ToIp(((101 + (octets[0]! % 20)) << 24) | (octets[1]! << 16) | (octets[2]! << 8) | 1),
    port: 500,
    roles: ['entry', 'middle', 'exit'],
    exitPolicy: DEFAULT_EXIT_POLICY,
    published: START,
    software: 'ippriv 0.1.0',
    ...changes,
  }
}

/** Signed by the identity that belongs to `who`, the name unless said otherwise. */
export function describe(
  name: string,
  changes: Partial<DescriptorFields> = {},
  who = name,
): SignedDescriptor {
  return value(encodeDescriptor(fieldsOf(name, changes), keyPair(who), crypto))
}

export function listed(names: readonly string[]): ListedNode[] {
  const pools: Prefix[] = []
  return names.map((name) => {
    const pool = freePool(PLAN, pools)!
    pools.push(pool)
    return { ...describe(name), pool }
  })
}

export const draft = (
  nodes: readonly ListedNode[],
  changes: Partial<ConsensusDraft> = {},
): ConsensusDraft => ({
  serial: 7,
  validAfter: START,
  period: PERIOD,
  poolSpace: SPACE,
  nodes,
  ...changes,
})

export function value<T>(result: Result<T>): T {
  assert.ok(result.ok, result.ok ? '' : `${result.code}: ${result.where}`)
  return result.value
}

export function refused(result: Result<unknown>, code: Failure['code'], where?: RegExp): void {
  assert.ok(!result.ok, 'it was not refused')
  assert.equal(result.code, code, result.where)
  assert.ok(!/[^\x20-\x7e]/.test(result.where), 'a refusal is one line of printable ASCII')
  if (where !== undefined) assert.match(result.where, where)
}

/** Time stands still until a test moves it. */
export class ManualClock implements DirectoryClock {
  seconds = START as number

  unixTime(): UnixTime {
    return unixTime(this.seconds)
  }

  monotonic(): Instant {
    return instant(this.seconds * 1000)
  }
}

export const SILENT: DirectoryLog = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}
