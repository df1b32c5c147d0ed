/**
 * CoDel (RFC 8289): tells when a queue that has stood for too long should lose a packet, so that the senders slow
 * down. A queue that empties now and then is never touched, however long it gets in between. Times in ms.
 */
const TARGET = 5
const INTERVAL = 100
/** A queue this short is being served: RFC 8289 section 5.4 keeps one packet. */
const ONE_PACKET = 1500

export class CoDel {
  /** When the sojourn time will have been above the target for an interval; 0: it is below. */
  #lateFrom = 0
  #isDropping = false
  #next = 0
  #count = 0
  #lastCount = 0

  /** Is the packet at the head to be dropped? It has waited for `sojourn`; `backlog` octets wait with it. */
  drops(sojourn: number, backlog: number, now: number): boolean {
    const isLate = this.#isLate(sojourn, backlog, now)
    if (this.#isDropping) {
      if (!isLate) this.#isDropping = false
      if (!isLate || now < this.#next) return false
      this.#count++
      this.#next += INTERVAL / Math.sqrt(this.#count)
      return true
    }
    if (!isLate) return false
    this.#isDropping = true
    // It was dropping a short while ago: go on with about the rate that helped (RFC 8289 section 5.5).
    const delta = this.#count - this.#lastCount
    this.#count = delta > 1 && now - this.#next < 16 * INTERVAL ? delta : 1
    this.#lastCount = this.#count
    this.#next = now + INTERVAL / Math.sqrt(this.#count)
    return true
  }

  #isLate(sojourn: number, backlog: number, now: number): boolean {
    if (sojourn < TARGET || backlog <= ONE_PACKET) {
      this.#lateFrom = 0
      return false
    }
    if (this.#lateFrom === 0) this.#lateFrom = now + INTERVAL
    return now >= this.#lateFrom
  }
}
