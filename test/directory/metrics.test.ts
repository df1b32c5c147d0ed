/** What a directory that really listens tells those who run it. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startDirectory } from '#directory/daemon'
import { renderMetrics } from '#observe/metrics'
import { AUTHORITY, crypto, PERIOD, PLAN, SILENT } from './network.ts'

test('a status with document and alarms, metrics made of it, and the description of its interface', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'ippriv-metrics-'))
  const directory = await startDirectory({
    listen: { address: '127.0.0.1', port: 0 },
    key: AUTHORITY,
    stateDir,
    plan: PLAN,
    period: PERIOD,
    crypto,
    log: SILENT,
  })
  try {
    const origin = `http://127.0.0.1:${directory.port}`
    const described = (await (await fetch(`${origin}/openapi.json`)).json()) as { paths: object }
    assert.ok(Object.keys(described.paths).includes('/v1/descriptor'))
    assert.ok(!Object.keys(described.paths).includes('/v1/authority/vote'), 'it is alone')
    const status = directory.status()
    assert.deepEqual([status.document?.signatures, status.document?.threshold, status.alarms], [1, 1, []])
    assert.match(renderMetrics(status), /^ippriv_directory_signatures\{role="directory"\} 1$/m)
  } finally {
    await directory.close()
    await rm(stateDir, { recursive: true, force: true })
  }
})
