/** What arrives on an IKE SA: datagrams opened, and fragments put together, in each direction for itself. */

import { earliest, type Instant } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { Channel } from '#ikev2/channel'
import { type Message, Reassembly } from '#ikev2/message/fragment'
import type { ReceivedHeader } from '#ikev2/message/header'

export class Intake {
  readonly #crypto: CryptoProvider
  readonly #requests = new Reassembly()
  readonly #responses = new Reassembly()

  constructor(crypto: CryptoProvider) {
    this.#crypto = crypto
  }

  /**
   * The authentic message that a datagram completes; undefined: pieces are missing. Only datagrams of the message ID
   * that is expected belong here. @throws PeerFault, DecodeError: it is not to be believed
   */
  take(channel: Channel, header: ReceivedHeader, datagram: Uint8Array, now: Instant): Message | undefined {
    const opened = channel.open(header, datagram)
    const reassembly = header.response ? this.#responses : this.#requests
    return reassembly.take(header.messageId, opened, this.#crypto.hash('sha256', datagram), now)
  }

  nextTimeout(): Instant | undefined {
    return earliest(this.#requests.deadline, this.#responses.deadline)
  }

  /** Forgets what was not finished in time. */
  tick(now: Instant): void {
    for (const each of [this.#requests, this.#responses])
      if (each.deadline !== undefined && now >= each.deadline) each.clear()
  }

  clear(): void {
    this.#requests.clear()
    this.#responses.clear()
  }
}
