import { type Arena, E, errno, failure, sys } from '#linux/ffi'
import { Segmenter } from '#linux/segmenter'
import { TUN_READ } from '#linux/tun'
import { VIRTIO_HEADER } from '#linux/virtio'
import { Entrance, type Waiting } from '#telescope/entrance'

/** Rooms for packets as long as they get, and for those of ordinary length. */
const LARGE_ROOMS = 64
const SMALL_ROOMS = 512
const SMALL = 2048
/** In front of the virtio header, so that the packet behind it is aligned for sums by words. */
const FRONT = 16 - VIRTIO_HEADER
const LARGE = (FRONT + TUN_READ + 15) & ~15
/** Octets of rooms: what the memory of a thread needs beyond its slots. */
export const INTAKE_LENGTH = LARGE_ROOMS * LARGE + SMALL_ROOMS * SMALL
/** Reads from the TUN before something else has its turn. */
const READS = 64

/** A room with a packet in it, virtio header first, and how much of it has been cut off. */
interface Room extends Waiting {
  readonly at: number
  readonly isLarge: boolean
  readonly segmenter: Segmenter
}

/**
 * Packets the kernel routed into the TUN, from there to their turn at the entrance of their circuit. They are taken
 * out of the device at once, long ones without being copied, because it cannot tell flows apart.
 */
export class Intake {
  readonly #memory: Arena
  readonly #tun: { readonly device: string; readonly tunFd: number }
  readonly #circuitOf: (offset: number, length: number) => object
  readonly #entrance: Entrance<Room>
  readonly #large: Room[]
  readonly #small: Room[]
  #malformed = 0
  #dropped = 0

  /**
   * The rooms begin at `base` of the memory, a multiple of 16. Packets longer than `limit` are not taken.
   * `circuitOf`: an object that stands for the circuit of the packet at an offset.
   */
  constructor(
    memory: Arena,
    base: number,
    limit: number,
    tun: { readonly device: string; readonly tunFd: number },
    circuitOf: (offset: number, length: number) => object,
  ) {
    this.#memory = memory
    this.#tun = tun
    this.#circuitOf = circuitOf
    this.#entrance = new Entrance(crypto.getRandomValues(new Int32Array(1))[0]!)
    const rooms = (count: number, first: number, size: number): Room[] =>
      Array.from({ length: count }, (_, i) => ({
        at: first + i * size + FRONT,
        isLarge: size === LARGE,
        segmenter: new Segmenter(memory, limit),
        octets: 0,
        arrived: 0,
        behind: undefined,
      }))
    this.#large = rooms(LARGE_ROOMS, base, LARGE)
    this.#small = rooms(SMALL_ROOMS, base + LARGE_ROOMS * LARGE, SMALL)
  }

  /** Not such as the kernel was asked for. */
  get malformed(): number {
    return this.#malformed
  }

  /** Pieces that waited too long, and packets for which there was no room. */
  get dropped(): number {
    return this.#dropped
  }

  get entrance(): Entrance<Room> {
    return this.#entrance
  }

  /** Takes what waits in the TUN. @throws IpprivError IPP_HOST_KERNEL */
  fill(now: number): void {
    for (let i = 0; i < READS; i++) {
      const landing = this.#landing()
      const length = sys.read(this.#tun.tunFd, this.#memory.address + landing.at, TUN_READ)
      if (length < 0) {
        this.#large.push(landing)
        const code = errno()
        if (code === E.again || code === E.interrupted) return
        throw failure(`read ${this.#tun.device}`)
      }
      this.#admit(landing, length, now)
    }
  }

  /** Writes the next packet to `to`. @returns its length; 0 when none may go. */
  next(to: number, now: number): number {
    for (;;) {
      const room = this.#entrance.next(now)
      if (room === undefined) return 0
      const isLate = this.#entrance.isLate(now)
      const length = room.segmenter.next(to)
      if (isLate) this.#dropped++
      else this.#entrance.sent(this.#memory.bytes, to, now)
      const { left } = room.segmenter
      this.#entrance.took(left)
      if (left === 0) this.#release(room)
      if (!isLate) return length
    }
  }

  #admit(landing: Room, length: number, now: number): void {
    let room = landing
    const small = FRONT + length <= SMALL ? this.#small.pop() : undefined
    if (small !== undefined) {
      room = small
      this.#memory.bytes.copyWithin(room.at, landing.at, landing.at + length)
      this.#release(landing)
    }
    if (!room.segmenter.begin(room.at, length) || room.segmenter.left === 0) {
      this.#malformed++
      return this.#release(room)
    }
    const offset = room.at + VIRTIO_HEADER
    const octets = length - VIRTIO_HEADER
    const circuit = this.#circuitOf(offset, octets)
    this.#entrance.push(circuit, room, room.segmenter.left, this.#memory.bytes, offset, now)
  }

  /** Where all is full, the flow that fills it loses what it has waited with for longest. */
  #landing(): Room {
    for (;;) {
      const room = this.#large.pop()
      if (room !== undefined) return room
      this.#release(this.#entrance.evict()!)
      this.#dropped++
    }
  }

  #release(room: Room): void {
    ;(room.isLarge ? this.#large : this.#small).push(room)
  }
}
