/**
 * Rekeys that somebody asked for and waits for. They take the way of those that come by age, so they may be postponed
 * by the peer, or be overtaken by one that the peer began: whichever it is, new keys are new keys.
 */
import type { ErrorCode } from '#base/errors'
import type { IkeSaId } from '#base/ids'
import type { Instant } from '#base/time'
import type { IkeEngine } from '#ikev2/engine'
import type { ChildSa, IkeEvent } from '#ikev2/events'

export interface RekeyWish {
  /** Comes back in the event that says how it ended. */
  readonly ticket: number
  /** The IKE SA; else its Child SA. */
  readonly ike: boolean
}

export type RekeyEvent =
  | { readonly kind: 'rekeyed'; readonly ticket: number }
  | {
      readonly kind: 'rekey.failed'
      readonly ticket: number
      readonly code: ErrorCode
      readonly detail: string
    }

export class Rekeys {
  readonly #waiting = new Map<number, { readonly sa: IkeSaId; readonly ike: boolean }>()

  /** Begins one on an IKE SA that is established; `child` is the Child SA in use. */
  begin(engine: IkeEngine, { ticket, ike }: RekeyWish, sa: IkeSaId, child: ChildSa, now: Instant): void {
    this.#waiting.set(ticket, { sa, ike })
    if (ike) engine.rekeyIke(sa, now)
    else engine.rekeyChild(sa, child.inboundSpi, now)
  }

  /** What an event of the engine brought to its end; to be told once the event itself was dealt with. */
  settle(event: IkeEvent): RekeyEvent[] {
    switch (event.kind) {
      case 'child.switched':
        return this.#take(event.sa, false).map((ticket) => ({ kind: 'rekeyed', ticket }))
      case 'ike.rekeyed':
        return this.#take(event.sa, true).map((ticket) => ({ kind: 'rekeyed', ticket }))
      case 'ike.closed': {
        const { sa, reason: code, detail } = event
        const tickets = [...this.#take(sa, true), ...this.#take(sa, false)]
        return tickets.map((ticket) => ({ kind: 'rekey.failed', ticket, code, detail }))
      }
      default:
        return []
    }
  }

  #take(sa: IkeSaId, ike: boolean): number[] {
    const taken = [...this.#waiting].filter(([, wish]) => wish.sa === sa && wish.ike === ike)
    for (const [ticket] of taken) this.#waiting.delete(ticket)
    return taken.map(([ticket]) => ticket)
  }
}

/** For what cannot even begin. */
export const notRekeyed = ({ ticket }: RekeyWish, code: ErrorCode, detail: string): RekeyEvent => ({
  kind: 'rekey.failed',
  ticket,
  code,
  detail,
})
