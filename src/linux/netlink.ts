/**
 * A netlink socket to the kernel: requests with acknowledgement, reads, dumps, and batches of requests in one
 * send. The kernel works through a request while it is being sent, so there is one transaction at a time and
 * callers queue.
 */

import { getSystemErrorName } from 'node:util'
import { RawNetlinkSocket } from 'netlink'
import { IpprivError } from '#base/errors'
import type { Duration } from '#base/time'
import type { NetlinkMessage } from '#wire/netlink/message'
import {
  decodeErrno,
  decodeMessages,
  encodeMessages,
  MESSAGE_HEADER_LENGTH,
  NLM_F,
  NLMSG,
} from '#wire/netlink/message'

export interface NetlinkRequest {
  /** For people: what is asked and of which object, `NEWSA 10.0.0.1 -> 10.0.0.2`. Never a key. */
  readonly name: string
  readonly type: number
  /** REQUEST, ACK and DUMP are added where they belong. */
  readonly flags?: number
  readonly payload: Uint8Array
}

/** The kernel's refusal of a request. EPERM is IPP_HOST_PRIVILEGE, everything else IPP_HOST_NETLINK. */
export class NetlinkError extends IpprivError {
  /** `EEXIST`, `ENOSYS`, ... */
  readonly errno: string
  readonly request: string

  constructor(request: string, errno: string, options?: ErrorOptions) {
    const privilege = errno === 'EPERM' || errno === 'EACCES'
    super(privilege ? 'IPP_HOST_PRIVILEGE' : 'IPP_HOST_NETLINK', `${request}: ${errno}`, options)
    this.name = 'NetlinkError'
    this.errno = errno
    this.request = request
  }
}

export const isErrno = (error: unknown, ...names: readonly string[]): boolean =>
  error instanceof NetlinkError && names.includes(error.errno)

const PROTOCOLS = { route: 0, xfrm: 6 } as const
const SOCKET_BUFFER = 1 << 20
/**
 * Bounds of one send. The kernel must be able to queue an error for every message of it in the default
 * receive buffer (212,992 octets; an error repeats the request).
 */
const BATCH_MESSAGES = 64
const BATCH_OCTETS = 32_768
/**
 * Between two messages. The kernel works while it is being asked, so what is not there by then was lost. A thread
 * that got no processor for so long finds it in its socket, and reads it first.
 */
const PATIENCE: Duration = 10_000
const DUMP_ATTEMPTS = 5

interface Transaction {
  readonly last: number
  /** Takes a message whose sequence number belongs to the transaction. */
  readonly take: (message: NetlinkMessage) => void
  readonly fail: (errno: string, cause?: unknown) => void
}

/** @throws NetlinkError from every operation; ENOTCONN once the socket is closed or has failed. */
export class Netlink {
  readonly #socket: RawNetlinkSocket
  readonly #patience: Duration
  #sequence = 0
  #queue: Promise<unknown> = Promise.resolve()
  #current: { readonly first: number; readonly transaction: Transaction } | undefined
  #state: 'open' | 'closed' | 'failed' = 'open'
  #failure: ((error: Error) => void) | undefined
  #group: ((message: NetlinkMessage) => void) | undefined

