/**
 * SIGKILL of an authority, fifty times, at random instants of uploads and votes. Two others stay alive, and are the
 * witnesses of what it says.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { utf8 } from '#base/bytes'
import type { UnixTime } from '#base/time'
import { openAuthorityStore } from '#directory/authority-store'
import { verifyConsensus } from '#directory/consensus'
import { PINNED } from './authorities.ts'
import { hastyClock, startHasty } from './hasty.ts'
import { crypto, describe, PERIOD, value } from './network.ts'

const KILLS = 50
/** The one that dies. */
const VICTIM = 0

test('killed fifty times: nothing acknowledged is lost, nothing said twice, no half document', {
  timeout: 600_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-crash-'))
  const ports = await freePorts(3)
  const epoch = Date.now()
  const clock = hastyClock(epoch)
  const trust = (now: UnixTime) => ({ authorities: PINNED.slice(0, 3), threshold: 2, now })
  const witnesses = [await startHasty(1, ports, folder, epoch), await startHasty(2, ports, folder, epoch)]
  const dispatcher = new Agent({ connections: 2 })
  const url = `http://127.0.0.1:${ports[VICTIM]}`
  /** By node id: when what was acknowledged was published. */
  const acknowledged = new Map<string, UnixTime>()
  let names = 0
  let documents = 0
  let votes = 0
  let signatures = 0
  let [voted, signed, serial] = [0, 0, 0]
  const upload = async (): Promise<void> => {
    const now = clock.unixTime()
    const { text, descriptor } = describe(`n-${names++}`, { published: now })
    const headers = { 'content-type': 'text/plain' }
    const reply = await request(`${url}/v1/descriptor`, { method: 'POST', headers, body: text, dispatcher })
    await reply.body.dump()
    if (reply.statusCode === 201) acknowledged.set(descriptor.nodeId, now)
  }
  const read = async (): Promise<void> => {
    const reply = await request(`${url}/v1/consensus`, { dispatcher })
    const text = await reply.body.text()
    if (reply.statusCode !== 200) return
    // When it was valid: after a kill the last one may be old.
    const now = (Number(/"validAfter":(\d+)/.exec(text)?.[1]) + 1) as UnixTime
    const consensus = value(verifyConsensus(utf8(text), trust(now), crypto))
    assert.ok(consensus.serial >= serial, 'an older document is served than before')
    if (consensus.serial > serial) documents++
    serial = consensus.serial
  }
  try {
    for (let kill = 0; kill < KILLS; kill++) {
      const child = spawn(
        process.execPath,
        [
          '--disable-warning=ExperimentalWarning',
          join(import.meta.dirname, 'crash-authority.ts'),
          String(VICTIM),
          ports.join(),
          folder,
          String(epoch),
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      const ended = once(child, 'exit')
      try {
        await Promise.race([once(child.stdout, 'data'), ended])
        assert.equal(child.exitCode, null, 'it does not come up')
        const life = sleep(Math.random() * 1500).then(() => child.kill('SIGKILL'))
        const work = async (step: () => Promise<void>, pause: number): Promise<void> => {
          while (!child.killed) {
            try {
              await step()
            } catch (error) {
              // It died in the middle; anything else is a fault.
              if (error instanceof assert.AssertionError || !child.killed) throw error
            }
            await sleep(pause)
          }
        }
        await Promise.all([life, work(upload, 10), work(upload, 10), work(read, 60)])
      } finally {
        child.kill('SIGKILL')
        await ended
      }
      const store = await openAuthorityStore(join(folder, `n${VICTIM}`), crypto)
      const state = await store.load()
      await store.close()
      assert.deepEqual(state.damaged, [])
      for (const [id, published] of acknowledged) {
        // Seven periods after its last word a node is forgotten.
        if (clock.unixTime() - published > 6 * PERIOD) acknowledged.delete(id)
        else {
          const kept = state.records.get(id as never)
          assert.ok(kept, `kill ${kill}: an acknowledged node is gone`)
          assert.ok(kept.descriptor.published >= published)
        }
      }
      assert.ok(state.voted >= voted && state.signed >= signed && state.signed <= state.voted)
      if (state.voted > voted) votes++
      if (state.signed > signed) signatures++
      ;[voted, signed] = [state.voted, state.signed]
      if (state.document === undefined) assert.equal(serial, 0)
      else {
        const now = (Number(/"validAfter":(\d+)/.exec(state.document)?.[1]) + 1) as UnixTime
        const consensus = value(verifyConsensus(utf8(state.document), trust(now), crypto))
        assert.ok(consensus.serial >= serial, 'a document that was served is gone')
        serial = consensus.serial
      }
    }
    for (const { council } of witnesses) {
      assert.equal(council.counters.get('alarm.equivocation'), 0, 'it said two things of one period')
      assert.equal(council.counters.get('alarm.fork'), 0)
      assert.equal(council.counters.get('alarm.signature-invalid'), 0)
    }
    assert.ok(names > 10 * KILLS && acknowledged.size > 0, `${names} uploads`)
    assert.ok(votes >= 5 && signatures >= 2 && documents >= 5, `${votes} ${signatures} ${documents}`)
  } finally {
    await dispatcher.destroy()
    for (const { close } of witnesses) await close()
    await rm(folder, { recursive: true, force: true })
  }
})

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer())
  const ports: number[] = []
  for (const server of servers) {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const bound = server.address()
    if (bound !== null && typeof bound === 'object') ports.push(bound.port)
  }
  for (const server of servers) server.close()
  return ports
}
