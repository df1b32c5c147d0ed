/**
 * A client and a node whose datagrams are all in the hands of an adversary, and what must hold of both after every
 * act of anybody. The model test and the fuzzer drive it.
 */
import assert from 'node:assert/strict'
import type { IkeSaId } from '#base/ids'
import { type Ip, ip } from '#base/ip'
import { HOUR, SECOND } from '#base/time'
import type { ChildSa, IkeEvent } from '#ikev2/events'
import type { ResumptionTicket } from '#ikev2/resumption/ticket'
import type { Datagram } from '../sim/network.ts'
import { CLIENT, type Host, isEmpty, type Pair, pair } from './pair.ts'

export type Side = 'client' | 'node'

/** By construction of the engine: four IKE SAs of a session and eight Child SAs, each side. */
const MAX = { ikeSas: 4, children: 8 }

const ELSEWHERE = ip('203.0.113.77')

/** One side as its owner knows it, checked event by event. */
export class Watched {
  readonly host: Host
  readonly open = new Set<IkeSaId>()
  readonly ended = new Set<IkeSaId>()
  readonly children = new Map<IkeSaId, Set<number>>()
  /** Tickets it was given and of which IKE SA, used ones as well. */
  readonly tickets: Given[] = []
  #seen = 0

  constructor(host: Host) {
    this.host = host
  }

  look(): void {
    for (const event of this.host.events.slice(this.#seen)) this.#event(event)
    this.#seen = this.host.events.length
  }

  #event(event: IkeEvent): void {
    if (!('sa' in event)) return
    const { sa, kind } = event
    assert.ok(!this.ended.has(sa), `${kind} after ike.closed`)
    const mine = this.children.get(sa) ?? new Set()
    switch (kind) {
      case 'ike.established':
        assert.ok(!this.open.has(sa), 'established once')
        this.open.add(sa)
        this.children.set(sa, mine)
        return
      case 'ticket':
        this.tickets.push({ sa, ticket: copyOf(event.ticket), shownBy: [] })
        return
      case 'child.established':
        assert.ok(this.open.has(sa), 'a Child SA of an IKE SA')
        assert.equal(mine.size, 0, 'the first one')
        mine.add(event.child.inboundSpi)
        return
      case 'child.rekeyed':
        assert.ok(mine.has(event.old.inboundSpi))
        mine.add(event.child.inboundSpi)
        assert.ok(mine.size <= MAX.children, `${mine.size} Child SAs`)
        return
      case 'child.closed':
        assert.ok(mine.delete(event.child.inboundSpi), 'closed once')
        return
      case 'ike.closed':
        assert.equal(mine.size, 0, 'its Child SAs were closed before')
        this.open.delete(sa)
        this.ended.add(sa)
    }
  }

  child(sa: IkeSaId): ChildSa | undefined {
    return this.host.sending.get(sa)
  }
}

export class World {
  readonly stage: Pair
  readonly client: Watched
  readonly node: Watched
  /** Sent, and not delivered yet. */
  readonly flight: Datagram[] = []
  readonly history: Datagram[] = []
  /** Both sides take the client's moves. */
  readonly isMobile: boolean
  #isHeld = true
  #home = CLIENT

