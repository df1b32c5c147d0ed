import { INNER_MTU } from '#telescope/plane'
import { destination, IPV4_HEADER, PROTOCOL, protocol, source, totalLength } from '#wire/ipv4'
import {
  swapPorts,
  TCP_HEADER,
  tcpAcknowledgment,
  tcpHeaderLength,
  tcpPorts,
  tcpSacks,
  tcpSequence,
} from '#wire/tcp'

/**
 * How much of a circuit's traffic may be on its way, so that what is too much waits here, where flows can be told
 * apart, and not in the sockets of relays, where they cannot. Nothing of it is visible outside.
 *
 * ESP acknowledges nothing, but the TCP inside does. A segment sent now and then is a *marker*; when the other end
 * acknowledges it, all that was sent before has arrived as well, of whatever protocol, for circuits keep order. While
 * one that does not acknowledge selectively waits for a lost segment, each repetition says that one more has arrived
 * (RFC 5681 section 3.2). The time that took, beside the least it ever took, is what waits on the way (as in TCP Vegas
 * and RFC 6817): the window grows while that is less than the slack, and shrinks while it is more. Packets also wait
 * where a program waits for its processor, whatever the window: that wait varies from round to round as a queue does
 * not, so the slack grows with the variation. Without TCP there is no limit.
 *
 * Times in ms.
 */
const FLOOR = 6 * INNER_MTU
const INITIAL = 20 * INNER_MTU
const CEILING = 16 * 1024 * 1024
/** A queue on the way of this length is what keeps it busy. On long ways more, for they vary more. */
const SLACK = 3
const SLACK_SHARE = 0.25
/** A queue of ours differs from round to round by less than a third of its length: with more it would make room for itself. */
const SLACK_VARIATIONS = 2.5
/**
 * The least round trip is that of the last one or two of these. After each, a round with half the window empties what
 * stands. Within one the window falls no further than to a share: a way that became longer, or that others fill, looks
 * like a queue of ours until the least is known again.
 */
const EPOCH = 5000
const EPOCH_SHARE = 1 / 4
const MARKERS = 16
/** An acknowledgment may be delayed, or never come: then the marker counts as delivered after two round trips and this. */
const PATIENCE = 10
const SMOOTHING = 1 / 8
const BACKOFF = 1.5
const MAX_SMOOTHED = 2000

export class Flight {
  #window = INITIAL
  #isStarting = true
  /** Octets ever sent, and of them those that arrived. */
  #sent = 0
  #arrived = 0
  // Markers, oldest first: connection, sequence number behind the segment, octets sent with it, time.
  readonly #source = new Int32Array(MARKERS)
  readonly #destination = new Int32Array(MARKERS)
  readonly #ports = new Int32Array(MARKERS)
  readonly #sequence = new Int32Array(MARKERS)
  readonly #octets = new Float64Array(MARKERS)
  readonly #at = new Float64Array(MARKERS)
  readonly #lists = [this.#source, this.#destination, this.#ports, this.#sequence, this.#octets, this.#at]
  #markers = 0
  /** What was heard last from the connection of a marker: ports, acknowledgment. */
  #heardPorts = 0
  #heardAcknowledgment = 0
  #smoothed = 100
  /** When a marker was last given up that was sent after the one before. */
  #patientSince = Number.NEGATIVE_INFINITY
  #least = Number.POSITIVE_INFINITY
  #leastBefore = Number.POSITIVE_INFINITY
  #epochEnd = 0
  #epochWindow = INITIAL
  /** A round ends when what was sent at its begin has arrived. */
  #roundEnd = 0
  #roundLeast = Number.POSITIVE_INFINITY
  /** The least of the round before; 0: the window was on its way to another size. */
  #roundBefore = 0
  /** The mean difference of rounds that follow each other. */
  #variation = 0
  #wasFull = false
  #isDraining = false

  /** Octets that may be on their way. */
  get window(): number {
    return this.#isDraining ? Math.max(FLOOR, this.#window / 2) : this.#window
  }

