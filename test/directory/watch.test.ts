import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { IpprivError } from '#base/errors'
import { unixTime } from '#base/time'
import { issueCertificate, type Signer } from '#directory/certificate'
import { signConsensus } from '#directory/consensus'
import {
  decodeHistory,
  encodeHistory,
  extendHistory,
  HISTORY_POINTS,
  type HistoryPoint,
} from '#directory/history'
import { preparePublication } from '#directory/publication'
import { DirectoryWatch, type Watched } from '#directory/watch'
import { AUTHORITIES } from './authorities.ts'
import {
  AUTHORITY,
  crypto,
  draft,
  keyPair,
  listed,
  ManualClock,
  PERIOD,
  SILENT,
  START,
  value,
} from './network.ts'

const NAMES = ['ash', 'beech', 'cedar', 'dogwood', 'elm']

async function published(
  names: readonly string[],
  serial: number,
  signers: readonly Signer[] = [AUTHORITY],
): Promise<Watched> {
  const validAfter = unixTime(serial * PERIOD)
  const signed = value(signConsensus(draft(listed(names), { serial, validAfter }), signers, crypto))
  return { publication: await preparePublication(signed.text, signed.consensus, crypto), problem: undefined }
}

const watchOptions = (clock: ManualClock) => ({
  crypto,
  clock,
  log: SILENT,
  trust: () => ({
    authorities: AUTHORITIES.map(({ publicKey }, i) => ({ name: NAMES[i]!, key: publicKey })),
    threshold: 3,
  }),
  self: AUTHORITIES[1]!.publicKey,
  period: PERIOD,
})

const watchOf = (clock: ManualClock, historyFile?: string): DirectoryWatch =>
  new DirectoryWatch({ ...watchOptions(clock), ...(historyFile === undefined ? {} : { historyFile }) })

test('who signed is found out from the document, and a signature that does not verify does not count', async () => {
  const clock = new ManualClock()
  const watch = watchOf(clock)
  const some = await published(['alder'], START / PERIOD, AUTHORITIES.slice(0, 3))
  const seen = watch.outlook(some)!
  assert.deepEqual(
    seen.authorities.map(({ name, signed, self }) => [name, signed, self]),
    NAMES.map((name, i) => [name, i < 3, i === 1]),
  )
  const { publication } = some
  const text = Buffer.from(publication!.packed.identity).toString('latin1').split('\n')
  text[1] = text[1]!.replace(
    /"signature":"./,
    (found) => found.slice(0, -1) + (found.endsWith('A') ? 'B' : 'A'),
  )
  const forged = await preparePublication(text.join('\n'), publication!.consensus, crypto)
  const again = watch.outlook({ publication: forged, problem: undefined })!
  assert.equal(again.authorities.filter(({ signed }) => signed).length, 2)
})

test('what is wrong, and since when', async () => {
  const clock = new ManualClock()
  const watch = watchOf(clock)
  const good = await published(['alder'], START / PERIOD)
  assert.deepEqual(watch.alarms(good), [])
  const problem = new IpprivError('IPP_STATE_UNUSABLE', 'the disk is full')
  watch.look({ ...good, problem })
  clock.seconds += 100
  watch.look({ ...good, problem })
  clock.seconds += 3 * PERIOD
  const alarms = watch.alarms(good)
  assert.deepEqual(
    alarms.map(({ name, since }) => [name, since - START]),
    [
      ['publishing', 0],
      ['expired', 3 * PERIOD],
    ],
  )
  assert.match(alarms[0]!.detail!, /the disk is full/)
  watch.look(good)
  assert.deepEqual(
    watch.alarms(good).map(({ name }) => name),
    ['expired'],
  )
  assert.equal(watch.outlook({ publication: undefined, problem: undefined }), undefined)
})

