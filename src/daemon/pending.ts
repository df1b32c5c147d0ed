/** What was asked of a machine by ticket, and waits for the event that says how it ended. */
export class Pending<T> {
  readonly #waiting = new Map<number, PromiseWithResolvers<T>>()
  #last = 0

  /** `send` gives the machine its input, with a ticket that no other has. */
  ask(send: (ticket: number) => void): Promise<T> {
    const ticket = ++this.#last
    const answer = Promise.withResolvers<T>()
    this.#waiting.set(ticket, answer)
    send(ticket)
    return answer.promise
  }

  /** No ticket: nobody waits. */
  done(ticket: number | undefined, value: T): void {
    this.#take(ticket)?.resolve(value)
  }

  failed(ticket: number | undefined, error: Error): void {
    this.#take(ticket)?.reject(error)
  }

  #take(ticket: number | undefined): PromiseWithResolvers<T> | undefined {
    if (ticket === undefined) return undefined
    const found = this.#waiting.get(ticket)
    this.#waiting.delete(ticket)
    return found
  }
}
