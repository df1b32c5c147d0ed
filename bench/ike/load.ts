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
import { type ResumptionTicket, wipeTicket } from '#ikev2/resumption/ticket'
import { UdpSockets } from '#linux/sockets'

export interface Target {
  readonly endpoint: UdpEndpoint
  readonly peer: ExpectedPeer
  readonly credential: LocalCredential
  readonly hybrid: boolean
  /** It has no data plane: an IKE SA without Child SA is all that is wanted. */
  readonly mayLackChild: boolean
}

/**
 * What an initiator does: a full handshake, the same and asks for a ticket, one with a ticket up to its IKE_AUTH, or the
 * whole of a resumption: fresh keys for both SAs follow at once, and a new ticket.
 */
type Aim = 'full' | 'ask' | 'resume' | 'renew'

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
  #tickets: ResumptionTicket[] = []
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
    return await this.#all('full', count)
  }

  /** Full handshakes for which the responder gives a ticket each. */
  async collectTickets(count: number): Promise<void> {
    await this.#all('ask', count)
  }

  /** As `handshakes`, with the tickets collected: IKE_SESSION_RESUME and IKE_AUTH, and then the initiator falls silent. */
  async resumptions(count: number): Promise<number> {
    return await this.#all('resume', count)
  }

  /** The whole of `count` resumptions, up to a new ticket; in no steps, so only processor time can be told from it. */
  async renewals(count: number): Promise<number> {
    return await this.#all('renew', count)
  }

  close(): void {
    for (const ticket of this.#tickets) wipeTicket(ticket)
    this.#sockets.close()
  }

  async #all(aim: Aim, count: number): Promise<number> {
    let sum = 0
    for (let done = 0; done < count; done += BATCH)
      sum += await this.#batch(aim, Math.min(BATCH, count - done))
    return sum
  }

  async #batch(aim: Aim, size: number): Promise<number> {
    // Time stands still in here, so nothing is retransmitted but by us.
    const now = instant(0)
    const engine = new IkeEngine({ crypto: nodeCrypto })
    const batch: Batch = { aim, open: new Map() }
    for (let i = 0; i < size; i++) {
      const request = this.#request(aim, i)
      batch.open.set(engine.initiate(request, now), request.path.local.address)
    }
    let sum = 0
    for (let messages = this.#collect(engine, batch); batch.open.size > 0; ) {
      const [duration, next] = await this.#step(engine, batch, messages, now)
      sum += duration
      messages = next
    }
    return sum
  }

  /** Sends a message of every initiator, and takes the answers once all are there. What follows them, and how long it took. */
  async #step(
    engine: IkeEngine,
    batch: Batch,
    messages: readonly Sent[],
    now: Instant,
  ): Promise<[number, Sent[]]> {
    const { aim, open } = batch
    // Who rekeys has several exchanges at once: each answer is followed as it comes.
    const wanted = aim === 'renew' ? 1 : open.size
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
      next.push(...this.#collect(engine, batch))
      missing = aim === 'renew' ? 0 : open.size - countInitiators(next)
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

  /** What is to be sent next. Who is done leaves, and is silent from then on. */
  #collect(engine: IkeEngine, { aim, open }: Batch): Sent[] {
    const messages: Sent[] = []
    const addresses = new Set(open.values())
    const leave = (sa: IkeSaId): boolean => {
      addresses.delete(open.get(sa)!)
      return open.delete(sa)
    }
    for (let output = engine.poll(); output !== undefined; output = engine.poll()) {
      if (output.kind === 'transmit') {
        if (addresses.has(output.path.local.address)) messages.push(output)
      } else if (output.kind === 'ike.established') {
        if (aim === 'full' || aim === 'resume') leave(output.sa)
      } else if (output.kind === 'ticket') {
        if (aim === 'ask') this.#tickets.push(output.ticket)
        else wipeTicket(output.ticket)
        leave(output.sa)
      } else if (output.kind === 'ike.closed' && leave(output.sa)) {
        const { reason, detail } = output
        if (!this.#target.mayLackChild || reason !== 'IPP_IKE_NO_PROPOSAL')
          throw new Error(`${reason}: ${detail}`)
        // Our DELETE stays here: the responder is to keep its IKE SA.
        messages.pop()
      }
    }
    return messages
  }

  #request(aim: Aim, index: number) {
    const { endpoint, peer, credential, hybrid } = this.#target
    const ticket = aim === 'resume' || aim === 'renew' ? this.#tickets.pop() : undefined
    if (ticket === undefined && aim !== 'full' && aim !== 'ask') throw new Error('no ticket is left')
    return {
      path: { local: this.#sources[index % this.#sources.length]!, remote: endpoint },
      credential,
      peer,
      hybrid,
      requestAddress: true,
      localSelectors: [ANY_SELECTOR],
      remoteSelectors: [ANY_SELECTOR],
      espCiphers: ['aes-256-gcm-16'],
      ...(aim === 'full' ? {} : { resume: ticket === undefined ? {} : { ticket } }),
    } as const
  }
}

interface Batch {
  readonly aim: Aim
  /** Those that are not done, and where they are. */
  readonly open: Map<IkeSaId, Ip>
}

/** Of how many initiators these are: a message may be several fragments. */
const countInitiators = (messages: readonly Sent[]): number =>
  new Set(messages.map(({ bytes }) => Buffer.from(bytes.buffer, bytes.byteOffset, 8).toString('hex'))).size
