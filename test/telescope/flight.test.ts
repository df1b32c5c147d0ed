/** The window of a circuit over a link in virtual time: one queue, one rate, one delay, a receiver that acknowledges. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomUint32 } from '#base/rng'
import { Flight } from '#telescope/flight'
import { PROTOCOL } from '#wire/ipv4'
import { seededRng } from '../sim/random.ts'
import { segment } from './segments.ts'

const PAYLOAD = 1240
const PACKET = 1280
const SERVER = '198.51.100.7'
const CLIENT = '10.64.0.2'

interface Link {
  /** Octets per ms. */
  readonly rate: number
  /** Both ways together, in ms. */
  delay: number
  /** Every so many packets one is lost. */
  readonly loseEvery?: number
  /** Octets behind a lost packet until it is sent again. */
  readonly hole?: number
  /** Default: the receiver does say what it has behind a hole. */
  readonly selective?: boolean
  /** The program that is the link has its turn this much later, in ms, after so many packets or none to carry. */
  readonly turn?: { readonly packets: number; readonly wait: () => number }
  /** An odd segment at the end is acknowledged this much later, in ms. */
  readonly delayedAck?: number
  readonly protocol?: number
}

/** A sender with more than enough to send. */
class World {
  readonly flight = new Flight()
  readonly #link: Link
  readonly #answers: { at: number; bytes: Uint8Array }[] = []
  #now = 0
  #sequence = 0
  /** What the receiver has in order, and what it has beyond. */
  #received = 0
  #lost: number | undefined
  #linkFree = 0
  #packets = 0
  #inTurn = 0
  /** Octets delivered, and the queue each packet met in ms, since `measure` began. */
  #delivered = 0
  #queues: number[] = []

  constructor(link: Link) {
    this.#link = link
  }

