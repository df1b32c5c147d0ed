/** `ippriv directory`: the ceremony of authorities as people do it, and what status and health say. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import {
  type DirectoryReport,
  directoryReport,
  healthLines,
  healthOf,
  NO_DOCUMENT,
  statusLines,
} from '#cli/directory-report'
import { EXIT } from '#cli/output'
import {
  adoptDrafts,
  draftBootstrap,
  draftChange,
  initAuthority,
  signDraft,
  writeDraft,
} from '#daemon/ceremony'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const NODE = ['--disable-warning=ExperimentalWarning', MAIN]
const ENV = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined }
const directory = (...args: readonly string[]) =>
  spawnSync(process.execPath, [...NODE, 'directory', ...args], { encoding: 'utf8', env: ENV })

const done = (...args: readonly string[]): string => {
  const run = directory(...args)
  assert.equal(run.status, EXIT.ok, run.stderr)
  return run.stdout
}

const refused = (pattern: RegExp, ...args: readonly string[]): void => {
  const run = directory(...args)
  assert.notEqual(run.status, EXIT.ok, args.join(' '))
  assert.match(run.stderr, pattern)
}

async function inFolder(body: (at: (...parts: string[]) => string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-ceremony-'))
  try {
    await body((...parts) => join(folder, ...parts))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

test('authorities begin, one is added, one is removed; nothing counts before enough have signed', () =>
  inFolder(async (at) => {
    const names = ['ash', 'beech', 'cedar', 'dogwood']
    const url = (i: number) => `http://198.18.50.${i + 1}:9030`
    const key = (name: string) => at(name, 'keys', 'authority.pem')
    const card = (name: string) => at(name, `${name}.json`)
    done('init', '--name', 'ash', '--url', url(0), '--dir', at('ash'))
    for (const [i, name] of names.entries())
      if (i > 0) await initAuthority({ name, url: url(i), dir: at(name) })
    assert.equal((await stat(key('ash'))).mode & 0o777, 0o600)
    assert.doesNotMatch(await readFile(card('ash'), 'utf8'), /PRIVATE/)
    refused(/exists already/, 'init', '--name', 'ash', '--url', url(0), '--dir', at('ash'))
    for (const odd of [
      { name: 'a<b', url: url(0) },
      { name: 'elm', url: 'http://example.org' },
    ])
      await assert.rejects(initAuthority({ ...odd, dir: at('new') }), malformed)
    const first = ['ash', 'beech', 'cedar'].map(card)
    await assert.rejects(draftBootstrap(first, 1), malformed)

    const [draft, chain, next] = [at('draft'), at('bootstrap'), at('next')]
    const told = done('draft', '--threshold', '2', '--out', draft, ...first)
    assert.match(told, /^document 1: 2 of 3, 0 signatures by now/)
    // Each signs a copy, as by mail.
    await copyFile(draft, at('copy'))
    assert.match(done('sign', '--key', key('ash'), draft), /ash .*signed/)
    refused(/1 valid signatures of its own authorities, 2 needed/, 'adopt', '--bootstrap', chain, draft)
    await assert.rejects(stat(chain))
    await signDraft(at('copy'), key('beech'))
    // A stranger's signature is there, and counts for nothing.
    await signDraft(draft, key('dogwood'))
    await assert.rejects(adoptDrafts(chain, [draft]), unsigned)
    assert.match(
      done('adopt', '--bootstrap', chain, draft, at('copy')),
      /^document 1: 2 of ash, beech, cedar\n$/,
    )

    for (const [change, threshold] of [
      [{ add: card('dogwood') }, 3],
      [{ remove: 'ash' }, 2],
    ] as const) {
      const made = await draftChange(chain, change)
      assert.equal(made.threshold, threshold)
      await writeDraft(next, made)
      await signDraft(next, key('beech'))
      await assert.rejects(adoptDrafts(chain, [next]), unsigned)
      for (const name of ['cedar', 'dogwood']) await signDraft(next, key(name))
      await adoptDrafts(chain, [next])
    }
    refused(/no authority is named ash/, 'remove', 'ash', '--bootstrap', chain, '--out', next)
    assert.equal((await readFile(chain, 'latin1')).match(/^\{"version":1/gm)?.length, 3)
    // Twice the same draft: its serial is over.
    await assert.rejects(adoptDrafts(chain, [next]), replayed)
    // Somebody changed what others signed.
    await writeFile(draft, (await readFile(draft, 'utf8')).replace('"threshold":2', '"threshold":3'))
    await assert.rejects(adoptDrafts(at('other'), [draft]), unsigned)

    // The configuration that init wrote is one: with the chain beside it the authority would start.
    await copyFile(chain, at('beech', 'bootstrap'))
    done('--config', at('beech', 'directory.yaml'), '--check')
    await copyFile(chain, at('ash', 'bootstrap'))
    refused(/none has our key/, '--config', at('ash', 'directory.yaml'), '--check')
  }))

const malformed = { code: 'IPP_DIR_MALFORMED' }
const unsigned = { code: 'IPP_DIR_BAD_SIGNATURE' }
const replayed = { code: 'IPP_DIR_REPLAYED' }

test('a running directory is well, and says so with exit code 0', () =>
  inFolder(async (at) => {
    done('init', '--name', 'ash', '--url', 'http://127.0.0.1:9030', '--dir', at())
    const port = await freePort()
    await writeFile(
      at('alone.yaml'),
      `listen: { address: 127.0.0.1, port: ${port} }\nkeys: keys\nstate: state\ncontrol: socket\n`,
    )
    const child = spawn(process.execPath, [...NODE, 'directory', '--config', at('alone.yaml')], {
      env: ENV,
      stdio: 'ignore',
    })
    try {
      const socket = at('socket')
      let health = directory('health', '--socket', socket)
      for (let i = 0; i < 100 && health.status !== EXIT.ok; i++) {
        await sleep(200)
        health = directory('health', '--socket', socket)
      }
      assert.equal(health.stdout, 'well\n', health.stderr)
      const json = JSON.parse(done('health', '--socket', socket, '--json')) as {
        state: string
        problems: unknown[]
      }
      assert.deepEqual([json.state, json.problems], ['well', []])
      assert.match(done('status', '--socket', socket), /signatures +1 of 1, 1 needed/)
      assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 200)
    } finally {
      const ended = new Promise((gone) => child.once('exit', gone))
      child.kill('SIGTERM')
      await ended
    }
    assert.equal(directory('health', '--socket', at('socket')).status, EXIT.failed)
  }))

const REPORT: DirectoryReport = {
  now: 1_767_230_000,
  serial: 490_897,
  nodes: 8,
  publicKey: 'ab'.repeat(32),
  document: {
    validAfter: 1_767_229_200,
    freshUntil: 1_767_232_800,
    validUntil: 1_767_240_000,
    measured: 6,
    signatures: 5,
    threshold: 3,
    authorities: 5,
  },
  alarms: [],
}

test('health: what is wrong, since when, and how bad it is', () => {
  const health = (changes: Partial<DirectoryReport>) => healthOf({ ...REPORT, ...changes })
  const document = REPORT.document!
  assert.deepEqual(health({}), { state: 'well', exitCode: EXIT.ok, problems: [] })
  const alarm = {
    name: 'vote-missing',
    authority: 'elm',
    since: REPORT.now - 7300,
    last: REPORT.now,
    meaning: 'No vote.',
  }
  const worn = health({ alarms: [alarm], document: { ...document, signatures: 4 } })
  assert.equal(worn.exitCode, EXIT.failed)
  assert.deepEqual(worn.problems[0], {
    name: 'vote-missing',
    authority: 'elm',
    since: '2025-12-31T23:11:40Z',
    seconds: 7300,
    what: 'No vote.',
  })
  assert.match(
    healthLines(worn).join('\n'),
    /vote-missing +elm +2025-12-31T23:11:40Z \(2 h 1 min\) +No vote\./,
  )
  assert.equal(health({ now: document.freshUntil + 1 }).state, 'worn')
  for (const ill of [
    health({ now: document.validUntil }),
    health({ document: null }),
    health({ document: { ...document, signatures: 2 } }),
  ])
    assert.deepEqual([ill.state, ill.exitCode], ['ill', NO_DOCUMENT])
  assert.throws(() => directoryReport({ role: 'node' }), /is no directory/)
  const council = {
    self: 'ash',
    period: 490_898,
    authorities: [
      { name: 'ash', url: 'http://198.18.50.1:9030', lastVote: 490_898, lastSignature: 490_897 },
      {
        name: 'elm',
        url: 'http://198.18.50.5:9030',
        lastVote: 0,
        lastSignature: 0,
        silentSince: REPORT.now - 60,
        clockSkew: -3,
      },
    ],
  }
  const certificates = [{ authority: 'ash', validUntil: REPORT.now + 86_400 }]
  const lines = statusLines({ ...REPORT, council, certificates }).join('\n')
  assert.match(lines, /certificate of ash +until .*\(in 1 d\)/)
  assert.match(lines, /ash\* .*this period +1 periods ago +- +answers/)
  assert.match(lines, /elm .*never +never +-3 s +silent for 1 min/)
})

function freePort(): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>()
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address() as { port: number }
    server.close(() => resolve(port))
  })
  return promise
}
