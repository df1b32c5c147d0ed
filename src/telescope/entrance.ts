import { CoDel } from '#telescope/codel'
import { Flight } from '#telescope/flight'
import { INNER_MTU } from '#telescope/plane'
import {
  destination,
  IPV4_HEADER,
  isLaterFragment,
  PROTOCOL,
  protocol,
  source,
  totalLength,
} from '#wire/ipv4'
import { swapPorts, TCP_HEADER, tcpPorts } from '#wire/tcp'

/**
 * Where packets wait to enter their circuits: at the TUN, of a client for what it sends and of an exit for what it
 * brings back. Circuits take turns, and the flows of a circuit do (RFC 8290): one that has little to send goes first,
 * one that queues for long loses packets until it slows down (`CoDel`), and `Flight` says how much may be on its way.
 *
 * What waits is taken piece by piece, for one packet of the TUN is up to fifty of the telescope:
 *
 *     push* ( next, cut a piece, [send it: sent], took )*        and `hear` whatever comes back
 */

/** A packet that waits. The fields are the entrance's. */
export interface Waiting {
  /** Octets not taken yet. */
  octets: number
  arrived: number
  behind: Waiting | undefined
}

/** What a flow may send before the next one's turn, and a circuit. */
const QUANTUM = INNER_MTU
const CIRCUIT_QUANTUM = 16 * INNER_MTU
/**
 * Flows that queue share what may be on its way in turns of this part: as long as the window allows, for consecutive
 * segments are joined at the end of the circuit, and acknowledged once.
 */
const TURN = 1 / 8
/** Connections whose answers are waited for, at most. */
const MAX_AWAITED = 4096

class Flow<P extends Waiting> {
  readonly hash: number
  readonly codel = new CoDel()
  head: P | undefined
  tail: P | undefined
  octets = 0
  deficit = QUANTUM

  constructor(hash: number) {
    this.hash = hash
  }
}

class Circuit<P extends Waiting> {
  readonly flight = new Flight()
  readonly flows = new Map<number, Flow<P>>()
  /** Flows in turn. Those that had nothing to send until now go first, with one quantum. */
  readonly sparse: Flow<P>[] = []
  readonly others: Flow<P>[] = []
  deficit = CIRCUIT_QUANTUM
  octets = 0
}

export class Entrance<P extends Waiting> {
  readonly #seed: number
  readonly #circuits = new WeakMap<object, Circuit<P>>()
  /** Circuits with packets, in turn. */
  readonly #active: Circuit<P>[] = []
  /** By the hash of a connection that has a marker. */
  readonly #awaited = new Map<number, Circuit<P>>()
  #circuit: Circuit<P> | undefined
  #flow: Flow<P> | undefined

  /** `seed`: 32 random bits, so that nobody can choose flows that meet. */
  constructor(seed: number) {
    this.#seed = seed
  }

  get isEmpty(): boolean {
    return this.#active.length === 0
  }

