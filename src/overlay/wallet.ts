/**
 * The resumption tickets of one host, one for each node that gave one. Each is a secret and a pseudonym: it goes to
 * its node and to no other, once, and is never written down.
 */
import type { NodeId } from '#base/ids'
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'

export class Wallet {
  readonly #tickets = new Map<NodeId, ResumptionTicket>()

  /** In place of the one before. */
  keep(node: NodeId, ticket: ResumptionTicket): void {
    wipeTicket(this.#tickets.get(node))
    this.#tickets.set(node, ticket)
  }

  /** The ticket of a node, if there is one: the caller's from here on. Absent in an object, as a request has it. */
  spend(node: NodeId): { readonly ticket?: ResumptionTicket } {
    const ticket = this.#tickets.get(node)
    this.#tickets.delete(node)
    return ticket === undefined ? {} : { ticket }
  }

  drop(node: NodeId): void {
    wipeTicket(this.#tickets.get(node))
    this.#tickets.delete(node)
  }

  wipe(): void {
    for (const ticket of this.#tickets.values()) wipeTicket(ticket)
    this.#tickets.clear()
  }
}