test('the history survives a restart, and is not worth an error', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-watch-'))
  const file = join(folder, 'history.json')
  try {
    const first = watchOf(new ManualClock(), file)
    await first.restore()
    first.look(await published(['alder'], START / PERIOD))
    first.look(await published(['alder', 'birch'], START / PERIOD + 1))
    await first.idle()
    const second = watchOf(new ManualClock(), file)
    await second.restore()
    const next = await published(['alder', 'birch', 'cedar'], START / PERIOD + 2)
    assert.deepEqual(
      second.outlook(next)!.history.map(({ nodes }) => nodes),
      [1, 2, 3],
    )
    await second.idle()
    for (const damage of ['', '{', '[{"at":1}]', '[1]', `${(await readFile(file, 'utf8')).slice(0, 50)}`]) {
      await writeFile(file, damage)
      const third = watchOf(new ManualClock(), file)
      await third.restore()
      assert.equal(third.outlook(next)!.history.length, 1, damage)
      await third.idle()
    }
    await rm(file)
    const unwritable = watchOf(new ManualClock(), join(folder, 'absent', 'history.json'))
    await unwritable.restore()
    unwritable.look(next)
    await unwritable.idle()
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('a history is bounded, and documents that are made early do not push the past out', () => {
  const point = (at: number): HistoryPoint => ({ at: unixTime(at), nodes: 1, exits: 1, signatures: 1 })
  let history: readonly HistoryPoint[] = []
  for (let i = 1; i <= 2 * HISTORY_POINTS; i++)
    history = extendHistory(history, point(i * PERIOD), PERIOD / 2)
  assert.equal(history.length, HISTORY_POINTS)
  const past = history[0]
  for (let i = 1; i <= 500; i++)
    history = extendHistory(history, point(2 * HISTORY_POINTS * PERIOD + i), PERIOD / 2)
  assert.equal(history.length, HISTORY_POINTS)
  assert.ok(history[0]!.at - past!.at <= 2 * PERIOD)
  assert.deepEqual(decodeHistory(encodeHistory(history)), history)
  assert.deepEqual(decodeHistory(encodeHistory([point(2), point(1)])), [])
  // A clock that was set back.
  assert.equal(extendHistory(history, point(PERIOD), PERIOD / 2).length, 1)
})

test('certificates that end soon are an alarm to all who see them, and a warning once a day to their owner', async () => {
  const clock = new ManualClock()
  const DAY = 86_400
  const certified = (who: number, days: number): Signer => {
    const pair = keyPair(`signing ${who}`)
    const times = { validAfter: START, validUntil: unixTime(START + days * DAY) }
    return { ...pair, certificate: issueCertificate(pair.publicKey, times, AUTHORITIES[who]!, crypto) }
  }
  const signers = [certified(0, 90), certified(1, 20), certified(2, 9)]
  const warnings: object[] = []
  const watch = new DirectoryWatch({
    ...watchOptions(clock),
    log: { ...SILENT, warn: (fields) => warnings.push(fields) },
    certificate: signers[1]!.certificate!,
  })
  const seen = await published(['alder'], START / PERIOD, signers)
  const standing = () => {
    watch.look(seen)
    return watch.alarms({ publication: undefined, problem: undefined }).map(({ authority }) => authority)
  }
  assert.deepEqual(standing(), [])
  assert.deepEqual(
    watch.certificates().map(({ authority, validUntil }) => [authority, validUntil - START]),
    [
      ['ash', 90 * DAY],
      ['beech', 20 * DAY],
      ['cedar', 9 * DAY],
    ],
  )
  // Nine days: a third of them before the end.
  clock.seconds = START + 6 * DAY
  assert.deepEqual(standing(), ['cedar'])
  assert.equal(warnings.length, 0)
  for (let hour = 0; hour < 48; hour++) {
    clock.seconds = START + 15 * DAY + hour * 3600
    standing()
  }
  assert.deepEqual(standing(), ['cedar', 'beech'])
  assert.equal(warnings.length, 2)
  const [ended, ending] = watch.alarms(seen).filter(({ name }) => name === 'certificate')
  assert.match(ended!.detail!, /^It ended 2026-01-10/)
  assert.match(ending!.detail!, /^It ends 2026-01-21/)
})
