/** How often a daemon asks for documents: not before there can be one, not all at once, and not for ever in vain. */
import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { failure, type Result, success } from '#base/result'
import type { Rng } from '#base/rng'
import { type UnixTime, unixTime } from '#base/time'
import { dueAt } from '#daemon/asking'
import { DirectorySync } from '#daemon/directory-sync'
import type { Fetched } from '#directory/client'
import type { Consensus } from '#directory/documents'
import { crypto } from '../directory/network.ts'

const HOUR = 3600
const rng: Rng = { bytes: (length) => crypto.random(length) }

const document = (serial: number, period = HOUR): Consensus =>
  ({
    serial,
    validAfter: serial * period,
    freshUntil: (serial + 1) * period,
    validUntil: (serial + 3) * period,
    nodes: [],
  }) as unknown as Consensus

/** A network that makes a document an hour, as a daemon sees it, with time that runs as fast as it is computed. */
class World {
  readonly asked: number[] = []
  readonly published: number[] = []
  current: Consensus | undefined
  /** Does the directory answer? */
  isUp = true
  /** Seconds after its time at which a document is there. */
  delay = 0

  get now(): UnixTime {
    return unixTime(Date.now() / 1000)
  }

  async fetchConsensus(): Promise<Result<Fetched>> {
    this.asked.push(this.now)
    if (!this.isUp) return failure('IPP_DIR_UNREACHABLE', 'nobody is there')
    const newest = document(Math.floor((this.now - this.delay) / HOUR))
    if (newest.serial === this.current?.serial) return success({ kind: 'unchanged', consensus: newest })
    this.current = newest
    return success({ kind: 'new', consensus: newest })
  }

  async publish(): Promise<Result<{ known: boolean }>> {
    this.published.push(this.now)
    return success({ known: false })
  }

  /** Runs a daemon for so many seconds. */
  async run(
    seconds: number,
    { isNode = false, isScheduled = true, during = (_second: number): void => undefined } = {},
  ): Promise<void> {
    mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 * HOUR * 1000 })
    const sync = new DirectorySync({
      client: this,
      rng,
      unixTime: () => this.now,
      isScheduled,
      ...(isNode ? { descriptor: () => 'descriptor' } : {}),
      onConsensus: () => undefined,
      onTrouble: () => undefined,
      onRecovered: () => undefined,
    })
    try {
      sync.start()
      for (let second = 0; second < seconds; second++) {
        during(second)
        for (let turn = 0; turn < 5; turn++) await Promise.resolve()
        mock.timers.tick(1000)
      }
    } finally {
      sync.end()
      mock.timers.reset()
    }
  }
}

const START = 1_000_000 * HOUR

test('a document of several authorities is asked for once, in the window of those who ask', async () => {
  for (const isNode of [true, false]) {
    const world = new World()
    await world.run(10 * HOUR, { isNode })
    assert.equal(world.asked[0], START, 'who has none asks at once')
    const offsets = world.asked.slice(1).map((at) => (at - START) % HOUR)
    assert.equal(offsets.length, 9, `asked at ${offsets}`)
    const [from, to] = isNode ? [0, HOUR / 12] : [HOUR / 12, HOUR / 2]
    for (const offset of offsets) assert.ok(offset >= from && offset <= to + 2, `${offset}`)
    assert.ok(new Set(offsets).size > 5, 'not at the same second each time')
  }
})

test('who has a good document asks nobody at the start', async () => {
  const world = new World()
  world.current = document(START / HOUR)
  await world.run(HOUR)
  assert.deepEqual(world.asked, [])
})

test('a document that is late is asked for again, ever more rarely; a directory that is silent, too', async () => {
  const late = new World()
  late.delay = 2400
  await late.run(3 * HOUR, { isNode: true })
  assert.equal(late.current?.serial, START / HOUR + 2)
  const gaps = late.asked.slice(1).map((at, i) => at - late.asked[i]!)
  assert.ok(late.asked.length < 3 * (12 + 2400 / 45), `${late.asked.length} questions`)
  assert.ok(Math.max(...gaps) >= 40)
  const silent = new World()
  await silent.run(5 * HOUR, {
    during: (second) => {
      silent.isUp = second < HOUR || second >= 4 * HOUR
    },
  })
  const outage = silent.asked.filter((at) => at >= START + HOUR && at < START + 4 * HOUR)
  assert.ok(outage.length > 30 && outage.length < 130, `${outage.length} questions in vain`)
  assert.equal(silent.current?.serial, START / HOUR + 4)
})

test('a directory that decides alone may have news at any time', async () => {
  const world = new World()
  await world.run(HOUR, { isScheduled: false, isNode: true })
  assert.ok(world.asked.length > 50, `${world.asked.length}`)
})

test('a calendar that jumps forward is noticed within a minute or so', async () => {
  const world = new World()
  await world.run(600, {
    during: (second) => {
      if (second === 100) mock.timers.setTime((START + 2 * HOUR) * 1000)
    },
  })
  assert.equal(world.current?.serial, START / HOUR + 2)
})

test('the windows: nodes before clients, everybody before the document expires', () => {
  for (let i = 0; i < 2000; i++) {
    const consensus = document(5, 60)
    const [node, client] = [dueAt(consensus, 'node', rng), dueAt(consensus, 'client', rng)]
    assert.ok(node >= 360 && node <= 365, `${node}`)
    assert.ok(client >= 365 && client <= 390, `${client}`)
  }
})
