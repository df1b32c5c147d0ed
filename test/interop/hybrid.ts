/**
 * Cells: ML-KEM-768 beside X25519 (RFC 9242, RFC 9370) with a strongSwan of a newer Debian, which deploy/strongswan6.sh
 * unpacks. A message with the public key is larger than a datagram of ours, and travels in fragments (RFC 7383).
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Absent, type Cells } from './cell.ts'
import type { Charon } from './charon.ts'
import { stockClient } from './clients.ts'
import type { Relay } from './relay.ts'
import { HYBRID, HYBRID_OFFERS } from './routers.ts'
import { LIMIT, type Stage } from './stage.ts'

const UNPACKED = join(import.meta.dirname, '../../node_modules/.cache/strongswan6')
const CIPHER = 'aes-256-gcm-16'
const SUITE = /AES_GCM_16-256\/PRF_HMAC_SHA2_256\/CURVE_25519\/KE1_ML_KEM_768/

export async function playHybrid(cells: Cells, stage: Stage, relay: Relay): Promise<void> {
  const cell: typeof cells.cell = (part, name, work) =>
    cells.cell(part, name, async () => {
      const reason = problem()
      if (reason !== undefined) throw new Absent(reason)
      return await work()
    })

  await cell('c hybrid', 'our node begins the tunnel to charon, X25519 and ML-KEM-768', async () => {
    await relay.run(newCharon(stage, 'cedar'), HYBRID_OFFERS)
    assert.match(await relay.tunnelUp('alder'), SUITE)
    await relay.tunnelUp('birch')
    return fragments(await relay.charon.logFrom(0), /reassembled fragmented IKE message \(\d+ bytes\)/)
  })
  await cell('a hybrid', 'charon as exit', async () => {
    await stage.restartClient(['alder', 'birch', 'cedar'], CIPHER)
    const told = await stage.carries(await stage.circuit(), 'cedar', CIPHER)
    assert.match(/^telescope: .*\n.*\n.*\n.*/m.exec(await relay.charon.sas())?.[0] ?? '', SUITE)
    return told
  })
  for (const kind of ['child', 'ike'] as const) {
    const what = kind === 'ike' ? 'IKE' : 'Child'
    await cell('a hybrid', `charon rekeys the ${what} SA of the exit, with both key exchanges`, async () => {
      followedUp(await relay.rekey(kind, 'telescope'))
      return await stage.carries(await stage.circuit(), 'cedar', CIPHER)
    })
    await cell('a hybrid', `our client rekeys the ${what} SA of the exit, with both`, async () => {
      const circuit = await stage.circuit()
      followedUp(await relay.rekeyedBy('client', kind, { id: circuit.id, hop: 3 }))
      return await stage.carries(circuit, 'cedar', CIPHER)
    })
  }
  await cell('a hybrid', 'charon as middle', async () =>
    stage.carries(await stage.build('alder', 'cedar', 'birch'), 'birch', CIPHER),
  )
  await cell('b hybrid', 'charon through our node, and rekeys both SAs', () =>
    stockClient(stage, newCharon(stage, 'plain'), HYBRID, {
      async meanwhile(charon) {
        assert.match(await charon.sas(), SUITE)
        for (const [kind, name, done] of [
          ['--child', 'everything', /CHILD_SA \S+ established/],
          ['--ike', 'gateway', /IKE_SA \S+ rekeyed/],
        ] as const) {
          const mark = await charon.logLength()
          await charon.swanctl('--rekey', kind, name)
          followedUp(await charon.logged(mark, done, LIMIT))
        }
        return fragments(await charon.logFrom(0), /splitting IKE message \(\d+ bytes\) into \d+ fragments/)
      },
    }),
  )
}

function newCharon(stage: Stage, host: string): Charon {
  return stage.charon(host, 'charon6', join(UNPACKED, 'root'))
}

/** Why there is none, as the set-up said. */
function problem(): string | undefined {
  if (existsSync(join(UNPACKED, 'root/.complete'))) return undefined
  const reason = join(UNPACKED, 'reason')
  return existsSync(reason) ? readFileSync(reason, 'utf8').trim() : 'deploy/strongswan6.sh did not run'
}

function followedUp(log: string): void {
  assert.match(log, /IKE_FOLLOWUP_KE/, 'the rekey had one key exchange')
}

/** The key is larger than a datagram, the ciphertext is not: who asks cuts its message, who answers puts it together. */
function fragments(log: string, pattern: RegExp): string {
  const [found] = pattern.exec(log) ?? []
  assert.ok(found !== undefined, 'there were no fragments')
  return `${SUITE.source.replaceAll('\\', '')}; charon: ${found}`
}
