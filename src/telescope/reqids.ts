import type { ReqId } from '#base/ids'
import { REQID_COUNT, reqId } from '#telescope/plane'

/** Hands out reqids of our range; a returned one is used again only after all others were. */
export class ReqIdAllocator {
  readonly #inUse = new Set<ReqId>()
  #next = 0

  /** @throws RangeError when all are in use (a million SAs): a limit above this one must have been missed. */
  allocate(): ReqId {
    if (this.#inUse.size >= REQID_COUNT) throw new RangeError('every reqid is in use')
    for (;;) {
      const id = reqId(this.#next)
      this.#next = (this.#next + 1) % REQID_COUNT
      if (this.#inUse.has(id)) continue
      this.#inUse.add(id)
      return id
    }
  }

  /** Somebody has it who was here before us. */
  reserve(id: ReqId): void {
    this.#inUse.add(id)
  }

  release(id: ReqId): void {
    this.#inUse.delete(id)
  }
}