  /** @throws NetlinkError EPROTONOSUPPORT when the kernel has no such family. */
  constructor(protocol: keyof typeof PROTOCOLS, patience: Duration = PATIENCE) {
    this.#patience = patience
    try {
      this.#socket = new RawNetlinkSocket(PROTOCOLS[protocol], {
        recvBufferSize: SOCKET_BUFFER,
        sendBufferSize: SOCKET_BUFFER,
      })
    } catch (error) {
      throw new NetlinkError(`open netlink ${protocol}`, codeOf(error), { cause: error })
    }
    this.#socket.on('message', (datagram, sender) => {
      // Only the kernel (port 0) may answer: any process can send to our port.
      if (sender.port === 0) this.#receive(datagram)
    })
    this.#socket.on('error', (error) => this.#fault(error))
    // An idle socket does not keep the process alive; a request does.
    this.#socket.unref()
  }

  /**
   * Takes what the kernel says unasked to a multicast group, from now on. A message that does not fit the socket's
   * buffer is lost. @throws NetlinkError
   */
  onGroup(group: number, listener: (message: NetlinkMessage) => void): void {
    try {
      this.#socket.addMembership(group)
    } catch (error) {
      throw new NetlinkError(`join netlink group ${group}`, codeOf(error), { cause: error })
    }
    this.#group = listener
  }

  /** The socket failed for good: nothing can be asked any more. */
  onFailure(listener: (error: Error) => void): void {
    this.#failure = listener
  }

  /** One request that has no answer but success. */
  async request(request: NetlinkRequest): Promise<void> {
    const [error] = await this.batch([request])
    if (error) throw error
  }

  /**
   * Requests in one send where the limits allow, in order. A refused one does not stop the later ones: the
   * result has, for each request, its error or undefined.
   */
  async batch(requests: readonly NetlinkRequest[]): Promise<readonly (NetlinkError | undefined)[]> {
    const results: (NetlinkError | undefined)[] = []
    await this.#exclusive(async () => {
      for (let at = 0; at < requests.length; ) {
        const chunk = takeChunk(requests, at)
        results.push(...(await this.#sendChunk(chunk)))
        at += chunk.length
      }
    })
    return results
  }

  /** One request that is answered by one message. */
  async get(request: NetlinkRequest): Promise<NetlinkMessage> {
    const messages = await this.#exclusive(() => this.#read(request, 0))
    const answer = messages[0]
    if (!answer) throw new NetlinkError(request.name, 'ENODATA')
    return answer
  }

  /** Every message of a dump. Asked again when the table changed under it. @throws NetlinkError EINTR if it always does */
  async dump(request: NetlinkRequest): Promise<readonly NetlinkMessage[]> {
    return this.#exclusive(async () => {
      for (let attempt = 1; ; attempt++) {
        const messages = await this.#read(request, NLM_F.dump)
        const interrupted = messages.some(({ flags }) => (flags & NLM_F.dumpInterrupted) !== 0)
        if (!interrupted) return messages
        if (attempt === DUMP_ATTEMPTS) throw new NetlinkError(request.name, 'EINTR')
      }
    })
  }

  /** Pending requests fail. Idempotent. */
  close(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#current?.transaction.fail('ENOTCONN')
    this.#socket.close()
  }

  /** Runs `work` after everything asked before it. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(work)
    this.#queue = turn.catch(() => undefined)
    return turn
  }

  /** Only the last message asks for an acknowledgement: an error comes unasked. */
  async #sendChunk(chunk: readonly NetlinkRequest[]): Promise<(NetlinkError | undefined)[]> {
    const errors: (NetlinkError | undefined)[] = chunk.map(() => undefined)
    const first = this.#reserve(chunk.length)
    const messages = chunk.map(({ type, flags, payload }, i) => ({
      type,
      flags: NLM_F.request | (flags ?? 0) | (i === chunk.length - 1 ? NLM_F.ack : 0),
      sequence: first + i,
      port: 0,
      payload,
    }))
    await this.#transact(chunk[0]!.name, first, messages, (message, finish) => {
      const errno = decodeErrno(message)
      if (message.type !== NLMSG.error || errno === undefined) return
      const index = message.sequence - first
      if (errno !== 0) errors[index] = new NetlinkError(chunk[index]!.name, errnoName(errno))
      // An error repeats the request, and that may hold a key.
      message.payload.fill(0)
      if (index === chunk.length - 1) finish()
    })
    return errors
  }

  async #read(request: NetlinkRequest, flags: number): Promise<NetlinkMessage[]> {
    const first = this.#reserve(1)
    const answers: NetlinkMessage[] = []
    const message = {
      type: request.type,
      flags: NLM_F.request | (request.flags ?? 0) | flags,
      sequence: first,
      port: 0,
      payload: request.payload,
    }
    let refused: NetlinkError | undefined
    await this.#transact(request.name, first, [message], (answer, finish) => {
      const errno = decodeErrno(answer)
      if (errno !== undefined) {
        if (errno !== 0) refused = new NetlinkError(request.name, errnoName(errno))
        return finish()
      }
      answers.push(answer)
      if ((answer.flags & NLM_F.multi) === 0) finish()
    })
    if (refused) throw refused
    return answers
  }

  #reserve(count: number): number {
    if (this.#sequence + count > 0xffff_ffff) this.#sequence = 0
    const first = this.#sequence + 1
    this.#sequence += count
    return first
  }

  #transact(
    name: string,
    first: number,
    messages: readonly NetlinkMessage[],
    take: (message: NetlinkMessage, finish: () => void) => void,
  ): Promise<void> {
    if (this.#state !== 'open') return Promise.reject(new NetlinkError(name, 'ENOTCONN'))
    const bytes = Buffer.from(encodeMessages(messages).buffer)
    return new Promise<void>((resolve, reject) => {
      const settle = (error?: NetlinkError): void => {
        if (this.#current?.first !== first) return
        this.#current = undefined
        clearTimeout(timer)
        bytes.fill(0)
        if (this.#state === 'open') this.#socket.unref()
        if (error) reject(error)
        else resolve()
      }
      const fail = (errno: string, cause?: unknown): void => settle(new NetlinkError(name, errno, { cause }))
      let late: NodeJS.Immediate | undefined
      // What lies in the socket is read between a timer and an immediate.
      const timer = setTimeout(() => {
        late = setImmediate(fail, 'ETIMEDOUT')
      }, this.#patience)
      const last = first + messages.length - 1
      this.#current = {
        first,
        transaction: {
          last,
          take: (message) => {
            timer.refresh()
            clearImmediate(late)
            take(message, () => settle())
          },
          fail,
        },
      }
      this.#socket.ref()
      this.#socket.send(bytes, {}, (error) => {
        if (error) fail(codeOf(error), error)
      })
    })
  }

  #receive(datagram: Uint8Array): void {
    const messages = decodeMessages(datagram)
    if (!messages) return this.#current?.transaction.fail('EBADMSG')
    for (const message of messages) {
      const current = this.#current
      if (current && message.sequence >= current.first && message.sequence <= current.transaction.last)
        current.transaction.take(message)
      // What nobody asked for has no sequence number.
      else if (message.sequence === 0) this.#group?.(message)
    }
  }

  #fault(error: unknown): void {
    const errno = codeOf(error)
    const pending = this.#current
    pending?.transaction.fail(errno, error)
    // ENOBUFS: an answer was lost, the socket goes on.
    if (errno === 'ENOBUFS' || this.#state !== 'open') return
    this.#state = 'failed'
    this.#failure?.(new NetlinkError('netlink socket', errno, { cause: error }))
  }
}

function takeChunk(requests: readonly NetlinkRequest[], from: number): readonly NetlinkRequest[] {
  let octets = 0
  let to = from
  for (; to < requests.length && to - from < BATCH_MESSAGES; to++) {
    octets += MESSAGE_HEADER_LENGTH + requests[to]!.payload.length
    if (octets > BATCH_OCTETS && to > from) break
  }
  return requests.slice(from, to)
}

const errnoName = (errno: number): string => getSystemErrorName(-errno)

function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : 'EIO'
}
