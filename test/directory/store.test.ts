import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Level } from 'level'
import { utf8 } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { formatPrefix } from '#base/ip'
import { DirectoryClient } from '#directory/client'
import { verifyConsensus } from '#directory/consensus'
import { DirectoryRegistry } from '#directory/registry'
import { openDirectoryStore } from '#directory/store'
import {
  AUTHORITY,
  at,
  crypto,
  describe,
  listed,
  ManualClock,
  PERIOD,
  PLAN,
  SILENT,
  value,
} from './network.ts'

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-directory-'))
  try {
    await body(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const record = (name: string) => ({ ...listed([name])[0]!, since: at(5) })
const unusable = (where: RegExp) => (error: unknown) =>
  error instanceof IpprivError && error.code === 'IPP_STATE_UNUSABLE' && where.test(error.where)

test('what was stored is there after a reopen', () =>
  inFolder(async (folder) => {
    const first = await openDirectoryStore(folder, crypto)
    assert.deepEqual(await first.load(), { records: new Map(), serial: 0, document: undefined, damaged: [] })
    const alder = record('alder')
    const birch = record('birch')
    await first.putNode(alder)
    await first.putNode(birch)
    await first.putDocument(41, 'text', [birch.descriptor.nodeId])
    await first.close()
    const second = await openDirectoryStore(folder, crypto)
    const state = await second.load()
    assert.deepEqual([...state.records.values()], [alder])
    assert.equal(state.serial, 41)
    assert.equal(state.document, 'text')
    await second.close()
  }))

test('a folder in use, or one that is a file, gives one clear line', () =>
  inFolder(async (folder) => {
    const store = await openDirectoryStore(folder, crypto)
    await assert.rejects(openDirectoryStore(folder, crypto), unusable(/another process uses it/))
    await store.close()
    await writeFile(join(folder, 'file'), '')
    await assert.rejects(
      openDirectoryStore(join(folder, 'file'), crypto),
      unusable(/EEXIST|not a directory/i),
    )
    await assert.rejects(store.putNode(record('alder')), unusable(/not open/i))
  }))

test('damaged entries are ignored and named; a damaged serial is for a person', () =>
  inFolder(async (folder) => {
    const alder = record('alder')
    const store = await openDirectoryStore(folder, crypto)
    await store.putNode(alder)
    await store.close()
    const raw = new Level<string, string>(folder)
    const key = `node!${alder.descriptor.nodeId}`
    const text = await raw.get(key)
    const otherKey = `node!${'0'.repeat(64)}`
    await raw.put(otherKey, text)
    await raw.put('node!short', '{')
    await raw.put(key, text.replace('alder', 'adler'))
    await raw.close()
    const second = await openDirectoryStore(folder, crypto)
    const state = await second.load()
    assert.equal(state.records.size, 0)
    assert.deepEqual([...state.damaged].sort(), [otherKey, key, 'node!short'].sort())
    await second.close()
    const third = new Level<string, string>(folder)
    await third.put('meta!serial', 'seven')
    await third.close()
    const fourth = await openDirectoryStore(folder, crypto)
    await assert.rejects(fourth.load(), unusable(/serial/))
    await fourth.close()
  }))

test('killed by SIGKILL amid uploads: nothing acknowledged is lost, the document is whole', () =>
  inFolder(async (folder) => {
    const acknowledged = new Map<string, string>()
    let lastSerial = 0
    for (let round = 0; round < 4; round++) {
      const names = Array.from({ length: 150 }, (_, i) => `n${round}-${i}`)
      for (const name of await uploadUntilKilled(folder, names, 10 + 30 * round)) {
        const { nodeId } = describe(name).descriptor
        if (!acknowledged.has(nodeId)) acknowledged.set(nodeId, '')
      }
      const store = await openDirectoryStore(join(folder, 'directory.level'), crypto)
      const state = await store.load()
      assert.deepEqual(state.damaged, [])
      const pools = new Set<string>()
      for (const { pool } of state.records.values()) pools.add(formatPrefix(pool))
      assert.equal(pools.size, state.records.size, 'two nodes got one pool')
      for (const [nodeId, pool] of acknowledged) {
        const kept = state.records.get(nodeId as never)
        assert.ok(kept, `round ${round}: an acknowledged node is gone`)
        const now = formatPrefix(kept.pool)
        if (pool !== '') assert.equal(now, pool, 'a pool moved')
        acknowledged.set(nodeId, now)
      }
      const trust = { authorities: [AUTHORITY.publicKey], now: at(0) }
      const consensus = value(verifyConsensus(utf8(state.document ?? ''), trust, crypto))
      assert.equal(consensus.serial, state.serial)
      assert.ok(state.serial >= lastSerial)
      lastSerial = state.serial
      const registry = await DirectoryRegistry.open({
        store,
        key: AUTHORITY,
        crypto,
        clock: new ManualClock(),
        log: SILENT,
        plan: PLAN,
        period: PERIOD,
      })
      assert.equal(registry.publication.consensus.nodes.length, state.records.size)
      lastSerial = registry.publication.consensus.serial
      await store.close()
    }
    assert.ok(acknowledged.size >= 4 * 10)
  }))

/** Uploads with four connections, kills the directory after so many answers; returns the names it confirmed. */
async function uploadUntilKilled(
  folder: string,
  names: readonly string[],
  answers: number,
): Promise<string[]> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'crash-child.ts'), folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    const client = new DirectoryClient({
      urls: [`http://127.0.0.1:${Number(line.toString())}`],
      authorities: [AUTHORITY.publicKey],
      crypto,
      unixTime: () => at(0),
      timeout: 5000,
    })
    const waiting = [...names]
    const confirmed: string[] = []
    const work = async (): Promise<void> => {
      for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
        const answer = await client.publish(describe(name).text)
        if (!answer.ok) return
        confirmed.push(name)
        if (confirmed.length === answers) child.kill('SIGKILL')
      }
    }
    await Promise.all([work(), work(), work(), work()])
    return confirmed
  } finally {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}
