/** Authorities that speak HTTP to each other on the loopback, in time that stands still until a test moves it. */
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { IpprivError } from '#base/errors'
import { type UnixTime, unixTime } from '#base/time'
import { type AuthorityStore, openAuthorityStore } from '#directory/authority-store'
import { Council } from '#directory/council'
import type { Member } from '#directory/minutes'
import { createDirectoryServer } from '#directory/server'
import { AUTHORITIES, TERMS } from './authorities.ts'
import { crypto, ManualClock, SILENT } from './network.ts'

export const NAMES = ['ash', 'bay', 'cob', 'dew', 'elk'] as const

export interface Seat {
  readonly council: Council
  readonly app: FastifyInstance
  readonly store: AuthorityStore
  readonly url: string
  /** Makes the next writes fail as a full disk does. */
  breakDisk(broken: boolean): void
}

export class Councils {
  readonly clock = new ManualClock()
  /** Undefined: it was killed. */
  readonly seats: (Seat | undefined)[] = []
  readonly members: Member[]
  readonly #ports: number[] = []
  readonly #threshold: number
  readonly #folder: string

  /** Runs `body` with so many authorities, and leaves nothing behind. */
  static async run(
    body: (councils: Councils) => Promise<void>,
    { count = 5, threshold = 3 } = {},
  ): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'ippriv-council-'))
    const councils = new Councils(folder, count, threshold)
    try {
      for (let who = 0; who < count; who++) await councils.start(who)
      await body(councils)
    } finally {
      for (let who = 0; who < count; who++) await councils.kill(who)
      await rm(folder, { recursive: true, force: true })
    }
  }

  private constructor(folder: string, count: number, threshold: number) {
    this.#folder = folder
    this.#threshold = threshold
    const ports = this.#ports
    this.members = NAMES.slice(0, count).map((name, i) => ({
      name,
      key: AUTHORITIES[i]!.publicKey,
      // Known when it listens; then it stays.
      get url() {
        return `http://127.0.0.1:${ports[i] ?? 1}`
      },
    }))
  }

  seat(who: number): Seat {
    return this.seats[who]!
  }

  async start(who: number): Promise<void> {
    const disk = await openAuthorityStore(join(this.#folder, NAMES[who]!), crypto)
    let broken = false
    const store: AuthorityStore = {
      ...disk,
      write: async (effects) => {
        if (broken) throw new IpprivError('IPP_STATE_UNUSABLE', 'No space left on device')
        await disk.write(effects)
      },
    }
    const { clock, members } = this
    const base = { crypto, clock, log: SILENT }
    const threshold = this.#threshold
    const council = await Council.open({
      ...base,
      store,
      key: AUTHORITIES[who]!,
      members,
      threshold,
      terms: TERMS,
    })
    const generous = { burst: 100_000, perSecond: 1000 }
    const app = createDirectoryServer({
      ...base,
      service: council,
      council,
      uploads: 'anywhere',
      limits: { uploads: generous, reads: generous, messages: generous },
    })
    await app.listen({ host: '127.0.0.1', port: this.#ports[who] ?? 0 })
    this.#ports[who] = (app.server.address() as AddressInfo).port
    this.seats[who] = {
      council,
      app,
      store,
      url: members[who]!.url,
      breakDisk: (now) => {
        broken = now
      },
    }
  }

  async kill(who: number): Promise<void> {
    const seat = this.seats[who]
    this.seats[who] = undefined
    await seat?.app.close()
    await seat?.council.close()
    await seat?.store.close()
  }

  get alive(): Seat[] {
    return this.seats.filter((seat) => seat !== undefined)
  }

  async uploadToAll(text: string): Promise<void> {
    for (const { app } of this.alive)
      await app.inject({
        method: 'POST',
        url: '/v1/descriptor',
        headers: { 'content-type': 'text/plain' },
        payload: text,
      })
  }

  /** Lets time pass; at every stop everyone does what is due, and everything said arrives. */
  async runUntil(end: number, pace = 60): Promise<UnixTime> {
    while (this.clock.seconds < end) {
      this.clock.seconds = Math.min(end, this.clock.seconds + pace)
      await Promise.all(this.alive.map(({ council }) => council.tick()))
      for (const { council } of this.alive) await council.idle()
    }
    return unixTime(this.clock.seconds)
  }
}