  /** Nothing more should be sent for now; ask again after something was heard, or at `deadline`. */
  isFull(now: number): boolean {
    while (this.deadline <= now) {
      const sentAt = this.#at[0]!
      this.#retire(0)
      if (sentAt <= this.#patientSince) continue
      // It may be the way that became longer: what is sent from now on is waited for longer. Not once for each of those
      // that were on their way together, or what a connection lost at once would stop it for seconds.
      this.#smoothed = Math.min(MAX_SMOOTHED, this.#smoothed * BACKOFF)
      this.#patientSince = now
    }
    if (this.#markers === 0 || this.#sent - this.#arrived < this.window) return false
    this.#wasFull = true
    return true
  }

  /** When the oldest marker is given up. */
  get deadline(): number {
    return this.#markers === 0 ? Number.POSITIVE_INFINITY : this.#at[0]! + 2 * this.#smoothed + PATIENCE
  }

  /** A packet is sent. @returns whether it is a marker: then `hear` wants what its connection answers. */
  send(bytes: Uint8Array, offset: number, now: number): boolean {
    const length = totalLength(bytes, offset)
    const before = this.#sent
    this.#sent += length
    const tcp = offset + IPV4_HEADER
    if (protocol(bytes, offset) !== PROTOCOL.tcp || length < IPV4_HEADER + TCP_HEADER) return false
    const payload = length - IPV4_HEADER - tcpHeaderLength(bytes, tcp)
    if (payload <= 0 || this.#markers === MARKERS) return false
    const i = this.#markers
    if (i === 0) this.#arrived = before
    else if (this.#sent - this.#octets[i - 1]! < this.#window / (MARKERS / 2)) return false
    this.#source[i] = source(bytes, offset)
    this.#destination[i] = destination(bytes, offset)
    this.#ports[i] = tcpPorts(bytes, tcp)
    this.#sequence[i] = tcpSequence(bytes, tcp) + payload
    this.#octets[i] = this.#sent
    this.#at[i] = now
    this.#markers++
    return true
  }

  /** A TCP packet came back. It may acknowledge a marker, or any later one of its connection selectively. */
  hear(bytes: Uint8Array, offset: number, now: number): void {
    const tcp = offset + IPV4_HEADER
    const ports = swapPorts(tcpPorts(bytes, tcp))
    const from = destination(bytes, offset)
    const to = source(bytes, offset)
    const acknowledgment = tcpAcknowledgment(bytes, tcp)
    const packetEnd = offset + totalLength(bytes, offset)
    let isOurs = false
    for (let i = this.#markers - 1; i >= 0; i--) {
      if (this.#ports[i] !== ports || this.#source[i] !== from || this.#destination[i] !== to) continue
      isOurs = true
      const end = this.#sequence[i]!
      if (((acknowledgment - end) | 0) < 0 && !tcpSacks(bytes, tcp, packetEnd, end)) continue
      this.#learn(now - this.#at[i]!, this.#octets[i]!, now)
      this.#retire(i)
      return
    }
    if (isOurs && tcp + tcpHeaderLength(bytes, tcp) === packetEnd) this.#count(ports, acknowledgment)
  }

  /** An acknowledgment without data that is the one before again, or the reset of a connection that is no more. */
  #count(ports: number, acknowledgment: number): void {
    if (ports === this.#heardPorts && acknowledgment === this.#heardAcknowledgment)
      this.#arrived = Math.min(this.#sent, this.#arrived + INNER_MTU)
    this.#heardPorts = ports
    this.#heardAcknowledgment = acknowledgment
  }

  /** Markers up to this one, and all sent before it, have arrived. */
  #retire(last: number): void {
    this.#arrived = Math.max(this.#arrived, this.#octets[last]!)
    for (const list of this.#lists) list.copyWithin(0, last + 1, this.#markers)
    this.#markers -= last + 1
  }

  #learn(roundTrip: number, octets: number, now: number): void {
    this.#smoothed += (roundTrip - this.#smoothed) * SMOOTHING
    this.#least = Math.min(this.#least, roundTrip)
    this.#roundLeast = Math.min(this.#roundLeast, roundTrip)
    if (octets < this.#roundEnd) return
    this.#compare()
    this.#adjust()
    this.#isDraining = now >= this.#epochEnd
    if (this.#isDraining) this.#beginEpoch(now)
    this.#roundEnd = this.#sent
    this.#roundLeast = Number.POSITIVE_INFINITY
    this.#wasFull = false
  }

  #beginEpoch(now: number): void {
    // What is much longer than before is another way, of which nothing is known yet.
    if (this.#least > 1.5 * this.#leastBefore) this.#isStarting = true
    this.#leastBefore = this.#least
    this.#least = Number.POSITIVE_INFINITY
    this.#epochEnd = now + EPOCH
    this.#epochWindow = this.#window
  }

  /** Not while the window changes on purpose: then the queue does, too. */
  #compare(): void {
    const isSteady = !this.#isStarting && !this.#isDraining
    if (isSteady && this.#roundBefore > 0) {
      const difference = Math.abs(this.#roundLeast - this.#roundBefore)
      this.#variation += (difference - this.#variation) * SMOOTHING
    }
    this.#roundBefore = isSteady ? this.#roundLeast : 0
  }

  /** Additive increase and multiplicative decrease: circuits that share a way come to share it evenly. */
  #adjust(): void {
    const way = Math.min(this.#least, this.#leastBefore)
    const most = way + Math.max(SLACK, SLACK_SHARE * way, SLACK_VARIATIONS * this.#variation)
    if (this.#roundLeast > most) {
      this.#isStarting = false
      const least = Math.max(FLOOR, EPOCH_SHARE * this.#epochWindow)
      this.#window = Math.max(least, this.#window * Math.max(0.7, most / this.#roundLeast))
    } else if (this.#wasFull && !this.#isDraining) {
      const more = this.#isStarting ? this.#window : 2 * INNER_MTU + this.#window / 32
      this.#window = Math.min(CEILING, this.#window + more)
    }
  }
}
