/** Authorities in virtual time: machines, clocks that are off, and a network that loses, delays and repeats. */
import { equalBytes, utf8 } from '#base/bytes'
import type { NodeId } from '#base/ids'
import { type UnixTime, unixTime } from '#base/time'
import { Authority } from '#directory/authority'
import type { AuthorityEffect, HeldDocument, KeptState, MessageKind } from '#directory/authority-events'
import { encodeMeasurement } from '#directory/measurement'
import { AUTHORITIES, PINNED, TERMS } from '../directory/authorities.ts'
import { crypto, keyPair, PERIOD, START, value } from '../directory/network.ts'
import { seededRng } from './random.ts'

/** One for each authority. */
const MEASURERS = AUTHORITIES.map((_, i) => keyPair(`measurer ${i}`))

export interface Weather {
  readonly loss: number
  readonly duplicate: number
  /** Seconds; each message takes between nothing and this. */
  readonly delay: number
}

interface Flight {
  readonly at: number
  readonly deliver: () => void
}

/** What a dishonest network operator does to a message on its way; undefined: nothing comes. */
export type Meddler = (from: number, to: number, kind: MessageKind, text: string) => string | undefined

export class AuthorityNetwork {
  now = START as number
  readonly alarms: { who: number; name: string; author: number }[] = []
  /** Every document that was published, by authority. */
  readonly published: HeldDocument[][]
  readonly skew: number[]
  readonly dead = new Set<number>()
  meddler: Meddler = (_from, _to, _kind, text) => text
  weather: Weather = { loss: 0, duplicate: 0, delay: 0 }
  readonly machines: Authority[]
  readonly #kept: {
    voted: number
    signed: number
    document: string | undefined
    records: KeptState['records']
  }[]
  readonly #rng
  readonly #threshold: number
  #flights: Flight[] = []

  constructor(seed: number, count = 5, threshold = 3) {
    this.#rng = seededRng(seed)
    this.#threshold = threshold
    this.skew = Array.from({ length: count }, () => 0)
    this.published = this.skew.map(() => [])
    this.#kept = this.skew.map(() => ({ voted: 0, signed: 0, document: undefined, records: new Map() }))
    this.machines = this.skew.map((_, i) => this.#make(i, count))
  }

  /** Its clock. */
  clock(who: number): UnixTime {
    return unixTime(this.now + this.skew[who]!)
  }

  upload(who: number, text: string): void {
    const taken = this.machines[who]!.upload(utf8(text), this.clock(who))
    if (taken.ok) this.#perform(who, taken.value.effects)
  }

  uploadToAll(text: string): void {
    for (const who of this.machines.keys()) this.upload(who, text)
  }

  /** A report of the measurer of one authority. */
  measure(who: number, published: UnixTime, figures: ReadonlyMap<NodeId, number>) {
    const text = value(encodeMeasurement({ published, figures }, MEASURERS[who]!, crypto))
    const taken = this.machines[who]!.measure(utf8(text), this.clock(who))
    if (taken.ok) this.#perform(who, taken.value)
    return taken
  }

  /** Makes everyone hear something, as a stranger with a valid document may. */
  hear(who: number, kind: MessageKind, text: string) {
    const heard = this.machines[who]!.hear(kind, utf8(text), this.clock(who))
    if (heard.ok) this.#perform(who, heard.value)
    return heard
  }

  /** A crash: only what was kept is left. */
  restart(who: number): void {
    this.machines[who] = this.#make(who, this.skew.length)
  }

  /** Lets time pass, five seconds at a time. */
  runUntil(end: number): void {
    for (; this.now < end; this.now += 5) {
      for (const who of this.machines.keys())
        if (!this.dead.has(who)) this.#perform(who, this.machines[who]!.tick(this.clock(who)))
      // What is answered at once may be asked and answered again: bounded by what there is to say.
      for (let round = 0; round < 100; round++) {
        const due = this.#flights.filter(({ at }) => at <= this.now)
        if (due.length === 0) break
        this.#flights = this.#flights.filter(({ at }) => at > this.now)
        for (const { deliver } of due) deliver()
      }
    }
  }

  /** To the end of the period, counted from the start. */
  runPeriods(count: number): void {
    this.runUntil(this.now + count * PERIOD)
  }

  names(who: number): string[] {
    return this.machines[who]!.document?.consensus.nodes.map(({ name }) => name).toSorted() ?? []
  }

  alarmsOf(name: string): string[] {
    return this.alarms.filter((a) => a.name === name).map(({ who, author }) => `${who}:${author}`)
  }

  #make(who: number, count: number): Authority {
    return new Authority({
      key: AUTHORITIES[who]!,
      authorities: PINNED.slice(0, count),
      threshold: this.#threshold,
      terms: TERMS,
      crypto,
      measurers: [MEASURERS[who]!.publicKey],
      kept: this.#kept[who]!,
    })
  }

  #perform(who: number, effects: readonly AuthorityEffect[]): void {
    const kept = this.#kept[who]!
    for (const effect of effects) {
      if (effect.kind === 'keep' && effect.what === 'nodes') {
        const records = new Map(kept.records)
        for (const record of effect.records) records.set(record.descriptor.nodeId, record)
        kept.records = records
      } else if (effect.kind === 'keep') kept[effect.what] = effect.period
      else if (effect.kind === 'publish') {
        kept.document = effect.text
        this.published[who]!.push({ text: effect.text, consensus: effect.consensus })
      } else if (effect.kind === 'tell') {
        for (const to of this.machines.keys()) if (to !== who) this.#fly(who, to, effect.message, effect.text)
      } else if (effect.kind === 'ask') {
        const to = indexOf(effect.who)
        const { question } = effect
        this.#plan(() => {
          if (this.dead.has(to)) return
          const text = this.machines[to]!.answer(question)
          if (text !== undefined) this.#fly(to, who, question.kind, text)
        })
      } else if (effect.kind === 'alarm') {
        const author = effect.author === undefined ? -1 : indexOf(effect.author)
        this.alarms.push({ who, name: effect.name, author })
      }
    }
  }

  #fly(from: number, to: number, kind: MessageKind, text: string): void {
    const said = this.meddler(from, to, kind, text)
    if (said === undefined) return
    const deliver = () => {
      if (!this.dead.has(to)) this.hear(to, kind, said)
    }
    this.#plan(deliver)
    if (this.#rng.fraction() < this.weather.duplicate) this.#plan(deliver)
  }

  #plan(deliver: () => void): void {
    if (this.#rng.fraction() < this.weather.loss) return
    this.#flights.push({ at: this.now + this.#rng.fraction() * this.weather.delay, deliver })
  }
}

const indexOf = (key: Uint8Array): number => PINNED.findIndex((other) => equalBytes(other, key))