  /** `key` is an object that stands for the circuit, as long as the circuit does. */
  push(key: object, packet: P, octets: number, bytes: Uint8Array, offset: number, now: number): void {
    packet.octets = octets
    packet.arrived = now
    packet.behind = undefined
    let circuit = this.#circuits.get(key)
    if (circuit === undefined) {
      circuit = new Circuit()
      this.#circuits.set(key, circuit)
    }
    if (circuit.octets === 0) this.#active.push(circuit)
    circuit.octets += octets
    const hash = flowHash(this.#seed, bytes, offset, octets)
    let flow = circuit.flows.get(hash)
    if (flow === undefined) {
      flow = new Flow(hash)
      circuit.flows.set(hash, flow)
      circuit.sparse.push(flow)
    }
    flow.octets += octets
    if (flow.tail === undefined) flow.head = packet
    else flow.tail.behind = packet
    flow.tail = packet
  }

  /**
   * The packet whose next piece has its turn, undefined when all have to wait. The caller cuts the piece, sends it
   * unless `isLate`, and says `took`.
   */
  next(now: number): P | undefined {
    // Twice: a circuit that has had its share has its next turn behind all others.
    for (let left = 2 * this.#active.length; left > 0; left--) {
      const circuit = this.#active[0]!
      const flow = circuit.deficit > 0 ? pick(circuit, now) : undefined
      if (flow !== undefined) {
        this.#circuit = circuit
        this.#flow = flow
        return flow.head
      }
      circuit.deficit = CIRCUIT_QUANTUM
      this.#active.push(this.#active.shift()!)
    }
    return undefined
  }

  /** Has the packet `next` gave waited for so long that its piece is to be dropped? */
  isLate(now: number): boolean {
    const flow = this.#flow!
    return flow.codel.drops(now - flow.head!.arrived, flow.octets, now)
  }

  /** The piece is sent, as the packet at `offset`. */
  sent(bytes: Uint8Array, offset: number, now: number): void {
    if (!this.#circuit!.flight.send(bytes, offset, now)) return
    if (this.#awaited.size === MAX_AWAITED) this.#awaited.clear()
    this.#awaited.set(this.#flow!.hash, this.#circuit!)
  }

  /** The piece is cut, and `left` octets of the packet `next` gave still wait; at 0 it is free again. */
  took(left: number): void {
    const circuit = this.#circuit!
    const flow = this.#flow!
    const packet = flow.head!
    const gone = packet.octets - left
    packet.octets = left
    flow.octets -= gone
    flow.deficit -= gone
    circuit.octets -= gone
    circuit.deficit -= gone
    if (left === 0) {
      flow.head = packet.behind as P | undefined
      if (flow.head === undefined) flow.tail = undefined
    }
    if (circuit.octets === 0) this.#active.splice(this.#active.indexOf(circuit), 1)
  }

  /** Makes room: takes the oldest packet of the flow with the most octets. Undefined when nothing waits. */
  evict(): P | undefined {
    let fattest: Flow<P> | undefined
    let of: Circuit<P> | undefined
    for (const circuit of this.#active)
      for (const flow of circuit.flows.values())
        if (flow.octets > (fattest?.octets ?? 0)) [fattest, of] = [flow, circuit]
    const packet = fattest?.head
    if (packet === undefined) return undefined
    this.#circuit = of
    this.#flow = fattest
    this.took(0)
    return packet
  }

  /** A packet came out of a circuit, whose sound IPv4 header stands at `offset`. */
  hear(bytes: Uint8Array, offset: number, now: number): void {
    if (this.#awaited.size === 0 || protocol(bytes, offset) !== PROTOCOL.tcp) return
    if (totalLength(bytes, offset) < IPV4_HEADER + TCP_HEADER || isLaterFragment(bytes, offset)) return
    const ports = swapPorts(tcpPorts(bytes, offset + IPV4_HEADER))
    const hash = mix(this.#seed, destination(bytes, offset), source(bytes, offset), ports, PROTOCOL.tcp)
    this.#awaited.get(hash)?.flight.hear(bytes, offset, now)
  }

  /** When `next` may have something though nothing is heard. */
  get deadline(): number {
    let deadline = Number.POSITIVE_INFINITY
    for (const { flight } of this.#active) deadline = Math.min(deadline, flight.deadline)
    return deadline
  }
}

/** The flow whose turn it is (RFC 8290 section 4.2). */
function pick<P extends Waiting>(circuit: Circuit<P>, now: number): Flow<P> | undefined {
  for (;;) {
    const isSparse = circuit.sparse.length > 0
    const list = isSparse ? circuit.sparse : circuit.others
    const flow = list[0]
    if (flow === undefined) return undefined
    if (flow.head === undefined) {
      list.shift()
      // One that was sparse stays known for a round, or it could always be first.
      if (isSparse && circuit.others.length > 0) circuit.others.push(flow)
      else circuit.flows.delete(flow.hash)
    } else if (flow.deficit <= 0) {
      flow.deficit += turn(circuit)
      circuit.others.push(list.shift()!)
    } else {
      // A flow's first packet need not wait for others' to arrive.
      return isSparse || !circuit.flight.isFull(now) ? flow : undefined
    }
  }
}

const turn = <P extends Waiting>({ flight }: Circuit<P>): number =>
  Math.max(QUANTUM, Math.min(CIRCUIT_QUANTUM, flight.window * TURN))

function flowHash(seed: number, bytes: Uint8Array, offset: number, length: number): number {
  if (length < IPV4_HEADER) return 0
  const upper = protocol(bytes, offset)
  const hasPorts = upper === PROTOCOL.tcp || upper === PROTOCOL.udp
  const ports =
    hasPorts && length >= IPV4_HEADER + 4 && !isLaterFragment(bytes, offset)
      ? tcpPorts(bytes, offset + IPV4_HEADER)
      : 0
  return mix(seed, source(bytes, offset), destination(bytes, offset), ports, upper)
}

/** Murmur3's 32-bit mixing. */
function mix(seed: number, a: number, b: number, c: number, d: number): number {
  let h = seed
  for (let i = 0; i < 4; i++) {
    const word = i === 0 ? a : i === 1 ? b : i === 2 ? c : d
    const k = Math.imul(word, 0xcc9e2d51)
    h ^= Math.imul((k << 15) | (k >>> 17), 0x1b873593)
    h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0
  }
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}
