/**
 * Many initiators at once, in steps: all of a batch are ready before the first octet is sent, and what is answered is
 * read only when all answers are there. So while a responder works nobody else does, and its time is its own even on
 * a machine with two cores.
 */
import type { IkeSaId } from '#base/ids'
import type { Ip, UdpEndpoint, UdpPath } from '#base/ip'
import { type Instant, instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { IkeEngine } from '#ikev2/engine'
import { ANY_SELECTOR, type ExpectedPeer, type LocalCredential } from '#ikev2/events'
import { UdpSockets } from '#linux/sockets'

export interface Target {
  readonly endpoint: UdpEndpoint
  readonly peer: ExpectedPeer
  readonly credential: LocalCredential
  readonly hybrid: boolean
  /** It has no data plane: an IKE SA without Child SA is all that is wanted. */
  readonly mayLackChild: boolean
}

/** Fewer than the half-open IKE SAs at which ours and strongSwan begin to demand cookies. */
const BATCH = 24
const REPEAT_AFTER = 1000
const GIVE_UP_AFTER = 20_000

interface Sent {
  readonly path: UdpPath
  readonly bytes: Uint8Array
}

export class Load {
  readonly #target: Target
  readonly #sources: readonly UdpEndpoint[]
  readonly #sockets = new UdpSockets()
  #received: Sent[] = []
  #lastArrival = 0
  #wake: () => void = () => {}

  constructor(target: Target, sources: readonly Ip[], port: number) {
    this.#target = target
    this.#sources = sources.map((address) => ({ address, port }))
    this.#sockets.onDatagram((path, bytes) => {
      this.#received.push({ path, bytes })
      this.#lastArrival = performance.now()
      this.#wake()
    })
    for (const source of this.#sources) this.#sockets.listen(source)
  }

  /** Milliseconds that the responder had for `count` handshakes. @throws Error when one of them fails */
  async handshakes(count: number): Promise<number> {
    let sum = 0
    for (let done = 0; done < count; done += BATCH) sum += await this.#batch(Math.min(BATCH, count - done))
    return sum
  }

  close(): void {
    this.#sockets.close()
  }

  async #batch(size: number): Promise<number> {
    // Time stands still in here, so nothing is retransmitted but by us.
    const now = instant(0)
    const engine = new IkeEngine({ crypto: nodeCrypto })
    const open = new Set<IkeSaId>()
    for (let i = 0; i < size; i++) open.add(engine.initiate(this.#request(i), now))
    let sum = 0
    for (let messages = this.#collect(engine, open); open.size > 0; ) {
      const [duration, next] = await this.#step(engine, open, messages, now)
      sum += duration
      messages = next
    }
    return sum
  }

  /** Sends a message of every initiator, and takes the answers once all are there. What follows them, and how long it took. */
  async #step(
    engine: IkeEngine,
    open: Set<IkeSaId>,
    messages: readonly Sent[],
    now: Instant,
  ): Promise<[number, Sent[]]> {
    const wanted = open.size
    const next: Sent[] = []
    const began = performance.now()
    this.#send(messages)
    for (let missing = wanted; missing > 0; ) {
      if (performance.now() - began > GIVE_UP_AFTER) throw new Error('the responder does not answer')
      // Fragments are more than one to a message: then some answers are still missing, and each is waited for.
      if (!(await this.#arrivals(missing === wanted ? wanted : 1))) this.#send(messages)
      const received = this.#received
      this.#received = []
      for (const { path, bytes } of received) engine.handle({ kind: 'datagram', path, bytes }, now)
      next.push(...this.#collect(engine, open))
      missing = open.size - countInitiators(next)
    }
    return [this.#lastArrival - began, next]
  }

  #send(messages: readonly Sent[]): void {
    for (const { path, bytes } of messages) this.#sockets.send(path, bytes)
  }

  /** Have so many datagrams arrived, within the time after which something must be lost? */
  async #arrivals(count: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, REPEAT_AFTER)
    this.#wake = () => {
      if (this.#received.length >= count) resolve()
    }
    this.#wake()
    await promise
    clearTimeout(timer)
    return this.#received.length >= count
  }

  /** What is to be sent next. Who is done leaves `open`. */
  #collect(engine: IkeEngine, open: Set<IkeSaId>): Sent[] {
    const messages: Sent[] = []
    for (let output = engine.poll(); output !== undefined; output = engine.poll()) {
      if (output.kind === 'transmit') messages.push(output)
      else if (output.kind === 'ike.established') open.delete(output.sa)
      else if (output.kind === 'ike.closed' && open.delete(output.sa)) {
        const { reason, detail } = output
        if (!this.#target.mayLackChild || reason !== 'IPP_IKE_NO_PROPOSAL')
          throw new Error(`${reason}: ${detail}`)
        // Our DELETE stays here: the responder is to keep its IKE SA.
        messages.pop()
      }
    }
    return messages
  }

  #request(index: number) {
    const { endpoint, peer, credential, hybrid } = this.#target
    return {
      path: { local: this.#sources[index % this.#sources.length]!, remote: endpoint },
      credential,
      peer,
      hybrid,
      requestAddress: true,
      localSelectors: [ANY_SELECTOR],
      remoteSelectors: [ANY_SELECTOR],
      espCiphers: ['aes-256-gcm-16'],
    } as const
  }
}

/** Of how many initiators these are: a message may be several fragments. */
const countInitiators = (messages: readonly Sent[]): number =>
  new Set(messages.map(({ bytes }) => Buffer.from(bytes.buffer, bytes.byteOffset, 8).toString('hex'))).size
