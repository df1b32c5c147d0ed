/** The circuits of a client: what each is for, and which IKE SAs belong to which. */
import type { CircuitId, IkeSaId } from '#base/ids'
import type { Ip } from '#base/ip'
import type { ConsensusNode } from '#directory/documents'
import { DEFAULT_GROUP, type Group } from '#overlay/groups'
import type { Hop, Telescope } from '#telescope/telescope'

/**
 * `default`: applications use it, unless they belong to a group or bind to an address of another. `group`: the traffic
 * of one group uses it. `spare`: it stands ready to be the next of either. `asked`: somebody wanted one of his own.
 * `retired`: it was in use; what began there may end there.
 */
export type CircuitUse = 'default' | 'group' | 'spare' | 'asked' | 'retired'

export interface Circuit {
  readonly telescope: Telescope
  /** The hops, as the consensus listed them when they were chosen. */
  readonly nodes: readonly ConsensusNode[]
  /** Of who asked for it. */
  readonly ticket?: number
  use: CircuitUse
  /** Whose traffic it carries, or carried: once and for ever. Undefined: of a spare, or one that was asked for. */
  group: Group | undefined
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

  /** What the traffic of a group uses. */
  of(group: Group): Circuit | undefined {
    for (const circuit of this.#byId.values())
      if (circuit.group === group && circuit.use !== 'retired') return circuit
    return undefined
  }

  get default(): Circuit | undefined {
    return this.of(DEFAULT_GROUP)
  }

  /** The entry they share has answered. */
  get hasEntered(): boolean {
    return this.all().some(({ telescope }) => telescope.layers.length > 0)
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
