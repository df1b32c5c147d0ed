import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { formatPrefix } from '#base/ip'
import { openAuthorityStore } from '#directory/authority-store'
import { backupFolder, restoreFolder } from '#directory/backup'
import { startDirectory } from '#directory/daemon'
import { openDirectoryStore } from '#directory/store'
import { NEXT } from './authorities.ts'
import { AUTHORITY, at, crypto, describe, ManualClock, PERIOD, PLAN, SILENT } from './network.ts'

const inFolder = async (body: (folder: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-backup-'))
  try {
    await body(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const unusable = (reason: RegExp) => (error: unknown) =>
  error instanceof IpprivError && error.code === 'IPP_STATE_UNUSABLE' && reason.test(error.message)

const terms = { now: at(600), period: PERIOD }

test('a running directory is backed up; what is restored has its nodes and pools, and no serial twice', () =>
  inFolder(async (folder) => {
    const file = join(folder, 'backup')
    const stateDir = join(folder, 'state')
    const directory = await startDirectory({
      listen: { address: '127.0.0.1', port: 0 },
      key: AUTHORITY,
      stateDir,
      plan: PLAN,
      period: PERIOD,
      crypto,
      log: SILENT,
      clock: new ManualClock(),
      uploads: 'anywhere',
    })
    try {
      for (const name of ['alder', 'birch'])
        await fetch(`http://127.0.0.1:${directory.port}/v1/descriptor`, {
          method: 'POST',
          headers: { 'content-type': 'text/plain' },
          body: describe(name).text,
        })
      // Two nodes, the serial, the document.
      assert.equal(await directory.backup(file), 4)
      await assert.rejects(
        backupFolder(join(stateDir, 'directory.level'), 'directory', file, at(0)),
        unusable(/another process/),
      )
    } finally {
      await directory.close()
    }
    const before = await openDirectoryStore(join(stateDir, 'directory.level'), crypto)
    const old = await before.load()
    await before.close()
    const fresh = join(folder, 'fresh.level')
    assert.equal(await restoreFolder(file, 'directory', fresh, terms), 4)
    const after = await openDirectoryStore(fresh, crypto)
    const state = await after.load()
    await after.close()
    assert.deepEqual(state.damaged, [])
    const pools = ({ records }: typeof state) =>
      [...records.values()].map(({ text, pool }) => `${text} ${formatPrefix(pool)}`).toSorted()
    assert.deepEqual(pools(state), pools(old))
    assert.equal(state.records.size, 2)
    assert.ok(state.serial > old.serial + 599, 'so many documents may have been made since')
  }))

test('an authority that was restored sits out the period it is restored in', () =>
  inFolder(async (folder) => {
    const made = await openAuthorityStore(join(folder, 'a.level'), crypto)
    await made.write([
      { kind: 'keep', what: 'voted', period: NEXT - 5 },
      { kind: 'keep', what: 'signed', period: NEXT - 5 },
    ])
    await made.close()
    const file = join(folder, 'backup')
    await backupFolder(join(folder, 'a.level'), 'authority', file, at(0))
    await restoreFolder(file, 'authority', join(folder, 'b.level'), terms)
    const restored = await openAuthorityStore(join(folder, 'b.level'), crypto)
    const { voted, signed } = await restored.load()
    await restored.close()
    assert.deepEqual([voted, signed], [NEXT, NEXT])
  }))

test('a damaged backup, one of another kind, and a memory that is there are refused', () =>
  inFolder(async (folder) => {
    const store = await openAuthorityStore(join(folder, 'a.level'), crypto)
    await store.write([{ kind: 'keep', what: 'voted', period: 7 }])
    await store.close()
    const file = join(folder, 'backup')
    await backupFolder(join(folder, 'a.level'), 'authority', file, at(0))
    const into = join(folder, 'b.level')
    await assert.rejects(restoreFolder(file, 'directory', into, terms), unusable(/another kind/))
    await assert.rejects(
      restoreFolder(file, 'authority', join(folder, 'a.level'), terms),
      unusable(/not empty/),
    )
    const whole = await readFile(file)
    for (const cut of [0, 1, Math.floor(whole.length / 2), whole.length - 2]) {
      await writeFile(file, whole.subarray(0, cut))
      await assert.rejects(restoreFolder(file, 'authority', into, terms), unusable(/./))
    }
    const spoilt = Buffer.from(whole)
    spoilt[whole.indexOf(utf8('voted'))]! ^= 1
    await writeFile(file, spoilt)
    await assert.rejects(restoreFolder(file, 'authority', into, terms), unusable(/damaged/))
    await writeFile(file, whole)
    assert.equal(await restoreFolder(file, 'authority', into, terms), 1)
    await assert.rejects(
      backupFolder(join(folder, 'absent.level'), 'authority', file, at(0)),
      unusable(/does not exist|NOT_FOUND|./),
    )
  }))