  constructor(options: { readonly seed: number; readonly cookies: boolean; readonly isMobile?: boolean }) {
    this.isMobile = options.isMobile ?? false
    this.stage = pair({
      seed: options.seed,
      link: { loss: 0, duplication: 0, latency: [0, 0] },
      policy: {
        liveness: 10 * SECOND,
        ...(this.isMobile ? { mayMove: () => true } : {}),
        resumption: { strategy: { kind: 'clocked', limit: HOUR }, mayResume: () => true, octetsOf: () => 0 },
      },
      ...(options.cookies ? { limits: { cookieAt: 0 } } : {}),
    })
    this.client = new Watched(this.stage.client)
    this.node = new Watched(this.stage.node)
    this.stage.network.filter = (datagram) => {
      if (!this.#isHeld) return datagram
      this.flight.push(datagram)
      this.history.push(datagram)
      return undefined
    }
  }

  /** Lets a datagram arrive now. */
  deliver(datagram: Datagram): void {
    const { network } = this.stage
    this.#isHeld = false
    network.send(datagram)
    this.#isHeld = true
    network.run(0)
    this.check()
  }

  pass(time: number): void {
    this.stage.network.run(time)
    this.check()
  }

  /** The adversary is gone: everything arrives, with what comes of it, for that long. */
  flow(time: number): void {
    const { network } = this.stage
    for (let i = 0; i < 20_000; i++) {
      const next = this.flight.shift()
      if (next !== undefined) this.deliver(next)
      else if (!network.run(1000, () => this.flight.length > 0)) {
        time -= 1000
        if (time < 0) return this.check()
      }
    }
    assert.fail('they do not stop talking')
  }

  check(): void {
    for (const side of [this.client, this.node]) {
      side.look()
      const counters = side.host.engine.counters()
      const sessions = side.open.size + counters['sas.half-open']! + counters['sas.lingering']! + 3
      assert.ok(counters['sas.all']! <= MAX.ikeSas * sessions, JSON.stringify(counters))
      assert.ok(counters['spis.inbound']! <= (MAX.children + 2) * sessions, JSON.stringify(counters))
    }
    for (const ours of this.client.host.children.values()) {
      const theirs = this.node.host.children.get(ours.outboundSpi)
      if (theirs === undefined || theirs.outboundSpi !== ours.inboundSpi) continue
      assert.deepEqual(theirs.inboundKey, ours.outboundKey)
      assert.deepEqual(theirs.outboundKey, ours.inboundKey)
      assert.deepEqual(theirs.localSelectors, ours.remoteSelectors)
    }
  }

  /** Where the client is. */
  get home(): Ip {
    return this.#home
  }

  /** The client is somewhere else from now on, with all that it began, and nobody is where it was. */
  relocate(begun: Iterable<IkeSaId>): void {
    const { network, client } = this.stage
    network.bind(this.#home, undefined)
    this.#home = this.#home === CLIENT ? ELSEWHERE : CLIENT
    network.bind(this.#home, `${CLIENT}`)
    for (const sa of begun) client.engine.move(sa, this.#home, network.now)
    this.pass(0)
  }

  side(name: Side): Watched {
    return name === 'client' ? this.client : this.node
  }

  /** The other side's id of an open IKE SA, by the SPIs they send on. */
  partnerOf(name: Side, sa: IkeSaId): IkeSaId | undefined {
    const ours = this.side(name).child(sa)
    const other = this.side(name === 'client' ? 'node' : 'client')
    return [...other.open].find((id) =>
      [...(other.children.get(id) ?? [])].some((spi) => spi === ours?.outboundSpi),
    )
  }

  /** Both close whatever is open, and nothing is left of anything. */
  end(): void {
    const { client, network } = this.stage
    for (const sa of this.client.open) client.engine.close(sa, network.now)
    const isOver = (): boolean => isEmpty(client) && isEmpty(this.stage.node)
    for (let i = 0; i < 20 && !isOver(); i++) this.flow(30 * SECOND)
    for (const { host } of [this.client, this.node])
      assert.ok(isEmpty(host), JSON.stringify(host.engine.counters()))
  }
}

export interface Given {
  readonly sa: IkeSaId
  readonly ticket: ResumptionTicket
  /** IKE SAs that were begun with it. */
  readonly shownBy: IkeSaId[]
}

/** As it is before the engine uses and wipes it. */
export const copyOf = (ticket: ResumptionTicket): ResumptionTicket => ({
  ...ticket,
  opaque: ticket.opaque.slice(),
  skD: ticket.skD.slice(),
})
