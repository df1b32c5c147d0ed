/**
 * A datagram network in virtual time that drives any number of sans-IO machines: no sockets, no root, no waiting.
 *
 *     machine --output--> perform() --send()--> [ filter | loss | duplicates | latency ] --input()--> machine
 *
 * One `SimNetwork` holds the clock, the machines and the links. It keeps the drive rule of `Machine`: after every
 * `handle` and `tick` all outputs are performed, in order. Everything random comes from one seed.
 */
import type { Ip, UdpEndpoint, UdpPath } from '#base/ip'
import type { Machine } from '#base/machine'
import { after, type Duration, type Instant, instant } from '#base/time'
import { VirtualClock } from './clock.ts'
import { type SeededRng, seededRng } from './random.ts'

export interface Datagram {
  readonly source: UdpEndpoint
  readonly destination: UdpEndpoint
  readonly bytes: Uint8Array
}

/** What a network does to datagrams. Chances are 0..1. */
export interface LinkProfile {
  readonly loss: number
  readonly duplication: number
  /** One way, uniform between the two: a spread reorders. */
  readonly latency: readonly [Duration, Duration]
}

export const PERFECT_LINK: LinkProfile = { loss: 0, duplication: 0, latency: [10, 10] }

/** A machine, and how its inputs and outputs touch the network. */
export interface SimNode<Input, Output> {
  readonly name: string
  readonly machine: Machine<Input, Output>
  /** The addresses whose datagrams it gets, from the start; see also `SimNetwork.bind`. */
  readonly addresses: readonly Ip[]
  /** The input that a datagram for one of its addresses is; undefined: it is dropped. */
  input(datagram: Datagram): Input | undefined
  /** Performs one output: sends, installs, records. */
  perform(output: Output, network: SimNetwork): void
}

export interface SimOptions {
  readonly seed: number
  readonly link?: LinkProfile
  /** Chooses a link by its ends; the default is `link` everywhere. */
  readonly linkOf?: (datagram: Datagram) => LinkProfile
}

export class SimNetwork {
  readonly clock = new VirtualClock()
  readonly rng: SeededRng
  /** Every datagram that was sent, before anything happens to it. */
  readonly sent: Datagram[] = []
  /** May change or swallow datagrams: an attacker on the path, or a test that loses the third message. */
  filter: (datagram: Datagram) => Datagram | undefined = (datagram) => datagram
  readonly #linkOf: (datagram: Datagram) => LinkProfile
  readonly #nodes: Driven[] = []
  readonly #owners = new Map<Ip, Driven>()

  constructor(options: SimOptions) {
    const { seed, link = PERFECT_LINK } = options
    this.rng = seededRng(seed)
    this.#linkOf = options.linkOf ?? (() => link)
  }

  get now(): Instant {
    return this.clock.now
  }

  attach<Input, Output>(node: SimNode<Input, Output>): void {
    const { machine } = node
    const drain = (): void => {
      for (let i = 0; ; i++) {
        const output = machine.poll()
        if (output === undefined) return
        if (i === MAX_OUTPUTS) throw new Error(`${node.name} does not stop talking`)
        node.perform(output, this)
      }
    }
    const driven: Driven = {
      name: node.name,
      nextTimeout: () => machine.nextTimeout(),
      tick: (now) => {
        machine.tick(now)
        drain()
      },
      deliver: (datagram, now) => {
        const input = node.input(datagram)
        if (input === undefined) return
        machine.handle(input, now)
        drain()
      },
      drain,
    }
    this.#nodes.push(driven)
    for (const address of node.addresses) this.#owners.set(address, driven)
  }

  /** Gives an address to a node, or takes it from whoever has it. */
  bind(address: Ip, name: string | undefined): void {
    const node = this.#nodes.find((each) => each.name === name)
    if (node === undefined) this.#owners.delete(address)
    else this.#owners.set(address, node)
  }

  /** Performs what machines want after they were called directly (`initiate`, `close`). */
  drain(): void {
    for (const node of this.#nodes) node.drain()
  }

  send(datagram: Datagram): void {
    this.sent.push(datagram)
    const passed = this.filter(datagram)
    if (passed === undefined) return
    const { loss, duplication, latency } = this.#linkOf(passed)
    const copies = this.rng.fraction() < duplication ? 2 : 1
    for (let i = 0; i < copies; i++) {
      if (this.rng.fraction() < loss) continue
      const delay = latency[0] + this.rng.fraction() * (latency[1] - latency[0])
      this.clock.plan(after(this.now, delay), () => {
        this.#owners.get(passed.destination.address)?.deliver(passed, this.now)
      })
    }
  }

  /**
   * Lets time pass until `done()`, or nothing more can happen, or `limit` is reached. Returns whether it was done.
   * @throws Error when a machine is stuck: it wants to be woken again and again without time passing.
   */
  run(limit: Duration, done: () => boolean = () => false): boolean {
    const end = after(this.now, limit)
    let [at, sameInstant] = [this.now, 0]
    this.drain()
    while (!done()) {
      const wake = this.#earliestWake()
      const next = Math.min(wake?.at ?? Infinity, this.clock.next ?? Infinity)
      if (next === Infinity) return false
      if (next > end) {
        this.clock.advance(end)
        return false
      }
      sameInstant = next > at ? 0 : sameInstant + 1
      at = instant(Math.max(at, next))
      if (sameInstant === MAX_SAME_INSTANT) throw new Error(`stuck at ${at}: ${wake?.node.name}`)
      if (this.clock.next === next) this.clock.step()
      else {
        this.clock.advance(at)
        wake!.node.tick(at)
      }
    }
    return true
  }

  #earliestWake(): { readonly at: Instant; readonly node: Driven } | undefined {
    let first: { at: Instant; node: Driven } | undefined
    for (const node of this.#nodes) {
      const at = node.nextTimeout()
      if (at !== undefined && (first === undefined || at < first.at)) first = { at, node }
    }
    return first
  }
}

/** The way a datagram came, as its receiver sees it. */
export const pathOf = (datagram: Datagram): UdpPath => ({
  local: datagram.destination,
  remote: datagram.source,
})

/** A datagram along a path, as its sender sees it. */
export const along = (path: UdpPath, bytes: Uint8Array): Datagram => ({
  source: path.local,
  destination: path.remote,
  bytes,
})

const MAX_OUTPUTS = 100_000
const MAX_SAME_INSTANT = 10_000

interface Driven {
  readonly name: string
  nextTimeout(): Instant | undefined
  tick(now: Instant): void
  deliver(datagram: Datagram, now: Instant): void
  drain(): void
}
