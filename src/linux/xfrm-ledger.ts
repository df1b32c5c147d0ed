/**
 * What of the kernel's SAD and SPD is ours, as far as this process knows: what it installed, and what it found of a
 * predecessor. It says of each operation what to send, and how to take that back when the kernel refuses it.
 */

import { IpprivError } from '#base/errors'
import type { NetlinkRequest } from '#linux/netlink'
import {
  policyInstallRequest,
  policyName,
  policyRemoveRequest,
  saInstallRequest,
  saName,
  saRemoveRequest,
} from '#linux/xfrm-messages'
import type { PlaneOperation, PolicySpec, SaKey } from '#telescope/plane'

/** What is harmless to hear when something is removed. */
export const ABSENT = ['ESRCH', 'ENOENT'] as const

/** One operation on its way into the kernel. The ledger already says that it was done. */
export interface Step {
  readonly request: NetlinkRequest
  readonly tolerated: readonly string[]
  readonly installs: boolean
  /** Takes it out of the kernel again. */
  readonly undo?: NetlinkRequest
  /** Takes it out of the ledger again. */
  readonly revert: () => void
}

export class XfrmLedger {
  /** By `policyName` and `saName`. */
  readonly #policies = new Map<string, PolicySpec>()
  readonly #sas = new Set<string>()
  /** Names of block policies that a predecessor left and nobody has claimed yet. */
  readonly #inherited = new Set<string>()

  hasSa(sa: SaKey): boolean {
    return this.#sas.has(saName(sa))
  }

  addSa(sa: SaKey): void {
    this.#sas.add(saName(sa))
  }

  deleteSa(sa: SaKey): void {
    this.#sas.delete(saName(sa))
  }

  /** Names of SAs of ours that are not among those the kernel has. */
  lostSas(present: readonly SaKey[]): string[] {
    const names = new Set(present.map(saName))
    return [...this.#sas].filter((name) => !names.has(name))
  }

  /** Enters an operation. @throws IpprivError IPP_PLANE_OPERATION when it cannot be done: nothing is entered then */
  enter(operation: Exclude<PlaneOperation, { kind: 'sa.move' }>): Step {
    switch (operation.kind) {
      case 'sa.install': {
        const { sa } = operation
        const name = saName(sa)
        const request = saInstallRequest(sa)
        if (this.#sas.has(name)) throw new IpprivError('IPP_PLANE_OPERATION', `${request.name}: exists`)
        this.#sas.add(name)
        const revert = (): void => void this.#sas.delete(name)
        return { request, tolerated: [], installs: true, undo: saRemoveRequest(sa), revert }
      }
      case 'sa.remove': {
        const name = saName(operation.sa)
        const had = this.#sas.delete(name)
        const revert = (): void => void (had && this.#sas.add(name))
        return { request: saRemoveRequest(operation.sa), tolerated: ABSENT, installs: false, revert }
      }
      case 'policy.install': {
        const { policy } = operation
        const { direction, selector } = policy
        const name = policyName(direction, selector)
        const before = this.#policies.get(name)
        const request = policyInstallRequest(policy, before !== undefined)
        this.#policies.set(name, policy)
        this.#inherited.delete(name)
        return {
          request,
          tolerated: [],
          installs: true,
          undo: before ? policyInstallRequest(before, true) : policyRemoveRequest(direction, selector),
          revert: () => this.#restorePolicy(name, before),
        }
      }
      case 'policy.remove': {
        const { direction, selector } = operation
        const name = policyName(direction, selector)
        const before = this.#policies.get(name)
        this.#policies.delete(name)
        this.#inherited.delete(name)
        const request = policyRemoveRequest(direction, selector)
        return {
          request,
          tolerated: ABSENT,
          installs: false,
          revert: () => this.#restorePolicy(name, before),
        }
      }
    }
  }

  clear(): void {
    this.#sas.clear()
    this.#policies.clear()
    this.#inherited.clear()
  }

  /** What a predecessor left goes on, as if it had been installed here. */
  adopt(policies: readonly PolicySpec[], sas: readonly SaKey[]): void {
    for (const policy of policies) this.#policies.set(policyName(policy.direction, policy.selector), policy)
    for (const sa of sas) this.addSa(sa)
  }

  /** What a predecessor left stays until `strikeUnclaimed`, unless it is installed again meanwhile. */
  inherit(policies: readonly PolicySpec[]): void {
    for (const policy of policies) {
      const name = policyName(policy.direction, policy.selector)
      this.#policies.set(name, policy)
      this.#inherited.add(name)
    }
  }

  /** Strikes out what was inherited and not installed again. What removes it from the kernel. */
  strikeUnclaimed(): NetlinkRequest[] {
    const requests: NetlinkRequest[] = []
    for (const name of this.#inherited) {
      const policy = this.#policies.get(name)
      if (policy) requests.push(policyRemoveRequest(policy.direction, policy.selector))
      this.#policies.delete(name)
    }
    this.#inherited.clear()
    return requests
  }

  #restorePolicy(name: string, before: PolicySpec | undefined): void {
    if (before) this.#policies.set(name, before)
    else this.#policies.delete(name)
  }
}
