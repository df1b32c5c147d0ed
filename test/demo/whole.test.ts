/** `ippriv demo` itself, as a person runs it: on lossy cables, interrupted, and with a node that dies. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { CouncilStory } from '#demo/authorities'
import { PROGRAM } from '#demo/daemons'
import type { Report } from '#demo/report'

const missing =
  process.getuid?.() !== 0
    ? 'needs root: it creates network namespaces'
    : ['ip', 'tcpdump', 'curl', 'ping'].find(
        (tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0,
      )
const reason = missing === undefined || missing.startsWith('needs') ? missing : `needs ${missing}`

test('everything holds on cables that lose 2 % of the packets', { timeout: 240_000 }, async (t) => {
  if (reason) return t.skip(reason)
  const run = start(t, '--json', '--loss', '2', '--size', '2')
  assert.equal(await run.ended, 0, run.stderr())
  const report = JSON.parse(run.stdout()) as Report
  assert.equal(run.stdout().trim().split('\n').length, 1, 'exactly one object')
  assert.deepEqual(
    report.checks.filter((check) => !check.ok),
    [],
  )
  assert.ok(report.checks.length >= 19)
  assert.equal(report.plane, 'userspace')
  assert.equal(new Set(report.path).size, 3)
  assert.equal(report.privateAddresses.length, 3)
  assert.equal(report.cipher, 'aes-256-gcm-16')
  assert.equal(report.leaks, 0)
  assert.ok(report.circuitBuildMs > 0 && report.goodputMbps! > 0 && report.directMbps! > 0)
  assert.deepEqual(
    report.exchanges.map((hop) => hop.map((exchange) => exchange.name)),
    Array.from({ length: 3 }, () => ['IKE_SA_INIT', 'IKE_INTERMEDIATE', 'IKE_AUTH']),
  )
  assert.ok(report.sas.client!.length >= 6)
  for (const file of [
    'wireshark/esp_sa',
    'wireshark/ikev2_decryption_table',
    'cable-client.pcap',
    'client.log',
  ])
    assert.ok(statSync(join(run.out, file)).size > 0, file)
  assertNothingLeft(run)
})

test('one of three authorities is killed, and clients go on', { timeout: 600_000 }, async (t) => {
  if (reason) return t.skip(reason)
  const run = start(t, '--json', '--authorities', '3')
  assert.equal(await run.ended, 0, run.stderr())
  const story = JSON.parse(run.stdout()) as CouncilStory
  assert.deepEqual(
    story.checks.filter((check) => !check.ok),
    [],
  )
  assert.equal(story.checks.length, 5)
  assert.deepEqual(story.killed, ['bay'])
  assert.equal(story.circuits.length, 3)
  const [before, after] = story.health
  assert.deepEqual(after?.of.document?.signers.toSorted(), ['ash', 'cob'])
  assert.ok(after.of.document.serial > (before?.of.document?.serial ?? Number.POSITIVE_INFINITY))
  assert.ok(after.of.alarms.every(({ authority }) => authority === 'bay'))
  assertNothingLeft(run)
})

test('an interruption takes everything down', { timeout: 120_000 }, async (t) => {
  if (reason) return t.skip(reason)
  const run = start(t)
  await run.says('starting 5 nodes')
  run.process.kill('SIGINT')
  assert.equal(await run.ended, 130, run.stderr())
  assert.equal(run.stdout(), '')
  assertNothingLeft(run)
})

test('a node that dies is named in one line', { timeout: 120_000 }, async (t) => {
  if (reason) return t.skip(reason)
  const run = start(t)
  await run.says('starting 5 nodes')
  process.kill(await daemonIn(`ippd${run.process.pid}-elm`), 'SIGKILL')
  assert.equal(await run.ended, 1, run.stderr())
  const errors = run
    .stderr()
    .split('\n')
    .filter((line) => line.startsWith('ippriv:'))
  assert.equal(errors.length, 1, run.stderr())
  assert.match(errors[0]!, /ippriv node \(elm\) ended/)
  assertNothingLeft(run)
})

interface Run {
  readonly process: ChildProcess
  readonly out: string
  readonly ended: Promise<number | null>
  stdout(): string
  stderr(): string
  says(text: string): Promise<void>
}

function start(t: { after(f: () => void): void }, ...args: string[]): Run {
  const out = mkdtempSync(join(tmpdir(), 'ippriv-demo-test-'))
  const child = spawn(PROGRAM, ['demo', '--plane', 'userspace', '--out', out, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const text = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (chunk: string) => {
      text[name] += chunk
    })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  t.after(() => {
    child.kill('SIGTERM')
    rmSync(out, { recursive: true, force: true })
  })
  const says = async (wanted: string) => {
    while (!text.stderr.includes(wanted)) {
      assert.equal(child.exitCode, null, `it ended without saying "${wanted}":\n${text.stderr}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  return { process: child, out, ended, says, stdout: () => text.stdout, stderr: () => text.stderr }
}

/** The pid of the `ippriv node` in a namespace, as soon as there is one. */
async function daemonIn(namespace: string): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const pids = execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' }).split('\n')
    for (const pid of pids) {
      const file = `/proc/${pid}/cmdline`
      if (pid !== '' && existsSync(file) && /main\.ts\0node/.test(readFileSync(file, 'utf8')))
        return Number(pid)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return assert.fail(`no daemon in ${namespace}`)
}

function assertNothingLeft(run: Run): void {
  const id = `ippd${run.process.pid}`
  assert.deepEqual(
    readdirSync('/run/netns').filter((name) => name.startsWith(`${id}-`)),
    [],
  )
  assert.ok(!existsSync(`/run/ippriv-demo-${id}`))
}