  /** Runs for `ms`. @returns what the link carried, as a share of what it could, and the median queue in ms. */
  run(ms: number): { use: number; queue: number } {
    this.#delivered = 0
    this.#queues = []
    for (const end = this.#now + ms; this.#now < end; this.#now += 0.1) {
      while (this.#answers.length > 0 && this.#answers[0]!.at <= this.#now)
        this.flight.hear(this.#answers.shift()!.bytes, 0, this.#now)
      for (let burst = 0; burst < 64 && !this.flight.isFull(this.#now); burst++) this.#send()
    }
    this.#queues.sort((a, b) => a - b)
    return {
      use: this.#delivered / (ms * this.#link.rate),
      queue: this.#queues[this.#queues.length >> 1] ?? 0,
    }
  }

  #send(): void {
    const { rate, delay, loseEvery, hole = 20 * PAYLOAD, protocol = PROTOCOL.tcp } = this.#link
    // A router of 100 ms: what does not fit is lost, and sent again at once.
    const queue = Math.max(0, this.#linkFree - this.#now)
    if (queue > 100) return
    const isLost = loseEvery !== undefined && ++this.#packets % loseEvery === 0
    const sequence = this.#sequence
    this.#sequence += PAYLOAD
    const bytes = segment({
      from: SERVER,
      to: CLIENT,
      ports: [443, 5000],
      sequence,
      payload: PAYLOAD,
      protocol,
    })
    this.flight.send(bytes, 0, this.#now)
    if (isLost) {
      this.#lost ??= sequence
      return
    }
    const { turn } = this.#link
    const waits = turn !== undefined && (queue === 0 || ++this.#inTurn > turn.packets)
    if (waits) this.#inTurn = 0
    this.#linkFree = Math.max(this.#linkFree, this.#now) + (waits ? turn.wait() : 0) + PACKET / rate
    this.#queues.push(queue)
    this.#delivered += PACKET
    if (protocol !== PROTOCOL.tcp) return
    const at = this.#linkFree + delay
    const end = sequence + PAYLOAD
    const isOdd = (end / PAYLOAD) % 2 === 1
    if (this.#lost === undefined) this.#received = end
    const answer = { from: CLIENT, to: SERVER, ports: [5000, 443] as const, acknowledgment: this.#received }
    if (this.#lost !== undefined) {
      // The hole is filled a little later: nothing here but the acknowledgment that says so.
      if (end - this.#lost > hole) this.#lost = undefined
      const sacks = this.#link.selective === false ? [] : [end]
      this.#answers.push({ at, bytes: segment({ ...answer, sacks }) })
    } else if (!isOdd || this.#link.delayedAck === undefined)
      this.#answers.push({ at, bytes: segment(answer) })
  }
}

for (const [mbps, delay] of [
  [10, 3],
  [10, 80],
  [400, 1],
  [400, 30],
] as const)
  test(`${mbps} Mbit/s and ${delay} ms: the link is used and its queue is short`, () => {
    const world = new World({ rate: mbps * 125, delay, delayedAck: 40 })
    world.run(3000)
    const { use, queue } = world.run(12_000)
    assert.ok(use > 0.85, `use ${use}`)
    // The slack, or six packets where that is more.
    const most = 1.3 * Math.max(2, delay / 4, (6 * PACKET) / (mbps * 125)) + 2
    assert.ok(queue <= most, `a queue of ${queue} ms, at most ${most}`)
  })

test('markers that are lost are known to be by later ones', () => {
  const { use, queue } = new World({ rate: 1250, delay: 40, loseEvery: 20 }).run(10_000)
  assert.ok(use > 0.8 && queue < 15, `use ${use}, queue ${queue}`)
})

test('a long hole without selective acknowledgments does not stop what is behind it', () => {
  const world = new World({ rate: 1250, delay: 10, loseEvery: 2000, hole: 1800 * PAYLOAD, selective: false })
  const { use, queue } = world.run(12_000)
  assert.ok(use > 0.8 && queue < 15, `use ${use}, queue ${queue}`)
})

test('waiting for a program that sleeps is not taken for a queue', () => {
  const rng = seededRng(1)
  // 8 ms on average; a turn takes 2.6.
  const wait = (): number => -8 * Math.log((1 + randomUint32(rng)) / 2 ** 32)
  const world = new World({ rate: 50_000, delay: 1, turn: { packets: 100, wait } })
  world.run(3000)
  const { use, queue } = world.run(20_000)
  // No more than 0.24 can be; it is 0.035 when the window gives way.
  assert.ok(use > 0.18 && queue < 15, `use ${use}, queue ${queue}`)
})

test('a way that became longer is used again after two epochs', () => {
  const link: Link = { rate: 1250, delay: 10 }
  const world = new World(link)
  world.run(3000)
  link.delay = 100
  world.run(11_000)
  const { use } = world.run(5000)
  assert.ok(use > 0.8, `use ${use}`)
})

test('without TCP there is no limit', () => {
  const { use } = new World({ rate: 1250, delay: 10, protocol: PROTOCOL.udp }).run(1000)
  assert.ok(use > 1, `use ${use}`)
})

test('what is never answered does not wait for ever', () => {
  const flight = new Flight()
  for (let i = 0; i < 1000; i++) {
    const bytes = segment({
      from: SERVER,
      to: CLIENT,
      ports: [1, 2],
      sequence: i * PAYLOAD,
      payload: PAYLOAD,
    })
    if (flight.isFull(0)) break
    flight.send(bytes, 0, 0)
  }
  assert.ok(flight.isFull(1))
  assert.ok(flight.deadline < 1000)
  assert.ok(!flight.isFull(flight.deadline))
})

test('what was on its way together is given up together', () => {
  const flight = new Flight()
  const own = { from: SERVER, to: CLIENT, ports: [1, 2] as const, payload: PAYLOAD }
  let now = 0
  for (; !flight.isFull(now); now++) flight.send(segment({ ...own, sequence: now * PAYLOAD }), 0, now)
  const patience = flight.deadline
  // The first one says that the way may be longer now, the others say it no more.
  assert.ok(!flight.isFull(patience))
  assert.ok(flight.deadline < 2 * patience)
  assert.ok(!flight.isFull(2 * patience))
  assert.equal(flight.deadline, Number.POSITIVE_INFINITY)
})

test('an acknowledgment of another connection is no marker’s', () => {
  const flight = new Flight()
  const own = { from: SERVER, to: CLIENT, ports: [1, 2] as const, payload: PAYLOAD }
  for (let i = 0; !flight.isFull(0); i++) flight.send(segment({ ...own, sequence: i * PAYLOAD }), 0, 0)
  const answer = { from: CLIENT, to: SERVER, acknowledgment: 1_000_000 }
  flight.hear(segment({ ...answer, ports: [2, 3] }), 0, 1)
  flight.hear(segment({ ...answer, ports: [2, 1], acknowledgment: PAYLOAD - 1 }), 0, 1)
  assert.ok(flight.isFull(1))
  flight.hear(segment({ ...answer, ports: [2, 1] }), 0, 1)
  assert.ok(!flight.isFull(1))
})
