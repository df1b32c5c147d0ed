/** The circuits of a client: what each is for, and which IKE SAs belong to which. */
import type { CircuitId, IkeSaId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { ConsensusNode } from '#directory/documents'
import type { Hop, Telescope } from '#telescope/telescope'

/**
 * `default`: applications use it, unless they bind to an address of another. `spare`: it stands ready to be the next
 * default. `asked`: somebody wanted one of his own. `retired`: it was the default; what began there may end there.
 */
export type CircuitUse = 'default' | 'spare' | 'asked' | 'retired'

export interface Circuit {
  readonly telescope: Telescope
  /** The hops, as the consensus listed them when they were chosen. */
  readonly nodes: readonly ConsensusNode[]
  /** Of who asked for it. */
  readonly ticket?: number
  use: CircuitUse
  /** It is given up against our will, and comes back: its entry may see that it is the same client. */
  returns: boolean
}

export class Circuits {
  readonly #byId = new Map<CircuitId, Circuit>()
  readonly #bySa = new Map<IkeSaId, Circuit>()

  get size(): number {
    return this.#byId.size
  }

  /** As they are now: they may be added and removed meanwhile. */
  all(): readonly Circuit[] {
    return [...this.#byId.values()]
  }

  get(id: CircuitId): Circuit | undefined {
    return this.#byId.get(id)
  }

  ofSa(sa: IkeSaId): Circuit | undefined {
    return this.#bySa.get(sa)
  }

  add(circuit: Circuit): void {
    this.#byId.set(circuit.telescope.id, circuit)
  }

  remove({ telescope }: Circuit): void {
    this.#byId.delete(telescope.id)
  }

  bind(sa: IkeSaId, circuit: Circuit): void {
    this.#bySa.set(sa, circuit)
  }

  unbind(sa: IkeSaId): void {
    this.#bySa.delete(sa)
  }

  get default(): Circuit | undefined {
    for (const circuit of this.#byId.values()) if (circuit.use === 'default') return circuit
    return undefined
  }

  /** Of that use, and neither closing nor closed; the eldest first. */
  living(use: CircuitUse): readonly Circuit[] {
    return this.all().filter(
      ({ use: its, telescope: { state } }) => its === use && (state === 'building' || state === 'open'),
    )
  }

  /** One that can be handed out at once. */
  get ready(): Circuit | undefined {
    return this.living('spare').find(({ telescope }) => telescope.state === 'open')
  }

  /** The guard node all circuits share while there is one. */
  get entry(): Hop | undefined {
    for (const { telescope } of this.#byId.values()) return telescope.hops[0]
    return undefined
  }

  isUsed(address: Ip): boolean {
    for (const { telescope } of this.#byId.values())
      if (telescope.privateAddresses.includes(address)) return true
    return false
  }
}

export const ticketOf = ({ ticket }: Pick<Circuit, 'ticket'>): { ticket?: number } =>
  ticket === undefined ? {} : { ticket }
