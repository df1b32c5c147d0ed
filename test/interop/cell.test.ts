/** Cells that could not be tried are told as such, and never as passed. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Absent, type Cell, makeCells } from './cell.ts'

const SCRIPT = fileURLToPath(new URL('../../deploy/strongswan6.sh', import.meta.url))

test('passed, failed and absent, each with its reason; behind what is essential nothing is tried', async () => {
  const told: Cell[] = []
  const { cell, essential } = makeCells((each) => told.push(each))
  assert.equal(await cell('a', 'works', async () => 'fine'), true)
  assert.equal(await cell('a', 'is not here', () => Promise.reject(new Absent('no mirror'))), false)
  await essential('b', 'fails', () => Promise.reject(new Error('two\n  lines')))
  let tried = false
  await cell('b', 'behind', async () => {
    tried = true
    return ''
  })
  assert.equal(tried, false)
  assert.deepEqual(
    told.map(({ state, detail }) => [state, detail]),
    [
      ['passed', 'fine'],
      ['absent', 'no mirror'],
      ['failed', 'two lines'],
      ['failed', 'not tried: fails failed'],
    ],
  )
})

test('a set-up that cannot get the newer strongSwan says why, and leaves that to the cells', async () => {
  const home = await mkdtemp(join(tmpdir(), 'ippriv-strongswan-'))
  try {
    const [deploy, bin] = [join(home, 'deploy'), join(home, 'bin')]
    await mkdir(deploy)
    await mkdir(bin)
    await copyFile(SCRIPT, join(deploy, 'strongswan6.sh'))
    // All that it needs to find out that there is no apt-get.
    for (const [tool, path] of [
      ['dirname', '/usr/bin/dirname'],
      ['rm', '/bin/rm'],
      ['mkdir', '/bin/mkdir'],
    ] as const)
      await symlink(path, join(bin, tool))
    const { status, stderr } = spawnSync('/bin/sh', [join(deploy, 'strongswan6.sh')], {
      env: { PATH: bin },
      encoding: 'utf8',
    })
    assert.equal(status, 1)
    assert.match(stderr, /no strongSwan with ML-KEM from Debian \S+: this is no Debian/)
    const reason = await readFile(join(home, 'node_modules/.cache/strongswan6/reason'), 'utf8')
    assert.equal(reason, 'this is no Debian\n')
  } finally {
    await rm(home, { recursive: true, force: true })
  }
})
